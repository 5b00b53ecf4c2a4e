//! `profilemate agent`: keeps every vLLM server of a node attached with cheap probes, and tells their metrics.
//!
//! One thread looks for servers; each server has a thread that keeps it ([`keeper`]); HTTP is served beside them.

pub mod config;
mod files;
pub mod http;
pub mod identity;
pub mod keeper;
mod load;
mod names;
mod push;
pub mod server;
pub mod shared;
pub mod state;
pub mod trace;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::print::note;
use crate::cli::{Exit, Failure};
use crate::metrics::declare::Id;
use config::Config;
use keeper::Keeper;
use load::Held;
use names::Names;
use server::Key;
use shared::Shared;
use state::State;

pub use load::{Loaded, Source};

/// Time between two looks at the room that traces take.
const ROOM: Duration = Duration::from_secs(60);
/// The same while one is taken.
const ROOM_TRACING: Duration = Duration::from_secs(1);

/// Runs until SIGTERM or SIGINT.
pub fn run(source: &Source) -> Result<(), Failure> {
    let loaded = source.load()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("pm-http")
        .enable_all()
        .build()
        .map_err(|error| failure("cannot start the HTTP server's thread", error))?;
    let state = State::open(&loaded.config.agent.state_folder).map_err(|error| {
        let exit = match error {
            state::Error::Folder { .. } => Exit::Output,
            state::Error::Taken { .. } => Exit::Busy,
        };
        Failure::new(exit, error).hint("`state_folder` in `[agent]` chooses another folder")
    })?;
    runtime.block_on(work(source, loaded, &state))
}

fn failure(what: &'static str, error: std::io::Error) -> Failure {
    Failure::new(Exit::Failed, anyhow::Error::new(error).context(what))
}

async fn work(source: &Source, loaded: Loaded, state: &State) -> Result<(), Failure> {
    let recovered = state.recover();
    if recovered.processes > 0 {
        log::warn!(
            "the agent before this one was killed: {} pointers were put back in {} processes",
            recovered.pointers,
            recovered.processes
        );
    }
    let mut signals = Signals::new()?;
    let listen = loaded.config.agent.listen;
    let acceptor = loaded.acceptor.clone();
    let server = http::Server::bind(&loaded.config, loaded.acceptor)
        .await
        .map_err(|error| {
            let error = anyhow::Error::new(error).context(format!("cannot listen on {listen}"));
            Failure::new(Exit::Output, error).hint("`listen` in `[agent]` chooses another address")
        })?;
    let shared = Shared::new(loaded.config, loaded.token);
    let mut held = Held::new(&shared, acceptor, loaded.look);
    if let Ok(address) = server.address() {
        note(&format!("listening on {address}"));
    }
    let http = tokio::spawn(server.serve(Arc::clone(&shared)));
    held.push.begin(loaded.collector, &shared.registry);
    let mut watch = Watch::new(Arc::clone(&shared), state);
    loop {
        watch.turn().await;
        held.renew();
        let interval = shared.config().agent.interval.0;
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            _ = signals.interrupt.recv() => break,
            _ = signals.terminate.recv() => break,
            _ = signals.reload.recv() => held.reload(source),
        }
    }
    watch.end();
    held.push.end(&shared.registry);
    http.abort();
    Ok(())
}

/// The signals that the agent heeds.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    reload: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| failure("cannot listen for signals", error));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            reload: listen(SignalKind::hangup())?,
        })
    }
}

/// Looks for servers, and has each kept by a thread.
struct Watch<'a> {
    shared: Arc<Shared>,
    state: &'a State,
    names: Names,
    threads: BTreeMap<Key, JoinHandle<()>>,
    leaving: Vec<JoinHandle<()>>,
    written: Option<(BTreeSet<Key>, BTreeSet<Key>)>,
    room_seen: Option<Instant>,
    cpu: f64,
}

impl<'a> Watch<'a> {
    fn new(shared: Arc<Shared>, state: &'a State) -> Self {
        shared
            .registry
            .set(Id::AgentInfo, &[env!("CARGO_PKG_VERSION")], 1.0);
        let names = Names::new(&shared.config().identity);
        Self {
            shared,
            state,
            names,
            threads: BTreeMap::new(),
            leaving: Vec::new(),
            written: None,
            room_seen: None,
            cpu: 0.0,
        }
    }

