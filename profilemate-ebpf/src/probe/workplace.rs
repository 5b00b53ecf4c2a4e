//! Workplaces: taken by an event, given back at its end.
//!
//! A program that a uprobe runs can be interrupted by another one on the same CPU, so a place per CPU would not do.
//! Each CPU has a few places where it looks first, and each place has an owner.

use super::WORKPLACES;
use super::machine::Workplace;
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_smp_processor_id};
use profilemate_ebpf::WORKPLACE_COUNT;

/// Places that an event tries.
const TRIES: u32 = 4;

/// A free place, now the current thread's.
#[inline(always)]
pub(super) fn take() -> Option<*mut Workplace> {
    let thread = bpf_get_current_pid_tgid();
    choose(|place| {
        // SAFETY: a pointer to a map's value, which lives as long as the program.
        unsafe { compare_exchange(&raw mut (*place).owner, 0, thread) == 0 }
    })
}

/// The place that the current thread has taken. (The CPU is still the same: a program does not migrate.)
#[inline(always)]
pub(super) fn find() -> Option<*mut Workplace> {
    let thread = bpf_get_current_pid_tgid();
    choose(|place| {
        // SAFETY: a pointer to a map's value; volatile because others change it.
        unsafe { (&raw const (*place).owner).read_volatile() == thread }
    })
}

/// The first of this CPU's places that is the `right` one.
#[inline(always)]
fn choose(right: impl Fn(*mut Workplace) -> bool) -> Option<*mut Workplace> {
    // SAFETY: the helper takes nothing.
    let first = unsafe { bpf_get_smp_processor_id() }.wrapping_mul(TRIES);
    let mut chosen = None;
    for index in 0..TRIES {
        let number = first.wrapping_add(index) & (WORKPLACE_COUNT - 1);
        let place = WORKPLACES.get_ptr_mut(number)?;
        if right(place) {
            // SAFETY: as above. The number comes back out of memory, so that the verifier, which would walk all that
            // follows once for each of the tries, can not tell them apart.
            chosen = Some(unsafe {
                (&raw mut (*place).number).write_volatile(number);
                (&raw const (*place).number).read_volatile()
            });
            break;
        }
    }
    WORKPLACES.get_ptr_mut(chosen?)
}

/// Gives `place` back.
#[inline(always)]
pub(super) fn give_back(place: *mut Workplace) {
    // SAFETY: a pointer to a map's value, which this event owns until now.
    unsafe { (&raw mut (*place).owner).write_volatile(0) };
}

/// Writes `new` to `target` if that holds `old`; what it held.
///
/// # Safety
///
/// `target` is valid and aligned.
#[cfg(target_arch = "bpf")]
#[inline(always)]
unsafe fn compare_exchange(target: *mut u64, old: u64, new: u64) -> u64 {
    use core::intrinsics::{AtomicOrdering, atomic_cxchg};
    // SAFETY: as the caller says.
    unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
            target, old, new,
        )
        .0
    }
}

/// # Safety
///
/// `target` is valid and aligned.
#[cfg(not(target_arch = "bpf"))]
unsafe fn compare_exchange(target: *mut u64, old: u64, new: u64) -> u64 {
    // SAFETY: as the caller says.
    unsafe {
        let found = *target;
        if found == old {
            *target = new;
        }
        found
    }
}
