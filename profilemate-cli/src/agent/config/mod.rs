//! The configuration file of the agent: TOML. Every key stands, with its default, in `reference.toml`.

mod check;
mod value;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use value::{Budget, Duration, Size};

/// Every key with its default, as `profilemate agent --print-config` prints it.
pub const REFERENCE: &str = include_str!("reference.toml");

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the configuration `{path}`")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no TOML, or a key or value is not known.
    #[error("the configuration `{path}` is not understood: {message}")]
    Parse {
        /// Which.
        path: PathBuf,
        /// What is wrong, with line and column.
        message: String,
        /// A key that was perhaps meant.
        hint: Option<String>,
    },
    /// Two keys do not fit together, or a value is out of its range.
    #[error("{0}")]
    Refused(String),
    /// A file that holds a secret.
    #[error(transparent)]
    Secret(#[from] crate::secret::Error),
}

impl Error {
    /// What can be done.
    pub fn hint(&self) -> String {
        match self {
            Self::Parse {
                hint: Some(hint), ..
            } => hint.clone(),
            Self::Secret(error) => error.hint().to_owned(),
            _ => "`profilemate agent --print-config` prints every key with its default".to_owned(),
        }
    }
}

macro_rules! section {
    ($(#[$meta:meta])+ $name:ident { $( $(#[$field_meta:meta])+ $field:ident: $kind:ty, )+ }) => {
        $(#[$meta])+
        #[derive(Clone, Debug, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name { $( $(#[$field_meta])+ pub $field: $kind, )+ }

        impl $name {
            pub(super) const KEYS: &[&str] = &[$(stringify!($field)),+];
        }
    };
}

section! {
    /// `[agent]`.
    Agent {
        /// Address and port of the HTTP server.
        listen: SocketAddr,
        /// Where the agent remembers what it attached to.
        state_folder: PathBuf,
        /// Time between two looks for servers.
        interval: Duration,
    }
}
section! {
    /// `[servers]`.
    Servers {
        /// Only servers whose environment has one of these; empty: all.
        with_environment: Vec<String>,
        /// Not those whose environment has one of these.
        without_environment: Vec<String>,
    }
}
section! {
    /// `[probes]`.
    Probes {
        /// Session tables whose metrics are told.
        tables: Vec<String>,
        /// Kernel ring buffer of each server.
        ring_size: Size,
        /// What tracing may cost a process.
        budget: Budget,
        /// Whether launches of kernels are counted.
        kernel_counts: bool,
    }
}
section! {
    /// `[findings]`.
    Findings {
        /// Time whose rows are judged together.
        window: Duration,
    }
}
section! {
    /// `[tls]`.
    #[derive(Default)]
    Tls {
        /// Certificate chain, PEM.
        cert_file: Option<PathBuf>,
        /// Private key, PEM.
        key_file: Option<PathBuf>,
    }
}
section! {
    /// `[auth]`.
    #[derive(Default)]
    Auth {
        /// File with the token.
        token_file: Option<PathBuf>,
    }
}
section! {
    /// `[traces]`.
    Traces {
        /// Whether `POST /trace` takes traces.
        enabled: bool,
        /// Where their session folders are kept.
        folder: PathBuf,
        /// Longest duration of one.
        max_duration: Duration,
        /// Space for all of them.
        max_size: Size,
        /// Age at which one is removed.
        max_age: Duration,
    }
}
section! {
    /// `[identity]`.
    Identity {
        /// Folder in which the kubelet keeps the logs; empty: not looked at.
        log_folder: PathBuf,
        /// Socket of the container runtime.
        cri_socket: Option<PathBuf>,
        /// Address of the kubelet's API.
        kubelet: Option<String>,
        /// File with the token for it.
        kubelet_token_file: Option<PathBuf>,
        /// Certificate authority of the kubelet, PEM.
        kubelet_ca_file: Option<PathBuf>,
        /// How long an answer may take.
        timeout: Duration,
    }
}
section! {
    /// `[otlp]`.
    Otlp {
        /// Collector.
        endpoint: Option<String>,
        /// How to speak to it.
        protocol: Protocol,
        /// Time between two pushes.
        interval: Duration,
        /// How long one push may take.
        timeout: Duration,
        /// File with headers.
        headers_file: Option<PathBuf>,
        /// Certificate authority of the collector, PEM.
        ca_file: Option<PathBuf>,
        /// Allows plain `http` to another host.
        insecure: bool,
        /// Part of the steps and requests that is pushed as traces.
        sample: f64,
    }
}

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// OTLP/gRPC.
    #[default]
    Grpc,
    /// OTLP/HTTP with protobuf.
    Http,
}

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `[agent]`.
    pub agent: Agent,
    /// `[servers]`.
    pub servers: Servers,
    /// `[probes]`.
    pub probes: Probes,
    /// `[findings]`.
    pub findings: Findings,
    /// `[tls]`.
    pub tls: Tls,
    /// `[auth]`.
    pub auth: Auth,
    /// `[traces]`.
    pub traces: Traces,
    /// `[identity]`.
    pub identity: Identity,
    /// `[otlp]`.
    pub otlp: Otlp,
}

