//! Files that hold a secret: refused if others could read them, never shown.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use subtle::ConstantTimeEq as _;

/// Bytes of such a file, at most.
const LIMIT: u64 = 64 << 10;
/// Characters of a token, at least.
const SHORTEST: usize = 16;

/// Why a secret is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Everybody on this host can read or change it.
    #[error(
        "`{path}` holds a secret, and everybody on this host can read or change it (mode {mode:04o})"
    )]
    Open {
        /// Which.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// What stands in it is no good secret.
    #[error("`{path}` {reason}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
}

impl Error {
    /// What can be done.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Read { .. } => "is the path right, and may this user read it?",
            Self::Open { .. } => {
                "`chmod o= FILE`; for a secret of Kubernetes set `defaultMode: 0400`"
            }
            Self::Content { .. } => "`openssl rand -hex 32 > FILE` makes a good token",
        }
    }
}

/// The text of a file that only its owner and group may read.
pub fn read(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    // What is checked is what is read: the open file.
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o006 != 0 {
        return Err(Error::Open {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = String::new();
    file.take(LIMIT).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// A token. It is compared in constant time, and never shown.
#[derive(Clone)]
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// Reads the one in `path`.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = read(path)?;
        let token = text.trim();
        let reason = if token.len() < SHORTEST {
            "holds a token of less than 16 characters"
        } else if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            "holds a token with blanks or characters that a header cannot hold"
        } else {
            return Ok(Self(token.to_owned()));
        };
        Err(Error::Content {
            path: path.to_owned(),
            reason,
        })
    }

    /// Whether the value of an `Authorization` header holds it.
    pub fn is_in(&self, header: Option<&[u8]>) -> bool {
        header
            .and_then(|value| value.strip_prefix(b"Bearer "))
            .is_some_and(|given| bool::from(given.ct_eq(self.0.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(text: &str, mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(file.path(), permissions).unwrap();
        file
    }

    #[test]
    fn a_file_that_everybody_can_read_or_write_is_refused() {
        for mode in [0o644, 0o604, 0o602, 0o666] {
            let error = Token::read(file("0123456789abcdef", mode).path()).unwrap_err();
            assert!(matches!(error, Error::Open { .. }), "{mode:o}: {error}");
            assert!(!error.to_string().contains("0123456789"), "{error}");
        }
        for mode in [0o600, 0o400, 0o440] {
            Token::read(file("0123456789abcdef\n", mode).path()).unwrap();
        }
    }

    #[test]
    fn a_token_is_recognised_and_never_shown() {
        let token = Token::read(file("0123456789abcdef\n", 0o600).path()).unwrap();
        assert!(token.is_in(Some(b"Bearer 0123456789abcdef")));
        for other in [
            &b"Bearer 0123456789abcdee"[..],
            b"Bearer ",
            b"0123456789abcdef",
            b"",
        ] {
            assert!(!token.is_in(Some(other)));
        }
        assert!(!token.is_in(None));
        assert_eq!(format!("{token:?}"), "Token(..)");
        assert!(Token::read(file("short", 0o600).path()).is_err());
        assert!(Token::read(file("0123456789 abcdef", 0o600).path()).is_err());
    }
}
