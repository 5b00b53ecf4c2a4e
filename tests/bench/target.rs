//! A Python process that takes commands on its stdin and answers with lines of JSON.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use profilemate_tests::{Guard, demo};
use serde_json::Value;

/// Folder of the Python scripts.
pub(crate) const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench");

/// How long a target may take for its end.
const LIMIT: Duration = Duration::from_mins(1);

/// A running target. It ends when this is dropped.
pub(crate) struct Target {
    guard: Guard,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    prefix: &'static str,
}

impl Target {
    /// Starts the bench's own target.
    pub(crate) fn start() -> Result<Self> {
        let python = ["3.12", "3.13", "3.10"].into_iter().find_map(demo::python);
        Self::of(&python.context("no Python 3.10, 3.12, 3.13 or 3.14 on this machine")?)
    }

    /// Starts the bench's own target on this Python.
    pub(crate) fn of(python: &Path) -> Result<Self> {
        let mut command = Command::new(python);
        command
            .args([
                "-B",
                "-c",
                "import profilemate_bench; profilemate_bench.main()",
            ])
            .env("PYTHONPATH", SCRIPTS);
        Self::spawn(command, "", Stdio::inherit())
    }

    /// Starts `command`, whose answers begin with `prefix`, and waits until it is ready.
    pub(crate) fn spawn(mut command: Command, prefix: &'static str, stderr: Stdio) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let mut target = Self {
            guard: Guard(child),
            stdin: stdin.context("stdin")?,
            stdout: BufReader::new(stdout.context("stdout")?),
            prefix,
        };
        target
            .answer()
            .with_context(|| format!("{command:?} did not get ready"))?;
        Ok(target)
    }

    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.guard.pid()
    }

    /// Tells it that no more commands come, and waits for its end: a server takes its other processes with it, which
    /// it does not when it is killed.
    pub(crate) fn end(mut self) -> Result<()> {
        drop(self.stdin);
        let code = self.guard.wait(LIMIT);
        ensure!(code == 0, "the target ended with {code}");
        Ok(())
    }

    /// Gives a command and waits for its answer.
    pub(crate) fn ask(&mut self, command: &str) -> Result<Value> {
        self.tell(command)?;
        self.answer()
    }

    /// Gives a command.
    pub(crate) fn tell(&mut self, command: &str) -> Result<()> {
        writeln!(self.stdin, "{command}").context("the target takes no commands any more")
    }

    /// Waits for the answer to a command.
    pub(crate) fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        loop {
            line.clear();
            if self
                .stdout
                .read_line(&mut line)
                .context("the target's answer")?
                == 0
            {
                bail!("the target has ended");
            }
            if let Some(json) = line.strip_prefix(self.prefix) {
                return serde_json::from_str(json)
                    .with_context(|| format!("not an answer: {line}"));
            }
        }
    }
}

/// A number of an answer.
pub(crate) fn number(answer: &Value, name: &str) -> Result<f64> {
    answer[name]
        .as_f64()
        .with_context(|| format!("no `{name}` in {answer}"))
}

/// Interpreter of an answerable name, for the report.
pub(crate) fn interpreter(pid: u32) -> String {
    std::fs::read_link(Path::new("/proc").join(pid.to_string()).join("exe"))
        .map(|path| path.display().to_string())
        .unwrap_or_default()
}
