//! Schedule calls of one engine: batch sizes, and why requests waited.

use std::collections::BTreeMap;

use super::{IDLE_SEC, REMEMBERED, Span, micros, seconds};
use crate::table::batch_utilization::BatchUse;

/// Different batch sizes that are counted, at most.
const SIZES: usize = 16_384;
/// A budget with less than this part of it left is spent.
const SPENT: f64 = 0.99;

/// Time in which requests waited for one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Waiting {
    /// The schedule calls.
    pub span: Span,
    /// Seconds.
    pub sec: f64,
    /// Seconds times the requests that waited.
    pub request_sec: f64,
}

/// Why requests waited in a schedule call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Every slot is taken.
    Slots,
    /// Slots are free, and the token budget is spent.
    Budget,
    /// Slots are free, and so is a part of the token budget.
    Held,
}

/// A schedule call with free slots and budget in which requests waited all the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Held {
    /// Microseconds since the session's start.
    pub at_us: i64,
    /// The engine's step.
    pub step: u64,
    /// Requests that waited.
    pub waiting: i64,
    /// Seconds until the next call.
    pub sec: f64,
}

/// What one engine scheduled.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    /// All calls that scheduled something.
    pub span: Span,
    /// Time between them while the engine was busy, in seconds.
    pub busy_sec: f64,
    /// Decode batches by their tokens.
    pub decode_sizes: BTreeMap<u64, u64>,
    /// Batches with prompt tokens by their tokens.
    pub other_sizes: BTreeMap<u64, u64>,
    /// Sequences that may run at once.
    pub max_num_seqs: Option<i64>,
    /// Tokens that may be scheduled in a step.
    pub max_tokens: Option<i64>,
    /// Most sequences seen in a batch.
    pub most_seqs: i64,
    /// Waiting because every slot is taken.
    pub slots: Waiting,
    /// Waiting because the token budget is spent.
    pub budget: Waiting,
    /// Waiting for another reason, call by call.
    pub held: Vec<Held>,
    before: Option<(f64, Option<Why>, i64)>,
}

impl Engine {
    pub(super) fn row(&mut self, row: &BatchUse) {
        let at = seconds(row.timestamp_sec);
        self.elapse(at);
        self.max_num_seqs = row.max_num_seqs.or(self.max_num_seqs);
        self.max_tokens = row.max_tokens.or(self.max_tokens);
        let (tokens, seqs) = (row.num_tokens.unwrap_or(0), row.num_seqs.unwrap_or(0));
        let waiting = row.waiting_queue_len.unwrap_or(0);
        if tokens <= 0 {
            self.before = Some((at, None, 0));
            return;
        }
        self.span.add(at);
        self.most_seqs = self.most_seqs.max(seqs);
        let sizes = match row.phase {
            Some("decode") => &mut self.decode_sizes,
            _ => &mut self.other_sizes,
        };
        if sizes.len() < SIZES || sizes.contains_key(&(tokens as u64)) {
            *sizes.entry(tokens as u64).or_default() += 1;
        }
        let why = (waiting > 0).then(|| why(row)).flatten();
        match why {
            Some(Why::Slots) => self.slots.span.add(at),
            Some(Why::Budget) => self.budget.span.add(at),
            Some(Why::Held) if self.held.len() < REMEMBERED => self.held.push(Held {
                at_us: micros(row.timestamp_sec),
                step: row.step,
                waiting,
                sec: 0.0,
            }),
            _ => {}
        }
        self.before = Some((at, why, waiting));
    }

    /// Tokens of all batches.
    pub(super) fn tokens(&self) -> u64 {
        let sizes = self.decode_sizes.iter().chain(&self.other_sizes);
        sizes
            .map(|(tokens, count)| tokens.saturating_mul(*count))
            .fold(0, u64::saturating_add)
    }

    /// What the call before decided held until now.
    fn elapse(&mut self, at: f64) {
        let Some((before, why, waiting)) = self.before else {
            return;
        };
        let sec = at - before;
        if !(0.0..=IDLE_SEC).contains(&sec) {
            return;
        }
        self.busy_sec += sec;
        match why {
            Some(Why::Slots) => self.slots.elapse(sec, waiting),
            Some(Why::Budget) => self.budget.elapse(sec, waiting),
            Some(Why::Held) => {
                if let Some(held) = self.held.last_mut() {
                    held.sec = sec;
                }
            }
            None => {}
        }
    }
}

impl Waiting {
    fn elapse(&mut self, sec: f64, waiting: i64) {
        self.sec += sec;
        self.request_sec += sec * waiting as f64;
    }

    /// Adds the time of another.
    pub fn merge(&mut self, other: &Self) {
        self.span.merge(&other.span);
        self.sec += other.sec;
        self.request_sec += other.request_sec;
    }
}

impl From<&Held> for Waiting {
    fn from(held: &Held) -> Self {
        let mut waiting = Self::default();
        waiting.span.add(held.at_us as f64 / 1e6);
        waiting.elapse(held.sec, held.waiting);
        waiting
    }
}

fn why(row: &BatchUse) -> Option<Why> {
    // Those that run count, also those that were not scheduled in this step.
    let taken = row.running_queue_len.max(row.num_seqs)?;
    if taken >= row.max_num_seqs? {
        return Some(Why::Slots);
    }
    let spent = row.num_tokens? as f64 >= SPENT * row.max_tokens? as f64;
    Some(if spent { Why::Budget } else { Why::Held })
}
