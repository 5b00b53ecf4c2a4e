//! Captures: from begin to end on a thread, and what was captured.

use super::descriptor::Descriptor;
use super::exec::{Exec, Source};

/// Captures of one thread that have begun, and methods that are entered, at most.
const OPEN: usize = 16;
/// Captures of one thread that wait for the method around them, at most.
const DONE: usize = 4_096;

/// How a capture ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It made a graph.
    Captured,
    /// The driver made no graph, or the method around it raised.
    Failed,
    /// It was begun and never ended.
    Aborted,
}

impl Outcome {
    /// As it stands in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Captured => "captured",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
        }
    }
}

/// A capture that has begun.
#[derive(Clone, Debug)]
struct Open {
    stream: u64,
    begin_ns: u64,
    clues: Clues,
}

/// What was known when a capture began, for the case that no method around it tells more.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Clues {
    /// From a method that describes the next capture.
    pub hint: Option<Descriptor>,
    /// What was decided last for this thread.
    pub decided: Option<Descriptor>,
}

/// A capture that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Capture {
    /// When it began; `None` if that was not seen.
    pub begin_ns: Option<u64>,
    /// When it ended, or was found not to end any more.
    pub end_ns: u64,
    /// The graph's handle.
    pub graph: Option<u64>,
    /// Handles of the executable graphs made of it.
    pub execs: Vec<u64>,
    /// How it ended.
    pub outcome: Outcome,
    /// What was known when it began.
    pub clues: Clues,
    /// Whether vLLM throws the graph away again.
    pub throwaway: Option<bool>,
    /// Graphs made.
    pub graphs: u64,
}

impl Clues {
    /// What they say of the graph.
    pub fn exec(&self) -> Option<Exec> {
        let hinted = self.hint.as_ref().map(|hint| (hint, Source::Capture));
        let decided = self
            .decided
            .as_ref()
            .map(|decided| (decided, Source::Dispatch));
        hinted.or(decided).map(|(descriptor, source)| Exec {
            descriptor: descriptor.clone(),
            source,
        })
    }
}

impl Capture {
    /// Nanoseconds from begin to end, if it had both.
    pub fn duration_ns(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Aborted => None,
            Outcome::Captured | Outcome::Failed => self.end_ns.checked_sub(self.begin_ns?),
        }
    }

    /// Captures that stand for one: from the first begin to the last end.
    pub fn merged(captures: Vec<Self>) -> Option<Self> {
        let mut captures = captures.into_iter();
        let mut all = captures.next()?;
        for capture in captures {
            all.end_ns = all.end_ns.max(capture.end_ns);
            all.execs.extend(capture.execs);
            all.graphs += capture.graphs;
            if capture.outcome != Outcome::Captured {
                all.outcome = capture.outcome;
            }
        }
        Some(all)
    }
}

/// The captures of one thread.
#[derive(Debug, Default)]
pub struct Captures {
    open: Vec<Open>,
    done: Vec<Capture>,
    /// When methods that capture were entered that have not returned.
    entered: Vec<u64>,
}

impl Captures {
    /// A capture begins on a stream. One that has begun there and not ended never will.
    pub fn begin(&mut self, stream: u64, at_ns: u64, clues: Clues, throwaway: Option<bool>) {
        if let Some(before) = self.open.iter().position(|open| open.stream == stream) {
            let before = self.open.remove(before);
            self.push(aborted(before, at_ns, throwaway));
        }
        if self.open.len() < OPEN {
            self.open.push(Open {
                stream,
                begin_ns: at_ns,
                clues,
            });
        }
    }

