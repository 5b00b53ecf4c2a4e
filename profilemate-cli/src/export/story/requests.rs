//! Requests: when each ran and when it stood still, and in which steps it was begun or resumed.

use std::collections::HashMap;

use super::super::Error;
use super::super::flow::id;
use super::super::timeline::Slice;
use super::stage::Stage;
use super::{arguments, at, integer, text};
use crate::table::preemption_events::PreemptionEvent;

/// Requests under way that are remembered, at most; more are shown from their next event on.
const OPEN: usize = 1 << 20;
/// Lines to steps that are remembered, at most.
const LINES: usize = 1 << 20;

/// A request under way.
#[derive(Clone, Copy, Debug)]
struct Open {
    track: u64,
    since_ns: u64,
    runs: bool,
    step: Option<u64>,
    line: u64,
}

/// All requests.
#[derive(Debug, Default)]
pub(super) struct Requests {
    open: HashMap<(u32, String), Open>,
    /// (engine, step): lines of the requests that were begun or resumed in it.
    begun: HashMap<(u32, u64), Vec<u64>>,
    lines: usize,
}

impl Requests {
    /// Lines that end in this step of the engine.
    pub(super) fn begun_in(&self, engine: u32, step: u64) -> Vec<u64> {
        self.begun.get(&(engine, step)).cloned().unwrap_or_default()
    }

    pub(super) fn event(
        &mut self,
        stage: &mut Stage<'_>,
        row: &PreemptionEvent,
    ) -> Result<(), Error> {
        let (key, now) = ((row.pid, row.request_id.clone()), at(row.timestamp_sec));
        let open = self.open.remove(&key);
        if let Some(open) = open {
            tell(stage, &key.1, open, now, row.event)?;
        }
        if row.event == "preempted" {
            let track = stage.track(row.pid, "preemptions")?;
            let arguments = arguments([
                text("request_id", &row.request_id),
                text("reason", row.reason.unwrap_or_default()),
                integer("computed_tokens_lost", row.computed_tokens_lost),
                integer("step", row.step),
            ]);
            stage.moment(track, now, "preemption", &arguments)?;
        }
        if row.event == "finished" || self.open.len() >= OPEN {
            return Ok(());
        }
        let track = match open {
            Some(open) => open.track,
            None => stage.request(row.pid, &row.request_id)?,
        };
        let runs = row.event != "preempted";
        let line = id("begun", (row.pid, &row.request_id, row.step, row.event));
        if let Some(step) = row.step.filter(|_| runs && self.lines < LINES) {
            self.begun.entry((row.pid, step)).or_default().push(line);
            self.lines += 1;
        }
        let open = Open {
            track,
            since_ns: now,
            runs,
            step: row.step,
            line,
        };
        self.open.insert(key, open);
        Ok(())
    }

    /// What is still under way ends with the session.
    pub(super) fn finish(&mut self, stage: &mut Stage<'_>, end_ns: u64) -> Result<(), Error> {
        let mut open: Vec<_> = self.open.drain().collect();
        open.sort_by(|one, two| one.0.cmp(&two.0));
        open.into_iter()
            .try_for_each(|(key, open)| tell(stage, &key.1, open, end_ns, "session ended"))
    }
}

fn tell(
    stage: &mut Stage<'_>,
    request: &str,
    open: Open,
    now: u64,
    until: &str,
) -> Result<(), Error> {
    stage.slice(&Slice {
        track: open.track,
        name: if open.runs { "running" } else { "preempted" }.to_owned(),
        start_ns: open.since_ns,
        end_ns: now,
        arguments: arguments([
            text("request_id", request),
            integer("step", open.step),
            text("until", until),
        ]),
        out: if open.runs {
            vec![open.line]
        } else {
            Vec::new()
        },
        into: Vec::new(),
    })
}
