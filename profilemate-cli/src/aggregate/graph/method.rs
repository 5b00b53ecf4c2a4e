//! The methods that tell what is captured and what is decided.

use super::capture::Capture;
use super::decision::Decision;
use super::descriptor::{Descriptor, Mode};
use super::exec::{Exec, Source};
use crate::aggregate::{Aggregator, Rows, Seen};
use crate::event::{DriverCall, Outcome, Phase};
use profilemate_common::driver::Function;

/// What is done with a method's calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It decides.
    Dispatch,
    /// It replays the full graph of a size.
    DispatchFull,
    /// It replays an encoder's graph.
    DispatchEncoder,
    /// It captures; each capture inside is one.
    Capture,
    /// It captures; all captures inside are one.
    Segments,
    /// It captures an encoder's graph.
    CaptureEncoder,
    /// It describes the next capture.
    Hint,
    /// It brackets vLLM's captures.
    CaptureModel,
    /// It brackets captures that are thrown away.
    Profile,
}

impl Part {
    /// The part of a method with this catalogue id.
    pub fn of(id: &str) -> Option<Self> {
        Some(match id {
            "graph.dispatch" => Self::Dispatch,
            "graph.dispatch_full" => Self::DispatchFull,
            "graph.dispatch_encoder" => Self::DispatchEncoder,
            "graph.capture" => Self::Capture,
            "graph.segments" => Self::Segments,
            "graph.capture_encoder" => Self::CaptureEncoder,
            "graph.hint" => Self::Hint,
            "graph.capture_model" => Self::CaptureModel,
            "graph.profile" => Self::Profile,
            _ => return None,
        })
    }
}

impl Aggregator {
    /// Takes a call of one of the methods, at its entry or at its end.
    pub(in crate::aggregate) fn graph_call(&mut self, part: Part, seen: Seen<'_>, rows: &mut Rows) {
        let entered = seen.call.phase == Phase::Entry;
        let pid = seen.call.pid;
        match part {
            Part::Dispatch if !entered => self.decided(seen, Some, rows),
            Part::DispatchFull if entered => {
                let full = |decision: Decision| {
                    let mode = Some(Mode::Full);
                    let descriptor = Descriptor {
                        mode,
                        ..decision.descriptor
                    };
                    Some(Decision {
                        repeats: true,
                        descriptor,
                        ..decision
                    })
                };
                self.decided(seen, full, rows);
            }
            Part::DispatchEncoder if entered => {
                let encoder = |decision: Decision| {
                    let descriptor = encoder(decision.descriptor);
                    Some(Decision {
                        descriptor,
                        ..decision
                    })
                };
                self.decided(seen, encoder, rows);
            }
            Part::Dispatch | Part::DispatchFull | Part::DispatchEncoder => {}
            Part::Capture | Part::Segments | Part::CaptureEncoder if entered => {
                let thread = self.graphs.thread(pid, seen.call.tid);
                thread.captures.enter(seen.call.ts_ns);
                self.graphs.windows.open(pid);
            }
            Part::Capture | Part::Segments | Part::CaptureEncoder => {
                self.explain(part, seen, rows);
            }
            Part::Hint => {
                let hint = Descriptor::of(seen.fields);
                self.graphs.thread(pid, seen.call.tid).hint = hint;
            }
            Part::CaptureModel => {
                let brackets = self.graphs.brackets.entry(pid).or_default();
                if entered {
                    let measures = seen.fields.int("profile_only").map(|value| value != 0);
                    brackets.enter_model(measures);
                    self.graphs.windows.open(pid);
                } else {
                    brackets.leave_model();
                }
            }
            Part::Profile => {
                self.graphs
                    .brackets
                    .entry(pid)
                    .or_default()
                    .profile(entered);
                self.graphs.windows.open(pid);
            }
        }
    }

