//! The ptrace requests that [`crate::touch`] makes, each as one safe call on one thread.
//!
//! A request must come from the thread that seized. When that thread ends, the kernel lets every thread go that it
//! still holds, including one that has not stopped yet: that is how an unfinished stop is given up.

use std::io;

/// What `waitpid` said about a seized thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It has ended.
    Ended,
    /// The stop that an interrupt asked for, or a notice.
    Event,
    /// It stands with all threads of its process, until the process gets `SIGCONT`.
    Group,
    /// It begins or ends a system call.
    Call,
    /// It is about to get this signal.
    Signal(i32),
}

/// `siginfo_t` as bytes: it is only carried, never read, but for the two fields that the accessors name.
#[derive(Clone, Copy)]
pub struct SignalInfo(libc::siginfo_t);

impl SignalInfo {
    /// `si_signo`.
    pub fn number(&self) -> i32 {
        self.0.si_signo
    }

    /// `si_code`: above 0 if the kernel made the signal.
    pub fn code(&self) -> i32 {
        self.0.si_code
    }

    /// `si_perf_data`, if a perf event made the signal.
    #[cfg(target_arch = "x86_64")]
    pub fn perf_data(&self) -> Option<u64> {
        /// `TRAP_PERF`.
        const PERF: i32 = 6;
        /// Behind `si_signo`, `si_errno`, `si_code` and `si_addr`.
        const OFFSET: usize = 24;
        if self.0.si_signo != libc::SIGTRAP || self.0.si_code != PERF {
            return None;
        }
        // SAFETY: the struct is 128 bytes long, aligned to 8, and all of them are initialised.
        Some(unsafe { (&raw const self.0).byte_add(OFFSET).cast::<u64>().read() })
    }
}

/// Requests by their numbers in the kernel's interface, where `libc` has no name for some or types them differently.
mod number {
    pub(super) const CONT: usize = 7;
    pub(super) const DETACH: usize = 17;
    pub(super) const SYSCALL: usize = 24;
    pub(super) const GETSIGINFO: usize = 0x4202;
    pub(super) const SETSIGINFO: usize = 0x4203;
    pub(super) const SEIZE: usize = 0x4206;
    pub(super) const INTERRUPT: usize = 0x4207;
    pub(super) const LISTEN: usize = 0x4208;
    pub(super) const GETSIGMASK: usize = 0x420a;
    pub(super) const SETSIGMASK: usize = 0x420b;
    pub(super) const SECCOMP_GET_FILTER: usize = 0x420c;
    pub(super) const GET_RSEQ_CONFIGURATION: usize = 0x420f;
    #[cfg(target_arch = "x86_64")]
    pub(super) const GETREGS: usize = 12;
    #[cfg(target_arch = "x86_64")]
    pub(super) const SETREGS: usize = 13;
    #[cfg(target_arch = "x86_64")]
    pub(super) const GETREGSET: usize = 0x4204;
    #[cfg(target_arch = "x86_64")]
    pub(super) const SETREGSET: usize = 0x4205;
}
/// `PTRACE_O_TRACESYSGOOD`: a stop at a system call is told from a signal.
const TELL_CALLS: usize = 1;
/// What tells them apart, in the signal of a stop.
const CALL: i32 = 0x80;
/// In a wait status: the stop was no signal.
const EVENT_STOP: i32 = 128;

fn request(request: usize, tid: u32, address: usize, data: usize) -> io::Result<usize> {
    // SAFETY: the callers below pass, for each request, either plain numbers or pointers to buffers that they borrow
    // for the length of the call and that are as large as the request says.
    let result = unsafe { libc::syscall(libc::SYS_ptrace, request, tid as usize, address, data) };
    let result = usize::try_from(result).map_err(|_| io::Error::last_os_error());
    #[cfg(debug_assertions)]
    perish::one_more();
    result
}

/// For tests: this process kills itself after so many requests.
#[cfg(debug_assertions)]
mod perish {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    const AFTER: &str = "PROFILEMATE_TEST_PERISH_AFTER";
    static MADE: AtomicU64 = AtomicU64::new(0);

