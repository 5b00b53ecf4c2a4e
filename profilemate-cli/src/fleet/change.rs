//! Two times of a fleet compared: which servers came, went or changed, and what is different for each model. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use super::api::Span;
use super::gather::Measured;
use super::inventory::{Fleet, Key, Server, key};
use super::measure::{MEASURES, Measure, Scope, Unit, Worse};
use super::peer::{Values, median};
use crate::compare::interval::welch;

/// Probability with which all intervals together hold.
const CONFIDENCE: f64 = 0.95;

/// A measure of the servers of a model, at both times.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Changed {
    /// The measure's id.
    pub measure: &'static str,
    /// In words.
    pub title: &'static str,
    /// How it is shown.
    #[serde(skip)]
    pub unit: Unit,
    /// Mean over the window of the servers' median, at the first time.
    pub before: f64,
    /// At the second.
    pub after: f64,
    /// Confidence interval of the difference.
    pub interval: [f64; 2],
    /// Whether that is better; `None` where it is only other work.
    pub better: Option<bool>,
}

/// A model at both times.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ModelChange {
    /// The model.
    pub model: String,
    /// Versions of vLLM at the first time, with how many servers.
    pub versions_before: BTreeMap<String, usize>,
    /// At the second.
    pub versions_after: BTreeMap<String, usize>,
    /// What differs by more than noise.
    pub changed: Vec<Changed>,
    /// What was compared and differs by no more than noise.
    pub same: Vec<&'static str>,
    /// What could not be compared, for lack of values at one of both times.
    pub not_compared: Vec<&'static str>,
}

/// Two times compared.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Change {
    /// Ends of the two windows, in seconds since 1970.
    pub at: [f64; 2],
    /// Their length.
    pub window_sec: f64,
    /// Servers that tell only at the second time.
    pub came: Vec<String>,
    /// Servers that told only at the first.
    pub went: Vec<String>,
    /// Servers whose model or version is another, as before and after.
    pub replaced: BTreeMap<String, [String; 2]>,
    /// Each model that has servers at both times.
    pub models: Vec<ModelChange>,
    /// What limits the answer.
    pub notes: Vec<String>,
}

/// One of the two times.
#[derive(Clone, Copy, Debug)]
pub struct Time<'a> {
    /// Who was there.
    pub fleet: &'a Fleet,
    /// What was measured.
    pub measured: &'a Measured,
    /// Over which span.
    pub span: Span,
}

impl Change {
    /// Compares two times.
    pub fn of(before: Time<'_>, after: Time<'_>) -> Self {
        let one = telling(before.fleet);
        let two = telling(after.fleet);
        let only = |a: &BTreeMap<&Key, &Server>, b: &BTreeMap<&Key, &Server>| {
            let gone = a.iter().filter(|(key, _)| !b.contains_key(*key));
            gone.map(|(_, server)| server.name()).collect::<Vec<_>>()
        };
        let replaced = one.iter().filter_map(|(key, was)| {
            let is = two.get(key)?;
            let change = [was.group().to_string(), is.group().to_string()];
            (was.group() != is.group()).then(|| (is.name(), change))
        });
        let models: Vec<String> = models(&one)
            .into_keys()
            .filter(|model| models(&two).contains_key(model))
            .collect();
        let warned = before.measured.values().chain(after.measured.values());
        let mut notes: Vec<String> = warned.flat_map(|answer| answer.warnings.clone()).collect();
        notes.extend(before.fleet.notes.iter().chain(&after.fleet.notes).cloned());
        notes.sort_unstable();
        notes.dedup();
        Self {
            at: [before.span.end, after.span.end],
            window_sec: after.span.step.as_secs_f64() * f64::from(after.span.pieces),
            came: only(&two, &one),
            went: only(&one, &two),
            replaced: replaced.collect(),
            models: models
                .iter()
                .map(|model| model_change(model, (before, &one), (after, &two)))
                .collect(),
            notes,
        }
    }
}

fn telling(fleet: &Fleet) -> BTreeMap<&Key, &Server> {
    let servers = fleet.servers.iter().filter(|server| server.state.tells());
    servers.map(|server| (&server.key, server)).collect()
}

/// Models, with how many servers of which version.
fn models(servers: &BTreeMap<&Key, &Server>) -> BTreeMap<String, BTreeMap<String, usize>> {
    let mut models: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for server in servers.values() {
        let versions = models.entry(server.model.clone()).or_default();
        *versions.entry(server.version.clone()).or_default() += 1;
    }
    models
}

type Side<'a> = (Time<'a>, &'a BTreeMap<&'a Key, &'a Server>);

fn model_change(model: &str, before: Side<'_>, after: Side<'_>) -> ModelChange {
    let mut change = ModelChange {
        model: model.to_owned(),
        versions_before: models(before.1).remove(model).unwrap_or_default(),
        versions_after: models(after.1).remove(model).unwrap_or_default(),
        ..ModelChange::default()
    };
    let compared = MEASURES
        .iter()
        .filter(|one| one.compared && one.scope == Scope::Server);
    // Bonferroni: the chance that any of them is wrong.
    let alpha = (1.0 - CONFIDENCE) / compared.clone().count() as f64;
    for measure in compared {
        let one = course(model, measure, before);
        let two = course(model, measure, after);
        let Some(interval) = welch(&one, &two, alpha) else {
            change.not_compared.push(measure.id);
            continue;
        };
        let (mean_one, mean_two) = (mean(&one), mean(&two));
        let difference = mean_two - mean_one;
        let sure = interval.low > 0.0 || interval.high < 0.0;
        let matters = (measure.part * mean_one.abs()).max(measure.least);
        if !sure || difference.abs() < matters {
            change.same.push(measure.id);
            continue;
        }
        change.changed.push(Changed {
            measure: measure.id,
            title: measure.title,
            unit: measure.unit,
            before: mean_one,
            after: mean_two,
            interval: [interval.low, interval.high],
            better: match measure.worse {
                Worse::Higher => Some(difference < 0.0),
                Worse::Lower => Some(difference > 0.0),
                Worse::Neither => None,
            },
        });
    }
    change
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The median of a model's servers, for each piece that has one.
fn course(model: &str, measure: &Measure, (time, servers): Side<'_>) -> Vec<f64> {
    let mut pieces: Vec<Vec<f64>> = vec![Vec::new(); time.span.pieces as usize];
    let answer = time.measured.get(measure.id);
    for series in answer.into_iter().flat_map(|answer| &answer.series) {
        let server = servers.get(&key(series, Scope::Server));
        if server.is_none_or(|server| server.model != model) {
            continue;
        }
        for &(at, value) in &series.points {
            if let Some(piece) = time.span.piece(at).and_then(|piece| pieces.get_mut(piece)) {
                piece.push(value);
            }
        }
    }
    let medians: Values = pieces.iter_mut().map(|piece| median(piece)).collect();
    medians.into_iter().flatten().collect()
}
