//! What is known of each executable graph, by its handle.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::descriptor::Descriptor;
use crate::aggregate::checkpoint::Graph;

/// Handles remembered, at most; beyond, all are forgotten.
const CAPACITY: usize = 262_144;

/// How a graph's descriptor became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Source {
    /// From its capture.
    Capture,
    /// From the decision that preceded its launch.
    Dispatch,
}

/// What is known of one executable graph.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Exec {
    /// The batches that it serves.
    pub descriptor: Descriptor,
    /// How that became known.
    pub source: Source,
}

/// The executable graphs of all processes.
#[derive(Debug, Default)]
pub struct Execs(HashMap<(u32, u64), Exec>);

impl Execs {
    /// A graph's descriptor has become known.
    pub fn learn(&mut self, pid: u32, handle: u64, exec: Exec) {
        if self.0.len() >= CAPACITY && !self.0.contains_key(&(pid, handle)) {
            self.0.clear();
        }
        self.0.insert((pid, handle), exec);
    }

    /// What is known of a graph.
    pub fn get(&self, pid: u32, handle: u64) -> Option<&Exec> {
        self.0.get(&(pid, handle))
    }

    /// The graph was destroyed, or its handle names another one now.
    pub fn forget(&mut self, pid: u32, handle: u64) {
        self.0.remove(&(pid, handle));
    }

    /// All graphs of a process are gone.
    pub fn forget_process(&mut self, pid: u32) {
        self.0.retain(|key, _| key.0 != pid);
    }

    /// At most `count` handles, by process and by what is known of them, and how many more there are.
    pub(in crate::aggregate) fn by_kind(&self, count: usize) -> (Vec<Graph>, u64) {
        let mut kinds: BTreeMap<(u32, &Exec), Vec<u64>> = BTreeMap::new();
        for (&(pid, handle), exec) in self.0.iter().take(count) {
            kinds.entry((pid, exec)).or_default().push(handle);
        }
        let graphs = kinds.into_iter().map(|((pid, exec), mut handles)| {
            handles.sort_unstable();
            Graph {
                pid,
                exec: exec.clone(),
                handles,
            }
        });
        (graphs.collect(), self.0.len().saturating_sub(count) as u64)
    }

    /// Handles may name other graphs by now.
    pub fn forget_all(&mut self) {
        self.0.clear();
    }
}
