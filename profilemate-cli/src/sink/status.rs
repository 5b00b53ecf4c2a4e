//! Live numbers for the status line.

use std::collections::{BTreeMap, VecDeque};

use crate::table::AnyRow;

/// Time over which rates are taken.
const WINDOW_NS: u64 = 2_000_000_000;

/// The numbers of a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Status {
    /// Since the session's start.
    pub elapsed_ns: u64,
    /// Steps since the start.
    pub steps: u64,
    /// Steps a second, lately.
    pub steps_per_sec: f64,
    /// Tokens a second, lately.
    pub tokens_per_sec: f64,
    /// Requests that run, all engines.
    pub running: Option<i64>,
    /// Requests that wait, all engines.
    pub waiting: Option<i64>,
    /// KV cache use of the fullest engine.
    pub kv_usage_pct: Option<f64>,
    /// Preemptions since the start.
    pub preemptions: u64,
    /// Records a second, lately.
    pub events_per_sec: f64,
    /// Records lost since the start.
    pub lost: u64,
}

impl Status {
    /// One line for a terminal.
    pub fn line(&self) -> String {
        let seconds = self.elapsed_ns / 1_000_000_000;
        let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        let number =
            |value: Option<i64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let kv = self
            .kv_usage_pct
            .map_or_else(|| "-".to_owned(), |value| format!("{value:.1} %"));
        format!(
            "{hours:02}:{minutes:02}:{seconds:02}  {:.0} steps/s  {:.0} tokens/s  running {}  waiting {}  KV {kv}  \
             preemptions {}  {:.0} events/s  lost {}",
            self.steps_per_sec,
            self.tokens_per_sec,
            number(self.running),
            number(self.waiting),
            self.preemptions,
            self.events_per_sec,
            self.lost,
        )
    }
}

/// Totals at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    at_ns: u64,
    steps: u64,
    tokens: u64,
    events: u64,
}

/// Gathers what [`Status`] tells.
#[derive(Debug, Default)]
pub struct Gauge {
    totals: Totals,
    history: VecDeque<Totals>,
    running: BTreeMap<u32, Option<i64>>,
    waiting: BTreeMap<u32, Option<i64>>,
    usage: BTreeMap<u32, Option<f64>>,
    preemptions: u64,
}

impl Gauge {
    /// Takes one row.
    pub fn row(&mut self, row: &AnyRow) {
        match row {
            AnyRow::BatchUse(row) => {
                self.totals.steps += 1;
                self.totals.tokens += row.num_tokens.unwrap_or(0).max(0) as u64;
                self.running.insert(row.pid, row.running_queue_len);
                self.waiting.insert(row.pid, row.waiting_queue_len);
            }
            AnyRow::KvCacheUse(row) => {
                self.usage
                    .insert(row.pid, row.usage_pct.map(|usage| usage.0));
            }
            AnyRow::PreemptionEvent(row) if row.event == "preempted" => self.preemptions += 1,
            _ => {}
        }
    }

    /// The numbers at `now_ns` of a session that started at `started_ns`, with `events` records decoded and `lost`
    /// lost so far.
    pub fn status(&mut self, started_ns: u64, now_ns: u64, events: u64, lost: u64) -> Status {
        self.totals.at_ns = now_ns;
        self.totals.events = events;
        while self.history.len() > 1 && self.history[1].at_ns.saturating_add(WINDOW_NS) <= now_ns {
            self.history.pop_front();
        }
        let before = self.history.front().copied().unwrap_or(Totals {
            at_ns: started_ns,
            ..Totals::default()
        });
        if self
            .history
            .back()
            .is_none_or(|last| last.at_ns + WINDOW_NS / 20 <= now_ns)
        {
            self.history.push_back(self.totals);
        }
        let seconds = now_ns.saturating_sub(before.at_ns) as f64 / 1e9;
        let rate = |now: u64, then: u64| {
            if seconds > 0.0 {
                now.saturating_sub(then) as f64 / seconds
            } else {
                0.0
            }
        };
        Status {
            elapsed_ns: now_ns.saturating_sub(started_ns),
            steps: self.totals.steps,
            steps_per_sec: rate(self.totals.steps, before.steps),
            tokens_per_sec: rate(self.totals.tokens, before.tokens),
            running: sum(&self.running),
            waiting: sum(&self.waiting),
            kv_usage_pct: self.usage.values().copied().flatten().reduce(f64::max),
            preemptions: self.preemptions,
            events_per_sec: rate(events, before.events),
            lost,
        }
    }
}

/// The sum over all engines; `None` if there is none, or one of them is not known.
fn sum(values: &BTreeMap<u32, Option<i64>>) -> Option<i64> {
    if values.is_empty() {
        return None;
    }
    values.values().copied().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::batch_utilization::BatchUse;
    use crate::table::cell::Real;
    use crate::table::kv_cache_usage::KvCacheUse;

    fn batch(pid: u32, tokens: i64, running: i64) -> AnyRow {
        BatchUse {
            pid,
            num_tokens: Some(tokens),
            running_queue_len: Some(running),
            waiting_queue_len: None,
            ..BatchUse::default()
        }
        .into()
    }

    #[test]
    fn rates_are_of_the_latest_seconds() {
        let mut gauge = Gauge::default();
        for second in 1..=10_u64 {
            for _ in 0..second {
                gauge.row(&batch(1, 8, 3));
            }
            gauge.status(0, second * 1_000_000_000, second * 100, 0);
        }
        let status = gauge.status(0, 10_000_000_000, 1_000, 4);
        assert!(
            (status.steps_per_sec - 9.5).abs() < 1e-9,
            "{}",
            status.steps_per_sec
        );
        assert!((status.tokens_per_sec - 76.0).abs() < 1e-9);
        assert!((status.events_per_sec - 100.0).abs() < 1e-9);
        assert_eq!((status.steps, status.lost), (55, 4));
    }

    #[test]
    fn the_line_has_dashes_for_what_is_not_known() {
        let mut gauge = Gauge::default();
        gauge.row(&batch(1, 8, 3));
        gauge.row(&batch(2, 8, 4));
        gauge.row(
            &KvCacheUse {
                usage_pct: Some(Real(41.26)),
                ..KvCacheUse::default()
            }
            .into(),
        );
        let line = gauge.status(0, 3_723_000_000_000, 0, 0).line();
        assert_eq!(
            line,
            "01:02:03  0 steps/s  0 tokens/s  running 7  waiting -  KV 41.3 %  preemptions 0  0 events/s  lost 0"
        );
    }

    #[test]
    fn no_time_gives_no_rate() {
        let status = Gauge::default().status(5, 5, 10, 0);
        assert!(status.steps_per_sec == 0.0 && status.events_per_sec == 0.0);
    }
}
