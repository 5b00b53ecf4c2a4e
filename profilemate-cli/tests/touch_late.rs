//! Starting the helper in a Python process that runs already: nothing of what the process does is disturbed. On every
//! interpreter of this machine. Needs root.
//!
//! `PROFILEMATE_INJECTIONS` says how often each case is repeated on each interpreter (10).
#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, reason = "test code")]

#[path = "python_target/mod.rs"]
mod python_target;
#[path = "touch_target/root.rs"]
mod root;

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use profilemate::helper;
use profilemate::target::python::{
    Entry, EntryError, ProcessMemory, find_entry, identify, validate,
};
use profilemate::touch::{Error, Resident, load};
use root::is_root;
use serde_json::Value;

/// What is run again and again, once the helper is there.
const COUNT: &str = "try:\n    __import__('sys').modules['__main__'].count['injected'] = \
                     __import__('sys').modules['__main__'].count.get('injected', 0) + 1\nexcept BaseException:\n    \
                     pass\n";

/// One test at a time: each keeps all processors busy, and what is waited for has its limit.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Target {
    child: Child,
    stdin: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
}

impl Target {
    fn start(python: &Path, modes: &str) -> Self {
        Self::start_with(python, &[], modes)
    }

    fn start_with(python: &Path, flags: &[&str], modes: &str) -> Self {
        let program = include_str!("late_target/target.py");
        let mut child = Command::new(python)
            .args(flags)
            .args([
                "-B",
                "-W",
                "ignore::DeprecationWarning",
                "-c",
                program,
                modes,
            ])
            .env_remove("PYTHONPATH")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", python.display()));
        let stdin = child.stdin.take();
        let mut replies = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        replies.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self {
            child,
            stdin,
            replies,
        }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn entry(&self) -> Entry {
        entry(self.pid()).unwrap()
    }

    fn signal(&self, signal: i32) {
        // SAFETY: the child is ours and not yet collected, so its number is its own.
        unsafe { libc::kill(self.pid() as i32, signal) };
    }

    fn state(&self) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        stat[stat.rfind(')').unwrap() + 1..]
            .trim_start()
            .chars()
            .next()
            .unwrap()
    }

    /// Lets it end; all that it did must have been right. Gives what it counted.
    fn finish(mut self, what: &str) -> Value {
        let mut stdin = self.stdin.take().unwrap();
        let _ = stdin.write_all(b"\n");
        drop(stdin);
        let mut line = String::new();
        self.replies.read_line(&mut line).unwrap();
        assert!(self.child.wait().unwrap().success(), "{what}");
        let told: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{what}: {line}"));
        assert_eq!(told["wrong"], serde_json::json!([]), "{what}");
        assert_eq!(
            told["left"],
            serde_json::json!([]),
            "{what}: names are left"
        );
        assert!(told["count"]["works"].as_u64().unwrap() > 0, "{what}");
        assert_eq!(told["count"]["raised"], told["count"]["caught"], "{what}");
        told["count"].clone()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The way into a process.
fn entry(pid: u32) -> Result<Entry, EntryError> {
    let memory = ProcessMemory { pid };
    let interpreter = identify(pid, &memory).unwrap();
    let layout = validate(&interpreter, &memory).unwrap();
    find_entry(&interpreter, &layout, &memory)
}

fn repetitions() -> u64 {
    std::env::var("PROFILEMATE_INJECTIONS").map_or(10, |number| number.parse().unwrap())
}

/// Starts the helper once, and then runs something often, in a target that does what `modes` say.
fn undisturbed(modes: &str) {
    if !is_root() {
        return;
    }
    let _turn = turn();
    for python in python_target::pythons() {
        let what = format!("{modes} on {}", python.display());
        let target = Target::start(&python, modes);
        let pid = target.pid();
        let entry = target.entry();
        assert!(Resident::find(pid).unwrap().is_none());
        let resident = helper::load(pid, &entry).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(resident.state().unwrap().state, "waiting", "{what}");
        // Its interface has one place for a request, and no answer but the helper's.
        let times = if matches!(entry, Entry::Remote(_)) {
            0
        } else {
            repetitions()
        };
        let mut stood: Vec<u64> = (0..times)
            .map(|_| {
                load(pid, &entry, COUNT)
                    .unwrap_or_else(|error| panic!("{what}: {error}"))
                    .1
            })
            .collect();
        stood.sort_unstable();
        if let (Some(longest), Some(median)) = (stood.last(), stood.get(stood.len() / 2)) {
            println!(
                "{what}: stood {} us, {} us at worst",
                median / 1000,
                longest / 1000
            );
        }
        assert_eq!(status(pid, "TracerPid"), "0", "{what}");
        let count = target.finish(&what);
        assert_eq!(count["injected"].as_u64().unwrap_or(0), times, "{what}");
        for (mode, counted) in [
            ("forks", "children"),
            ("signals", "handled"),
            ("raising", "raised"),
        ] {
            assert!(
                !modes.contains(mode) || count[counted].as_u64().unwrap() > 0,
                "{what}"
            );
        }
    }
}

fn status(pid: u32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap();
    line.trim_start_matches(':').trim().to_owned()
}

#[test]
fn a_busy_thread() {
    undisturbed("one");
}

#[test]
fn four_busy_threads() {
    undisturbed("threads");
}

#[test]
fn threads_and_forks() {
    undisturbed("threads,forks");
}

#[test]
fn a_storm_of_signals_some_of_whose_handlers_raise() {
    undisturbed("signals,raising");
}

#[test]
fn signals_forks_and_threads() {
    undisturbed("signals,raising,threads,forks");
}

#[test]
fn a_thread_that_waits_outside_of_python_is_left_alone() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    // At once: each takes as long as it waits.
    std::thread::scope(|scope| {
        for python in python_target::pythons() {
            scope.spawn(move || left_alone(&python));
        }
    });
}

fn left_alone(python: &Path) {
    let what = python.display().to_string();
    let target = Target::start(python, "blocked,threads");
    let entry = target.entry();
    let began = Instant::now();
    let result = helper::load(target.pid(), &entry);
    assert!(
        matches!(result, Err(Error::NotReached { .. })),
        "{what}: {result:?}"
    );
    assert!(began.elapsed() < Duration::from_secs(60), "{what}");
    assert_eq!(status(target.pid(), "TracerPid"), "0", "{what}");
    assert!(Resident::find(target.pid()).unwrap().is_none(), "{what}");
    target.finish(&what);
}

#[test]
fn an_interface_that_is_switched_off_is_not_used() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    for python in python_target::pythons() {
        let flags = ["-X", "disable-remote-debug"];
        let target = Target::start_with(&python, &flags, "one");
        let found = entry(target.pid());
        // Older ones have no such interface, and know no such option.
        let remote = matches!(Target::start(&python, "one").entry(), Entry::Remote(_));
        let what = python.display();
        assert_eq!(
            matches!(found, Err(EntryError::Disabled)),
            remote,
            "{what}: {found:?}"
        );
    }
}

