//! A session in the formats of other tools.
//!
//! `perfetto`, `chrome`, `speedscope` and `otlp` show it over time: [`story`] tells what happened to a [`Timeline`].
//! `parquet` and `jsonl` hold the tables. Rows are streamed; what must be kept to draw lines between tables is bounded.

pub mod chrome;
mod flow;
pub mod jsonl;
pub mod loss;
pub mod otlp;
pub mod parquet;
pub mod perfetto;
pub mod speedscope;
pub mod story;
pub mod timeline;

use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::recorded::{self, Session};
use timeline::Timeline;

/// A format of another tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Perfetto's protobuf trace, for ui.perfetto.dev: everything.
    Perfetto,
    /// Chrome's JSON trace events, for Chrome's own viewer and Perfetto.
    Chrome,
    /// A folder with a Parquet file for each table, for SQL and data frames.
    Parquet,
    /// One JSON object a row, with its table's name.
    Jsonl,
    /// OpenTelemetry's OTLP/JSON, one request of spans a line, as the Collector's file receiver reads it.
    Otlp,
    /// Speedscope's JSON, one profile for each track.
    Speedscope,
}

impl Format {
    /// What a file or folder of this format is called behind the session's name.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Perfetto => ".pftrace",
            Self::Chrome => ".trace.json",
            Self::Parquet => ".parquet",
            Self::Jsonl => ".jsonl",
            Self::Otlp => ".otlp.jsonl",
            Self::Speedscope => ".speedscope.json",
        }
    }
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The session cannot be read.
    #[error(transparent)]
    Session(#[from] recorded::Error),
    /// The output cannot be written.
    #[error("cannot write `{path}`")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The format needs wall clock times, and the session does not tell when it began.
    #[error(
        "`{0}` does not tell when it began (`start_time` in metadata.json), and OTLP needs wall clock times"
    )]
    NoStart(PathBuf),
    /// More than the format can hold in memory.
    #[error("the session has more than {most} slices, and {format} must hold all of them at once")]
    TooMany {
        /// How many it may have.
        most: usize,
        /// Which format.
        format: &'static str,
    },
    /// While it was written; [`export`] adds the path.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes the session to `path`, which is replaced once all is written. Gives notes in plain words.
pub fn export(session: &Session, format: Format, path: &Path) -> Result<Vec<String>, Error> {
    let failed = |source| Error::Write {
        path: path.to_owned(),
        source,
    };
    if format == Format::Parquet {
        std::fs::create_dir_all(path).map_err(failed)?;
        return parquet::write(session, path);
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let mut builder = tempfile::Builder::new();
    builder
        .prefix(".profilemate-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let file = builder
        .tempfile_in(folder.unwrap_or(Path::new(".")))
        .map_err(failed)?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let notes = write(session, format, &mut out).map_err(|error| match error {
        Error::Io(source) => failed(source),
        other => other,
    })?;
    out.flush().map_err(failed)?;
    let file = out
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(notes)
}

fn write(session: &Session, format: Format, out: &mut dyn io::Write) -> Result<Vec<String>, Error> {
    let told = |timeline: &mut dyn Timeline| {
        let notes = story::tell(session, timeline)?;
        timeline.finish()?;
        Ok(notes)
    };
    match format {
        Format::Perfetto => told(&mut perfetto::Perfetto::new(out)),
        Format::Chrome => told(&mut chrome::Chrome::new(out)?),
        Format::Speedscope => told(&mut speedscope::Speedscope::new(out, session)),
        Format::Otlp => told(&mut otlp::Otlp::new(out, session)?),
        Format::Jsonl | Format::Parquet => jsonl::write(session, out),
    }
}

#[cfg(test)]
mod tests;
