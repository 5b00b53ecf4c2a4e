//! A finding: what is wrong, the rows that show it, what it costs, what to change.

use std::collections::BTreeMap;

use serde::Serialize;

use super::facts::{Facts, Span};
use super::rule::Rule;
use crate::sink::summary::rounded;

/// Rows that show a fault.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evidence {
    /// Table, the file name without `.csv`.
    pub table: &'static str,
    /// Rows that show it.
    pub rows: u64,
    /// The first of them, in seconds since the session's start.
    pub first_sec: Option<f64>,
    /// The last.
    pub last_sec: Option<f64>,
    /// What they show.
    pub text: String,
    /// The numbers behind it.
    pub numbers: BTreeMap<&'static str, f64>,
}

impl Evidence {
    /// The rows of `span` of a table.
    pub fn new(table: &'static str, span: &Span, text: impl Into<String>) -> Self {
        Self {
            table,
            rows: span.rows,
            first_sec: span.first_sec.map(rounded),
            last_sec: span.last_sec.map(rounded),
            text: text.into(),
            numbers: BTreeMap::new(),
        }
    }

    /// Adds a number; one that is not known is left out.
    #[must_use]
    pub fn number(mut self, name: &'static str, value: impl Into<Option<f64>>) -> Self {
        if let Some(value) = value.into().filter(|value| value.is_finite()) {
            self.numbers.insert(name, rounded(value));
        }
        self
    }
}

/// What a fault costs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Lost tokens a second; beside lost time, what is made in so much time.
    pub tokens_per_sec: Option<f64>,
    /// Lost time, over the whole session.
    pub milliseconds: Option<f64>,
    /// What the number is, or why there is none.
    pub text: String,
}

impl Cost {
    /// Lost time.
    pub fn milliseconds(value: f64, text: impl Into<String>) -> Self {
        Self {
            milliseconds: Some(rounded(value)),
            text: text.into(),
            ..Self::default()
        }
    }

    /// Lost throughput.
    pub fn tokens_per_sec(value: f64, text: impl Into<String>) -> Self {
        Self {
            tokens_per_sec: Some(rounded(value)),
            text: text.into(),
            ..Self::default()
        }
    }

    /// Lost time of the server's steps, and the tokens that it makes in so much time. `side_by_side`: over how many that
    /// work side by side the time is summed.
    pub fn steps(facts: &Facts, value: f64, side_by_side: usize, text: impl Into<String>) -> Self {
        let tokens = facts.tokens_per_sec();
        let part = facts.busy_sec().map(|busy| {
            let lost = value / 1e3 / side_by_side.max(1) as f64;
            (lost / busy).clamp(0.0, 1.0)
        });
        Self {
            tokens_per_sec: tokens
                .zip(part)
                .map(|(tokens, part)| rounded(tokens * part)),
            ..Self::milliseconds(value, text)
        }
    }

    /// A cost that the tables do not tell.
    pub fn unknown(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }
}

/// Something to change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Option of `vllm serve`.
    pub option: &'static str,
    /// Its value, where one follows from the session.
    pub value: Option<String>,
    /// Why, and what it costs.
    pub why: String,
}

impl Change {
    /// A change without a value.
    pub fn new(option: &'static str, why: impl Into<String>) -> Self {
        Self {
            option,
            value: None,
            why: why.into(),
        }
    }

    /// Adds the value.
    #[must_use]
    pub fn to(mut self, value: impl Into<String>) -> Self {
        self.value = Some(value.into());
        self
    }
}

/// What a rule found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// In one sentence.
    pub title: String,
    /// The rows that show it; never empty.
    pub evidence: Vec<Evidence>,
    /// What it costs.
    pub cost: Cost,
    /// What to change.
    pub changes: Vec<Change>,
}

impl Found {
    pub(super) fn by(self, rule: &Rule) -> Finding {
        Finding {
            rule: rule.id,
            title: self.title,
            evidence: self.evidence,
            cost: self.cost,
            changes: self.changes,
        }
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// The rule's id.
    pub rule: &'static str,
    /// In one sentence.
    pub title: String,
    /// The rows that show it; never empty.
    pub evidence: Vec<Evidence>,
    /// What it costs.
    pub cost: Cost,
    /// What to change.
    pub changes: Vec<Change>,
}
