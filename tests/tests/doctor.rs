//! `profilemate doctor`: what it says of good and bad hosts and targets, by which exit code, and that it leaves no mark.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use profilemate_tests::{Guard, binary, demo, root, wait_for};
use serde_json::Value;

fn doctor(arguments: &[&str]) -> (i32, Value) {
    let output = Command::new(binary())
        .args(["doctor", "--json"])
        .args(arguments)
        .output()
        .expect("profilemate runs");
    report(&output)
}

fn report(output: &Output) -> (i32, Value) {
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr))
    });
    let code = output.status.code().expect("an exit code");
    assert_eq!(report["exit_code"], code, "{report:#}");
    (code, report)
}

/// All lines of that name, as (mark, everything it says).
fn lines(report: &Value, name: &str) -> Vec<(String, String)> {
    let sections = report["sections"].as_array().expect("sections");
    sections
        .iter()
        .flat_map(|section| section["lines"].as_array().expect("lines"))
        .filter(|line| line["name"] == name)
        .map(|line| {
            (
                line["mark"].as_str().unwrap_or_default().to_owned(),
                line.to_string(),
            )
        })
        .collect()
}

fn maps(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default()
}

#[test]
fn a_good_target_is_said_to_be_traceable_and_stays_untouched() {
    if !root() {
        return;
    }
    for python in demo::probed_pythons() {
        let folder = tempfile::tempdir().unwrap();
        let target = demo::start(&python, folder.path(), 30, &[]);
        let (code, report) = doctor(&["--pid", &target.pid().to_string()]);
        assert_eq!(code, 0, "{report:#}");
        for (mark, line) in lines(&report, "methods") {
            // The stand-in lacks methods of a real vLLM, none of which is needed.
            assert!(mark == "ok" || mark == "warn", "{line}");
            assert!(!line.contains("Scheduler.schedule"), "{line}");
        }
        assert!(!lines(&report, "methods").is_empty(), "{report:#}");
        assert!(
            lines(&report, "vllm")
                .iter()
                .any(|(_, line)| line.contains("runner V1"))
        );
        assert!(
            lines(&report, "other tracer")
                .iter()
                .all(|(_, line)| line.contains("none"))
        );
        assert!(
            report["plan"]["processes"]
                .as_array()
                .is_some_and(|all| all.len() > 1)
        );
        for pid in target.tree() {
            assert!(
                !maps(pid).contains("memfd:profilemate"),
                "process {pid} was written to"
            );
        }
    }
}

#[test]
fn the_text_has_a_mark_on_every_line_and_a_verdict() {
    if !root() {
        return;
    }
    let output = Command::new(binary()).arg("doctor").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for name in [
        "kernel",
        "BTF",
        "uprobes",
        "uprobe-multi",
        "five-byte nop",
        "CAP_SYS_ADMIN",
        "lockdown",
        "perf_event_paranoid",
        "yama ptrace_scope",
        "own seccomp",
        "memlock",
        "tracefs",
        "free space",
    ] {
        let marked = text.lines().any(|line| {
            let mut words = line.split_whitespace();
            let mark = words.next().unwrap_or_default();
            ["ok", "info", "warn", "fail"].contains(&mark) && line[8..].starts_with(name)
        });
        assert!(marked, "{name} in\n{text}");
    }
    assert!(!text.contains('\x1b'), "colour where no terminal is");
    assert!(
        text.lines()
            .last()
            .is_some_and(|line| line.contains("trace")),
        "{text}"
    );
}

#[test]
fn a_process_that_is_not_python_or_not_there_is_exit_code_4() {
    if !root() {
        return;
    }
    let sleep = Guard::start(Command::new("sleep").arg("60"));
    let (code, report) = doctor(&["--pid", &sleep.pid().to_string()]);
    assert_eq!(code, 4, "{report:#}");
    assert!(
        lines(&report, "technique")
            .iter()
            .any(|(_, line)| line.contains("CPython"))
    );
    let output = Command::new(binary())
        .args(["doctor", "--pid", "999999999"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4));
}

#[test]
fn a_running_311_is_exit_code_5_and_the_way_out_is_told() {
    let Some(stage) = demo::Stage::set("3.11", 30, &[]) else {
        return;
    };
    let (code, report) = doctor(&["--pid", &stage.pid()]);
    assert_eq!(code, 5, "{report:#}");
    assert!(
        lines(&report, "helper")
            .iter()
            .any(|(mark, line)| mark == "warn" && line.contains("trace -- CMD"))
    );
}

