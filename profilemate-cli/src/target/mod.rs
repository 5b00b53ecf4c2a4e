//! What is there: the target's processes, their parts in vLLM, and (in `python`) the interpreter and its objects.
//!
//! Nothing here writes anything anywhere.

pub mod libraries;
pub mod process;
pub mod python;
pub mod role;
