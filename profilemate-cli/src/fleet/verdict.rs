//! What the agents found, as queries: the rules of `explain`, judged on each server in one window after the other.

use std::time::Duration;

use super::api::Answer;
use crate::metrics::declare::Id;

/// Something that is told of a rule and a server.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// Name, as recording rules have it.
    pub id: &'static str,
    /// The agents' metric.
    pub metric: Id,
}

/// Whether the rule found its fault. Its mean is the part of the judged time.
pub const FOUND: Verdict = verdict("finding", Id::Finding);
/// What it cost each second, told only while it was found.
pub const TOKENS: Verdict = verdict("finding_lost_tokens_per_sec", Id::FindingTokens);
/// The time that it cost each second, told only while it was found.
pub const TIME: Verdict = verdict("finding_lost_time", Id::FindingTime);
/// Why the rule could not be judged.
pub const NOT_JUDGED: Verdict = verdict("finding_not_judged", Id::NotJudged);

/// All of them.
pub const VERDICTS: [Verdict; 4] = [FOUND, TOKENS, TIME, NOT_JUDGED];

const fn verdict(id: &'static str, metric: Id) -> Verdict {
    Verdict { id, metric }
}

impl Verdict {
    /// The series in which a recording rule keeps it.
    pub fn series(&self) -> String {
        format!("fleet:profilemate_{}:mean", self.id)
    }

    /// Its mean over a window, while it was told.
    pub fn mean(&self, window: Duration, recorded: bool) -> String {
        let window = window.as_secs().max(1);
        format!("avg_over_time({}[{window}s])", self.now(recorded))
    }

    /// What is told now.
    pub fn now(&self, recorded: bool) -> String {
        if recorded {
            return self.series();
        }
        self.metric.metric().name.to_owned()
    }
}

/// The answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdicts {
    /// Mean of [`FOUND`].
    pub found: Answer,
    /// [`FOUND`] now.
    pub now: Answer,
    /// Mean of [`TOKENS`].
    pub tokens: Answer,
    /// Mean of [`TIME`].
    pub time: Answer,
    /// [`NOT_JUDGED`] at any time of the window.
    pub not_judged: Answer,
}

impl Verdicts {
    /// What limited the answers.
    pub fn warnings(&self) -> impl Iterator<Item = &String> {
        let all = [
            &self.found,
            &self.now,
            &self.tokens,
            &self.time,
            &self.not_judged,
        ];
        all.into_iter().flat_map(|answer| &answer.warnings)
    }
}
