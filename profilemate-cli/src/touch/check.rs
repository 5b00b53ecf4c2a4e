//! Looking before touching: what about a process forbids to stop it and map a page.

use std::io::Read;
use std::os::unix::fs::FileExt;

use super::Error;
use crate::sys::status;

/// What `/proc/PID/status` tells.
#[derive(Debug, Default, PartialEq, Eq)]
struct Status {
    state: char,
    tracer: u32,
    seccomp: u32,
    ignored: u64,
    has_memory: bool,
}

impl Status {
    fn parse(text: &str) -> Self {
        let number = |name| status::field(text, name)?.parse().ok();
        let ignored = status::field(text, "SigIgn");
        Self {
            state: status::field(text, "State")
                .and_then(|state| state.chars().next())
                .unwrap_or_default(),
            tracer: number("TracerPid").unwrap_or(0),
            seccomp: number("Seccomp").unwrap_or(0),
            ignored: ignored
                .and_then(|set| u64::from_str_radix(set, 16).ok())
                .unwrap_or(0),
            has_memory: status::field(text, "VmSize").is_some(),
        }
    }
}

/// Whether seccomp filters have to be asked before a system call is made in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filters {
    /// There are none.
    None,
    /// There are some; read and ask them.
    Ask,
}

/// Whether a process may be touched, as far as can be seen without touching it. Stops nothing.
pub fn check(pid: u32) -> Result<(), Error> {
    check_status(pid).map(drop)
}

pub(super) fn check_status(pid: u32) -> Result<Filters, Error> {
    if cfg!(not(target_arch = "x86_64")) {
        return Err(Error::Architecture {
            missing: "the injection of system calls",
        });
    }
    if std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope")
        .is_ok_and(|scope| scope.trim() == "3")
    {
        return Err(Error::PtraceScope);
    }
    let status = Status::parse(&read_proc(pid, "status")?);
    judge(pid, &status)?;
    check_executable(pid)?;
    Ok(if status.seccomp == 0 {
        Filters::None
    } else {
        Filters::Ask
    })
}

fn judge(pid: u32, status: &Status) -> Result<(), Error> {
    if matches!(status.state, 'Z' | 'X') {
        return Err(Error::Gone { pid });
    }
    if !status.has_memory {
        return Err(Error::KernelThread { pid });
    }
    if status.tracer != 0 {
        return Err(Error::Traced {
            pid,
            tracer: process_of(status.tracer),
        });
    }
    if status.ignored & (1 << (libc::SIGTRAP - 1)) != 0 {
        return Err(Error::TrapIgnored { pid });
    }
    match status.seccomp {
        0 | 2 => Ok(()),
        1 => Err(Error::Seccomp {
            pid,
            reason: "strict mode allows nothing but read, write and exit",
        }),
        _ => Err(Error::Seccomp {
            pid,
            reason: "its mode is unknown",
        }),
    }
}

/// The process that a thread belongs to; the thread itself where that cannot be told.
fn process_of(tid: u32) -> u32 {
    let status = read_proc(tid, "status").unwrap_or_default();
    let process = status::field(&status, "Tgid").and_then(|pid| pid.parse().ok());
    process.unwrap_or(tid)
}

/// A 32-bit program makes system calls by other numbers.
fn check_executable(pid: u32) -> Result<(), Error> {
    let path = format!("/proc/{pid}/exe");
    let mut head = [0_u8; 20];
    std::fs::File::open(&path)
        .and_then(|file| file.read_exact_at(&mut head, 0))
        .map_err(|source| proc_error(pid, path, source))?;
    // ELF class at 4 (2 is 64-bit), machine at 18 (62 is x86-64).
    let native = head.starts_with(b"\x7fELF") && head[4] == 2 && head[18..20] == [62, 0];
    if native {
        Ok(())
    } else {
        Err(Error::NotNative { pid })
    }
}

/// Reads a file of `/proc/PID`, up to a size that no honest process reaches.
pub(super) fn read_proc(pid: u32, name: &str) -> Result<String, Error> {
    const MOST: u64 = 64 << 20;
    let path = format!("/proc/{pid}/{name}");
    let mut text = Vec::new();
    std::fs::File::open(&path)
        .and_then(|file| file.take(MOST).read_to_end(&mut text))
        .map_err(|source| proc_error(pid, path, source))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn proc_error(pid: u32, path: String, source: std::io::Error) -> Error {
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ESRCH) => Error::Gone { pid },
        _ => Error::Proc { path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tpython3\nState:\tS (sleeping)\nTracerPid:\t0\nVmSize:\t  100 kB\nSigIgn:\t\
                          0000000001001000\nSeccomp:\t0\n";

    fn judged(from: &str, to: &str) -> Result<(), Error> {
        judge(7, &Status::parse(&STATUS.replace(from, to)))
    }

    #[test]
    fn an_ordinary_process_may_be_touched() {
        judged("", "").unwrap();
    }

    #[test]
    fn what_forbids_touching_is_told_apart() {
        assert!(matches!(
            judged("S (sl", "Z (sl"),
            Err(Error::Gone { pid: 7 })
        ));
        assert!(matches!(
            judged("VmSize", "Other"),
            Err(Error::KernelThread { .. })
        ));
        assert!(matches!(
            judged("TracerPid:\t0", "TracerPid:\t1"),
            Err(Error::Traced { tracer: 1, .. })
        ));
        assert!(matches!(
            judged("1001000", "1001010"),
            Err(Error::TrapIgnored { .. })
        ));
        assert!(matches!(
            judged("Seccomp:\t0", "Seccomp:\t1"),
            Err(Error::Seccomp { .. })
        ));
    }

    #[test]
    fn a_kernel_thread_and_nobody_are_refused() {
        assert!(matches!(
            check(2),
            Err(Error::KernelThread { .. } | Error::Gone { .. } | Error::NotNative { .. })
        ));
        assert!(matches!(check(u32::MAX), Err(Error::Gone { .. })));
    }
}
