//! docs/tutorial.md: every command in it runs, in order, in one shell, and what it prints has the shape that is shown.
//!
//! Nothing in the commands is replaced. Programs that they name are put before those on `PATH`: `sudo` runs its
//! arguments as they are (this is root), `profilemate` is the one that is tested, `python3` one that can be traced, and
//! `cargo xtask demo` runs the demo without building anew, for three seconds.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use profilemate_tests::{Guard, binary, demo};

const TUTORIAL: &str = include_str!("../../docs/tutorial.md");

/// A block of commands, and what is shown of their output.
struct Step {
    commands: String,
    shown: Vec<String>,
}

impl Step {
    /// Runs the commands, with `output` for what they print. A look at one moment (`where`) is taken again until it meets
    /// the demo at work: between two of its bursts of requests there is nothing to wait for.
    fn script(&self, output: &Path) -> String {
        let output = output.display();
        let commands = &self.commands;
        if !commands.contains("profilemate where") {
            return format!("exec > {output} 2>&1\n{commands}");
        }
        let same = self.shown.iter().map(|line| line.trim());
        let same = same.filter(|line| !line.contains(|c: char| c.is_ascii_digit()));
        let seen: Vec<String> = same
            .map(|line| format!("grep -qF '{line}' {output}"))
            .collect();
        assert!(!seen.is_empty(), "`{commands}` shows nothing");
        let seen = seen.join(" && ");
        format!(
            "for _ in $(seq 20); do\nexec > {output} 2>&1\n{commands}if {seen}; then break; fi\ndone"
        )
    }
}

/// The steps of the tutorial: `text` blocks show what the `console` block before them prints.
fn steps() -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside: Option<&str> = None;
    for line in TUTORIAL.lines() {
        match (line.strip_prefix("```"), inside) {
            (Some(kind), None) => {
                inside = Some(kind);
                if kind == "console" {
                    steps.push(Step {
                        commands: String::new(),
                        shown: Vec::new(),
                    });
                }
            }
            (Some(_), Some(_)) => inside = None,
            (None, Some(kind)) => {
                let step = steps.last_mut().expect("commands come first");
                match kind {
                    "console" => step.commands.extend([line, "\n"]),
                    "text" => step.shown.push(line.to_owned()),
                    other => panic!("a block of `{other}`"),
                }
            }
            (None, None) => {}
        }
    }
    steps
}

/// Words that are the same on every machine: without digits, and no paths.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace()
        .filter(|word| !word.contains(|c: char| c.is_ascii_digit()) && !word.starts_with('/'))
        .collect()
}

/// Whether some line has the words of `shown` in their order. Of JSON the names must be there, in theirs.
fn has_shape(output: &str, shown: &str) -> bool {
    let json = shown.starts_with('{');
    let wanted: Vec<&str> = if json {
        shown
            .split(['{', ','])
            .filter_map(|part| part.split_once(':'))
            .map(|(name, _)| name)
            .collect()
    } else {
        words(shown)
    };
    output.lines().any(|line| {
        let mut rest = line;
        wanted.iter().all(|word| match rest.find(word) {
            Some(at) => {
                rest = &rest[at + word.len()..];
                true
            }
            None => false,
        }) && json == line.starts_with('{')
    })
}

fn program(folder: &Path, name: &str, line: &str) {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{line}\n")).expect("a program");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("its mode");
}

#[test]
fn every_command_of_the_tutorial_runs_and_prints_what_is_shown() {
    let Some(python) = demo::newest_probed_python() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (binary, python) = (binary().display().to_string(), python.display().to_string());
    program(at, "sudo", "exec \"$@\"");
    program(at, "profilemate", &format!("exec {binary} \"$@\""));
    program(at, "python3", &format!("exec {python} \"$@\""));
    let demo = format!("exec {binary} demo --duration 3s --python {python}");
    program(
        at,
        "cargo",
        &format!("[ \"$*\" = \"xtask demo\" ] && {demo}"),
    );

    let steps = steps();
    assert!(steps.len() > 10 && steps.iter().any(|step| !step.shown.is_empty()));
    let mut script = "set -e -o pipefail\ntrap 'kill $PID 2> /dev/null || true' EXIT\n".to_owned();
    for (number, step) in steps.iter().enumerate() {
        let output = at.join(format!("{number}.out"));
        let _ = writeln!(script, "{}", step.script(&output));
    }
    let path = format!("{}:{}", at.display(), std::env::var("PATH").unwrap());
    let mut shell = Guard::start(
        Command::new("bash")
            .args(["-c", &script])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .env("PATH", path)
            .env("VLLM_PROFILING_DIR", at.join("sessions"))
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    );
    let code = shell.wait(Duration::from_secs(240));
    for (number, step) in steps.iter().enumerate() {
        let output =
            std::fs::read_to_string(at.join(format!("{number}.out"))).unwrap_or_else(|_| {
                panic!(
                    "`{}` was not reached: the one before it failed",
                    step.commands
                )
            });
        let last = number + 1 == steps.len() || !at.join(format!("{}.out", number + 1)).exists();
        assert!(
            code == 0 || !last,
            "`{}` ended the shell with {code}:\n{output}",
            step.commands
        );
        for shown in &step.shown {
            assert!(
                has_shape(&output, shown),
                "`{}` shows no `{shown}`:\n{output}",
                step.commands
            );
        }
    }
}

#[test]
fn shapes_are_told_apart() {
    let output = "Steps     12.5 /s    Tokens   99 /s\n{\"a\":1,\"b\":{\"c\":2}}\n/x/y\n";
    assert!(has_shape(
        output,
        "Steps     277.5 /s    Tokens      3930 /s"
    ));
    assert!(has_shape(output, "{\"a\":7,\"b\":{\"c\":9}}"));
    assert!(!has_shape(output, "Tokens 1 /s Steps"));
    assert!(!has_shape(output, "{\"a\":7,\"d\":1}"));
    assert!(!has_shape(output, "Steps and more"));
}
