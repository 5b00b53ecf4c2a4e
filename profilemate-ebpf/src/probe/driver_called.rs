//! A driver function was called, or returned.
//!
//! What a thread has done and which of its calls have begun stands in its entry (`seat`). A call and its end are matched
//! by the stack pointer: a call whose frame was left without a return (`longjmp`) is dropped when a later one shows
//! that its frame is gone.

use super::registers::{self, Entry};
use super::{Count, DRIVER_CALLS, EVENTS, add_one, count, seat, walk};
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::{
    bpf_get_attach_cookie, bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_probe_read_user,
};
use aya_ebpf::macros::{uprobe, uretprobe};
use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use profilemate_common::driver::{
    BYTES_ARGUMENT, BYTES_ARGUMENT32, BYTES_EXTENT, DEPTH, DriverCalled, FUNCTIONS, Function,
    KIND_DRIVER_CALLED, Open, Thread, Told,
};
use profilemate_common::record::{PHASE_ENTRY, PHASE_RETURN};

const FLAGS: u64 = BPF_RB_NO_WAKEUP as u64;

/// A driver function begins.
#[uprobe]
#[inline(always)]
fn driver_called(ctx: ProbeContext) -> u32 {
    // SAFETY: the helper takes the context of a uprobe.
    let cookie = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
    begun(&ctx, cookie, bpf_get_current_pid_tgid());
    0
}

/// A driver function ends whose end is told.
#[uretprobe]
#[inline(always)]
fn driver_returned(ctx: RetProbeContext) -> u32 {
    // SAFETY: the helper takes the context of a uprobe.
    let cookie = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
    // SAFETY: the function has returned.
    let (result, stack) = unsafe { registers::returned(ctx.regs) };
    ended(cookie, bpf_get_current_pid_tgid(), result, stack);
    0
}

/// A call begins; whether its end is to be told.
#[inline(always)]
pub(super) fn begun(ctx: &ProbeContext, cookie: u64, ids: u64) -> bool {
    let function = cookie as u8;
    if let Some(calls) = DRIVER_CALLS.get_ptr_mut(u32::from(function) & (FUNCTIONS as u32 - 1)) {
        // SAFETY: the pointer is to an aligned value of a map, which lives as long as the program.
        unsafe { add_one(calls) }
    }
    let Some(thread) = seat::take(ids) else {
        count(Count::DriverFiltered);
        return false;
    };
    // SAFETY: a value of a map, which only this thread uses.
    let thread = unsafe { &mut *thread };
    let entry = registers::entry(ctx);
    let told = (cookie >> 8) as u8;
    if told == Told::Counted as u8 {
        count_call(thread, cookie, &entry);
        count(Count::DriverCounted);
        if walk::is_on() {
            // SAFETY: the helper takes nothing.
            walk::at_driver(ctx, thread, function, unsafe { bpf_ktime_get_ns() });
        }
        return false;
    }
    if told == Told::AtReturn as u8 {
        let opened = open(thread, cookie, &entry);
        count(opened);
        let Count::DriverOpened = opened else {
            return false;
        };
        if walk::is_on() {
            // The call that has been put there last.
            // SAFETY: within the array.
            let entry_ns = unsafe { (*at(thread, thread.depth - 1)).entry_ns };
            walk::at_driver(ctx, thread, function, entry_ns);
        }
        return true;
    }
    count_call(thread, cookie, &entry);
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    let call = Open {
        stack: entry.stack,
        cookie,
        entry_ns: now,
        args: [entry.args[0], entry.args[1], entry.args[2]],
    };
    let told = tell(ids, &call, PHASE_ENTRY, now, 0, 0, thread);
    count(if told {
        Count::DriverSubmitted
    } else {
        Count::DriverLost
    });
    if walk::is_on() {
        walk::at_driver(ctx, thread, function, now);
    }
    false
}

/// A call ends whose end is told.
#[inline(always)]
pub(super) fn ended(cookie: u64, ids: u64, result: u64, stack: u64) {
    let Some(thread) = seat::find(ids) else {
        return;
    };
    // SAFETY: a value of a map, which only this thread uses.
    let thread = unsafe { &mut *thread };
    let Some(call) = close(thread, cookie, stack) else {
        // It began before it was probed, or was not to be told.
        return;
    };
    let result = u64::from(result as u32);
    let out = if result == 0 { out(&call) } else { 0 };
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    let told = tell(ids, &call, PHASE_RETURN, now, result, out, thread);
    count(if told {
        Count::DriverEnded
    } else {
        Count::DriverEndLost
    });
}

/// Adds a call to its thread's totals.
#[inline(always)]
fn count_call(thread: &mut Thread, cookie: u64, entry: &Entry) {
    let function = cookie as u8;
    if function == Function::KernelLaunch as u8 {
        thread.totals.kernels += 1;
    } else if function == Function::GraphLaunch as u8 {
        thread.totals.graph_launches += 1;
    } else if function == Function::CopyAsync as u8 {
        thread.totals.copies += 1;
        let bytes = bytes(cookie, entry);
        thread.totals.copied_bytes = thread.totals.copied_bytes.wrapping_add(bytes);
    }
}