    /// One look.
    async fn turn(&mut self) {
        let config = self.shared.config();
        if !self.names.fit(&config.identity) {
            self.names = Names::new(&config.identity);
        }
        match server::look(&config) {
            Ok(now) => {
                let known = self.shared.names();
                let (come, gone) = server::changes(&now, &known);
                for key in gone {
                    self.leave(&key);
                }
                for seen in come {
                    self.meet(&config, seen).await;
                }
                self.shared.has_looked();
            }
            Err(failure) => log::warn!("{failure}"),
        }
        self.leaving.retain(|thread| !thread.is_finished());
        self.remember();
        self.keep_room(&config);
        self.weigh();
    }

    async fn meet(&mut self, config: &Config, seen: &crate::target::process::Seen) {
        let taken = self.shared.names().into_values().collect();
        let found = server::find_out(seen, config, &mut self.names, &taken).await;
        note(&format!(
            "server `{}` came (process {})",
            found.name, seen.pid
        ));
        let key = found.key.clone();
        // Written down before anything is done to it: what a killed agent leaves must be found.
        let known = self.threads.keys().cloned();
        self.write(known.chain([key.clone()]).collect());
        let keeper = Keeper::new(found, &self.shared);
        let (shared, kept) = (Arc::clone(&self.shared), Arc::clone(&keeper));
        let thread = std::thread::Builder::new()
            .name(format!("pm-{}", seen.pid))
            .spawn(move || kept.keep(&shared));
        match thread {
            Ok(thread) => {
                self.shared.add(keeper);
                self.threads.insert(key, thread);
            }
            Err(error) => log::error!("cannot start a thread: {error}"),
        }
    }

    fn leave(&mut self, key: &Key) {
        if let Some(keeper) = self.shared.remove(key) {
            note(&format!(
                "server `{}` went (process {})",
                keeper.found.name, key.pid
            ));
            keeper.quit();
        }
        self.leaving.extend(self.threads.remove(key));
    }

    /// Writes down what is attached, if that has changed.
    fn remember(&mut self) {
        let servers = self.threads.keys().cloned().collect();
        self.write(servers);
    }

    fn write(&mut self, servers: BTreeSet<Key>) {
        let now = (servers, self.shared.attached());
        if self.written.as_ref() == Some(&now) {
            return;
        }
        match self.state.write(&now.0, &now.1) {
            Ok(()) => self.written = Some(now),
            Err(error) => log::warn!("{}", crate::session::chain(&error)),
        }
    }

    /// Keeps the traces in their room, and ends one that needs more.
    fn keep_room(&mut self, config: &Config) {
        let keepers = self.shared.keepers();
        let tracing: Vec<_> = keepers
            .iter()
            .filter(|keeper| keeper.is_tracing())
            .collect();
        let pause = if tracing.is_empty() {
            ROOM
        } else {
            ROOM_TRACING
        };
        if !config.traces.enabled || self.room_seen.is_some_and(|seen| seen.elapsed() < pause) {
            return;
        }
        self.room_seen = Some(Instant::now());
        let (size, age) = (config.traces.max_size.0, config.traces.max_age.0);
        let busy = tracing.len();
        let now = SystemTime::now();
        if trace::make_room(&config.traces.folder, size, age, now, busy) > size {
            for keeper in tracing {
                keeper.cut("no room: `max_size` in `[traces]` is reached");
            }
        }
    }

    /// What the agent itself needs.
    fn weigh(&mut self) {
        let registry = &self.shared.registry;
        registry.set(Id::Servers, &[], self.threads.len() as f64);
        let Ok(own) = procfs::process::Process::myself() else {
            return;
        };
        if let Ok(stat) = own.stat() {
            let ticks = (stat.utime + stat.stime) as f64;
            let seconds = ticks / procfs::ticks_per_second() as f64;
            registry.add(Id::AgentCpu, &[], (seconds - self.cpu).max(0.0));
            self.cpu = seconds;
            let resident = stat.rss.saturating_mul(procfs::page_size());
            registry.set(Id::AgentResident, &[], resident as f64);
        }
    }

    /// Lets go of every server.
    fn end(&mut self) {
        for keeper in self.shared.keepers() {
            keeper.quit();
        }
        let threads = std::mem::take(&mut self.threads).into_values();
        for thread in threads.chain(self.leaving.drain(..)) {
            if thread.join().is_err() {
                log::error!("a thread has failed");
            }
        }
        self.remember();
    }
}
