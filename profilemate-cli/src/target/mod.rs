//! What is there: the target's processes and threads, their parts in vLLM, (in `python`) the interpreter and its objects,
//! (in `cuda`) the CUDA libraries, and (in `native`) the functions of mapped libraries.
//!
//! Nothing here writes anything anywhere.

pub mod cuda;
pub mod libraries;
mod maps;
pub mod native;
pub mod process;
pub mod python;
pub mod role;
pub mod task;
