//! How a recorder is asked for a snapshot: a socket in a folder that only its owner may enter.
//!
//! A question is one line of JSON, the answer too: `{"do":"about"}` and `{"do":"snapshot"}`. Who asks must be root, or
//! the user that the recorder runs as.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Reply, Report};

/// Variable that names another folder for the sockets.
pub const FOLDER_VARIABLE: &str = "PROFILEMATE_RUNTIME_DIR";
/// The folder otherwise.
const FOLDER: &str = "/run/profilemate";
/// Longest line.
const LINE: u64 = 64 << 10;
/// Time that the other side has for a line.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time that a snapshot may take.
const WRITING: Duration = Duration::from_mins(10);
/// Questions that are answered at the same time, at most.
const CONNECTIONS: usize = 16;
/// Time between two looks whether the recorder has ended.
const POLL_MS: i32 = 200;

/// What can go wrong with the sockets.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder cannot be made or read.
    #[error("cannot use the folder `{path}`")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others than its owner could put sockets there.
    #[error("the folder `{path}` is open to others than its owner; it must be of mode 700")]
    Open {
        /// Which.
        path: PathBuf,
    },
    /// A socket cannot be made, or does not answer.
    #[error("the socket `{path}` does not work")]
    Socket {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Question {
    /// Who are you?
    About,
    /// Make a snapshot, and say where it is.
    Snapshot,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// Process id of the recorder.
    pub tracer: u32,
    /// The processes that it records.
    pub pids: Vec<u32>,
    /// The snapshot's folder.
    pub folder: Option<PathBuf>,
    /// Why there is none.
    pub error: Option<String>,
}

/// Hands a request to the recorder.
pub type Ask = Arc<dyn Fn(Reply) + Send + Sync>;

/// A recorder's socket. It goes when this is dropped.
pub struct Socket {
    path: PathBuf,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Socket {
    /// Makes the socket of this process. `roots` are processes that are recorded in any case.
    pub fn open(roots: Vec<u32>, report: Arc<Mutex<Report>>, ask: Ask) -> Result<Self, Error> {
        let path = folder(true)?.join(format!("{}.sock", std::process::id()));
        let failed = |source| Error::Socket {
            path: path.clone(),
            source,
        };
        // Of an earlier process with this id: nobody listens there.
        let _none = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let ended = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ended);
        let about = About { roots, report };
        let thread = std::thread::Builder::new()
            .name("pm-socket".into())
            .spawn(move || listen(&listener, &about, &ask, &seen))
            .map_err(failed)?;
        Ok(Self {
            path,
            ended,
            thread: Some(thread),
        })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _gone = std::fs::remove_file(&self.path);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

#[derive(Clone)]
struct About {
    roots: Vec<u32>,
    report: Arc<Mutex<Report>>,
}

impl About {
    fn answer(&self) -> Answer {
        let seen = self.report.lock().map(|report| report.pids.clone());
        let mut pids = self.roots.clone();
        pids.extend(seen.unwrap_or_default());
        pids.sort_unstable();
        pids.dedup();
        Answer {
            tracer: std::process::id(),
            pids,
            ..Answer::default()
        }
    }
}

fn listen(listener: &UnixListener, about: &About, ask: &Ask, ended: &AtomicBool) {
    let busy = Arc::new(AtomicUsize::new(0));
    while !ended.load(Ordering::Relaxed) {
        let mut fds = [rustix::event::PollFd::new(
            listener,
            rustix::event::PollFlags::IN,
        )];
        let timeout = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(POLL_MS) * 1_000_000,
        };
        if !matches!(rustix::event::poll(&mut fds, Some(&timeout)), Ok(1..)) {
            continue;
        }
        let Ok((stream, _)) = listener.accept() else {
            continue;
        };
        if busy.load(Ordering::Relaxed) >= CONNECTIONS || !is_allowed(&stream) {
            continue;
        }
        busy.fetch_add(1, Ordering::Relaxed);
        let (about, ask, own) = (about.clone(), Arc::clone(ask), Arc::clone(&busy));
        let answered = std::thread::Builder::new()
            .name("pm-answer".into())
            .spawn(move || {
                if let Err(error) = answer(stream, &about, &ask) {
                    log::debug!("a question was not answered: {error}");
                }
                own.fetch_sub(1, Ordering::Relaxed);
            });
        if answered.is_err() {
            busy.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Whether the other side is root, or who we are.
fn is_allowed(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}

fn answer(mut stream: UnixStream, about: &About, ask: &Ask) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let line = line(&stream)?;
    let mut answer = about.answer();
    match serde_json::from_str(&line) {
        Ok(Question::About) => {}
        Ok(Question::Snapshot) => {
            let (sender, receiver) = std::sync::mpsc::channel();
            ask(sender);
            match receiver.recv_timeout(WRITING) {
                Ok(Ok(folder)) => answer.folder = Some(folder),
                Ok(Err(reason)) => answer.error = Some(reason),
                Err(_) => answer.error = Some("the recorder has ended".to_owned()),
            }
        }
        Err(error) => answer.error = Some(format!("the question is not understood: {error}")),
    }
    writeln!(stream, "{}", serde_json::to_string(&answer)?)
}

/// The next line of a stream, of a bounded length.
fn line(stream: &UnixStream) -> std::io::Result<String> {
    let mut text = String::new();
    BufReader::new(stream.take(LINE)).read_line(&mut text)?;
    Ok(text)
}

/// The folder of the sockets, made if it is not there and `make`.
fn folder(make: bool) -> Result<PathBuf, Error> {
    let path = std::env::var_os(FOLDER_VARIABLE).map_or_else(|| FOLDER.into(), PathBuf::from);
    let failed = |source| Error::Folder {
        path: path.clone(),
        source,
    };
    if make && !path.exists() {
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(failed)?;
    }
    let metadata = path.symlink_metadata().map_err(failed)?;
    let own = metadata.uid() == rustix::process::geteuid().as_raw() || metadata.uid() == 0;
    if !metadata.is_dir() || !own || metadata.mode() & 0o077 != 0 {
        return Err(Error::Open { path });
    }
    Ok(path)
}

/// The recorders that answer, with their sockets.
pub fn recorders() -> Result<Vec<(PathBuf, Answer)>, Error> {
    let path = match folder(false) {
        Ok(path) => path,
        Err(Error::Folder { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let entries = std::fs::read_dir(&path).map_err(|source| Error::Folder { path, source })?;
    let sockets = entries.flatten().map(|entry| entry.path()).filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "sock")
    });
    // One that does not answer was left by a recorder that was killed.
    let mut answers: Vec<(PathBuf, Answer)> = sockets
        .filter_map(|path| {
            let answer = question(&path, Question::About, PATIENCE).ok()?;
            Some((path, answer))
        })
        .collect();
    answers.sort_by_key(|(_, answer)| answer.tracer);
    Ok(answers)
}

/// Asks the recorder at `socket` for a snapshot, and waits until it is there.
pub fn snapshot(socket: &Path) -> Result<Answer, Error> {
    question(socket, Question::Snapshot, WRITING)
}

fn question(socket: &Path, question: Question, patience: Duration) -> Result<Answer, Error> {
    let ask = || -> std::io::Result<Answer> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        writeln!(stream, "{}", serde_json::to_string(&question)?)?;
        Ok(serde_json::from_str(&line(&stream)?)?)
    };
    ask().map_err(|source| Error::Socket {
        path: socket.to_owned(),
        source,
    })
}
