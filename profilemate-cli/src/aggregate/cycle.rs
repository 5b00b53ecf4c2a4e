//! Which time of a thread no operation tells.
//!
//! A thread that schedules or runs forward passes goes round in cycles: from the begin of the outermost operation with
//! one such call to the begin of the next. Operations lie one behind the other or one within the other. What an
//! operation took without those within it is its own time; what a cycle took without its outermost operations is
//! attributed to none.

use std::collections::{HashMap, VecDeque};

use super::operation::StepRef;

/// Operations of a thread that are remembered.
const CAPACITY: usize = 1_024;
/// Threads, at most.
const THREADS: usize = 4_096;

/// One operation, as far as it takes time of a thread.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Cycle counter at its begin.
    pub entry: u64,
    /// Cycle counter at its end.
    pub end: u64,
    /// When it began.
    pub start_ns: u64,
    /// Set for a schedule call or forward pass, and what is around it.
    pub anchor: Option<Begin>,
}

/// What a cycle begins with: its step, if that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin(pub Option<StepRef>);

/// Time of a cycle that no operation tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// When the cycle began.
    pub start_ns: u64,
    /// How long, in counter cycles.
    pub cycles: u64,
    /// The cycle's step.
    pub step: Option<StepRef>,
}

#[derive(Debug, Default)]
struct Thread {
    spans: VecDeque<Span>,
    schedules: bool,
}

/// The operations of all threads.
#[derive(Debug, Default)]
pub struct Cycles(HashMap<(u32, u32), Thread>);

impl Cycles {
    /// An operation ended. Gives its own time in counter cycles, and the rest of the cycle that it lets be known.
    /// `schedules`: it is a schedule call. Where a thread has these, forward passes begin no cycle.
    pub fn ended(
        &mut self,
        thread: (u32, u32),
        mut span: Span,
        schedules: bool,
    ) -> (u64, Option<Rest>) {
        if self.0.len() >= THREADS && !self.0.contains_key(&thread) {
            self.0.clear();
        }
        let thread = self.0.entry(thread).or_default();
        thread.schedules |= schedules;
        if thread.schedules && !schedules {
            span.anchor = None;
        }
        let mut own = span.end.saturating_sub(span.entry);
        while let Some(inner) = thread.spans.pop_back_if(|last| last.entry >= span.entry) {
            own = own.saturating_sub(inner.end.saturating_sub(inner.entry));
            span.anchor = inner.anchor.or(span.anchor);
        }
        if thread.spans.len() >= CAPACITY {
            thread.spans.drain(..CAPACITY / 2);
        }
        thread.spans.push_back(span);
        let rest = if span.anchor.is_some() {
            thread.rest()
        } else {
            None
        };
        (own, rest)
    }

    /// Nothing is known of a process any more.
    pub fn forget(&mut self, pid: u32) {
        self.0.retain(|thread, _| thread.0 != pid);
    }
}

impl Thread {
    /// The rest of the oldest cycle, once a second one has ended: the last anchor may still be inside of something.
    fn rest(&mut self) -> Option<Rest> {
        let mut anchors = self
            .spans
            .iter()
            .enumerate()
            .filter_map(|(index, span)| span.anchor.map(|begin| (index, *span, begin.0)));
        let (first, begin, step) = anchors.next()?;
        let (next, end, _) = anchors.next()?;
        anchors.next()?;
        let told: u64 = self
            .spans
            .range(first..next)
            .map(|span| span.end.saturating_sub(span.entry))
            .sum();
        self.spans.drain(..next);
        Some(Rest {
            start_ns: begin.start_ns,
            cycles: end.entry.saturating_sub(begin.entry).saturating_sub(told),
            step,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREAD: (u32, u32) = (1, 1);

    fn step(number: u64) -> Begin {
        Begin(Some(StepRef {
            number,
            tokens: None,
            seqs: None,
        }))
    }

    fn span(entry: u64, end: u64, anchor: Option<Begin>) -> Span {
        Span {
            entry,
            end,
            start_ns: entry,
            anchor,
        }
    }

    #[test]
    fn own_times_and_the_rest_add_up_to_the_cycle() {
        let mut cycles = Cycles::default();
        let mut told = 0;
        let mut rests = Vec::new();
        for number in 0..4 {
            let at = 1_000 * number;
            for (span, schedules) in [
                (span(at + 10, at + 50, Some(step(number))), true),
                (span(at + 60, at + 90, None), false),
                (span(at, at + 100, None), false),
                (span(at + 200, at + 700, None), false),
            ] {
                let (own, rest) = cycles.ended(THREAD, span, schedules);
                told += if number == 0 { own } else { 0 };
                rests.extend(rest);
            }
        }
        assert_eq!(told, 600);
        let of = |rest: &Rest| {
            (
                rest.start_ns,
                rest.cycles,
                rest.step.map(|step| step.number),
            )
        };
        let rests: Vec<_> = rests.iter().map(of).collect();
        assert_eq!(rests, [(0, 400, Some(0)), (1_000, 400, Some(1))]);
    }

    #[test]
    fn a_forward_pass_of_a_thread_that_schedules_begins_no_cycle() {
        let mut cycles = Cycles::default();
        for number in 0..3 {
            let at = 1_000 * number;
            cycles.ended(THREAD, span(at + 10, at + 50, Some(step(number))), true);
            let (_, rest) = cycles.ended(THREAD, span(at + 60, at + 90, Some(step(9))), false);
            assert_eq!(rest, None);
            cycles.ended(THREAD, span(at, at + 100, None), false);
        }
        let (_, rest) = cycles.ended(THREAD, span(3_010, 3_020, Some(step(3))), true);
        assert_eq!(
            rest.map(|rest| (rest.start_ns, rest.cycles)),
            Some((1_000, 900))
        );
    }
}
