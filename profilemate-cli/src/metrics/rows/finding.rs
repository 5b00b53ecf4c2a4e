//! What `explain` finds wrong with a server, in one window of its rows after the other.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Teller;
use crate::aggregate::coverage::{Coverage, NO_CUDA, Status};
use crate::event::Process;
use crate::explain::{Cover, Explanation, Facts};
use crate::metrics::declare::Id;
use crate::table::AnyRow;
use crate::table::cell::Stamp;

/// Length of a window where no other is set.
pub const WINDOW: Duration = Duration::from_secs(300);

/// The window that is not over yet.
pub(super) struct Window {
    length_ns: i64,
    began_ns: Option<i64>,
    facts: Facts,
    cover: Cover,
    /// Engines of processes, by pid.
    engines: BTreeMap<u32, u32>,
}

impl Default for Window {
    fn default() -> Self {
        Self::new(WINDOW)
    }
}

impl Window {
    pub(super) fn new(length: Duration) -> Self {
        Self {
            length_ns: i64::try_from(length.as_nanos()).unwrap_or(i64::MAX),
            began_ns: None,
            facts: Facts::default(),
            cover: Cover::default(),
            engines: BTreeMap::new(),
        }
    }

    pub(super) fn row(&mut self, row: &AnyRow) {
        let engines = &self.engines;
        self.facts.row(row, &|pid| engines.get(&pid).copied());
    }

    pub(super) fn meet(&mut self, processes: &[&Process]) {
        let engine = |process: &&Process| Some((process.pid, engine_of(process, processes)?));
        self.engines = processes.iter().filter_map(engine).collect();
    }

    pub(super) fn covers(&mut self, covers: &[(&'static str, Coverage)]) {
        self.cover = Cover::default();
        for (table, cover) in covers {
            // A label: other reasons name what there is only once.
            let why = match cover.status {
                _ if cover.reason == NO_CUDA => NO_CUDA,
                Status::NotApplicable => "there is nothing to tell of this server",
                _ => "not observed by the probes that the agent keeps",
            };
            self.cover.add(table, cover.status.word(), why);
        }
    }

    /// What the window shows, and its length in seconds, if it is over: the next one begins then.
    fn turn(&mut self, now: Stamp) -> Option<(Explanation, f64)> {
        let length = now.0 - *self.began_ns.get_or_insert(now.0);
        if length < self.length_ns {
            return None;
        }
        self.began_ns = Some(now.0);
        let next = self.facts.next();
        let mut facts = std::mem::replace(&mut self.facts, next);
        facts.finish();
        let explanation = Explanation::of(&facts, &self.cover, None);
        Some((explanation, length as f64 / 1e9))
    }
}

/// The engine that a process is or works for, by its pid: its own, else the one above it, else the only one there is.
fn engine_of(process: &Process, all: &[&Process]) -> Option<u32> {
    let mut at = process;
    for _ in 0..8 {
        if at.role == "engine_core" {
            return Some(at.pid);
        }
        match all.iter().find(|other| other.pid == at.parent) {
            Some(parent) => at = parent,
            None => break,
        }
    }
    let alike = |other: &&&Process| {
        other.role == "engine_core" && (process.engine.is_none() || other.engine == process.engine)
    };
    let mut engines = all.iter().filter(alike);
    let first = engines.next()?;
    engines.next().is_none().then_some(first.pid)
}

/// Series of one metric: the values of their labels, and their own.
type Series<'a> = Vec<(Vec<&'a str>, f64)>;

impl Teller {
    /// From now on, findings are told of windows of this length.
    pub fn set_window(&mut self, length: Duration) {
        self.window = Window::new(length);
    }

    /// Tells what the window shows, if it is over.
    pub(super) fn judge(&mut self, now: Stamp) {
        if let Some((explanation, sec)) = self.window.turn(now) {
            self.tell_findings(&explanation, sec);
        }
    }

    /// Nothing is seen any longer: what was found is not told of what comes.
    pub(super) fn forget_findings(&mut self) {
        self.window.began_ns = None;
        self.window.facts = Facts::default();
        self.tell_findings(&Explanation::default(), 1.0);
    }

    fn tell_findings(&self, explanation: &Explanation, sec: f64) {
        let server = self.server.as_str();
        let mut judged: Series<'_> = Vec::new();
        let (mut tokens, mut time): (Series<'_>, Series<'_>) = (Vec::new(), Vec::new());
        for finding in &explanation.findings {
            let labels = vec![server, finding.rule];
            let cost = &finding.cost;
            tokens.extend(cost.tokens_per_sec.map(|rate| (labels.clone(), rate)));
            time.extend(cost.milliseconds.map(|ms| (labels.clone(), ms / 1e3 / sec)));
            judged.push((labels, 1.0));
        }
        let well = explanation.nothing_wrong.iter();
        judged.extend(well.map(|rule| (vec![server, rule], 0.0)));
        let blind = explanation.not_judged.iter();
        let blind = blind.map(|one| (vec![server, one.rule, one.reason.as_str()], 1.0));
        for (id, series) in [
            (Id::Finding, judged),
            (Id::FindingTokens, tokens),
            (Id::FindingTime, time),
            (Id::NotJudged, blind.collect()),
        ] {
            self.registry.replace(id, server, &series);
        }
    }
}
