//! At the entry of the eval loop (CPython 3.10 to 3.13): a hardware breakpoint on the main thread alone, at which that
//! thread calls `PyRun_SimpleString`.
//!
//! No code of the target is changed, and its thread is not interrupted: it runs until it comes by. If it does not,
//! it has noticed nothing. Signals that it gets meanwhile go on to it at once.

use std::time::{Duration, Instant};

use super::{PATIENCE, calls, memory};
use crate::sys::breakpoint::Breakpoint;
use crate::sys::clock::monotonic_ns;
use crate::sys::process::hurry;
use crate::sys::ptrace::{self, Stop};
use crate::sys::vm;
use crate::target::python::{EvalEntry, ProcessMemory};
use crate::touch::Error;
use crate::touch::check::{Filters, read_proc};
use crate::touch::inject::find_borrowed;
use crate::touch::seccomp::{self, Call};
use crate::touch::stopped::{Attempt, Borrowed, Stopped};
use crate::touch::threads::traced;

/// How often is looked whether the thread has come by; for so long it may stand before we notice.
const NAP: Duration = Duration::from_micros(50);
/// How long a hit that was counted may take to arrive.
const ARRIVES_WITHIN: Duration = Duration::from_secs(10);
const READ_WRITE: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;
const ANONYMOUS: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
const PAGE: usize = 4096;

/// Has the main thread of process `pid` run `code`. Gives for how many nanoseconds it stood.
pub(super) fn run(pid: u32, entry: &EvalEntry, filters: Filters, code: &str) -> Result<u64, Error> {
    look(pid)?;
    let borrowed = find_borrowed(pid)?;
    let tracer = move || {
        hurry();
        let wait = Wait::begin(pid, entry)?;
        let mut stopped = wait.for_hit()?;
        let result = Run {
            pid,
            thread: &mut stopped,
            borrowed,
        }
        .run(entry, filters, code);
        let stood_ns = stopped.release();
        crate::touch::cost::stood(stood_ns);
        result.map(|()| stood_ns)
    };
    // The end of the tracer's thread lets go of a thread that runs, without stopping it.
    traced(tracer)
}

/// What about the main thread forbids the breakpoint or the call.
fn look(pid: u32) -> Result<(), Error> {
    let status = read_proc(pid, "status")?;
    let line = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    let blocked = line("SigBlk").and_then(|mask| u64::from_str_radix(mask, 16).ok());
    if blocked.is_none_or(|mask| mask & 1 << (libc::SIGTRAP - 1) != 0) {
        return Err(Error::TrapBlocked { pid });
    }
    // A return to another place than the one that was called from would be taken for an attack.
    if line("x86_Thread_features").is_some_and(|features| features.contains("shstk")) {
        return Err(Error::ShadowStack { pid });
    }
    Ok(())
}

/// The main thread runs, with a breakpoint set.
struct Wait<'a> {
    pid: u32,
    entry: &'a EvalEntry,
    breakpoint: Breakpoint,
    data: u64,
    /// Hits that have arrived.
    seen: u64,
}

impl<'a> Wait<'a> {
    fn begin(pid: u32, entry: &'a EvalEntry) -> Result<Self, Error> {
        let data = fastrand::u64(..);
        let unset = |source| Error::Breakpoint { pid, source };
        let breakpoint = Breakpoint::new(pid, entry.eval, data).map_err(unset)?;
        ptrace::seize(pid).map_err(|source| match source.raw_os_error() {
            Some(libc::ESRCH) => Error::Gone { pid },
            _ => Error::Forbidden { pid, source },
        })?;
        breakpoint.enable().map_err(unset)?;
        Ok(Self {
            pid,
            entry,
            breakpoint,
            data,
            seen: 0,
        })
    }

    /// Waits until the thread stands at the breakpoint and can be used there.
    fn for_hit(mut self) -> Result<Box<Stopped>, Error> {
        let until = Instant::now() + PATIENCE;
        let mut before = monotonic_ns();
        loop {
            let Some(stop) = self.poll()? else {
                if Instant::now() > until {
                    break;
                }
                std::thread::sleep(NAP);
                before = monotonic_ns();
                continue;
            };
            if self.is_hit(stop) {
                self.seen += 1;
                if self.is_good() {
                    // The code that is run comes by here, too.
                    let _off = self.breakpoint.disable();
                    match Stopped::at_breakpoint(self.pid, self.pid, before)? {
                        Attempt::Stopped(stopped) => return Ok(stopped),
                        Attempt::Unsuitable => return Err(self.not_reached()),
                    }
                }
                self.go_on(0)?;
            } else {
                self.pass_on(stop)?;
            }
        }
        self.give_up()
    }

