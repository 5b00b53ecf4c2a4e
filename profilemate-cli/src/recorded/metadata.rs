//! `metadata.json` read back. Every entry may be missing: older versions and the predecessor wrote less.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde::{Deserialize, Deserializer};

use super::Error;

/// Bytes of the file, at most.
const MOST: u64 = 64 << 20;

/// What the session was.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// Version of the folder's shape; the predecessor wrote none.
    #[serde(deserialize_with = "lenient")]
    pub schema_version: Option<u32>,
    /// Name of the session.
    #[serde(deserialize_with = "lenient")]
    pub session_id: Option<String>,
    /// When it began (RFC 3339).
    #[serde(deserialize_with = "lenient")]
    pub start_time: Option<String>,
    /// When it ended; absent if the tracer was killed.
    #[serde(deserialize_with = "lenient")]
    pub end_time: Option<String>,
    /// How long it lasted, in seconds.
    #[serde(deserialize_with = "lenient")]
    pub duration_sec: Option<f64>,
    /// Host.
    #[serde(deserialize_with = "lenient")]
    pub host: Option<String>,
    /// Version of the tracer.
    #[serde(deserialize_with = "lenient")]
    pub tool_version: Option<String>,
    /// Clock of the tables.
    #[serde(deserialize_with = "lenient")]
    pub anchor: Option<Anchor>,
    /// The target's processes.
    #[serde(deserialize_with = "lenient")]
    pub processes: Option<Vec<Process>>,
    /// How far each table tells what happened, by file name without `.csv`.
    #[serde(deserialize_with = "lenient")]
    pub tables: Option<BTreeMap<String, TableEntry>>,
    /// Events received and lost.
    #[serde(deserialize_with = "lenient")]
    pub events: Option<Events>,
}

/// The moment that the tables count from.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Anchor {
    /// On `CLOCK_MONOTONIC`.
    pub monotonic_ns: Option<u64>,
    /// On the wall clock (RFC 3339).
    pub wall: Option<String>,
}

/// A process of the target.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Its parent.
    pub parent: Option<u32>,
    /// `api_server`, `engine_core`, `worker` or another.
    pub role: Option<String>,
    /// Data parallel rank of the engine.
    pub engine: Option<u32>,
    /// Rank of the worker.
    pub rank: Option<u32>,
    /// Command line or title.
    pub title: Option<String>,
    /// Python version.
    pub python: Option<String>,
    /// vLLM version.
    pub vllm: Option<String>,
}

/// One table of a session.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct TableEntry {
    /// Rows written.
    pub rows: Option<u64>,
    /// How far it tells what happened.
    pub coverage: Option<Coverage>,
}

/// How far a table tells what happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Coverage {
    /// `observed`, `partial`, `not_applicable` or `not_observable`.
    pub status: String,
    /// Why.
    pub reason: String,
}

/// Events received and lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Events {
    /// Records that arrived.
    pub received: Option<u64>,
    /// Lost in the kernel.
    pub lost_kernel: Option<u64>,
    /// Lost in user space.
    pub lost_userspace: Option<u64>,
}

impl Metadata {
    /// Coverage of a table, if the session says one.
    pub fn coverage(&self, table: &str) -> Option<&Coverage> {
        self.tables.as_ref()?.get(table)?.coverage.as_ref()
    }

    /// The processes.
    pub fn processes(&self) -> &[Process] {
        self.processes.as_deref().unwrap_or_default()
    }

    /// A process.
    pub fn process(&self, pid: u32) -> Option<&Process> {
        self.processes().iter().find(|process| process.pid == pid)
    }

    /// Records that did not arrive; `None` if the session does not say.
    pub fn lost(&self) -> Option<u64> {
        let events = self.events.as_ref()?;
        let kernel = events.lost_kernel?;
        Some(kernel.saturating_add(events.lost_userspace.unwrap_or(0)))
    }

    /// The engine that a worker belongs to: itself, or the nearest ancestor that is an engine; if there is only one
    /// engine, that one.
    pub fn engine_of(&self, pid: u32) -> Option<u32> {
        let engine = |process: &&Process| process.role.as_deref() == Some("engine_core");
        let mut at = pid;
        for _ in 0..16 {
            let Some(process) = self.process(at) else {
                break;
            };
            if engine(&process) {
                return Some(at);
            }
            match process.parent {
                Some(parent) if parent != at => at = parent,
                _ => break,
            }
        }
        let mut engines = self.processes().iter().filter(engine);
        let only = engines.next()?.pid;
        engines.next().is_none().then_some(only)
    }
}

/// An entry of an unexpected kind counts as missing.
fn lenient<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

/// Reads the file; a note in plain words if it is not there or does not say anything.
pub(super) fn read(path: &Path) -> Result<(Metadata, Option<String>), Error> {
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    if !path.is_file() {
        let note = "there is no metadata.json: what was not observed is not known";
        return Ok((Metadata::default(), Some(note.to_owned())));
    }
    let mut text = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MOST).read_to_end(&mut text).map_err(failed)?;
    match serde_json::from_slice(&text) {
        Ok(metadata) => Ok((metadata, None)),
        Err(error) => {
            let note =
                format!("metadata.json is not read ({error}): what was not observed is not known");
            Ok((Metadata::default(), Some(note)))
        }
    }
}
