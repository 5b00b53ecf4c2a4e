//! A hardware breakpoint on one thread, which changes no code of it and of no other thread.
//!
//! It is a perf event, and not one of the debug registers that `ptrace` sets: those would stay behind when the tracer
//! is killed, and the next hit would end the process. The event goes with its file.

use std::io;
use std::os::fd::AsRawFd as _;

use super::perf::{Attributes, Event};

/// A breakpoint at which a thread gets `SIGTRAP`, for its tracer to see, before it executes the instruction there.
#[derive(Debug)]
pub struct Breakpoint {
    event: Event,
}

const TYPE_BREAKPOINT: u32 = 5;
const ON_EXECUTION: u32 = 4;
const DISABLED: u64 = 1 << 0;
const EXCLUDE_KERNEL: u64 = 1 << 5;
const EXCLUDE_HYPERVISOR: u64 = 1 << 6;
const REMOVE_ON_EXEC: u64 = 1 << 36;
const SIGTRAP: u64 = 1 << 37;
const ENABLE: u64 = 0x2400;
const DISABLE: u64 = 0x2401;

impl Breakpoint {
    /// A breakpoint for thread `tid` at `address`, not switched on yet. Its signals carry `data`. Forked children do
    /// not inherit it.
    pub fn new(tid: u32, address: u64, data: u64) -> io::Result<Self> {
        let attributes = Attributes {
            kind: TYPE_BREAKPOINT,
            sample_period: 1,
            flags: DISABLED | EXCLUDE_KERNEL | EXCLUDE_HYPERVISOR | REMOVE_ON_EXEC | SIGTRAP,
            breakpoint_kind: ON_EXECUTION,
            address,
            length: size_of::<u64>() as u64,
            signal_data: data,
            ..Attributes::default()
        };
        // SAFETY: a breakpoint's attributes hold no path.
        let event = unsafe { Event::open(&attributes, tid) }?;
        Ok(Self { event })
    }

    /// Switches it on.
    pub fn enable(&self) -> io::Result<()> {
        self.control(ENABLE)
    }

    /// Switches it off. What was hit before may still be on its way to the tracer: see [`Self::hits`].
    pub fn disable(&self) -> io::Result<()> {
        self.control(DISABLE)
    }

    /// How often it was hit.
    pub fn hits(&self) -> io::Result<u64> {
        self.event.count()
    }

    fn control(&self, request: u64) -> io::Result<()> {
        // SAFETY: the request takes no pointer.
        if unsafe { libc::ioctl(self.event.file.as_raw_fd(), request, 0) } == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_none_on_nobodys_thread() {
        assert!(Breakpoint::new(u32::MAX, 0x1000, 0).is_err());
    }
}
