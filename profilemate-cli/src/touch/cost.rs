//! What touching has cost the targets of this tracer.

use std::sync::atomic::{AtomicU64, Ordering};

static STOOD_NS: AtomicU64 = AtomicU64::new(0);

/// A thread stood still for so long.
#[cfg_attr(
    not(target_arch = "x86_64"),
    expect(dead_code, reason = "no thread is stopped on other architectures yet")
)]
pub(super) fn stood(ns: u64) {
    STOOD_NS.fetch_add(ns, Ordering::Relaxed);
}

/// For how long threads of all targets have stood still so far, summed, in nanoseconds.
pub fn stood_ns() -> u64 {
    STOOD_NS.load(Ordering::Relaxed)
}
