//! Where the frames of a Python stack lie.

/// Offsets in bytes of what leads from an interpreter to the local variables of its threads' frames.
#[derive(Debug, PartialEq, Eq)]
pub struct StackOffsets {
    /// `PyInterpreterState.threads.head` (`tstate_head` on 3.10).
    pub threads: u64,
    /// `PyThreadState.thread_id`.
    pub thread_id: u32,
    /// `PyThreadState.frame` (3.10), `.cframe` (3.11, 3.12) or `.current_frame`.
    pub state_frame: u32,
    /// `_PyCFrame.current_frame` (3.11, 3.12).
    pub cframe_frame: Option<u32>,
    /// First of the three words of a frame that hold its code and its caller.
    pub frame_head: u32,
    /// Which of them is `f_code` or `f_executable`.
    pub code_word: u32,
    /// Which of them is `f_back` or `previous`.
    pub previous_word: u32,
    /// `f_localsplus` or `localsplus`.
    pub locals: u32,
    /// `f_lasti` (3.10), `prev_instr` (3.11, 3.12) or `instr_ptr`.
    pub instruction: u32,
}

/// `PyThreadState.next`.
pub const STATE_NEXT: u64 = 8;
/// `PyThreadState.interp`.
pub const STATE_INTERPRETER: u64 = 16;
