//! What crosses the boundary between ProfileMate's kernel and user space.
//!
//! Invariants of this crate: no `std`, no allocation, no `unsafe`, no dependency but `bytemuck`. The same code runs
//! in the eBPF programs, in the tracer and in unit tests on recorded bytes.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod driver;
pub mod memory;
pub mod page;
pub mod path;
pub mod python;
pub mod record;
pub mod walk;
