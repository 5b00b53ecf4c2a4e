//! A session told to a [`Timeline`]: tracks per process and rank, one per request, lines from a request to the passes
//! that began it and from a pass to its graph replays, numbers over time, and what was lost.

mod requests;
mod stage;

use super::timeline::{Arguments, Slice, Timeline, Track, Value};
use super::{Error, loss};
use crate::recorded::Session;
use crate::table::batch_utilization::BatchUse;
use crate::table::cell::{Cell, Millis, Stamp};
use crate::table::cpu_operations_timing::CpuOperation;
use crate::table::cuda_graph_captures::CudaGraphCapture;
use crate::table::cuda_graph_timeline::CudaGraphReplay;
use crate::table::encoder_decoder_timing::EncoderCall;
use crate::table::forward_pass_timing::ForwardPass;
use crate::table::kv_cache_evictions::KvCacheEviction;
use crate::table::kv_cache_usage::KvCacheUse;
use crate::table::methods::MethodCall;
use crate::table::moe_expert_timing::MoeExpertTime;
use crate::table::{Row, TABLES};
use requests::Requests;
use stage::Stage;

/// Name of the group of tracks that hold one request each.
pub(super) const REQUESTS: &str = "requests";
/// Passes that are remembered to find those of graph replays, at most.
const PASSES: usize = 1 << 20;

/// Whether a track holds one request.
pub(super) fn is_request(track: &Track) -> bool {
    track.name.starts_with("request ")
}

/// Nanoseconds since the session's start; what was before it counts as its start.
fn at(stamp: Stamp) -> u64 {
    u64::try_from(stamp.0).unwrap_or(0)
}

fn length(duration: Option<Millis>) -> u64 {
    duration.map_or(0, |ms| ms.0)
}

/// The value if it was observed.
fn integer(name: &'static str, value: Option<impl TryInto<i64>>) -> Option<(&'static str, Value)> {
    Some((name, Value::Integer(value?.try_into().ok()?)))
}

fn text(name: &'static str, value: &str) -> Option<(&'static str, Value)> {
    (!value.is_empty()).then(|| (name, Value::Text(value.to_owned())))
}

