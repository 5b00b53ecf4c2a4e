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
