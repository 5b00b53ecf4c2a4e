//! Whether the five-byte probe site may be used on the running kernel.
//!
//! From Linux 6.18 on, x86-64 turns a probed five-byte nop into a call, which is a third cheaper than a breakpoint. On
//! some of these kernels a child that is forked after the probe was attached dies when it passes the site. So this is
//! tried out: on a forked child of our own, never in this process and never in a target.

use super::{Error, attach, load_object, object_bytes, uprobe};
use profilemate_ebpf as object;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// `nop dword [rax + rax]; ret`.
const CODE: [u8; 6] = [0x0f, 0x1f, 0x44, 0x00, 0x00, 0xc3];
/// First kernel that makes calls of such sites; on older ones they are single-stepped, which is slow.
const FIRST_KERNEL: (u32, u32) = (6, 18);
/// The trial takes milliseconds.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A page, where no record is made of its marks.
const NO_PAGE: u64 = u64::MAX;
/// Calls before and after the fork; the first one makes the kernel change the site.
const CALLS: usize = 4;
/// What a child says: it has mapped the page.
pub(super) const READY: u8 = b'r';
/// What the child says: its own child came through.
const SURVIVED: u8 = b's';
/// What the child says: its own child died.
const DIED: u8 = b'd';

/// What the trial showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nop5 {
    /// A forked child passes the site unharmed: the five-byte site may be used.
    Safe,
    /// A forked child died at the site.
    Unsafe,
    /// This kernel or processor gains nothing from the five-byte site.
    NoGain,
}

/// Tries the five-byte site out. Whatever is not [`Nop5::Safe`] means the one-byte site.
pub fn probe_nop5() -> Result<Nop5, Error> {
    let version = super::Capabilities::probe().version;
    if !cfg!(target_arch = "x86_64") || version.is_none_or(|version| version < FIRST_KERNEL) {
        return Ok(Nop5::NoGain);
    }
    let failed = |source| Error::SelfTest { source };
    let page = memfd(&CODE).map_err(failed)?;
    let mut child = Child::start(&page, child).map_err(failed)?;
    if child.answer().map_err(failed)? != Some(READY) {
        return Err(failed(io::Error::other("the child did not map the page")));
    }
    let mut ebpf = load_object(&object_bytes()?, 4096)?;
    uprobe(&mut ebpf, object::METHOD_CALLED)?
        .load()
        .map_err(|source| super::error::refused(object::METHOD_CALLED, source))?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", page.as_raw_fd()));
    let link = attach(&mut ebpf, &path, 0, NO_PAGE)?;
    child.go.write_all(&[READY]).map_err(failed)?;
    let answer = child.answer().map_err(failed)?;
    drop(child);
    drop(link);
    Ok(if answer == Some(SURVIVED) {
        Nop5::Safe
    } else {
        Nop5::Unsafe
    })
}