    /// Takes the breakpoint away, and every hit that was on its way. The thread that runs is let go by our end.
    fn give_up(mut self) -> Result<Box<Stopped>, Error> {
        let _off = self.breakpoint.disable();
        let until = Instant::now() + ARRIVES_WITHIN;
        while self.breakpoint.hits().is_ok_and(|hits| hits > self.seen) && Instant::now() < until {
            match self.poll()? {
                Some(stop) if self.is_hit(stop) => {
                    self.seen += 1;
                    self.go_on(0)?;
                }
                Some(stop) => self.pass_on(stop)?,
                None => std::thread::sleep(NAP),
            }
        }
        Err(self.not_reached())
    }

    fn not_reached(&self) -> Error {
        Error::NotReached {
            pid: self.pid,
            waited_ms: PATIENCE.as_millis() as u64,
        }
    }

    fn poll(&self) -> Result<Option<Stop>, Error> {
        match ptrace::poll_stop(self.pid) {
            Ok(Some(Stop::Ended)) => Err(Error::Gone { pid: self.pid }),
            Ok(stop) => Ok(stop),
            Err(source) => Err(self.failed("wait")(source)),
        }
    }

    fn is_hit(&self, stop: Stop) -> bool {
        stop == Stop::Signal(libc::SIGTRAP)
            && ptrace::signal_info(self.pid).is_ok_and(|info| info.perf_data() == Some(self.data))
    }

    /// Whether the thread, which stands at the breakpoint, can be used.
    fn is_good(&self) -> bool {
        let memory = ProcessMemory { pid: self.pid };
        ptrace::registers(self.pid).is_ok_and(|at| {
            let throwing = at.rdx as u32 != 0;
            at.rip == self.entry.eval && self.entry.is_calm(&memory, at.fs_base, at.rdi, throwing)
        })
    }

    /// Lets a stop that has nothing to do with us take its course.
    fn pass_on(&self, stop: Stop) -> Result<(), Error> {
        match stop {
            Stop::Signal(signal) => self.go_on(signal),
            Stop::Event | Stop::Call => self.go_on(0),
            Stop::Group => match ptrace::listen(self.pid) {
                Ok(()) => Ok(()),
                Err(error) => self.or_gone(error),
            },
            Stop::Ended => Ok(()),
        }
    }

    fn go_on(&self, signal: i32) -> Result<(), Error> {
        ptrace::resume(self.pid, signal).or_else(|error| self.or_gone(error))
    }

    /// Only a thread that is killed meanwhile does not stand any more; that is told by the next look.
    fn or_gone(&self, error: std::io::Error) -> Result<(), Error> {
        if error.raw_os_error() == Some(libc::ESRCH) {
            Ok(())
        } else {
            Err(self.failed("resume")(error))
        }
    }

    fn failed(&self, request: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        let tid = self.pid;
        move |source| Error::Ptrace {
            request,
            tid,
            source,
        }
    }
}

/// The main thread stands at the entry of the eval loop.
struct Run<'a> {
    pid: u32,
    thread: &'a mut Stopped,
    borrowed: Borrowed,
}

impl Run<'_> {
    fn run(&mut self, entry: &EvalEntry, filters: Filters, code: &str) -> Result<(), Error> {
        let mut text = code.as_bytes().to_vec();
        text.push(0);
        let size = text.len().next_multiple_of(PAGE) as u64;
        let map = [0, size, READ_WRITE, ANONYMOUS, u64::MAX, 0];
        if filters == Filters::Ask {
            let number = libc::SYS_mmap;
            let map = Call { number, args: map };
            let mut all = calls().to_vec();
            all.push(map);
            seccomp::ask(self.pid, self.thread.tid(), &all)?;
        }
        let buffer = self.call("mmap", libc::SYS_mmap, map)?;
        let result = vm::write(self.pid, buffer, &text)
            .map_err(memory(self.pid, buffer))
            .and_then(|()| self.thread.call_function(entry.run, buffer, entry.back));
        // After a fault it is not known who still looks at it.
        if !matches!(result, Err(Error::Unexpected { .. } | Error::Gone { .. })) {
            self.call("munmap", libc::SYS_munmap, [buffer, size, 0, 0, 0, 0])?;
        }
        // An `int`.
        match result? as u32 {
            0 => Ok(()),
            _ => Err(Error::Helper {
                pid: self.pid,
                reason: "the interpreter did not run what starts it".to_owned(),
            }),
        }
    }

    fn call(&mut self, name: &'static str, number: i64, args: [u64; 6]) -> Result<u64, Error> {
        self.thread.call(self.borrowed, name, number, args)
    }
}
