//! The flight recorder end to end: each way to a snapshot, what is in it, and its bounds.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use profilemate_tests::demo::{self, assert_steps_are_a_run_of};
use profilemate_tests::{Guard, Session, binary, root, wait_for};

/// A flight recorder on a demo target.
struct Recorder {
    guard: Guard,
    runtime: PathBuf,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Recorder {
    /// Starts one, and waits until it has recorded something.
    fn start(folder: &Path, target: u32, options: &[&str]) -> Self {
        let runtime = folder.join("run");
        let (stdout, stderr) = (folder.join("stdout"), folder.join("stderr"));
        let guard = Guard::start(
            Command::new(binary())
                .args(["trace", "--pid", &target.to_string(), "--output"])
                .arg(folder.join("out"))
                .args(options)
                .env("PROFILEMATE_RUNTIME_DIR", &runtime)
                .stdout(std::fs::File::create(&stdout).unwrap())
                .stderr(Stdio::from(std::fs::File::create(&stderr).unwrap())),
        );
        let recorder = Self {
            guard,
            runtime,
            stdout,
            stderr,
        };
        wait_for("the recorder", Duration::from_secs(60), || {
            recorder.runtime.exists() && recorder.sockets() == 1
        });
        recorder
    }

    fn sockets(&self) -> usize {
        std::fs::read_dir(&self.runtime).unwrap().count()
    }

    /// `profilemate snapshot`: exit code, stdout.
    fn snapshot(&self, pid: u32) -> (Option<i32>, String) {
        let done = Command::new(binary())
            .args(["snapshot", "--pid", &pid.to_string()])
            .env("PROFILEMATE_RUNTIME_DIR", &self.runtime)
            .output()
            .unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        (done.status.code(), text.trim().to_owned())
    }

    /// The folders that it has told so far.
    fn folders(&self) -> Vec<PathBuf> {
        let text = std::fs::read_to_string(&self.stdout).unwrap();
        text.lines().map(PathBuf::from).collect()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap()
    }
}

fn trigger(folder: &Path) -> String {
    let session = Session::open(folder);
    let trigger = session.metadata["snapshot"]["trigger"].as_str();
    trigger.unwrap_or_default().to_owned()
}

/// A replay of a folder's stream gives its tables and its summary, byte for byte.
fn assert_replays(folder: &Path, output: &Path) {
    let done = Command::new(binary())
        .args(["-q", "replay", folder.to_str().unwrap(), "--output"])
        .arg(output)
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(0));
    let again = PathBuf::from(String::from_utf8(done.stdout).unwrap().trim());
    let mut compared = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        if name == "events.pmrec" || name == "metadata.json" {
            continue;
        }
        compared += 1;
        assert_eq!(
            std::fs::read(&path).unwrap(),
            std::fs::read(again.join(name)).unwrap(),
            "{}",
            path.display()
        );
    }
    assert!(compared > 15, "{compared}");
}

#[test]
fn each_way_to_a_snapshot_gives_a_session_that_tells_the_truth() {
    let Some(python) = demo::probed_pythons().pop().filter(|_| root()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let target = demo::start(&python, &folder.path().join("demo"), 20, &[]);
    let options = [
        "--continuous",
        "2s",
        "--trigger",
        "preemption",
        "--after",
        "300ms",
        "--cooldown",
        "1h",
    ];
    let mut recorder = Recorder::start(folder.path(), target.pid(), &options);
    let told = |name: &str| recorder.folders().iter().any(|path| trigger(path) == name);
    wait_for("a preemption", Duration::from_secs(30), || {
        told("preemption")
    });
    let (code, asked) = recorder.snapshot(target.pid());
    assert_eq!(code, Some(0), "{}", recorder.log());
    assert_eq!(trigger(Path::new(&asked)), "snapshot");
    assert_eq!(recorder.snapshot(1).0, Some(4), "nobody records process 1");
    recorder.guard.signal(libc::SIGUSR1);
    wait_for("the signal", Duration::from_secs(30), || told("SIGUSR1"));
    let truth = target.finish(Duration::from_secs(60));
    assert_eq!(recorder.guard.wait(Duration::from_secs(60)), 0);
    assert_eq!(recorder.sockets(), 0, "the socket is gone");

    let folders = recorder.folders();
    let triggers: Vec<String> = folders.iter().map(|path| trigger(path)).collect();
    assert_eq!(
        triggers,
        ["preemption", "snapshot", "SIGUSR1", "process_death"],
        "{}",
        recorder.log()
    );
    for path in &folders {
        let session = Session::open(path);
        assert!(
            assert_steps_are_a_run_of(&session, &truth) > 10,
            "{}",
            session.metadata
        );
        let events = &session.metadata["events"];
        assert_eq!(events["decode_errors"], 0, "{events}");
        assert_eq!(events["unnamed_calls"], 0, "{events}");
        assert_replays(path, &folder.path().join("replays"));
    }
    assert!(
        recorder
            .log()
            .contains("came too soon after the one before"),
        "{}",
        recorder.log()
    );
}

#[test]
fn memory_is_bounded_and_what_was_dropped_is_counted() {
    let Some(python) = demo::probed_pythons().pop().filter(|_| root()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let target = demo::start(&python, &folder.path().join("demo"), 60, &[]);
    let options = ["--continuous", "1h", "--continuous-memory", "1M"];
    let mut recorder = Recorder::start(folder.path(), target.pid(), &options);
    let mut last = None;
    wait_for("a full window", Duration::from_secs(60), || {
        let (code, path) = recorder.snapshot(target.pid());
        assert_eq!(code, Some(0), "{}", recorder.log());
        let session = Session::open(Path::new(&path));
        let full = session.metadata["snapshot"]["dropped_full"].as_u64() > Some(0);
        last = Some(session);
        std::thread::sleep(Duration::from_secs(1));
        full
    });
    let session = last.unwrap();
    let stream = session.folder.join("events.pmrec").metadata().unwrap();
    // The notes and what was known at its beginning come on top.
    assert!(stream.len() < 2 << 20, "{} bytes", stream.len());
    assert!(session.rows("batch_utilization").len() > 10);
    recorder.guard.signal(libc::SIGINT);
    assert_eq!(recorder.guard.wait(Duration::from_secs(60)), 0);
}
