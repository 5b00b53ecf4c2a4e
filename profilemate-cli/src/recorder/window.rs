//! The latest part of a stream, in bounded memory. Pure: time and checkpoints are given.
//!
//! The stream is cut into segments. With each begins a checkpoint of what the aggregation knew there, so the window can
//! begin at any of them. The oldest segment goes when the window is whole without it, or when there is no room; the
//! notes in it are folded into those that stand.

use std::collections::VecDeque;
use std::sync::Arc;

use super::standing::Standing;
use crate::aggregate::checkpoint::Checkpoint;
use crate::capture::frame::{HEAD_LEN, KIND_NOTE, KIND_RECORD};
use crate::event::Note;

/// Parts that a window is cut into: a snapshot can tell of so much more than was asked for.
const PARTS: u64 = 16;

/// A part of the stream that is complete.
#[derive(Debug, Default)]
pub struct Segment {
    /// First moment.
    pub from_ns: u64,
    /// What was known then; `None` at the beginning of the stream.
    pub checkpoint: Option<Checkpoint>,
    /// Bytes that the checkpoint takes, about.
    weight: usize,
    frames: Vec<u8>,
    records: u64,
}

impl Segment {
    /// The frames in order: kind and bytes.
    pub fn frames(&self) -> Frames<'_> {
        Frames(&self.frames)
    }

    /// Its bytes, about.
    pub fn bytes(&self) -> usize {
        self.frames.capacity() + self.weight
    }

    fn put(&mut self, kind: u8, bytes: &[u8]) {
        self.frames
            .extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.frames.push(kind);
        self.frames.extend_from_slice(bytes);
        self.records += u64::from(kind == KIND_RECORD);
    }
}

/// Frames of a segment.
pub struct Frames<'a>(&'a [u8]);

impl<'a> Iterator for Frames<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, rest) = self.0.split_at_checked(HEAD_LEN)?;
        let len = u32::from_le_bytes(*head.first_chunk()?) as usize;
        let (bytes, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((head[4], bytes))
    }
}

/// What left the window, in records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// They were older than the window.
    pub old: u64,
    /// There was no room for them.
    pub full: u64,
}

/// The window as it was at one moment.
#[derive(Clone, Debug)]
pub struct Taken {
    /// First moment.
    pub from_ns: u64,
    /// Last moment.
    pub to_ns: u64,
    /// The notes that hold at its beginning.
    pub standing: Vec<Note>,
    /// The stream from there on.
    pub segments: Vec<Arc<Segment>>,
    /// What had left it by then.
    pub dropped: Dropped,
}

impl Taken {
    /// Bytes of its frames.
    pub fn bytes(&self) -> u64 {
        let bytes = self.segments.iter().map(|segment| segment.frames.len());
        bytes.sum::<usize>() as u64
    }
}

/// The window.
#[derive(Debug)]
pub struct Window {
    span_ns: u64,
    limit: usize,
    standing: Standing,
    segments: VecDeque<Arc<Segment>>,
    open: Segment,
    dropped: Dropped,
}

impl Window {
    /// A window over `span_ns` that takes `limit` bytes at most, from `now_ns` on.
    pub fn new(span_ns: u64, limit: usize, now_ns: u64) -> Self {
        Self {
            span_ns,
            limit,
            standing: Standing::default(),
            segments: VecDeque::new(),
            open: Segment {
                from_ns: now_ns,
                ..Segment::default()
            },
            dropped: Dropped::default(),
        }
    }

    /// Takes a frame of the stream.
    pub fn frame(&mut self, kind: u8, bytes: &[u8]) {
        self.open.put(kind, bytes);
        self.make_room();
    }

