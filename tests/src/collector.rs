//! An OpenTelemetry collector of the tests, over the official protobufs: OTLP/gRPC and OTLP/HTTP, which takes what it
//! gets, or is slow, busy, or gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
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
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, number_data_point};
use prost::Message as _;
use tonic::{Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It takes what it gets.
    Well,
    /// It takes it, after so long.
    Slow(Duration),
    /// Too busy; to be asked again after so long. With HTTP by this status, with gRPC as `RESOURCE_EXHAUSTED` (429) or
    /// `UNAVAILABLE`.
    Busy(u16, Duration),
}

/// A request for metrics: when it came, and the mood in which it was answered.
pub type Asked = (Instant, Mood);

/// A total, and the time that it is of.
#[derive(Clone, Copy, Debug, Default)]
struct Total {
    unix_ns: u64,
    value: f64,
}

#[derive(Default)]
struct Got {
    /// Latest total of each cumulative series: metric, and attributes as `name=value,…`; of a histogram the count.
    totals: BTreeMap<(String, String), Total>,
    /// What a collector must not be sent.
    faults: Vec<String>,
    spans: BTreeSet<Vec<u8>>,
    asked: Vec<Asked>,
}

struct Inner {
    mood: Mutex<Mood>,
    got: Mutex<Got>,
}

/// The collector.
pub struct Collector {
    inner: Arc<Inner>,
    /// OTLP/HTTP.
    pub http: SocketAddr,
    /// OTLP/gRPC.
    pub grpc: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn take_metrics(&self, request: ExportMetricsServiceRequest) {
        let mut got = lock(&self.got);
        let scopes = request.resource_metrics.into_iter();
        for metric in scopes
            .flat_map(|one| one.scope_metrics)
            .flat_map(|scope| scope.metrics)
        {
            for (series, total) in totals(metric.data) {
                let key = (metric.name.clone(), series);
                let before = got.totals.get(&key).copied().unwrap_or_default();
                // What was kept waiting may come late.
                if total.unix_ns < before.unix_ns {
                    continue;
                }
                if total.value < before.value {
                    let fault = format!("{key:?} has shrunk from {before:?} to {total:?}");
                    got.faults.push(fault);
                }
                got.totals.insert(key, total);
            }
        }
    }

    fn take_spans(&self, request: ExportTraceServiceRequest) {
        let scopes = request.resource_spans.into_iter();
        let spans = scopes
            .flat_map(|one| one.scope_spans)
            .flat_map(|scope| scope.spans);
        lock(&self.got).spans.extend(spans.map(|span| span.span_id));
    }

    /// The mood, in which a request is answered after what it makes one wait.
    async fn meet(&self, metrics: bool) -> Mood {
        let mood = *lock(&self.mood);
        if metrics {
            lock(&self.got).asked.push((Instant::now(), mood));
        }
        if let Mood::Slow(pause) = mood {
            tokio::time::sleep(pause).await;
        }
        mood
    }

    async fn meet_grpc(&self, metrics: bool) -> Result<(), Status> {
        let Mood::Busy(status, pause) = self.meet(metrics).await else {
            return Ok(());
        };
        let code = if status == 429 {
            tonic::Code::ResourceExhausted
        } else {
            tonic::Code::Unavailable
        };
        let details = ErrorDetails::with_retry_info(Some(pause));
        Err(Status::with_error_details(code, "busy", details))
    }

    async fn meet_http(&self, metrics: bool) -> (StatusCode, HeaderMap) {
        let mut headers = HeaderMap::new();
        let Mood::Busy(status, pause) = self.meet(metrics).await else {
            return (StatusCode::OK, headers);
        };
        headers.insert("retry-after", HeaderValue::from(pause.as_secs()));
        (StatusCode::from_u16(status).expect("a status"), headers)
    }
}

