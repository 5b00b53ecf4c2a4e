//! One stopped thread of the target, made to run a few instructions of ours, and put back exactly as it was.
//!
//! Restarting what the stop interrupted: every stop used here lies inside the kernel's signal delivery, which decides
//! on the way out, from `orig_rax` and `rax`, whether to restart a system call. Giving both back as they were
//! therefore restarts what the kernel restarts after any harmless interruption. The calls that it does not restart
//! are named in [`restart_interrupted`].

use std::io;
use std::time::Duration;

use libc::user_regs_struct as Registers;

use super::Error;
use super::way_back::WayBack;
use crate::sys::clock::monotonic_ns;
use crate::sys::ptrace::{self, SignalInfo, Stop};
use crate::sys::vm;

/// Signals that are the thread's own doing; all others are blocked while it works for us.
const SYNCHRONOUS: [i32; 6] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGTRAP,
    libc::SIGSYS,
];
/// Code segment of 64-bit user code.
const USER_CS: u64 = 0x33;
/// Set in the number of a system call made through the x32 interface.
const X32_BIT: u64 = 0x4000_0000;

/// How an attempt to stop a thread ended.
pub(super) enum Attempt {
    /// It stands still.
    Stopped(Box<Stopped>),
    /// Not this thread, or not now: it did not stop in time, has ended, or is at a place where it must not be
    /// disturbed.
    Unsuitable,
}

/// Code of the target that is borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Borrowed {
    /// A `syscall` instruction, and a `ret` behind it.
    pub(super) call: u64,
    /// What makes the call `rt_sigreturn`.
    pub(super) sigreturn: u64,
}

/// Up to where a thread runs for us.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// The end of a system call.
    Called,
    /// The moment before it would go back by itself.
    Back,
    /// A breakpoint instruction.
    Breakpoint,
}

/// How a thread came to stand again.
pub(super) enum Landing {
    /// Where it was to, with this in `rax`.
    There(u64),
    /// By a fault of its own, which it will not see.
    Fault,
}

/// Where in the kernel a thread stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// In signal delivery, with none to deliver.
    Event,
    /// Before the delivery of a signal, in whose place a held one can be delivered.
    Signal,
    /// At the end of a system call, where the kernel does not start an interrupted one over.
    Call,
}

/// A stopped thread. Dropping it puts everything back and lets it run.
pub(super) struct Stopped {
    pid: u32,
    tid: u32,
    saved: Registers,
    extended: Vec<u8>,
    mask: u64,
    /// Where its way back stands, once it has one.
    way_back: Option<u64>,
    /// Its signals are blocked.
    blocked: bool,
    /// When it came to stand, `CLOCK_MONOTONIC`.
    since_ns: u64,
    /// Signals taken on the way, to be given back.
    held: Vec<SignalInfo>,
    stands: Stands,
    running: bool,
}

