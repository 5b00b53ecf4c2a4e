//! Where the entry of a thread is: in an array, at the place that the last digits of its id name, which costs no hashing.
//! A thread whose place is taken by another one has its entry in a hash.
//!
//! Only the thread itself writes its entry, so nothing there needs to be atomic. User space clears the entries of
//! threads that have ended.

use super::{NEW_THREAD, OWNERS, SEATS, THREADS};
use aya_ebpf::bindings::BPF_NOEXIST;
use profilemate_common::driver::{Thread, Totals};
use profilemate_ebpf::SEAT_COUNT;

/// The entry of the current thread; a new one if it has none.
#[inline(always)]
pub(super) fn take(ids: u64) -> Option<*mut Thread> {
    let (pid, tid) = ((ids >> 32) as u32, ids as u32);
    let index = tid & (SEAT_COUNT - 1);
    let seat = SEATS.get_ptr_mut(index)?;
    // SAFETY: a value of a map; if the thread is in it, nobody else writes it.
    let (has_tid, has_pid) = unsafe { ((*seat).tid, (*seat).pid) };
    if has_tid == tid && has_pid == pid {
        return Some(seat);
    }
    if let Some(thread) = THREADS.get_ptr_mut(tid) {
        // SAFETY: as above.
        if unsafe { (*thread).pid } == pid {
            return Some(thread);
        }
    }
    // That of an ended thread of another process, or of nobody.
    if has_tid == tid || OWNERS.insert(&index, &tid, BPF_NOEXIST as u64).is_ok() {
        // SAFETY: the place is this thread's. The ids last, for user space.
        unsafe {
            (*seat).depth = 0;
            (*seat).waited = 0;
            (*seat).walked_ns = 0;
            (*seat).totals = Totals {
                graph_launches: 0,
                kernels: 0,
                copies: 0,
                copied_bytes: 0,
            };
            (*seat).tid = tid;
            (*seat).pid = pid;
        }
        return Some(seat);
    }
    let empty = NEW_THREAD.get(0)?;
    THREADS.insert(tid, empty, 0).ok()?;
    let thread = THREADS.get_ptr_mut(tid)?;
    // SAFETY: as above.
    unsafe {
        (*thread).pid = pid;
        (*thread).tid = tid;
    }
    Some(thread)
}

/// The entry of the current thread, if it has one.
#[inline(always)]
pub(super) fn find(ids: u64) -> Option<*mut Thread> {
    let (pid, tid) = ((ids >> 32) as u32, ids as u32);
    let seat = SEATS.get_ptr_mut(tid & (SEAT_COUNT - 1))?;
    // SAFETY: as in `take`.
    if unsafe { (*seat).tid == tid && (*seat).pid == pid } {
        return Some(seat);
    }
    THREADS.get_ptr_mut(tid)
}
