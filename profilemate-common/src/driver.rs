//! Calls of the CUDA driver, as the probes on `libcuda` (or on `libcudart`, where the driver is not entered) see them.
//!
//! A call is either told one by one ([`DriverCalled`]) or only counted for its thread ([`Totals`]); which of the two
//! is a property of the function. Every told call carries the totals of its thread, so that what was counted between
//! two told calls of a thread is the difference of theirs.

use bytemuck::{Pod, Zeroable};

/// Value of [`DriverCalled::kind`].
pub const KIND_DRIVER_CALLED: u16 = 2;

/// What a driver function does, whatever variant of its symbol (`_v2`, `_ptsz`, `WithFlags`) was called. The numbers
/// are part of the format of `events.pmrec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Function {
    /// `cuStreamBeginCapture`: args\[0\] stream.
    StreamBeginCapture = 0,
    /// `cuStreamEndCapture`: args\[0\] stream. Out: the graph.
    StreamEndCapture = 1,
    /// `cuGraphInstantiate`: args\[1\] graph. Out: the executable graph.
    GraphInstantiate = 2,
    /// `cuGraphUpload`: args\[0\] executable graph, args\[1\] stream.
    GraphUpload = 3,
    /// `cuGraphExecUpdate`: args\[0\] executable graph, args\[1\] graph.
    GraphExecUpdate = 4,
    /// `cuGraphExecDestroy`: args\[0\] executable graph.
    GraphExecDestroy = 5,
    /// `cuGraphLaunch`: args\[0\] executable graph, args\[1\] stream.
    GraphLaunch = 6,
    /// `cuStreamSynchronize`: args\[0\] stream.
    StreamSynchronize = 7,
    /// `cuEventSynchronize`: args\[0\] event.
    EventSynchronize = 8,
    /// `cuCtxSynchronize`.
    ContextSynchronize = 9,
    /// `cuEventRecord`: args\[0\] event, args\[1\] stream.
    EventRecord = 10,
    /// `cuLaunchKernel` and its like. Counted.
    KernelLaunch = 11,
    /// `cuMemcpyHtoDAsync` and its like: args\[2\] bytes. Counted and summed.
    CopyAsync = 12,
    /// `cuStreamIsCapturing`, `cuStreamGetCaptureInfo`: args\[0\] stream. Counted.
    CaptureStatus = 13,
}

impl Function {
    /// All of them, by number.
    pub const ALL: [Self; 14] = [
        Self::StreamBeginCapture,
        Self::StreamEndCapture,
        Self::GraphInstantiate,
        Self::GraphUpload,
        Self::GraphExecUpdate,
        Self::GraphExecDestroy,
        Self::GraphLaunch,
        Self::StreamSynchronize,
        Self::EventSynchronize,
        Self::ContextSynchronize,
        Self::EventRecord,
        Self::KernelLaunch,
        Self::CopyAsync,
        Self::CaptureStatus,
    ];

    /// The function with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// As written to `metadata.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::StreamBeginCapture => "stream_begin_capture",
            Self::StreamEndCapture => "stream_end_capture",
            Self::GraphInstantiate => "graph_instantiate",
            Self::GraphUpload => "graph_upload",
            Self::GraphExecUpdate => "graph_exec_update",
            Self::GraphExecDestroy => "graph_exec_destroy",
            Self::GraphLaunch => "graph_launch",
            Self::StreamSynchronize => "stream_synchronize",
            Self::EventSynchronize => "event_synchronize",
            Self::ContextSynchronize => "context_synchronize",
            Self::EventRecord => "event_record",
            Self::KernelLaunch => "kernel_launch",
            Self::CopyAsync => "copy_async",
            Self::CaptureStatus => "capture_status",
        }
    }
}

/// What one thread has done since the session attached; grows only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Totals {
    /// Graphs launched.
    pub graph_launches: u64,
    /// Kernels launched outside graphs.
    pub kernels: u64,
    /// Asynchronous copies.
    pub copies: u64,
    /// Bytes of these copies.
    pub copied_bytes: u64,
}

/// A thread called a driver function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct DriverCalled {
    /// [`KIND_DRIVER_CALLED`].
    pub kind: u16,
    /// Which library file: index of its site list.
    pub library: u16,
    /// [`Function`] as a number.
    pub function: u8,
    /// [`crate::record::PHASE_ENTRY`]: told when the call began, and its end is not known.
    /// [`crate::record::PHASE_RETURN`]: told when it ended.
    pub phase: u8,
    /// 0.
    pub reserved: u16,
    /// Process (the kernel's tgid).
    pub pid: u32,
    /// Thread (the kernel's pid).
    pub tid: u32,
    /// `CLOCK_MONOTONIC` when the call began.
    pub entry_ns: u64,
    /// `CLOCK_MONOTONIC` when the record was made.
    pub ts_ns: u64,
    /// The first three arguments, as passed.
    pub args: [u64; 3],
    /// At [`crate::record::PHASE_RETURN`]: the `CUresult` (0 is success).
    pub result: u64,
    /// At [`crate::record::PHASE_RETURN`] of a function with an out-parameter: what was written there; else 0.
    pub out: u64,
    /// The thread's totals, this call included.
    pub totals: Totals,
}

