//! How many series an agent tells, and of what.

use std::collections::BTreeSet;

use anyhow::Result;
use profilemate::metrics::declare::{Kind, METRICS, Metric};
use profilemate::metrics::exposition::{Format, expose};
use profilemate::metrics::registry::Registry;

/// Series that Prometheus adds to each target: `up`, and four about the scrape.
pub const OF_PROMETHEUS: usize = 5;

/// Series of a node by what they are told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Of the agent itself.
    pub agent: usize,
    /// Of all servers.
    pub servers: usize,
    /// Of all engines.
    pub engines: usize,
    /// Of all ranks.
    pub ranks: usize,
    /// How many ranks there are.
    pub rank_count: usize,
}

impl Shape {
    /// All that the agent tells.
    pub fn total(self) -> usize {
        self.agent + self.servers + self.engines + self.ranks
    }

    /// Of a node's numbers: each set of labels counts as often as its metric has series, by its declaration.
    pub fn of(registry: &Registry) -> Result<Self> {
        let text = String::from_utf8(expose(registry, Format::Text)?)?;
        let mut shape = Self::default();
        let mut ranks = BTreeSet::new();
        for (metric, labels) in sets(&text) {
            let series = match metric.kind {
                Kind::Histogram(buckets) => buckets.bounds().len() + 3,
                _ => 1,
            };
            let has = |name| metric.labels.contains(&name);
            let of = if has("rank") {
                let own = labels.split(',');
                let names = ["server=", "engine=", "rank="];
                let is_own = |label: &&str| names.iter().any(|name| label.starts_with(name));
                ranks.insert(own.filter(is_own).collect::<Vec<_>>().join(","));
                &mut shape.ranks
            } else if has("engine") {
                &mut shape.engines
            } else if has("server") {
                &mut shape.servers
            } else {
                &mut shape.agent
            };
            *of += series;
        }
        shape.rank_count = ranks.len();
        Ok(shape)
    }
}

/// Each metric with each of its sets of labels, once.
fn sets(text: &str) -> Vec<(&'static Metric, &str)> {
    let mut sets = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap_or(line.len()));
        let labels = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        // Of a histogram, its count stands for all of it.
        let name = name.strip_suffix("_count").unwrap_or(name);
        let metric = METRICS.iter().find(|metric| metric.name == name);
        sets.extend(metric.map(|metric| (metric, labels.map_or("", |labels| labels.0))));
    }
    sets
}
