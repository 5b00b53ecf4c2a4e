//! The rules of `explain` that can be judged by metrics, over all servers of a kind. Limits and options are those of
//! [`crate::explain::rule`].

use std::collections::BTreeMap;

use serde::Serialize;

use super::inventory::Group;
use super::measure::{
    GRAPHS, KV, PADDING, PADDING_TOKENS, PREEMPTIONS, RECOMPUTED, REQUESTS, TOKENS, WAITING,
};
use super::peer::{Values, middle};
use crate::explain::facts::cache::FULL_PCT;
use crate::explain::rule::{RULES, Rule};
use crate::sink::summary::rounded;

/// Rules that metrics tell; the others need the rows of a session.
pub const JUDGED: [&str; 4] = [
    "graph_padding",
    "graphs_unused",
    "kv_pool_small",
    "preemption_thrash",
];

/// A server's values over the window, by the ids of their measures.
pub type Story = BTreeMap<&'static str, Values>;

/// A fault of some servers of a kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fault {
    /// The rule's id, as in `explain`.
    pub rule: &'static str,
    /// Their kind.
    pub group: Group,
    /// In one sentence.
    pub title: String,
    /// Servers that have it, the worst first.
    pub servers: Vec<Sick>,
    /// How many servers of the kind were judged.
    pub judged: usize,
    /// Tokens a second that all of them lose; `None` where the metrics do not tell.
    pub lost_tokens_per_sec: Option<f64>,
    /// What that number is, or why there is none.
    pub cost: &'static str,
    /// Options of `vllm serve` to change.
    pub options: &'static [&'static str],
}

/// A server that has a fault.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sick {
    /// Its name.
    pub server: String,
    /// How much of what the rule limits.
    pub value: f64,
    /// Tokens a second that it loses.
    pub lost_tokens_per_sec: Option<f64>,
}

/// What a rule says of one server: the value that its limit is for, and the cost.
type Verdict = (f64, Option<f64>);

struct Check {
    id: &'static str,
    title: &'static str,
    cost: &'static str,
    limit: &'static str,
    see: fn(&Story) -> Option<Verdict>,
}

const CHECKS: [Check; 4] = [
    Check {
        id: JUDGED[0],
        title: "of what CUDA graphs compute is padding",
        cost: "padding, computed and thrown away",
        limit: "padding_pct",
        see: |story| Some((100.0 * level(story, PADDING)?, level(story, PADDING_TOKENS))),
    },
    Check {
        id: JUDGED[1],
        title: "of the passes run without CUDA graphs",
        cost: "not told by metrics; `trace` and `explain` on its node tell it",
        limit: "share_pct",
        see: |story| Some((100.0 * (1.0 - level(story, GRAPHS)?), None)),
    },
    Check {
        id: JUDGED[2],
        title: "of the time the KV cache is full, and requests wait",
        cost: "not told by metrics; `trace` and `explain` on its node tell it",
        limit: "share_pct",
        see: full,
    },
    Check {
        id: JUDGED[3],
        title: "preemptions by requests: work is thrown away and done again",
        cost: "computed again",
        limit: "per_request_pct",
        see: thrash,
    },
];

fn level(story: &Story, id: &str) -> Option<f64> {
    middle(story.get(id)?)
}

fn full(story: &Story) -> Option<Verdict> {
    let (usage, waiting) = (story.get(KV)?, story.get(WAITING)?);
    let mut pieces = 0_u32;
    let mut full = 0_u32;
    for (usage, waiting) in usage.iter().zip(waiting) {
        if let (Some(usage), Some(waiting)) = (usage, waiting) {
            pieces += 1;
            full += u32::from(100.0 * usage >= FULL_PCT && *waiting >= 1.0);
        }
    }
    (pieces > 0).then(|| (100.0 * f64::from(full) / f64::from(pieces), None))
}

fn thrash(story: &Story) -> Option<Verdict> {
    let (preemptions, requests) = (level(story, PREEMPTIONS)?, level(story, REQUESTS)?);
    (requests > 0.0).then(|| (100.0 * preemptions / requests, level(story, RECOMPUTED)))
}

fn rule(id: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.id == id)
}

/// Judges all servers of a kind, by name.
pub fn judge(group: &Group, servers: &BTreeMap<String, &Story>) -> Vec<Fault> {
    CHECKS
        .iter()
        .filter_map(|check| fault(check, group, servers))
        .collect()
}

