//! Where rows go: the session folder's tables, its metadata and summary, and the live status.

pub mod csv;
pub mod lines;
pub mod metadata;
pub mod status;
pub mod summary;
pub mod watch;

use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong with the session folder.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A folder or file cannot be created.
    #[error("cannot create `{path}`")]
    Create {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write `{path}`")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Replaces a file by way of a new one beside it, so that a reader sees the old or the new content and nothing else.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), Error> {
    let failed = |source| Error::Write {
        path: path.to_owned(),
        source,
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".profilemate-")
        .tempfile_in(folder)
        .map_err(failed)?;
    io::Write::write_all(&mut file, content).map_err(failed)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(mode).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metadata.json");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_error_names_the_path() {
        let error = replace(Path::new("/proc/nowhere/metadata.json"), b"x").unwrap_err();
        assert!(
            error.to_string().contains("/proc/nowhere/metadata.json"),
            "{error}"
        );
    }
}
