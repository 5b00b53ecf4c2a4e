//! Frames in, session folder out. The live session and the replay drive the same pipeline.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::decode::{Decoder, Errors};
use super::frame::{self, KIND_NOTE, KIND_RECORD, KIND_TICK};
use super::order::Order;
use super::writer::CaptureWriter;
use crate::aggregate::{Aggregator, Rows};
use crate::event::{Event, Note};
use crate::explain::{Cover, Explanation, Facts};
use crate::recorder::{Recorder, Reply};
use crate::sink::csv::CsvFolder;
use crate::sink::lines::Lines;
use crate::sink::metadata::{Counts, Overhead};
use crate::sink::status::{Gauge, Status};
use crate::sink::summary::Summary;
use crate::sink::watch::{Pulse, Watcher};
use crate::sink::{self, metadata};
use crate::table::cell::Stamp;
use crate::table::{self, AnyRow};

/// Longest time from a row to the disk, on the clock of [`Pipeline::tick`].
const FLUSH_NS: u64 = 250_000_000;
/// Time between two writings of `metadata.json`, and of the tables of totals.
const METADATA_NS: u64 = 1_000_000_000;
/// Time between two pulses for a watcher.
const PULSE_NS: u64 = 100_000_000;
/// Name of the capture in the session folder.
pub const CAPTURE_FILE: &str = "events.pmrec";

/// Whether the stream itself is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeepCapture {
    /// Write `events.pmrec`, so that the tables can be rebuilt.
    #[default]
    Yes,
    /// Do not.
    No,
}

/// Whether a session folder is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Files {
    /// Tables, metadata, summary, and the stream if it is kept.
    #[default]
    Session,
    /// None at all: a watcher looks at the rows, and that is all.
    None,
}

/// How the pipeline works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether the stream itself is kept.
    pub capture: KeepCapture,
    /// Whether a session folder is written.
    pub files: Files,
}

/// What came of a session.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The session folder.
    pub folder: PathBuf,
    /// Rows of each table that has some: file name without `.csv`, rows.
    pub rows: Vec<(&'static str, u64)>,
    /// Records that arrived.
    pub received: u64,
    /// Records lost, in the kernel and in user space.
    pub lost: u64,
    /// What could not be decoded.
    pub decode_errors: Errors,
    /// What is wrong with the target, as far as the session shows it.
    pub explanation: Explanation,
    /// How the capture file ended, if this was a replay.
    pub capture_end: Option<frame::End>,
}

/// Decodes, orders, aggregates and writes.
pub struct Pipeline {
    folder: PathBuf,
    capture: Option<CaptureWriter>,
    decoder: Decoder,
    order: Order,
    aggregator: Aggregator,
    rows: Rows,
    csv: Option<CsvFolder>,
    watcher: Option<Box<dyn Watcher>>,
    pulsed_ns: u64,
    lines: Option<Lines>,
    recorder: Option<Recorder>,
    summary: Summary,
    facts: Facts,
    gauge: Gauge,
    lost_userspace: u64,
    overhead: Option<Overhead>,
    flushed_ns: u64,
    described_ns: u64,
    /// Of the totals that were written.
    revision: u64,
}

impl Pipeline {
    /// Makes the session folder, its tables with their headers, and its metadata. The folder may exist; the files
    /// may not.
    pub fn new(folder: &Path, options: Options) -> Result<Self, sink::Error> {
        if options.files == Files::None {
            return Ok(Self::with(folder, None, None));
        }
        fs::create_dir_all(folder).map_err(|source| sink::Error::Create {
            path: folder.to_owned(),
            source,
        })?;
        let metadata = folder.join("metadata.json");
        if metadata.symlink_metadata().is_ok() {
            let source = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(sink::Error::Create {
                path: metadata,
                source,
            });
        }
        let csv = CsvFolder::create(folder)?;
        let capture = match options.capture {
            KeepCapture::Yes => Some(CaptureWriter::create(&folder.join(CAPTURE_FILE))?),
            KeepCapture::No => None,
        };
        let pipeline = Self::with(folder, Some(csv), capture);
        pipeline.describe()?;
        Ok(pipeline)
    }

