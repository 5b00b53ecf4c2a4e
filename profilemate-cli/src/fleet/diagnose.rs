//! What is wrong in a fleet: units that differ from their like, and the faults that `explain` knows. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::api::Span;
use super::gather::Measured;
use super::inventory::{Fleet, Group, Key, Server, key};
use super::measure::{
    FORWARD, MEASURES, Measure, PADDING, PREEMPTIONS, RECOMPUTED, STEP, Scope, TOKENS, Unit,
    WAITING, Worse,
};
use super::peer::{self, Difference, Matters, Values, middle};
use super::rule::{self, Fault, NotJudged};
use super::verdict::Verdicts;
use crate::sink::summary::rounded;

/// Something that is measured: a server, an engine of it, or a rank of that.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Subject {
    server: Key,
    engine: Option<String>,
    rank: Option<String>,
}

/// A measure in which a unit differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InWhat {
    /// The measure's id.
    pub measure: &'static str,
    /// In words.
    pub title: &'static str,
    /// How it is shown.
    #[serde(skip)]
    pub unit: Unit,
    /// Whether that is worse: `None` where it is only other work.
    pub worse: Option<bool>,
    /// The numbers.
    #[serde(flatten)]
    pub numbers: Difference,
    /// The measure of the work, where that differs too, so that this one follows from it at least in part.
    pub follows_from: Option<&'static str>,
}

/// A unit that differs from its like.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Unlike {
    /// The server's name.
    pub server: String,
    /// The engine, where it is one of several or a rank's.
    pub engine: Option<String>,
    /// The rank.
    pub rank: Option<String>,
    /// Its kind.
    pub group: Group,
    /// What it was compared with, in words.
    pub like: &'static str,
    /// In what, the plainest first.
    pub differs: Vec<InWhat>,
    /// With one peer only, the metrics cannot tell which of both is off.
    pub one_peer: bool,
    /// Tokens a second that it loses; `None` where the metrics do not tell.
    pub lost_tokens_per_sec: Option<f64>,
    /// What that number is, or why there is none.
    pub cost: String,
}

/// A finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Finding {
    /// One differs from its like.
    Peer(Unlike),
    /// A fault of several, as `explain` names it.
    Rule(Fault),
}

impl Finding {
    /// Tokens a second that are lost.
    pub fn lost(&self) -> Option<f64> {
        match self {
            Self::Peer(unlike) => unlike.lost_tokens_per_sec,
            Self::Rule(fault) => fault.lost_tokens_per_sec,
        }
    }

    /// Seconds that are lost in each second, where that is all that is known.
    fn lost_time(&self) -> Option<f64> {
        match self {
            Self::Peer(_) => None,
            Self::Rule(fault) => fault.lost_sec_per_sec,
        }
    }
}

/// A diagnosis.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Diagnosis {
    /// End of the window, by the engine's clock, in seconds since 1970.
    pub at: f64,
    /// Its length.
    pub window_sec: f64,
    /// Pieces into which it was cut.
    pub pieces: u32,
    /// What was found, what loses most tokens first, then what loses most time; what has no known cost comes last.
    pub findings: Vec<Finding>,
    /// Servers that were looked at.
    pub judged: usize,
    /// Servers that have no like to be compared with.
    pub alone: Vec<String>,
    /// Servers that could not be judged, and why.
    pub not_judged: BTreeMap<String, String>,
    /// Agents that are not well, and why.
    pub agents: BTreeMap<String, String>,
    /// Rules of `explain` that found nothing, and on how many servers they were judged.
    pub rules_nothing_wrong: BTreeMap<String, usize>,
    /// Rules of `explain` that could not be judged on some servers, and why.
    pub rules_not_judged: Vec<NotJudged>,
    /// Servers whose agents tell of no rule: older ones, or before their first window is over.
    pub rules_untold: Vec<String>,
    /// What limits the answer.
    pub notes: Vec<String>,
}

/// A unit's values over the window, by the ids of their measures.
type Story = BTreeMap<&'static str, Values>;
/// Values by unit, measure and piece.
type Stories = BTreeMap<Subject, Story>;

fn stories(measured: &Measured, span: Span) -> Stories {
    let mut all = Stories::new();
    for measure in MEASURES {
        for series in measured
            .get(measure.id)
            .into_iter()
            .flat_map(|answer| &answer.series)
        {
            let label = |name: &str| {
                let kept = measure.scope.labels().contains(&name);
                kept.then(|| series.label(name).to_owned())
            };
            let subject = Subject {
                server: key(series, measure.scope),
                engine: label("engine"),
                rank: label("rank"),
            };
            let values = all
                .entry(subject)
                .or_default()
                .entry(measure.id)
                .or_insert_with(|| vec![None; span.pieces as usize]);
            for &(at, value) in &series.points {
                if let Some(slot) = span.piece(at).and_then(|piece| values.get_mut(piece)) {
                    *slot = Some(value);
                }
            }
        }
    }
    all
}

