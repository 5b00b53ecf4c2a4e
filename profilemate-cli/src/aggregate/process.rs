//! The processes of the target, and what is known of each.

use std::collections::{BTreeMap, HashSet};

use super::block::Pools;
use super::request::Requests;
use super::step::StepLog;
use crate::event::Process;

/// Generations from a worker up to its engine, at most.
const GENERATIONS: usize = 8;

/// One process.
#[derive(Debug, Default)]
pub struct ProcessState {
    /// What the tracer said of it; only the pid, if it said nothing.
    pub info: Process,
    /// When it was noticed that it has gone, and why.
    pub ended: Option<(u64, String)>,
    /// Schedule calls since the attach.
    pub step: u64,
    /// Its latest steps.
    pub steps: StepLog,
    /// Its requests.
    pub requests: Requests,
    /// The blocks of its KV cache pools.
    pub blocks: Pools,
    /// Requests whose preemption was seen since the latest schedule call.
    pub preempted: HashSet<String>,
    /// The engine and the step of the latest forward pass.
    pub ran: Option<(u32, u64)>,
    /// Whether the model of its latest forward pass has encoders.
    pub multimodal: Option<bool>,
    /// Rank among the engine's workers, as the model runner has it.
    rank: Option<u32>,
}

/// All processes.
#[derive(Debug, Default)]
pub struct Processes {
    by_pid: BTreeMap<u32, ProcessState>,
    gone: Vec<(Process, Option<(u64, String)>)>,
}

impl Processes {
    /// Takes what the tracer says of a process. After its end, the pid names another process.
    pub fn note(&mut self, info: Process) {
        let state = self.by_pid.entry(info.pid).or_default();
        if state.ended.is_some() {
            let old = std::mem::take(state);
            self.gone.push((old.info, old.ended));
        }
        state.info = info;
        state.info.rank = state.rank.or(state.info.rank);
    }

    /// A worker's rank as its model runner has it, which a title need not tell.
    pub fn ranked(&mut self, pid: u32, rank: u32) {
        let state = self.get_mut(pid);
        state.rank = Some(rank);
        state.info.rank = Some(rank);
    }

    /// A process has gone.
    pub fn ended(&mut self, pid: u32, at_ns: u64, reason: String) {
        let state = self.get_mut(pid);
        state.ended = Some((at_ns, reason));
        state.blocks = Pools::default();
        state.requests = Requests::default();
        state.preempted.clear();
    }

    /// One process; made known if it was not.
    pub fn get_mut(&mut self, pid: u32) -> &mut ProcessState {
        self.by_pid.entry(pid).or_insert_with(|| ProcessState {
            info: Process {
                pid,
                ..Process::default()
            },
            ..ProcessState::default()
        })
    }

    /// One process.
    pub fn get(&self, pid: u32) -> Option<&ProcessState> {
        self.by_pid.get(&pid)
    }

    /// What is known of each process that has not ended, by pid.
    pub fn states(&self) -> impl Iterator<Item = (u32, &ProcessState)> {
        let there = self
            .by_pid
            .iter()
            .filter(|(_, state)| state.ended.is_none());
        there.map(|(&pid, state)| (pid, state))
    }

    /// Rank of a worker.
    pub fn rank(&self, pid: u32) -> Option<u32> {
        self.get(pid)?.info.rank
    }

    /// Every process that was ever known, with its end: by pid, those whose pid was used again first.
    pub fn all(&self) -> impl Iterator<Item = (&Process, Option<&(u64, String)>)> {
        let gone = self.gone.iter().map(|(info, ended)| (info, ended.as_ref()));
        gone.chain(
            self.by_pid
                .values()
                .map(|state| (&state.info, state.ended.as_ref())),
        )
    }

    /// The engine that a process is or works for: itself, else an ancestor, else the one of the same index, else the
    /// only one there is.
    pub fn engine_of(&self, pid: u32) -> Option<u32> {
        let mut ancestor = pid;
        for _ in 0..GENERATIONS {
            let Some(state) = self.get(ancestor) else {
                break;
            };
            if is_engine(state) {
                return Some(ancestor);
            }
            ancestor = state.info.parent;
        }
        let engines = || {
            self.by_pid
                .iter()
                .filter(|(_, state)| is_engine(state) && state.ended.is_none())
        };
        if let Some(index) = self.get(pid).and_then(|state| state.info.engine) {
            return only(
                engines()
                    .filter(|(_, state)| state.info.engine == Some(index))
                    .map(|(&pid, _)| pid),
            );
        }
        only(engines().map(|(&pid, _)| pid))
    }

    /// No age of a block is certain any more.
    pub fn forget_blocks(&mut self) {
        for state in self.by_pid.values_mut() {
            state.blocks.forget();
        }
    }
}

fn is_engine(state: &ProcessState) -> bool {
    state.step > 0 || state.info.role == "engine_core"
}

fn only(mut pids: impl Iterator<Item = u32>) -> Option<u32> {
    let first = pids.next()?;
    pids.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, parent: u32, role: &str, engine: Option<u32>) -> Process {
        Process {
            pid,
            parent,
            role: role.to_owned(),
            engine,
            ..Process::default()
        }
    }

    #[test]
    fn a_worker_finds_its_engine() {
        let mut processes = Processes::default();
        processes.note(process(1, 0, "api_server", None));
        processes.note(process(2, 1, "engine_core", Some(0)));
        processes.note(process(3, 2, "worker", None));
        processes.note(process(4, 1, "engine_core", Some(1)));
        processes.note(process(5, 99, "worker", Some(1)));
        processes.note(process(6, 99, "worker", None));
        assert_eq!(processes.engine_of(2), Some(2), "itself");
        assert_eq!(processes.engine_of(3), Some(2), "its parent");
        assert_eq!(processes.engine_of(5), Some(4), "by index");
        assert_eq!(processes.engine_of(6), None, "two to choose from");
        processes.ended(4, 0, String::new());
        assert_eq!(processes.engine_of(6), Some(2), "the only one");
    }

    #[test]
    fn what_the_model_runner_says_of_its_rank_holds() {
        let mut processes = Processes::default();
        processes.note(Process {
            rank: Some(1),
            ..process(3, 2, "worker", None)
        });
        assert_eq!(processes.rank(3), Some(1), "by title");
        processes.ranked(3, 5);
        assert_eq!(processes.rank(3), Some(5));
        processes.note(process(3, 2, "worker", None));
        assert_eq!(processes.rank(3), Some(5), "told again");
        processes.ended(3, 7, String::new());
        processes.note(process(3, 2, "worker", None));
        assert_eq!(processes.rank(3), None, "another process");
    }

    #[test]
    fn a_circle_of_parents_ends() {
        let mut processes = Processes::default();
        processes.note(process(1, 2, "other", None));
        processes.note(process(2, 1, "other", None));
        assert_eq!(processes.engine_of(1), None);
    }

    #[test]
    fn a_pid_used_again_is_another_process() {
        let mut processes = Processes::default();
        processes.note(process(7, 1, "engine_core", None));
        processes.get_mut(7).step = 12;
        processes.note(process(7, 1, "engine_core", Some(3)));
        assert_eq!(processes.get_mut(7).step, 12, "only better known");
        processes.ended(7, 5, "exited".to_owned());
        processes.note(process(7, 1, "worker", None));
        assert_eq!(processes.get_mut(7).step, 0);
        assert_eq!(processes.all().count(), 2);
    }
}
