//! OpenTelemetry's OTLP/JSON: one `ExportTraceServiceRequest` a line, each of the spans of one process.
//!
//! Each request of vLLM is a trace: its spans are when it ran and when it stood still. Everything else of a process is
//! one more trace. Lines between slices become links from the later span to the earlier.

use std::collections::HashMap;
use std::io::Write;

use serde_json::{Value as Json, json};

use super::Error;
use super::flow;
use super::timeline::{Arguments, Slice, Timeline, Track, Value};
use crate::recorded::Session;

/// Spans of a line.
const BATCH: usize = 512;
/// Lines that wait for their end, at most.
const WAITING: usize = 1 << 20;
/// `SPAN_KIND_INTERNAL`.
const INTERNAL: u32 = 1;

#[derive(Clone, Debug)]
struct Place {
    pid: u32,
    name: String,
    trace: String,
}

/// Writes spans in batches.
pub struct Otlp<'a> {
    out: &'a mut dyn Write,
    host: Option<String>,
    session: String,
    started_ns: u64,
    processes: HashMap<u32, String>,
    places: HashMap<u64, Place>,
    batches: HashMap<u32, Vec<Json>>,
    /// Lines that began: trace and span.
    begun: HashMap<u64, (String, String)>,
    spans: u64,
}

impl<'a> Otlp<'a> {
    /// Writes to `out`; the session must tell when it began.
    pub fn new(out: &'a mut dyn Write, session: &Session) -> Result<Self, Error> {
        let metadata = &session.metadata;
        let started = metadata.start_time.as_deref().and_then(wall_ns);
        Ok(Self {
            out,
            host: metadata.host.clone(),
            session: metadata.session_id.clone().unwrap_or_default(),
            started_ns: started.ok_or_else(|| Error::NoStart(session.folder.clone()))?,
            processes: HashMap::new(),
            places: HashMap::new(),
            batches: HashMap::new(),
            begun: HashMap::new(),
            spans: 0,
        })
    }

    fn put(&mut self, pid: u32, span: Json) -> Result<(), Error> {
        let batch = self.batches.entry(pid).or_default();
        batch.push(span);
        if batch.len() >= BATCH {
            let batch = std::mem::take(batch);
            self.line(pid, &batch)?;
        }
        Ok(())
    }

    fn line(&mut self, pid: u32, spans: &[Json]) -> Result<(), Error> {
        let text = |key: &str, text: &str| json!({ "key": key, "value": { "stringValue": text } });
        let mut attributes = vec![
            text("service.name", "vllm"),
            text("profilemate.session", &self.session),
            json!({ "key": "process.pid", "value": { "intValue": pid.to_string() } }),
        ];
        attributes.extend(self.host.as_deref().map(|host| text("host.name", host)));
        attributes.extend(
            self.processes
                .get(&pid)
                .map(|name| text("process.title", name)),
        );
        let request = json!({ "resourceSpans": [{
            "resource": { "attributes": attributes },
            "scopeSpans": [{
                "scope": { "name": "profilemate", "version": env!("CARGO_PKG_VERSION") },
                "spans": spans,
            }],
        }] });
        serde_json::to_writer(&mut *self.out, &request).map_err(std::io::Error::from)?;
        self.out.write_all(b"\n")?;
        Ok(())
    }

    fn wall(&self, ns: u64) -> String {
        self.started_ns.saturating_add(ns).to_string()
    }
}

/// Nanoseconds since 1970 of a time with its zone, or without one as the predecessor wrote it, which is then taken for
/// UTC.
fn wall_ns(text: &str) -> Option<u64> {
    let stamp: Option<jiff::Timestamp> = text.parse().ok();
    let stamp = stamp.or_else(|| {
        let civil: jiff::civil::DateTime = text.parse().ok()?;
        Some(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    })?;
    u64::try_from(stamp.as_nanosecond()).ok()
}

fn attributes(track: &str, arguments: &Arguments) -> Vec<Json> {
    let mut all = vec![json!({ "key": "profilemate.track", "value": { "stringValue": track } })];
    for (name, value) in arguments {
        // As vLLM's own spans call it.
        let key = match *name {
            "request_id" => "gen_ai.request.id".to_owned(),
            other => format!("vllm.{other}"),
        };
        all.push(match value {
            Value::Integer(value) => {
                json!({ "key": key, "value": { "intValue": value.to_string() } })
            }
            Value::Text(text) => json!({ "key": key, "value": { "stringValue": text } }),
        });
    }
    all
}

impl Timeline for Otlp<'_> {
    fn process(&mut self, _id: u64, pid: u32, name: &str) -> Result<(), Error> {
        self.processes.insert(pid, name.to_owned());
        Ok(())
    }

    fn track(&mut self, track: &Track) -> Result<(), Error> {
        let request = super::story::is_request(track);
        let of = if request {
            track.id
        } else {
            u64::from(track.pid)
        };
        let (high, low) = (
            flow::id("trace", (&self.session, of)),
            flow::id("trace too", (&self.session, of)),
        );
        self.places.insert(
            track.id,
            Place {
                pid: track.pid,
                name: if request {
                    "request".to_owned()
                } else {
                    track.name.clone()
                },
                trace: format!("{high:016x}{low:016x}"),
            },
        );
        Ok(())
    }

    fn slice(&mut self, slice: &Slice) -> Result<(), Error> {
        let Some(place) = self.places.get(&slice.track).cloned() else {
            return Ok(());
        };
        self.spans += 1;
        let span = format!("{:016x}", flow::id("span", (&self.session, self.spans)));
        for &line in &slice.out {
            if self.begun.len() < WAITING {
                self.begun.insert(line, (place.trace.clone(), span.clone()));
            }
        }
        let links = slice.into.iter().filter_map(|line| {
            let (trace, span) = self.begun.get(line)?;
            Some(json!({ "traceId": trace, "spanId": span }))
        });
        let links: Vec<Json> = links.collect();
        let json = json!({
            "traceId": place.trace, "spanId": span, "name": slice.name, "kind": INTERNAL,
            "startTimeUnixNano": self.wall(slice.start_ns), "endTimeUnixNano": self.wall(slice.end_ns),
            "attributes": attributes(&place.name, &slice.arguments), "links": links,
        });
        self.put(place.pid, json)
    }

    fn moment(
        &mut self,
        track: u64,
        at_ns: u64,
        name: &str,
        arguments: &Arguments,
    ) -> Result<(), Error> {
        let slice = Slice {
            track,
            name: name.to_owned(),
            start_ns: at_ns,
            end_ns: at_ns,
            arguments: arguments.clone(),
            ..Slice::default()
        };
        self.slice(&slice)
    }

    fn number(&mut self, _track: u64, _at_ns: u64, _value: f64) -> Result<(), Error> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Error> {
        let mut batches: Vec<_> = self
            .batches
            .drain()
            .filter(|batch| !batch.1.is_empty())
            .collect();
        batches.sort_by_key(|batch| batch.0);
        batches
            .into_iter()
            .try_for_each(|(pid, spans)| self.line(pid, &spans))
    }
}
