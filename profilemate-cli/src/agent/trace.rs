//! Traces that were asked for: what is asked, how they stand, and the room that they may take.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// What `POST /trace` takes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Name of the server; may be left out where there is one only.
    #[serde(default)]
    pub server: Option<String>,
    /// How long, such as `30s`.
    pub duration: String,
    /// Only these tables; without it, all.
    #[serde(default)]
    pub tables: Vec<String>,
    /// A row for each replay of a CUDA graph.
    #[serde(default)]
    pub graph_timeline: bool,
}

/// A trace to be taken.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its number.
    pub id: u64,
    /// How long.
    pub duration: Duration,
    /// Only these tables, if any.
    pub tables: Vec<String>,
    /// A row for each replay of a CUDA graph.
    pub graph_timeline: bool,
}

/// How a trace stands.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Progress {
    /// It is to begin.
    Waiting,
    /// It runs.
    Running,
    /// It has ended.
    Done {
        /// Why: `duration reached`, `target ended`, or who ended it.
        reason: String,
        /// Session folder.
        folder: PathBuf,
        /// Records that arrived.
        events: u64,
        /// Records that were lost.
        lost: u64,
    },
    /// It failed.
    Failed {
        /// Why.
        reason: String,
    },
}

/// A trace, as `/sessions` shows it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Shown {
    /// Its number.
    pub id: u64,
    /// Server.
    pub server: String,
    /// How it stands.
    #[serde(flatten)]
    pub progress: Progress,
}

/// A session folder in the traces' folder.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    path: PathBuf,
    modified: SystemTime,
    bytes: u64,
}

/// The session folders in `folder`, the oldest first. Links are not followed; what is not a session is not looked at.
fn stored(folder: &Path) -> Vec<Stored> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<Stored> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("session_"))
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter(|entry| entry.path().join("metadata.json").is_file())
        .map(|entry| weigh(entry.path()))
        .collect();
    found.sort_by(|a, b| (a.modified, &a.path).cmp(&(b.modified, &b.path)));
    found
}

fn weigh(path: PathBuf) -> Stored {
    let mut stored = Stored {
        path,
        modified: SystemTime::UNIX_EPOCH,
        bytes: 0,
    };
    for entry in std::fs::read_dir(&stored.path)
        .into_iter()
        .flatten()
        .flatten()
    {
        if let Ok(metadata) = entry.metadata() {
            stored.bytes += metadata.len();
            let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            stored.modified = stored.modified.max(modified);
        }
    }
    stored
}

/// Removes the session folders that are too old, and the oldest of those that need too much room together. The newest
/// `busy` ones, into which traces are written now, stay. Gives the bytes that remain.
pub fn make_room(folder: &Path, size: u64, age: Duration, now: SystemTime, busy: usize) -> u64 {
    let mut all = stored(folder);
    let mut total: u64 = all.iter().map(|stored| stored.bytes).sum();
    all.truncate(all.len().saturating_sub(busy));
    for stored in all {
        let old = now
            .duration_since(stored.modified)
            .is_ok_and(|own| own > age);
        if !old && total <= size {
            continue;
        }
        match std::fs::remove_dir_all(&stored.path) {
            Ok(()) => {
                log::info!("removed `{}`", stored.path.display());
                total = total.saturating_sub(stored.bytes);
            }
            Err(error) => log::warn!("cannot remove `{}`: {error}", stored.path.display()),
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(folder: &Path, name: &str, bytes: usize, age_sec: u64) {
        let path = folder.join(name);
        std::fs::create_dir(&path).unwrap();
        for (file, bytes) in [("metadata.json", 0), ("events.pmrec", bytes)] {
            std::fs::write(path.join(file), vec![0; bytes]).unwrap();
            let file = std::fs::File::options()
                .write(true)
                .open(path.join(file))
                .unwrap();
            let then = SystemTime::now() - Duration::from_secs(age_sec);
            file.set_modified(then).unwrap();
        }
    }

    fn left(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_oldest_go_first_and_what_is_no_session_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        session(path, "session_a", 100, 4_000);
        session(path, "session_b", 100, 300);
        session(path, "session_c", 100, 200);
        session(path, "other", 1_000, 9_000);
        std::fs::create_dir(path.join("session_empty")).unwrap();
        std::os::unix::fs::symlink("/tmp", path.join("session_link")).unwrap();
        let hour = Duration::from_secs(3_600);
        let remain = make_room(path, 150, hour, SystemTime::now(), 0);
        assert_eq!(remain, 100);
        assert_eq!(
            left(path),
            ["other", "session_c", "session_empty", "session_link"]
        );
    }

    #[test]
    fn a_running_trace_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        session(folder.path(), "session_a", 100, 50);
        session(folder.path(), "session_b", 900, 0);
        let hour = Duration::from_secs(3_600);
        let remain = make_room(folder.path(), 500, hour, SystemTime::now(), 1);
        assert_eq!(
            (remain, left(folder.path())),
            (900, vec!["session_b".to_owned()])
        );
    }
}
