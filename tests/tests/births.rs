//! Processes that come in ways that are easily missed: forked in the middle of an attach, started anew from the same
//! file, forked from a front end, importing late, and not to be stopped when it is time to.
#![expect(
    clippy::unwrap_used,
    reason = "a test says by panicking what is not as it should be"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use profilemate_tests::{Guard, Row, Session, assert_ledger_exact, binary, demo, wait_for};
use serde_json::Value;

const TARGET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/targets/births.py");
const LIMIT: Duration = Duration::from_secs(60);

/// A target of `births.py` and its tracer.
struct Births {
    folder: tempfile::TempDir,
    target: Guard,
    tracer: Option<Guard>,
}

impl Births {
    /// `None` where there is no Python for it.
    fn start(how: &str) -> Option<Self> {
        let python = demo::newest_probed_python()?;
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(python);
        command.arg(TARGET).arg(how).arg(folder.path());
        let target = Guard::start(command.stdout(Stdio::null()));
        Some(Self {
            folder,
            target,
            tracer: None,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn tell(&self, name: &str) {
        std::fs::write(self.path(name), "").unwrap();
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("tracer.log")).unwrap_or_default()
    }

    /// Starts a tracer of functions of these modules, each with its argument.
    fn trace(&mut self, modules: &[&str]) {
        let log = std::fs::File::create(self.path("tracer.log")).unwrap();
        let mut command = Command::new(binary());
        command
            .args(["-vv", "trace", "--pid", &self.target.pid().to_string()])
            .args(["--field", "apple=arg.apple", "--field", "pear=arg.pear"])
            .arg("--output")
            .arg(self.path("sessions"));
        for module in modules {
            command.args(["--method", &format!("{module}:work")]);
        }
        self.tracer = Some(Guard::start(command.stdout(Stdio::null()).stderr(log)));
    }

    fn wait_for_log(&self, words: &str) {
        wait_for(words, LIMIT, || self.log().contains(words));
    }

    fn children(&self) -> Vec<u32> {
        let file = self.path("children");
        wait_for("the children", LIMIT, || file.exists());
        let text = std::fs::read_to_string(file).unwrap();
        text.split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect()
    }

    /// Lets the target go on for a while, end, and gives the calls that were seen of it.
    fn finish(mut self) -> Vec<Row> {
        std::thread::sleep(Duration::from_secs(2));
        self.tell("stop");
        assert_eq!(self.target.wait(LIMIT), 0, "{}", self.log());
        let code = self.tracer.as_mut().unwrap().wait(LIMIT);
        assert_eq!(code, 0, "{}", self.log());
        let session = Session::only(&self.path("sessions"));
        assert_eq!(assert_ledger_exact(&session), 0);
        // Shown where a test fails.
        println!("{}", self.log());
        session.rows("methods")
    }
}

/// Calls of `MODULE:work` in a process; each must have read `argument`.
fn calls(rows: &[Row], module: &str, pid: u32, argument: &str) -> usize {
    let of =
        |row: &&Row| row["method"] == format!("{module}:work") && row["pid"] == pid.to_string();
    let calls = rows.iter().filter(of).map(|row| {
        let fields: Value = serde_json::from_str(&row["fields"]).unwrap();
        assert!(fields[argument].is_u64(), "{row:?}");
    });
    calls.count()
}

/// Whether the parent is attached makes a difference: a child that was seen has its page, or has been read.
fn starts_anew(modules: &[&str], attached: bool) {
    let Some(mut births) = Births::start("exec") else {
        return;
    };
    births.trace(modules);
    if attached {
        births.wait_for_log("1 methods bound");
    }
    births.tell("fork");
    let child = births.children()[0];
    births.wait_for_log(&if attached {
        format!("process {child} was forked from")
    } else {
        format!("process {child}: none of the methods")
    });
    // One more look at the least.
    std::thread::sleep(Duration::from_millis(500));
    births.tell("exec");
    let rows = births.finish();
    let calls = calls(&rows, "late_a", child, "apple");
    assert!(calls > 20, "{calls} calls");
}

#[test]
fn a_child_that_was_seen_before_it_started_the_same_file_anew_is_traced() {
    starts_anew(&["late_a"], false);
}

#[test]
fn a_child_that_was_traced_before_it_started_the_same_file_anew_is_traced() {
    starts_anew(&["__main__", "late_a"], true);
}

#[test]
fn what_a_parent_was_given_after_the_fork_its_child_is_given_too() {
    let Some(mut births) = Births::start("fork") else {
        return;
    };
    births.trace(&["__main__", "late_a"]);
    births.wait_for_log("1 methods bound");
    births.tell("fork");
    let child = births.children()[0];
    let parent = births.target.pid();
    let rows = births.finish();
    for pid in [parent, child] {
        let calls = calls(&rows, "late_a", pid, "apple");
        assert!(calls > 20, "{calls} calls in {pid} of {parent}, {child}");
    }
}

#[test]
fn siblings_that_import_in_different_orders_are_told_apart() {
    let Some(mut births) = Births::start("siblings") else {
        return;
    };
    births.trace(&["__main__", "late_a", "late_b"]);
    births.wait_for_log("1 methods bound");
    births.tell("fork");
    let children = births.children();
    std::thread::sleep(Duration::from_secs(1));
    births.tell("second");
    let rows = births.finish();
    for child in children {
        for (module, argument) in [("late_a", "apple"), ("late_b", "pear")] {
            let calls = calls(&rows, module, child, argument);
            assert!(calls > 20, "{calls} calls of {module} in {child}");
        }
    }
}

#[test]
fn a_method_that_could_not_be_bound_in_time_is_bound_later() {
    let Some(mut births) = Births::start("vfork") else {
        return;
    };
    births.trace(&["__main__", "late_a"]);
    births.wait_for_log("1 methods bound");
    births.tell("import");
    births.wait_for_log("could be stopped");
    std::fs::write(births.path("pipe"), "").unwrap();
    let parent = births.target.pid();
    let rows = births.finish();
    let calls = calls(&rows, "late_a", parent, "apple");
    assert!(calls > 20, "{calls} calls");
}

#[test]
fn a_second_engine_that_a_traced_front_end_forks_is_traced() {
    let Some(python) = demo::newest_probed_python() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let output = path("sessions");
    let log = std::fs::File::create(path("tracer.log")).unwrap();
    let mut command = Command::new(binary());
    command
        .args(["-v", "trace", "--output"])
        .arg(&output)
        .args(["--method", "profilemate_demo.server:Server._send", "--"])
        .arg(python)
        .arg(Path::new(TARGET).with_file_name("two_engines.py"))
        .args(["--seconds", "4", "--print-truth"])
        .arg(path("truth.jsonl"))
        .env("PYTHONPATH", demo::FOLDER);
    let mut tracer = Guard::start(command.stdout(Stdio::null()).stderr(log));
    let code = tracer.wait(LIMIT);
    let log = std::fs::read_to_string(path("tracer.log")).unwrap();
    assert_eq!(code, 0, "{log}");
    let session = Session::only(&output);
    let truth = demo::truth(&path("truth.jsonl"));
    let engines = demo::schedules(&truth);
    assert_eq!(engines.len(), 2);
    for (pid, steps) in engines {
        let rows = session.rows("batch_utilization").into_iter();
        let seen = rows.filter(|row| row["pid"] == pid.to_string()).count();
        assert!(seen > steps.len() / 2, "{seen} of {}: {log}", steps.len());
    }
    assert!(demo::assert_steps_are_a_run_of(&session, &truth) > 0);
}
