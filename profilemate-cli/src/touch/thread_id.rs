//! Where the C library of a process keeps a thread's own id, so that the page's code can name the caller without a
//! system call.

use super::check::read_proc;
use super::stopped::Stopped;
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
    let own = innermost(&status)?;
    KNOWN.into_iter().find(|offset| {
        vm::read_value::<u32>(pid, pointer + u64::from(*offset)).is_ok_and(|found| found == own)
    })
}

/// The id in the innermost pid namespace, which is the one that the thread sees.
fn innermost(status: &str) -> Option<u32> {
    let ids = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    ids.split_ascii_whitespace().next_back()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_id_is_the_last() {
        assert_eq!(innermost("Pid:\t7\nNSpid:\t700\t7\n"), Some(7));
        assert_eq!(innermost("NSpid:\t700\n"), Some(700));
        assert_eq!(innermost("Pid:\t7\n"), None);
    }
}