    /// A capture ends on a stream, and gives a graph unless it failed.
    pub fn end(
        &mut self,
        stream: u64,
        at_ns: u64,
        graph: Option<u64>,
        failed: bool,
        throwaway: Option<bool>,
    ) {
        let begun = self.open.iter().position(|open| open.stream == stream);
        let begun = begun.map(|index| self.open.remove(index));
        self.push(Capture {
            begin_ns: begun.as_ref().map(|open| open.begin_ns),
            end_ns: at_ns,
            graph,
            execs: Vec::new(),
            outcome: if failed {
                Outcome::Failed
            } else {
                Outcome::Captured
            },
            clues: begun.map(|open| open.clues).unwrap_or_default(),
            throwaway,
            graphs: u64::from(!failed),
        });
    }

    /// An executable graph was made of a graph: of which capture, if of one of these.
    pub fn instantiate(&mut self, graph: u64, exec: u64) -> Option<&Capture> {
        let capture = self
            .done
            .iter_mut()
            .rev()
            .find(|capture| capture.graph == Some(graph))?;
        capture.execs.push(exec);
        Some(capture)
    }

    /// A method that captures was entered.
    pub fn enter(&mut self, at_ns: u64) {
        if self.entered.len() == OPEN {
            self.entered.remove(0);
        }
        self.entered.push(at_ns);
    }

    /// A method that captures, entered at `start_ns`, has returned: what was
    /// captured inside.
    pub fn leave(&mut self, start_ns: u64, now_ns: u64, throwaway: Option<bool>) -> Vec<Capture> {
        self.entered.retain(|&entered| entered < start_ns);
        let inside = |begin_ns: Option<u64>| begin_ns.is_none_or(|begin| begin >= start_ns);
        let (taken, left) = std::mem::take(&mut self.done)
            .into_iter()
            .partition(|capture: &Capture| inside(capture.begin_ns) && capture.end_ns >= start_ns);
        self.done = left;
        let mut taken: Vec<Capture> = taken;
        let (never, open) = std::mem::take(&mut self.open)
            .into_iter()
            .partition(|open: &Open| open.begin_ns >= start_ns);
        self.open = open;
        let never: Vec<Open> = never;
        taken.extend(
            never
                .into_iter()
                .map(|open| aborted(open, now_ns, throwaway)),
        );
        taken
    }

    /// Captures that ended before `old_ns` and that no method around them can explain any more.
    pub fn unexplained(&mut self, old_ns: u64) -> Vec<Capture> {
        if !self.entered.is_empty() && self.done.len() < DONE {
            return Vec::new();
        }
        let (old, left) = std::mem::take(&mut self.done)
            .into_iter()
            .partition(|capture| capture.end_ns < old_ns);
        self.done = left;
        old
    }

    /// All that has ended. What has begun and will not end any more, because its process has ended at `never_ns`, too.
    pub fn take_all(&mut self, never_ns: Option<u64>, throwaway: Option<bool>) -> Vec<Capture> {
        self.entered.clear();
        let mut all = std::mem::take(&mut self.done);
        let open = std::mem::take(&mut self.open);
        if let Some(never_ns) = never_ns {
            all.extend(
                open.into_iter()
                    .map(|open| aborted(open, never_ns, throwaway)),
            );
        }
        all
    }

    /// A record was lost: begins and ends may not belong together, and methods around may have returned.
    pub fn forget(&mut self) {
        self.open.clear();
        self.entered.clear();
        for capture in &mut self.done {
            capture.clues = Clues::default();
        }
    }

    /// Whether a capture is in progress.
    pub fn is_capturing(&self) -> bool {
        !self.open.is_empty() || !self.entered.is_empty()
    }

    /// Whether something waits to be explained.
    pub fn is_waiting(&self) -> bool {
        !self.done.is_empty()
    }

    fn push(&mut self, capture: Capture) {
        if self.done.len() >= DONE {
            self.done.remove(0);
        }
        self.done.push(capture);
    }
}

fn aborted(open: Open, now_ns: u64, throwaway: Option<bool>) -> Capture {
    Capture {
        begin_ns: Some(open.begin_ns),
        end_ns: now_ns,
        graph: None,
        execs: Vec::new(),
        outcome: Outcome::Aborted,
        clues: open.clues,
        throwaway,
        graphs: 0,
    }
}
