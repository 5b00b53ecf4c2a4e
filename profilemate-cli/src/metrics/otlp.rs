//! The push to an OpenTelemetry collector, by OpenTelemetry's own SDK: metrics from time to time, and sampled steps and
//! requests as spans. What cannot be sent in time is dropped; queues are bounded.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use opentelemetry::metrics::{Histogram, Meter, MeterProvider as _};
use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
use opentelemetry::{KeyValue, Value};
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};
use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
    WithTonicConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};

use super::declare::{Id, Kind, METRICS, Metric};
use super::registry::{Also, Labels, Moment, Registry};
use super::spans::Processor;

/// How the collector is reached.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its address, without a path.
    pub endpoint: String,
    /// OTLP/HTTP instead of OTLP/gRPC.
    pub http: bool,
    /// Time between two pushes.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// Headers sent with each.
    pub headers: Vec<(String, String)>,
    /// Certificate authority, PEM.
    pub authority: Option<Vec<u8>>,
    /// Part of the steps and requests that is pushed, from 0 to 1.
    pub sample: f64,
}

/// Why there is no push.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The exporter cannot be made.
    #[error("the OTLP exporter cannot be made")]
    Build(#[from] ExporterBuildError),
    /// The HTTP client cannot be made.
    #[error("the HTTP client of the OTLP exporter cannot be made")]
    Client(#[from] reqwest::Error),
    /// A header that HTTP does not allow.
    #[error("the header `{0}` is not allowed")]
    Header(String),
}

/// Current values, for the callbacks of counters and gauges.
type Values = Arc<Mutex<BTreeMap<Id, BTreeMap<Labels, f64>>>>;

/// The running push.
pub struct Push {
    meters: SdkMeterProvider,
    tracers: Option<SdkTracerProvider>,
    taker: Arc<Taker>,
}

/// What the registry gives everything to.
struct Taker {
    values: Values,
    histograms: BTreeMap<Id, Histogram<f64>>,
    tracer: Option<SdkTracer>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Push {
    /// Begins to push what `registry` gets from now on. To be called in a tokio runtime that goes on running, from a
    /// thread that may wait.
    pub fn start(target: &Target, registry: &Arc<Registry>) -> Result<Self, Error> {
        // The TLS of the HTTP client asks for one of the whole process; another may have been chosen already.
        let _chosen = rustls::crypto::ring::default_provider().install_default();
        let counted = Counted {
            exporter: metric_exporter(target)?,
            registry: Arc::clone(registry),
        };
        let reader = PeriodicReader::builder(counted)
            .with_interval(target.interval)
            .build();
        let meters = SdkMeterProvider::builder()
            .with_resource(resource())
            .with_reader(reader)
            .build();
        let tracers = if target.sample > 0.0 {
            Some(
                SdkTracerProvider::builder()
                    .with_resource(resource())
                    .with_sampler(Sampler::TraceIdRatioBased(target.sample))
                    .with_span_processor(Processor::new(span_exporter(target)?, registry))
                    .build(),
            )
        } else {
            None
        };
        let tracer = tracers
            .as_ref()
            .map(|tracers| tracers.tracer("profilemate"));
        let taker = Arc::new(Taker::new(&meters.meter("profilemate"), tracer));
        registry.set_also(Some(Arc::clone(&taker) as Arc<dyn Also>));
        Ok(Self {
            meters,
            tracers,
            taker,
        })
    }

    /// Sends what is there, and ends. It may take the time of a push.
    pub fn end(self, registry: &Registry) {
        registry.set_also(None);
        if let Err(error) = self.meters.shutdown() {
            log::info!("the last push of metrics: {error}");
        }
        if let Some(tracers) = self.tracers
            && let Err(error) = tracers.shutdown()
        {
            log::info!("the last push of traces: {error}");
        }
        drop(self.taker);
    }
}

fn resource() -> Resource {
    let host = rustix::system::uname();
    Resource::builder()
        .with_service_name("profilemate-agent")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new(
            "host.name",
            host.nodename().to_string_lossy().into_owned(),
        ))
        .build()
}

fn metadata(target: &Target) -> Result<MetadataMap, Error> {
    let mut headers = axum::http::HeaderMap::new();
    for (name, value) in &target.headers {
        let refused = || Error::Header(name.clone());
        let own: axum::http::HeaderName = name.parse().map_err(|_| refused())?;
        headers.insert(own, value.parse().map_err(|_| refused())?);
    }
    Ok(MetadataMap::from_headers(headers))
}

fn tls(target: &Target) -> ClientTlsConfig {
    let config = ClientTlsConfig::new();
    match &target.authority {
        Some(pem) => config.ca_certificate(Certificate::from_pem(pem)),
        None => config.with_native_roots(),
    }
}

/// The HTTP client. It waits, so it is made outside of every runtime.
fn client(target: &Target) -> Result<reqwest::blocking::Client, Error> {
    let mut builder = reqwest::blocking::Client::builder().timeout(target.timeout);
    if let Some(pem) = &target.authority {
        builder = builder.tls_certs_only([reqwest::Certificate::from_pem(pem)?]);
    }
    Ok(builder.build()?)
}

fn headers(target: &Target) -> HashMap<String, String> {
    target.headers.iter().cloned().collect()
}

/// The address of a signal with OTLP/HTTP.
fn address(target: &Target, signal: &str) -> String {
    format!("{}/v1/{signal}", target.endpoint.trim_end_matches('/'))
}

fn metric_exporter(target: &Target) -> Result<MetricExporter, Error> {
    if target.http {
        return Ok(MetricExporter::builder()
            .with_http()
            .with_http_client(client(target)?)
            .with_headers(headers(target))
            .with_endpoint(address(target, "metrics"))
            .with_timeout(target.timeout)
            .build()?);
    }
    let mut builder = MetricExporter::builder()
        .with_tonic()
        .with_endpoint(&target.endpoint)
        .with_timeout(target.timeout)
        .with_metadata(metadata(target)?);
    if target.endpoint.starts_with("https") {
        builder = builder.with_tls_config(tls(target));
    }
    Ok(builder.build()?)
}

fn span_exporter(target: &Target) -> Result<SpanExporter, Error> {
    if target.http {
        return Ok(SpanExporter::builder()
            .with_http()
            .with_http_client(client(target)?)
            .with_headers(headers(target))
            .with_endpoint(address(target, "traces"))
            .with_timeout(target.timeout)
            .build()?);
    }
    let mut builder = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(&target.endpoint)
        .with_timeout(target.timeout)
        .with_metadata(metadata(target)?);
    if target.endpoint.starts_with("https") {
        builder = builder.with_tls_config(tls(target));
    }
    Ok(builder.build()?)
}

/// A metric's unit as OpenTelemetry writes it.
fn unit(metric: &Metric) -> &'static str {
    match metric.unit {
        "seconds" => "s",
        "bytes" => "By",
        "ratio" => "1",
        _ => "",
    }
}

