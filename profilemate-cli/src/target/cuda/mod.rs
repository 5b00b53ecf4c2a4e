//! The CUDA libraries that a process maps, and the functions of theirs that are probed.

mod functions;
mod library;

pub use functions::{DRIVER, Declared, RUNTIME, SUFFIXES, declared};
pub use library::{Export, Image, Library, Side, Unopened, find};
