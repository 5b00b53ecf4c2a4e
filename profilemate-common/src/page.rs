//! The marker page: a few kilobytes mapped into the target, through which redirected Python calls pass.
//!
//! The mapping is one `memfd` named [`MEMFD_NAME`]: [`CODE_SIZE`] bytes read and execute, followed by [`DATA_SIZE`] bytes
//! read and write, both mapped private, followed by [`LOG_SIZE`] bytes read and write, mapped shared. Because the data is
//! private, a forked child gets its own copy of it; because the log is shared, the tracer reads it in the file, also
//! after the process has ended. Everything a later tracer needs to recognise the page and to undo what an earlier one did
//! stands in the data. A page made from inside, by the helper, has no log.
//!
//! All integers are native endian. Counters are written by the target without locks: a slot belongs to one function
//! object, which runs under its interpreter's lock. The log has many writers, see [`LogEntry`].

use bytemuck::{Pod, Zeroable};

/// Name given to `memfd_create`; `/proc/PID/maps` shows it as `/memfd:profilemate (deleted)`.
pub const MEMFD_NAME: &str = "profilemate";
/// First eight bytes of the data.
pub const MAGIC: u64 = u64::from_ne_bytes(*b"PMMARKER");
/// Changes whenever code or data change their shape; a page of another version is restored, never reused.
pub const VERSION: u32 = 2;
/// Bytes of code, a multiple of the page size.
pub const CODE_SIZE: usize = 4096;
/// Slots of a page: one for each redirected function.
pub const SLOTS: usize = 64;
/// Bytes of data, a multiple of the page size.
pub const DATA_SIZE: usize = 40960;
/// Entries of the swap list, see [`Swap`].
pub const SWAPS: usize = 96;
/// Buckets of a slot's histogram: bucket `n` counts calls whose duration in cycles has its highest bit at `n`.
pub const BUCKETS: usize = 64;

/// What a slot does with a call, a set of the `MODE_*` bits. Every mode counts calls ([`Slot::calls`]).
pub type Mode = u32;
/// Nothing but the call count.
pub const MODE_OFF: Mode = 0;
/// An event when the call returns, or raises.
pub const MODE_RETURN: Mode = 1;
/// An event before the call is made.
pub const MODE_ENTRY: Mode = 2;
/// With [`MODE_RETURN`]: no event if the result is the object [`Slot::skip`].
pub const MODE_SKIP: Mode = 4;
/// Durations are summed into [`Slot::cycles`] and counted in [`Slot::histogram`], in the page, without a trap.
pub const MODE_COUNT: Mode = 8;
/// An entry in the page's log when the call returns, or raises: what an event without fields tells, without a trap.
/// Only where [`Head::thread_id_offset`] is set.
pub const MODE_LOG: Mode = 16;
/// Calls are told one by one, by events or by the log.
pub const MODE_TOLD: Mode = MODE_RETURN | MODE_ENTRY | MODE_LOG;

/// The head of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Head {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`VERSION`].
    pub version: u32,
    /// [`SLOTS`].
    pub slots: u32,
    /// The interpreter's own vectorcall function, which every slot calls.
    pub original: u64,
    /// Process id of the tracer that last wrote here, in its own pid namespace. For messages only: whether a tracer
    /// is alive is told by its `flock` on the memfd.
    pub tracer: u32,
    /// Number of valid entries of the swap list.
    pub swap_count: u32,
    /// Where the C library keeps a thread's id, in bytes from the thread pointer (`fs`); 0 if it is not known or there is
    /// no log.
    pub thread_id_offset: u32,
    /// Fills up.
    pub pad: u32,
    /// The thread and process that wrote to the log last, as in [`LogEntry::who`]. Written by the page, so that it asks
    /// the kernel for the process only when another thread calls.
    pub who: u64,
    /// Room for later versions.
    pub reserved: [u64; 2],
}