/// How much a call copies.
#[inline(always)]
fn bytes(cookie: u64, entry: &Entry) -> u64 {
    let way = cookie >> 40 & 0xff;
    let at = cookie >> 48 & 0xff;
    if way == BYTES_ARGUMENT || way == BYTES_ARGUMENT32 {
        let value = match at {
            0 => entry.args[0],
            1 => entry.args[1],
            2 => entry.args[2],
            3 => entry.args[3],
            4 => entry.args[4],
            _ => entry.args[5],
        };
        return if way == BYTES_ARGUMENT {
            value
        } else {
            u64::from(value as u32)
        };
    }
    if way != BYTES_EXTENT {
        return 0;
    }
    let numbers = entry.args[0].wrapping_add(at);
    let extent = word(numbers).wrapping_mul(word(numbers.wrapping_add(8)));
    if cookie >> 56 == 3 {
        extent.wrapping_mul(word(numbers.wrapping_add(16)))
    } else {
        extent
    }
}

/// A word of the target's memory; 0 if it cannot be read, in which case the call cannot read it either.
#[inline(always)]
fn word(address: u64) -> u64 {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(address as *const u64) }.unwrap_or(0)
}

/// Notes that a call has begun, unless a call of the same function is what calls it: that one is told.
#[inline(always)]
fn open(thread: &mut Thread, cookie: u64, entry: &Entry) -> Count {
    let mut depth = 0;
    let mut nested = false;
    for index in 0..DEPTH as u32 {
        if index >= thread.depth {
            break;
        }
        let outer = at(thread, index);
        // SAFETY: within the array.
        let (stack, other) = unsafe { ((*outer).stack, (*outer).cookie) };
        if stack < entry.stack {
            // Its frame is gone, and so are those that it called.
            break;
        }
        depth = index + 1;
        nested |= other as u8 == cookie as u8;
    }
    thread.depth = depth;
    if nested || depth >= DEPTH as u32 {
        return Count::DriverFiltered;
    }
    count_call(thread, cookie, entry);
    let call = Open {
        stack: entry.stack,
        cookie,
        // SAFETY: the helper takes nothing.
        entry_ns: unsafe { bpf_ktime_get_ns() },
        args: [entry.args[0], entry.args[1], entry.args[2]],
    };
    // SAFETY: within the array.
    unsafe { at(thread, depth).write(call) };
    thread.depth = depth + 1;
    Count::DriverOpened
}

/// Takes out the call that ends, and those within it whose frames are gone.
#[inline(always)]
fn close(thread: &mut Thread, cookie: u64, stack: u64) -> Option<Open> {
    let mut depth = thread.depth;
    for _ in 0..DEPTH {
        if depth == 0 {
            break;
        }
        // SAFETY: within the array.
        if unsafe { (*at(thread, depth - 1)).stack } >= stack {
            break;
        }
        depth -= 1;
    }
    thread.depth = depth;
    if depth == 0 {
        return None;
    }
    // SAFETY: within the array.
    let call = unsafe { at(thread, depth - 1).read() };
    if call.stack != stack || call.cookie != cookie {
        return None;
    }
    thread.depth = depth - 1;
    Some(call)
}

/// A place among a thread's calls.
#[inline(always)]
fn at(thread: &mut Thread, index: u32) -> *mut Open {
    // Volatile, so that the compiler does not forget the mask, which the verifier wants to see.
    let mut index = index;
    // SAFETY: a valid reference.
    let index = unsafe { (&raw mut index).read_volatile() } as usize & (DEPTH - 1);
    // SAFETY: the mask keeps it within the array.
    unsafe { thread.open.as_mut_ptr().add(index) }
}

/// The handle that a call has made.
#[inline(always)]
fn out(call: &Open) -> u64 {
    let pointer = match call.cookie >> 32 & 0xff {
        1 => call.args[0],
        2 => call.args[1],
        3 => call.args[2],
        _ => return 0,
    };
    word(pointer)
}

/// Puts a record of the call into the ring buffer; whether there was room.
#[inline(always)]
fn tell(
    ids: u64,
    call: &Open,
    phase: u8,
    ts_ns: u64,
    result: u64,
    out: u64,
    thread: &Thread,
) -> bool {
    let Some(mut record) = EVENTS.reserve::<DriverCalled>(0) else {
        return false;
    };
    record.write(DriverCalled {
        kind: KIND_DRIVER_CALLED,
        library: (call.cookie >> 16) as u16,
        function: call.cookie as u8,
        phase,
        reserved: 0,
        pid: (ids >> 32) as u32,
        tid: ids as u32,
        entry_ns: call.entry_ns,
        ts_ns,
        args: call.args,
        result,
        out,
        totals: thread.totals,
    });
    record.submit(FLAGS);
    true
}
