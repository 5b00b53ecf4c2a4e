//! What a hit of the page's probe costs on this machine: tried out on a forked child of our own, never in a target.
//!
//! The child passes a site like the page's, a little work between two passes so that caches are as cold as between two
//! calls of a server, and times each. The difference with and without the probe, less what the kernel counts for the
//! probe program itself, is the price of the trap.

use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use super::nop5::{Child, memfd};
use super::{Error, Kernel, attach, load_object, object_bytes, uprobe};
use aya::Ebpf;
use aya::sys::Stats;
use profilemate_ebpf as object;

/// `nop; ret`, and `nop dword [rax + rax]; ret`.
const ONE_BYTE: [u8; 2] = [0x90, 0xc3];
const FIVE_BYTES: [u8; 6] = [0x0f, 0x1f, 0x44, 0x00, 0x00, 0xc3];
/// Passes that are timed.
const PASSES: usize = 301;
/// Bytes that are touched between two passes.
const TOUCHED: usize = 256 << 10;
/// Bytes of a cache line.
const LINE: usize = 64;
/// A page, where no record is made of its marks.
const NO_PAGE: u64 = u64::MAX;
/// What the child says: it has mapped the page.
const READY: u8 = b'r';

/// The kernel's statistics of run times, which are on while this is held.
pub struct Statistics {
    _fd: OwnedFd,
}

/// Has the kernel count how long probe programs run, on the whole host: two readings of a clock for each run.
pub fn statistics() -> Result<Statistics, Error> {
    aya::sys::enable_stats(Stats::RunTime)
        .map(|fd| Statistics { _fd: fd })
        .map_err(|source| Error::Statistics {
            source: source.io_error,
        })
}

impl Kernel {
    /// Nanoseconds that the page's probe program has run, while [`statistics`] are on.
    pub fn run_ns(&self) -> Option<u64> {
        run_of(&self.ebpf).map(|run| run.0)
    }
}

/// Nanoseconds and number of runs of the page's probe program.
fn run_of(ebpf: &Ebpf) -> Option<(u64, u64)> {
    let info = ebpf.program(object::METHOD_CALLED)?.info().ok()?;
    Some((info.run_time().as_nanos() as u64, info.run_count()))
}

/// Nanoseconds that a trap at the page's probed instruction costs, without the run of the program.
pub fn probe_price(five_bytes: bool) -> Result<f64, Error> {
    let failed = |source| Error::Price { source };
    if !cfg!(target_arch = "x86_64") {
        return Err(failed(io::ErrorKind::Unsupported.into()));
    }
    let code: &[u8] = if five_bytes { &FIVE_BYTES } else { &ONE_BYTE };
    let page = memfd(code).map_err(failed)?;
    let mut child = Child::start(&page, life).map_err(failed)?;
    if child.answer().map_err(failed)? != Some(READY) {
        return Err(failed(io::Error::other("the child did not map the page")));
    }
    let plain = passes(&mut child).map_err(failed)?;
    let mut ebpf = load_object(&object_bytes()?, 4096)?;
    uprobe(&mut ebpf, object::METHOD_CALLED)?
        .load()
        .map_err(|source| super::error::refused(object::METHOD_CALLED, source))?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", page.as_raw_fd()));
    let statistics = statistics()?;
    let link = attach(&mut ebpf, &path, 0, NO_PAGE)?;
    let probed = passes(&mut child).map_err(failed)?;
    drop(child);
    drop(link);
    let (run_ns, runs) = run_of(&ebpf).unwrap_or_default();
    drop(statistics);
    let program = run_ns as f64 / runs.max(1) as f64;
    let price = probed as f64 - plain as f64 - program;
    if runs == 0 || price <= 0.0 {
        let what = format!("{runs} of {PASSES} passes were seen, {plain} and {probed} ns each");
        return Err(failed(io::Error::other(what)));
    }
    Ok(price)
}

/// Has the child pass the site, and gives the median of the times in nanoseconds.
fn passes(child: &mut Child) -> io::Result<u64> {
    child.go.write_all(&[READY])?;
    child
        .number()?
        .ok_or_else(|| io::Error::other("the child did not answer"))
}

/// The child's life: map, and time passes as often as it is told to.
///
/// # Safety
///
/// Runs in a forked child, so: system calls only, no allocation, no lock, no unwinding. The descriptors are open.
unsafe fn life(parent: libc::pid_t, page: i32, wait: i32, say: i32) -> ! {
    // SAFETY: only async-signal-safe calls, with valid pointers; the mapped code is one of the above, and what is
    // touched was mapped.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != parent {
            libc::_exit(1);
        }
        libc::setpgid(0, 0);
        let map = |len, protection, flags, fd| {
            libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, 0)
        };
        let executable = libc::PROT_READ | libc::PROT_EXEC;
        let code = map(4096, executable, libc::MAP_PRIVATE, page);
        let writable = libc::PROT_READ | libc::PROT_WRITE;
        let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let work = map(TOUCHED, writable, anonymous, -1);
        let mut word = READY;
        if code == libc::MAP_FAILED
            || work == libc::MAP_FAILED
            || libc::write(say, (&raw const word).cast(), 1) != 1
        {
            libc::_exit(1);
        }
        let site: extern "C" fn() = std::mem::transmute(code);
        let mut times = [0_u64; PASSES];
        while libc::read(wait, (&raw mut word).cast(), 1) == 1 {
            for time in &mut times {
                for at in (0..TOUCHED).step_by(LINE) {
                    let byte = work.cast::<u8>().add(at);
                    byte.write_volatile(byte.read_volatile().wrapping_add(1));
                }
                let before = now_ns();
                site();
                *time = now_ns().saturating_sub(before);
            }
            times.sort_unstable();
            let median = times[PASSES / 2];
            libc::write(say, (&raw const median).cast(), size_of::<u64>());
        }
        libc::_exit(0)
    }
}

/// The clock.
///
/// # Safety
///
/// None beyond that of a system call; callable after a fork.
unsafe fn now_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the structure is valid, and the call is safe after a fork.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