impl Taker {
    fn new(meter: &Meter, tracer: Option<SdkTracer>) -> Self {
        let values: Values = Arc::default();
        let mut histograms = BTreeMap::new();
        for (id, metric) in Id::ALL.iter().zip(METRICS) {
            let (name, unit, help) = (metric.otel_name(), unit(metric), metric.help);
            let read = {
                let (values, id) = (Arc::clone(&values), *id);
                move |observer: &dyn opentelemetry::metrics::AsyncInstrument<f64>| {
                    for (labels, value) in lock(&values).get(&id).into_iter().flatten() {
                        observer.observe(*value, &attributes(labels));
                    }
                }
            };
            match metric.kind {
                Kind::Counter => {
                    let counter = meter.f64_observable_counter(name);
                    let _registered = counter
                        .with_unit(unit)
                        .with_description(help)
                        .with_callback(read)
                        .build();
                }
                Kind::Gauge => {
                    let gauge = meter.f64_observable_gauge(name);
                    let _registered = gauge
                        .with_unit(unit)
                        .with_description(help)
                        .with_callback(read)
                        .build();
                }
                Kind::Histogram(buckets) => {
                    let histogram = meter
                        .f64_histogram(name)
                        .with_unit(unit)
                        .with_description(help)
                        .with_boundaries(buckets.bounds().to_vec())
                        .build();
                    histograms.insert(*id, histogram);
                }
            }
        }
        Self {
            values,
            histograms,
            tracer,
        }
    }
}

/// Labels as attributes; one that is empty was not observed.
fn attributes(labels: &Labels) -> Vec<KeyValue> {
    labels
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| KeyValue::new(*name, value.clone()))
        .collect()
}

impl Also for Taker {
    fn add(&self, id: Id, labels: &Labels, by: f64) {
        let mut values = lock(&self.values);
        let series = values.entry(id).or_default();
        if let Some(value) = series.get_mut(labels) {
            *value += by;
        } else {
            series.insert(labels.clone(), by);
        }
    }

    fn set(&self, id: Id, labels: &Labels, value: f64) {
        let mut values = lock(&self.values);
        values.entry(id).or_default().insert(labels.clone(), value);
    }

    fn forget(&self, id: Id, labels: &Labels) {
        if let Some(series) = lock(&self.values).get_mut(&id) {
            series.remove(labels);
        }
    }

    fn observe(&self, id: Id, labels: &Labels, value: f64) {
        if let Some(histogram) = self.histograms.get(&id) {
            histogram.record(value, &attributes(labels));
        }
    }

    fn wants_moments(&self) -> bool {
        self.tracer.is_some()
    }

    fn moment(&self, moment: &Moment) {
        let Some(tracer) = &self.tracer else {
            return;
        };
        let at = |ns: u64| SystemTime::UNIX_EPOCH + Duration::from_nanos(ns);
        let mut all = attributes(&moment.labels);
        let numbers = moment.numbers.iter();
        all.extend(numbers.map(|(name, value)| KeyValue::new(*name, Value::I64(*value))));
        let mut span = tracer
            .span_builder(moment.name)
            .with_start_time(at(moment.begin_unix_ns))
            .with_attributes(all)
            .start(tracer);
        span.end_with_timestamp(at(moment.end_unix_ns));
    }
}

/// An exporter whose pushes are counted.
struct Counted {
    exporter: MetricExporter,
    registry: Arc<Registry>,
}

impl PushMetricExporter for Counted {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let done = self.exporter.export(metrics).await;
        let result = if done.is_ok() { "ok" } else { "failed" };
        self.registry.add(Id::Pushes, &[result], 1.0);
        if let Err(error) = &done {
            log::info!("a push failed: {error}");
        }
        done
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}