    /// Whether a segment is to be completed: with a checkpoint, see [`Window::seal`].
    pub fn is_due(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.open.from_ns) >= self.span_ns / PARTS
            || self.open.frames.len() >= self.limit / PARTS as usize
    }

    /// Completes a segment. `checkpoint` is what is known now, of `weight` bytes.
    pub fn seal(&mut self, now_ns: u64, checkpoint: Checkpoint, weight: usize) {
        let next = Segment {
            from_ns: now_ns,
            checkpoint: Some(checkpoint),
            weight,
            ..Segment::default()
        };
        let mut done = std::mem::replace(&mut self.open, next);
        done.frames.shrink_to_fit();
        self.segments.push_back(Arc::new(done));
        self.make_room();
        let start = now_ns.saturating_sub(self.span_ns);
        while self.second_from() <= start && !self.segments.is_empty() {
            let records = self.drop_oldest();
            self.dropped.old += records;
        }
    }

    /// The window as it is. A segment was completed just now.
    pub fn take(&self, now_ns: u64) -> Taken {
        let from_ns = self.segments.front().map_or(now_ns, |first| first.from_ns);
        Taken {
            from_ns,
            to_ns: now_ns,
            standing: self.standing.notes(),
            segments: self.segments.iter().cloned().collect(),
            dropped: self.dropped,
        }
    }

    /// Bytes that it takes, about.
    pub fn bytes(&self) -> usize {
        let complete = self.segments.iter().map(|segment| segment.bytes());
        complete.sum::<usize>() + self.open.bytes()
    }

    /// What has left it so far.
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// First moment of the second oldest segment.
    fn second_from(&self) -> u64 {
        self.segments
            .get(1)
            .map_or(self.open.from_ns, |second| second.from_ns)
    }

    fn make_room(&mut self) {
        // Only a look at the lengths, unless there is something to do.
        while !self.segments.is_empty() && self.bytes() > self.limit {
            let records = self.drop_oldest();
            self.dropped.full += records;
        }
    }

    fn drop_oldest(&mut self) -> u64 {
        let Some(oldest) = self.segments.pop_front() else {
            return 0;
        };
        for (kind, bytes) in oldest.frames() {
            if kind == KIND_NOTE
                && let Ok(note) = serde_json::from_slice(bytes)
            {
                self.standing.take(note);
            }
        }
        oldest.records
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Process;

    const SECOND: u64 = 1_000_000_000;

    fn seal(window: &mut Window, now_ns: u64) {
        window.seal(now_ns, Checkpoint::default(), 10);
    }

    fn records(taken: &Taken) -> Vec<u8> {
        let frames = taken.segments.iter().flat_map(|segment| segment.frames());
        frames
            .filter(|(kind, _)| *kind == KIND_RECORD)
            .map(|(_, bytes)| bytes[0])
            .collect()
    }

    #[test]
    fn what_is_older_than_the_window_goes_and_its_notes_stand() {
        let mut window = Window::new(2 * SECOND, 1 << 20, 0);
        let note = Note::Process(Process {
            pid: 7,
            ..Process::default()
        });
        window.frame(KIND_NOTE, &serde_json::to_vec(&note).unwrap());
        for second in 0..6_u8 {
            window.frame(KIND_RECORD, &[second]);
            seal(&mut window, u64::from(second + 1) * SECOND);
        }
        let taken = window.take(6 * SECOND);
        assert_eq!(records(&taken), [4, 5]);
        assert_eq!((taken.from_ns, taken.to_ns), (4 * SECOND, 6 * SECOND));
        assert_eq!(taken.standing, [note]);
        assert_eq!(window.dropped(), Dropped { old: 4, full: 0 });
        assert!(taken.segments[0].checkpoint.is_some());
    }

    #[test]
    fn a_window_that_is_full_drops_its_oldest_and_counts_them() {
        let mut window = Window::new(1_000 * SECOND, 4_000, 0);
        for number in 0..100_u64 {
            window.frame(KIND_RECORD, &[number as u8; 100]);
            if window.is_due(number) {
                seal(&mut window, number);
            }
            assert!(window.bytes() <= 4_000 + 400, "{}", window.bytes());
        }
        seal(&mut window, 100);
        let taken = window.take(100);
        let kept = records(&taken);
        assert_eq!(kept.last(), Some(&99));
        assert_eq!(kept.len() as u64 + window.dropped().full, 100);
        assert!(kept.len() > 20, "{}", kept.len());
    }

    #[test]
    fn a_segment_is_due_by_time_and_by_size() {
        let mut window = Window::new(16 * SECOND, 1 << 20, 0);
        assert!(!window.is_due(SECOND - 1) && window.is_due(SECOND));
        window.frame(KIND_RECORD, &vec![0; (1 << 20) / 16]);
        assert!(window.is_due(1));
    }

    proptest! {
        #[test]
        fn it_is_the_end_of_the_stream_without_a_gap(
            steps in proptest::collection::vec((1_u64..400, 1_usize..300, any::<bool>()), 1..200),
            span in 1_u64..3_000,
            limit in 200_usize..20_000,
        ) {
            let mut window = Window::new(span, limit, 0);
            let mut now = 0;
            for (index, (gap, len, sealed)) in steps.iter().enumerate() {
                window.frame(KIND_RECORD, &vec![index as u8; *len]);
                now += gap;
                if *sealed || window.is_due(now) {
                    seal(&mut window, now);
                }
            }
            seal(&mut window, now);
            let taken = window.take(now);
            let kept = records(&taken);
            let dropped = window.dropped();
            prop_assert_eq!(kept.len() as u64 + dropped.old + dropped.full, steps.len() as u64);
            let expected: Vec<u8> = (steps.len() - kept.len()..steps.len()).map(|i| i as u8).collect();
            prop_assert_eq!(kept, expected);
            prop_assert!(window.segments.len() <= 1 || window.bytes() <= limit);
            if dropped.full == 0 && dropped.old > 0 {
                prop_assert!(taken.to_ns - taken.from_ns >= span);
            }
        }
    }
}