    fn decided(
        &mut self,
        seen: Seen<'_>,
        complete: impl Fn(Decision) -> Option<Decision>,
        rows: &mut Rows,
    ) {
        let call = seen.call;
        // Without a readable answer the last decision does not hold either.
        let decision = match call.outcome {
            Outcome::Raised => None,
            _ => Decision::of(seen.fields, call.ts_ns).and_then(complete),
        };
        if let Some(decision) = &decision {
            self.graphs.enabled |= !decision.disabled;
            self.graphs.disabled |= decision.disabled;
        }
        let decision = decision.unwrap_or_else(|| Decision {
            at_ns: call.ts_ns,
            ..Decision::default()
        });
        self.graphs.decisions += 1;
        let decision = Decision {
            serial: self.graphs.decisions,
            ..decision
        };
        let ended = self.graphs.thread(call.pid, call.tid).decide(decision);
        if let Some(replay) = ended {
            self.replayed(call.pid, &replay, rows);
        }
    }

    /// A method that captures has returned: rows of what was captured inside.
    fn explain(&mut self, part: Part, seen: Seen<'_>, rows: &mut Rows) {
        let call = seen.call;
        let throwaway = self.graphs.throwaway(call.pid);
        // The begin is reckoned from cycles; a thousandth of the duration covers the error.
        let slack_ns = seen.duration_ns.map_or(u64::MAX, |ns| ns / 1_000);
        let start_ns = seen.start_ns().saturating_sub(slack_ns);
        let thread = self.graphs.thread(call.pid, call.tid);
        let mut captures = thread.captures.leave(start_ns, call.ts_ns, throwaway);
        if call.outcome == Outcome::Raised {
            for capture in &mut captures {
                if capture.outcome == super::capture::Outcome::Captured {
                    capture.outcome = super::capture::Outcome::Failed;
                }
            }
        }
        if part == Part::Segments {
            captures = Capture::merged(captures).into_iter().collect();
        }
        let mut descriptor = Descriptor::of(seen.fields);
        if part == Part::CaptureEncoder {
            descriptor = descriptor.map(encoder);
        }
        let piece = seen.fields.int("piece").zip(seen.fields.int("pieces"));
        let module = piece
            .filter(|_| {
                descriptor
                    .as_ref()
                    .is_some_and(|descriptor| descriptor.mode == Some(Mode::Piecewise))
            })
            .map(|(piece, pieces)| format!("piece {} of {pieces}", piece.saturating_add(1)));
        for capture in captures {
            // What this method did not say, one that described the capture may have said.
            let told = descriptor.clone().map(|descriptor| {
                let clues = &capture.clues;
                let fitting = [&clues.hint, &clues.decided]
                    .into_iter()
                    .flatten()
                    .find(|clue| descriptor.fits(clue));
                Exec {
                    descriptor: match fitting {
                        Some(clue) => descriptor.or(clue),
                        None => descriptor,
                    },
                    source: Source::Capture,
                }
            });
            self.captured(call.pid, &capture, told, module.clone(), rows);
        }
    }
}

impl Aggregator {
    /// A walk of the stack says which graph is launched next.
    pub(in crate::aggregate) fn graph_named(
        &mut self,
        pid: u32,
        tid: u32,
        decision: Decision,
        rows: &mut Rows,
    ) {
        self.graphs.enabled = true;
        self.graphs.decisions += 1;
        let serial = self.graphs.decisions;
        let ended = self
            .graphs
            .thread(pid, tid)
            .decide(Decision { serial, ..decision });
        if let Some(replay) = ended {
            self.replayed(pid, &replay, rows);
        }
    }

    /// A walk of the stack says what is captured, and whether it is thrown away again.
    pub(in crate::aggregate) fn capture_named(
        &mut self,
        call: &DriverCall,
        hint: Option<Descriptor>,
        throwaway: Option<bool>,
    ) {
        let brackets = self.graphs.brackets.entry(call.pid).or_default();
        brackets.set(throwaway);
        if call.function == Function::StreamBeginCapture {
            self.graphs.thread(call.pid, call.tid).hint = hint;
        }
    }
}

/// The descriptor of an encoder's graph.
pub(in crate::aggregate) fn encoder(mut descriptor: Descriptor) -> Descriptor {
    descriptor.part = Some("encoder");
    descriptor
}
