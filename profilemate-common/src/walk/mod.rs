//! The walk of the Python stack at a call of a C function, with nothing written into the process.
//!
//! At such a call the calling thread stands inside its own probe, so its frames do not change. Its `PyThreadState` is
//! found in the thread-specific-data slot that the interpreter keeps it in, which stays set while the global
//! interpreter lock is released. From there the frames are followed outwards, and the code object of each is looked up
//! by its address among the catalogued ones. A frame that is found is read like a call: its locals are the roots of
//! field paths ([`crate::path::CODE_LOCAL`]).
//!
//! Nothing is believed once only: after a frame's fields have been read they are read again, and the frame is found
//! again. Where anything differs, the frame is told as [`OUTCOME_CHANGED`] and the field as
//! [`crate::record::STATUS_CHANGED`], never with a wrong value.

use crate::memory::Memory;
use bytemuck::{Pod, Zeroable};

mod local;

pub use local::{LocalWalker, Walked};

/// Value of [`FrameWalked::kind`].
pub const KIND_FRAME_WALKED: u16 = 3;

/// Frames of one walk that are looked at, at most.
pub const FRAMES: u32 = 64;
/// Frames of one walk that are told, at most.
pub const TOLD: u32 = 4;
/// Set in a target's number where nothing further out is wanted.
pub const TARGET_LAST: u32 = 1 << 31;

/// The frame is one of the catalogued ones.
pub const OUTCOME_FOUND: u8 = 0;
/// The stack ends without (another) catalogued frame.
pub const OUTCOME_NONE: u8 = 1;
/// The calling thread has no Python thread state: it is not Python's.
pub const OUTCOME_NO_STATE: u8 = 2;
/// The thread state says that it belongs to another thread: the slot holds something else.
pub const OUTCOME_OTHER_THREAD: u8 = 3;
/// Memory on the way could not be read.
pub const OUTCOME_FAULT: u8 = 4;
/// The stack was another when it was looked at again.
pub const OUTCOME_CHANGED: u8 = 5;

/// The stack has more frames than are looked at, and no (other) catalogued one among those.
pub const OUTCOME_DEEP: u8 = 6;

/// [`FrameWalked::function`] of a walk at a C function that is not the CUDA driver's.
pub const FUNCTION_OTHER: u8 = u8::MAX;

/// No such field in this version.
pub const NO_OFFSET: u32 = u32::MAX;

/// Where a process keeps its threads' states, and how its frames are laid out: offsets in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct StackLayout {
    /// From the thread pointer (`fs` on x86-64) to the slot of the thread-specific data that holds the
    /// `PyThreadState`.
    pub slot: i64,
    /// `PyThreadState.thread_id`, which is what `pthread_self` gives.
    pub thread_id: u32,
    /// `PyThreadState.frame`, `.cframe` or `.current_frame`.
    pub state_frame: u32,
    /// `_PyCFrame.current_frame` where the thread state points to one (3.11, 3.12); else [`NO_OFFSET`].
    pub cframe_frame: u32,
    /// First of the three words of a frame that hold its code and the frame that called it.
    pub frame_head: u32,
    /// Which of these words is the code object: 0 to 2.
    pub code_word: u32,
    /// Which of these words is the calling frame: 0 to 2.
    pub previous_word: u32,
    /// First local variable.
    pub frame_locals: u32,
    /// `prev_instr` or `instr_ptr`, a pointer, or `f_lasti`, a number.
    pub frame_instruction: u32,
    /// Number of the process among those that are walked; told in [`FrameWalked::number`].
    pub number: u32,
    /// Where the kernel keeps a thread's thread pointer, in its `task_struct`. Of the running kernel, not of the process.
    pub task_pointer: u32,
}

/// Code addresses and references in frames may carry a tag in these bits (3.14).
pub const TAG: u64 = 3;

/// A catalogued code object of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct Target {
    /// The code object.
    pub code: u64,
    /// Process (tgid).
    pub pid: u32,
    /// 0.
    pub reserved: u32,
}

