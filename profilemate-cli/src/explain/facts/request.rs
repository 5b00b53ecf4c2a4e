//! Requests: preemptions and what they cost.

use std::collections::{BTreeMap, HashMap};

use super::{REMEMBERED, Span, seconds};
use crate::table::preemption_events::PreemptionEvent;
use crate::table::request_lifecycle::RequestLifecycle;

/// Different reasons that are told apart, at most.
const REASONS: usize = 16;

/// What happened to requests.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    /// Started.
    pub started: Span,
    /// Finished.
    pub finished: Span,
    /// Preempted.
    pub preempted: Span,
    /// Preemptions by reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Tokens that have to be computed again, and the preemptions that told so.
    pub tokens_lost: (i64, u64),
    /// Preemptions of the requests that had one.
    pub of_request: HashMap<String, u32>,
    /// Seconds from preemptions to their resumes, summed over requests.
    pub delay_sec: f64,
}

impl Requests {
    pub(super) fn event(&mut self, row: &PreemptionEvent) {
        let at = seconds(row.timestamp_sec);
        match row.event {
            "started" => self.started.add(at),
            "finished" => self.finished.add(at),
            "preempted" => self.preempt(row, at),
            _ => {}
        }
    }

    fn preempt(&mut self, row: &PreemptionEvent, at: f64) {
        self.preempted.add(at);
        let reason = row.reason.filter(|reason| !reason.is_empty());
        if let Some(reason) = reason
            && (self.reasons.len() < REASONS || self.reasons.contains_key(reason))
        {
            *self.reasons.entry(reason).or_default() += 1;
        }
        if let Some(lost) = row.computed_tokens_lost {
            self.tokens_lost.0 = self.tokens_lost.0.saturating_add(lost.max(0));
            self.tokens_lost.1 += 1;
        }
        if let Some(count) = self.of_request.get_mut(&row.request_id) {
            *count += 1;
        } else if self.of_request.len() < REMEMBERED {
            self.of_request.insert(row.request_id.clone(), 1);
        }
    }

    pub(super) fn lifecycle(&mut self, row: &RequestLifecycle) {
        self.delay_sec += row
            .preemption_delay_sec
            .map_or(0.0, |delay| (delay.0 / 1_000) as f64 / 1e6);
    }

    /// The request that was preempted most often, and how often. Of several the first by name.
    pub fn worst(&self) -> Option<(&str, u32)> {
        self.of_request
            .iter()
            .map(|(id, count)| (id.as_str(), *count))
            .max_by(|one, two| one.1.cmp(&two.1).then(two.0.cmp(one.0)))
    }
}
