//! Speculative decoding: what vLLM's own count of a step says.

use super::operation::What;
use super::{Aggregator, Seen};

/// Fields of `scheduler.make_stats`.
const FIELDS: [&str; 3] = ["spec_drafts", "spec_draft_tokens", "spec_accepted_tokens"];

impl Aggregator {
    /// `scheduler.make_stats`: a row, if the step had drafts.
    pub(super) fn drafts(&mut self, seen: Seen<'_>) {
        let fields = seen.fields;
        if fields.int("log_stats") == Some(0) {
            self.facts.without_stats = true;
        }
        if let Some(limit) = fields.int("spec_configured") {
            self.facts.draft_limit = Some(limit);
        }
        // 1: there is no count. Absent: the argument was not passed.
        if fields.int("spec_none") != Some(0) {
            return;
        }
        let counts =
            FIELDS.map(|name| fields.int(name).and_then(|count| u64::try_from(count).ok()));
        for (name, count) in FIELDS.iter().zip(counts) {
            if count.is_none() {
                self.facts.missing(&seen.method.id, name, seen.call, fields);
            }
        }
        self.operations.pend(seen, What::Drafts(counts));
    }
}
