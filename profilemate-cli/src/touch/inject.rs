//! Mapping the marker page into a process: a handful of system calls made by one of its threads.
//!
//! Nothing that the process owns is written to. The calls need one string, the memfd's name; it is put into the very
//! memory that the page will take, which is reserved first.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use profilemate_common::page::{CODE_SIZE, DATA_SIZE, LOG_OFFSET, LOG_SIZE, MEMFD_NAME};

use super::Error;
use super::check::{Filters, check_status, read_proc};
use super::seccomp::{self, Call};
use super::stopped::{Borrowed, Stopped};
use super::thread_id;
use super::threads::with_stopped;
use crate::sys::vm;

const PAGE_SIZE: u64 = (LOG_OFFSET + LOG_SIZE) as u64;
const MFD_CLOEXEC: u64 = 0x1;
/// Known since 6.3, where a memfd may otherwise come without the permission to be executed.
const MFD_EXEC: u64 = 0x10;
const READ_WRITE: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;
const READ_EXECUTE: u64 = (libc::PROT_READ | libc::PROT_EXEC) as u64;
const RESERVE: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
const REPLACE: u64 = (libc::MAP_PRIVATE | libc::MAP_FIXED) as u64;
const REPLACE_SHARED: u64 = (libc::MAP_SHARED | libc::MAP_FIXED) as u64;

/// A mapped page, still empty.
pub(super) struct Mapped {
    pub(super) base: u64,
    pub(super) memfd: OwnedFd,
    /// Inode of the memfd.
    pub(super) inode: u64,
    /// Where threads of the process find their own id, see [`thread_id`].
    pub(super) thread_id_offset: Option<u32>,
    /// For how long one thread stood, in nanoseconds.
    pub(super) stood_ns: u64,
}

/// Maps an empty page, of [`CODE_SIZE`], [`DATA_SIZE`] and [`LOG_SIZE`] bytes, into process `pid`.
pub(super) fn map(pid: u32) -> Result<Mapped, Error> {
    let filters = check_status(pid)?;
    let borrowed = find_borrowed(pid)?;
    let ((base, memfd, offset), stood_ns) = with_stopped(pid, |thread| {
        if filters == Filters::Ask {
            seccomp::ask(pid, thread.tid(), &planned_calls())?;
        }
        let offset = thread_id::offset(pid, thread);
        let injection = Injection {
            pid,
            thread,
            borrowed,
        };
        let (base, memfd) = injection.map()?;
        Ok((base, memfd, offset))
    })?;
    let about = memfd.metadata().map_err(|_| Error::NotOurs {
        pid,
        what: "the memfd cannot be looked at",
    })?;
    Ok(Mapped {
        base,
        inode: about.ino(),
        memfd: memfd.into(),
        thread_id_offset: offset,
        stood_ns,
    })
}

/// The calls that [`Injection::map`] makes, as far as a filter can know them before, and that of the page's code.
fn planned_calls() -> [Call; 9] {
    let call = |number, args| Call { number, args };
    [
        call(
            libc::SYS_mmap,
            [0, PAGE_SIZE, READ_WRITE, RESERVE, u64::MAX, 0],
        ),
        call(
            libc::SYS_memfd_create,
            [0, MFD_CLOEXEC | MFD_EXEC, 0, 0, 0, 0],
        ),
        call(
            libc::SYS_mmap,
            [0, CODE_SIZE as u64, READ_EXECUTE, REPLACE, 3, 0],
        ),
        call(
            libc::SYS_mmap,
            [
                0,
                DATA_SIZE as u64,
                READ_WRITE,
                REPLACE,
                3,
                CODE_SIZE as u64,
            ],
        ),
        call(
            libc::SYS_mmap,
            [
                0,
                LOG_SIZE as u64,
                READ_WRITE,
                REPLACE_SHARED,
                3,
                LOG_OFFSET as u64,
            ],
        ),
        call(libc::SYS_close, [3, 0, 0, 0, 0, 0]),
        call(libc::SYS_getpid, [0; 6]),
        call(libc::SYS_rt_sigreturn, [0; 6]),
        call(libc::SYS_munmap, [0, PAGE_SIZE, 0, 0, 0, 0]),
    ]
}

struct Injection<'a> {
    pid: u32,
    thread: &'a mut Stopped,
    borrowed: Borrowed,
}

