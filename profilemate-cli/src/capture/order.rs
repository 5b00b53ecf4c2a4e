//! Puts calls into the order of their time, over a bounded window.
//!
//! A call is held until something `window_ns` younger was seen. Notes that change the meaning of later calls are
//! barriers: everything before them is released first, so that they keep their place. The others pass at once.

use std::collections::VecDeque;

use crate::event::{Event, Note};

/// How long a call is held, at most, while younger ones come.
pub const WINDOW_NS: u64 = 50_000_000;
/// Calls held, at most; beyond, the oldest is released.
pub const CAPACITY: usize = 65_536;

/// The reorder buffer.
pub struct Order {
    window_ns: u64,
    capacity: usize,
    /// By time, and of one time in the order of arrival. Nearly every call is the youngest when it comes, so it is
    /// put at the end; the few others move some neighbours.
    held: VecDeque<(u64, Event)>,
    watermark_ns: u64,
    late: u64,
    released_ns: u64,
}

impl Default for Order {
    fn default() -> Self {
        Self::new(WINDOW_NS, CAPACITY)
    }
}

impl Order {
    /// A buffer that holds each call for `window_ns`, and `capacity` calls at most.
    pub fn new(window_ns: u64, capacity: usize) -> Self {
        Self {
            window_ns,
            capacity,
            held: VecDeque::new(),
            watermark_ns: 0,
            late: 0,
            released_ns: 0,
        }
    }

    /// Takes one event and hands out those that are ripe.
    pub fn push(&mut self, event: Event, out: &mut impl FnMut(Event)) {
        let ts_ns = match &event {
            Event::Call(call) => call.ts_ns,
            Event::Driver(call) => call.ts_ns,
            // Before the call that it belongs to, also if that was told when it began.
            Event::Frame(frame) => frame.entry_ns.saturating_sub(1),
            Event::Note(note) => {
                if is_barrier(note) {
                    self.flush(out);
                }
                out(event);
                return;
            }
        };
        if ts_ns < self.released_ns {
            self.late += 1;
        }
        if self.held.back().is_none_or(|(last, _)| *last <= ts_ns) {
            self.held.push_back((ts_ns, event));
        } else {
            let at = self.held.partition_point(|(held, _)| *held <= ts_ns);
            self.held.insert(at, (ts_ns, event));
        }
        self.advance(ts_ns, out);
    }

    /// Everything older than `now_ns` less the window has arrived: hands it out.
    pub fn advance(&mut self, now_ns: u64, out: &mut impl FnMut(Event)) {
        self.watermark_ns = self.watermark_ns.max(now_ns);
        while let Some((ts_ns, _)) = self.held.front() {
            if ts_ns.saturating_add(self.window_ns) > self.watermark_ns
                && self.held.len() <= self.capacity
            {
                break;
            }
            self.pop(out);
        }
    }

    /// Hands out everything.
    pub fn flush(&mut self, out: &mut impl FnMut(Event)) {
        while !self.held.is_empty() {
            self.pop(out);
        }
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Calls that came after a younger one had been handed out.
    pub fn late(&self) -> u64 {
        self.late
    }

    fn pop(&mut self, out: &mut impl FnMut(Event)) {
        if let Some((ts_ns, event)) = self.held.pop_front() {
            self.released_ns = self.released_ns.max(ts_ns);
            out(event);
        }
    }
}

/// Whether calls before and after the note must not pass it.
fn is_barrier(note: &Note) -> bool {
    match note {
        Note::Session(_)
        | Note::Process(_)
        | Note::Method(_)
        | Note::Program(_)
        | Note::Library(_)
        | Note::Walk(_)
        | Note::Snapshot(_)
        | Note::Checkpoint(_)
        | Note::Shed(_)
        | Note::ProcessEnded { .. }
        | Note::Ended { .. } => true,
        Note::Unbound { .. }
        | Note::Doubt { .. }
        | Note::Counters(_)
        | Note::Clock { .. }
        | Note::Ledger(_)
        | Note::Cost(_)
        | Note::NotCovered { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Call, Outcome, Phase};
    use proptest::prelude::*;

    fn call(ts_ns: u64) -> Event {
        Event::Call(Call {
            pid: 1,
            tid: 1,
            page: 0,
            slot: 0,
            phase: Phase::Return,
            ts_ns,
            entry_cycles: 0,
            return_cycles: 0,
            outcome: Outcome::None,
            fields: vec![],
            program: 0,
        })
    }

    fn stamp(event: &Event) -> Option<u64> {
        match event {
            Event::Call(call) => Some(call.ts_ns),
            Event::Driver(_) | Event::Frame(_) | Event::Note(_) => None,
        }
    }

    #[test]
    fn a_call_waits_for_its_window_and_a_tick_releases_it() {
        let mut order = Order::new(50, 100);
        let mut out = Vec::new();
        order.push(call(100), &mut |event| out.push(event));
        order.push(call(149), &mut |event| out.push(event));
        assert!(out.is_empty());
        order.advance(150, &mut |event| out.push(event));
        assert_eq!(out.len(), 1);
        order.advance(199, &mut |event| out.push(event));
        assert_eq!(out.len(), 2);
        assert!(order.is_empty());
    }

    #[test]
    fn a_barrier_keeps_its_place_and_a_counter_passes() {
        let mut order = Order::new(50, 100);
        let mut out = Vec::new();
        order.push(call(100), &mut |event| out.push(event));
        order.push(
            Event::Note(Note::Ledger(crate::event::Ledger::default())),
            &mut |event| out.push(event),
        );
        assert_eq!(out.len(), 1, "the ledger passes");
        let ended = Note::ProcessEnded {
            pid: 1,
            at_ns: 0,
            reason: String::new(),
        };
        order.push(Event::Note(ended), &mut |event| out.push(event));
        assert_eq!(
            out.iter().map(stamp).collect::<Vec<_>>(),
            [None, Some(100), None]
        );
        order.push(call(90), &mut |event| out.push(event));
        assert_eq!(order.late(), 1);
    }

    #[test]
    fn a_full_buffer_releases_its_oldest() {
        let mut order = Order::new(1_000, 3);
        let mut out = Vec::new();
        for ts in [5, 4, 3, 2, 1] {
            order.push(call(ts), &mut |event| out.push(event));
        }
        assert_eq!(
            out.iter().map(stamp).collect::<Vec<_>>(),
            [Some(2), Some(1)]
        );
    }

    proptest! {
        #[test]
        fn disorder_within_the_window_is_undone(
            gaps in proptest::collection::vec(1_u64..40, 1..80),
            delays in proptest::collection::vec(0_u64..50, 80),
        ) {
            let mut ts = 0;
            let mut arrivals: Vec<(u64, u64)> = gaps
                .iter()
                .zip(&delays)
                .map(|(gap, delay)| {
                    ts += gap;
                    (ts + delay, ts)
                })
                .collect();
            arrivals.sort_unstable();
            let mut order = Order::new(50, 1_000);
            let mut out = Vec::new();
            for (_, ts) in arrivals {
                order.push(call(ts), &mut |event| out.push(event));
            }
            order.flush(&mut |event| out.push(event));
            let stamps: Vec<_> = out.iter().filter_map(stamp).collect();
            prop_assert_eq!(stamps.len(), gaps.len());
            prop_assert!(stamps.is_sorted());
            prop_assert_eq!(order.late(), 0);
        }
    }
}
