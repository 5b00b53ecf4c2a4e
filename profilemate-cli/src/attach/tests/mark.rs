//! A page with one routine that loads chosen registers, passes a one-byte probe site, and returns.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::path::PathBuf;

/// Pushes the callee-saved registers, loads rbx, r12 to r15, rax, r9 and r8 from the eight words at rdi, passes the
/// site, and pops.
const CODE: [u8; 51] = [
    0x53, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57, 0x48, 0x8b, 0x1f, 0x4c, 0x8b, 0x67, 0x08,
    0x4c, 0x8b, 0x6f, 0x10, 0x4c, 0x8b, 0x77, 0x18, 0x4c, 0x8b, 0x7f, 0x20, 0x48, 0x8b, 0x47, 0x28,
    0x4c, 0x8b, 0x4f, 0x30, 0x4c, 0x8b, 0x47, 0x38, 0x90, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41,
    0x5c, 0x5b, 0xc3,
];
/// Offset of the site.
pub(super) const SITE: u64 = 40;

/// What the registers hold at the site, in the order in which the routine takes them.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Registers {
    pub(super) callable: u64,
    pub(super) args: u64,
    pub(super) entry_cycles: u64,
    pub(super) kwnames: u64,
    pub(super) slot_nargs: u64,
    pub(super) result: u64,
    pub(super) return_cycles: u64,
    pub(super) phase: u64,
}

/// The page, mapped into this process.
pub(super) struct MarkPage {
    file: File,
    code: *mut libc::c_void,
}

// SAFETY: the mapping is read only and lives as long as the value.
unsafe impl Sync for MarkPage {}

impl MarkPage {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: a valid name; the result is checked.
        let fd = unsafe { libc::memfd_create(c"profilemate-test".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: new and ours.
        let mut file = unsafe { File::from_raw_fd(fd) };
        file.write_all(&CODE)?;
        file.set_len(4096)?;
        let protection = libc::PROT_READ | libc::PROT_EXEC;
        // SAFETY: a new mapping of a file of that size.
        let code = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                protection,
                libc::MAP_PRIVATE,
                fd,
                0,
            )
        };
        if code == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { file, code })
    }

    /// A path by which any process of ours can open the page's file.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.file.as_raw_fd()
        ))
    }

    /// Passes the site in this process.
    pub(super) fn pass(&self, registers: &Registers) {
        // SAFETY: the code above has this signature and keeps the calling convention.
        let routine: extern "C" fn(*const Registers) = unsafe { std::mem::transmute(self.code) };
        routine(registers);
    }
}

impl Drop for MarkPage {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nothing uses any more.
        unsafe { libc::munmap(self.code, 4096) };
    }
}
