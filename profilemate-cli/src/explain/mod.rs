//! What is wrong with a server, as far as a session shows it: findings with evidence, cost, and what to change.
//!
//! [`facts`] gathers what the tables say, [`rule::RULES`] says what is a fault. A finding without evidence is not made,
//! and a rule whose tables were not observed is named as not judged.

pub mod facts;
pub mod finding;
pub mod rule;
pub mod sizes;
pub mod text;

use std::collections::BTreeMap;

use serde::Serialize;

pub use facts::Facts;
pub use finding::{Change, Cost, Evidence, Finding, Found};

use crate::recorded::{self, Session};
use crate::table::AnyRow;
use rule::{RULES, Rule};

/// How far a table tells what happened, as far as the rules ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cover {
    /// For each table (file name without `.csv`) that cannot be judged by: why.
    pub blind: BTreeMap<String, String>,
}

impl Cover {
    /// Takes what is said of a table: a status of [`crate::aggregate::coverage::Status`] in words, and the reason.
    pub fn add(&mut self, table: &str, status: &str, reason: &str) {
        if matches!(status, "not_observable" | "not_applicable") {
            self.blind.insert(table.to_owned(), reason.to_owned());
        }
    }
}

/// What a rule looks at.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// What was gathered.
    pub facts: &'a Facts,
    /// The rule itself, for its limits.
    pub rule: &'a Rule,
}

impl Case<'_> {
    /// A limit of the rule; without it nothing is a fault.
    pub fn limit(&self, name: &str) -> f64 {
        let limit = self.rule.limits.iter().find(|limit| limit.name == name);
        limit.map_or(f64::INFINITY, |limit| limit.value)
    }
}

/// A rule that could not be judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotJudged {
    /// The rule's id.
    pub rule: &'static str,
    /// Why.
    pub reason: String,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Explanation {
    /// What is wrong, in the order of [`RULES`].
    pub findings: Vec<Finding>,
    /// Rules that were looked at, and saw nothing wrong.
    pub nothing_wrong: Vec<&'static str>,
    /// Rules that could not be judged.
    pub not_judged: Vec<NotJudged>,
    /// What limits the answer, in plain words.
    pub notes: Vec<String>,
}

impl Explanation {
    /// Judges what was gathered. `lost`: records that did not arrive.
    pub fn of(facts: &Facts, cover: &Cover, lost: Option<u64>) -> Self {
        let mut explanation = Self::default();
        for rule in RULES {
            if let Some(reason) = blind(rule, facts, cover) {
                explanation.not_judged.push(NotJudged {
                    rule: rule.id,
                    reason,
                });
                continue;
            }
            match (rule.check)(&Case { facts, rule }) {
                Some(found) => explanation.findings.push(found.by(rule)),
                None => explanation.nothing_wrong.push(rule.id),
            }
        }
        if let Some(lost) = lost.filter(|lost| *lost > 0) {
            explanation.notes.push(format!(
                "{lost} records were lost: counts and costs are lower bounds (try a larger --ring-size)"
            ));
        }
        explanation
    }

    /// Judges a session folder.
    pub fn of_session(session: &Session) -> Result<Self, recorded::Error> {
        Self::watching(session, &mut |_| {})
    }

    /// Judges a session folder, and gives every row to `each` too, so that the folder is read once.
    pub fn watching(
        session: &Session,
        each: &mut dyn FnMut(&AnyRow),
    ) -> Result<Self, recorded::Error> {
        let mut facts = Facts::default();
        let notes = session.each(&mut |row| {
            facts.row(row, &|pid| session.metadata.engine_of(pid));
            each(row);
        })?;
        facts.finish();
        let mut cover = Cover::default();
        for (table, entry) in session.metadata.tables.iter().flatten() {
            if let Some(coverage) = &entry.coverage {
                cover.add(table, &coverage.status, &coverage.reason);
            }
        }
        let mut explanation = Self::of(&facts, &cover, session.metadata.lost());
        explanation.notes.extend(notes);
        Ok(explanation)
    }
}

/// Why a rule cannot be judged; `None` if it can.
fn blind(rule: &Rule, facts: &Facts, cover: &Cover) -> Option<String> {
    for need in rule.needs {
        if (need.seen)(facts, cover) {
            continue;
        }
        let reason = cover.blind.get(need.table);
        let reason = reason.map(String::as_str).filter(|text| !text.is_empty());
        return Some(match reason {
            Some(reason) => format!("{}: {reason}", need.table),
            None => format!("{} has {}", need.table, need.missing),
        });
    }
    None
}

#[cfg(test)]
mod tests;
