//! One node: an agent's numbers and HTTP server, fed from a recording in place of probes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use profilemate::agent::config::Config;
use profilemate::agent::http::Server;
use profilemate::agent::shared::Shared;
use profilemate::metrics::declare::Id;
use profilemate::metrics::rows::{About, Teller};
use profilemate::sink::watch::Watcher as _;
use profilemate::table::AnyRow;
use profilemate::table::cell::{Millis, Seconds, Stamp};

use super::recording::{Recording, Told};

/// By how much nodes differ in speed: one in so many parts, at most.
const UNEVEN: f64 = 0.01;

/// How a node is.
#[derive(Clone, Copy, Debug)]
pub struct Like {
    /// Its number in the fleet.
    pub number: u32,
    /// Servers on it.
    pub servers: u32,
    /// How much longer everything takes on it than recorded, before small differences between nodes.
    pub slower: f64,
}

/// A node.
pub struct Node {
    /// Its name.
    pub name: String,
    /// What its agent's parts share: the numbers among it.
    pub shared: Arc<Shared>,
    servers: Vec<Played>,
}

/// A server that plays a recording over and over, each time as a session of its own.
struct Played {
    teller: Teller,
    recording: Arc<Recording>,
    /// How much longer everything takes than recorded.
    slower: f64,
    /// Where in the recording it began, in nanoseconds.
    offset_ns: u64,
    /// When it began.
    began_ns: Option<u64>,
    /// Sessions that have ended.
    lap: u64,
    /// What is told next of the recording.
    next: usize,
}

/// A number from 0 to 1 that looks random and is always the same.
fn chance(seed: u64) -> f64 {
    fastrand::Rng::with_seed(seed).f64()
}

impl Node {
    /// A node that plays `recording`.
    pub fn new(like: Like, recording: &Arc<Recording>) -> Self {
        let mut config = Config::default();
        // Each node has an address of its own; port 0 is any that is free.
        let [_, _, high, low] = (like.number + 1).to_be_bytes();
        let address = Ipv4Addr::new(127, 1, high, low);
        config.agent.listen = SocketAddr::from((address, 0));
        let shared = Shared::new(config, None);
        let name = format!("node-{:05}", like.number);
        let registry = &shared.registry;
        registry.set(Id::AgentInfo, &[env!("CARGO_PKG_VERSION")], 1.0);
        registry.set(Id::Servers, &[], f64::from(like.servers));
        let servers = (0..like.servers)
            .map(|index| Played::new(like, index, &shared, recording))
            .collect();
        Self {
            name,
            shared,
            servers,
        }
    }

    /// Binds the agent's HTTP server.
    pub async fn bind(&self) -> Result<(Server, SocketAddr)> {
        let server = Server::bind(&self.shared.config(), None).await;
        let server = server.context("cannot bind an address of 127.1.0.0/16")?;
        let address = server.address()?;
        Ok((server, address))
    }

    /// Plays on, to `ns` nanoseconds since the beginning. `cpu_sec` and `resident` are what the agent needs.
    pub fn play(&mut self, ns: u64, cpu_sec: f64, resident: f64) {
        for server in &mut self.servers {
            server.play(ns);
        }
        let registry = &self.shared.registry;
        registry.add(Id::AgentCpu, &[], cpu_sec);
        registry.set(Id::AgentResident, &[], resident);
    }
}

impl Played {
    fn new(like: Like, index: u32, shared: &Shared, recording: &Arc<Recording>) -> Self {
        let seed = (u64::from(like.number) << 8) | u64::from(index);
        let pod = format!("chat-{:05}-{index}", like.number);
        let about = About {
            model: "demo".to_owned(),
            pod: pod.clone(),
            namespace: "serving".to_owned(),
            container: format!(
                "{:064x}",
                u128::from(seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ),
            pid: 4_000 + index,
        };
        let mut teller = Teller::new(Arc::clone(&shared.registry), pod, about);
        // So that findings are told for most of a recording, which is short.
        teller.set_window(recording.length() / 8);
        Self {
            teller,
            recording: Arc::clone(recording),
            slower: like.slower * (1.0 + UNEVEN * (2.0 * chance(seed) - 1.0)),
            offset_ns: (chance(!seed) * recording.length_ns as f64) as u64,
            began_ns: None,
            lap: 0,
            next: 0,
        }
    }

    fn play(&mut self, ns: u64) {
        let recording = Arc::clone(&self.recording);
        let since = ns - *self.began_ns.get_or_insert(ns);
        let place = (since as f64 / self.slower) as u64 + self.offset_ns;
        loop {
            if self.next == 0 {
                recording.prelude.iter().for_each(|told| self.tell(told));
            }
            let in_lap = place - self.lap * recording.length_ns;
            while let Some((at, told)) = recording.told.get(self.next) {
                if *at > in_lap {
                    return;
                }
                self.next += 1;
                self.tell(told);
            }
            if in_lap < recording.length_ns {
                return;
            }
            self.teller.end_session();
            self.lap += 1;
            self.next = 0;
        }
    }

    fn tell(&mut self, told: &Told) {
        match told {
            Told::Row(row) => self.teller.row(&slower(row, self.slower)),
            Told::Pulse(beat) => beat.tell(&mut self.teller),
            Told::Covers(covers) => self.teller.covers(covers),
        }
    }
}

/// A row in which everything takes `factor` times as long.
fn slower(row: &AnyRow, factor: f64) -> AnyRow {
    let longer = |ns: u64| (ns as f64 * factor) as u64;
    let mut row = row.clone();
    match &mut row {
        AnyRow::BatchUse(row) => {
            row.timestamp_sec = Stamp((row.timestamp_sec.0 as f64 * factor) as i64);
        }
        AnyRow::ForwardPass(row) => {
            row.forward_time_ms = row.forward_time_ms.map(|time| Millis(longer(time.0)));
        }
        AnyRow::CpuOperation(row) => {
            row.self_ms = row.self_ms.map(|time| Millis(longer(time.0)));
        }
        AnyRow::RequestLifecycle(row) => {
            row.total_time_sec = row.total_time_sec.map(|time| Seconds(longer(time.0)));
        }
        _ => {}
    }
    row
}
