//! Where the C library of a process keeps a thread's own id, so that the page's code can name the caller without a
//! system call.

use super::check::read_proc;
use super::stopped::Stopped;
use crate::sys::status::innermost_id;
use crate::sys::vm;

/// Offsets of `tid` in `struct pthread`, to which the thread pointer points: glibc (2.4 and newer, `nptl/descr.h`), musl
/// (1.2, `src/internal/pthread_impl.h`).
const KNOWN: [u32; 2] = [0x2d0, 0x30];

/// The offset from the thread pointer; `None` if the id stands at none of the known ones. A known one is believed only
/// if the stopped thread's id stands there.
pub(super) fn offset(pid: u32, thread: &Stopped) -> Option<u32> {
    let pointer = thread.thread_pointer();
    // Both libraries keep the pointer itself in its first word.
    if pointer == 0 || vm::read_value::<u64>(pid, pointer).ok()? != pointer {
        return None;
    }
    let status = read_proc(pid, &format!("task/{}/status", thread.tid())).ok()?;
    let own = innermost_id(&status)?;
    KNOWN.into_iter().find(|offset| {
        vm::read_value::<u32>(pid, pointer + u64::from(*offset)).is_ok_and(|found| found == own)
    })
}