/// Sections and their keys.
const SECTIONS: &[(&str, &[&str])] = &[
    ("agent", Agent::KEYS),
    ("servers", Servers::KEYS),
    ("probes", Probes::KEYS),
    ("findings", Findings::KEYS),
    ("tls", Tls::KEYS),
    ("auth", Auth::KEYS),
    ("traces", Traces::KEYS),
    ("identity", Identity::KEYS),
    ("otlp", Otlp::KEYS),
];

impl Default for Agent {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9464)),
            state_folder: "/var/lib/profilemate".into(),
            interval: Duration::seconds(2),
        }
    }
}

impl Default for Servers {
    fn default() -> Self {
        Self {
            with_environment: Vec::new(),
            without_environment: vec!["PROFILEMATE_AGENT=off".to_owned()],
        }
    }
}

impl Default for Probes {
    fn default() -> Self {
        let tables = [
            "batch_utilization",
            "kv_cache_usage",
            "kv_cache_evictions",
            "preemption_events",
            "request_lifecycle",
            "forward_pass_timing",
            "cuda_graph_usage",
        ];
        Self {
            tables: tables.map(str::to_owned).to_vec(),
            ring_size: Size(16 << 20),
            budget: Budget(1.0),
            kernel_counts: true,
        }
    }
}

impl Default for Findings {
    fn default() -> Self {
        Self {
            window: Duration(crate::metrics::rows::WINDOW),
        }
    }
}

impl Default for Traces {
    fn default() -> Self {
        Self {
            enabled: false,
            folder: "/var/lib/profilemate/traces".into(),
            max_duration: Duration::seconds(300),
            max_size: Size(2 << 30),
            max_age: Duration::seconds(7 * 86_400),
        }
    }
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            log_folder: "/var/log".into(),
            cri_socket: None,
            kubelet: None,
            kubelet_token_file: None,
            kubelet_ca_file: None,
            timeout: Duration::seconds(2),
        }
    }
}

impl Default for Otlp {
    fn default() -> Self {
        Self {
            endpoint: None,
            protocol: Protocol::Grpc,
            interval: Duration::seconds(15),
            timeout: Duration::seconds(10),
            headers_file: None,
            ca_file: None,
            insecure: false,
            sample: 0.0,
        }
    }
}

impl Config {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        let config = Self::parse(&text, path)?;
        config.check()?;
        Ok(config)
    }

    /// Reads a text, which stands in `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        toml::from_str(text).map_err(|error| Error::Parse {
            path: path.to_owned(),
            message: error.to_string().trim().to_owned(),
            hint: hint(text),
        })
    }
}

/// What was perhaps meant by the first key or section that is not known.
fn hint(text: &str) -> Option<String> {
    let table: toml::Table = text.parse().ok()?;
    for (section, content) in &table {
        let Some((_, keys)) = SECTIONS.iter().find(|(name, _)| name == section) else {
            let names = SECTIONS.iter().map(|(name, _)| *name);
            return Some(match nearest(section, names) {
                Some(near) => {
                    format!("there is no section `[{section}]`; did you mean `[{near}]`?")
                }
                None => format!("there is no section `[{section}]`"),
            });
        };
        for key in content.as_table().into_iter().flat_map(toml::Table::keys) {
            if !keys.contains(&key.as_str()) {
                let near = nearest(key, keys.iter().copied());
                let near = near.map_or_else(
                    || format!("there are {}", keys.join(", ")),
                    |near| format!("did you mean `{near}`?"),
                );
                return Some(format!("there is no key `{key}` in `[{section}]`; {near}"));
            }
        }
    }
    None
}

fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|name| (strsim::damerau_levenshtein(word, name), name))
        .filter(|(distance, name)| *distance <= name.len() / 2)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests;
