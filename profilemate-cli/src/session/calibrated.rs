//! The length of a cycle of the counter, as this process finds it.

use std::sync::OnceLock;
use std::time::Duration;

use crate::sys::clock;

/// Time between the two readings.
const BASELINE: Duration = Duration::from_millis(10);

/// Nanoseconds of a number of cycles.
pub(super) fn nanoseconds(cycles: u64) -> u64 {
    static NS_PER_CYCLE: OnceLock<f64> = OnceLock::new();
    let ns_per_cycle = NS_PER_CYCLE.get_or_init(|| {
        let first = (clock::cycles(), clock::monotonic_ns());
        std::thread::sleep(BASELINE);
        let second = (clock::cycles(), clock::monotonic_ns());
        let cycles = second.0.saturating_sub(first.0).max(1);
        second.1.saturating_sub(first.1) as f64 / cycles as f64
    });
    (cycles as f64 * ns_per_cycle) as u64
}
