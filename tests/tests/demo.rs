//! The demo target, traced as a real server is, against the truth that it writes about itself.
#![expect(
    clippy::unwrap_used,
    reason = "a test says by panicking what is not as it should be"
)]

use std::process::{Command, Stdio};
use std::time::Duration;

use profilemate_tests::demo::{
    self, Demo, assert_encoder_calls_are_a_run_of, assert_experts_are_a_run_of,
    assert_steps_are_a_run_of,
};
use profilemate_tests::{
    Guard, Session, assert_ledger_exact, assert_marks_exact, binary, count_from, root, wait_for,
};

/// How long a tracer may take to end. The kernel takes its time to remove a probe where the processors are busy.
const PATIENCE: Duration = Duration::from_mins(3);

fn tracer(pid: u32, output: &std::path::Path, more: &[&str]) -> Guard {
    Guard::start(
        Command::new(binary())
            .args(["-q", "trace", "--pid", &pid.to_string(), "--output"])
            .arg(output)
            .args(more)
            .stdout(Stdio::null()),
    )
}

#[test]
fn every_python_that_can_be_probed_gives_the_true_steps() {
    if !root() {
        return;
    }
    for python in demo::probed_pythons() {
        let folder = tempfile::tempdir().unwrap();
        let target = demo::start(&python, folder.path(), 5, &[]);
        let output = folder.path().join("sessions");
        let mut tracer = tracer(target.pid(), &output, &[]);
        let truth = target.finish(Duration::from_secs(40));
        assert_eq!(tracer.wait(PATIENCE), 0, "{}", python.display());
        let session = Session::only(&output);
        let steps = assert_steps_are_a_run_of(&session, &truth);
        assert!(steps > 100, "{}: {steps} steps", python.display());
        assert_experts_are_a_run_of(&session, &truth);
        assert_encoder_calls_are_a_run_of(&session, &truth);
        let preempted = session
            .rows("preemption_events")
            .iter()
            .filter(|row| row["event"] == "preempted")
            .count();
        assert!(preempted > 0, "{}", python.display());
        if cfg!(target_arch = "x86_64") {
            let graphs = session.rows("cuda_graph_usage");
            let full = |row: &profilemate_tests::Row| {
                row["runtime_mode"] == "FULL" && row["replay_count"] == row["launches"]
            };
            assert!(graphs.iter().any(full), "{}: {graphs:?}", python.display());
        }
        assert_eq!(assert_ledger_exact(&session), 0, "{}", python.display());
    }
}

#[test]
fn a_command_on_python_3_11_is_traced_through_the_helper() {
    // Debian's is a static executable.
    for python in demo::pythons("3.11") {
        println!("{}", python.display());
        assert_command_gives_the_true_steps(&python, &[], "helper");
    }
}

#[test]
fn the_helper_serves_the_other_pythons_where_it_is_asked_for() {
    for python in demo::probed_pythons() {
        assert_command_gives_the_true_steps(&python, &["--touch", "helper"], "helper");
    }
}

#[test]
fn a_command_on_the_newest_pythons_is_probed_from_outside() {
    for python in ["3.13", "3.14"].into_iter().filter_map(demo::python) {
        assert_command_gives_the_true_steps(&python, &[], "method_probes");
    }
}

fn assert_command_gives_the_true_steps(
    python: &std::path::Path,
    options: &[&str],
    technique: &str,
) {
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let truth = folder.path().join("truth.jsonl");
    let output = folder.path().join("sessions");
    let traced = Command::new(binary())
        .args(["-q", "trace", "--output", output.to_str().unwrap()])
        .args(options)
        .arg("--")
        .arg(python)
        .args([
            "-m",
            "profilemate_demo",
            "--seconds",
            "5",
            "--print-truth",
            truth.to_str().unwrap(),
        ])
        .env("PYTHONPATH", demo::FOLDER)
        .output()
        .unwrap();
    assert_eq!(
        traced.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&traced.stderr)
    );
    let session = Session::only(&output);
    assert!(
        assert_steps_are_a_run_of(&session, &demo::truth(&truth)) > 100,
        "{}",
        session.metadata
    );
    assert!(
        session
            .metadata
            .to_string()
            .contains(&format!("\"technique\":\"{technique}\"")),
        "{}: {}",
        python.display(),
        session.metadata
    );
}

#[test]
fn an_unprepared_python_3_11_is_told_what_can_be_done() {
    if !root() {
        return;
    }
    let Some(python) = demo::python("3.11") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let target = demo::start(&python, folder.path(), 4, &[]);
    let output = folder.path().join("sessions");
    let traced = Command::new(binary())
        .args([
            "trace",
            "--pid",
            &target.pid().to_string(),
            "--duration",
            "1s",
            "--output",
        ])
        .arg(&output)
        .output()
        .unwrap();
    // Its worker calls the CUDA driver, and is told of by walks of its Python stack; its engine does not.
    assert_eq!(traced.status.code(), Some(0));
    let text = Session::only(&output).metadata.to_string();
    assert!(
        text.contains("3.11") && text.contains("trace -- CMD"),
        "{text}"
    );
    target.finish(Duration::from_secs(40));
}

#[test]
fn the_generated_tokens_are_the_same_with_and_without_a_tracer() {
    if !root() {
        return;
    }
    let Some(python) = demo::probed_pythons().pop() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let options = ["--requests", "250", "--seed", "7"];
    let (with, without) = (folder.path().join("with"), folder.path().join("without"));
    let target = demo::start(&python, &with, 20, &options);
    let output = folder.path().join("sessions");
    let mut tracer = tracer(target.pid(), &output, &[]);
    let truth = target.finish(Duration::from_mins(1));
    assert_eq!(tracer.wait(PATIENCE), 0);
    assert!(assert_steps_are_a_run_of(&Session::only(&output), &truth) > 100);
    demo::start(&python, &without, 20, &options).finish(Duration::from_mins(1));
    assert_eq!(Demo::tokens(&with), Demo::tokens(&without));
}