fn arguments<const N: usize>(all: [Option<(&'static str, Value)>; N]) -> Arguments {
    all.into_iter().flatten().collect()
}

/// Tells everything; gives notes in plain words.
pub(super) fn tell(session: &Session, timeline: &mut dyn Timeline) -> Result<Vec<String>, Error> {
    let mut story = Story {
        session,
        stage: Stage::new(session, timeline),
        notes: session.notes.clone(),
        passes: Vec::new(),
        has_step: false,
    };
    story.stage.processes()?;
    let mut requests = Requests::default();
    story.rows(|story, row| requests.event(&mut story.stage, row))?;
    let end = story.end()?;
    requests.finish(&mut story.stage, end)?;
    story.rows(Story::batch)?;
    story.rows(Story::cache)?;
    story.rows(Story::eviction)?;
    story.has_step = story
        .session
        .rows::<ForwardPass>()?
        .is_some_and(|sheet| sheet.has("step"));
    story.rows(|story, row| story.pass(&requests, row))?;
    story.rows(Story::operation)?;
    story.rows(Story::encoder)?;
    story.rows(Story::expert)?;
    story.rows(Story::method)?;
    story.rows(Story::capture)?;
    story.passes.sort_unstable();
    story.rows(Story::replay)?;
    story.losses(end)?;
    Ok(story.notes)
}

struct Story<'a> {
    session: &'a Session,
    stage: Stage<'a>,
    notes: Vec<String>,
    /// Process, begin, end and line of the passes; what a worker replays lies within.
    passes: Vec<(u32, u64, u64, u64)>,
    has_step: bool,
}

impl Story<'_> {
    /// Gives each row of a table to `each`.
    fn rows<R: Row>(
        &mut self,
        mut each: impl FnMut(&mut Self, &R) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(mut sheet) = self.session.rows::<R>()? else {
            return Ok(());
        };
        for row in &mut sheet {
            each(self, &row?)?;
        }
        self.notes.extend(sheet.note());
        Ok(())
    }

    /// The end of the session, or the last schedule call.
    fn end(&mut self) -> Result<u64, Error> {
        if let Some(sec) = self.session.metadata.duration_sec {
            return Ok((sec.max(0.0) * 1e9) as u64);
        }
        let mut end = 0;
        for row in self.session.rows::<BatchUse>()?.into_iter().flatten() {
            end = end.max(at(row?.timestamp_sec));
        }
        Ok(end)
    }

    fn batch(&mut self, row: &BatchUse) -> Result<(), Error> {
        let (pid, end) = (row.pid, at(row.timestamp_sec));
        let track = self.stage.lane(
            pid,
            "schedule",
            end.saturating_sub(length(row.schedule_ms)),
            end,
        )?;
        let slice = Slice {
            track: track.id,
            name: row
                .phase
                .filter(|phase| !phase.is_empty())
                .unwrap_or("schedule")
                .to_owned(),
            start_ns: track.start_ns,
            end_ns: end,
            arguments: arguments([
                integer("step", (row.step > 0).then_some(row.step)),
                integer("num_seqs", row.num_seqs),
                integer("num_tokens", row.num_tokens),
                integer("prefill_tokens", row.prefill_tokens),
                integer("decode_tokens", row.decode_tokens),
                integer("waiting", row.waiting_queue_len),
            ]),
            ..Slice::default()
        };
        self.stage.slice(&slice)?;
        let numbers = [
            ("batch: sequences", "sequences", row.num_seqs),
            ("batch: tokens", "tokens", row.num_tokens),
            ("requests running", "requests", row.running_queue_len),
            ("requests waiting", "requests", row.waiting_queue_len),
        ];
        for (name, unit, value) in numbers {
            if let Some(value) = value {
                self.stage.number(pid, name, unit, end, value as f64)?;
            }
        }
        Ok(())
    }

    fn cache(&mut self, row: &KvCacheUse) -> Result<(), Error> {
        match row.usage_pct.and_then(|usage| usage.number()) {
            Some(usage) => {
                self.stage
                    .number(row.pid, "KV cache", "%", at(row.timestamp_sec), usage)
            }
            None => Ok(()),
        }
    }

    fn eviction(&mut self, row: &KvCacheEviction) -> Result<(), Error> {
        let track = self.stage.track(row.pid, "KV cache evictions")?;
        let arguments = arguments([integer("block_id", row.block_id)]);
        self.stage
            .moment(track, at(row.timestamp_sec), "eviction", &arguments)
    }

    fn pass(&mut self, requests: &Requests, row: &ForwardPass) -> Result<(), Error> {
        let (start, end) = (
            at(row.timestamp_sec),
            at(row.timestamp_sec) + length(row.forward_time_ms),
        );
        let track = self.stage.lane(row.pid, "forward pass", start, end)?;
        let engine = self.session.metadata.engine_of(row.pid).unwrap_or(row.pid);
        let step = row.step.filter(|_| self.has_step);
        let into = step
            .map(|step| requests.begun_in(engine, step))
            .unwrap_or_default();
        let line = super::flow::id("pass", (row.pid, start));
        let replays = self
            .session
            .path(crate::table::index_of("cuda_graph_timeline").unwrap_or(usize::MAX));
        if replays.is_some() && self.passes.len() < PASSES {
            self.passes.push((row.pid, track.start_ns, end, line));
        }
        let slice = Slice {
            track: track.id,
            name: row
                .phase
                .filter(|phase| !phase.is_empty())
                .unwrap_or("forward pass")
                .to_owned(),
            start_ns: track.start_ns,
            end_ns: end,
            arguments: arguments([
                integer("step", step),
                integer("batch_size", row.batch_size),
                integer("num_tokens", row.num_tokens),
                integer("rank", row.rank),
                text("graph_mode", row.graph_mode.unwrap_or_default()),
                integer("graph_launches", row.graph_launches),
                integer("gpu_time_ns", row.gpu_time_ms.map(|ms| ms.0)),
                integer("sync_wait_ns", row.sync_wait_ms.map(|ms| ms.0)),
            ]),
            out: vec![line],
            into,
        };
        self.stage.slice(&slice)
    }

    /// A slice on the lanes of a kind of call.
    fn call(
        &mut self,
        pid: u32,
        lane: &str,
        start: u64,
        duration: Option<Millis>,
        arguments: Arguments,
    ) -> Result<(), Error> {
        let end = start + length(duration);
        let track = self.stage.lane(pid, lane, start, end)?;
        let slice = Slice {
            track: track.id,
            name: lane.to_owned(),
            start_ns: track.start_ns,
            end_ns: end,
            arguments,
            ..Slice::default()
        };
        self.stage.slice(&slice)
    }

    fn operation(&mut self, row: &CpuOperation) -> Result<(), Error> {
        // Those two have tracks of their own, with more about them.
        if matches!(row.operation.as_str(), "schedule" | "execute_model") {
            return Ok(());
        }
        let arguments = arguments([integer("step", row.step), text("context", &row.context)]);
        self.call(
            row.pid,
            &row.operation,
            at(row.timestamp_sec),
            row.duration_ms,
            arguments,
        )
    }

    fn encoder(&mut self, row: &EncoderCall) -> Result<(), Error> {
        let arguments = arguments([
            integer("step", row.step),
            integer("num_items", row.num_items),
            text("context", &row.context),
        ]);
        self.call(
            row.pid,
            row.component,
            at(row.timestamp_sec),
            row.duration_ms,
            arguments,
        )
    }

    fn expert(&mut self, row: &MoeExpertTime) -> Result<(), Error> {
        let arguments = arguments([
            integer("layer_idx", row.layer_idx),
            integer("num_tokens", row.num_tokens),
            integer("top_k", row.top_k),
        ]);
        self.call(
            row.pid,
            "MoE layer",
            at(row.timestamp_sec),
            row.duration_ms,
            arguments,
        )
    }

    fn method(&mut self, row: &MethodCall) -> Result<(), Error> {
        let arguments = arguments([text("outcome", row.outcome), text("fields", &row.fields)]);
        self.call(
            row.pid,
            &row.method,
            at(row.timestamp_sec),
            row.duration_ms,
            arguments,
        )
    }

    fn capture(&mut self, row: &CudaGraphCapture) -> Result<(), Error> {
        let Some(end) = row.capture_time_sec.map(at) else {
            return Ok(());
        };
        let arguments = arguments([
            text("runtime_mode", row.runtime_mode.unwrap_or_default()),
            integer("num_tokens", row.num_tokens),
            integer("num_reqs", row.num_reqs),
        ]);
        let start = end.saturating_sub(length(row.duration_ms));
        self.call(
            row.pid,
            "CUDA graph capture",
            start,
            row.duration_ms,
            arguments,
        )
    }

    /// A line leads there from the pass around it.
    fn replay(&mut self, row: &CudaGraphReplay) -> Result<(), Error> {
        let start = at(row.timestamp_sec);
        let end = start + length(row.duration_ms);
        let track = self.stage.lane(row.pid, "CUDA graph replays", start, end)?;
        let before = self
            .passes
            .partition_point(|pass| (pass.0, pass.1) <= (row.pid, start));
        let around = before
            .checked_sub(1)
            .and_then(|index| self.passes.get(index));
        let around = around.filter(|pass| pass.0 == row.pid && start <= pass.2);
        let slice = Slice {
            track: track.id,
            name: row
                .descriptor
                .clone()
                .unwrap_or_else(|| "replay".to_owned()),
            start_ns: track.start_ns,
            end_ns: end,
            into: around.map(|pass| pass.3).into_iter().collect(),
            ..Slice::default()
        };
        self.stage.slice(&slice)
    }

    fn losses(&mut self, end: u64) -> Result<(), Error> {
        let metadata = &self.session.metadata;
        let changes = loss::over_time(self.session);
        let total = metadata.lost();
        if total.is_some() || !changes.is_empty() {
            self.stage.number(0, "records lost", "records", 0, 0.0)?;
        }
        for (at, lost) in changes {
            self.stage
                .number(0, "records lost", "records", at, lost as f64)?;
        }
        if let Some(total) = total {
            self.stage
                .number(0, "records lost", "records", end, total as f64)?;
        }
        for table in TABLES {
            let coverage = metadata.coverage(table.file);
            let Some(coverage) = coverage.filter(|coverage| coverage.status != "observed") else {
                continue;
            };
            let track = self.stage.track(0, "not observed")?;
            let arguments = arguments([
                text("status", &coverage.status),
                text("reason", &coverage.reason),
            ]);
            self.stage.moment(track, 0, table.file, &arguments)?;
        }
        Ok(())
    }
}
