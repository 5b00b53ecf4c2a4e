//! ProfileMate: what the engine of a running vLLM server does, step by step.
//!
//! The modules in reading order; data flows down the list from `capture` on.

pub mod sys;
pub mod target;
pub mod catalog;
pub mod plan;
pub mod touch;
pub mod attach;
pub mod event;
pub mod capture;
pub mod aggregate;
pub mod table;
pub mod sink;
pub mod session;
pub mod demo;
pub mod helper;
pub mod cli;
