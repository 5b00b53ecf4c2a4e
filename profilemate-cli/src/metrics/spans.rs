//! Spans on their way to the collector: so many wait at most, and what becomes of each is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanProcessor,
};

use super::declare::Id;
use super::registry::Registry;

/// Spans that wait or are being sent, at most.
const WAITING: usize = 2_048;
/// Spans of one request.
const BATCH: usize = 512;
/// Longest time that one waits for others to be sent with.
const DELAY: Duration = Duration::from_secs(5);

/// How many wait or are being sent, told as a metric.
#[derive(Clone)]
struct Room {
    taken: Arc<AtomicUsize>,
    registry: Arc<Registry>,
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room")
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}

impl Room {
    /// Room for one more, if there is.
    fn take(&self) -> bool {
        let more = |taken: usize| (taken < WAITING).then_some(taken + 1);
        let taken = self
            .taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        match taken {
            Ok(_) => self.tell(),
            Err(_) => self.count("dropped", 1),
        }
        taken.is_ok()
    }

    /// So many are on their way no longer.
    fn leave(&self, spans: usize, result: &str) {
        self.taken.fetch_sub(spans, Ordering::AcqRel);
        self.tell();
        self.count(result, spans);
    }

    fn tell(&self) {
        let taken = self.taken.load(Ordering::Acquire);
        self.registry.set(Id::SpansWaiting, &[], taken as f64);
    }

    fn count(&self, result: &str, spans: usize) {
        self.registry.add(Id::Spans, &[result], spans as f64);
    }
}

/// Takes spans that have ended, as long as there is room.
#[derive(Debug)]
pub(super) struct Processor {
    room: Room,
    batches: BatchSpanProcessor,
}

impl Processor {
    /// Sends with `exporter`.
    pub(super) fn new(exporter: SpanExporter, registry: &Arc<Registry>) -> Self {
        let room = Room {
            taken: Arc::default(),
            registry: Arc::clone(registry),
        };
        room.tell();
        for result in ["ok", "failed", "dropped"] {
            room.count(result, 0);
        }
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(WAITING)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(DELAY)
            .build();
        let counted = Counted {
            exporter,
            room: room.clone(),
        };
        let batches = BatchSpanProcessor::builder(counted)
            .with_batch_config(config)
            .build();
        Self { room, batches }
    }
}

impl SpanProcessor for Processor {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.room.take() {
            self.batches.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// An exporter whose spans are counted.
#[derive(Debug)]
struct Counted {
    exporter: SpanExporter,
    room: Room,
}

impl opentelemetry_sdk::trace::SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let done = self.exporter.export(batch).await;
        self.room
            .leave(spans, if done.is_ok() { "ok" } else { "failed" });
        if let Err(error) = &done {
            log::info!("{spans} spans were not pushed: {error}");
        }
        done
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