    fn with(folder: &Path, csv: Option<CsvFolder>, capture: Option<CaptureWriter>) -> Self {
        Self {
            folder: folder.to_owned(),
            capture,
            decoder: Decoder::default(),
            order: Order::default(),
            aggregator: Aggregator::default(),
            rows: Rows::default(),
            csv,
            watcher: None,
            pulsed_ns: 0,
            lines: None,
            recorder: None,
            summary: Summary::default(),
            facts: Facts::default(),
            gauge: Gauge::default(),
            lost_userspace: 0,
            overhead: None,
            flushed_ns: 0,
            described_ns: 0,
            revision: 0,
        }
    }

    /// Takes one frame of the stream: a record as it came from the ring buffer, a note as JSON, or a tick.
    pub fn frame(&mut self, kind: u8, bytes: &[u8]) -> Result<(), sink::Error> {
        let bytes = if kind == KIND_RECORD {
            frame::used(bytes).unwrap_or(bytes)
        } else {
            bytes
        };
        if bytes.len() > frame::MAX_LEN {
            // Too long for the file; counted as what it is, and not kept.
            self.decoder.frame(u8::MAX, &[]);
            return Ok(());
        }
        if let Some(capture) = &mut self.capture {
            capture.frame(kind, bytes)?;
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.frame(kind, bytes);
        }
        if kind == KIND_TICK {
            return self.advance(bytes.try_into().map_or(0, u64::from_le_bytes));
        }
        let Some(event) = self.decoder.frame(kind, bytes) else {
            return Ok(());
        };
        if let (Some(recorder), Event::Note(note)) = (&mut self.recorder, &event) {
            recorder.note(note);
        }
        let (order, aggregator, rows) = (&mut self.order, &mut self.aggregator, &mut self.rows);
        order.push(event, &mut |event| aggregator.push(event, rows));
        self.emit()
    }

    /// Takes a note of the tracer.
    pub fn note(&mut self, note: &Note) -> Result<(), sink::Error> {
        match serde_json::to_vec(note) {
            Ok(bytes) => self.frame(KIND_NOTE, &bytes),
            // A note is plain data; should it not serialise, it is an undecodable one.
            Err(_) => self.frame(KIND_NOTE, &[]),
        }
    }

    /// The time is `now_ns` on `CLOCK_MONOTONIC`, and the ring buffer was drained a moment before. Releases what has
    /// waited long enough and brings rows to the disk. To be called about every 50 ms.
    pub fn tick(&mut self, now_ns: u64) -> Result<(), sink::Error> {
        if !self.order.is_empty() || self.aggregator.is_waiting() {
            self.frame(KIND_TICK, &now_ns.to_le_bytes())?;
        }
        self.record(now_ns)?;
        if now_ns.saturating_sub(self.flushed_ns) >= FLUSH_NS {
            self.flushed_ns = now_ns;
            self.flush()?;
        }
        if now_ns.saturating_sub(self.described_ns) >= METADATA_NS {
            self.described_ns = now_ns;
            self.write_totals()?;
            self.describe()?;
            self.tell_cover();
        }
        if now_ns.saturating_sub(self.pulsed_ns) >= PULSE_NS {
            self.pulsed_ns = now_ns;
            self.pulse(now_ns);
        }
        Ok(())
    }

    /// The live numbers at `now_ns`.
    pub fn status(&mut self, now_ns: u64) -> Status {
        let (events, lost) = (
            self.decoder.records(),
            metadata::lost(&self.aggregator, &self.counts()),
        );
        self.gauge
            .status(self.aggregator.session().started_ns, now_ns, events, lost)
    }

    /// From now on, calls of the user's own methods are also given to `lines`.
    pub fn set_lines(&mut self, lines: Lines) {
        self.lines = Some(lines);
    }

