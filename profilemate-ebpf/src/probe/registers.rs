//! What the processor's registers hold: at the marker page's probed instruction, and where a C function begins and ends.

use aya_ebpf::bindings::pt_regs;
use aya_ebpf::programs::ProbeContext;

/// A pass through the probed instruction.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Mark {
    /// The function object.
    pub(super) callable: u64,
    /// Address of the arguments.
    pub(super) args: u64,
    /// Cycle counter when the call began.
    pub(super) entry_cycles: u64,
    /// Tuple of keyword names, or 0.
    pub(super) kwnames: u64,
    /// Slot in the upper half, positional arguments in the lower one.
    pub(super) slot_nargs: u64,
    /// Result, or 0.
    pub(super) result: u64,
    /// Cycle counter when the call ended, or 0.
    pub(super) return_cycles: u64,
    /// One of `PHASE_*`.
    pub(super) phase: u64,
}

/// Reads the registers as the marker page sets them.
#[inline(always)]
pub(super) fn read(ctx: &ProbeContext) -> Mark {
    // SAFETY: the kernel hands the program a valid `pt_regs`.
    let regs = unsafe { &*ctx.regs };
    #[cfg(any(bpf_target_arch = "x86_64", target_arch = "x86_64"))]
    return Mark {
        callable: regs.rbx,
        args: regs.r12,
        entry_cycles: regs.r13,
        kwnames: regs.r14,
        slot_nargs: regs.r15,
        result: regs.rax,
        return_cycles: regs.r9,
        phase: regs.r8,
    };
    #[cfg(any(bpf_target_arch = "aarch64", target_arch = "aarch64"))]
    return Mark {
        callable: regs.regs[19],
        args: regs.regs[20],
        entry_cycles: regs.regs[21],
        kwnames: regs.regs[22],
        slot_nargs: regs.regs[23],
        result: regs.regs[0],
        return_cycles: regs.regs[9],
        phase: regs.regs[10],
    };
}

/// What a function was called with.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    /// The arguments that lie in registers.
    pub(super) args: [u64; 6],
    /// Stack pointer.
    pub(super) stack: u64,
}

/// Reads the registers at the entry of a C function.
#[inline(always)]
pub(super) fn entry(ctx: &ProbeContext) -> Entry {
    // SAFETY: the kernel hands the program a valid `pt_regs`.
    let regs = unsafe { &*ctx.regs };
    #[cfg(any(bpf_target_arch = "x86_64", target_arch = "x86_64"))]
    return Entry {
        args: [regs.rdi, regs.rsi, regs.rdx, regs.rcx, regs.r8, regs.r9],
        stack: regs.rsp,
    };
    #[cfg(any(bpf_target_arch = "aarch64", target_arch = "aarch64"))]
    return Entry {
        args: [
            regs.regs[0],
            regs.regs[1],
            regs.regs[2],
            regs.regs[3],
            regs.regs[4],
            regs.regs[5],
        ],
        stack: regs.sp,
    };
}

/// Address of the instruction at which the thread is.
#[inline(always)]
pub(super) fn instruction(ctx: &ProbeContext) -> u64 {
    // SAFETY: the kernel hands the program a valid `pt_regs`.
    let regs = unsafe { &*ctx.regs };
    #[cfg(any(bpf_target_arch = "x86_64", target_arch = "x86_64"))]
    return regs.rip;
    #[cfg(any(bpf_target_arch = "aarch64", target_arch = "aarch64"))]
    return regs.pc;
}

/// What a C function returned, and the stack pointer that it was entered with.
///
/// # Safety
///
/// `regs` is what the kernel hands a program whose function has returned.
#[inline(always)]
pub(super) unsafe fn returned(regs: *const pt_regs) -> (u64, u64) {
    // SAFETY: as the caller says.
    let regs = unsafe { &*regs };
    #[cfg(any(bpf_target_arch = "x86_64", target_arch = "x86_64"))]
    // The return address has been taken off the stack.
    return (regs.rax, regs.rsp.wrapping_sub(8));
    #[cfg(any(bpf_target_arch = "aarch64", target_arch = "aarch64"))]
    return (regs.regs[0], regs.sp);
}
