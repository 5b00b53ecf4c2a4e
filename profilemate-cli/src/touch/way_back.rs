//! How a borrowed thread goes back by itself if the tracer dies meanwhile.
//!
//! Below the thread's stack, beyond what it may use, stands a signal frame with all of its registers and its signal
//! mask, as if it ran a handler. What it runs for us ends in `rt_sigreturn` on that frame. While the tracer lives, it
//! stops the thread before that and puts the registers back itself, which also starts an interrupted call over in
//! every case; if it is killed, the thread goes on alone. A wait with a time limit ends early with `EINTR` then, as after
//! any signal, and a signal of a kind that is not blocked (`SIGFPE` and its like) is lost if somebody sent it in that
//! very moment.
//!
//! The layout is that of `struct rt_sigframe` (Linux, `arch/x86/include/asm/sigframe.h` and `uapi/asm/sigcontext.h`).

use libc::user_regs_struct as Registers;

/// Return address, `struct ucontext` and `siginfo_t`.
const FRAME: usize = 440;
/// Where `struct sigcontext` begins.
const CONTEXT: usize = 48;
/// Where the pointer to the extended registers stands.
const EXTENDED: usize = CONTEXT + 184;
/// Where the signal mask stands.
const MASK: usize = CONTEXT + 256;
/// `UC_FP_XSTATE`, `UC_SIGCONTEXT_SS` and `UC_STRICT_RESTORE_SS`.
const FLAGS: u64 = 7;
/// What no `sigaltstack` takes: the thread's own alternate stack stays as it is.
const NO_STACK: u32 = 0x7fff_ffff;
/// Where software's own words in the extended registers begin.
const SOFTWARE: usize = 464;
/// `FP_XSTATE_MAGIC1` and `FP_XSTATE_MAGIC2`.
const MAGIC: [u32; 2] = [0x4650_5853, 0x4650_5845];
/// The legacy area and the header of the extended registers.
const LEGACY: usize = 576;
/// AMX: only a thread that uses it has room for it in the kernel.
const TILES: u64 = 3 << 17;
/// What code may use below its stack pointer.
const RED_ZONE: u64 = 128;

/// A signal frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WayBack {
    /// Where it is to stand. A `ret` with the stack pointer here goes to `rt_sigreturn`.
    pub(super) address: u64,
    /// What is to stand there.
    pub(super) bytes: Vec<u8>,
}

