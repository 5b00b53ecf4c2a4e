//! The rules of `explain` over a whole fleet: what the agents found on each server, put together. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::api::Answer;
use super::inventory::{Group, Key, Server, key};
use super::measure::Scope;
use super::verdict::Verdicts;
use crate::explain::rule::{RULES, Rule};
use crate::sink::summary::rounded;

/// The rule that peers tell too: with the rank's name.
const RANK_LAG: &str = "rank_lag";

/// A fault of some servers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fault {
    /// The rule's id, as in `explain`.
    pub rule: String,
    /// What it looks for.
    pub title: String,
    /// Servers that have it, the worst first.
    pub servers: Vec<Sick>,
    /// On how many servers the rule was judged.
    pub judged: usize,
    /// Tokens a second that all of them lose; `None` where nothing tells.
    pub lost_tokens_per_sec: Option<f64>,
    /// Seconds that they lose in each second, summed over requests or processes; `None` where nothing tells.
    pub lost_sec_per_sec: Option<f64>,
    /// Options of `vllm serve` to change.
    pub options: &'static [&'static str],
}

/// A server that has a fault.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sick {
    /// Its name.
    pub server: String,
    /// Its kind.
    pub group: Group,
    /// Part of the time in which the rule was judged and found it.
    pub share: f64,
    /// Whether it is found now.
    pub now: bool,
    /// Tokens a second that it loses, over all the time in which the rule was judged.
    pub lost_tokens_per_sec: Option<f64>,
    /// Seconds that it loses in each second.
    pub lost_sec_per_sec: Option<f64>,
}

/// A rule that could not be judged on some servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotJudged {
    /// The rule's id.
    pub rule: String,
    /// Why.
    pub reason: String,
    /// On which servers.
    pub servers: Vec<String>,
}

/// What the rules say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judged {
    /// What was found.
    pub faults: Vec<Fault>,
    /// Rules that found nothing, and on how many servers they were judged.
    pub nothing_wrong: BTreeMap<String, usize>,
    /// Rules that could not be judged.
    pub not_judged: Vec<NotJudged>,
    /// Servers of which no rule is told at all.
    pub untold: Vec<String>,
}

/// Values by server and rule.
type ByRule<'a> = BTreeMap<(Key, &'a str), f64>;

fn by_rule(answer: &Answer) -> ByRule<'_> {
    let one = |series| {
        let of = key(series, Scope::Server);
        Some(((of, series.label("rule")), series.last()?))
    };
    answer.series.iter().filter_map(one).collect()
}

/// Puts together what was found on the servers that are judged. `lagging`: those of which peers tell a rank that lags.
pub fn judge(
    verdicts: &Verdicts,
    servers: &BTreeMap<Key, &Server>,
    lagging: &BTreeSet<String>,
) -> Judged {
    let all = Told {
        found: by_rule(&verdicts.found),
        now: by_rule(&verdicts.now),
        tokens: by_rule(&verdicts.tokens),
        time: by_rule(&verdicts.time),
        reasons: reasons(&verdicts.not_judged),
    };
    // A newer agent may know more rules.
    let known = RULES.iter().map(|rule| rule.id);
    let mut ids: Vec<&str> = known.collect();
    let told: BTreeSet<&str> = all.found.keys().map(|(_, id)| *id).collect();
    ids.extend(told.into_iter().filter(|id| rule(id).is_none()));
    let mut judged = Judged::default();
    for id in ids {
        let lagging = lagging.iter().filter(|_| id == RANK_LAG).collect();
        all.one(id, servers, &lagging, &mut judged);
    }
    let found = all.found.keys().map(|(of, _)| of);
    let told: BTreeSet<&Key> = found.chain(all.reasons.keys().map(|(of, _)| of)).collect();
    let untold = servers.iter().filter(|(key, _)| !told.contains(key));
    judged.untold = untold.map(|(_, server)| server.name()).collect();
    judged
}

fn rule(id: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.id == id)
}

fn reasons(answer: &Answer) -> BTreeMap<(Key, &str), &str> {
    let one = |series| {
        let of = key(series, Scope::Server);
        ((of, series.label("rule")), series.label("reason"))
    };
    answer.series.iter().map(one).collect()
}

struct Told<'a> {
    found: ByRule<'a>,
    now: ByRule<'a>,
    tokens: ByRule<'a>,
    time: ByRule<'a>,
    reasons: BTreeMap<(Key, &'a str), &'a str>,
}

impl<'a> Told<'a> {
    fn one(
        &self,
        id: &'a str,
        servers: &BTreeMap<Key, &Server>,
        lagging: &BTreeSet<&String>,
        judged: &mut Judged,
    ) {
        let (mut looked, mut elsewhere) = (0, false);
        let mut sick = Vec::new();
        let mut blind: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (key, server) in servers {
            let of = (key.clone(), id);
            match (self.found.get(&of), self.reasons.get(&of)) {
                (Some(share), _) => {
                    looked += 1;
                    if *share > 0.0 && lagging.contains(&server.name()) {
                        elsewhere = true;
                    } else if *share > 0.0 {
                        sick.push(self.sick(&of, server, *share));
                    }
                }
                (None, Some(reason)) => blind.entry(reason).or_default().push(server.name()),
                (None, None) => {}
            }
        }
        for (reason, servers) in blind {
            judged.not_judged.push(NotJudged {
                rule: id.to_owned(),
                reason: reason.to_owned(),
                servers,
            });
        }
        match (looked, sick.is_empty()) {
            (0, _) => {}
            (_, true) if elsewhere => {}
            (_, true) => {
                judged.nothing_wrong.insert(id.to_owned(), looked);
            }
            (_, false) => judged.faults.push(fault(id, sick, looked)),
        }
    }

    /// Costs are told while a fault is found only: its part of the time makes them those of all the time.
    fn sick(&self, of: &(Key, &'a str), server: &Server, share: f64) -> Sick {
        let lost = |told: &ByRule<'a>| told.get(of).map(|mean| rounded(mean * share));
        Sick {
            server: server.name(),
            group: server.group(),
            share: rounded(share),
            now: self.now.get(of).is_some_and(|now| *now > 0.5),
            lost_tokens_per_sec: lost(&self.tokens),
            lost_sec_per_sec: lost(&self.time),
        }
    }
}

fn fault(id: &str, mut servers: Vec<Sick>, judged: usize) -> Fault {
    let by = |sick: &Sick| {
        let lost = sick.lost_tokens_per_sec.unwrap_or(-1.0);
        (lost, sick.lost_sec_per_sec.unwrap_or(-1.0), sick.share)
    };
    servers.sort_by(|one, two| {
        let order = by(two).partial_cmp(&by(one));
        order.unwrap_or(std::cmp::Ordering::Equal)
    });
    let sum = |of: fn(&Sick) -> Option<f64>| {
        let lost: Vec<f64> = servers.iter().filter_map(of).collect();
        (!lost.is_empty()).then(|| rounded(lost.iter().sum()))
    };
    let rule = rule(id);
    Fault {
        rule: id.to_owned(),
        title: rule
            .map_or("a rule that a newer agent knows", |rule| rule.doc)
            .to_owned(),
        judged,
        lost_tokens_per_sec: sum(|one| one.lost_tokens_per_sec),
        lost_sec_per_sec: sum(|one| one.lost_sec_per_sec),
        options: rule.map_or(&[], |rule| rule.options),
        servers,
    }
}
