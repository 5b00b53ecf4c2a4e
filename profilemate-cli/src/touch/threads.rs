//! Choosing a thread of the target to borrow for a moment.

use std::time::{Duration, Instant};

use super::Error;
use super::check::read_proc;
use super::stopped::{Attempt, Stopped, Waits, waits};
use crate::sys::process::hurry;

/// How long each thread may take to stop, round by round. Waiting stops nobody: it is the time until a thread that is
/// not running, or is deep in the kernel, comes by.
const PATIENCE: [Duration; 3] = [
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(250),
];
/// How long to go on in all.
const ENOUGH: Duration = Duration::from_secs(3);
/// Threads tried, at most.
const THREADS: usize = 64;

/// Does `work` on a stopped thread of process `pid`. Returns its result and for how many nanoseconds the thread stood.
///
/// Each attempt has a tracer thread of its own: ptrace belongs to threads, and the end of one is the only way to take
/// an interrupt back that was not answered in time.
pub(super) fn with_stopped<T: Send>(
    pid: u32,
    mut work: impl FnMut(&mut Stopped) -> Result<T, Error> + Send,
) -> Result<(T, u64), Error> {
    let begin = Instant::now();
    let mut refused = None;
    for patience in PATIENCE {
        for tid in candidates(pid)? {
            if begin.elapsed() > ENOUGH {
                break;
            }
            match attempt(pid, tid, patience, &mut work) {
                Ok(Some(done)) => return Ok(done),
                Ok(None) => {}
                // Also said by a thread that is just ending: worth another thread before it is believed.
                Err(error @ (Error::Forbidden { .. } | Error::NoWayBack { .. })) => {
                    refused = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
    }
    let waited_ms = begin.elapsed().as_millis() as u64;
    Err(refused.unwrap_or(Error::NotStopped { pid, waited_ms }))
}

fn attempt<T: Send>(
    pid: u32,
    tid: u32,
    patience: Duration,
    work: &mut (impl FnMut(&mut Stopped) -> Result<T, Error> + Send),
) -> Result<Option<(T, u64)>, Error> {
    let tracer = move || {
        hurry();
        let mut stopped = match Stopped::stop(pid, tid, patience)? {
            Attempt::Stopped(stopped) => stopped,
            Attempt::Unsuitable => return Ok(None),
        };
        let result = work(&mut stopped);
        let stood_ns = stopped.release();
        super::cost::stood(stood_ns);
        result.map(|value| Some((value, stood_ns)))
    };
    traced(tracer)
}

/// Runs `tracer` on a thread of its own: ptrace belongs to threads, and the end of one lets go of what it traces.
pub(super) fn traced<T: Send>(
    tracer: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("pm-touch".into())
            .spawn_scoped(scope, tracer);
        thread
            .map_err(|_| Error::Worker)?
            .join()
            .map_err(|_| Error::Worker)?
    })
}

/// The threads worth trying, best first: those that are not harmed by the interruption, the main thread among them
/// first; then those whose wait ends early with `EINTR`; then those that cannot be interrupted now.
fn candidates(pid: u32) -> Result<Vec<u32>, Error> {
    let path = format!("/proc/{pid}/task");
    let entries = std::fs::read_dir(&path).map_err(|_| Error::Gone { pid })?;
    let mut threads: Vec<(u8, bool, u32)> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|tid: u32| Some((reluctance(pid, tid)?, tid != pid, tid)))
        .collect();
    threads.sort_unstable();
    threads.truncate(THREADS);
    Ok(threads.into_iter().map(|(_, _, tid)| tid).collect())
}

/// How much speaks against a thread; `None` if it is none.
fn reluctance(pid: u32, tid: u32) -> Option<u8> {
    let stat = read_proc(pid, &format!("task/{tid}/stat")).ok()?;
    match stat[stat.rfind(')')? + 1..].trim_start().chars().next()? {
        'Z' | 'X' => return None,
        'D' => return Some(2),
        _ => {}
    }
    let call = read_proc(pid, &format!("task/{tid}/syscall")).unwrap_or_default();
    Some(u8::from(is_in_limited_wait(&call)))
}

/// Reads `/proc/PID/task/TID/syscall`: number in decimal, then arguments in hexadecimal; or `running`.
fn is_in_limited_wait(call: &str) -> bool {
    let mut fields = call.split_ascii_whitespace();
    let Some(number) = fields.next().and_then(|number| number.parse().ok()) else {
        return false;
    };
    let mut args = fields
        .map(|arg| u64::from_str_radix(arg.trim_start_matches("0x"), 16).unwrap_or(0))
        .skip(2);
    let args = [args.next().unwrap_or(0), args.next().unwrap_or(0)];
    waits(number, args) == Waits::Limited
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limited_epoll_wait_is_told_from_an_endless_one() {
        assert!(is_in_limited_wait(
            "232 0x4 0x7f00 0x80 0x3e8 0x0 0x0 0x7ffd 0x7f"
        ));
        assert!(!is_in_limited_wait(
            "232 0x4 0x7f00 0x80 0xffffffff 0x0 0x0 0x7ffd 0x7f"
        ));
        assert!(!is_in_limited_wait(
            "202 0x4 0x7f00 0x80 0x3e8 0x0 0x0 0x7ffd 0x7f"
        ));
        assert!(!is_in_limited_wait("running\n"));
    }

    #[test]
    fn the_main_thread_of_this_process_is_among_the_candidates() {
        assert!(
            candidates(std::process::id())
                .unwrap()
                .contains(&std::process::id())
        );
    }
}
