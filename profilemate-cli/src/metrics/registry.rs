//! The numbers themselves: every declared metric, with the series that exist. A series comes with its first value and
//! goes with its server; what is not told has none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, NativeHistogramConfig};
use prometheus_client::registry::{Registry as Exposed, Unit};

use super::declare::{Buckets, Id, Kind, METRICS, Metric};

/// Names and values of a series' labels, in the order of the declaration.
pub type Labels = Vec<(&'static str, String)>;

/// Series of one metric and server, at most. A target decides about some labels, so it could make many.
const SERIES: usize = 1_024;
/// Bytes of a label's value, at most.
const VALUE: usize = 200;
/// Resolution of native histograms: each bucket's bound is 2^(1/8) times the one before, 9 % more.
const SCHEMA: i8 = 3;
/// Buckets of a native histogram, at most: beyond, the resolution is halved.
const NATIVE_BUCKETS: usize = 160;

/// Makes the histograms of one metric.
#[derive(Clone, Copy)]
struct Making(Buckets);

impl MetricConstructor<HistogramWithExemplars<Labels>> for Making {
    fn new_metric(&self) -> HistogramWithExemplars<Labels> {
        HistogramWithExemplars::new(self.0.bounds().iter().copied())
    }
}

impl MetricConstructor<Histogram> for Making {
    fn new_metric(&self) -> Histogram {
        let native = NativeHistogramConfig::with_schema(SCHEMA).max_buckets(NATIVE_BUCKETS);
        Histogram::new_classic_and_native(self.0.bounds().iter().copied(), native)
    }
}

/// The series of one metric.
enum Series {
    Counter(Family<Labels, Counter<f64, AtomicU64>>),
    Gauge(Family<Labels, Gauge<f64, AtomicU64>>),
    Histogram {
        /// Classic buckets with exemplars.
        classic: Family<Labels, HistogramWithExemplars<Labels>, Making>,
        /// Native buckets beside the classic ones.
        native: Family<Labels, Histogram, Making>,
    },
}

/// Somebody who takes the observations too: the OTLP push.
pub trait Also: Send + Sync {
    /// A counter has grown.
    fn add(&self, id: Id, labels: &Labels, by: f64);
    /// A gauge has a new value.
    fn set(&self, id: Id, labels: &Labels, value: f64);
    /// Series that are gone.
    fn forget(&self, id: Id, labels: &Labels);
    /// A value was observed.
    fn observe(&self, id: Id, labels: &Labels, value: f64);
    /// Whether it takes moments.
    fn wants_moments(&self) -> bool;
    /// Something went on for a time.
    fn moment(&self, moment: &Moment);
}

/// Something that went on for a time: a step, a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// What it was.
    pub name: &'static str,
    /// When it began, in nanoseconds since 1970.
    pub begin_unix_ns: u64,
    /// When it ended.
    pub end_unix_ns: u64,
    /// What it belongs to.
    pub labels: Labels,
    /// Its numbers.
    pub numbers: Vec<(&'static str, i64)>,
}

/// All series.
pub struct Registry {
    series: Vec<Series>,
    /// Counters, gauges, and histograms with exemplars.
    pub(super) text: Exposed,
    /// Counters, gauges, and histograms with native buckets.
    pub(super) native: Exposed,
    /// Which series exist, by server; those of the agent itself under the empty name.
    known: Mutex<BTreeMap<String, BTreeSet<(Id, Labels)>>>,
    refused: AtomicU64,
    also: Mutex<Option<Arc<dyn Also>>>,
}

impl Default for Registry {
    fn default() -> Self {
        let (mut text, mut native) = (Exposed::default(), Exposed::default());
        let series = METRICS
            .iter()
            .map(|metric| register(metric, &mut text, &mut native))
            .collect();
        Self {
            series,
            text,
            native,
            known: Mutex::default(),
            refused: AtomicU64::new(0),
            also: Mutex::default(),
        }
    }
}

/// Name without what the exposition adds, and the unit.
fn bare(metric: &Metric) -> (&'static str, Option<Unit>) {
    let name = metric.name.strip_suffix("_total").unwrap_or(metric.name);
    let bare = name
        .strip_suffix(metric.unit)
        .filter(|_| !metric.unit.is_empty());
    match bare.and_then(|name| name.strip_suffix('_')) {
        Some(name) => (name, Some(Unit::Other(metric.unit.to_owned()))),
        None => (name, None),
    }
}

fn register(metric: &Metric, text: &mut Exposed, native: &mut Exposed) -> Series {
    let (name, unit) = bare(metric);
    // The exposition puts a full stop behind it.
    let help = metric.help.trim_end_matches('.');
    macro_rules! put {
        ($registry:expr, $family:expr) => {
            match unit.clone() {
                Some(unit) => $registry.register_with_unit(name, help, unit, $family),
                None => $registry.register(name, help, $family),
            }
        };
    }
    match metric.kind {
        Kind::Counter => {
            let family = Family::<Labels, Counter<f64, AtomicU64>>::default();
            put!(text, family.clone());
            put!(native, family.clone());
            Series::Counter(family)
        }
        Kind::Gauge => {
            let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
            put!(text, family.clone());
            put!(native, family.clone());
            Series::Gauge(family)
        }
        Kind::Histogram(buckets) => {
            let classic = Family::new_with_constructor(Making(buckets));
            let sparse = Family::new_with_constructor(Making(buckets));
            put!(text, classic.clone());
            put!(native, sparse.clone());
            Series::Histogram {
                classic,
                native: sparse,
            }
        }
    }
}

impl Registry {
    /// From now on, `also` takes everything too.
    pub fn set_also(&self, also: Option<Arc<dyn Also>>) {
        *self.also.lock().unwrap_or_else(PoisonError::into_inner) = also;
    }

    fn also(&self) -> Option<Arc<dyn Also>> {
        let also = self.also.lock();
        also.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Series that were refused because there were too many.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The labels of a series of `id` with these values, if it may exist. The first value of a metric with the label
    /// `server` is the server.
    fn labels(&self, id: Id, values: &[&str]) -> Option<Labels> {
        let metric = id.metric();
        debug_assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
        let labels: Labels = metric
            .labels
            .iter()
            .zip(values)
            .map(|(name, value)| (*name, cut(value).to_owned()))
            .collect();
        let server = match labels.first() {
            Some(("server", server)) => server.clone(),
            _ => String::new(),
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let own = known.entry(server).or_default();
        let key = (id, labels);
        if !own.contains(&key) {
            if own.iter().filter(|(other, _)| *other == id).count() >= SERIES {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            own.insert(key.clone());
        }
        Some(key.1)
    }

    /// A counter grows; by 0, it is there. What is no finite number from 0 on is no growth.
    pub fn add(&self, id: Id, values: &[&str], by: f64) {
        let Some(labels) = self.labels(id, values) else {
            return;
        };
        if let Series::Counter(family) = &self.series[id as usize]
            && by.is_finite()
            && by >= 0.0
        {
            family.get_or_create(&labels).inc_by(by);
            if let Some(also) = self.also() {
                also.add(id, &labels, by);
            }
        }
    }

    /// A gauge has this value now.
    pub fn set(&self, id: Id, values: &[&str], value: f64) {
        let Some(labels) = self.labels(id, values) else {
            return;
        };
        if let Series::Gauge(family) = &self.series[id as usize] {
            family.get_or_create(&labels).set(value);
            if let Some(also) = self.also() {
                also.set(id, &labels, value);
            }
        }
    }

    /// A value was observed; `exemplar` names what it belongs to.
    pub fn observe(&self, id: Id, values: &[&str], value: f64, exemplar: Option<Labels>) {
        let Some(labels) = self.labels(id, values) else {
            return;
        };
        let Series::Histogram { classic, native } = &self.series[id as usize] else {
            return;
        };
        if !value.is_finite() {
            return;
        }
        let at = exemplar.is_some().then(SystemTime::now);
        classic.get_or_create(&labels).observe(value, exemplar, at);
        native.get_or_create(&labels).observe(value);
        if let Some(also) = self.also() {
            also.observe(id, &labels, value);
        }
    }

    /// Something went on for a time; `moment` is asked only if somebody takes it.
    pub fn moment(&self, moment: impl FnOnce() -> Option<Moment>) {
        if let Some(also) = self.also().filter(|also| also.wants_moments())
            && let Some(moment) = moment()
        {
            also.moment(&moment);
        }
    }

    /// A gauge has these series of `server` now, and no others.
    pub fn replace(&self, id: Id, server: &str, series: &[(Vec<&str>, f64)]) {
        for (values, value) in series {
            self.set(id, values, *value);
        }
        let stays = |labels: &Labels| {
            let is_own = |values: &[&str]| {
                let mut pairs = labels.iter().zip(values);
                pairs.all(|((_, own), value)| own == cut(value))
            };
            series.iter().any(|(values, _)| is_own(values))
        };
        self.retain(server, |other, labels| other != id || stays(labels));
    }

    /// Takes a series of `server` away, as when its labels have changed.
    pub fn remove(&self, id: Id, server: &str) {
        self.retain(server, |other, _| other != id);
    }

    /// Takes all series of a server away: it is gone.
    pub fn forget(&self, server: &str) {
        self.retain(server, |_, _| false);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(server);
    }

    fn retain(&self, server: &str, keep: impl Fn(Id, &Labels) -> bool) {
        let also = self.also();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(own) = known.get_mut(server) else {
            return;
        };
        own.retain(|(id, labels)| {
            if keep(*id, labels) {
                return true;
            }
            match &self.series[*id as usize] {
                Series::Counter(family) => family.remove(labels),
                Series::Gauge(family) => family.remove(labels),
                Series::Histogram { classic, native } => {
                    classic.remove(labels) | native.remove(labels)
                }
            };
            if let Some(also) = &also {
                also.forget(*id, labels);
            }
            false
        });
    }

    /// Series that exist.
    pub fn len(&self) -> usize {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().map(BTreeSet::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A label's value in its bound.
fn cut(value: &str) -> &str {
    let mut end = value.len().min(VALUE);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    &value[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_makes_many_series_gets_no_more_than_its_share() {
        let registry = Registry::default();
        for engine in 0..5_000 {
            registry.add(Id::Steps, &["a", &engine.to_string()], 1.0);
        }
        registry.add(Id::Steps, &["b", "0"], 1.0);
        assert_eq!(registry.len(), SERIES + 1);
        assert_eq!(registry.refused(), 5_000 - SERIES as u64);
        registry.forget("a");
        assert_eq!(registry.len(), 1);
    }

    #[test]
    fn names_are_split_so_that_the_exposition_puts_them_together_again() {
        assert_eq!(bare(Id::Steps.metric()).0, "profilemate_steps");
        let (name, unit) = bare(Id::AgentCpu.metric());
        assert_eq!((name, unit.is_some()), ("profilemate_agent_cpu", true));
    }

    #[test]
    fn long_values_are_cut_at_a_character() {
        let value = "ä".repeat(150);
        assert_eq!(cut(&value).len(), VALUE);
        assert!(cut("short") == "short");
    }
}
