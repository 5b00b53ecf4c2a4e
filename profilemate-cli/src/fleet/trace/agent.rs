//! One agent, over HTTP: a trace is asked for, looked at, and gathered. What it says is not trusted.

use std::path::Path;
use std::time::Duration;

use reqwest::header::{CONNECTION, CONTENT_TYPE};
use reqwest::{Client, RequestBuilder, StatusCode, Url};
use serde::Deserialize;

use crate::agent::trace::{Asked, Progress, Shown};
use crate::fleet::api::{self, http};
use crate::parcel::pipe::pipe;
use crate::parcel::unpack;

/// Bytes of an answer that is no archive, at most.
const ANSWER: usize = 8 << 20;
/// Bytes of a session, at most.
const SESSION: u64 = 16 << 30;
/// How long a session may be on its way.
const SENDING: Duration = Duration::from_secs(1_800);
/// Characters of an agent's words that are shown.
const SHOWN: usize = 300;

/// Why there is no session of a server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The agent was not reached, or may not be asked.
    #[error(transparent)]
    Api(#[from] api::Error),
    /// It refuses.
    #[error("the agent refuses ({status}): {words}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its words.
        words: String,
    },
    /// It answers what no agent does.
    #[error("what answers is no agent")]
    Stranger(#[source] serde_json::Error),
    /// It has lost the trace: it was started anew.
    #[error("the agent no longer knows the trace; was it started anew?")]
    Forgotten,
    /// The trace failed.
    #[error("the trace failed: {reason}")]
    Failed {
        /// Why.
        reason: String,
    },
    /// It does not end.
    #[error("the trace has not ended {0} s after its time")]
    Late(u64),
    /// What it sent is not taken.
    #[error(transparent)]
    Unpack(#[from] unpack::Error),
    /// The thread that unpacks has failed.
    #[error("cannot unpack")]
    Thread(#[source] tokio::task::JoinError),
}

impl Error {
    /// Whether it may pass by itself.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Api(api::Error::NoAnswer { .. }) => true,
            Self::Refused { status, .. } => matches!(status, 429 | 502 | 503 | 504),
            _ => false,
        }
    }
}

/// Words of an agent, on one line.
fn words(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    line.chars()
        .filter(|c| !c.is_control())
        .take(SHOWN)
        .collect()
}

/// What `POST /trace` answers.
#[derive(Deserialize)]
struct Taken {
    trace: u64,
}

/// What `GET /sessions` answers, as far as it matters here.
#[derive(Deserialize)]
struct Sessions {
    #[serde(default)]
    traces: Vec<Shown>,
}

/// What a refusal says.
#[derive(Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    hint: String,
}

/// An agent.
#[derive(Clone, Debug)]
pub struct Agent {
    client: Client,
    base: Url,
}

impl Agent {
    /// At an address to which the client's token may be sent.
    pub fn new(client: Client, base: Url) -> Result<Self, Error> {
        http::keeps_secrets(&base)?;
        Ok(Self { client, base })
    }

    fn at(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let before = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{before}{path}"));
        url
    }

    /// Sends a request, on a connection of its own: an agent ends those that live for minutes.
    async fn ask(&self, url: &Url, request: RequestBuilder) -> Result<reqwest::Response, Error> {
        let sent = request.header(CONNECTION, "close").send().await;
        let response = sent.map_err(|source| http::no_answer(url, source))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = http::body(url, response, ANSWER).await?;
        let said = match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) if refusal.hint.is_empty() => refusal.error,
            Ok(refusal) => format!("{}; {}", refusal.error, refusal.hint),
            Err(_no_agent) => http::start(&body),
        };
        Err(Error::Refused {
            status: status.as_u16(),
            words: words(&said),
        })
    }

    /// Asks for a trace, and gives its number.
    pub async fn begin(&self, asked: &Asked) -> Result<u64, Error> {
        let url = self.at("/trace");
        let body = serde_json::to_vec(asked).map_err(Error::Stranger)?;
        let request = self.client.post(url.clone()).body(body);
        let request = request.header(CONTENT_TYPE, "application/json");
        let response = self.ask(&url, request).await?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(Error::Refused {
                status: response.status().as_u16(),
                words: "it did not take the trace on".to_owned(),
            });
        }
        let body = http::body(&url, response, ANSWER).await?;
        let taken: Taken = serde_json::from_slice(&body).map_err(Error::Stranger)?;
        Ok(taken.trace)
    }

    /// How a trace of `server` stands.
    pub async fn standing(&self, id: u64, server: &str) -> Result<Progress, Error> {
        let url = self.at("/sessions");
        let response = self.ask(&url, self.client.get(url.clone())).await?;
        let body = http::body(&url, response, ANSWER).await?;
        let sessions: Sessions = serde_json::from_slice(&body).map_err(Error::Stranger)?;
        let mut traces = sessions.traces.into_iter();
        // An agent that was started anew counts from the beginning.
        let found = traces.find(|trace| trace.id == id && trace.server == server);
        match found.ok_or(Error::Forgotten)?.progress {
            Progress::Failed { reason } => Err(Error::Failed {
                reason: words(&reason),
            }),
            Progress::Done {
                reason,
                folder,
                events,
                lost,
            } => Ok(Progress::Done {
                reason: words(&reason),
                folder,
                events,
                lost,
            }),
            standing => Ok(standing),
        }
    }

    /// Gathers a session into the new folder `folder`, and gives the bytes of its files.
    pub async fn gather(&self, id: u64, folder: &Path) -> Result<u64, Error> {
        let url = self.at(&format!("/sessions/{id}.tar"));
        let request = self.client.get(url.clone()).timeout(SENDING);
        let mut response = self.ask(&url, request).await?;
        let (inlet, outlet) = pipe();
        let folder = folder.to_owned();
        let unpacking =
            tokio::task::spawn_blocking(move || unpack::unpack(outlet, &folder, SESSION));
        loop {
            let piece = match response.chunk().await {
                Ok(Some(piece)) => Ok(piece),
                Ok(None) => break,
                Err(error) => Err(std::io::Error::other(error.without_url())),
            };
            let failed = piece.is_err();
            // Who unpacks listens no longer once something is refused, and says why below.
            if !inlet.send(piece).await || failed {
                break;
            }
        }
        drop(inlet);
        Ok(unpacking.await.map_err(Error::Thread)??)
    }
}
