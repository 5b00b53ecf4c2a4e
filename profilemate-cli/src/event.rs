//! What flows from the capture to the aggregator: decoded events and the notes that give them meaning.
//!
//! A session's stream (live, or from `events.pmrec`) is a sequence of frames. A frame is either a raw record from the
//! ring buffer ([`profilemate_common::record`]) or a [`Note`] written by the tracer itself: which process was
//! attached, which method sits in which slot, how a program's fields are to be read. Decoding turns frames into
//! [`Event`]s. Nothing behind this point reads a clock, a file or the environment.

mod count;
pub mod recorder;

use profilemate_common::driver::{Function, Totals};
use serde::{Deserialize, Serialize};

use crate::aggregate::checkpoint::Checkpoint;

/// Something the tracer itself says, in the order in which it holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "note", rename_all = "snake_case")]
pub enum Note {
    /// First frame of a session.
    Session(Session),
    /// A process of the target is known, attached or not. A later note for the same pid replaces it.
    Process(Process),
    /// A method was bound to a slot.
    Method(Method),
    /// A method of the catalogue was not bound, and why.
    Unbound {
        /// Process.
        pid: u32,
        /// Catalogue id.
        method: String,
        /// In plain words.
        reason: String,
    },
    /// Something about the catalogue does not fit a process, or is not known to, and why.
    Doubt {
        /// Process.
        pid: u32,
        /// The tables that it concerns, file names without `.csv`; none is all.
        tables: Vec<String>,
        /// In plain words.
        reason: String,
    },
    /// A program was compiled for a slot: how its fields are read.
    Program(Program),
    /// The counters of a page's slots, read from the page.
    Counters(Counters),
    /// The cycle counter and the clock, read together; two of them give the length of a cycle.
    Clock {
        /// Cycle counter (TSC).
        cycles: u64,
        /// `CLOCK_MONOTONIC`.
        monotonic_ns: u64,
    },
    /// The kernel side's own counts, summed over CPUs. A later note replaces it.
    Ledger(Ledger),
    /// A process has gone.
    ProcessEnded {
        /// Process.
        pid: u32,
        /// When it was noticed, `CLOCK_MONOTONIC`.
        at_ns: u64,
        /// In plain words.
        reason: String,
    },
    /// A table has nothing to tell from the outset (`--without`, `--touch none`), and why.
    NotCovered {
        /// File name without `.csv`.
        table: String,
        /// In plain words.
        reason: String,
    },
    /// A CUDA library in which driver functions are probed, or why not.
    Library(Library),
    /// Frames of a function are looked for on the stacks of a process's threads.
    Walk(Walk),
    /// The stream is the window that a flight recorder kept.
    Snapshot(Box<recorder::Snapshot>),
    /// What the aggregation knew where the stream begins.
    Checkpoint(Box<Checkpoint>),
    /// What tracing costs a process.
    Cost(recorder::Cost),
    /// Something is recorded no longer because of what it costs, or again.
    Shed(recorder::Shed),
    /// Last frame.
    Ended {
        /// `CLOCK_MONOTONIC`.
        at_ns: u64,
        /// Wall clock, RFC 3339.
        wall: String,
        /// Why the session ended, in plain words: "interrupted", "duration reached", "target ended".
        reason: String,
    },
}

/// The head of a session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Version of the stream's format.
    pub format: u32,
    /// `session_<YYYYMMDD_HHMMSS>_<short id>`.
    pub id: String,
    /// `CLOCK_MONOTONIC` at the start; `timestamp_sec` of the tables counts from here.
    pub started_ns: u64,
    /// The same moment on the wall clock, RFC 3339.
    pub started_wall: String,
    /// The tracer's command line.
    pub command: Vec<String>,
    /// Host name.
    pub host: String,
    /// Kernel release.
    pub kernel: String,
    /// Tool version.
    pub tool: String,
}

/// One process of the target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Process id as the tracer sees it.
    pub pid: u32,
    /// Parent process id.
    pub parent: u32,
    /// `api_server`, `engine_core`, `worker`, or `other`.
    pub role: String,
    /// Index of the engine (data parallel rank) that the process is or belongs to.
    pub engine: Option<u32>,
    /// Rank of a worker (tensor parallel).
    pub rank: Option<u32>,
    /// Process title or command.
    pub title: String,
    /// CPython version, `3.12.1`.
    pub python: Option<String>,
    /// vLLM version, `0.32.0`.
    pub vllm: Option<String>,
    /// Marker page, if attached. A forked child has its parent's.
    pub page: Option<u16>,
    /// `method_probes`, `helper`, or `none`.
    pub technique: String,
    /// Why the process is not (fully) attached, in plain words.
    pub reason: Option<String>,
}

