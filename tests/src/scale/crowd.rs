//! Many nodes in one process, and the list by which Prometheus finds them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use profilemate::metrics::registry::Registry;
use serde_json::json;

use super::node::{Like, Node};
use super::recording::Recording;

/// Time between two turns in which each node plays on.
const TURN: Duration = Duration::from_millis(200);

/// What all nodes have in common.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Servers on each node.
    pub servers: u32,
    /// Recorded seconds that are played in a second.
    pub speed: f64,
    /// One node on which everything takes so much longer.
    pub slow: Option<(u32, f64)>,
}

/// Many nodes, which play and serve until this is dropped.
pub struct Crowd {
    kind: Kind,
    recording: Arc<Recording>,
    nodes: Arc<Mutex<Vec<Node>>>,
    targets: Vec<(String, SocketAddr)>,
    runtime: tokio::runtime::Runtime,
    ending: Arc<AtomicBool>,
    player: Option<JoinHandle<()>>,
}

fn lock(nodes: &Mutex<Vec<Node>>) -> MutexGuard<'_, Vec<Node>> {
    nodes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Crowd {
    /// Nobody yet.
    pub fn new(kind: Kind, recording: Recording) -> Result<Self> {
        // As the agent's.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let nodes: Arc<Mutex<Vec<Node>>> = Arc::default();
        let ending = Arc::new(AtomicBool::new(false));
        let (players, end) = (Arc::clone(&nodes), Arc::clone(&ending));
        let player = std::thread::Builder::new()
            .name("player".to_owned())
            .spawn(move || play(&players, kind.speed, &end))?;
        Ok(Self {
            kind,
            recording: Arc::new(recording),
            nodes,
            targets: Vec::new(),
            runtime,
            ending,
            player: Some(player),
        })
    }

    /// Adds nodes until there are `count`, and writes the list for `file_sd_configs`.
    pub fn grow(&mut self, count: u32, list: &Path) -> Result<()> {
        for number in self.targets.len() as u32..count {
            let slower = match self.kind.slow {
                Some((slow, factor)) if slow == number => factor,
                _ => 1.0,
            };
            let like = Like {
                number,
                servers: self.kind.servers,
                slower,
            };
            let node = Node::new(like, &self.recording);
            let (server, address) = self.runtime.block_on(node.bind())?;
            self.runtime.spawn(server.serve(Arc::clone(&node.shared)));
            self.targets.push((node.name.clone(), address));
            lock(&self.nodes).push(node);
        }
        let groups = self.targets.iter().map(|(name, address)| {
            json!({ "targets": [address.to_string()], "labels": { "instance": name } })
        });
        let text = json!(groups.collect::<Vec<_>>()).to_string();
        // In one piece, so that Prometheus never reads a part.
        let beside = list.with_extension("new");
        std::fs::write(&beside, text).context("the list of targets")?;
        std::fs::rename(&beside, list).context("the list of targets")
    }

    /// The numbers of a node.
    pub fn registry(&self, number: usize) -> Option<Arc<Registry>> {
        let nodes = lock(&self.nodes);
        Some(Arc::clone(&nodes.get(number)?.shared.registry))
    }

    /// The name of a node.
    pub fn name(&self, number: usize) -> Option<String> {
        Some(self.targets.get(number)?.0.clone())
    }
}

/// The thread that plays: every node in each turn.
fn play(nodes: &Mutex<Vec<Node>>, speed: f64, ending: &AtomicBool) {
    let began = Instant::now();
    let mut cpu = 0.0;
    while !ending.load(Ordering::Relaxed) {
        let turn = Instant::now();
        let count = lock(nodes).len();
        // What this process needs, in equal parts.
        let (now, resident) = needs();
        let used = (now - cpu) / count.max(1) as f64;
        cpu = now;
        for number in 0..count {
            let ns = (began.elapsed().as_nanos() as f64 * speed) as u64;
            if let Some(node) = lock(nodes).get_mut(number) {
                node.play(ns, used, resident / count as f64);
            }
        }
        std::thread::sleep(TURN.saturating_sub(turn.elapsed()));
    }
}

/// Processor seconds and resident bytes of this process.
fn needs() -> (f64, f64) {
    let pid = std::process::id();
    let cpu = crate::needs::cpu_ns(pid).unwrap_or(0);
    let resident = crate::needs::resident_mib(pid, "VmRSS").unwrap_or(0.0);
    (cpu as f64 / 1e9, resident * 1024.0 * 1024.0)
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(Err(_)) = self.player.take().map(JoinHandle::join) {
            eprintln!("the thread that plays has failed");
        }
    }
}
