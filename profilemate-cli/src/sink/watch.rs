//! Somebody who looks at the rows while they come: the live view.

use super::metadata::Overhead;
use crate::aggregate::coverage::Coverage;
use crate::event::Process;
use crate::event::recorder::Cost;
use crate::table::AnyRow;
use crate::table::cell::Stamp;

/// Records that did not arrive, by where they were lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// The kernel's ring buffer was full.
    pub ring: u64,
    /// The same, for calls of the CUDA driver.
    pub driver: u64,
    /// The log of a marker page was not read in time.
    pub log: u64,
    /// Dropped in user space.
    pub userspace: u64,
    /// They arrived and could not be decoded.
    pub undecodable: u64,
}

/// What is told from time to time, beside the rows.
#[derive(Clone, Debug)]
pub struct Pulse<'a> {
    /// Now.
    pub now: Stamp,
    /// Records decoded so far.
    pub events: u64,
    /// Records lost so far.
    pub lost: u64,
    /// The same by where they were lost, and what could not be decoded.
    pub losses: Losses,
    /// What tracing cost so far.
    pub overhead: Option<Overhead>,
    /// What tracing costs each process, latest; nothing where it is not measured.
    pub costs: Vec<Cost>,
    /// When the session began, in nanoseconds since 1970, if that is known.
    pub began_unix_ns: Option<i64>,
    /// The processes of the target that are there.
    pub processes: Vec<&'a Process>,
}

/// Looks at rows. Works in the thread of the pipeline, so it must not wait for anything.
pub trait Watcher: Send {
    /// A row is complete.
    fn row(&mut self, row: &AnyRow);
    /// Time has passed.
    fn pulse(&mut self, pulse: &Pulse<'_>);
    /// How far each table, by its file name without `.csv`, would tell what happens if nothing had happened yet. Comes
    /// about once a second.
    fn covers(&mut self, _covers: &[(&'static str, Coverage)]) {}
}