/// A memfd that begins with `code`, at least a page long.
pub(super) fn memfd(code: &[u8]) -> io::Result<File> {
    // SAFETY: a valid name; the result is checked.
    let fd = unsafe { libc::memfd_create(c"profilemate-trial".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and ours.
    let mut file = unsafe { File::from_raw_fd(fd) };
    file.write_all(code)?;
    file.set_len(code.len().next_multiple_of(4096) as u64)?;
    Ok(file)
}

/// What a forked child does: given its parent, the page, where it reads its word and where it says its own.
type Life = unsafe fn(libc::pid_t, i32, i32, i32) -> !;

/// The forked child. Dropping it ends it and its own child.
pub(super) struct Child {
    pid: libc::pid_t,
    /// What it reads its word from.
    pub(super) go: File,
    said: File,
}

impl Child {
    /// Forks the child, which maps `page` and waits for the go. `life` makes only calls that are safe there.
    pub(super) fn start(page: &File, life: Life) -> io::Result<Self> {
        let (wait, go) = pipe()?;
        let (said, say) = pipe()?;
        let fd = page.as_raw_fd();
        let parent = std::process::id() as libc::pid_t;
        // SAFETY: the child calls only functions that are safe after a fork of a process with threads.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: this is the forked child, and the descriptors are open.
            unsafe { life(parent, fd, wait.as_raw_fd(), say.as_raw_fd()) }
        }
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            pid,
            go: go.into(),
            said: said.into(),
        })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.pid as u32
    }

    /// The child's next word; `None` if it ended or took too long.
    pub(super) fn answer(&mut self) -> io::Result<Option<u8>> {
        let mut word = [0];
        Ok(self.says(&mut word)?.then_some(word[0]))
    }

    /// The child's next number; `None` if it ended or took too long.
    pub(super) fn number(&mut self) -> io::Result<Option<u64>> {
        let mut number = [0; size_of::<u64>()];
        Ok(self.says(&mut number)?.then(|| u64::from_ne_bytes(number)))
    }

    /// Reads what the child says at once; whether it was all.
    fn says(&mut self, words: &mut [u8]) -> io::Result<bool> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut poll = libc::pollfd {
                fd: self.said.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one valid element.
            let ready = unsafe { libc::poll(&raw mut poll, 1, left.as_millis() as i32) };
            if ready < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {
                continue;
            }
            if ready <= 0 {
                return Ok(false);
            }
            return Ok(self.said.read(words)? == words.len());
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: the child is ours, and not yet waited for; it leads its own process group.
        unsafe {
            libc::kill(-self.pid, libc::SIGKILL);
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}

/// A pipe: the end to read, the end to write.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: room for two descriptors.
    if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both are new and ours.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// What every child begins with: it maps the page as code, says so, and waits for its word. Gives where the page is.
///
/// # Safety
///
/// Runs in a forked child, so: system calls only, no allocation, no lock, no unwinding. The descriptors are open.
pub(super) unsafe fn mapped(
    parent: libc::pid_t,
    page: i32,
    wait: i32,
    say: i32,
) -> *mut libc::c_void {
    // SAFETY: only async-signal-safe calls, with valid pointers.
    unsafe {
        // A tracer that is killed takes its trial along. (It may have been killed before this line.)
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != parent {
            libc::_exit(1);
        }
        libc::setpgid(0, 0);
        let code = libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_EXEC,
            libc::MAP_PRIVATE,
            page,
            0,
        );
        let mut word = READY;
        if code == libc::MAP_FAILED
            || libc::write(say, (&raw const word).cast(), 1) != 1
            || libc::read(wait, (&raw mut word).cast(), 1) != 1
        {
            libc::_exit(1);
        }
        code
    }
}

/// The child's life: map, wait for the probe, pass the site, fork, and tell what became of the grandchild.
///
/// # Safety
///
/// Runs in a forked child, so: system calls only, no allocation, no lock, no unwinding. The descriptors are open.
unsafe fn child(parent: libc::pid_t, page: i32, wait: i32, say: i32) -> ! {
    // SAFETY: only async-signal-safe calls, with valid pointers; the mapped code is the one above.
    unsafe {
        let code = mapped(parent, page, wait, say);
        // A crash is expected: no core file, please.
        let none = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        libc::signal(libc::SIGSEGV, libc::SIG_DFL);
        let site: extern "C" fn() = std::mem::transmute(code);
        for _ in 0..CALLS {
            site();
        }
        let grandchild = libc::fork();
        if grandchild == 0 {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            for _ in 0..CALLS {
                site();
            }
            libc::_exit(0);
        }
        let mut status = 0;
        let ended = libc::waitpid(grandchild, &raw mut status, 0);
        let survived = grandchild > 0
            && ended == grandchild
            && libc::WIFEXITED(status)
            && libc::WEXITSTATUS(status) == 0;
        let word = if survived { SURVIVED } else { DIED };
        libc::write(say, (&raw const word).cast(), 1);
        libc::_exit(0)
    }
}
