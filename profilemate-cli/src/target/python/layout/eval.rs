//! What a thread at the entry of the eval loop may have to do before anything else.

/// Offsets in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvalOffsets {
    /// Where it stands that something is to be done: a signal's handler, a call that was asked for, the lock.
    pub breaker: Breaker,
    /// `PyThreadState.curexc_type` (to 3.11) or `current_exception`.
    pub exception: u64,
}

/// `eval_breaker`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaker {
    /// `PyInterpreterState.ceval.eval_breaker`, 32 bits (to 3.12).
    Interpreter(u64),
    /// `PyThreadState.eval_breaker`, of which the lowest eight bits tell (3.13).
    Thread(u64),
}
