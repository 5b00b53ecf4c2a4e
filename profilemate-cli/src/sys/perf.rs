//! Perf events: opened for one thread, counted, and gone with their file.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::FromRawFd as _;

/// `struct perf_event_attr`, as far as the kernel knew it when `sigtrap` came (5.13).
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Zeroable)]
pub struct Attributes {
    /// Type of the event.
    pub kind: u32,
    /// Bytes of this.
    pub size: u32,
    /// Which event of its type.
    pub config: u64,
    /// Events between two samples.
    pub sample_period: u64,
    /// What a sample holds.
    pub sample_type: u64,
    /// What a reading holds.
    pub read_format: u64,
    /// The bit field behind `read_format`.
    pub flags: u64,
    /// Samples between two wake-ups.
    pub wakeup_events: u32,
    /// `bp_type`.
    pub breakpoint_kind: u32,
    /// `bp_addr`, or `config1`: for a uprobe the address of its file's path.
    pub address: u64,
    /// `bp_len`, or `config2`: for a uprobe the offset in its file.
    pub length: u64,
    /// From `branch_sample_type` to the reserved words.
    pub unused: [u64; 6],
    /// Given to the signal.
    pub signal_data: u64,
}

const FLAG_CLOEXEC: u64 = 8;

impl Default for Attributes {
    fn default() -> Self {
        Self {
            size: size_of::<Self>() as u32,
            ..bytemuck::Zeroable::zeroed()
        }
    }
}

/// An open event.
#[derive(Debug)]
pub struct Event {
    /// Its file.
    pub file: File,
}

impl Event {
    /// Opens an event of thread `tid`.
    ///
    /// # Safety
    ///
    /// Where the attributes hold the address of a path, it is that of a C string that lives through the call.
    pub unsafe fn open(attributes: &Attributes, tid: u32) -> io::Result<Self> {
        let tid = libc::pid_t::try_from(tid).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: `attributes` lives through the call, and `size` is its size; a path in it is the caller's promise.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const *attributes,
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
        let file = unsafe { File::from_raw_fd(fd) };
        Ok(Self { file })
    }

    /// How often it happened.
    pub fn count(&self) -> io::Result<u64> {
        let mut count = [0; 8];
        (&self.file).read_exact(&mut count)?;
        Ok(u64::from_ne_bytes(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attributes_are_as_long_as_the_kernel_expects() {
        // `PERF_ATTR_SIZE_VER7`
        assert_eq!(size_of::<Attributes>(), 128);
        assert_eq!(core::mem::offset_of!(Attributes, address), 56);
        assert_eq!(core::mem::offset_of!(Attributes, signal_data), 120);
    }
}