    pub(super) fn one_more() {
        let made = MADE.fetch_add(1, Relaxed) + 1;
        let after = std::env::var(AFTER);
        if after.is_ok_and(|after| after.parse() == Ok(made)) {
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
        }
    }
}

/// `PTRACE_SEIZE`: the thread runs on.
pub fn seize(tid: u32) -> io::Result<()> {
    request(number::SEIZE, tid, 0, TELL_CALLS).map(drop)
}

/// `PTRACE_INTERRUPT`: asks the seized thread to stop.
pub fn interrupt(tid: u32) -> io::Result<()> {
    request(number::INTERRUPT, tid, 0, 0).map(drop)
}

/// Asks, without waiting, whether the seized thread has stopped or ended.
pub fn poll_stop(tid: u32) -> io::Result<Option<Stop>> {
    wait(tid, libc::WNOHANG)
}

/// Waits until the seized thread stops or ends.
pub fn wait_stop(tid: u32) -> io::Result<Stop> {
    loop {
        if let Some(stop) = wait(tid, 0)? {
            return Ok(stop);
        }
    }
}

fn wait(tid: u32, options: i32) -> io::Result<Option<Stop>> {
    let tid = libc::pid_t::try_from(tid).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut status = 0;
    // SAFETY: `status` is an int that the call may write.
    let got = unsafe {
        libc::waitpid(
            tid,
            &raw mut status,
            libc::__WALL | libc::__WNOTHREAD | options,
        )
    };
    match got {
        0 => Ok(None),
        -1 => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ECHILD) => Ok(Some(Stop::Ended)),
            error if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            error => Err(error),
        },
        _ if !libc::WIFSTOPPED(status) => Ok(Some(Stop::Ended)),
        _ if status >> 16 == EVENT_STOP && libc::WSTOPSIG(status) != libc::SIGTRAP => {
            Ok(Some(Stop::Group))
        }
        _ if status >> 16 == EVENT_STOP => Ok(Some(Stop::Event)),
        _ if libc::WSTOPSIG(status) & CALL != 0 => Ok(Some(Stop::Call)),
        _ => Ok(Some(Stop::Signal(libc::WSTOPSIG(status)))),
    }
}

/// `PTRACE_CONT`, with a signal to deliver or 0.
pub fn resume(tid: u32, signal: i32) -> io::Result<()> {
    request(number::CONT, tid, 0, signal as usize).map(drop)
}

/// `PTRACE_LISTEN`: leaves a thread in its group stop, and tells when that ends.
pub fn listen(tid: u32) -> io::Result<()> {
    request(number::LISTEN, tid, 0, 0).map(drop)
}

/// `PTRACE_SYSCALL`, with a signal to deliver or 0: as [`resume`], up to the next begin or end of a system call.
pub fn resume_to_call(tid: u32, signal: i32) -> io::Result<()> {
    request(number::SYSCALL, tid, 0, signal as usize).map(drop)
}

/// `PTRACE_DETACH`, with a signal to deliver or 0.
pub fn detach(tid: u32, signal: i32) -> io::Result<()> {
    request(number::DETACH, tid, 0, signal as usize).map(drop)
}

/// `PTRACE_GETSIGMASK`: the thread's signal mask; the one to return to, where a system call has put another in place.
pub fn signal_mask(tid: u32) -> io::Result<u64> {
    let mut mask = 0_u64;
    request(
        number::GETSIGMASK,
        tid,
        size_of::<u64>(),
        &raw mut mask as usize,
    )?;
    Ok(mask)
}

/// `PTRACE_SETSIGMASK`.
pub fn set_signal_mask(tid: u32, mask: u64) -> io::Result<()> {
    request(
        number::SETSIGMASK,
        tid,
        size_of::<u64>(),
        &raw const mask as usize,
    )
    .map(drop)
}

