//! The agent's HTTP server without any target: who may ask what, TLS, and Prometheus's protobuf as another reads it.
#![expect(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "what fails here fails the test; exact values are expected"
)]

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use profilemate::agent::config::Config;
use profilemate::agent::http::{Acceptor, Server};
use profilemate::agent::shared::Shared;
use profilemate::agent::trace::Progress;
use profilemate::metrics::declare::Id;
use profilemate::secret::Token;
use prost::Message;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// `io.prometheus.client.MetricFamily`, as far as it is looked at: the field numbers are those of the published
/// `metrics.proto` of `prometheus/client_model`.
mod published {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Label {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) value: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Counter {
        #[prost(double, tag = "1")]
        pub(super) value: f64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Span {
        #[prost(sint32, tag = "1")]
        pub(super) offset: i32,
        #[prost(uint32, tag = "2")]
        pub(super) length: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Bucket {
        #[prost(uint64, tag = "1")]
        pub(super) cumulative_count: u64,
        #[prost(double, tag = "2")]
        pub(super) upper_bound: f64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Histogram {
        #[prost(uint64, tag = "1")]
        pub(super) sample_count: u64,
        #[prost(double, tag = "2")]
        pub(super) sample_sum: f64,
        #[prost(message, repeated, tag = "3")]
        pub(super) bucket: Vec<Bucket>,
        #[prost(sint32, tag = "5")]
        pub(super) schema: i32,
        #[prost(message, repeated, tag = "12")]
        pub(super) positive_span: Vec<Span>,
        #[prost(sint64, repeated, tag = "13")]
        pub(super) positive_delta: Vec<i64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Metric {
        #[prost(message, repeated, tag = "1")]
        pub(super) label: Vec<Label>,
        #[prost(message, optional, tag = "3")]
        pub(super) counter: Option<Counter>,
        #[prost(message, optional, tag = "7")]
        pub(super) histogram: Option<Histogram>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Family {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(message, repeated, tag = "4")]
        pub(super) metric: Vec<Metric>,
    }
}

/// A server on a free port of loopback that believes to listen on `believed`.
struct Served {
    address: SocketAddr,
    shared: Arc<Shared>,
    _runtime: tokio::runtime::Runtime,
}

fn serve(mut config: Config, believed: SocketAddr, acceptor: Option<Acceptor>) -> Served {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    config.agent.listen = "127.0.0.1:0".parse().unwrap();
    let server = runtime.block_on(Server::bind(&config, acceptor)).unwrap();
    let address = server.address().unwrap();
    config.agent.listen = believed;
    let shared = Shared::new(config, Some(token()));
    shared.has_looked();
    runtime.spawn(server.serve(Arc::clone(&shared)));
    Served {
        address,
        shared,
        _runtime: runtime,
    }
}

fn file(folder: &Path, name: &str, text: &str, mode: u32) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn token() -> Token {
    let folder = tempfile::tempdir().unwrap();
    Token::read(&file(folder.path(), "token", TOKEN, 0o600)).unwrap()
}

fn client() -> reqwest::blocking::ClientBuilder {
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    reqwest::blocking::Client::builder().timeout(Duration::from_secs(60))
}

fn status(served: &Served, path: &str, token: Option<&str>, body: Option<&str>) -> (u16, String) {
    let client = client().build().unwrap();
    let address = format!("http://{}{path}", served.address);
    let mut request = match body {
        Some(body) => client.post(address).body(body.to_owned()),
        None => client.get(address),
    };
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let answer = request.send().unwrap();
    (answer.status().as_u16(), answer.text().unwrap())
}

#[test]
fn off_loopback_everything_but_the_health_needs_the_token() {
    let public = serve(Config::default(), "192.0.2.1:9464".parse().unwrap(), None);
    assert_eq!(status(&public, "/healthz", None, None).0, 200);
    for path in ["/metrics", "/sessions", "/nothing"] {
        assert_eq!(status(&public, path, None, None).0, 401, "{path}");
        assert_eq!(status(&public, path, Some("wrong"), None).0, 401, "{path}");
    }
    assert_eq!(status(&public, "/metrics", Some(TOKEN), None).0, 200);
    let local = serve(Config::default(), "127.0.0.1:9464".parse().unwrap(), None);
    assert_eq!(status(&local, "/metrics", None, None).0, 200);
    assert_eq!(status(&local, "/nothing", None, None).0, 404);
}

#[test]
fn a_trace_needs_leave_token_and_a_server() {
    let local: SocketAddr = "127.0.0.1:9464".parse().unwrap();
    let body = Some("{\"duration\": \"1s\"}");
    let closed = serve(Config::default(), local, None);
    assert_eq!(status(&closed, "/trace", Some(TOKEN), body).0, 403);
    let mut config = Config::default();
    config.traces.enabled = true;
    let open = serve(config, local, None);
    assert_eq!(status(&open, "/trace", None, body).0, 401);
    assert_eq!(status(&open, "/trace", Some(TOKEN), None).0, 405);
    let (code, text) = status(&open, "/trace", Some(TOKEN), body);
    assert_eq!(code, 404, "{text}");
    for bad in [
        "{\"duration\": \"9h\"}",
        "{\"duration\": \"soon\"}",
        "{\"duration\": \"1s\", \"output\": \"/etc\"}",
        "{\"duration\": \"1s\", \"tables\": [\"../x\"]}",
        "{",
    ] {
        let (code, text) = status(&open, "/trace", Some(TOKEN), Some(bad));
        assert_eq!(code, 400, "{bad}: {text}");
    }
    let much = format!("{{\"duration\": \"{}\"}}", "1".repeat(100_000));
    assert_eq!(status(&open, "/trace", Some(TOKEN), Some(&much)).0, 413);
    assert!(open.shared.traces().is_empty());
}

#[test]
fn the_session_of_a_trace_is_sent_to_who_has_the_token() {
    let local: SocketAddr = "127.0.0.1:9464".parse().unwrap();
    let served = serve(Config::default(), local, None);
    let folder = tempfile::tempdir().unwrap();
    let table = "a,b\n1,2\n".repeat(40_000);
    for (name, text) in [
        ("metadata.json", "{}"),
        ("batch_utilization.csv", &table),
        ("notes.txt", "of nobody"),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let id = served.shared.new_trace("s");
    let path = format!("/sessions/{id}.tar");
    assert_eq!(status(&served, &path, None, None).0, 401);
    assert_eq!(status(&served, &path, Some(TOKEN), None).0, 409);
    let done = Progress::Done {
        reason: "duration reached".to_owned(),
        folder: folder.path().to_owned(),
        events: 1,
        lost: 0,
    };
    served.shared.tell_trace(id, done);
    assert_eq!(status(&served, &path, Some("wrong"), None).0, 401);
    for other in ["/sessions/9.tar", "/sessions/..%2f1.tar", "/sessions/x"] {
        assert_eq!(status(&served, other, Some(TOKEN), None).0, 404, "{other}");
    }
    let room = served.shared.downloads.available_permits();
    let (code, archive) = status(&served, &path, Some(TOKEN), None);
    assert_eq!(code, 200);
    assert!(!archive.contains("of nobody"));
    let to = folder.path().join("to");
    let bytes = profilemate::parcel::unpack::unpack(archive.as_bytes(), &to, 1 << 20).unwrap();
    assert_eq!(bytes, table.len() as u64 + 2);
    let copy = std::fs::read_to_string(to.join("batch_utilization.csv")).unwrap();
    assert!(copy == table);
    // While others are sent, the next one has to wait. The one before gives its room back when its last byte has gone.
    let began = std::time::Instant::now();
    while served.shared.downloads.available_permits() < room {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(5));
    }
    let room = u32::try_from(room).unwrap();
    let _taken = served.shared.downloads.try_acquire_many(room).unwrap();
    assert_eq!(status(&served, &path, Some(TOKEN), None).0, 503);
}

#[test]
fn tls_is_spoken_with_the_configured_key_and_a_world_readable_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = file(folder.path(), "tls.crt", &made.cert.pem(), 0o644);
    let pem = made.signing_key.serialize_pem();
    let mut config = Config::default();
    config.tls.cert_file = Some(certificate);
    config.tls.key_file = Some(file(folder.path(), "tls.key", &pem, 0o644));
    let refused = Acceptor::read(&config).err().unwrap().to_string();
    assert!(
        refused.contains("holds a secret") && !refused.contains(&pem),
        "{refused}"
    );
    file(folder.path(), "tls.key", &pem, 0o600);
    let acceptor = Acceptor::read(&config).unwrap();
    let local: SocketAddr = "127.0.0.1:9464".parse().unwrap();
    let served = serve(config, local, acceptor);
    let authority = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let client = client().tls_certs_only([authority]).build().unwrap();
    let address = format!("https://localhost:{}/healthz", served.address.port());
    let answer = client.get(&address).send().unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    // Without TLS, and with other authorities, there is no answer.
    assert!(client.get(address.replace("https", "http")).send().is_err());
    assert!(
        self::client()
            .build()
            .unwrap()
            .get(&address)
            .send()
            .is_err()
    );
}

#[test]
fn protobuf_is_read_by_the_published_numbers_and_its_native_buckets_hold_every_value() {
    let local: SocketAddr = "127.0.0.1:9464".parse().unwrap();
    let served = serve(Config::default(), local, None);
    let registry = &served.shared.registry;
    registry.add(Id::Steps, &["s", "0"], 41.0);
    let values: Vec<f64> = (1..=2_000).map(|n| f64::from(n) * 37e-6).collect();
    for value in &values {
        registry.observe(Id::StepDuration, &["s", "0"], *value, None);
    }
    let accept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
    let answer = client()
        .build()
        .unwrap()
        .get(format!("http://{}/metrics", served.address))
        .header("accept", accept)
        .send()
        .unwrap();
    let bytes = answer.bytes().unwrap();
    let mut left = &bytes[..];
    let mut families = Vec::new();
    while !left.is_empty() {
        families.push(published::Family::decode_length_delimited(&mut left).unwrap());
    }
    let of = |name: &str| {
        let family = families.iter().find(|family| family.name == name);
        family.unwrap_or_else(|| panic!("{name}")).metric[0].clone()
    };
    let steps = of("profilemate_steps_total");
    assert_eq!(steps.counter.unwrap().value, 41.0);
    assert_eq!(
        (steps.label[0].name.as_str(), steps.label[0].value.as_str()),
        ("server", "s")
    );
    let histogram = of("profilemate_step_duration_seconds").histogram.unwrap();
    assert_eq!(histogram.sample_count, 2_000);
    assert!((histogram.sample_sum - values.iter().sum::<f64>()).abs() < 1e-9);
    for bucket in &histogram.bucket {
        let below = values
            .iter()
            .filter(|value| **value <= bucket.upper_bound)
            .count();
        assert_eq!(
            bucket.cumulative_count, below as u64,
            "{}",
            bucket.upper_bound
        );
    }
    // Bucket n of schema s ends at 2^(n / 2^s); each is compared with the values themselves.
    let base = 2_f64.powf(2_f64.powi(-histogram.schema));
    let (mut index, mut count, mut deltas) = (0_i32, 0_i64, histogram.positive_delta.iter());
    for span in &histogram.positive_span {
        index += span.offset;
        for _ in 0..span.length {
            count += deltas.next().unwrap();
            let (low, high) = (base.powi(index - 1), base.powi(index));
            let within = values
                .iter()
                .filter(|value| **value > low && **value <= high)
                .count();
            assert_eq!(count, within as i64, "bucket {index}");
            index += 1;
        }
    }
    assert!(deltas.next().is_none());
}