impl Stopped {
    /// Stops thread `tid` of process `pid` within `patience`. On [`Attempt::Unsuitable`] the calling thread must end
    /// before anything else is tried: that is what takes an unanswered interrupt back.
    pub(super) fn stop(pid: u32, tid: u32, patience: Duration) -> Result<Attempt, Error> {
        match ptrace::seize(tid) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
                return Ok(Attempt::Unsuitable);
            }
            // A thread that has just ended, or is being let go by an earlier attempt, also says this. The caller
            // reports it if no thread can be had.
            Err(source) => return Err(Error::Forbidden { pid, source }),
        }
        let until = monotonic_ns() + patience.as_nanos() as u64;
        if ptrace::interrupt(tid).is_err() {
            return Ok(Attempt::Unsuitable);
        }
        loop {
            match wait_until(tid, until) {
                Ok(Some((Stop::Event | Stop::Group, since_ns))) => {
                    return Self::take(pid, tid, since_ns);
                }
                // The signal was first; it is delivered, and the interrupt is still to come.
                Ok(Some((Stop::Signal(signal), _))) => {
                    if ptrace::resume(tid, signal).is_err() {
                        return Ok(Attempt::Unsuitable);
                    }
                }
                Ok(Some((Stop::Ended | Stop::Call, _)) | None) | Err(_) => {
                    return Ok(Attempt::Unsuitable);
                }
            }
        }
    }

    fn take(pid: u32, tid: u32, since_ns: u64) -> Result<Attempt, Error> {
        let failed = |request| {
            move |source| Error::Ptrace {
                request,
                tid,
                source,
            }
        };
        let mut saved = match ptrace::registers(tid) {
            Ok(registers) => registers,
            Err(source) => {
                // Killed while it stood.
                let _ = ptrace::detach(tid, 0);
                return if source.raw_os_error() == Some(libc::ESRCH) {
                    Ok(Attempt::Unsuitable)
                } else {
                    Err(Error::Ptrace {
                        request: "get registers",
                        tid,
                        source,
                    })
                };
            }
        };
        let in_call = saved.orig_rax as i64 >= 0;
        if saved.cs != USER_CS || (in_call && saved.orig_rax & X32_BIT != 0) {
            let _ = ptrace::detach(tid, 0);
            return Err(Error::NotNative { pid });
        }
        if in_restartable_sequence(pid, tid, saved.rip) {
            let _ = ptrace::detach(tid, 0);
            return Ok(Attempt::Unsuitable);
        }
        let mask = ptrace::signal_mask(tid).map_err(failed("get signal mask"));
        let extended = ptrace::extended_registers(tid).map_err(failed("get extended registers"));
        let (mask, extended) = match (mask, extended) {
            (Ok(mask), Ok(extended)) => (mask, extended),
            (Err(error), _) | (_, Err(error)) => {
                let _ = ptrace::detach(tid, 0);
                return Err(error);
            }
        };
        restart_interrupted(&mut saved);
        let stopped = Self {
            pid,
            tid,
            saved,
            extended,
            mask,
            way_back: None,
            blocked: false,
            since_ns,
            held: Vec::new(),
            stands: Stands::Event,
            running: false,
        };
        Ok(Attempt::Stopped(Box::new(stopped)))
    }

    /// Takes over a thread that stands because of a breakpoint of ours, whose signal it will not see.
    pub(super) fn at_breakpoint(pid: u32, tid: u32, since_ns: u64) -> Result<Attempt, Error> {
        let mut attempt = Self::take(pid, tid, since_ns)?;
        if let Attempt::Stopped(stopped) = &mut attempt {
            stopped.stands = Stands::Signal;
        }
        Ok(attempt)
    }

    /// The thread.
    pub(super) fn tid(&self) -> u32 {
        self.tid
    }

    /// Its thread pointer.
    pub(super) fn thread_pointer(&self) -> u64 {
        self.saved.fs_base
    }

    /// Makes one system call, and returns its result.
    pub(super) fn call(
        &mut self,
        borrowed: Borrowed,
        name: &'static str,
        number: i64,
        args: [u64; 6],
    ) -> Result<u64, Error> {
        let mut registers = self.saved;
        registers.rip = borrowed.call;
        registers.rsp = self.way_back(borrowed.sigreturn)?;
        registers.rax = number as u64;
        registers.orig_rax = u64::MAX;
        [
            registers.rdi,
            registers.rsi,
            registers.rdx,
            registers.r10,
            registers.r8,
            registers.r9,
        ] = args;
        let landed = match self.run(registers, Until::Called)? {
            Landing::There(landed) => landed,
            Landing::Fault => {
                return Err(Error::Unexpected {
                    tid: self.tid,
                    signal: libc::SIGSEGV,
                });
            }
        };
        match landed as i64 {
            error @ -4095..0 => {
                let source = io::Error::from_raw_os_error(-error as i32);
                Err(Error::Injected {
                    call: name,
                    pid: self.pid,
                    source,
                })
            }
            _ => Ok(landed),
        }
    }

    /// Runs the code at `address`, which uses no stack, until it makes the call `rt_sigreturn`.
    pub(super) fn run_code(&mut self, address: u64) -> Result<Landing, Error> {
        let mut registers = self.saved;
        registers.rip = address;
        // As a `ret` to that call would have left it.
        registers.rsp = self.way_back(address)?.wrapping_add(8);
        registers.orig_rax = u64::MAX;
        self.run(registers, Until::Back)
    }

    /// Puts the thread's way back below its stack, unless it is there.
    fn way_back(&mut self, sigreturn: u64) -> Result<u64, Error> {
        if let Some(address) = self.way_back {
            return Ok(address);
        }
        let way = WayBack::new(&self.saved, self.mask, &self.extended, sigreturn);
        if vm::write(self.pid, way.address, &way.bytes).is_err() {
            return Err(Error::NoWayBack {
                pid: self.pid,
                tid: self.tid,
            });
        }
        self.way_back = Some(way.address);
        Ok(way.address)
    }

    /// Calls the C function at `function` on the thread's own stack, and returns what it returns. It returns to the
    /// breakpoint instruction at `back`.
    pub(super) fn call_function(
        &mut self,
        function: u64,
        argument: u64,
        back: u64,
    ) -> Result<u64, Error> {
        /// What a function may use below its stack pointer, and room.
        const RED_ZONE: u64 = 1024;
        /// Trap, direction and resume flag: as the calling convention wants them.
        const FLAGS: u64 = 1 << 8 | 1 << 10 | 1 << 16;
        let (pid, tid) = (self.pid, self.tid);
        let mut registers = self.saved;
        // Where a call would have left it: eight bytes below a multiple of sixteen.
        let below = registers.rsp.wrapping_sub(RED_ZONE);
        let below = self.way_back.map_or(below, |way| way.min(below));
        registers.rsp = (below & !15).wrapping_sub(8);
        vm::write(pid, registers.rsp, &back.to_ne_bytes()).map_err(|source| Error::Memory {
            pid,
            address: registers.rsp,
            source,
        })?;
        registers.rip = function;
        registers.rdi = argument;
        registers.rax = 0;
        registers.orig_rax = u64::MAX;
        registers.eflags &= !FLAGS;
        let signal = match self.run(registers, Until::Breakpoint)? {
            Landing::There(result) => {
                let landed = ptrace::registers(tid).is_ok_and(|now| now.rip == back + 1);
                if landed {
                    return Ok(result);
                }
                libc::SIGTRAP
            }
            Landing::Fault => libc::SIGSEGV,
        };
        Err(Error::Unexpected { tid, signal })
    }

    /// There is no deadline here: a thread that runs our instructions must not be let go before it has left them.
    /// Every one of them ends; a function that is called may have to wait for the interpreter's lock, as the thread
    /// would have had to.
    fn run(&mut self, registers: Registers, until: Until) -> Result<Landing, Error> {
        let tid = self.tid;
        let go = match until {
            Until::Called | Until::Back => ptrace::resume_to_call,
            Until::Breakpoint => ptrace::resume,
        };
        let failed = |request| {
            move |source| Error::Ptrace {
                request,
                tid,
                source,
            }
        };
        // In this order: the way back restores the mask.
        ptrace::set_registers(tid, &registers).map_err(failed("set registers"))?;
        if !self.blocked {
            let blocked = SYNCHRONOUS
                .iter()
                .fold(u64::MAX, |mask, signal| mask & !(1 << (signal - 1)));
            ptrace::set_signal_mask(tid, blocked).map_err(failed("set signal mask"))?;
            self.blocked = true;
        }
        let (mut deliver, mut within) = (0, false);
        loop {
            self.running = true;
            go(tid, deliver).map_err(failed("resume"))?;
            deliver = 0;
            let stop = ptrace::wait_stop(tid).map_err(failed("wait"))?;
            self.running = false;
            let signal = match stop {
                Stop::Signal(signal) => signal,
                Stop::Call => {
                    self.stands = Stands::Call;
                    within = !within;
                    if within {
                        if until == Until::Back {
                            self.pass_by().map_err(failed("pass a call by"))?;
                        }
                        continue;
                    }
                    let rax = ptrace::registers(tid).map(|registers| registers.rax);
                    return rax.map(Landing::There).map_err(failed("get registers"));
                }
                // A notice (of a group stop, or of its end), after which the thread is to go on.
                Stop::Event | Stop::Group => {
                    self.stands = Stands::Event;
                    continue;
                }
                Stop::Ended => {
                    self.running = true;
                    return Err(Error::Gone { pid: self.pid });
                }
            };
            self.stands = Stands::Signal;
            let info = ptrace::signal_info(tid).map_err(failed("get signal info"))?;
            let own = info.code() > 0 && SYNCHRONOUS.contains(&signal);
            if signal == libc::SIGSTOP {
                // It cannot be blocked, runs no code, and must not be late: a SIGCONT may follow. The process stops
                // now; this thread tells so by an event, and goes on for us alone.
                deliver = signal;
            } else if !own {
                self.held.push(info);
            } else if signal == libc::SIGTRAP {
                let rax = ptrace::registers(tid).map(|registers| registers.rax);
                return rax.map(Landing::There).map_err(failed("get registers"));
            } else {
                return Ok(Landing::Fault);
            }
        }
    }

    /// The thread begins the call `rt_sigreturn`: it is to come to its end without having made it.
    fn pass_by(&self) -> io::Result<()> {
        let mut registers = ptrace::registers(self.tid)?;
        if registers.orig_rax != libc::SYS_rt_sigreturn as u64 {
            return Ok(());
        }
        registers.orig_rax = u64::MAX;
        ptrace::set_registers(self.tid, &registers)
    }

    /// From the end of a system call to the kernel's signal delivery, before any instruction is run. A signal that was
    /// held is sent again for that, so that it can be delivered as it was. `false`: the thread has ended.
    fn come_to_signal_delivery(&mut self) -> bool {
        let tid = self.tid;
        let held = self.held.first().map(SignalInfo::number);
        let asked = match held {
            Some(signal) => ptrace::send_signal(self.pid, tid, signal),
            None => ptrace::interrupt(tid),
        };
        if asked.is_err() {
            return false;
        }
        let mut deliver = 0;
        while ptrace::resume(tid, deliver).is_ok() {
            deliver = 0;
            match ptrace::wait_stop(tid) {
                Ok(Stop::Signal(signal)) if held == Some(signal) => {
                    self.stands = Stands::Signal;
                    return true;
                }
                // As in `run`.
                Ok(Stop::Signal(libc::SIGSTOP)) => deliver = libc::SIGSTOP,
                Ok(Stop::Signal(_)) => {
                    self.held.extend(ptrace::signal_info(tid).ok());
                    if held.is_none() {
                        self.stands = Stands::Signal;
                        return true;
                    }
                }
                Ok(Stop::Event | Stop::Group | Stop::Call) => {
                    if held.is_none() {
                        self.stands = Stands::Event;
                        return true;
                    }
                }
                Ok(Stop::Ended) | Err(_) => break,
            }
        }
        false
    }

    /// Puts everything back and lets the thread run; returns how long it stood, in nanoseconds.
    pub(super) fn release(mut self: Box<Self>) -> u64 {
        self.put_back();
        monotonic_ns().saturating_sub(self.since_ns)
    }

    fn put_back(&mut self) {
        if self.running {
            return;
        }
        self.running = true;
        if self.stands == Stands::Call && !self.come_to_signal_delivery() {
            return;
        }
        let tid = self.tid;
        // Every failure here means that the thread has been killed, and there is nothing to put back.
        if ptrace::extended_registers(tid).is_ok_and(|now| now != self.extended) {
            let _ = ptrace::set_extended_registers(tid, &self.extended);
        }
        // In this order: until the registers are back, the thread would go back by itself, with both.
        if self.blocked {
            let _ = ptrace::set_signal_mask(tid, self.mask);
        }
        let _ = ptrace::set_registers(tid, &self.saved);
        let mut held = self.held.drain(..);
        let mut deliver = 0;
        if self.stands == Stands::Signal
            && let Some(first) = held.next()
            && ptrace::set_signal_info(tid, &first).is_ok()
        {
            deliver = first.number();
        }
        let _ = ptrace::detach(tid, deliver);
        for info in held {
            let _ = ptrace::send_signal(self.pid, tid, info.number());
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.put_back();
    }
}