    /// From now on, `recorder` keeps the latest part of the stream.
    pub fn set_recorder(&mut self, recorder: Recorder) {
        self.recorder = Some(recorder);
    }

    /// Somebody asks for a snapshot of what is kept: `what` is how.
    pub fn ask_snapshot(&mut self, what: &str, reply: Option<Reply>) {
        match &mut self.recorder {
            Some(recorder) => recorder.ask(what, reply),
            None => drop(reply),
        }
    }

    /// Lets the recorder do what is due.
    fn record(&mut self, now_ns: u64) -> Result<(), sink::Error> {
        let due = |recorder: &mut Recorder| recorder.is_due(now_ns);
        if !self.recorder.as_mut().is_some_and(due) {
            return Ok(());
        }
        // A window begins with what is known there: nothing may be under way.
        let (aggregator, rows) = (&mut self.aggregator, &mut self.rows);
        self.order.flush(&mut |event| aggregator.push(event, rows));
        self.emit()?;
        if let Some(recorder) = &mut self.recorder {
            recorder.turn(self.aggregator.checkpoint(), self.overhead);
        }
        Ok(())
    }

    /// From now on, `watcher` sees every row.
    pub fn set_watcher(&mut self, watcher: Box<dyn Watcher>) {
        self.watcher = Some(watcher);
    }

    /// Nothing before the session's first note: its times count from there.
    fn pulse(&mut self, now_ns: u64) {
        if self.aggregator.session().started_ns == 0 {
            return;
        }
        let Some(mut watcher) = self.watcher.take() else {
            return;
        };
        let counts = self.counts();
        let all = self.aggregator.processes().all();
        watcher.pulse(&Pulse {
            now: Stamp::new(now_ns, self.aggregator.session().started_ns),
            events: counts.received,
            lost: metadata::lost(&self.aggregator, &counts),
            losses: metadata::losses(&self.aggregator, &counts),
            overhead: self.overhead,
            costs: self.aggregator.facts().costs.values().cloned().collect(),
            began_unix_ns: self.began_unix_ns(),
            processes: all
                .filter(|(_, ended)| ended.is_none())
                .map(|(process, _)| process)
                .collect(),
        });
        self.watcher = Some(watcher);
    }

    fn began_unix_ns(&self) -> Option<i64> {
        let wall = &self.aggregator.session().started_wall;
        let began: jiff::Timestamp = wall.parse().ok()?;
        i64::try_from(began.as_nanosecond()).ok()
    }

