//! A hardware breakpoint on one thread, which changes no code of it and of no other thread.
//!
//! It is a perf event, and not one of the debug registers that `ptrace` sets: those would stay behind when the tracer
//! is killed, and the next hit would end the process. The event goes with its file.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _};

/// A breakpoint at which a thread gets `SIGTRAP`, for its tracer to see, before it executes the instruction there.
#[derive(Debug)]
pub struct Breakpoint {
    event: File,
}

/// `struct perf_event_attr`, as far as the kernel knew it when `sigtrap` came (5.13).
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Zeroable)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_kind: u32,
    breakpoint_address: u64,
    breakpoint_length: u64,
    unused: [u64; 6],
    /// Given to the signal.
    signal_data: u64,
}

const TYPE_BREAKPOINT: u32 = 5;
const ON_EXECUTION: u32 = 4;
const DISABLED: u64 = 1 << 0;
const EXCLUDE_KERNEL: u64 = 1 << 5;
const EXCLUDE_HYPERVISOR: u64 = 1 << 6;
const REMOVE_ON_EXEC: u64 = 1 << 36;
const SIGTRAP: u64 = 1 << 37;
const FLAG_CLOEXEC: u64 = 8;
const ENABLE: u64 = 0x2400;
const DISABLE: u64 = 0x2401;

impl Breakpoint {
    /// A breakpoint for thread `tid` at `address`, not switched on yet. Its signals carry `data`. Forked children do
    /// not inherit it.
    pub fn new(tid: u32, address: u64, data: u64) -> io::Result<Self> {
        let attributes = Attributes {
            kind: TYPE_BREAKPOINT,
            size: size_of::<Attributes>() as u32,
            sample_period: 1,
            flags: DISABLED | EXCLUDE_KERNEL | EXCLUDE_HYPERVISOR | REMOVE_ON_EXEC | SIGTRAP,
            breakpoint_kind: ON_EXECUTION,
            breakpoint_address: address,
            breakpoint_length: size_of::<u64>() as u64,
            signal_data: data,
            ..bytemuck::Zeroable::zeroed()
        };
        let tid = libc::pid_t::try_from(tid).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: `attributes` lives through the call, and `size` is its size; the rest are numbers.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                tid,
                -1,
                -1,
                FLAG_CLOEXEC,
            )
        };
        let fd = i32::try_from(fd)
            .ok()
            .filter(|fd| *fd >= 0)
            .ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the kernel has just given us this file, and nobody else has its number.
        let event = unsafe { File::from_raw_fd(fd) };
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
        let mut count = [0; 8];
        (&self.event).read_exact(&mut count)?;
        Ok(u64::from_ne_bytes(count))
    }

    fn control(&self, request: u64) -> io::Result<()> {
        // SAFETY: the request takes no pointer.
        if unsafe { libc::ioctl(self.event.as_raw_fd(), request, 0) } == 0 {
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
    fn the_attributes_are_as_long_as_the_kernel_expects() {
        // `PERF_ATTR_SIZE_VER7`
        assert_eq!(size_of::<Attributes>(), 128);
        assert_eq!(core::mem::offset_of!(Attributes, breakpoint_address), 56);
        assert_eq!(core::mem::offset_of!(Attributes, signal_data), 120);
    }

    #[test]
    fn there_is_none_on_nobodys_thread() {
        assert!(Breakpoint::new(u32::MAX, 0x1000, 0).is_err());
    }
}