/// A method in a slot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Method {
    /// Process in which it was bound.
    pub pid: u32,
    /// Marker page.
    pub page: u16,
    /// Slot of the page.
    pub slot: u8,
    /// Catalogue id, such as `scheduler.schedule`; `user.N` for `--method`.
    pub id: String,
    /// Python module.
    pub module: String,
    /// Qualified name in the module.
    pub qualname: String,
    /// Operation name for `cpu_operations_timing.csv`, if its calls are rows there.
    pub operation: Option<String>,
    /// Slot mode, see [`profilemate_common::page`].
    pub mode: u32,
}

/// [`Program::slot`] of a program that reads frames and no calls.
pub const NO_SLOT: u8 = u8::MAX;

/// How the records of one compiled program are read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// The id that records carry.
    pub id: u32,
    /// Marker page.
    pub page: u16,
    /// Slot; [`NO_SLOT`] for the program of a frame.
    pub slot: u8,
    /// Address of `None` in the process, to tell a `None` result.
    pub none: u64,
    /// Address of `True`.
    pub true_: u64,
    /// Address of `False`.
    pub false_: u64,
    /// The fields, in the order of [`profilemate_common::record::Fields`].
    pub fields: Vec<Field>,
    /// Fields of the catalogue that the records do not hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<Unread>,
}

/// A field of the catalogue that is not read, because its path does not fit the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// Name in the catalogue.
    pub name: String,
    /// The path as written.
    pub path: String,
    /// The tables that it feeds, file names without `.csv`.
    pub tables: Vec<String>,
    /// Why, in plain words.
    pub reason: String,
}

impl Unread {
    /// What coverage says of it, for the method `id`.
    pub fn words(&self, id: &str) -> String {
        let Self {
            name, path, reason, ..
        } = self;
        format!("`{name}` of `{id}` ({path}) is not read: {reason}")
    }
}

/// One field of a program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Field {
    /// Name in the catalogue, or the user's.
    pub name: String,
    /// The path as written.
    pub path: String,
    /// What the record holds.
    pub shape: Shape,
}

/// What a field's bytes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Signed 64-bit integer.
    Int,
    /// 0 or 1.
    Bool,
    /// Bits of a double.
    Float,
    /// Text in the blob.
    Str,
    /// Bytes in the blob.
    Bytes,
    /// An object's address: identity only.
    Address,
    /// Collection of integers.
    Ints,
    /// Collection of texts.
    Strs,
    /// Collection of addresses.
    Addresses,
    /// Collection of (key's address, integer).
    Pairs,
    /// Numbers of a tensor.
    Tensor,
}

/// A function whose frames are told where a walk of the stack finds them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Walk {
    /// Process.
    pub pid: u32,
    /// The program that reads its frames: what [`Frame::program`] says.
    pub program: u32,
    /// Catalogue id, such as `frame.execute_model`.
    pub id: String,
    /// Python module.
    pub module: String,
    /// Qualified name in the module.
    pub qualname: String,
}

/// A file with driver functions (`libcuda`, or `libcudart` where the driver is not entered) that the target maps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Library {
    /// The number that records carry.
    pub index: u16,
    /// Path as the target sees it.
    pub path: String,
    /// Build id in hex, or empty if the file has none.
    pub build_id: String,
    /// Processes that map it, as far as known when this was noted. A later note for the same index replaces it.
    pub pids: Vec<u32>,
    /// The probed functions.
    pub sites: Vec<Site>,
    /// Symbols that were not probed and why, in plain words.
    pub refused: Vec<(String, String)>,
}

/// One probed function of a library.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// What the function does: [`profilemate_common::driver::Function`] as a number.
    pub function: u8,
    /// Symbol.
    pub symbol: String,
    /// Probed instruction, in bytes from the symbol.
    pub offset: u64,
    /// The instruction in Intel syntax.
    pub instruction: String,
    /// How the kernel runs it: `emulated`, `nop`, `optimised` or `single-stepped`.
    pub cost: String,
    /// Whether the call's end is told too.
    pub with_return: bool,
}

/// Counters of one page.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Process whose copy of the page was read.
    pub pid: u32,
    /// Marker page.
    pub page: u16,
    /// When, `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// The slots in use; totals since the session attached.
    pub slots: Vec<SlotCounters>,
}

/// Counters of one slot since the session attached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SlotCounters {
    /// Slot.
    pub slot: u8,
    /// Calls.
    pub calls: u64,
    /// Passes through the probed instruction.
    pub marks: u64,
    /// Summed durations in cycles (slots that count).
    pub cycles: u64,
    /// Non-empty buckets: (bucket, calls).
    pub histogram: Vec<(u8, u32)>,
}

/// The kernel side's counts: `fired = delivered + lost + filtered`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Probe programs run.
    pub fired: u64,
    /// Records submitted to the ring buffer.
    pub submitted: u64,
    /// Records that found the ring buffer full.
    pub lost: u64,
    /// Runs that made no record on purpose (no program loaded for the slot).
    pub filtered: u64,
    /// The driver probes' own counts; they are not in the others.
    #[serde(default)]
    pub driver: DriverLedger,
    /// Calls that were told by the pages' logs, without the kernel; they are not in the others.
    #[serde(default)]
    pub log: LogLedger,
}

