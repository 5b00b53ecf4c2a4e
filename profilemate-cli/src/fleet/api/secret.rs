//! A secret in a file: a token, or a user and a password. It is never printed and never an argument.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Bytes of a secret, at most.
const LARGEST: u64 = 16 << 10;

/// Why a file cannot be used as a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read the secret in `{path}`")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Every user of the machine can read it.
    #[error("the secret in `{path}` can be read by every user (mode {mode:03o})")]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is empty, too long, or has a character that no header may have.
    #[error("`{path}` does not hold a secret of one line")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// A secret.
#[derive(Clone)]
pub struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// Reads a secret from the one line of a file that not every user can read.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let unreadable = |source| Error::Unreadable {
            path: path.to_owned(),
            source,
        };
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.mode() & 0o777;
        if mode & 0o007 != 0 {
            return Err(Error::Open {
                path: path.to_owned(),
                mode,
            });
        }
        let mut text = String::new();
        file.take(LARGEST + 1)
            .read_to_string(&mut text)
            .map_err(unreadable)?;
        let line = text.trim_end_matches(['\r', '\n']);
        let fits = text.len() as u64 <= LARGEST;
        if line.is_empty() || !fits || !line.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
            return Err(Error::Malformed {
                path: path.to_owned(),
            });
        }
        Ok(Self(line.to_owned()))
    }

    /// The secret itself, for the header that carries it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_that_everybody_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "abc.def\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let secret = Secret::read(&path).unwrap();
        assert_eq!(secret.reveal(), "abc.def");
        assert_eq!(format!("{secret:?}"), "Secret");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            Secret::read(&path),
            Err(Error::Open { mode: 0o644, .. })
        ));
    }

    #[test]
    fn empty_and_long_and_binary_files_are_no_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let long = vec![b'a'; 20_000];
        for bytes in [&b""[..], b"\n", b"two\nlines", &long] {
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(Secret::read(&path), Err(Error::Malformed { .. })));
        }
        assert!(matches!(
            Secret::read(&folder.path().join("none")),
            Err(Error::Unreadable { .. })
        ));
    }
}