impl WayBack {
    /// The way back to `saved`, `mask` and `extended`. `sigreturn`: address of code that makes the call
    /// `rt_sigreturn`.
    pub(super) fn new(saved: &Registers, mask: u64, extended: &[u8], sigreturn: u64) -> Self {
        let (extended, size) = restorable(extended);
        let below = saved.rsp.wrapping_sub(RED_ZONE);
        // The CPU wants the extended registers at a multiple of 64.
        let state = below.wrapping_sub(extended.len() as u64) & !63;
        let address = state.wrapping_sub(FRAME as u64) & !15;
        let gap = (state - address) as usize;
        let mut bytes = vec![0; gap + extended.len()];
        put(&mut bytes, 0, &sigreturn.to_ne_bytes());
        put(&mut bytes, 8, &FLAGS.to_ne_bytes());
        // `uc_stack.ss_flags`.
        put(&mut bytes, 32, &NO_STACK.to_ne_bytes());
        for (index, value) in context(saved).into_iter().enumerate() {
            put(&mut bytes, CONTEXT + 8 * index, &value.to_ne_bytes());
        }
        if size > 0 {
            put(&mut bytes, EXTENDED, &state.to_ne_bytes());
        }
        put(&mut bytes, MASK, &mask.to_ne_bytes());
        put(&mut bytes, gap, &extended);
        Self { address, bytes }
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// The first words of `struct sigcontext`, up to the segments.
fn context(saved: &Registers) -> [u64; 19] {
    let mut now = *saved;
    start_over(&mut now);
    let segments = now.cs & 0xffff | (now.ss & 0xffff) << 48;
    [
        now.r8, now.r9, now.r10, now.r11, now.r12, now.r13, now.r14, now.r15, now.rdi, now.rsi,
        now.rbp, now.rbx, now.rdx, now.rax, now.rcx, now.rsp, now.rip, now.eflags, segments,
    ]
}

/// Does what the kernel would do with an interrupted system call when no signal handler is to run.
fn start_over(registers: &mut Registers) {
    const SYSCALL: u64 = 2;
    if (registers.orig_rax as i64) < 0 {
        return;
    }
    match registers.rax as i64 {
        // `ERESTARTSYS`, `ERESTARTNOINTR`, `ERESTARTNOHAND`.
        -514..=-512 => {
            registers.rax = registers.orig_rax;
            registers.rip = registers.rip.wrapping_sub(SYSCALL);
        }
        // `ERESTART_RESTARTBLOCK`: `rt_sigreturn` drops how to go on.
        -516 => registers.rax = -i64::from(libc::EINTR) as u64,
        _ => {}
    }
}

/// The extended registers as `rt_sigreturn` takes them, and their size; empty if they are not as expected.
fn restorable(extended: &[u8]) -> (Vec<u8>, usize) {
    let word = |at: usize| {
        let bytes = extended.get(at..at + 8)?;
        Some(u64::from_ne_bytes(bytes.try_into().ok()?))
    };
    // What the kernel lets user space have, and what of it is in use.
    let (Some(features), Some(used)) = (word(SOFTWARE), word(512)) else {
        return (Vec::new(), 0);
    };
    let features = features & !(TILES & !used);
    let size = size(features);
    let Some(state) = extended.get(..size) else {
        return (Vec::new(), 0);
    };
    let mut state = state.to_vec();
    state.extend(MAGIC[1].to_ne_bytes());
    put(&mut state, SOFTWARE, &MAGIC[0].to_ne_bytes());
    put(&mut state, SOFTWARE + 4, &(size as u32 + 4).to_ne_bytes());
    put(&mut state, SOFTWARE + 8, &features.to_ne_bytes());
    put(&mut state, SOFTWARE + 16, &(size as u32).to_ne_bytes());
    (state, size)
}

/// Bytes of the extended registers of these features, in the format without gaps left out.
fn size(features: u64) -> usize {
    (2..63)
        .filter(|feature| features & (1 << feature) != 0)
        .map(|feature| {
            let about = core::arch::x86_64::__cpuid_count(0xd, feature);
            (about.eax + about.ebx) as usize
        })
        .fold(LEGACY, usize::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registers() -> Registers {
        // SAFETY: the struct is plain integers, for which all zeros is a value.
        let mut registers: Registers = unsafe { core::mem::zeroed() };
        registers.rsp = 0x7fff_0000_1238;
        registers.rip = 0x40_0002;
        registers.orig_rax = u64::MAX;
        registers
    }

    #[test]
    fn it_stands_below_the_red_zone_and_holds_the_registers() {
        let mut saved = registers();
        saved.rdi = 7;
        let way = WayBack::new(&saved, 5, &[], 0x1234);
        assert!(way.address + way.bytes.len() as u64 <= saved.rsp - RED_ZONE);
        let word = |at: usize| u64::from_ne_bytes(way.bytes[at..at + 8].try_into().unwrap());
        assert_eq!(word(0), 0x1234);
        assert_eq!(word(CONTEXT + 64), 7, "rdi");
        assert_eq!(word(CONTEXT + 120), saved.rsp);
        assert_eq!(word(CONTEXT + 128), saved.rip);
        assert_eq!((word(EXTENDED), word(MASK)), (0, 5));
    }

    #[test]
    fn an_interrupted_call_starts_over_or_ends_as_after_a_signal() {
        let after = |orig_rax: u64, rax: i64| {
            let mut registers = registers();
            (registers.orig_rax, registers.rax) = (orig_rax, rax as u64);
            start_over(&mut registers);
            (registers.rip, registers.rax as i64)
        };
        assert_eq!(after(202, -512), (0x40_0000, 202));
        assert_eq!(after(7, -516), (0x40_0002, -4));
        assert_eq!(after(0, 12), (0x40_0002, 12));
        assert_eq!(after(u64::MAX, -512), (0x40_0002, -512));
    }
}