/// The series of a metric that only grows.
fn totals(data: Option<Data>) -> Vec<(String, Total)> {
    let named = |attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue]| {
        let mut pairs: Vec<String> = attributes
            .iter()
            .map(|pair| {
                let value = pair.value.as_ref().and_then(|value| value.value.as_ref());
                match value {
                    Some(any_value::Value::StringValue(text)) => format!("{}={text}", pair.key),
                    other => format!("{}={other:?}", pair.key),
                }
            })
            .collect();
        pairs.sort();
        pairs.join(",")
    };
    let total = |unix_ns, value| Total { unix_ns, value };
    let cumulative = AggregationTemporality::Cumulative as i32;
    match data {
        Some(Data::Sum(sum)) => {
            assert!(sum.is_monotonic && sum.aggregation_temporality == cumulative);
            let points = sum.data_points.iter();
            points
                .map(|point| {
                    let value = match point.value {
                        Some(number_data_point::Value::AsDouble(value)) => value,
                        other => panic!("{other:?}"),
                    };
                    (named(&point.attributes), total(point.time_unix_nano, value))
                })
                .collect()
        }
        Some(Data::Histogram(histogram)) => {
            assert_eq!(histogram.aggregation_temporality, cumulative);
            let points = histogram.data_points.iter();
            points
                .map(|point| {
                    let count = total(point.time_unix_nano, point.count as f64);
                    (named(&point.attributes), count)
                })
                .collect()
        }
        _ => Vec::new(),
    }
}

#[derive(Clone)]
struct Service(Arc<Inner>);

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.0.meet_grpc(true).await?;
        self.0.take_metrics(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.meet_grpc(false).await?;
        self.0.take_spans(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn router(inner: &Arc<Inner>) -> axum::Router {
    let (one, other) = (Arc::clone(inner), Arc::clone(inner));
    let metrics = |body: Bytes| async move {
        let answer = one.meet_http(true).await;
        if answer.0 == StatusCode::OK {
            let request = ExportMetricsServiceRequest::decode(body).expect("metrics");
            one.take_metrics(request);
        }
        answer
    };
    let traces = |body: Bytes| async move {
        let answer = other.meet_http(false).await;
        if answer.0 == StatusCode::OK {
            other.take_spans(ExportTraceServiceRequest::decode(body).expect("spans"));
        }
        answer
    };
    axum::Router::new()
        .route("/v1/metrics", post(metrics))
        .route("/v1/traces", post(traces))
}

impl Collector {
    /// Begins to listen at `address`, on ports that are free.
    pub fn start(address: &str) -> Self {
        let any = SocketAddr::new(address.parse().expect("an address"), 0);
        let inner = Arc::new(Inner {
            mood: Mutex::new(Mood::Well),
            got: Mutex::default(),
        });
        let mut collector = Self {
            inner,
            http: any,
            grpc: any,
            runtime: None,
        };
        collector.come();
        collector
    }

    /// Begins to listen, where it did before. Where that is, is of the network in which this is called.
    pub fn come(&mut self) {
        let listen = |address: &mut SocketAddr| {
            let listener = TcpListener::bind(*address).expect("the collector's port");
            listener.set_nonblocking(true).expect("a listener");
            *address = listener.local_addr().expect("its address");
            listener
        };
        let (http, grpc) = (listen(&mut self.http), listen(&mut self.grpc));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let (router, service) = (router(&self.inner), Service(Arc::clone(&self.inner)));
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(http).expect("a listener");
            axum::serve(listener, router).await.expect("it serves");
        });
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(grpc).expect("a listener");
            tonic::transport::Server::builder()
                .add_service(MetricsServiceServer::new(service.clone()))
                .add_service(TraceServiceServer::new(service))
                .serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener))
                .await
                .expect("it serves");
        });
        self.runtime = Some(runtime);
    }

    /// Is gone, with all its connections.
    pub fn go(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    /// How it answers from now on.
    pub fn be(&self, mood: Mood) {
        *lock(&self.inner.mood) = mood;
    }

    /// Latest sum of the series of `metric` that have the attribute `NAME=VALUE`.
    pub fn total(&self, metric: &str, attribute: &str) -> f64 {
        let got = lock(&self.inner.got);
        let own = got.totals.iter().filter(|((name, series), _)| {
            name == metric && series.split(',').any(|pair| pair == attribute)
        });
        own.map(|(_, total)| total.value).sum()
    }

    /// What it was sent and should not have been.
    pub fn faults(&self) -> Vec<String> {
        lock(&self.inner.got).faults.clone()
    }

    /// Different spans that it took.
    pub fn spans(&self) -> usize {
        lock(&self.inner.got).spans.len()
    }

    /// Requests for metrics so far.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.inner.got).asked.clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.go();
    }
}