impl Injection<'_> {
    fn call(&mut self, name: &'static str, number: i64, args: [u64; 6]) -> Result<u64, Error> {
        self.thread.call(self.borrowed, name, number, args)
    }

    fn map(mut self) -> Result<(u64, File), Error> {
        let base = self.call(
            "mmap",
            libc::SYS_mmap,
            [0, PAGE_SIZE, READ_WRITE, RESERVE, u64::MAX, 0],
        )?;
        let result = self.map_memfd(base);
        if result.is_err() {
            let _ = self.call("munmap", libc::SYS_munmap, [base, PAGE_SIZE, 0, 0, 0, 0]);
        }
        result.map(|memfd| (base, memfd))
    }

    fn map_memfd(&mut self, base: u64) -> Result<File, Error> {
        let mut name = MEMFD_NAME.as_bytes().to_vec();
        name.push(0);
        vm::write(self.pid, base, &name).map_err(|source| Error::Memory {
            pid: self.pid,
            address: base,
            source,
        })?;
        let fd = match self.create(base, MFD_CLOEXEC | MFD_EXEC) {
            Err(Error::Injected { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => {
                self.create(base, MFD_CLOEXEC)
            }
            other => other,
        }?;
        let result = self.fill(base, fd);
        let closed = self.call("close", libc::SYS_close, [fd, 0, 0, 0, 0, 0]);
        let memfd = result?;
        closed?;
        Ok(memfd)
    }

    fn create(&mut self, name: u64, flags: u64) -> Result<u64, Error> {
        self.call(
            "memfd_create",
            libc::SYS_memfd_create,
            [name, flags, 0, 0, 0, 0],
        )
    }

    fn fill(&mut self, base: u64, fd: u64) -> Result<File, Error> {
        let memfd = open_memfd(self.pid, self.thread.tid(), fd)?;
        self.call(
            "mmap",
            libc::SYS_mmap,
            [base, CODE_SIZE as u64, READ_EXECUTE, REPLACE, fd, 0],
        )?;
        let data = base + CODE_SIZE as u64;
        self.call(
            "mmap",
            libc::SYS_mmap,
            [
                data,
                DATA_SIZE as u64,
                READ_WRITE,
                REPLACE,
                fd,
                CODE_SIZE as u64,
            ],
        )?;
        let log = base + LOG_OFFSET as u64;
        self.call(
            "mmap",
            libc::SYS_mmap,
            [
                log,
                LOG_SIZE as u64,
                READ_WRITE,
                REPLACE_SHARED,
                fd,
                LOG_OFFSET as u64,
            ],
        )?;
        Ok(memfd)
    }
}

/// Opens the memfd that thread `tid` has just made, and makes sure that it is that: another thread of a hostile
/// process may have put something else under the number.
fn open_memfd(pid: u32, tid: u32, fd: u64) -> Result<File, Error> {
    let path = format!("/proc/{pid}/task/{tid}/fd/{fd}");
    let not_ours = |what| Error::NotOurs { pid, what };
    let link =
        std::fs::read_link(&path).map_err(|_| not_ours("the new file descriptor is gone"))?;
    if link.to_str() != Some(&format!("/memfd:{MEMFD_NAME} (deleted)")) {
        return Err(not_ours("the new file descriptor is another file"));
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|_| not_ours("the memfd cannot be opened"))?;
    let about = file
        .metadata()
        .map_err(|_| not_ours("the memfd cannot be looked at"))?;
    // Only files in memory have seals, and ours is new: unnamed, unsealed and empty.
    let seals =
        rustix::fs::fcntl_get_seals(&file).map_err(|_| not_ours("the new file is no memfd"))?;
    if about.nlink() != 0 || about.len() != 0 || seals.contains(rustix::fs::SealFlags::WRITE) {
        return Err(not_ours("the new file is not new"));
    }
    Ok(file)
}

/// Finds a `syscall` instruction with a `ret` behind it, and what makes the call `rt_sigreturn`: in the C library, or
/// else in any code that the process has mapped.
pub(super) fn find_borrowed(pid: u32) -> Result<Borrowed, Error> {
    const SEARCHED: u64 = 16 << 20;
    const CALL: [u8; 3] = [0x0f, 0x05, 0xc3];
    /// `mov rax, 15` and `syscall`: what signal handlers return to.
    const SIGRETURN: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];
    let maps = read_proc(pid, "maps")?;
    let mut code: Vec<_> = maps.lines().filter_map(parse_code).collect();
    code.sort_by_key(|(_, _, name)| !is_c_library(name));
    let (mut call, mut sigreturn) = (None, None);
    let mut bytes = Vec::new();
    for (start, end, _) in code.into_iter().take(16) {
        bytes.resize((end.saturating_sub(start)).min(SEARCHED) as usize, 0);
        let Ok(read) = vm::read_some(pid, start, &mut bytes) else {
            continue;
        };
        let find = |pattern: &[u8]| {
            let at = memchr::memmem::find(&bytes[..read], pattern)?;
            Some(start + at as u64)
        };
        call = call.or_else(|| find(&CALL));
        sigreturn = sigreturn.or_else(|| find(&SIGRETURN));
        if let (Some(call), Some(sigreturn)) = (call, sigreturn) {
            return Ok(Borrowed { call, sigreturn });
        }
    }
    Err(Error::NothingToBorrow { pid })
}

/// Whether a file is a C library, by its name.
fn is_c_library(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    ["libc.", "libc-", "ld-musl-"]
        .iter()
        .any(|begin| name.starts_with(begin))
}

/// Start, end and name of an executable mapping, from a line of `maps`. The vsyscall page cannot be executed freely.
fn parse_code(line: &str) -> Option<(u64, u64, String)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let executable = fields.next()?.starts_with("r-x");
    let name = fields.nth(3).unwrap_or_default();
    if !executable || name == "[vsyscall]" {
        return None;
    }
    Some((
        u64::from_str_radix(start, 16).ok()?,
        u64::from_str_radix(end, 16).ok()?,
        name.into(),
    ))
}