fn fault(check: &Check, group: &Group, servers: &BTreeMap<String, &Story>) -> Option<Fault> {
    let rule = rule(check.id)?;
    let limit = rule
        .limits
        .iter()
        .find(|limit| limit.name == check.limit)?
        .value;
    let mut judged = 0;
    let mut sick = Vec::new();
    for (name, story) in servers {
        // A server without tokens is idle: what its last passes were says nothing.
        if level(story, TOKENS).is_none_or(|tokens| tokens <= 0.0) {
            continue;
        }
        let Some((value, lost)) = (check.see)(story) else {
            continue;
        };
        judged += 1;
        if value >= limit {
            sick.push(Sick {
                server: name.clone(),
                value: rounded(value),
                lost_tokens_per_sec: lost.map(rounded),
            });
        }
    }
    sick.sort_by(|one, two| {
        let by = |sick: &Sick| (sick.lost_tokens_per_sec.unwrap_or(0.0), sick.value);
        by(two)
            .partial_cmp(&by(one))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    let worst = sick.iter().map(|one| one.value).fold(0.0, f64::max);
    let lost: Vec<f64> = sick
        .iter()
        .filter_map(|one| one.lost_tokens_per_sec)
        .collect();
    (!sick.is_empty()).then(|| Fault {
        rule: rule.id,
        group: group.clone(),
        title: format!(
            "{} of {judged} servers: up to {worst:.0} % {}",
            sick.len(),
            check.title
        ),
        lost_tokens_per_sec: (!lost.is_empty()).then(|| rounded(lost.iter().sum())),
        servers: sick,
        judged,
        cost: check.cost,
        options: rule.options,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn story(values: &[(&'static str, f64)]) -> Story {
        values
            .iter()
            .map(|&(id, value)| (id, vec![Some(value); 6]))
            .collect()
    }

    #[test]
    fn limits_and_options_are_those_of_explain() {
        for check in &CHECKS {
            let rule = rule(check.id).unwrap();
            assert!(
                rule.limits.iter().any(|limit| limit.name == check.limit),
                "{}",
                check.id
            );
            assert!(!rule.options.is_empty());
        }
    }

    #[test]
    fn a_fault_names_its_servers_and_sums_what_they_lose() {
        let bad = story(&[(TOKENS, 900.0), (PADDING, 0.4), (PADDING_TOKENS, 300.0)]);
        let worse = story(&[(TOKENS, 900.0), (PADDING, 0.5), (PADDING_TOKENS, 500.0)]);
        let good = story(&[(TOKENS, 900.0), (PADDING, 0.01), (PADDING_TOKENS, 9.0)]);
        let untold = story(&[(TOKENS, 900.0)]);
        let servers = BTreeMap::from([
            ("a".to_owned(), &bad),
            ("b".to_owned(), &worse),
            ("c".to_owned(), &good),
            ("d".to_owned(), &untold),
        ]);
        let faults = judge(&Group::default(), &servers);
        assert_eq!(faults.len(), 1);
        assert_eq!((faults[0].rule, faults[0].judged), ("graph_padding", 3));
        assert_eq!(faults[0].lost_tokens_per_sec, Some(800.0));
        let names: Vec<&str> = faults[0]
            .servers
            .iter()
            .map(|one| one.server.as_str())
            .collect();
        assert_eq!(names, ["b", "a"]);
    }

    #[test]
    fn preemptions_are_held_against_requests_and_a_full_cache_against_waiting() {
        let thrashing = story(&[
            (TOKENS, 10.0),
            (PREEMPTIONS, 0.5),
            (REQUESTS, 2.0),
            (RECOMPUTED, 70.0),
            (KV, 0.99),
            (WAITING, 4.0),
        ]);
        let calm = story(&[
            (TOKENS, 10.0),
            (PREEMPTIONS, 0.01),
            (REQUESTS, 2.0),
            (KV, 0.99),
            (WAITING, 0.0),
        ]);
        let servers = BTreeMap::from([("a".to_owned(), &thrashing), ("b".to_owned(), &calm)]);
        let faults = judge(&Group::default(), &servers);
        let seen: Vec<_> = faults
            .iter()
            .map(|one| (one.rule, one.servers.len()))
            .collect();
        assert_eq!(seen, [("kv_pool_small", 1), ("preemption_thrash", 1)]);
        assert_eq!(faults[1].lost_tokens_per_sec, Some(70.0));
    }

    #[test]
    fn an_idle_server_is_not_judged() {
        let idle = story(&[(TOKENS, 0.0), (GRAPHS, 0.0)]);
        let servers = BTreeMap::from([("a".to_owned(), &idle)]);
        assert_eq!(judge(&Group::default(), &servers), []);
    }
}