/// `PTRACE_GETSIGINFO`.
pub fn signal_info(tid: u32) -> io::Result<SignalInfo> {
    // SAFETY: `siginfo_t` is plain integers, for which all zeros is a value.
    let mut info = SignalInfo(unsafe { core::mem::zeroed() });
    request(number::GETSIGINFO, tid, 0, &raw mut info.0 as usize)?;
    Ok(info)
}

/// `PTRACE_SETSIGINFO`.
pub fn set_signal_info(tid: u32, info: &SignalInfo) -> io::Result<()> {
    request(number::SETSIGINFO, tid, 0, &raw const info.0 as usize).map(drop)
}

/// Sends a signal to one thread of a process.
pub fn send_signal(pid: u32, tid: u32, signal: i32) -> io::Result<()> {
    // SAFETY: only numbers are passed.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal) };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Where the thread has its `struct rseq`; 0 if it has registered none, or the kernel (before 5.13) cannot tell.
pub fn rseq_address(tid: u32) -> u64 {
    #[repr(C)]
    struct Configuration {
        address: u64,
        size: u32,
        signature: u32,
        flags: u32,
        pad: u32,
    }
    let mut found = Configuration {
        address: 0,
        size: 0,
        signature: 0,
        flags: 0,
        pad: 0,
    };
    let size = size_of::<Configuration>();
    request(
        number::GET_RSEQ_CONFIGURATION,
        tid,
        size,
        &raw mut found as usize,
    )
    .map_or(0, |_| found.address)
}

/// Instructions of the thread's `index`th seccomp filter, newest first, as classic BPF. `None` behind the last.
pub fn seccomp_filter(tid: u32, index: usize) -> io::Result<Option<Vec<[u8; 8]>>> {
    // `BPF_MAXINSNS`: no filter is longer, so the kernel cannot write more than fits.
    const INSTRUCTIONS: usize = 4096;
    let mut filter = vec![[0_u8; 8]; INSTRUCTIONS];
    match request(
        number::SECCOMP_GET_FILTER,
        tid,
        index,
        filter.as_mut_ptr() as usize,
    ) {
        Ok(count) => {
            filter.truncate(count);
            Ok(Some(filter))
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The general registers.
#[cfg(target_arch = "x86_64")]
pub fn registers(tid: u32) -> io::Result<libc::user_regs_struct> {
    // SAFETY: the struct is plain integers, for which all zeros is a value.
    let mut registers: libc::user_regs_struct = unsafe { core::mem::zeroed() };
    request(number::GETREGS, tid, 0, &raw mut registers as usize)?;
    Ok(registers)
}

/// Sets the general registers.
#[cfg(target_arch = "x86_64")]
pub fn set_registers(tid: u32, registers: &libc::user_regs_struct) -> io::Result<()> {
    request(
        number::SETREGS,
        tid,
        0,
        core::ptr::from_ref(registers) as usize,
    )
    .map(drop)
}

#[cfg(target_arch = "x86_64")]
const X86_XSTATE: usize = 0x202;

/// The vector and floating point registers, in the CPU's own format.
#[cfg(target_arch = "x86_64")]
pub fn extended_registers(tid: u32) -> io::Result<Vec<u8>> {
    // AMX tiles make it about 11 KiB.
    let mut state = vec![0_u8; 16384];
    let mut span = libc::iovec {
        iov_base: state.as_mut_ptr().cast(),
        iov_len: state.len(),
    };
    request(number::GETREGSET, tid, X86_XSTATE, &raw mut span as usize)?;
    state.truncate(span.iov_len);
    Ok(state)
}

/// Sets the vector and floating point registers to what [`extended_registers`] gave.
#[cfg(target_arch = "x86_64")]
pub fn set_extended_registers(tid: u32, state: &[u8]) -> io::Result<()> {
    let span = libc::iovec {
        iov_base: state.as_ptr().cast_mut().cast(),
        iov_len: state.len(),
    };
    request(number::SETREGSET, tid, X86_XSTATE, &raw const span as usize).map(drop)
}
