//! One thread at the driver: what was decided for it, what it captures and what it launches.

use std::collections::VecDeque;

use super::capture::{Captures, Clues};
use super::decision::Decision;
use super::descriptor::{Descriptor, Mode};
use super::exec::{Exec, Source};
use super::pass::Log;
use super::replay::{Launch, Replay};

/// Decisions since the last pass remembered, at most.
const DECISIONS: usize = 64;

/// One thread.
#[derive(Debug, Default)]
pub struct Thread {
    /// Its captures.
    pub captures: Captures,
    /// Its driver calls since the last pass.
    pub log: Log,
    /// Describes the next capture.
    pub hint: Option<Descriptor>,
    decisions: VecDeque<Decision>,
    /// The last decision still holds.
    live: bool,
    replay: Option<Replay>,
}

impl Thread {
    /// A decision was made for what follows. Gives the replay before it.
    pub fn decide(&mut self, mut decision: Decision) -> Option<Replay> {
        if self.live
            && let Some(before) = self.decisions.back()
            && decision.is_of_batch_of(before)
        {
            decision.again(before);
            self.decisions.pop_back();
        }
        if self.decisions.len() == DECISIONS {
            self.decisions.pop_front();
        }
        self.decisions.push_back(decision);
        self.live = true;
        self.replay.take()
    }

    /// What is known for a capture that begins now.
    pub fn clues(&mut self) -> Clues {
        let decided = self.decisions.back().filter(|_| self.live);
        Clues {
            hint: self.hint.take(),
            decided: decided
                .filter(|decision| says_which(decision))
                .map(|decision| decision.descriptor.clone()),
        }
    }

    /// A graph was launched, of which `exec` is known. Gives the replay before, if this is another one, and what was
    /// learned of the graph.
    pub fn launch(
        &mut self,
        launch: Launch,
        exec: Option<&Exec>,
    ) -> (Option<Replay>, Option<Exec>) {
        if let Some(replay) = &self.replay
            && replay.decision != 0
            && replay.execs.contains(&launch.exec)
        {
            // Each graph is launched once for a decision: this launch is of another one, which was not seen.
            self.live = false;
        }
        let decision = self
            .decisions
            .back_mut()
            .filter(|_| self.live)
            .filter(|decision| says_which(decision));
        let (known, carried) = attribute(exec, decision.as_deref());
        let (serial, tokens) = match decision {
            Some(decision) if carried => {
                decision.launches += 1;
                (decision.serial, decision.batch_tokens)
            }
            _ => (0, None),
        };
        let descriptor = known.as_ref().map(|known| &known.descriptor);
        let ended = self
            .replay
            .take_if(|replay| !replay.continues(descriptor, serial, launch.exec));
        self.replay
            .get_or_insert_with(|| Replay {
                batch_tokens: tokens,
                decision: serial,
                ..Replay::new(
                    descriptor.cloned(),
                    known.as_ref().map(|known| known.source),
                    launch.entry_ns,
                )
            })
            .add(launch);
        (ended, known)
    }

    /// A pass that began at `start_ns` has ended: what was decided for it first, and the replay that ends with it.
    pub fn pass(&mut self, start_ns: u64) -> (Option<Decision>, Option<Replay>) {
        let decision = self
            .decisions
            .drain(..)
            .find(|decision| decision.at_ns >= start_ns && decision.descriptor.part.is_none());
        self.live = false;
        (decision, self.replay.take())
    }

    /// The replay in progress, if its last launch was before `old_ns`.
    pub fn replay_before(&mut self, old_ns: u64) -> Option<Replay> {
        self.replay.take_if(|replay| replay.last_ns < old_ns)
    }

    /// Whether a replay is in progress.
    pub fn is_replaying(&self) -> bool {
        self.replay.is_some()
    }

    /// A record was lost: what was decided may not be what follows. Gives the replay until then.
    pub fn forget(&mut self) -> Option<Replay> {
        self.captures.forget();
        self.log.forget();
        self.hint = None;
        self.decisions.clear();
        self.live = false;
        self.replay.take()
    }
}

/// Whether a decision names a graph.
fn says_which(decision: &Decision) -> bool {
    decision.descriptor.tokens.is_some() && decision.descriptor.mode != Some(Mode::None)
}

/// Which graph it is, and whether it carries out the decision.
fn attribute(exec: Option<&Exec>, decision: Option<&Decision>) -> (Option<Exec>, bool) {
    match (exec, decision) {
        (Some(exec), Some(decision)) if exec.descriptor.fits(&decision.descriptor) => {
            let descriptor = exec.descriptor.clone().or(&decision.descriptor);
            let known = Exec {
                descriptor,
                source: exec.source,
            };
            (Some(known), true)
        }
        // Its capture tells what it is: this launch is not of the batch that was decided on.
        (Some(exec), Some(_)) if exec.source == Source::Capture => (Some(exec.clone()), false),
        (_, Some(decision)) => {
            let known = Exec {
                descriptor: decision.descriptor.clone(),
                source: Source::Dispatch,
            };
            (Some(known), true)
        }
        (exec, None) => (exec.cloned(), false),
    }
}
