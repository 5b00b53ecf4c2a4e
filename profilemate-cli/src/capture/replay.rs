//! Rebuilds a session folder from its capture.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use super::Error;
use super::frame::{self, FrameReader};
use super::pipeline::{KeepCapture, Options, Outcome, Pipeline};

/// Reads the capture `path` and writes its tables into `folder`. They hold the same bytes as the session's own.
pub fn replay(path: &Path, folder: &Path) -> Result<Outcome, Error> {
    let file = File::open(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    let failed = |source| match source {
        frame::Error::Io(source) => Error::Read {
            path: path.to_owned(),
            source,
        },
        source => Error::Capture {
            path: path.to_owned(),
            source,
        },
    };
    let mut frames = FrameReader::new(BufReader::with_capacity(1 << 20, file)).map_err(failed)?;
    let mut pipeline = Pipeline::new(
        folder,
        Options {
            capture: KeepCapture::No,
            ..Options::default()
        },
    )?;
    while let Some((kind, bytes)) = frames.next_frame().map_err(failed)? {
        pipeline.frame(kind, bytes)?;
    }
    Ok(Outcome {
        capture_end: frames.end(),
        ..pipeline.finish()?
    })
}
