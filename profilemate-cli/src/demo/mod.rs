//! The demo target: a small server in the shape of vLLM, for where there is none to trace.
//!
//! Its Python files ([`bundle`]) are part of this program. [`DemoTarget::start`] unpacks them, finds an interpreter
//! ([`interpreter`]), starts the server as a child and ends it again when dropped.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde::Deserialize;
use tempfile::TempDir;
use thiserror::Error;

use crate::helper::{self, Helper};

pub mod bundle;
pub mod interpreter;

pub use interpreter::{Interpreter, Technique};

/// How long a server that was told to end may take, before it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(4);
/// Pause between looks at whether the server is up, or has ended.
const POLL: Duration = Duration::from_millis(10);
/// What is kept of the server's error output, in bytes.
const COMPLAINT: usize = 2000;

/// Why the demo server could not be started.
#[derive(Debug, Error)]
pub enum Error {
    /// The Python files could not be written.
    #[error("could not unpack the demo server")]
    Unpack(#[source] io::Error),
    /// No usable interpreter.
    #[error(transparent)]
    Interpreter(#[from] interpreter::Error),
    /// The helper could not be laid out.
    #[error(transparent)]
    Helper(#[from] helper::Error),
    /// The interpreter could not be run.
    #[error("could not start `{}`", path.display())]
    Start {
        /// The interpreter.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The server ended before it was up.
    #[error("the demo server ended while starting ({status}): {complaint}")]
    Ended {
        /// Exit status, in words.
        status: String,
        /// The end of what it wrote to standard error.
        complaint: String,
    },
    /// The server was not up in time, and has been ended.
    #[error("the demo server was not up within {} s: {complaint}", waited.as_secs())]
    NotReady {
        /// How long was waited.
        waited: Duration,
        /// The end of what it wrote to standard error.
        complaint: String,
    },
    /// The server's files could not be read.
    #[error("could not read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What the demo server is to do. `None` leaves the server's own default.
#[derive(Clone, Debug)]
pub struct Options {
    /// It sends itself requests for so long, and ends at most a minute later.
    pub duration: Duration,
    /// It sends so many requests and ends when they are answered.
    pub requests: Option<u32>,
    /// Other requests for another number.
    pub seed: u64,
    /// Blocks of key-value memory.
    pub blocks: Option<u32>,
    /// Requests running at once.
    pub max_num_seqs: Option<u32>,
    /// Tokens computed in one step.
    pub max_tokens_per_step: Option<u32>,
    /// Worker processes.
    pub workers: Option<u32>,
    /// Whether the server is idle now and then.
    pub gaps: bool,
    /// Where the server appends the true values of each step, as JSON lines.
    pub truth: Option<PathBuf>,
    /// Where it writes all generated tokens at its end, as JSON lines.
    pub output_tokens: Option<PathBuf>,
    /// The interpreter to use, instead of the best one found.
    pub python: Option<PathBuf>,
    /// Variables added to the server's environment.
    pub environment: Vec<(OsString, OsString)>,
    /// How long the server may take to start.
    pub startup: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(8),
            requests: None,
            seed: 0,
            blocks: None,
            max_num_seqs: None,
            max_tokens_per_step: None,
            workers: None,
            gaps: true,
            truth: None,
            output_tokens: None,
            python: None,
            environment: Vec::new(),
            startup: Duration::from_secs(120),
        }
    }
}

/// What the server writes when it is up.
#[derive(Debug, Deserialize)]
struct Ready {
    engine_core: u32,
    workers: Vec<u32>,
}

/// A running demo server. Dropping it ends all of its processes and removes its files.
#[derive(Debug)]
pub struct DemoTarget {
    /// Process id of the front end, the root of the process tree.
    pub pid: u32,
    /// Process id of the engine.
    pub engine_core: u32,
    /// Process ids of the workers.
    pub workers: Vec<u32>,
    /// What it runs on.
    pub interpreter: Interpreter,
    // Before the folders, so that the server has ended when its files go.
    server: Server,
    _helper: Option<Helper>,
    folder: TempDir,
}

impl DemoTarget {
    /// Starts a server and waits until its engine is up.
    pub fn start(options: &Options) -> Result<Self, Error> {
        let interpreter = match &options.python {
            Some(path) => interpreter::probe(path)?,
            None => interpreter::find()?,
        };
        let folder = bundle::private_folder().map_err(Error::Unpack)?;
        bundle::unpack(bundle::DEMO, folder.path()).map_err(Error::Unpack)?;
        let (mut server, helper) = Server::spawn(options, &interpreter, folder.path())?;
        let ready = server.wait_until_ready(folder.path(), options.startup)?;
        Ok(Self {
            pid: server.child.id(),
            engine_core: ready.engine_core,
            workers: ready.workers,
            interpreter,
            server,
            _helper: helper,
            folder,
        })
    }

    /// The folder that the server's modules lie in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Waits until the server has ended by itself. Returns whether it said that all went well, or `None` if it is
    /// still running after `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<Option<bool>> {
        let end = Instant::now() + timeout;
        loop {
            if let Some(status) = self.server.child.try_wait()? {
                return Ok(Some(status.success()));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            std::thread::sleep(POLL);
        }
    }
}

/// The front end's process, and with it the process group of all.
#[derive(Debug)]
struct Server {
    child: Child,
}

impl Server {
    /// Starts it; where methods cannot be probed from outside, with the helper.
    fn spawn(
        options: &Options,
        interpreter: &Interpreter,
        folder: &Path,
    ) -> Result<(Self, Option<Helper>), Error> {
        let complaints = fs::File::create(folder.join("stderr")).map_err(Error::Unpack)?;
        let mut command = Command::new(&interpreter.path);
        command
            .args(["-s", "-B", "-m", "profilemate_demo", "--end-with-stdin"])
            .args(arguments(options, folder))
            .current_dir(folder)
            .env("PYTHONPATH", folder)
            .env_remove("PYTHONHOME")
            .env_remove("PYTHONSTARTUP")
            .envs(
                options
                    .environment
                    .iter()
                    .map(|(name, value)| (name, value)),
            )
            // The server ends when this pipe closes, so it does not outlive a tracer that is killed.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(complaints)
            .process_group(0);
        let helper = match interpreter.technique() {
            Technique::Helper => Some(helper::prepare(
                &mut command,
                &[],
                helper::Pythons::Needed,
                false,
            )?),
            Technique::MethodProbes | Technique::Unknown => None,
        };
        let child = command.spawn().map_err(|source| Error::Start {
            path: interpreter.path.clone(),
            source,
        })?;
        Ok((Self { child }, helper))
    }

    fn wait_until_ready(&mut self, folder: &Path, timeout: Duration) -> Result<Ready, Error> {
        let path = folder.join("ready");
        let began = Instant::now();
        loop {
            match fs::read(&path) {
                Ok(text) => {
                    return serde_json::from_slice(&text).map_err(|error| Error::Read {
                        path: path.clone(),
                        source: error.into(),
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::Read { path, source }),
            }
            let ended = self.child.try_wait().map_err(|source| Error::Read {
                path: path.clone(),
                source,
            })?;
            if let Some(status) = ended {
                return Err(Error::Ended {
                    status: status.to_string(),
                    complaint: complaint(folder),
                });
            }
            if began.elapsed() >= timeout {
                return Err(Error::NotReady {
                    waited: timeout,
                    complaint: complaint(folder),
                });
            }
            std::thread::sleep(POLL);
        }
    }

    /// Whether the front end has ended. It stays a zombie, so that its process group keeps its number.
    fn has_ended(&self) -> bool {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) else {
            return true;
        };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // An error means that the child was waited for already.
        !matches!(waitid(WaitId::Pid(pid), options), Ok(None))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            // It ended by itself, and its children end with it: their pipes have closed.
            return;
        }
        drop(self.child.stdin.take());
        let end = Instant::now() + END_TIMEOUT;
        while !self.has_ended() && Instant::now() < end {
            std::thread::sleep(POLL);
        }
        if let Some(group) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            // The leader has not been waited for, so the number still means our group. Nobody may be left in it.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

fn arguments(options: &Options, folder: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut add = |name: &str, value: OsString| arguments.extend([name.into(), value]);
    add("--ready-file", folder.join("ready").into());
    add(
        "--seconds",
        options.duration.as_secs_f64().to_string().into(),
    );
    add("--seed", options.seed.to_string().into());
    let numbers = [
        ("--requests", options.requests),
        ("--blocks", options.blocks),
        ("--max-num-seqs", options.max_num_seqs),
        ("--max-tokens-per-step", options.max_tokens_per_step),
        ("--workers", options.workers),
    ];
    for (name, number) in numbers {
        if let Some(number) = number {
            add(name, number.to_string().into());
        }
    }
    for (name, path) in [
        ("--print-truth", &options.truth),
        ("--output-tokens", &options.output_tokens),
    ] {
        if let Some(path) = path {
            // The server runs in another folder.
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            add(name, path.into());
        }
    }
    if !options.gaps {
        arguments.push("--no-gap".into());
    }
    arguments
}

/// The end of what the server wrote to standard error.
fn complaint(folder: &Path) -> String {
    let text = fs::read(folder.join("stderr")).unwrap_or_default();
    let tail = text
        .get(text.len().saturating_sub(COMPLAINT)..)
        .unwrap_or_default();
    String::from_utf8_lossy(tail).trim().to_owned()
}

#[cfg(test)]
mod tests;