#[test]
fn a_second_tracer_is_refused_and_the_first_one_goes_on() {
    if !root() {
        return;
    }
    let Some(python) = demo::probed_pythons().pop() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let target = demo::start(&python, folder.path(), 15, &[]);
    let output = folder.path().join("first");
    let mut first = tracer(target.pid(), &output, &[]);
    wait_for("rows", Duration::from_secs(13), || {
        output.exists()
            && std::fs::read_dir(&output)
                .unwrap()
                .next()
                .is_some_and(|entry| {
                    std::fs::metadata(entry.unwrap().path().join("batch_utilization.csv"))
                        .is_ok_and(|file| file.len() > 2000)
                })
    });
    let second = Command::new(binary())
        .args([
            "trace",
            "--pid",
            &target.pid().to_string(),
            "--duration",
            "1s",
            "--output",
        ])
        .arg(folder.path().join("second"))
        .output()
        .unwrap();
    assert_eq!(
        second.status.code(),
        Some(8),
        "{}",
        String::from_utf8_lossy(&second.stderr)
    );
    let truth = target.finish(Duration::from_secs(40));
    assert_eq!(first.wait(PATIENCE), 0);
    assert!(assert_steps_are_a_run_of(&Session::only(&output), &truth) > 50);
}

/// How often the tracer is killed here; `PROFILEMATE_KILLS=100` for the long run.
fn kills() -> u64 {
    u64::from(count_from("PROFILEMATE_KILLS", 8))
}

#[test]
fn a_tracer_killed_at_any_moment_does_no_harm_and_the_next_one_attaches() {
    if !root() {
        return;
    }
    let Some(python) = demo::probed_pythons().pop() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let seconds = 30 + kills() as u32 * 3;
    let target = demo::start(&python, folder.path(), seconds, &[]);
    for round in 0..kills() {
        let tracer = tracer(
            target.pid(),
            &folder.path().join(format!("killed{round}")),
            &[],
        );
        std::thread::sleep(Duration::from_millis(37 * (1 + round % 29)));
        tracer.signal(libc::SIGKILL);
        drop(tracer);
    }
    wait_for("the killed tracers' own children to end", PATIENCE, || {
        let all = profilemate::target::process::all().expect("/proc");
        let mark = format!("{}/killed", folder.path().display());
        !all.iter().any(|seen| seen.command.contains(&mark))
    });
    let detached = Command::new(binary())
        .args(["detach", "--pid", &target.pid().to_string()])
        .output()
        .unwrap();
    assert_eq!(
        detached.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&detached.stderr)
    );
    let output = folder.path().join("last");
    let mut last = tracer(target.pid(), &output, &["--duration", "2s"]);
    assert_eq!(last.wait(PATIENCE), 0);
    let truth = target.finish(Duration::from_secs(u64::from(seconds) + 40));
    assert!(assert_steps_are_a_run_of(&Session::only(&output), &truth) > 50);
}

/// How many cycles the attach-and-detach test makes; `PROFILEMATE_CYCLES=1000` for the long run.
fn cycles() -> u32 {
    count_from("PROFILEMATE_CYCLES", 20)
}

#[test]
fn attaching_and_detaching_over_and_over_leaves_the_target_as_it_was() {
    if !root() {
        return;
    }
    let Some(python) = demo::probed_pythons().pop() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let target = demo::start(&python, folder.path(), 60 + cycles() * 30, &["--no-gap"]);
    let processes = target.tree().len();
    assert!(processes >= 3);
    let mut longest = 0;
    for cycle in 0..cycles() {
        let output = folder.path().join("sessions");
        let traced = Command::new(binary())
            .args(["-vv", "trace", "--duration", "200ms", "--pid"])
            .arg(target.pid().to_string())
            .arg("--output")
            .arg(&output)
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&traced.stderr).into_owned();
        assert_eq!(traced.status.code(), Some(0), "cycle {cycle}: {log}");
        assert!(log.contains("pointers put back"), "cycle {cycle}: {log}");
        longest = longest.max(profilemate_tests::longest_stop_us(&log));
        std::fs::remove_dir_all(&output).unwrap();
    }
    println!("{} cycles, longest stop of a thread {longest} us", cycles());
    let detached = Command::new(binary())
        .args(["detach", "--pid", &target.pid().to_string()])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&detached.stderr).into_owned();
    assert!(text.contains("nothing to put back"), "{text}");
    assert_eq!(
        target.tree().len(),
        processes,
        "the target lives on as it was"
    );
}

#[test]
fn a_ring_that_is_too_small_loses_and_the_ledger_stays_exact() {
    if !root() {
        return;
    }
    let Some(python) = demo::probed_pythons().pop() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let target = demo::start(&python, folder.path(), 60, &["--no-gap"]);
    let output = folder.path().join("sessions");
    let mut tracer = tracer(
        target.pid(),
        &output,
        &["--duration", "3s", "--ring-size", "4K"],
    );
    assert_eq!(tracer.wait(PATIENCE), 0);
    let session = Session::only(&output);
    assert!(
        assert_marks_exact(&session) > 0,
        "{}",
        session.metadata["ledger"]
    );
    drop(target);
}
