//! Somebody who looks at the rows while they come: the live view.

use super::metadata::Overhead;
use crate::event::Process;
use crate::table::AnyRow;
use crate::table::cell::Stamp;

/// What is told from time to time, beside the rows.
#[derive(Clone, Debug)]
pub struct Pulse<'a> {
    /// Now.
    pub now: Stamp,
    /// Records decoded so far.
    pub events: u64,
    /// Records lost so far.
    pub lost: u64,
    /// What tracing cost so far.
    pub overhead: Option<Overhead>,
    /// The processes of the target that are there.
    pub processes: Vec<&'a Process>,
}

/// Looks at rows. Works in the thread of the pipeline, so it must not wait for anything.
pub trait Watcher: Send {
    /// A row is complete.
    fn row(&mut self, row: &AnyRow);
    /// Time has passed.
    fn pulse(&mut self, pulse: &Pulse<'_>);
}
