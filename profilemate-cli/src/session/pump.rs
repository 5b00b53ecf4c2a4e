//! The thread through which all data flows: ring buffer and notes in, pipeline out.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use profilemate_common::record::MethodCalled;

use super::logs::{Logs, Moment};
use crate::attach;
use crate::capture::{Outcome, Pipeline, frame};
use crate::event::{Ledger, Note};
use crate::recorder::Reply;
use crate::sink::metadata::Overhead;
use crate::sink::{self, status::Status};
use crate::sys::clock;
use crate::touch::PageLog;

/// Pause between two drains while much arrives. A wake-up per event would cost the traced thread many times the event
/// itself.
const DRAIN: Duration = Duration::from_millis(10);
/// Pause while little arrives. At the rate at which two processors can fill it, about 400 MB/s, the default ring buffer
/// holds what comes meanwhile.
const DRAIN_SELDOM: Duration = Duration::from_millis(40);
/// The ring buffer that this is meant for; with a smaller one the pauses are the short ones.
const DRAIN_SELDOM_BYTES: u32 = 16 << 20;
/// Bytes of one drain that are much: what 100,000 small events a second make.
const MUCH: usize = 256 << 10;

/// Time between two weighings of the tracer's own cost.
const WEIGHING_NS: u64 = 1_000_000_000;

/// What the tracker tells the pump.
enum Message {
    Note(Box<Note>),
    Snapshot(&'static str, Option<Reply>),
    Log(u16, u32, Box<PageLog>),
    Stop,
}

/// Where the tracker puts its notes.
#[derive(Clone)]
pub(super) struct Notes(Sender<Message>);

impl Notes {
    /// For a tracker that only looks: notes go nowhere.
    pub(super) fn nowhere() -> Self {
        Self(channel().0)
    }

    /// Puts a note into the stream, before every record that arrives from now on.
    pub(super) fn send(&self, note: Note) {
        // The pump only goes away with an error of its own, which `Pump::finish` reports.
        let _gone = self.0.send(Message::Note(Box::new(note)));
    }

    /// From now on, what is written to the log of a page of process `pid` is part of the stream.
    pub(super) fn read_log(&self, page: u16, pid: u32, log: PageLog) {
        let _gone = self.0.send(Message::Log(page, pid, Box::new(log)));
    }
}

/// Asks the recorder for a snapshot.
#[derive(Clone)]
pub(super) struct Asker(Sender<Message>);

impl Asker {
    /// Asks; `what` is how.
    pub(super) fn ask(&self, what: &'static str, reply: Option<Reply>) {
        // Without a pump the reply is dropped, which is an answer.
        let _gone = self.0.send(Message::Snapshot(what, reply));
    }
}

/// The running pump.
pub(super) struct Pump {
    notes: Notes,
    status: Arc<Mutex<Status>>,
    serving: Arc<Mutex<BTreeSet<u32>>>,
    thread: JoinHandle<Result<Outcome, sink::Error>>,
}

impl Pump {
    /// Starts the thread.
    pub(super) fn start(
        mut pipeline: Pipeline,
        ring: Option<attach::Reader>,
        ring_bytes: u32,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = channel();
        let status = Arc::new(Mutex::new(pipeline.status(clock::monotonic_ns())));
        let seldom = seldom(ring_bytes);
        let serving = Arc::default();
        let (shared, shared_serving) = (Arc::clone(&status), Arc::clone(&serving));
        let thread = std::thread::Builder::new()
            .name("pm-pump".into())
            .spawn(move || run(pipeline, ring, seldom, &receiver, &shared, &shared_serving))?;
        Ok(Self {
            notes: Notes(sender),
            status,
            serving,
            thread,
        })
    }

    /// Where notes go.
    pub(super) fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Where snapshots are asked for.
    pub(super) fn asker(&self) -> Asker {
        Asker(self.notes.0.clone())
    }

    /// The latest numbers for the status line.
    pub(super) fn status(&self) -> Option<Status> {
        self.status.lock().ok().map(|status| *status)
    }

    /// Processes in which no CUDA graph can be captured now.
    pub(super) fn serving(&self) -> BTreeSet<u32> {
        self.serving
            .lock()
            .map(|serving| serving.clone())
            .unwrap_or_default()
    }

