//! Asking an engine that speaks the Prometheus HTTP API: Prometheus, Thanos, Mimir, VictoriaMetrics.

pub mod answer;
pub mod http;

use std::time::Duration;

pub use answer::{Answer, Labels, Series};
pub use http::{Access, Http};

use crate::secret;

/// Why the engine could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is not one.
    #[error("`{url}` is not an address such as `http://localhost:9090`")]
    Address {
        /// As given.
        url: String,
    },
    /// The address holds a password, which every user of the machine can read in the process list.
    #[error("the address holds a password, which every user can read in the process list")]
    PasswordInAddress,
    /// A secret would go over the network in the clear.
    #[error("a secret would be sent to `{host}` without TLS")]
    InTheClear {
        /// The host.
        host: String,
    },
    /// A header is not `NAME: VALUE`.
    #[error("`{header}` is not a header such as `X-Scope-OrgID: team`")]
    Header {
        /// As given.
        header: String,
    },
    /// A header that holds a secret stands among the arguments.
    #[error("the header `{name}` holds a secret, which every user can read in the process list")]
    SecretInArguments {
        /// The header's name.
        name: String,
    },
    /// The authorities in a file cannot be used.
    #[error("cannot use the certificates in `{path}`")]
    Certificates {
        /// The file.
        path: std::path::PathBuf,
        /// Why, where a library says it.
        #[source]
        source: Option<std::io::Error>,
    },
    /// A secret cannot be used.
    #[error(transparent)]
    Secret(#[from] secret::Error),
    /// The HTTP client cannot be made.
    #[error("cannot prepare the HTTP client")]
    Client(#[source] reqwest::Error),
    /// Nobody answered, or TLS failed, or it took too long.
    #[error("no answer from {url}")]
    NoAnswer {
        /// Scheme, host and path.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// An HTTP status that is no success.
    #[error("{url} answered {status}: {text}")]
    Status {
        /// Scheme, host and path.
        url: String,
        /// HTTP status.
        status: u16,
        /// The start of the body.
        text: String,
    },
    /// The answer is longer than what fits into memory safely.
    #[error("the answer of {url} is longer than {limit} bytes")]
    TooLong {
        /// Scheme, host and path.
        url: String,
        /// The limit.
        limit: usize,
    },
    /// What answered does not speak the API.
    #[error("the answer is not one of the Prometheus API")]
    NotTheApi {
        /// Where the JSON ends to be one.
        #[source]
        source: serde_json::Error,
    },
    /// The engine refuses the query.
    #[error("the engine refuses the query ({kind}): {text}")]
    Refused {
        /// Its name for the error.
        kind: String,
        /// Its words.
        text: String,
    },
    /// The engine's clock cannot be read.
    #[error("the engine does not say what time it is")]
    NoTime,
}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Address { .. } => "give the engine's address: --prometheus http://HOST:PORT",
            Self::PasswordInAddress => {
                "put `user:password` into a file, and give --basic-auth-file FILE"
            }
            Self::InTheClear { .. } => {
                "use https, or ask the engine on this machine through localhost"
            }
            Self::Header { .. } => "give --header 'NAME: VALUE'",
            Self::SecretInArguments { .. } => {
                "put it into a file, and give --token-file FILE or --basic-auth-file FILE"
            }
            Self::Certificates { .. } => "--ca-file wants certificates in PEM",
            Self::Secret(secret::Error::Open { .. }) => "chmod 600 FILE",
            Self::Secret(_) => "the file holds the secret in one line",
            Self::Client(_) => "are the system's certificates installed (ca-certificates)?",
            Self::NoAnswer { .. } => {
                "is the address right, and the engine up? --ca-file FILE for an authority of your own, --timeout for a \
                 slow one"
            }
            Self::Status {
                status: 401 | 403, ..
            } => "--token-file FILE or --basic-auth-file FILE holds what the engine asks for",
            Self::Status { status: 404, .. } | Self::NotTheApi { .. } => {
                "the address is the one before `/api/v1/query`; some engines want a path, such as `/prometheus` or \
                 `/select/0/prometheus`"
            }
            Self::Status { .. } => "the engine's own log has more",
            Self::TooLong { .. } => "ask for a part: --select 'model=\"NAME\"'",
            Self::Refused { .. } | Self::NoTime => {
                "Prometheus 2.40 or newer, Thanos, Mimir and VictoriaMetrics 1.79 or newer are known to work"
            }
        }
    }
}

/// What can be asked. The tests put canned answers in the place of an engine.
pub trait Engine {
    /// A query at one time (seconds since 1970), or at the engine's own.
    fn at(&self, query: &str, time: Option<f64>) -> impl Future<Output = Result<Answer, Error>>;

    /// A query over a span, at its end and `step` before that, and so on.
    fn over(&self, query: &str, span: Span) -> impl Future<Output = Result<Answer, Error>>;
}

/// From when to when, in how many pieces, by the engine's clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// End, in seconds since 1970.
    pub end: f64,
    /// Length of a piece.
    pub step: Duration,
    /// Number of pieces.
    pub pieces: u32,
}

impl Span {
    /// `window` before `end`, in pieces.
    pub fn new(end: f64, window: Duration, pieces: u32) -> Self {
        let pieces = pieces.max(1);
        Self {
            end,
            step: Duration::from_secs((window.as_secs() / u64::from(pieces)).max(1)),
            pieces,
        }
    }

    /// End of the first piece.
    pub fn start(&self) -> f64 {
        self.end - self.step.as_secs_f64() * f64::from(self.pieces - 1)
    }

    /// Which piece a time ends; `None` outside.
    pub fn piece(&self, time: f64) -> Option<usize> {
        let at = ((time - self.start()) / self.step.as_secs_f64()).round();
        (at >= 0.0 && at < f64::from(self.pieces)).then_some(at as usize)
    }
}
