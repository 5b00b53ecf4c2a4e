//! The KV cache over time, with evictions and preemptions.

use serde_json::json;
use std::fmt::Write as _;

use super::{covered, seconds};
use crate::recorded::Metadata;
use crate::report::Section;
use crate::report::count::OverTime;
use crate::report::member::{Member, Members};
use crate::report::plot::{Colour, Plot, View, axis_in, number, on_axis, share, steps, time_axis};
use crate::report::text::{count, duration, figure, label};
use crate::report::thin::{Thin, note};
use crate::table::kv_cache_evictions::KvCacheEviction;
use crate::table::kv_cache_usage::KvCacheUse;
use crate::table::preemption_events::PreemptionEvent;

/// Preemptions that are marked, at most; then every other one is.
const MARKS: usize = 1_500;
/// Height at which they are marked: above a full cache.
const ABOVE: f64 = 106.0;

/// One engine.
#[derive(Clone, Debug)]
struct Engine {
    usage: Thin,
    evictions: OverTime,
    lifetimes: (f64, u64),
    marks: Vec<(f64, String)>,
    preemptions: u64,
    every: u64,
    full: u64,
    total: Option<i64>,
    last_sec: f64,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            usage: Thin::default(),
            evictions: OverTime::default(),
            lifetimes: (0.0, 0),
            marks: Vec::new(),
            preemptions: 0,
            every: 1,
            full: 0,
            total: None,
            last_sec: 0.0,
        }
    }
}

/// The KV caches.
#[derive(Clone, Debug, Default)]
pub(super) struct Cache {
    engines: Members<Engine>,
    evictions: u64,
    highest: Option<f64>,
}

impl Cache {
    pub(super) fn used(&mut self, row: &KvCacheUse) {
        let pct = row.usage_pct.map(|pct| pct.0);
        self.highest = pct.into_iter().chain(self.highest).reduce(f64::max);
        let Some(engine) = self.engines.of(Member::new(row.engine, row.pid)) else {
            return;
        };
        let at = seconds(row.timestamp_sec);
        engine.last_sec = engine.last_sec.max(at);
        engine.usage.add(at, pct);
        engine.full += u64::from(pct.is_some_and(|pct| pct >= 95.0));
        engine.total = row.total_blocks.or(engine.total);
    }

    pub(super) fn evicted(&mut self, row: &KvCacheEviction) {
        self.evictions += 1;
        let Some(engine) = self.engines.of(Member::new(row.engine, row.pid)) else {
            return;
        };
        engine.evictions.add(seconds(row.timestamp_sec));
        if let Some(lifetime) = row.lifetime_sec {
            engine.lifetimes.0 += lifetime.0 as f64 / 1e9;
            engine.lifetimes.1 += 1;
        }
    }

    pub(super) fn event(&mut self, row: &PreemptionEvent) {
        if row.event != "preempted" {
            return;
        }
        if let Some(engine) = self.engines.of(Member::new(row.engine, row.pid)) {
            engine.preempted(row);
        }
    }

    pub(super) fn evictions(&self) -> u64 {
        self.evictions
    }

    pub(super) fn highest(&self) -> Option<f64> {
        self.highest
    }

    pub(super) fn section(&self, metadata: &Metadata) -> Section {
        let most = share(self.engines.len() * 2);
        let told = covered(metadata, "kv_cache_evictions");
        let views: Vec<View> = self
            .engines
            .iter()
            .map(|(member, engine)| {
                let mut view = engine.view(member.name("engine", metadata), most, told);
                view.notes.extend(self.engines.note());
                view
            })
            .collect();
        let plot = Plot::new("cache", "KV cache over time", true, views);
        Section {
            id: "cache",
            title: "KV cache",
            lead: "How full the cache is after each step. A red triangle is a request that lost its place, and is \
                   computed again. Below, cached blocks that were evicted to be handed out again.",
            tables: &["kv_cache_usage", "kv_cache_evictions"],
            plots: plot.into_iter().collect(),
        }
    }
}

