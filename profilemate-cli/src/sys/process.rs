//! Processes: a hold on one that a reused process id cannot break, and when one started.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A hold on one process: while it is held, what is asked about it is never about a later process with its id.
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
    pid: u32,
}

impl PidFd {
    /// Takes hold of the process that has `pid` now.
    pub fn open(pid: u32) -> io::Result<Self> {
        let raw = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self {
            fd: pidfd_open(raw, PidfdFlags::empty())?,
            pid,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has not ended. A zombie has ended.
    pub fn is_alive(&self) -> bool {
        !self.ends_within(Duration::ZERO).unwrap_or(true)
    }

    /// Waits for its end; `false` if it is still there after `timeout`.
    pub fn ends_within(&self, timeout: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(timeout).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends it a signal.
    pub fn kill(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.fd, signal)?)
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether two processes run in one address space: a child made by `vfork`, until it runs a program of its own. `false`
/// where the kernel does not tell.
pub(crate) fn share_memory(one: u32, other: u32) -> bool {
    const KCMP_VM: libc::c_long = 1;
    // SAFETY: only numbers are passed.
    unsafe {
        libc::syscall(
            libc::SYS_kcmp,
            libc::c_long::from(one),
            libc::c_long::from(other),
            KCMP_VM,
            0_usize,
            0_usize,
        ) == 0
    }
}

/// Makes the calling thread run as soon as it can whenever it has something to do, where that is allowed. For threads
/// that somebody else's thread stands still for; they must never be busy for long.
#[cfg(target_arch = "x86_64")] // where threads are stopped
pub(crate) fn hurry() {
    // Naps end when they should, not up to 50 us later.
    // SAFETY: only numbers are passed.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_usize, 0_usize, 0_usize, 0_usize) };
    let lowest = libc::sched_param { sched_priority: 1 };
    // Without the permission it goes on as it was, only slower on a crowded machine.
    // SAFETY: the call reads one `sched_param`; 0 is the calling thread.
    unsafe {
        libc::sched_setscheduler(
            0,
            libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK,
            &raw const lowest,
        )
    };
}

/// When a process started, in clock ticks since boot (field 22 of `/proc/PID/stat`). With the process id it names a
/// process for good.
pub fn start_time(pid: u32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name stands in brackets and may hold anything, brackets and blanks included.
    let after_name = stat.rfind(')').map_or("", |at| &stat[at + 1..]);
    after_name
        .split_ascii_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Whether this process is in the first pid namespace, whose ids are those that eBPF programs see.
pub fn in_first_pid_namespace() -> bool {
    // Its inode number is a constant of the kernel (`PROC_PID_INIT_INO`).
    std::fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == "pid:[4026531836]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_alive_until_it_is_killed() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid_fd = PidFd::open(child.id()).unwrap();
        assert!(pid_fd.is_alive());
        assert!(start_time(child.id()).unwrap() >= start_time(std::process::id()).unwrap());
        pid_fd.kill(Signal::KILL).unwrap();
        assert!(pid_fd.ends_within(Duration::from_secs(20)).unwrap());
        assert!(!pid_fd.is_alive());
        child.wait().unwrap();
        assert!(pid_fd.kill(Signal::KILL).is_err());
    }

    #[test]
    fn process_zero_is_nobody() {
        assert!(PidFd::open(0).is_err());
        assert!(PidFd::open(u32::MAX).is_err());
    }
}
