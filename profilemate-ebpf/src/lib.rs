//! ProfileMate's eBPF object, and the names in it.
//!
//! The object is prebuilt and committed: building this crate needs nothing but Rust. `cargo xtask bpf build` makes it
//! from `src/main.rs`, and `tests/object.rs` says when that has been forgotten.
#![no_std]

#[cfg(not(target_arch = "bpf"))]
mod object;

#[cfg(not(target_arch = "bpf"))]
pub use object::{OBJECT, OBJECT_SHA256, TOOLCHAIN};

/// The uprobe program for the marker page's probed instruction.
pub const METHOD_CALLED: &str = "method_called";

/// The program that reads an event's fields; never attached itself.
pub const FIELDS_READ: &str = "fields_read";
/// All programs of the object.
pub const PROGRAM_NAMES: [&str; 2] = [METHOD_CALLED, FIELDS_READ];

/// The ring buffer of records; the loader sets its size.
pub const EVENTS: &str = "EVENTS";
/// Array of `u32`: for slot `s` of page `p`, at `p * page::SLOTS + s`, an index into [`PROGRAMS`] plus one, or 0.
pub const SLOTS: &str = "SLOTS";
/// Array of `path::Program`.
pub const PROGRAMS: &str = "PROGRAMS";
/// Array of `python::KernelLayout`.
pub const LAYOUTS: &str = "LAYOUTS";
/// Per-CPU array of `u64`, indexed by `COUNT_*`.
pub const COUNTS_MAP: &str = "COUNTS";
/// Array in which records are made; user space leaves it alone.
pub const WORKPLACES: &str = "WORKPLACES";
/// Program array: the loader puts [`FIELDS_READ`] into entry 0.
pub const PARTS: &str = "PARTS";
/// All maps of the object.
pub const MAPS: [&str; 7] = [
    EVENTS, SLOTS, PROGRAMS, LAYOUTS, COUNTS_MAP, WORKPLACES, PARTS,
];

/// Marker pages, at most; a page's index is the cookie of its uprobe.
pub const PAGE_COUNT: u32 = 64;
/// Programs loaded at a time, at most.
pub const PROGRAM_COUNT: u32 = 512;
/// Workplaces, a power of two.
pub const WORKPLACE_COUNT: u32 = 256;
/// Layouts loaded at a time, at most.
pub const LAYOUT_COUNT: u32 = PAGE_COUNT;

/// Entries of [`COUNTS_MAP`].
pub const COUNTS: u32 = 4;
/// Probe programs run.
pub const COUNT_FIRED: u32 = 0;
/// Records submitted.
pub const COUNT_SUBMITTED: u32 = 1;
/// Records that found the ring buffer full.
pub const COUNT_LOST: u32 = 2;
/// Runs that made no record, because page or slot are out of range.
pub const COUNT_FILTERED: u32 = 3;