/// Waits until `until` for a stop, and says since when the thread may have been standing.
fn wait_until(tid: u32, until: u64) -> io::Result<Option<(Stop, u64)>> {
    // A sleep, and no busy wait: a thread that yields is put last on a crowded machine.
    const NAP: Duration = Duration::from_micros(20);
    let mut before = monotonic_ns();
    loop {
        if let Some(stop) = ptrace::poll_stop(tid)? {
            return Ok(Some((stop, before)));
        }
        before = monotonic_ns();
        if before >= until {
            return Ok(None);
        }
        std::thread::sleep(NAP);
    }
}

/// Whether the thread stands inside a restartable sequence, which the kernel would not notice to be interrupted if it
/// ran something else in between.
fn in_restartable_sequence(pid: u32, tid: u32, rip: u64) -> bool {
    /// Offset of `rseq_cs` in `struct rseq`.
    const RSEQ_CS: u64 = 8;
    let area = ptrace::rseq_address(tid);
    if area == 0 {
        return false;
    }
    let Ok(sequence) = vm::read_value::<u64>(pid, area + RSEQ_CS) else {
        return true;
    };
    if sequence == 0 {
        return false;
    }
    // `struct rseq_cs`: version and flags, start, length, where to go when interrupted. A finished sequence may
    // still be registered.
    let Ok([_, start, length, _]) = vm::read_value::<[u64; 4]>(pid, sequence) else {
        return true;
    };
    rip.wrapping_sub(start) < length
}

