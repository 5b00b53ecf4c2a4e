//! `report`: a session as one HTML page.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;

use super::explain::unreadable;
use super::{Exit, Failure, print};
use crate::recorded::Session;
use crate::report::{self, page};
use crate::sink;

/// Name of the page in a session's folder.
const NAME: &str = "report.html";
/// Where standard output is meant.
const STDOUT: &str = "-";

/// Options of `report`.
#[derive(Debug, Args)]
pub struct Report {
    /// A session's folder; also one of an older version or of the Python predecessor.
    pub session: PathBuf,
    /// File to write, `-` for standard output [default: report.html in the session's folder]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace a file that is not a page of this command.
    #[arg(long)]
    pub force: bool,
}

/// `report`.
pub(super) fn run(options: &Report, quiet: bool) -> Result<Exit, Failure> {
    let session = Session::open(&options.session).map_err(unreadable)?;
    let path = options.output.clone();
    let path = path.unwrap_or_else(|| session.folder.join(NAME));
    let stdout = path.as_os_str() == STDOUT;
    if !stdout && !options.force {
        refuse_another(&path)?;
    }
    let report = report::Report::of_session(&session).map_err(unreadable)?;
    let text = page::page(&report);
    if stdout {
        // Who reads it may have enough of it.
        let _closed = std::io::stdout().write_all(text.as_bytes());
        return Ok(Exit::Done);
    }
    sink::replace(&path, text.as_bytes()).map_err(unwritable)?;
    if !quiet {
        print::note("open it in a browser; it needs no network");
    }
    let path = path.canonicalize().unwrap_or(path);
    print::data(&path.display().to_string());
    Ok(Exit::Done)
}

/// A file that is there is replaced only if this command wrote it.
fn refuse_another(path: &Path) -> Result<(), Failure> {
    let known = std::fs::symlink_metadata(path);
    let Ok(known) = known else {
        return Ok(());
    };
    let mut head = Vec::new();
    if known.is_file()
        && let Ok(file) = std::fs::File::open(path)
        && file.take(page::MARK_WITHIN).read_to_end(&mut head).is_ok()
        && page::is_ours(&head)
    {
        return Ok(());
    }
    let error = anyhow::anyhow!("`{}` is there and is not a report", path.display());
    Err(Failure::new(Exit::Output, error)
        .hint("`-o FILE` names another file, `--force` replaces it"))
}

fn unwritable(error: sink::Error) -> Failure {
    Failure::new(Exit::Output, error).hint(
        "is the folder there and writable? `-o FILE` names another file, `-o -` standard output",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_report_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        assert!(refuse_another(&path).is_ok());
        std::fs::write(&path, "<!doctype html><title>mine</title>").unwrap();
        let refused = refuse_another(&path).unwrap_err().to_string();
        assert!(
            refused.contains("report.html") && refused.contains("--force"),
            "{refused}"
        );
        std::fs::write(&path, page::HEAD).unwrap();
        assert!(refuse_another(&path).is_ok());
        let link = folder.path().join("link.html");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(refuse_another(&link).is_err());
    }
}