#[test]
fn an_output_folder_that_cannot_be_made_is_exit_code_7() {
    if !root() {
        return;
    }
    let (code, report) = doctor(&["--output", "/proc/nowhere"]);
    assert_eq!(code, 7, "{report:#}");
    assert!(!Path::new("/proc/nowhere").exists());
}

#[test]
fn without_privileges_it_is_exit_code_6_and_each_capability_is_named() {
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = folder.path().join("profilemate");
    std::fs::copy(binary(), &copy).unwrap();
    let output = Command::new(&copy)
        .args(["doctor", "--json"])
        .uid(65534)
        .gid(65534)
        .current_dir("/")
        .output()
        .expect("profilemate runs as nobody");
    let (code, report) = report(&output);
    assert_eq!(code, 6, "{report:#}");
    for name in ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN", "trial attach"] {
        let found = lines(&report, name);
        assert!(
            found
                .iter()
                .any(|(mark, line)| mark == "fail" && line.contains("sudo")),
            "{name}: {found:?}"
        );
    }
}

#[test]
fn a_tracer_at_work_is_exit_code_8_and_what_a_killed_one_left_is_told_and_left() {
    let Some(stage) = demo::Stage::set("3.12", 60, &[]) else {
        return;
    };
    let pid = stage.pid();
    let log = stage.folder.path().join("log");
    let mut tracer = Guard::start(
        Command::new(binary())
            .args([
                "-v",
                "trace",
                "--pid",
                &pid,
                "--output",
                stage.folder.path().to_str().unwrap(),
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::from(std::fs::File::create(&log).unwrap())),
    );
    wait_for(
        "both processes to be bound",
        Duration::from_secs(30),
        || {
            std::fs::read_to_string(&log)
                .is_ok_and(|text| text.matches("methods bound").count() >= 2)
        },
    );
    let (code, report) = doctor(&["--pid", &pid]);
    assert_eq!(code, 8, "{report:#}");
    assert!(
        lines(&report, "other tracer")
            .iter()
            .any(|(mark, line)| mark == "fail" && line.contains(&tracer.pid().to_string()))
    );
    tracer.signal(libc::SIGKILL);
    tracer.wait(Duration::from_secs(20));
    let (code, report) = doctor(&["--pid", &pid]);
    assert_eq!(code, 0, "{report:#}");
    let left = |report: &Value| {
        lines(report, "other tracer")
            .iter()
            .filter(|(mark, line)| mark == "warn" && line.contains("detach"))
            .count()
    };
    assert!(left(&report) >= 2, "{report:#}");
    // It only looks: the second time it finds the same.
    assert_eq!(left(&doctor(&["--pid", &pid]).1), left(&report));
}

#[test]
fn an_orphaned_engine_is_listed_and_not_looked_at_by_itself() {
    if !root() {
        return;
    }
    // A shell whose background child outlives it, named like an engine.
    let folder = tempfile::tempdir().unwrap();
    let pid_file = folder.path().join("pid");
    let line = format!(
        "(exec -a VLLM::EngineCore sleep 60) & echo $! > {}",
        pid_file.display()
    );
    let status = Command::new("bash")
        .args(["-c", &line])
        .stdout(Stdio::null())
        .status();
    assert!(status.is_ok_and(|status| status.success()));
    let orphan: i32 = std::fs::read_to_string(&pid_file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let reparented = || {
        std::fs::read_to_string(format!("/proc/{orphan}/stat"))
            .is_ok_and(|stat| stat.split_whitespace().nth(3) == Some("1"))
            && std::fs::read(format!("/proc/{orphan}/cmdline"))
                .is_ok_and(|line| line.starts_with(b"VLLM::"))
    };
    wait_for(
        "the orphan to be titled",
        Duration::from_secs(10),
        reparented,
    );
    let (_, report) = doctor(&[]);
    let output = Command::new(binary())
        .args(["trace", "--dry-run"])
        .output()
        .unwrap();
    // SAFETY: the orphan is this test's own process, whose pid it wrote down itself.
    unsafe { libc::kill(orphan, libc::SIGKILL) };
    let found = lines(&report, "server");
    assert!(
        found
            .iter()
            .any(|(_, line)| line.contains(&format!("process {orphan}"))),
        "{found:?}"
    );
    let looked_at = report["sections"]
        .as_array()
        .unwrap()
        .iter()
        .any(|section| section["pid"] == orphan);
    assert!(!looked_at, "{report:#}");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        stderr.contains(&orphan.to_string()) && stderr.contains("--pid"),
        "{stderr}"
    );
    let plan = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!plan.contains(&format!("process {orphan} ")), "{plan}");
}
