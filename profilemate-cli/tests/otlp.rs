//! The OTLP push against receivers of the test: one that takes everything, one that asks to come back later, one that
//! never answers.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use profilemate::metrics::declare::Id;
use profilemate::metrics::exposition::{Format, expose};
use profilemate::metrics::otlp::{Push, Target};
use profilemate::metrics::registry::{Moment, Registry};
use prost::Message as _;
use tonic::{Request, Response, Status};

/// What a receiver has got.
#[derive(Default)]
struct Got {
    /// Latest value of each series of a sum or gauge, or count of a histogram: name and attribute `server`.
    values: BTreeMap<(String, String), f64>,
    /// Names of the spans.
    spans: Vec<String>,
    /// Header `x-key`.
    key: String,
}

type Shared = Arc<Mutex<Got>>;

fn take(got: &Shared, request: ExportMetricsServiceRequest) {
    let mut got = got.lock().unwrap();
    let scopes = request
        .resource_metrics
        .into_iter()
        .flat_map(|one| one.scope_metrics);
    for metric in scopes.flat_map(|scope| scope.metrics) {
        let server = |attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue]| {
            let own = attributes.iter().find(|pair| pair.key == "server");
            own.map(|pair| format!("{:?}", pair.value))
                .unwrap_or_default()
        };
        let number = |value: Option<Value>| match value {
            Some(Value::AsDouble(value)) => value,
            Some(Value::AsInt(value)) => value as f64,
            None => f64::NAN,
        };
        let points: Vec<(String, f64)> = match metric.data {
            Some(Data::Sum(sum)) => sum
                .data_points
                .iter()
                .map(|point| (server(&point.attributes), number(point.value)))
                .collect(),
            Some(Data::Gauge(gauge)) => gauge
                .data_points
                .iter()
                .map(|point| (server(&point.attributes), number(point.value)))
                .collect(),
            Some(Data::Histogram(histogram)) => histogram
                .data_points
                .iter()
                .map(|point| {
                    assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
                    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
                    (server(&point.attributes), point.count as f64)
                })
                .collect(),
            other => panic!("{other:?}"),
        };
        for (server, value) in points {
            got.values.insert((metric.name.clone(), server), value);
        }
    }
}

fn value(got: &Shared, name: &str) -> Option<f64> {
    let got = got.lock().unwrap();
    let own = got
        .values
        .iter()
        .find(|((own, server), _)| own == name && server.contains("\"s\""));
    own.map(|(_, value)| *value)
}

#[derive(Clone)]
struct Receiver(Shared);

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        if let Some(key) = request.metadata().get("x-key") {
            key.to_str()
                .unwrap()
                .clone_into(&mut self.0.lock().unwrap().key);
        }
        take(&self.0, request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request
            .into_inner()
            .resource_spans
            .into_iter()
            .flat_map(|one| one.scope_spans);
        let names = scopes.flat_map(|scope| scope.spans).map(|span| {
            assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 1_000);
            span.name
        });
        self.0.lock().unwrap().spans.extend(names);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

fn target(address: SocketAddr, http: bool) -> Target {
    Target {
        endpoint: format!("http://{address}"),
        http,
        interval: Duration::from_millis(300),
        timeout: Duration::from_secs(20),
        headers: vec![("x-key".to_owned(), "a b".to_owned())],
        authority: None,
        sample: 1.0,
    }
}

fn start(runtime: &tokio::runtime::Runtime, target: &Target, registry: &Arc<Registry>) -> Push {
    let _within = runtime.handle().enter();
    Push::start(target, registry).unwrap()
}

