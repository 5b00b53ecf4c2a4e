//! What the agent's threads share.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use tokio::sync::Semaphore;

use super::config::Config;
use super::keeper::Keeper;
use super::server::Key;
use super::trace::{Progress, Shown};
use crate::metrics::registry::Registry;
use crate::secret::Token;

/// Traces that are remembered, at most.
const TRACES: usize = 100;
/// Sessions that are sent at once, at most: the node is there for its servers.
const DOWNLOADS: usize = 2;

/// What can be replaced while the agent runs.
#[derive(Clone)]
struct Settings {
    config: Arc<Config>,
    token: Option<Token>,
    /// Why the latest configuration was not taken.
    refused: Option<String>,
}

/// What the agent's threads share.
pub struct Shared {
    /// The numbers.
    pub registry: Arc<Registry>,
    /// Room for sessions that are sent at once.
    pub downloads: Arc<Semaphore>,
    settings: Mutex<Settings>,
    keepers: Mutex<BTreeMap<Key, Arc<Keeper>>>,
    traces: Mutex<VecDeque<Shown>>,
    next: AtomicU64,
    born: Instant,
    looked_ms: AtomicU64,
    measures: OnceLock<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// With a configuration and its token.
    pub fn new(config: Config, token: Option<Token>) -> Arc<Self> {
        Arc::new(Self {
            registry: Arc::default(),
            downloads: Arc::new(Semaphore::new(DOWNLOADS)),
            settings: Mutex::new(Settings {
                config: Arc::new(config),
                token,
                refused: None,
            }),
            keepers: Mutex::default(),
            traces: Mutex::default(),
            next: AtomicU64::new(1),
            born: Instant::now(),
            looked_ms: AtomicU64::new(0),
            measures: OnceLock::new(),
        })
    }

    /// The configuration.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&lock(&self.settings).config)
    }

    /// The token that clients must send, if there is one.
    pub fn token(&self) -> Option<Token> {
        lock(&self.settings).token.clone()
    }

    /// Another configuration holds from now on.
    pub fn take(&self, config: Config, token: Option<Token>) {
        *lock(&self.settings) = Settings {
            config: Arc::new(config),
            token,
            refused: None,
        };
    }

    /// Another token holds from now on.
    pub fn take_token(&self, token: Option<Token>) {
        lock(&self.settings).token = token;
    }

    /// A configuration was not taken.
    pub fn refuse(&self, why: String) {
        lock(&self.settings).refused = Some(why);
    }

    /// Why the latest configuration was not taken.
    pub fn refused(&self) -> Option<String> {
        lock(&self.settings).refused.clone()
    }

    /// Servers, with those who keep them.
    pub fn keepers(&self) -> Vec<Arc<Keeper>> {
        lock(&self.keepers).values().cloned().collect()
    }

    /// Servers by name.
    pub fn names(&self) -> BTreeMap<Key, String> {
        let keepers = lock(&self.keepers);
        keepers
            .iter()
            .map(|(key, keeper)| (key.clone(), keeper.found.name.clone()))
            .collect()
    }

    /// One more server.
    pub fn add(&self, keeper: Arc<Keeper>) {
        lock(&self.keepers).insert(keeper.found.key.clone(), keeper);
    }

    /// One server less.
    pub fn remove(&self, key: &Key) -> Option<Arc<Keeper>> {
        lock(&self.keepers).remove(key)
    }

    /// Every process that is attached.
    pub fn attached(&self) -> BTreeSet<Key> {
        let keepers = self.keepers();
        keepers
            .iter()
            .flat_map(|keeper| keeper.attached())
            .collect()
    }

    /// A number for a new trace of `server`.
    pub fn new_trace(&self, server: &str) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut traces = lock(&self.traces);
        if traces.len() >= TRACES {
            traces.pop_front();
        }
        traces.push_back(Shown {
            id,
            server: server.to_owned(),
            progress: Progress::Waiting,
        });
        id
    }

    /// A trace was not taken on after all.
    pub fn drop_trace(&self, id: u64) {
        lock(&self.traces).retain(|trace| trace.id != id);
    }

    /// How a trace stands now.
    pub fn tell_trace(&self, id: u64, progress: Progress) {
        let mut traces = lock(&self.traces);
        if let Some(trace) = traces.iter_mut().find(|trace| trace.id == id) {
            trace.progress = progress;
        }
    }

    /// How a trace stands; `None` for one that is not known.
    pub fn trace(&self, id: u64) -> Option<Progress> {
        let traces = lock(&self.traces);
        let trace = traces.iter().find(|trace| trace.id == id)?;
        Some(trace.progress.clone())
    }

    /// The latest traces.
    pub fn traces(&self) -> Vec<Shown> {
        lock(&self.traces).iter().cloned().collect()
    }

    /// Whether what tracing costs can be measured here. That needs more than tracing itself on most kernels; without it
    /// servers are traced all the same, and no budget is kept.
    pub fn can_measure_costs(&self) -> bool {
        *self
            .measures
            .get_or_init(|| match crate::attach::statistics() {
                Ok(_held) => true,
                Err(error) => {
                    log::warn!("no budget is kept: {}", crate::session::chain(&error));
                    false
                }
            })
    }

    /// Seconds since the agent began.
    pub fn uptime_sec(&self) -> f64 {
        self.born.elapsed().as_secs_f64()
    }

    /// It was just looked for servers.
    pub fn has_looked(&self) {
        let now = self.born.elapsed().as_millis() as u64;
        self.looked_ms.store(now, Ordering::Relaxed);
    }

    /// Seconds since it was last looked for servers.
    pub fn looked_sec_ago(&self) -> f64 {
        let looked = self.looked_ms.load(Ordering::Relaxed) as f64 / 1e3;
        (self.uptime_sec() - looked).max(0.0)
    }
}
