//! Answers joined into servers and agents. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use super::api::{Answer, Labels, Series};
use super::gather::{Measured, Roll};
use super::measure::{MEASURES, Scope};

/// Labels that tell of a server, and do not make it another one when they change.
const TOLD: [&str; 9] = [
    "version",
    "model",
    "runner",
    "python",
    "pid",
    "pod",
    "namespace",
    "container",
    "reason",
];
/// Seconds after which what an agent told is called late; scrapes are seldom further apart than a minute.
const LATE_SEC: f64 = 150.0;
/// Seconds by which a clock may be ahead before that is named.
const AHEAD_SEC: f64 = 15.0;

/// Which server or agent, by the labels that stay: those of the scraped target, and `server`.
pub type Key = Labels;

/// Whether something tells, by its last word.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// It tells.
    Telling {
        /// Seconds since it last did.
        age_sec: f64,
    },
    /// It tells seldom or falls behind: its values are old.
    Late {
        /// Seconds since it last did.
        age_sec: f64,
    },
    /// It told within the lookback, and no longer does.
    Silent {
        /// Seconds since it last did, to half a minute.
        age_sec: f64,
    },
    /// What it tells lies in the engine's future.
    Ahead {
        /// Seconds by which its clock is ahead at least.
        by_sec: f64,
    },
}

impl State {
    /// Whether values of now can be had.
    pub fn tells(self) -> bool {
        matches!(self, Self::Telling { .. } | Self::Late { .. })
    }

    /// In words.
    pub fn words(self) -> String {
        match self {
            Self::Telling { .. } => "ok".to_owned(),
            Self::Late { age_sec } => format!("late, {age_sec:.0} s old"),
            Self::Silent { age_sec } => format!("silent for {age_sec:.0} s"),
            Self::Ahead { by_sec } => format!("clock ahead by {by_sec:.0} s"),
        }
    }
}

/// A server.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Server {
    /// Its labels.
    pub key: Key,
    /// Its name on its node.
    pub server: String,
    /// The agent that tells of it.
    pub instance: String,
    /// Version of vLLM; empty where it is not known.
    pub version: String,
    /// Model; empty where it is not known.
    pub model: String,
    /// Everything else that the agent told of it.
    pub info: Labels,
    /// Whether it tells.
    #[serde(flatten)]
    pub state: State,
    /// Whether it is attached; `None` where nothing was told.
    pub attached: Option<bool>,
    /// Its measures, by their ids; what was not told is not there.
    pub values: BTreeMap<&'static str, f64>,
}

impl Server {
    /// Name for people: unique in most fleets.
    pub fn name(&self) -> String {
        named(&self.key)
    }

    /// What the servers that are like it have in common.
    pub fn group(&self) -> Group {
        Group {
            model: self.model.clone(),
            version: self.version.clone(),
        }
    }
}

/// Servers that are alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Group {
    /// Model.
    pub model: String,
    /// Version of vLLM.
    pub version: String,
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let or = |text: &'static str, other: &str| {
            if other.is_empty() {
                text.to_owned()
            } else {
                other.to_owned()
            }
        };
        write!(
            f,
            "{}, vLLM {}",
            or("unknown model", &self.model),
            or("of unknown version", &self.version)
        )
    }
}

/// An agent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Agent {
    /// Its labels.
    pub key: Key,
    /// Its address.
    pub instance: String,
    /// Its version; empty where it never told.
    pub version: String,
    /// Whether it tells; `None` for one that never did, though the engine asks it.
    pub last: Option<State>,
    /// Whether the engine reaches it; `None` where it pushes.
    pub reached: Option<bool>,
    /// Attaches that failed within the window, by reason.
    pub failures: BTreeMap<String, f64>,
}

impl Agent {
    /// Whether all is well with it.
    pub fn is_well(&self) -> bool {
        let telling = matches!(self.last, Some(State::Telling { .. }));
        telling && self.reached != Some(false) && self.failures.is_empty()
    }
}

/// A fleet.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Fleet {
    /// The engine's time, in seconds since 1970.
    pub at: f64,
    /// Servers, by model, version and name.
    pub servers: Vec<Server>,
    /// Agents.
    pub agents: Vec<Agent>,
    /// What limits the answer.
    pub notes: Vec<String>,
}

