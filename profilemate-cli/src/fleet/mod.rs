//! Many servers at once, by what their agents told a Prometheus-compatible engine.
//!
//! [`api`] asks the engine, [`gather`] decides what is asked, and everything else is pure: [`inventory`] joins answers
//! into servers and agents, [`peer`] compares a server with its like, [`diagnose`] and [`change`] say what differs.
//! [`trace`] alone talks to the agents themselves.
//! There is no store here: what the engine does not know, nobody knows.

pub mod api;
pub mod change;
pub mod diagnose;
pub mod gather;
pub mod inventory;
pub mod measure;
pub mod peer;
pub mod recorded;
pub mod rule;
pub mod selector;
pub mod text;
pub mod trace;
pub mod verdict;
mod without;

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "what is computed is exact")]
mod tests;