    fn tell_cover(&mut self) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let covers: Vec<_> = table::TABLES
            .iter()
            .map(|table| (table.file, self.aggregator.coverage(table.file, 0, 0)))
            .collect();
        watcher.covers(&covers);
    }

    /// Records that user space had to drop so far.
    pub fn set_lost(&mut self, records: u64) {
        self.lost_userspace = records;
    }

    /// What tracing cost so far.
    pub fn set_overhead(&mut self, overhead: Overhead) {
        self.overhead = Some(overhead);
    }

    /// What is known of the session.
    pub fn aggregator(&self) -> &Aggregator {
        &self.aggregator
    }

    /// The stream has ended: completes all files.
    pub fn finish(mut self) -> Result<Outcome, sink::Error> {
        let (aggregator, rows) = (&mut self.aggregator, &mut self.rows);
        self.order.flush(&mut |event| aggregator.push(event, rows));
        self.aggregator.finish(&mut self.rows);
        self.emit()?;
        if let Some(recorder) = self.recorder.take() {
            recorder.finish(self.overhead);
        }
        self.write_totals()?;
        for row in self.aggregator.graph_usage() {
            let row = row.into();
            self.summary.row(&row);
            let processes = self.aggregator.processes();
            self.facts.row(&row, &|pid| processes.engine_of(pid));
        }
        self.flush()?;
        self.describe()?;
        // Who watches has seen all rows; now the last counts too.
        self.pulse(self.pulsed_ns);
        let explanation = self.explain();
        if self.csv.is_some() {
            let mut summary = self.summary.json(&self.aggregator);
            summary["findings"] = serde_json::json!(explanation.findings);
            sink::replace(&self.folder.join("summary.json"), &pretty(&summary))?;
        }
        let counts = self.counts();
        let rows = table::TABLES
            .iter()
            .map(|table| table.file)
            .zip(self.csv.as_ref().map(CsvFolder::rows).unwrap_or_default());
        Ok(Outcome {
            rows: rows.filter(|row| row.1 > 0).collect(),
            received: counts.received,
            lost: metadata::lost(&self.aggregator, &counts),
            decode_errors: counts.decode_errors,
            explanation,
            folder: self.folder,
            capture_end: None,
        })
    }

    fn advance(&mut self, now_ns: u64) -> Result<(), sink::Error> {
        let (aggregator, rows) = (&mut self.aggregator, &mut self.rows);
        self.order
            .advance(now_ns, &mut |event| aggregator.push(event, rows));
        self.aggregator.advance(now_ns, &mut self.rows);
        self.emit()
    }

    fn emit(&mut self) -> Result<(), sink::Error> {
        for row in self.rows.0.drain(..) {
            self.gauge.row(&row);
            self.summary.row(&row);
            let processes = self.aggregator.processes();
            self.facts.row(&row, &|pid| processes.engine_of(pid));
            if let Some(lines) = &mut self.lines {
                lines.row(&row);
            }
            if let Some(watcher) = &mut self.watcher {
                watcher.row(&row);
            }
            if let Some(recorder) = &mut self.recorder {
                recorder.row(&row);
            }
            if let Some(csv) = &mut self.csv {
                csv.row(&row)?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), sink::Error> {
        self.csv.as_mut().map_or(Ok(()), CsvFolder::flush)?;
        self.capture.as_mut().map_or(Ok(()), CaptureWriter::flush)
    }

    /// Writes the tables of totals, if they have changed.
    fn write_totals(&mut self) -> Result<(), sink::Error> {
        let revision = self.aggregator.graph_usage_revision();
        if revision == self.revision {
            return Ok(());
        }
        self.revision = revision;
        let rows: Vec<AnyRow> = self
            .aggregator
            .graph_usage()
            .into_iter()
            .map(AnyRow::from)
            .collect();
        let Some(table) = table::index_of("cuda_graph_usage") else {
            return Ok(());
        };
        if let Some(watcher) = &mut self.watcher {
            for row in &rows {
                watcher.row(row);
            }
        }
        self.csv
            .as_mut()
            .map_or(Ok(()), |csv| csv.replace(table, &rows))
    }

    fn describe(&self) -> Result<(), sink::Error> {
        let Some(csv) = &self.csv else {
            return Ok(());
        };
        let document = metadata::json(
            &self.folder,
            &self.aggregator,
            &csv.rows(),
            &self.counts(),
            self.overhead,
        );
        sink::replace(&self.folder.join("metadata.json"), &pretty(&document))
    }

    fn explain(&mut self) -> Explanation {
        self.facts.finish();
        let lost = metadata::lost(&self.aggregator, &self.counts());
        let mut cover = Cover::default();
        let rows = self.csv.as_ref().map(CsvFolder::rows).unwrap_or_default();
        for (table, rows) in table::TABLES.iter().zip(rows) {
            let coverage = self.aggregator.coverage(table.file, rows, lost);
            cover.add(table.file, coverage.status.word(), &coverage.reason);
        }
        Explanation::of(&self.facts, &cover, Some(lost))
    }

    fn counts(&self) -> Counts {
        Counts {
            received: self.decoder.records(),
            received_driver: self.decoder.driver_records(),
            received_logged: self.decoder.logged_records(),
            lost_userspace: self.lost_userspace,
            late: self.order.late(),
            decode_errors: self.decoder.errors(),
        }
    }
}

fn pretty(document: &serde_json::Value) -> Vec<u8> {
    let mut text = format!("{document:#}").into_bytes();
    text.push(b'\n');
    text
}