/// Entries of the pages' logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLedger {
    /// Entries that became records.
    pub read: u64,
    /// Entries that were overwritten before they were read, never finished, or made by a process that could not be named.
    pub lost: u64,
}

/// The kernel side's counts of driver calls: `fired = submitted + lost + filtered + counted + unfinished`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverLedger {
    /// Calls that a probe saw begin.
    pub fired: u64,
    /// Records submitted to the ring buffer.
    pub submitted: u64,
    /// Records that found the ring buffer full.
    pub lost: u64,
    /// Calls that make no record on purpose: made by a driver function of the same kind, or by one thread too many.
    pub filtered: u64,
    /// Calls that were only counted for their thread.
    pub counted: u64,
    /// Calls whose end is to be told, and that have not ended.
    pub unfinished: u64,
}

/// A decoded event.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A note of the tracer.
    Note(Note),
    /// A call of a probed method.
    Call(Call),
    /// A call of a CUDA driver function.
    Driver(DriverCall),
    /// A Python frame around a call of a C function.
    Frame(Frame),
}

/// A Python frame that a walk of the stack found around a call of a C function, or why there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// The driver function; `None` for another C function.
    pub function: Option<Function>,
    /// When that was called: [`DriverCall::entry_ns`] of its call.
    pub entry_ns: u64,
    /// How the walk ended: one of the `OUTCOME_*` of [`profilemate_common::walk`].
    pub outcome: u8,
    /// Catalogued frames further in, told before this one.
    pub order: u32,
    /// The frame's address: the same as long as its call lasts, and used again later.
    pub frame: u64,
    /// Where its code stands.
    pub instruction: u64,
    /// The program that its fields were read by; 0 if none was found.
    pub program: u32,
    /// The fields, in the order of the program.
    pub fields: Vec<Value>,
}

/// A call of a CUDA driver function.
#[derive(Clone, Debug, PartialEq)]
pub struct DriverCall {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Which [`Library`].
    pub library: u16,
    /// What it does; says what the arguments are.
    pub function: Function,
    /// [`Phase::Entry`]: only its beginning is known.
    pub phase: Phase,
    /// When it began, `CLOCK_MONOTONIC`.
    pub entry_ns: u64,
    /// When it was told, `CLOCK_MONOTONIC`: its beginning, or its end.
    pub ts_ns: u64,
    /// The first three arguments.
    pub args: [u64; 3],
    /// The `CUresult`, if its end is known.
    pub result: Option<i32>,
    /// What it wrote through its out-parameter, if it has one and its end is known.
    pub out: Option<u64>,
    /// What its thread had done by then.
    pub totals: Totals,
}

/// A call of a probed method, before it was made or after it ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Marker page.
    pub page: u16,
    /// Slot; with the page it names the method ([`Method`]).
    pub slot: u8,
    /// Before or after.
    pub phase: Phase,
    /// When the probe ran, `CLOCK_MONOTONIC`.
    pub ts_ns: u64,
    /// Cycle counter when the call began.
    pub entry_cycles: u64,
    /// Cycle counter when it ended; 0 before.
    pub return_cycles: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// The fields, in the order of the program.
    pub fields: Vec<Value>,
    /// The program that the fields were read by; 0 if there was none yet.
    pub program: u32,
}

/// Which event of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before the call.
    Entry,
    /// The call returned or raised.
    Return,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not yet ([`Phase::Entry`]).
    Pending,
    /// It raised an exception.
    Raised,
    /// It returned `None`.
    None,
    /// It returned `True`.
    True,
    /// It returned `False`.
    False,
    /// It returned another object, at this address.
    Object(u64),
}

/// A field's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `int`, or a length.
    Int(i64),
    /// `bool`.
    Bool(bool),
    /// `float`.
    Float(f64),
    /// `str`, or printable `bytes`.
    Str(String),
    /// An object's identity.
    Address(u64),
    /// Integers, and how many there were in truth.
    Ints(Vec<i64>, u32),
    /// Texts, and how many there were in truth.
    Strs(Vec<String>, u32),
    /// Identities, and how many there were in truth.
    Addresses(Vec<u64>, u32),
    /// (key's identity, integer), and how many there were in truth.
    Pairs(Vec<(u64, i64)>, u32),
    /// Integers of a tensor, row by row.
    Tensor {
        /// Those that were read, from the first on.
        items: Vec<i64>,
        /// How many there were in truth.
        total: u32,
        /// Integers of each row.
        columns: u32,
    },
    /// The object is `None`.
    None,
    /// Not read: one of the `STATUS_*` of [`profilemate_common::record`].
    Absent(u8),
}
