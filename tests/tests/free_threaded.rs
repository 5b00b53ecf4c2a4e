//! A CPython without the global interpreter lock, whose objects are laid out otherwise: refused by every command, with
//! its name and what can be done, and with nothing written into it.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use profilemate_tests::{Guard, binary, root, wait_for};

/// Runs for a while, and says so by a file.
const SCRIPT: &str = "import sys, time; open(sys.argv[1], 'w').close(); time.sleep(60)";

/// The one that `tests/python/setup-free-threaded` builds.
fn python() -> Option<PathBuf> {
    let home = PathBuf::from(std::env::var_os("HOME")?);
    let python = home.join(".cache/profilemate/python-3.13t/bin/python3.13t");
    if python.exists() {
        return Some(python);
    }
    println!("skipped: no free-threaded Python (tests/python/setup-free-threaded builds one)");
    None
}

fn assert_refused(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("free-threaded CPython 3.13"), "{said}");
    assert!(said.contains("ordinary build"), "{said}");
}

#[test]
fn a_running_one_is_refused_and_untouched() {
    let Some(python) = python().filter(|_| root()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let ready = folder.path().join("ready");
    let mut target = Guard::start(
        Command::new(python)
            .args(["-c", SCRIPT])
            .arg(&ready)
            .stderr(Stdio::null()),
    );
    wait_for("the target", Duration::from_secs(30), || ready.exists());
    // It sleeps from here on.
    std::thread::sleep(Duration::from_millis(300));
    let maps = || std::fs::read_to_string(format!("/proc/{}/maps", target.pid())).unwrap();
    let before = maps();
    let pid = target.pid().to_string();
    let sessions = folder.path().join("sessions");
    let output = sessions.to_str().unwrap();
    for arguments in [
        vec!["trace", "--pid", &pid, "--output", output],
        vec![
            "trace",
            "--pid",
            &pid,
            "--output",
            output,
            "--method",
            "os:getcwd",
        ],
        vec![
            "trace", "--pid", &pid, "--output", output, "--touch", "helper",
        ],
        vec!["doctor", "--pid", &pid],
    ] {
        println!("{arguments:?}");
        assert_refused(&Command::new(binary()).args(arguments).output().unwrap());
        assert_eq!(maps(), before);
    }
    let left = std::fs::read_dir(&sessions).map_or(0, Iterator::count);
    assert_eq!(left, 0, "no session is left");
    assert!(matches!(target.0.try_wait(), Ok(None)), "it still runs");
}

#[test]
fn a_started_one_is_refused_and_runs_to_its_end() {
    let Some(python) = python().filter(|_| root()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let ended = folder.path().join("ended");
    let script = "import sys, time; time.sleep(2); open(sys.argv[1], 'w').close()";
    let traced = Command::new(binary())
        .arg("trace")
        .arg("--output")
        .arg(folder.path().join("sessions"))
        .arg("--")
        .arg(python)
        .args(["-c", script])
        .arg(&ended)
        .output()
        .unwrap();
    assert_refused(&traced);
    assert!(ended.exists(), "the command ran to its end");
}