#[test]
fn a_target_that_ends_meanwhile() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    for python in python_target::pythons() {
        let what = python.display().to_string();
        let target = Target::start(&python, "blocked");
        let entry = target.entry();
        let result = std::thread::scope(|scope| {
            let load = scope.spawn(|| helper::load(target.pid(), &entry));
            std::thread::sleep(Duration::from_millis(300));
            target.signal(libc::SIGKILL);
            load.join().unwrap()
        });
        assert!(result.is_err(), "{what}");
    }
}

#[test]
fn a_stopped_target_stays_stopped_and_is_served_when_it_goes_on() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    for python in python_target::pythons() {
        let what = python.display().to_string();
        let target = Target::start(&python, "one");
        let entry = target.entry();
        target.signal(libc::SIGSTOP);
        std::thread::scope(|scope| {
            let load = scope.spawn(|| helper::load(target.pid(), &entry).map(drop));
            std::thread::sleep(Duration::from_millis(500));
            assert!(
                matches!(target.state(), 'T' | 't'),
                "{what}: {}",
                target.state()
            );
            assert!(!load.is_finished(), "{what}");
            target.signal(libc::SIGCONT);
            load.join()
                .unwrap()
                .unwrap_or_else(|error| panic!("{what}: {error}"));
        });
        target.finish(&what);
    }
}

#[test]
fn a_killed_tracer_leaves_no_breakpoint() {
    if !is_root() {
        return;
    }
    let _turn = turn();
    // The tracer is this test run again, which waits for a target that never comes by.
    if let Ok(pid) = std::env::var("PROFILEMATE_LATE_PID") {
        let pid = pid.parse().unwrap();
        let _killed = helper::load(pid, &entry(pid).unwrap());
        panic!("it was not killed");
    }
    for python in python_target::pythons() {
        let what = python.display().to_string();
        let target = Target::start(&python, "blocked");
        if matches!(target.entry(), Entry::Remote(_)) {
            continue;
        }
        let mut tracer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_killed_tracer_leaves_no_breakpoint"])
            .env("PROFILEMATE_LATE_PID", target.pid().to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while status(target.pid(), "TracerPid") == "0" {
            assert!(Instant::now() < until, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
        // Seized, and the breakpoint is set a moment later.
        std::thread::sleep(Duration::from_millis(50));
        tracer.kill().unwrap();
        tracer.wait().unwrap();
        assert_eq!(status(target.pid(), "TracerPid"), "0", "{what}");
        target.finish(&what);
    }
}