    /// Whether the thread has ended by itself, which only an error makes it do.
    pub(super) fn has_failed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Drains what is left, closes all files and gives the outcome.
    pub(super) fn finish(self) -> Result<Outcome, sink::Error> {
        let _gone = self.notes.0.send(Message::Stop);
        match self.thread.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn run(
    mut pipeline: Pipeline,
    mut ring: Option<attach::Reader>,
    seldom: Duration,
    messages: &Receiver<Message>,
    status: &Mutex<Status>,
    serving: &Mutex<BTreeSet<u32>>,
) -> Result<Outcome, sink::Error> {
    let mut records = Records::default();
    let mut logs = Logs::new();
    let mut ledger = None;
    let mut stopping = false;
    let mut weighed_ns = 0;
    loop {
        // Records are taken before the notes, and pushed after them: a note that gives a record its meaning was sent
        // before the record could be made.
        records.clear();
        // Logs are taken up to a moment before: of what came since, the ring buffer holds no more than they do.
        let now = Moment::now();
        if let Some(ring) = &mut ring {
            ring.drain(|bytes| records.push(bytes));
        }
        let logged = logs.drain(now);
        for message in messages.try_iter() {
            match message {
                Message::Note(mut note) => {
                    logs.learn(&note);
                    if let Note::Ledger(latest) = &mut *note {
                        latest.log = logs.ledger();
                        ledger = Some(*latest);
                    }
                    pipeline.note(&note)?;
                }
                Message::Log(page, pid, log) => logs.add(page, pid, *log),
                Message::Snapshot(what, reply) => pipeline.ask_snapshot(what, reply),
                Message::Stop => stopping = true,
            }
        }
        // Side by side by their time: what is pushed lets go of what is much older.
        let mut told = logs.records().peekable();
        for record in records.iter() {
            let ts_ns = frame::record_time(record);
            while let Some(told) = told.next_if(|told| ts_ns.is_some_and(|ts| told.ts_ns <= ts)) {
                pipeline.frame(frame::KIND_RECORD, bytemuck::bytes_of(&told))?;
            }
            pipeline.frame(frame::KIND_RECORD, record)?;
        }
        for told in told {
            pipeline.frame(frame::KIND_RECORD, bytemuck::bytes_of(&told))?;
        }
        let now_ns = clock::monotonic_ns();
        if now_ns.saturating_sub(weighed_ns) >= WEIGHING_NS || stopping {
            weighed_ns = now_ns;
            pipeline.set_overhead(overhead());
        }
        pipeline.tick(now_ns)?;
        if let Ok(mut shared) = status.lock() {
            *shared = pipeline.status(now_ns);
        }
        if let Ok(mut shared) = serving.lock()
            && *shared != *pipeline.aggregator().serving()
        {
            shared.clone_from(pipeline.aggregator().serving());
        }
        if stopping && records.is_empty() && logged == 0 {
            // The tracker's last word was said before the logs were read to their ends.
            if let Some(ledger) = ledger.filter(|ledger| ledger.log != logs.ledger()) {
                let log = logs.ledger();
                pipeline.note(&Note::Ledger(Ledger { log, ..ledger }))?;
            }
            return pipeline.finish();
        }
        if !stopping {
            let bytes = records.bytes.len() + logged * size_of::<MethodCalled>();
            std::thread::sleep(if bytes > MUCH { DRAIN } else { seldom });
        }
    }
}

/// Pause between two drains while little arrives in a ring buffer of `ring_bytes`.
fn seldom(ring_bytes: u32) -> Duration {
    if ring_bytes < DRAIN_SELDOM_BYTES {
        DRAIN
    } else {
        DRAIN_SELDOM
    }
}

/// What tracing has cost so far, as far as the tracer can tell itself.
fn overhead() -> Overhead {
    let own = procfs::process::Process::myself().ok();
    let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
    Overhead {
        tracer_cpu_sec: own
            .as_ref()
            .and_then(|own| own.stat().ok())
            .map(|stat| seconds(stat.utime + stat.stime)),
        tracer_rss_bytes: own
            .and_then(|own| own.status().ok()?.vmhwm)
            .map(|kib| kib * 1024),
        target_stopped_ms: Some(crate::touch::stood_ns() as f64 / 1e6),
        probe_run_ms: None,
    }
}

/// Records of one drain, in one buffer.
#[derive(Default)]
struct Records {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Records {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push(self.bytes.len());
    }

    fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, &end)| &self.bytes[start..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_ring_buffer_is_drained_often() {
        assert_eq!(seldom(attach::Options::default().ring_bytes), DRAIN_SELDOM);
        assert_eq!(seldom(4 << 20), DRAIN);
    }

    #[test]
    fn records_of_a_drain_keep_their_bounds() {
        let mut records = Records::default();
        for record in [&b"one"[..], b"", b"three"] {
            records.push(record);
        }
        assert_eq!(
            records.iter().collect::<Vec<_>>(),
            [&b"one"[..], b"", b"three"]
        );
        records.clear();
        assert!(records.is_empty());
    }
}
