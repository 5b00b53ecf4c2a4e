//! Records: the bytes that the probes put into the ring buffer.
//!
//! A record of a method call is a fixed head, followed (by [`MethodCalled::class`]) by the scalar fields,
//! followed by a blob of strings and collections. Only the used part of the blob is meaningful.

use bytemuck::{Pod, Zeroable};

/// Value of [`MethodCalled::kind`].
pub const KIND_METHOD_CALLED: u16 = 1;
/// The same for a record made of an entry of a page's log ([`crate::page::LogEntry`]), outside the kernel.
pub const KIND_METHOD_LOGGED: u16 = 4;
/// [`MethodCalled::tid`] of a thread that could not be named.
pub const NO_THREAD: u32 = 0;

/// Fields of one method, at most.
pub const FIELDS: usize = 24;
/// Bytes of the blob: a power of two.
pub const BLOB_SIZE: usize = 16384;

/// The record carries its head only.
pub const CLASS_BARE: u8 = 0;
/// Head and [`Fields`].
pub const CLASS_FIELDS: u8 = 1;
/// Head, [`Fields`] and a blob of [`BLOB_SIZE`] bytes.
pub const CLASS_BLOB: u8 = 2;

/// The event was made before the call.
pub const PHASE_ENTRY: u8 = 0;
/// The event was made when the call returned or raised.
pub const PHASE_RETURN: u8 = 1;

/// A call of a redirected Python function passed the marker page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct MethodCalled {
    /// [`KIND_METHOD_CALLED`] or [`KIND_METHOD_LOGGED`].
    pub kind: u16,
    /// Index of the marker page, the cookie of its uprobe.
    pub page: u16,
    /// Slot of the page.
    pub slot: u8,
    /// [`PHASE_ENTRY`] or [`PHASE_RETURN`].
    pub phase: u8,
    /// How much of the record is there: one of the `CLASS_*`.
    pub class: u8,
    /// Fields that the program has; `Fields::status[..field_count]` is meaningful.
    pub field_count: u8,
    /// Process (the kernel's tgid), in the tracer's pid namespace or the initial one.
    pub pid: u32,
    /// Thread (the kernel's pid).
    pub tid: u32,
    /// `CLOCK_MONOTONIC` when the probe ran, or when a logged call ended.
    pub ts_ns: u64,
    /// Cycle counter when the call began.
    pub entry_cycles: u64,
    /// Cycle counter when it ended; 0 at [`PHASE_ENTRY`].
    pub return_cycles: u64,
    /// The result object's address; 0 if the call raised, or at [`PHASE_ENTRY`].
    pub result: u64,
    /// Which compiled program made the fields; tells user space how to name and read them.
    pub program: u32,
    /// Bytes of the blob in use.
    pub blob_len: u32,
    /// The function object called.
    pub callable: u64,
}

/// The fields of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Fields {
    /// How each field ended: one of the `STATUS_*`.
    pub status: [u8; FIELDS],
    /// Each field's value; its meaning is the program's to say. For strings and collections: where in the blob they
    /// begin (bits 0..32).
    pub values: [u64; FIELDS],
}

/// The value is there.
pub const STATUS_OK: u8 = 0;
/// The object is `None`.
pub const STATUS_NONE: u8 = 1;
/// Memory could not be read.
pub const STATUS_FAULT: u8 = 2;
/// An object on the way has another type than when the path was compiled: compile it anew.
pub const STATUS_WRONG_TYPE: u8 = 3;
/// A dictionary entry holds another key than when the path was compiled: compile it anew.
pub const STATUS_WRONG_KEY: u8 = 4;
/// The attribute is not set (null).
pub const STATUS_UNSET: u8 = 5;
/// The integer has more than 64 bits.
pub const STATUS_TOO_BIG: u8 = 6;
/// The argument was not passed; its default holds.
pub const STATUS_NOT_PASSED: u8 = 7;
/// The string or collection did not fit into the blob and is left out.
pub const STATUS_NO_ROOM: u8 = 8;
/// The collection has more items than are read; the first ones are there, and its head tells the true number.
pub const STATUS_TRUNCATED: u8 = 9;
/// The path needs the result, which is not there (the call raised, or has not been made yet).
pub const STATUS_NO_RESULT: u8 = 10;
/// The program has an operation that this kernel program does not know.
pub const STATUS_BAD_PROGRAM: u8 = 11;
/// An item index beyond the end of a tuple or list.
pub const STATUS_OUT_OF_RANGE: u8 = 12;
/// A tensor's numbers are not in host memory.
pub const STATUS_ELSEWHERE: u8 = 13;

/// Head of a tensor in the blob; its numbers follow at once, row by row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct TensorHead {
    /// Numbers that follow.
    pub stored: u32,
    /// Numbers that the tensor has.
    pub total: u32,
    /// Bytes of each: 4 or 8, with sign.
    pub width: u32,
    /// Length of its last dimension.
    pub columns: u32,
}
/// The value was another when it was read again: other threads were at work on it.
pub const STATUS_CHANGED: u8 = 14;

/// Head of a collection in the blob; its items follow at once, each of the size that its leaf says
/// ([`crate::path::Leaf`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct CollectionHead {
    /// Items that follow.
    pub stored: u32,
    /// Items that the collection had.
    pub total: u32,
}

/// Bytes of a string in the blob: one byte of length, then up to 63 bytes.
pub const STRING_SIZE: usize = 64;

/// Bytes of a record of `class`, without the blob's unused rest; `None` for an unknown class.
pub const fn record_len(class: u8, blob_len: u32) -> Option<usize> {
    match class {
        CLASS_BARE => Some(size_of::<MethodCalled>()),
        CLASS_FIELDS => Some(size_of::<MethodCalled>() + size_of::<Fields>()),
        CLASS_BLOB if blob_len as usize <= BLOB_SIZE => {
            Some(size_of::<MethodCalled>() + size_of::<Fields>() + blob_len as usize)
        }
        _ => None,
    }
}

const _: () = assert!(size_of::<MethodCalled>() == 64);
const _: () = assert!(size_of::<Fields>().is_multiple_of(8));