impl Engine {
    fn preempted(&mut self, row: &PreemptionEvent) {
        if self.preemptions.is_multiple_of(self.every) {
            let lost = row.computed_tokens_lost;
            let lost = lost
                .map(|lost| format!(", {lost} tokens lost"))
                .unwrap_or_default();
            let reason = row.reason.filter(|reason| !reason.is_empty());
            let reason = reason
                .map(|reason| format!(", {reason}"))
                .unwrap_or_default();
            let text = label(&row.request_id) + &label(&reason) + &lost;
            self.marks.push((seconds(row.timestamp_sec), text));
        }
        self.preemptions += 1;
        if self.marks.len() > MARKS {
            let mut odd = false;
            self.marks.retain(|_| {
                odd = !odd;
                odd
            });
            self.every *= 2;
        }
    }

    fn view(&self, name: String, most: usize, told: bool) -> View {
        let drawn = self.usage.drawn(most);
        let mut usage = steps("in use", Colour::Blue, &drawn);
        usage["fill"] = json!("tozeroy");
        usage["hovertemplate"] = json!("%{y:.1f} % in use");
        let at: Vec<_> = self.marks.iter().map(|mark| number(mark.0)).collect();
        let texts: Vec<&str> = self.marks.iter().map(|mark| mark.1.as_str()).collect();
        let marks = json!({
            "type": "scatter", "mode": "markers", "name": "preempted", "x": at, "y": vec![ABOVE; at.len()],
            "text": texts, "hovertemplate": "preempted: %{text}",
            "marker": {"color": Colour::Red.name(), "symbol": "triangle-down", "size": 9}
        });
        let evictions = self.evictions.seen_in(self.last_sec);
        let (middle, number): (Vec<_>, Vec<_>) = evictions
            .pieces()
            .map(|(at, count)| (number(at), count))
            .unzip();
        let piece = duration(evictions.length());
        let bars = json!({
            "type": "bar", "name": "evicted", "x": middle, "y": number, "width": evictions.length(),
            "marker": {"color": Colour::Orange.name()}, "hovertemplate": format!("%{{y}} evicted in {piece}")
        });
        let mut notes: Vec<String> = note(&[("in use".to_owned(), drawn)]).into_iter().collect();
        if self.every > 1 {
            notes.push(format!(
                "One in {} of {} preemptions is marked.",
                self.every, self.preemptions
            ));
        }
        if self.evictions.count() > 0 {
            notes.push(format!("A bar counts the evictions of {piece}."));
        }
        View {
            name,
            summary: self.summary(told),
            notes,
            data: vec![usage, marks, on_axis(bars, 2)],
            layout: json!({
                "height": 440, "hovermode": "closest",
                "xaxis": {"title": time_axis()["title"], "zeroline": false, "anchor": "y2"},
                "yaxis": {"title": {"text": "% in use"}, "domain": [0.36, 1.0], "range": [0, 112], "zeroline": false},
                "yaxis2": axis_in("blocks", [0.0, 0.28])
            }),
        }
    }

    fn summary(&self, told: bool) -> String {
        let all = self.usage.all();
        let mut text = match (all.mean(), all.max()) {
            (Some(mean), Some(max)) => format!(
                "The cache was {} % full on average and {} % at most; 95 % or more in {} % of the steps",
                figure(mean),
                figure(max),
                figure(100.0 * self.full as f64 / all.count().max(1) as f64)
            ),
            _ => "How full the cache was is not known".to_owned(),
        };
        if let Some(total) = self.total {
            // Writing to a `String` cannot fail.
            let _ = write!(text, " (of {total} blocks)");
        }
        let _ = write!(
            text,
            ". {}",
            count(self.preemptions, "preemption", "preemptions")
        );
        if told || self.evictions.count() > 0 {
            let _ = write!(
                text,
                ", {}",
                count(self.evictions.count(), "eviction", "evictions")
            );
        }
        if self.lifetimes.1 > 0 {
            let mean = self.lifetimes.0 / self.lifetimes.1 as f64;
            let _ = write!(
                text,
                "; an evicted block had lived for {} on average",
                duration(mean)
            );
        }
        text + "."
    }
}
