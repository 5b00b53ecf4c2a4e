//! When graphs can be captured, and so when the calls of the wrappers around captures are worth an event each.
//!
//! From the attach on, until the process runs a forward pass with no capture in progress; and again from the begin of
//! a capture, or of the methods that bracket vLLM's captures, until the next such pass. What is captured between such
//! a begin and the tracer's reaction to it is described by the decision before it.

use std::collections::BTreeSet;

/// Processes that serve, at most.
const CAPACITY: usize = 65_536;

/// Which processes serve.
#[derive(Debug, Default)]
pub struct Windows {
    serving: BTreeSet<u32>,
}

impl Windows {
    /// A capture begins or is to come.
    pub fn open(&mut self, pid: u32) {
        self.serving.remove(&pid);
    }

    /// A forward pass with tokens has ended, and nothing is being captured.
    pub fn close(&mut self, pid: u32) {
        if self.serving.len() < CAPACITY {
            self.serving.insert(pid);
        }
    }

    /// Processes in which no graph can be captured now.
    pub fn serving(&self) -> &BTreeSet<u32> {
        &self.serving
    }
}

/// The methods that bracket captures in one process.
#[derive(Debug, Default)]
pub struct Brackets {
    profiles: u32,
    /// For each `capture_model`: whether it only measures.
    models: Vec<Option<bool>>,
}

/// Calls of `capture_model` within one another remembered, at most.
const DEPTH: usize = 8;

impl Brackets {
    /// Captures that are thrown away again begin, or have ended.
    pub fn profile(&mut self, entered: bool) {
        self.profiles = if entered {
            self.profiles.saturating_add(1)
        } else {
            self.profiles.saturating_sub(1)
        };
    }

    /// `capture_model` is entered. `measures`: it was asked to measure only.
    pub fn enter_model(&mut self, measures: Option<bool>) {
        if self.models.len() < DEPTH {
            self.models.push(measures);
        }
    }

    /// `capture_model` has returned.
    pub fn leave_model(&mut self) {
        self.models.pop();
    }

    /// What a walk of the stack says at the begin or the end of a capture: whether it is thrown away, if a bracket is
    /// entered.
    pub fn set(&mut self, throwaway: Option<bool>) {
        self.profiles = 0;
        self.models.clear();
        self.models.extend(throwaway.map(Some));
    }

    /// Whether what is captured now is thrown away; `None` if no bracket tells.
    pub fn throwaway(&self) -> Option<bool> {
        if self.profiles > 0 || self.models.contains(&Some(true)) {
            return Some(true);
        }
        (!self.models.is_empty()).then_some(false)
    }

    /// Whether one is open.
    pub fn is_open(&self) -> bool {
        self.profiles > 0 || !self.models.is_empty()
    }
}
