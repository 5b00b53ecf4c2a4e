//! ProfileMate: what the engine of a running vLLM server does, step by step.
//!
//! The modules in reading order; data flows down the list from `capture` on.

pub mod agent;
pub mod aggregate;
pub mod attach;
pub mod budget;
pub mod capture;
pub mod catalog;
pub mod cli;
pub mod compare;
pub mod demo;
pub mod doctor;
pub mod event;
pub mod explain;
pub mod export;
pub mod fleet;
pub mod helper;
pub mod markup;
pub mod metrics;
pub mod parcel;
pub mod plan;
pub mod recorded;
pub mod recorder;
pub mod report;
pub mod secret;
pub mod session;
pub mod sink;
pub mod stall;
pub mod sys;
pub mod table;
pub mod target;
pub mod touch;
pub mod view;
