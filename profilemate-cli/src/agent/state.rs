//! What the agent remembers on disk: that it runs (a lock), and which processes it has attached to, so that the next
//! one puts back what a killed one has left.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::server::Key;
use crate::sink;
use crate::sys::lock;
use crate::target::process;

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be made or written.
    #[error("cannot use `{path}`")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another agent holds it.
    #[error("another agent runs with `{path}`")]
    Taken {
        /// Which.
        path: PathBuf,
    },
}

/// A process, as it is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Attached {
    pid: u32,
    started: u64,
}

/// What is written down: the servers that are looked after, each before anything is done to it, and the processes that
/// are attached, which may outlive their server.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    #[serde(default)]
    servers: BTreeSet<Attached>,
    #[serde(default)]
    attached: BTreeSet<Attached>,
}

impl Attached {
    fn all(keys: &BTreeSet<Key>) -> BTreeSet<Self> {
        let of = |key: &Key| Self {
            pid: key.pid,
            started: key.started,
        };
        keys.iter().map(of).collect()
    }

    /// Whether the process is still the one that was written down: its id may have been used again.
    fn is_there(self) -> bool {
        process::seen(self.pid).is_some_and(|seen| seen.started == self.started)
    }
}

/// The folder, which this agent holds while it runs.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    _lock: File,
}

/// What a killed agent had left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Processes that are still there.
    pub processes: usize,
    /// Pointers that were put back in them.
    pub pointers: usize,
}

impl State {
    /// Takes the folder.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Folder {
            path: folder.to_owned(),
            source,
        };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join("agent.lock"))
            .map_err(failed)?;
        if !lock::try_exclusive(&file).map_err(failed)? {
            return Err(Error::Taken {
                path: folder.to_owned(),
            });
        }
        Ok(Self {
            path: folder.join("attached.json"),
            _lock: file,
        })
    }

    /// Writes down which servers are looked after and which processes are attached.
    pub fn write(
        &self,
        servers: &BTreeSet<Key>,
        attached: &BTreeSet<Key>,
    ) -> Result<(), sink::Error> {
        let document = Document {
            servers: Attached::all(servers),
            attached: Attached::all(attached),
        };
        let document = serde_json::to_vec(&document).unwrap_or_default();
        sink::replace(&self.path, &document)
    }

    /// Puts back what an agent that was killed has left. A file that is not understood is none.
    pub fn recover(&self) -> Recovered {
        let bytes = std::fs::read(&self.path).unwrap_or_default();
        let document: Document = serde_json::from_slice(&bytes).unwrap_or_default();
        let mut recovered = Recovered::default();
        let there = |all: BTreeSet<Attached>| all.into_iter().filter(|one| one.is_there());
        let roots: BTreeSet<u32> = there(document.servers).map(|one| one.pid).collect();
        let mut pids: BTreeSet<u32> = there(document.attached).map(|one| one.pid).collect();
        if !roots.is_empty() {
            let tree = process::tree_now(&roots).unwrap_or_default();
            pids.extend(tree.iter().map(|seen| seen.pid));
        }
        for pid in pids {
            recovered.processes += 1;
            match crate::session::put_back(pid) {
                Ok(crate::session::PutBack::Restored(pointers)) => recovered.pointers += pointers,
                Ok(crate::session::PutBack::Nothing) => {}
                Err(trouble) => log::warn!("process {pid}: {}", trouble.reason),
            }
        }
        recovered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_and_a_reused_pid_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        assert!(matches!(
            State::open(folder.path()),
            Err(Error::Taken { .. })
        ));
        let own = Key {
            pid: std::process::id(),
            started: 1,
        };
        let own = BTreeSet::from([own]);
        state.write(&own, &own).unwrap();
        assert_eq!(state.recover(), Recovered::default());
        std::fs::write(folder.path().join("attached.json"), "{torn").unwrap();
        assert_eq!(state.recover(), Recovered::default());
        drop(state);
        State::open(folder.path()).unwrap();
    }
}