/// One compare-and-swap for the page's own code to do inside the target: an aligned store that happens only if the
/// old value is still the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Swap {
    /// Where; aligned to `width`.
    pub address: u64,
    /// 4 or 8 bytes.
    pub width: u32,
    /// Set by the page's code: 0 not reached, 1 swapped, 2 found another value.
    pub outcome: u32,
    /// The value that must be there.
    pub expected: u64,
    /// The value to store; set by the page's code to the value found, if that was another.
    pub value: u64,
}

/// One slot's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Slot {
    /// The `MODE_*` bits.
    pub mode: Mode,
    /// Bytes from [`Slot::function`] to the pointer that was redirected. With it a later tracer can undo the
    /// redirection without knowing the interpreter.
    pub pointer_offset: u32,
    /// With [`MODE_SKIP`]: the object (`False`, `None`) whose return makes no event.
    pub skip: u64,
    /// The redirected `PyFunctionObject`; 0 if the slot is free. The journal for recovery.
    pub function: u64,
    /// Calls that have returned or raised, in every mode. Written by the page.
    pub calls: u64,
    /// Events made: passes through the probed instruction. Written by the page.
    pub marks: u64,
    /// Summed durations in counter cycles, with [`MODE_COUNT`]. Written by the page.
    pub cycles: u64,
    /// The function called instead of [`Slot::function`]'s own, where a C callable stands in for a Python one
    /// (CPython 3.11): the `PyFunctionObject` to call. 0 otherwise.
    pub callee: u64,
    /// Durations, see [`BUCKETS`]; with [`MODE_COUNT`]. Written by the page.
    pub histogram: [u32; BUCKETS],
    /// Fills the slot to [`SLOT_STRIDE`].
    pub pad: [u64; 25],
}

/// One call in the log. Writers take the next number from [`LOG_MADE`] with one atomic addition, which says where the
/// entry lies, and write [`LogEntry::stamp`] last. An entry is whole if its stamp is that of its number, and was whole
/// while it was read if, after that, no number has been taken that shares its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct LogEntry {
    /// The low bits of the entry's number, plus one.
    pub stamp: u32,
    /// Slot.
    pub slot: u32,
    /// Thread id in bits 0..32, process id in bits 32..64, in the process's own pid namespace.
    pub who: u64,
    /// Cycle counter when the call began.
    pub entry_cycles: u64,
    /// Cycle counter when it ended.
    pub return_cycles: u64,
    /// The result object's address; 0 if the call raised.
    pub result: u64,
}

/// Offset of the log in the memfd.
pub const LOG_OFFSET: usize = CODE_SIZE + DATA_SIZE;
/// Offset, in the log, of the number of entries made so far, eight bytes.
pub const LOG_MADE: usize = 0;
/// Offset, in the log, of the first entry.
pub const LOG_ENTRIES_OFFSET: usize = 64;
/// Entries that the log holds, a power of two. What is not read before as many more are made is lost.
pub const LOG_ENTRIES: usize = 32_768;
/// Bytes of the log, a multiple of the page size.
pub const LOG_SIZE: usize =
    (LOG_ENTRIES_OFFSET + LOG_ENTRIES * size_of::<LogEntry>()).next_multiple_of(4096);

/// Offset of the first [`Slot`] in the data.
pub const SLOT_OFFSET: usize = 4096;
/// Bytes from one [`Slot`] to the next.
pub const SLOT_STRIDE: usize = 512;
/// Offset of the first [`Swap`] in the data.
pub const SWAP_OFFSET: usize = 512;

const _: () = assert!(size_of::<Slot>() == SLOT_STRIDE);
const _: () = assert!(SLOT_OFFSET + SLOTS * SLOT_STRIDE <= DATA_SIZE);
const _: () = assert!(SWAP_OFFSET + SWAPS * size_of::<Swap>() <= SLOT_OFFSET);
const _: () = assert!(size_of::<Head>() <= SWAP_OFFSET);
const _: () = assert!(size_of::<LogEntry>() == 40 && LOG_ENTRIES.is_power_of_two());
