//! The event stream: its file, its decoding, its order, and everything behind it tied together.
//!
//! Live session and replay use the same [`Pipeline`]; nothing behind it knows which of the two it serves.

pub mod decode;
pub mod frame;
pub mod order;
pub mod pipeline;
pub mod replay;
pub mod writer;

pub use pipeline::{Options, Outcome, Pipeline};
pub use replay::replay;

use std::path::PathBuf;

/// What can go wrong between the ring buffer and the session folder.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The capture file cannot be opened or read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a capture, or of another format.
    #[error("`{path}` is not a capture of this format")]
    Capture {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: frame::Error,
    },
    /// The session folder cannot be written.
    #[error(transparent)]
    Sink(#[from] crate::sink::Error),
}
