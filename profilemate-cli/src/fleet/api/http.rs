//! The engine over HTTP.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{
    AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION, RETRY_AFTER,
};
use reqwest::{Certificate, Client, Method, Response, StatusCode, Url};

use super::{Answer, Engine, Error, Span, answer};
use crate::secret::Secret;

/// Bytes of an answer, at most: 100,000 GPUs need about a tenth of that for each query.
const LARGEST: usize = 512 << 20;
/// Bytes of an error's body that are shown.
const SHOWN: usize = 300;
/// How often a query is sent again where the engine says that it is busy.
const AGAIN: u32 = 3;
/// The longest wait that an engine may ask for.
const PATIENCE: Duration = Duration::from_secs(15);

/// How to reach an engine.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Address, up to what stands before `/api/v1`.
    pub url: String,
    /// File with a bearer token.
    pub token_file: Option<PathBuf>,
    /// File with `user:password`.
    pub basic_auth_file: Option<PathBuf>,
    /// Certificates of authorities to trust instead of the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// More headers, as `NAME: VALUE`.
    pub headers: Vec<String>,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// An engine behind an address.
#[derive(Debug)]
pub struct Http {
    client: Client,
    base: Url,
}

impl Http {
    /// Prepares to ask; nothing is sent yet.
    pub fn new(access: &Access) -> Result<Self, Error> {
        let base = address(&access.url)?;
        let client = client(access, &base)?;
        Ok(Self { client, base })
    }

    async fn ask(&self, path: &str, form: &[(&str, String)]) -> Result<Answer, Error> {
        let mut url = self.base.clone();
        let before = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{before}/api/v1/{path}"));
        let mut method = Method::POST;
        let mut tries = 0;
        loop {
            let request = match method {
                Method::POST => self.client.post(url.clone()).form(form),
                _ => self.client.get(url.clone()).query(form),
            };
            let response = request
                .send()
                .await
                .map_err(|source| no_answer(&url, source))?;
            let status = response.status();
            if status == StatusCode::METHOD_NOT_ALLOWED && method == Method::POST {
                method = Method::GET;
                continue;
            }
            let busy = matches!(status.as_u16(), 429 | 502 | 503 | 504);
            if busy && tries < AGAIN {
                tries += 1;
                tokio::time::sleep(wait(&response, tries)).await;
                continue;
            }
            return read(&url, response).await;
        }
    }
}

impl Engine for Http {
    async fn at(&self, query: &str, time: Option<f64>) -> Result<Answer, Error> {
        let mut form = vec![("query", query.to_owned())];
        form.extend(time.map(|time| ("time", format!("{time:.3}"))));
        self.ask("query", &form).await
    }

    async fn over(&self, query: &str, span: Span) -> Result<Answer, Error> {
        let form = [
            ("query", query.to_owned()),
            ("start", format!("{:.3}", span.start())),
            ("end", format!("{:.3}", span.end)),
            ("step", format!("{}", span.step.as_secs_f64())),
        ];
        self.ask("query_range", &form).await
    }
}

/// How long the engine wants us to wait; growing where it does not say.
fn wait(response: &Response, tries: u32) -> Duration {
    let asked = response.headers().get(RETRY_AFTER);
    let asked = asked.and_then(|value| value.to_str().ok()?.parse().ok());
    asked
        .map_or(
            Duration::from_millis(250 << tries.min(6)),
            Duration::from_secs,
        )
        .min(PATIENCE)
}

/// What it is called that nobody answered.
pub fn no_answer(url: &Url, source: reqwest::Error) -> Error {
    Error::NoAnswer {
        url: shown(url),
        source: source.without_url(),
    }
}

/// An address without what may be secret.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

/// An answer's body.
pub async fn body(url: &Url, mut response: Response, limit: usize) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|source| no_answer(url, source))?
    {
        if body.len() + chunk.len() > limit {
            return Err(Error::TooLong {
                url: shown(url),
                limit,
            });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

async fn read(url: &Url, response: Response) -> Result<Answer, Error> {
    let status = response.status();
    let body = body(url, response, LARGEST).await?;
    // A refused query has a status that is no success, and a body that says why.
    match answer::read(&body) {
        Err(Error::NotTheApi { .. }) if !status.is_success() => Err(Error::Status {
            url: shown(url),
            status: status.as_u16(),
            text: start(&body),
        }),
        answer => answer,
    }
}

/// The start of a body, on one line.
pub fn start(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(SHOWN)]);
    let words: Vec<&str> = text.split_whitespace().collect();
    words
        .join(" ")
        .chars()
        .filter(|c| !c.is_control())
        .collect()
}

/// Reads the address of an engine or an agent.
pub fn address(text: &str) -> Result<Url, Error> {
    let wrong = || Error::Address {
        url: text.to_owned(),
    };
    let url = if text.contains("://") {
        Url::parse(text)
    } else {
        Url::parse(&format!("http://{text}"))
    };
    let url = url.map_err(|_error| wrong())?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(wrong());
    }
    if url.password().is_some() || !url.username().is_empty() {
        return Err(Error::PasswordInAddress);
    }
    Ok(url)
}

/// Whether what is sent there leaves this machine.
fn is_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or("");
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// Whether a secret may be sent there.
pub fn keeps_secrets(url: &Url) -> Result<(), Error> {
    if url.scheme() == "https" || is_local(url) {
        return Ok(());
    }
    Err(Error::InTheClear {
        host: url.host_str().unwrap_or("").to_owned(),
    })
}

/// A client with the access's secrets and authorities, for `base` only.
pub fn client(access: &Access, base: &Url) -> Result<Client, Error> {
    // Another part of the process may have chosen the same one already.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let mut headers = HeaderMap::new();
    for header in &access.headers {
        let (name, value) = named(header).ok_or_else(|| Error::Header {
            header: header.split(':').next().unwrap_or("").to_owned(),
        })?;
        if [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE].contains(&name) {
            return Err(Error::SecretInArguments {
                name: name.to_string(),
            });
        }
        headers.insert(name, value);
    }
    if let Some(mut value) = authorization(access)? {
        keeps_secrets(base)?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let mut builder = Client::builder()
        .user_agent(concat!("profilemate/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .timeout(access.timeout)
        .redirect(reqwest::redirect::Policy::none());
    if let Some(path) = &access.ca_file {
        let unusable = |source| Error::Certificates {
            path: path.clone(),
            source,
        };
        let pem = std::fs::read(path).map_err(|source| unusable(Some(source)))?;
        let certificates =
            Certificate::from_pem_bundle(&pem).map_err(|_malformed| unusable(None))?;
        if certificates.is_empty() {
            return Err(unusable(None));
        }
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(Error::Client)
}

fn named(header: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = header.split_once(':')?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
    Some((name, HeaderValue::from_str(value.trim()).ok()?))
}

fn authorization(access: &Access) -> Result<Option<HeaderValue>, Error> {
    use base64::Engine as _;
    let (path, text) = if let Some(path) = &access.token_file {
        (path, format!("Bearer {}", Secret::read(path)?.reveal()))
    } else if let Some(path) = &access.basic_auth_file {
        let pair = Secret::read(path)?;
        let coded = base64::engine::general_purpose::STANDARD.encode(pair.reveal());
        (path, format!("Basic {coded}"))
    } else {
        return Ok(None);
    };
    let value = HeaderValue::from_str(&text);
    let value = value.map_err(|_error| crate::secret::Error::Content {
        path: path.clone(),
        reason: "holds characters that a header cannot hold",
    })?;
    Ok(Some(value))
}