/// Some waiting calls end with `EINTR` whenever their thread is woken, even if no signal handler runs. Without a time
/// limit they may as well be told to start over, by the error that the kernel itself uses for that (it still becomes
/// `EINTR` if a handler does run). With a time limit they would wait too long, so those end with `EINTR`;
/// [`super::threads`] picks such a thread last.
fn restart_interrupted(registers: &mut Registers) {
    const ERESTARTNOHAND: i64 = 514;
    let args = [registers.rdx, registers.r10];
    if registers.rax as i64 == -i64::from(libc::EINTR)
        && waits(registers.orig_rax, args) == Waits::Forever
    {
        registers.rax = -ERESTARTNOHAND as u64;
    }
}

/// What kind of wait a system call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// One that the kernel restarts by itself, or none.
    Restarted,
    /// One that is not restarted, without a time limit.
    Forever,
    /// One that is not restarted, with a time limit.
    Limited,
}

/// What kind of wait the system call `number` is, given its third and fourth argument.
pub(super) fn waits(number: u64, [third, fourth]: [u64; 2]) -> Waits {
    let limited = match number as i64 {
        // The time limit is an int in milliseconds; below 0 there is none.
        libc::SYS_epoll_wait | libc::SYS_epoll_pwait => (fourth as u32).cast_signed() >= 0,
        // The time limit is a timespec.
        libc::SYS_epoll_pwait2 | libc::SYS_semtimedop => fourth != 0,
        libc::SYS_rt_sigtimedwait => third != 0,
        libc::SYS_semop => false,
        _ => return Waits::Restarted,
    };
    if limited {
        Waits::Limited
    } else {
        Waits::Forever
    }
}
