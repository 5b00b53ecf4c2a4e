//! Files that hold a secret: refused if others could read them, never shown.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use subtle::ConstantTimeEq as _;

/// Bytes of such a file, at most.
const LIMIT: u64 = 64 << 10;
/// Bytes of a file with a secret that is sent, at most.
const LONGEST: usize = 16 << 10;
/// Characters of a token that clients must send, at least.
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
    let mut file = file.take(LIMIT + 1);
    file.read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > LIMIT {
        return Err(Error::Content {
            path: path.to_owned(),
            reason: "is too long to hold a secret",
        });
    }
    Ok(text)
}

/// A secret that is sent: a token, or a user and a password. It is never shown.
#[derive(Clone)]
pub struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// Reads the one line of `path`.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = read(path)?;
        let line = text.trim_end_matches(['\r', '\n']);
        let fits = text.len() <= LONGEST && !line.is_empty();
        if !fits || !line.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
            return Err(Error::Content {
                path: path.to_owned(),
                reason: "does not hold a secret of one line",
            });
        }
        Ok(Self(line.to_owned()))
    }

    /// The secret itself, for the header that carries it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// A token that clients must send. It is compared in constant time, and never shown.
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

    #[test]
    fn a_secret_that_is_sent_is_one_line() {
        let secret = Secret::read(file("abc.def\n", 0o600).path()).unwrap();
        assert_eq!(secret.reveal(), "abc.def");
        assert_eq!(format!("{secret:?}"), "Secret");
        let error = Secret::read(file("abc.def\n", 0o644).path()).unwrap_err();
        assert!(matches!(error, Error::Open { mode: 0o644, .. }));
        for text in ["", "\n", "two\nlines", &"a".repeat(20_000)] {
            let error = Secret::read(file(text, 0o600).path()).unwrap_err();
            assert!(matches!(error, Error::Content { .. }), "{error}");
        }
        let error = Secret::read(Path::new("/no/such/file")).unwrap_err();
        assert!(matches!(error, Error::Read { .. }));
    }
}