fn fill(registry: &Registry) {
    registry.add(Id::Steps, &["s", "0"], 2.0);
    registry.add(Id::Steps, &["s", "0"], 3.0);
    registry.set(Id::Running, &["s", "0"], 7.0);
    for number in 1..=4 {
        registry.observe(Id::StepDuration, &["s", "0"], f64::from(number) / 1e3, None);
    }
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(
            started.elapsed() < Duration::from_secs(90),
            "waited in vain for {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn listener() -> std::net::TcpListener {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

fn pushes(registry: &Registry, result: &str) -> f64 {
    let text = String::from_utf8(expose(registry, Format::Text).unwrap()).unwrap();
    let name = format!("profilemate_otlp_pushes_total{{result=\"{result}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0.0, |value| value.parse().unwrap())
}

#[test]
fn metrics_and_spans_arrive_by_grpc_and_series_go_with_their_server() {
    let (runtime, got) = (runtime(), Shared::default());
    let listener = listener();
    let address = listener.local_addr().unwrap();
    let receiver = Receiver(Arc::clone(&got));
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        tonic::transport::Server::builder()
            .add_service(MetricsServiceServer::new(receiver.clone()))
            .add_service(TraceServiceServer::new(receiver))
            .serve_with_incoming(incoming)
            .await
            .unwrap();
    });
    let registry = Arc::new(Registry::default());
    let push = start(&runtime, &target(address, false), &registry);
    fill(&registry);
    registry.moment(|| {
        Some(Moment {
            name: "vllm.step",
            begin_unix_ns: 1_700_000_000_000_000_000,
            end_unix_ns: 1_700_000_000_000_001_000,
            labels: vec![("server", "s".to_owned())],
            numbers: vec![("vllm.step.number", 5)],
        })
    });
    wait_for("all values", || {
        value(&got, "profilemate.steps") == Some(5.0)
            && value(&got, "profilemate.requests_running") == Some(7.0)
            && value(&got, "profilemate.step_duration") == Some(4.0)
    });
    registry.forget("s");
    got.lock().unwrap().values.clear();
    wait_for("the next push", || !got.lock().unwrap().values.is_empty());
    assert_eq!(value(&got, "profilemate.steps"), None);
    push.end(&registry);
    let got = got.lock().unwrap();
    assert_eq!(got.spans, ["vllm.step"]);
    assert_eq!(got.key, "a b");
}

#[test]
fn a_receiver_that_is_overloaded_is_asked_again_when_it_says_and_nothing_is_lost() {
    let (runtime, got, asked) = (runtime(), Shared::default(), Arc::new(AtomicUsize::new(0)));
    let listener = listener();
    let address = listener.local_addr().unwrap();
    let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let router = {
        let (got, asked, times) = (Arc::clone(&got), Arc::clone(&asked), Arc::clone(&times));
        let metrics = move |headers: HeaderMap, body: Bytes| async move {
            times.lock().unwrap().push(Instant::now());
            assert_eq!(headers["content-type"], "application/x-protobuf");
            match asked.fetch_add(1, Ordering::SeqCst) {
                0 => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")]),
                1 => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")]),
                _ => {
                    headers["x-key"]
                        .to_str()
                        .unwrap()
                        .clone_into(&mut got.lock().unwrap().key);
                    take(&got, ExportMetricsServiceRequest::decode(body).unwrap());
                    (StatusCode::OK, [("retry-after", "0")])
                }
            }
        };
        axum::Router::new().route("/v1/metrics", post(metrics))
    };
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        axum::serve(listener, router).await.unwrap();
    });
    let registry = Arc::new(Registry::default());
    let mut target = target(address, true);
    target.sample = 0.0;
    let push = start(&runtime, &target, &registry);
    fill(&registry);
    wait_for("the value", || {
        value(&got, "profilemate.steps") == Some(5.0)
    });
    wait_for("the count", || pushes(&registry, "ok") >= 1.0);
    push.end(&registry);
    assert!(asked.load(Ordering::SeqCst) >= 3);
    // It was asked to stay away for a second each time.
    let times = times.lock().unwrap();
    for pair in times[..3].windows(2) {
        assert!(
            pair[1] - pair[0] >= Duration::from_millis(900),
            "{:?}",
            pair[1] - pair[0]
        );
    }
    assert!(
        pushes(&registry, "failed") < 0.5,
        "both were tried again within one push"
    );
    assert_eq!(got.lock().unwrap().key, "a b");
}

#[test]
fn a_receiver_that_never_answers_stops_nobody() {
    for http in [false, true] {
        let runtime = runtime();
        // Connections are taken by the kernel, and nobody reads from them.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let registry = Arc::new(Registry::default());
        let mut target = target(listener.local_addr().unwrap(), http);
        target.timeout = Duration::from_millis(500);
        let push = start(&runtime, &target, &registry);
        for _ in 0..5_000 {
            fill(&registry);
            registry.moment(|| {
                Some(Moment {
                    name: "vllm.step",
                    begin_unix_ns: 1,
                    end_unix_ns: 1_001,
                    labels: Vec::new(),
                    numbers: Vec::new(),
                })
            });
        }
        wait_for("a push that failed", || pushes(&registry, "failed") >= 1.0);
        let text = String::from_utf8(expose(&registry, Format::Text).unwrap()).unwrap();
        assert!(text.contains("profilemate_steps_total{server=\"s\",engine=\"0\"} 25000\n"));
        let ended = Arc::new(AtomicUsize::new(0));
        let told = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            push.end(&registry);
            told.store(1, Ordering::SeqCst);
        });
        wait_for("the end", || ended.load(Ordering::SeqCst) == 1);
        thread.join().unwrap();
        runtime.shutdown_background();
    }
}
