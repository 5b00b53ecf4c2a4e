//! `export`: a session in the format of another tool.

use std::path::PathBuf;

use clap::Args;

use super::explain::unreadable;
use super::underway::Underway;
use super::{Exit, Failure, print};
use crate::export::{self, Error, Format};
use crate::recorded::Session;

/// Options of `export`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 done, 1 if the session cannot be read or does not suit the format, 7 if the \
                        output cannot be written.\n\nExample: profilemate export SESSION --to perfetto, then open the \
                        file in ui.perfetto.dev"
)]
pub struct Export {
    /// A session's folder.
    pub session: PathBuf,
    /// The format.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub to: Format,
    /// File to write, or folder for parquet; what is there is replaced [default: the session's name in this folder]
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
}

/// `export`.
pub(super) fn run(export: &Export, quiet: bool) -> Result<Exit, Failure> {
    let what = format!("exporting {}", export.session.display());
    let underway = Underway::start(what, quiet);
    let session = Session::open(&export.session).map_err(unreadable)?;
    let path = export.output.clone().unwrap_or_else(|| {
        let folder = session
            .folder
            .canonicalize()
            .unwrap_or_else(|_| session.folder.clone());
        let name = folder
            .file_name()
            .map_or("session".into(), |name| name.to_string_lossy());
        PathBuf::from(format!("{name}{}", export.to.suffix()))
    });
    let notes = export::export(&session, export.to, &path).map_err(failure)?;
    drop(underway);
    if !quiet {
        for note in &notes {
            print::note(&format!("note: {note}"));
        }
    }
    let path = path.canonicalize().unwrap_or(path);
    print::data(&path.display().to_string());
    Ok(Exit::Done)
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Session(error) => unreadable(error),
        Error::Write { .. } | Error::Io(_) => Failure::new(Exit::Output, error)
            .hint("is the folder there and writable? `-o PATH` names another"),
        Error::NoStart(_) => Failure::new(Exit::Failed, error)
            .hint("the other formats need no wall clock: `--to perfetto`"),
        Error::TooMany { .. } => {
            Failure::new(Exit::Failed, error).hint("perfetto and chrome have no such limit")
        }
    }
}
