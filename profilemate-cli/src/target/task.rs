//! The threads of a process as the kernel shows them, in `/proc/PID/task`, without stopping any.

use std::time::Duration;

use crate::sys::status::{field, innermost_id};

/// Threads of a process that are looked at, at most.
const TASKS: usize = 8192;

/// A thread at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Task {
    /// Thread id in this process's pid namespace.
    pub tid: u32,
    /// Thread id in its own pid namespace, which is what it knows of itself.
    pub own_tid: u32,
    /// Name, at most 15 bytes.
    pub name: String,
    /// State as the kernel words it: `S (sleeping)`.
    pub state: String,
    /// Kernel function that it waits in; `None` while it runs, or where the kernel does not tell.
    pub waits_in: Option<String>,
    /// The system call that it waits in.
    pub call: Call,
    /// Time on a processor since it began, and how often it was put on one. `None` where the kernel does not count.
    pub ran: Option<(Duration, u64)>,
    /// For how long it has not run, as the scheduler notes it. The clocks of two processors differ by the time that
    /// interrupts and other virtual machines took from each. `None` where the kernel does not tell.
    pub idle: Option<Duration>,
}

/// Where a thread stands in its program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Call {
    /// It runs, or is about to: its registers are not to be had.
    Running,
    /// It waits in the kernel.
    Waits {
        /// The system call's number; negative: in none, as at a page fault.
        number: i64,
        /// Its stack pointer.
        stack: u64,
        /// The instruction behind the call.
        instruction: u64,
    },
    /// The kernel does not tell, or this process may not ask.
    #[default]
    Unknown,
}

/// The threads of process `pid`. Those that end meanwhile are left out.
pub fn tasks(pid: u32) -> Vec<Task> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let now = scheduled(&read("/proc/thread-self/sched"));
    let mut found: Vec<Task> = entries
        .take(TASKS)
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|tid| task(pid, tid, now))
        .collect();
    found.sort_by_key(|task| task.tid);
    found
}

fn read(path: &str) -> String {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

fn task(pid: u32, tid: u32, now: Option<Duration>) -> Option<Task> {
    let file = |name: &str| read(&format!("/proc/{pid}/task/{tid}/{name}"));
    let status = file("status");
    let state = field(&status, "State")?.to_owned();
    let own_tid = innermost_id(&status);
    let waits_in = file("wchan");
    let last = scheduled(&file("sched"));
    Some(Task {
        tid,
        own_tid: own_tid.unwrap_or(tid),
        name: file("comm").trim_end_matches('\n').to_owned(),
        idle: last
            .zip(now)
            .and_then(|(last, now)| now.checked_sub(last))
            .filter(|_| !state.starts_with('R')),
        state,
        waits_in: Some(waits_in.trim())
            .filter(|name| !name.is_empty() && *name != "0")
            .map(str::to_owned),
        call: call(&file("syscall")),
        ran: ran(&file("schedstat")),
    })
}

/// When a thread was last charged for running, by the clock of its processor (`sched`, which kernels without
/// `CONFIG_SCHED_DEBUG` lack). 0 after it was moved while it slept, on some kernels.
fn scheduled(sched: &str) -> Option<Duration> {
    let line = sched
        .lines()
        .find(|line| line.starts_with("se.exec_start"))?;
    let ms: f64 = line.split(':').nth(1)?.trim().parse().ok()?;
    Duration::try_from_secs_f64(ms / 1000.0)
        .ok()
        .filter(|time| !time.is_zero())
}

/// `/proc/PID/task/TID/schedstat`: nanoseconds run, nanoseconds waited for a processor, times put on one.
fn ran(schedstat: &str) -> Option<(Duration, u64)> {
    let mut numbers = schedstat
        .split_whitespace()
        .map(|text| text.parse::<u64>().ok());
    let (ran, _, times) = (numbers.next()??, numbers.next()??, numbers.next()??);
    // All 0: the kernel was told not to count.
    (times > 0).then_some((Duration::from_nanos(ran), times))
}

/// `/proc/PID/task/TID/syscall`: `running`, or number, six arguments, stack pointer and instruction, or -1 and these
/// two.
fn call(text: &str) -> Call {
    let words: Vec<&str> = text.split_whitespace().collect();
    let address = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    match words.as_slice() {
        ["running"] => Call::Running,
        [number, .., stack, instruction] => (|| {
            Some(Call::Waits {
                number: number.parse().ok()?,
                stack: address(stack)?,
                instruction: address(instruction)?,
            })
        })()
        .unwrap_or_default(),
        _ => Call::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read_and_others_are_nothing() {
        assert_eq!(call("running\n"), Call::Running);
        assert_eq!(
            call("202 0x1 0x2 0x3 0x4 0x5 0x6 0x7ffe10 0x7f00ab\n"),
            Call::Waits {
                number: 202,
                stack: 0x007f_fe10,
                instruction: 0x007f_00ab
            }
        );
        assert!(matches!(
            call("-1 0x10 0x20"),
            Call::Waits { number: -1, .. }
        ));
        for odd in ["", "x", "1 2 3", "0x1 0x2", "1 0xzz 0x3"] {
            assert_eq!(call(odd), Call::Unknown, "{odd}");
        }
        assert_eq!(ran("500 7 3"), Some((Duration::from_nanos(500), 3)));
        assert_eq!(ran("0 0 0"), None);
        assert_eq!(ran("x"), None);
        let sched = "head (1, #threads: 1)\nse.exec_start    :   1500.250000\n";
        assert_eq!(scheduled(sched), Some(Duration::from_micros(1_500_250)));
        assert_eq!(scheduled("se.exec_start : 0.000000"), None);
    }

    #[test]
    fn a_thread_that_sleeps_does_not_run_and_one_that_runs_does() {
        let (send, receive) = std::sync::mpsc::channel::<()>();
        let sleeper = std::thread::Builder::new()
            .name("a sleeper".into())
            .spawn(move || receive.recv().is_err())
            .unwrap();
        let look = || {
            let all = tasks(std::process::id());
            all.into_iter().find(|task| task.name == "a sleeper")
        };
        while !look().is_some_and(|task| matches!(task.call, Call::Waits { .. })) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let before = look().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let after = look().unwrap();
        assert_eq!((before.ran, before.tid), (after.ran, after.tid));
        assert_eq!(before.own_tid, before.tid);
        drop(send);
        sleeper.join().unwrap();
        assert!(tasks(u32::MAX / 2).is_empty());
    }
}
