//! One program for the begin and the end of a call.
//!
//! The kernel runs it at both, and at the end only if it returned 0 at the begin. Which of the two it is shows in the
//! thread's instruction: at the begin it is the probed one, at the end the one that the function has returned to.
//!
//! What the programs return matters here, so they are made without aya's macro, whose programs always return 0.

use core::ffi::c_void;

use super::driver_called::{begun, ended};
use super::{TRIED, add_one, registers};
use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::{bpf_get_attach_cookie, bpf_get_current_pid_tgid, bpf_get_func_ip};
use aya_ebpf::programs::ProbeContext;

/// What the program returns if the call's end is wanted.
const WANTED: u32 = 0;
/// What it returns if not.
const UNWANTED: u32 = 1;

/// Whether the function that was probed has returned.
#[inline(always)]
fn is_end(ctx: &ProbeContext) -> bool {
    // SAFETY: the helper takes the context of a uprobe.
    let probed = unsafe { bpf_get_func_ip(ctx.as_ptr()) };
    registers::instruction(ctx) != probed
}

/// A driver function begins, or ends.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn driver_session(ctx: *mut c_void) -> u32 {
    let ctx = ProbeContext::new(ctx);
    // SAFETY: the helper takes the context of a uprobe.
    let cookie = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
    let ids = bpf_get_current_pid_tgid();
    if is_end(&ctx) {
        // SAFETY: the function has returned.
        let (result, stack) = unsafe { registers::returned(ctx.regs) };
        ended(cookie, ids, result, stack);
        return WANTED;
    }
    if begun(&ctx, cookie, ids) {
        WANTED
    } else {
        UNWANTED
    }
}

/// Counts begins and ends of calls.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
extern "C" fn session_tried(ctx: *mut c_void) -> u32 {
    let ctx = ProbeContext::new(ctx);
    if let Some(count) = TRIED.get_ptr_mut(u32::from(is_end(&ctx))) {
        // SAFETY: the pointer is to an aligned value of a map, which lives as long as the program.
        unsafe { add_one(count) }
    }
    // SAFETY: the helper takes the context of a uprobe.
    match unsafe { bpf_get_attach_cookie(ctx.as_ptr()) } {
        0 => WANTED,
        _ => UNWANTED,
    }
}