impl Diagnosis {
    /// Judges the measures of a span, with what the agents found in it.
    pub fn of(fleet: &Fleet, measured: &Measured, verdicts: &Verdicts, span: Span) -> Self {
        let stories = stories(measured, span);
        let mut diagnosis = Self {
            at: span.end,
            window_sec: span.step.as_secs_f64() * f64::from(span.pieces),
            pieces: span.pieces,
            notes: measured
                .values()
                .flat_map(|answer| &answer.warnings)
                .chain(verdicts.warnings())
                .cloned()
                .collect(),
            ..Self::default()
        };
        diagnosis.notes.extend(fleet.notes.clone());
        diagnosis.notes.sort_unstable();
        diagnosis.notes.dedup();
        let judged = diagnosis.sort_out(fleet, &stories);
        for (subjects, server, like) in sets(&stories, &judged) {
            diagnosis.compare(&subjects, &server, like, &stories);
        }
        diagnosis.faults(&judged, verdicts);
        diagnosis.findings.sort_by(|one, two| {
            let by = |of: fn(&Finding) -> Option<f64>| {
                let lost = |finding| of(finding).unwrap_or(-1.0);
                lost(two).total_cmp(&lost(one))
            };
            by(Finding::lost).then_with(|| by(Finding::lost_time))
        });
        diagnosis
    }

    /// Names what cannot be judged, and gives the servers that can.
    fn sort_out<'a>(&mut self, fleet: &'a Fleet, stories: &Stories) -> BTreeMap<Key, &'a Server> {
        let mut judged = BTreeMap::new();
        let mut sizes: BTreeMap<Group, usize> = BTreeMap::new();
        for server in &fleet.servers {
            let subject = Subject {
                server: server.key.clone(),
                engine: None,
                rank: None,
            };
            let told = stories.get(&subject).and_then(|story| story.get(TOKENS));
            let told = told.map_or(0, |values| values.iter().flatten().count());
            let why = if !server.state.tells() {
                Some(server.state.words())
            } else if server.attached == Some(false) {
                Some("not attached: `profilemate doctor` on its node says why".to_owned())
            } else if told < peer::LEAST_PIECES {
                Some(format!(
                    "tokens were told for {told} of {} pieces of the window",
                    self.pieces
                ))
            } else {
                None
            };
            if let Some(why) = why {
                self.not_judged.insert(server.name(), why);
                continue;
            }
            *sizes.entry(server.group()).or_default() += 1;
            judged.insert(server.key.clone(), server);
        }
        self.judged = judged.len();
        let alone = judged
            .values()
            .filter(|one| sizes.get(&one.group()) == Some(&1));
        self.alone = alone.map(|one| one.name()).collect();
        for agent in fleet.agents.iter().filter(|agent| !agent.is_well()) {
            self.agents
                .insert(agent.instance.clone(), super::text::trouble(agent));
        }
        judged
    }

    /// Compares each of a set with the others.
    fn compare(
        &mut self,
        set: &[&Subject],
        servers: &BTreeMap<&Key, &Server>,
        like: Scope,
        stories: &Stories,
    ) {
        let all = differences(set, like, stories);
        for (&subject, differs) in set.iter().zip(all) {
            let Some(server) = servers.get(&subject.server) else {
                continue;
            };
            if differs.is_empty() {
                continue;
            }
            let one_peer = set.len() == 2;
            // Of two, the one that is worse, or has more, is told; the other differs by as much the other way.
            let other_way = differs.iter().all(|one| match one.worse {
                Some(worse) => !worse,
                None => one.numbers.difference < 0.0,
            });
            if one_peer && other_way {
                continue;
            }
            let (lost, cost) = cost(subject, &differs, stories);
            self.findings.push(Finding::Peer(Unlike {
                server: server.name(),
                engine: subject.engine.clone(),
                rank: subject.rank.clone(),
                group: server.group(),
                like: like.like(),
                differs,
                one_peer,
                lost_tokens_per_sec: lost,
                cost,
            }));
        }
    }

    /// The rules, as the agents judged them.
    fn faults(&mut self, judged: &BTreeMap<Key, &Server>, verdicts: &Verdicts) {
        let peers = self.findings.iter().filter_map(|finding| match finding {
            Finding::Peer(unlike) => unlike.rank.as_ref().map(|_| unlike.server.clone()),
            Finding::Rule(_) => None,
        });
        let lagging: BTreeSet<String> = peers.collect();
        let told = rule::judge(verdicts, judged, &lagging);
        self.findings
            .extend(told.faults.into_iter().map(Finding::Rule));
        self.rules_nothing_wrong = told.nothing_wrong;
        self.rules_not_judged = told.not_judged;
        self.rules_untold = told.untold;
    }
}

/// What the units of a set have in common: scope, kind, and the server and engine that they are of.
type Alike<'a> = (Scope, Group, Option<(&'a Key, &'a str)>);
type Set<'a> = (Vec<&'a Subject>, BTreeMap<&'a Key, &'a Server>, Scope);

