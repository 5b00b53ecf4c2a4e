//! What is there: the target's processes, their parts in vLLM, (in `python`) the interpreter and its objects, and (in
//! `cuda`) the CUDA libraries.
//!
//! Nothing here writes anything anywhere.

pub mod cuda;
mod maps;
pub mod process;
pub mod python;
pub mod role;