/// The labels that say which server (or, without `server`, which target) a series is of.
pub fn key(series: &Series, scope: Scope) -> Key {
    let inside = |name: &str| {
        TOLD.contains(&name)
            || name.starts_with("exported_")
            || scope.labels().contains(&name)
            || matches!(name, "graph_mode" | "kind" | "rule")
    };
    let labels = series.labels.iter();
    labels
        .filter(|(name, value)| !inside(name) && !value.is_empty())
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// A key in words: the server and its agent.
pub fn named(key: &Key) -> String {
    let of = |name: &str| key.get(name).map_or("", String::as_str);
    match (of("server"), of("instance")) {
        ("", instance) => instance.to_owned(),
        (server, "") => server.to_owned(),
        (server, instance) => format!("{server} @ {instance}"),
    }
}

/// What was told last of each key, and when: an answer may have several series of one, such as before and after a
/// restart.
fn last_told(answer: &Answer) -> BTreeMap<Key, (f64, &Series)> {
    let mut all: BTreeMap<Key, (f64, &Series)> = BTreeMap::new();
    for series in &answer.series {
        let Some(at) = series.last() else { continue };
        let entry = all
            .entry(key(series, Scope::Server))
            .or_insert((at, series));
        if at > entry.0 {
            *entry = (at, series);
        }
    }
    all
}

/// Who told last, when, and whether they still do.
fn states<'a>(
    now: f64,
    present: &'a Answer,
    seen: &'a Answer,
) -> BTreeMap<Key, (State, &'a Series)> {
    let mut all = BTreeMap::new();
    for (key, (at, series)) in last_told(seen) {
        let state = if at > now + AHEAD_SEC {
            State::Ahead { by_sec: at - now }
        } else {
            State::Silent {
                age_sec: (now - at).max(0.0),
            }
        };
        all.insert(key, (state, series));
    }
    for (key, (at, series)) in last_told(present) {
        let age_sec = (now - at).max(0.0);
        let state = if age_sec > LATE_SEC {
            State::Late { age_sec }
        } else {
            State::Telling { age_sec }
        };
        // A series of the present whose last word lies in the future falls behind the future one only by lookup.
        let ahead = all
            .get(&key)
            .is_some_and(|(state, _)| matches!(state, State::Ahead { .. }));
        if !ahead {
            all.insert(key, (state, series));
        }
    }
    all
}

impl Fleet {
    /// Joins answers. `measured` may be empty: then the servers have no values.
    pub fn of(roll: &Roll, measured: &Measured) -> Self {
        let mut servers = servers(roll);
        values(&mut servers, measured);
        let mut servers: Vec<Server> = servers.into_values().collect();
        servers.sort_by_key(|one| (one.group(), one.server.clone(), one.instance.clone()));
        let warnings = measured.values().flat_map(|answer| &answer.warnings);
        let mut notes: Vec<String> = roll.warnings().chain(warnings).cloned().collect();
        notes.sort_unstable();
        notes.dedup();
        Self {
            at: roll.now,
            servers,
            agents: agents(roll),
            notes,
        }
    }
}

fn servers(roll: &Roll) -> BTreeMap<Key, Server> {
    let attached: BTreeMap<Key, bool> = roll
        .attached
        .series
        .iter()
        .filter_map(|series| Some((key(series, Scope::Server), series.last()? > 0.5)))
        .collect();
    let states = states(roll.now, &roll.servers, &roll.servers_seen);
    let server = |(key, (state, series)): (Key, (State, &Series))| {
        let info = series.labels.iter();
        let info = info.filter(|(name, value)| !key.contains_key(*name) && !value.is_empty());
        let server = Server {
            server: series.label("server").to_owned(),
            instance: series.label("instance").to_owned(),
            version: series.label("version").to_owned(),
            model: series.label("model").to_owned(),
            info: info
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            state,
            attached: attached.get(&key).copied(),
            values: BTreeMap::new(),
            key: key.clone(),
        };
        (key, server)
    };
    states.into_iter().map(server).collect()
}

fn values(servers: &mut BTreeMap<Key, Server>, measured: &Measured) {
    for measure in MEASURES.iter().filter(|one| one.scope == Scope::Server) {
        for series in measured
            .get(measure.id)
            .into_iter()
            .flat_map(|answer| &answer.series)
        {
            if let (Some(server), Some(value)) =
                (servers.get_mut(&key(series, Scope::Server)), series.last())
            {
                server.values.insert(measure.id, value);
            }
        }
    }
}

/// Without labels that the agent itself gave: what is left is the scraped target.
fn target(series: &Series) -> Key {
    let mut key = key(series, Scope::Server);
    key.remove("server");
    key
}

fn agents(roll: &Roll) -> Vec<Agent> {
    let mut agents: BTreeMap<Key, Agent> = BTreeMap::new();
    let agent = |key: &Key, series: &Series| Agent {
        instance: key.get("instance").cloned().unwrap_or_default(),
        key: key.clone(),
        version: series.label("version").to_owned(),
        last: None,
        reached: None,
        failures: BTreeMap::new(),
    };
    for (key, (state, series)) in states(roll.now, &roll.agents, &roll.agents_seen) {
        let mut agent = agent(&key, series);
        agent.last = Some(state);
        agents.insert(key, agent);
    }
    for series in &roll.scraped.series {
        let Some(up) = series.last() else { continue };
        let key = target(series);
        let agent = agents
            .entry(key.clone())
            .or_insert_with(|| agent(&key, series));
        agent.reached = Some(up > 0.5);
    }
    for series in &roll.failures.series {
        if let (Some(agent), Some(count)) = (agents.get_mut(&target(series)), series.last()) {
            agent
                .failures
                .insert(series.label("reason").to_owned(), count);
        }
    }
    agents.into_values().collect()
}