/// A frame that a walk told of. The head of a record, followed by [`crate::record::Fields`] where
/// [`FrameWalked::class`] says so; shaped like [`crate::record::MethodCalled`], and read by the same programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FrameWalked {
    /// [`KIND_FRAME_WALKED`].
    pub kind: u16,
    /// [`StackLayout::number`].
    pub number: u16,
    /// [`crate::driver::Function`] as a number, or [`FUNCTION_OTHER`].
    pub function: u8,
    /// One of the `OUTCOME_*`.
    pub outcome: u8,
    /// How much of the record is there: one of `record::CLASS_*`.
    pub class: u8,
    /// Fields that the program has.
    pub field_count: u8,
    /// Process (the kernel's tgid).
    pub pid: u32,
    /// Thread (the kernel's pid).
    pub tid: u32,
    /// `CLOCK_MONOTONIC` when the C function was called: equal to [`crate::driver::DriverCalled::entry_ns`] of its
    /// record.
    pub entry_ns: u64,
    /// The frame's address; 0 if none was found.
    pub frame: u64,
    /// Where its code stands.
    pub instruction: u64,
    /// Frames further in than this one.
    pub depth: u32,
    /// Catalogued frames further in than this one, which are told by records before this one.
    pub order: u32,
    /// Which compiled program made the fields; 0 if no frame was found.
    pub program: u32,
    /// Bytes of the blob in use: 0, frames tell scalars only.
    pub blob_len: u32,
    /// The code object; 0 if none was found.
    pub code: u64,
}

const _: () = assert!(size_of::<FrameWalked>() == size_of::<crate::record::MethodCalled>());

/// What is looked at of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its code object.
    pub code: u64,
    /// The frame that called it; 0 for the outermost.
    pub previous: u64,
}

/// The thread state of the thread whose thread pointer is `thread_pointer`, or why there is none.
#[inline(always)]
pub fn state<M: Memory>(memory: &M, layout: &StackLayout, thread_pointer: u64) -> Result<u64, u8> {
    let Some(state) = memory.read::<u64>(thread_pointer.wrapping_add(layout.slot as u64)) else {
        return Err(OUTCOME_FAULT);
    };
    if state == 0 {
        return Err(OUTCOME_NO_STATE);
    }
    match memory.read::<u64>(state.wrapping_add(u64::from(layout.thread_id))) {
        None => Err(OUTCOME_FAULT),
        Some(owner) if owner != thread_pointer => Err(OUTCOME_OTHER_THREAD),
        Some(_) => Ok(state),
    }
}

/// The innermost frame of a thread; 0 if it runs no Python code.
#[inline(always)]
pub fn innermost<M: Memory>(memory: &M, layout: &StackLayout, state: u64) -> Result<u64, u8> {
    let Some(mut frame) = memory.read::<u64>(state.wrapping_add(u64::from(layout.state_frame)))
    else {
        return Err(OUTCOME_FAULT);
    };
    if layout.cframe_frame != NO_OFFSET {
        frame = match memory.read::<u64>(frame.wrapping_add(u64::from(layout.cframe_frame))) {
            None => return Err(OUTCOME_FAULT),
            Some(frame) => frame,
        };
    }
    Ok(frame)
}

/// Code and caller of the frame at `address`; `None` if it cannot be read.
#[inline(always)]
pub fn frame<M: Memory>(memory: &M, layout: &StackLayout, address: u64) -> Option<Frame> {
    let [first, second, third] =
        memory.read::<[u64; 3]>(address.wrapping_add(u64::from(layout.frame_head)))?;
    let word = |index: u32| {
        if index == 0 {
            first
        } else if index == 1 {
            second
        } else {
            third
        }
    };
    Some(Frame {
        code: word(layout.code_word) & !TAG,
        previous: word(layout.previous_word),
    })
}

/// Where the code of the frame at `address` stands; 0 if that cannot be read.
#[inline(always)]
pub fn instruction<M: Memory>(memory: &M, layout: &StackLayout, address: u64) -> u64 {
    memory.read_or_zero(address.wrapping_add(u64::from(layout.frame_instruction)))
}

/// Whether the stack is as it was: `innermost` is still the innermost frame, and the frame at `address` still runs
/// `code` at `instruction`.
#[inline(always)]
pub fn is_same<M: Memory>(
    memory: &M,
    layout: &StackLayout,
    thread_pointer: u64,
    innermost_before: u64,
    told: &FrameWalked,
) -> bool {
    let Ok(state) = state(memory, layout, thread_pointer) else {
        return false;
    };
    innermost(memory, layout, state) == Ok(innermost_before)
        && frame(memory, layout, told.frame).is_some_and(|frame| frame.code == told.code)
        && instruction(memory, layout, told.frame) == told.instruction
}

#[cfg(test)]
mod tests;