const _: () = assert!(size_of::<DriverCalled>() == 104);

/// Function numbers that the kernel side counts, at most: a power of two.
pub const FUNCTIONS: usize = 32;
const _: () = assert!(Function::ALL.len() <= FUNCTIONS);

/// How a call is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Told {
    /// Not at all: it is counted for its thread.
    Counted = 0,
    /// When it begins.
    AtEntry = 1,
    /// When it ends.
    AtReturn = 2,
}

/// Where the number of bytes of a copy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bytes {
    /// The call copies nothing.
    None,
    /// In this argument (0 to 5).
    Argument(u8),
    /// In the lower half of this argument: the first forms of the copies have sizes of 32 bits.
    Argument32(u8),
    /// In the structure that argument 0 points to: this many (2 or 3) 64-bit numbers, to be multiplied, from this
    /// offset on.
    Extent(u8, u8),
}

/// What the kernel side is told of a probed function: the cookie of its probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cookie {
    /// [`DriverCalled::library`].
    pub library: u16,
    /// What the function does.
    pub function: Function,
    /// How its calls are told.
    pub told: Told,
    /// The argument (0 to 2) that points to where the function writes the handle that it makes.
    pub out: Option<u8>,
    /// Where the bytes of a copy stand.
    pub bytes: Bytes,
}

/// Ways of [`Bytes`], as in a cookie.
pub const BYTES_NONE: u64 = 0;
/// [`Bytes::Argument`].
pub const BYTES_ARGUMENT: u64 = 1;
/// [`Bytes::Argument32`].
pub const BYTES_ARGUMENT32: u64 = 2;
/// [`Bytes::Extent`].
pub const BYTES_EXTENT: u64 = 3;

impl Cookie {
    /// Bits 0 to 7 function, 8 to 15 how it is told, 16 to 31 library, 32 to 39 out-parameter plus one, 40 to 47 way of
    /// the bytes, 48 to 55 argument or offset, 56 to 63 how many numbers.
    pub fn encode(self) -> u64 {
        let (way, at, count) = match self.bytes {
            Bytes::None => (BYTES_NONE, 0, 0),
            Bytes::Argument(index) => (BYTES_ARGUMENT, index, 0),
            Bytes::Argument32(index) => (BYTES_ARGUMENT32, index, 0),
            Bytes::Extent(offset, count) => (BYTES_EXTENT, offset, count),
        };
        self.function as u64
            | (self.told as u64) << 8
            | u64::from(self.library) << 16
            | self.out.map_or(0, |index| u64::from(index) + 1) << 32
            | way << 40
            | u64::from(at) << 48
            | u64::from(count) << 56
    }
}

/// Calls of one thread that have begun and not ended, at most: driver functions call each other rarely.
pub const DEPTH: usize = 4;

/// A call that has begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Open {
    /// Stack pointer at its entry: which call it is.
    pub stack: u64,
    /// Its probe's cookie.
    pub cookie: u64,
    /// `CLOCK_MONOTONIC` when it began.
    pub entry_ns: u64,
    /// Its first three arguments.
    pub args: [u64; 3],
}

/// What the kernel side keeps of one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Thread {
    /// The thread's process (tgid): a thread id is used again.
    pub pid: u32,
    /// The thread (the kernel's pid).
    pub tid: u32,
    /// Calls in `open`.
    pub depth: u32,
    /// Whether it has waited for the GPU since a launch of a kernel was walked.
    pub waited: u32,
    /// `CLOCK_MONOTONIC` when its stack was walked last, or 0.
    pub walked_ns: u64,
    /// What it has done.
    pub totals: Totals,
    /// Calls that have begun, the outermost first.
    pub open: [Open; DEPTH],
}

const _: () = assert!(size_of::<Thread>() == 56 + 48 * DEPTH);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_functions_agree() {
        for (number, function) in Function::ALL.iter().enumerate() {
            assert_eq!(*function as usize, number);
            assert_eq!(Function::from_number(number as u8), Some(*function));
        }
        assert_eq!(Function::from_number(Function::ALL.len() as u8), None);
    }

    #[test]
    fn a_cookie_has_every_part_in_its_own_bits() {
        let cookie = Cookie {
            library: 0x1234,
            function: Function::CaptureStatus,
            told: Told::AtReturn,
            out: Some(1),
            bytes: Bytes::Extent(112, 3),
        };
        assert_eq!(cookie.encode(), 0x0370_0302_1234_020d);
        let plain = Cookie {
            library: 0,
            function: Function::StreamBeginCapture,
            told: Told::Counted,
            out: None,
            bytes: Bytes::None,
        };
        assert_eq!(plain.encode(), 0);
    }
}
