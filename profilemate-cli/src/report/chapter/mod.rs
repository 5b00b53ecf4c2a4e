//! The page's chapters: each gathers the rows of its tables, and makes its plots of them.

mod batch;
mod cache;
mod call;
mod draft;
mod expert;
mod graph;
mod pass;
mod request;
mod split;

use super::plot::number;
use super::text::{duration, figure, thousands};
use super::{Figure, Section};
use crate::recorded::Metadata;
use crate::table::AnyRow;
use crate::table::cell::{Millis, Stamp};

/// Seconds since the session's start.
fn seconds(stamp: Stamp) -> f64 {
    stamp.0 as f64 / 1e9
}

/// Milliseconds.
fn millis(value: Option<Millis>) -> Option<f64> {
    value.map(|ms| ms.0 as f64 / 1e6)
}

/// All chapters.
#[derive(Debug, Default)]
pub(super) struct Chapters {
    batch: batch::Batch,
    cache: cache::Cache,
    pass: pass::Pass,
    split: split::Split,
    graph: graph::Graph,
    expert: expert::Expert,
    request: request::Request,
    draft: draft::Draft,
    call: call::Call,
    last_sec: f64,
}

impl Chapters {
    /// Takes a row of any table.
    pub(super) fn row(&mut self, row: &AnyRow) {
        match row {
            AnyRow::BatchUse(row) => {
                self.last_sec = self.last_sec.max(seconds(row.timestamp_sec));
                self.batch.row(row);
            }
            AnyRow::KvCacheUse(row) => self.cache.used(row),
            AnyRow::KvCacheEviction(row) => self.cache.evicted(row),
            AnyRow::PreemptionEvent(row) => {
                self.last_sec = self.last_sec.max(seconds(row.timestamp_sec));
                self.cache.event(row);
                self.request.event(row);
            }
            AnyRow::RequestLifecycle(row) => self.request.finished(row),
            AnyRow::ForwardPass(row) => {
                self.last_sec = self.last_sec.max(seconds(row.timestamp_sec));
                self.pass.row(row);
            }
            AnyRow::CpuOperation(row) => self.split.row(row),
            AnyRow::CudaGraphUse(row) => self.graph.used(row),
            AnyRow::CudaGraphCapture(row) => self.graph.captured(row),
            AnyRow::MoeExpertSelection(row) => self.expert.chosen(row),
            AnyRow::MoeLoadImbalance(row) => self.expert.second(row),
            AnyRow::SpeculativeStep(row) => self.draft.row(row),
            AnyRow::MoeExpertTime(row) => self.expert.call(row),
            AnyRow::EncoderCall(row) => self.call.encoder(row),
            AnyRow::MethodCall(row) => self.call.method(row),
            AnyRow::CudaGraphReplay(_) | AnyRow::MoeExpertCoselection(_) => {}
        }
    }

    /// The chapters in the order of the page.
    pub(super) fn sections(&self, metadata: &Metadata) -> Vec<Section> {
        let end = metadata.duration_sec.unwrap_or(0.0).max(self.last_sec);
        let mut sections = vec![
            self.batch.section(metadata),
            self.cache.section(metadata),
            self.pass.section(metadata),
            self.split.section(metadata),
            self.graph.section(metadata),
            self.request.section(metadata, end),
            self.expert.section(metadata),
            self.draft.section(metadata),
            self.call.encoders(metadata),
            self.call.methods(metadata),
        ];
        // All that is drawn over time begins and ends together.
        let plots = sections.iter_mut().flat_map(|section| &mut section.plots);
        for plot in plots.filter(|plot| plot.over_time && end > 0.0) {
            for view in &mut plot.views {
                view.layout["xaxis"]["range"] = serde_json::json!([0, number(end)]);
            }
        }
        sections
    }

    /// The session in a few numbers.
    pub(super) fn figures(&self, metadata: &Metadata) -> Vec<Figure> {
        let whole = |count: u64| thousands(count as f64);
        let seen = |count: u64| (count > 0).then(|| whole(count));
        let tokens = self.batch.tokens();
        let rate = tokens
            .zip(self.batch.span_sec())
            .map(|(tokens, span)| tokens / span);
        let times = self.pass.all();
        let ms = |part| times.quantile(part).map(|ms| duration(ms / 1e3));
        let preempted = self.request.seen().then(|| whole(self.request.preempted()));
        let evicted = self.cache.evictions();
        let evicted =
            (evicted > 0 || covered(metadata, "kv_cache_evictions")).then(|| whole(evicted));
        vec![
            ("duration", metadata.duration_sec.map(duration)),
            ("steps", seen(self.batch.steps())),
            ("tokens scheduled", tokens.map(thousands)),
            ("tokens/s", rate.map(figure)),
            (
                "requests finished",
                self.request.seen().then(|| whole(self.request.done())),
            ),
            ("preemptions", preempted),
            ("blocks evicted", evicted),
            (
                "KV cache, highest",
                self.cache.highest().map(|pct| format!("{} %", figure(pct))),
            ),
            ("forward pass, median", ms(0.5)),
            ("forward pass, p99", ms(0.99)),
            ("records lost", metadata.lost().map(whole)),
        ]
    }
}

/// Whether the session says that this table tells all or a part.
fn covered(metadata: &Metadata, table: &str) -> bool {
    let status = metadata
        .coverage(table)
        .map(|coverage| coverage.status.as_str());
    matches!(status, Some("observed" | "partial"))
}