/// Units that are alike: servers of a kind, engines of a server, ranks of an engine.
fn sets<'a>(stories: &'a Stories, judged: &'a BTreeMap<Key, &'a Server>) -> Vec<Set<'a>> {
    let mut sets: BTreeMap<Alike<'a>, Set<'a>> = BTreeMap::new();
    for subject in stories.keys() {
        let Some((key, server)) = judged.get_key_value(&subject.server) else {
            continue;
        };
        let (scope, within) = match (&subject.engine, &subject.rank) {
            (None, _) => (Scope::Server, None),
            (Some(_), None) => (Scope::Engine, Some((key, ""))),
            (Some(engine), Some(_)) => (Scope::Rank, Some((key, engine.as_str()))),
        };
        let set = sets
            .entry((scope, server.group(), within))
            .or_insert_with(|| (Vec::new(), BTreeMap::new(), scope));
        set.0.push(subject);
        set.1.insert(key, server);
    }
    sets.into_values().filter(|set| set.0.len() > 1).collect()
}

/// In what each of a set differs from the others.
fn differences(set: &[&Subject], like: Scope, stories: &Stories) -> Vec<Vec<InWhat>> {
    let told: Vec<Option<&Story>> = set.iter().map(|&subject| stories.get(subject)).collect();
    let mut differs: Vec<Vec<InWhat>> = vec![Vec::new(); set.len()];
    let measures = MEASURES.iter();
    for measure in measures.filter(|one| one.compared && one.scope == like) {
        let units: Vec<Option<&Values>> =
            told.iter().map(|story| (*story)?.get(measure.id)).collect();
        let matters = Matters {
            part: measure.part,
            least: measure.least,
        };
        for (differs, numbers) in differs.iter_mut().zip(peer::compare(&units, matters)) {
            let Some(numbers) = numbers.filter(|one| one.named) else {
                continue;
            };
            let given = measure
                .given
                .filter(|id| differs.iter().any(|one| one.measure == *id));
            differs.push(InWhat {
                measure: measure.id,
                title: measure.title,
                unit: measure.unit,
                worse: is_worse(measure, numbers.difference),
                numbers,
                follows_from: given,
            });
        }
    }
    differs
}

fn is_worse(measure: &Measure, difference: f64) -> Option<bool> {
    match measure.worse {
        Worse::Higher => Some(difference > 0.0),
        Worse::Lower => Some(difference < 0.0),
        Worse::Neither => None,
    }
}

/// What a difference costs. Several of one unit overlap, so the largest counts.
fn cost(subject: &Subject, differs: &[InWhat], stories: &Stories) -> (Option<f64>, String) {
    let level = |subject: &Subject, id: &str| middle(stories.get(subject)?.get(id)?);
    let whole = Subject {
        engine: None,
        rank: None,
        ..subject.clone()
    };
    let tokens = level(&whole, TOKENS);
    let waiting = level(&whole, WAITING);
    let mut costs: Vec<(f64, &'static str)> = Vec::new();
    let mut why = "other work, not lost work";
    for one in differs.iter().filter(|one| one.follows_from.is_none()) {
        let numbers = &one.numbers;
        if one.worse == Some(true) {
            why = "not told by metrics";
        }
        let lost = match (one.measure, tokens) {
            (STEP, Some(tokens)) if one.worse == Some(true) => {
                if waiting.is_none_or(|waiting| waiting < 1.0) {
                    why = "no requests wait there: each takes longer, none is lost";
                    continue;
                }
                let more = tokens * (numbers.value / numbers.peers_value - 1.0);
                (
                    more,
                    "more, had its steps taken as long as those of its like",
                )
            }
            (TOKENS, _) if numbers.difference < 0.0 && waiting.is_some_and(|one| one >= 1.0) => (
                -numbers.difference,
                "fewer than its like, while requests wait",
            ),
            (FORWARD, Some(tokens)) if one.worse == Some(true) => {
                let Some(step) = level(&whole, STEP).filter(|step| *step > 0.0) else {
                    continue;
                };
                let late = (numbers.difference / step).min(1.0);
                (tokens * late, "that the other ranks wait for it, at most")
            }
            (PREEMPTIONS, _) if one.worse == Some(true) => match level(&whole, RECOMPUTED) {
                Some(rate) => (rate, "computed again after preemptions"),
                None => continue,
            },
            (PADDING, _) if one.worse == Some(true) => {
                let id = super::measure::PADDING_TOKENS;
                let Some(rate) = level(&whole, id).filter(|_| numbers.value > 0.0) else {
                    continue;
                };
                (
                    rate * numbers.difference / numbers.value,
                    "padding above that of its like",
                )
            }
            _ => continue,
        };
        costs.push(lost);
    }
    costs.retain(|cost| cost.0.is_finite() && cost.0 >= 0.0);
    costs.sort_by(|one, two| two.0.total_cmp(&one.0));
    match costs.first() {
        Some((lost, what)) => (Some(rounded(*lost)), format!("tokens/s: {what}")),
        None if differs.iter().all(|one| one.follows_from.is_some()) => {
            (None, "follows from other work".to_owned())
        }
        None => (None, why.to_owned()),
    }
}
