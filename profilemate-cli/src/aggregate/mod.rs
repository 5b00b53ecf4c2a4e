//! The aggregator: a pure fold of events into rows. It reads no clock, no file and no environment, so the same stream
//! always gives the same rows.

pub mod block;
pub mod checkpoint;
pub mod clock;
pub mod counter;
pub mod coverage;
pub mod cycle;
pub mod distribution;
mod draft;
mod encoder;
pub mod facts;
pub mod fields;
mod forward;
pub mod graph;
pub mod moe;
pub mod operation;
mod pool;
mod preempt;
pub mod process;
pub mod request;
mod schedule;
mod shed;
pub mod split;
pub mod step;
mod user;
mod walk;
pub mod word;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use clock::Clock;
use counter::Counters;
use facts::Facts;
use fields::Fields;
use graph::Graphs;
use operation::Operations;
use preempt::Preempts;
use process::Processes;
use walk::Walks;

use crate::event::{Call, Event, Ledger, Method, Note, Phase, Program, Session};
use crate::table::AnyRow;
use crate::table::cell::Stamp;

/// How long a call may wait for the one that gives it its meaning (an operation for its step, a preemption for its
/// schedule call), on the stream's own time.
pub const HOLD_NS: u64 = 300_000_000;
/// Calls that wait for the length of a cycle to be known, at most.
const WAITING: usize = 65_536;
/// Methods and programs remembered, at most. Their number is the tracer's own; the bound is for damaged captures.
const BINDINGS: usize = 65_536;

/// Rows as they complete, each table's in its order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows(pub Vec<AnyRow>);

impl Rows {
    /// Appends a row.
    pub fn put(&mut self, row: impl Into<AnyRow>) {
        self.0.push(row.into());
    }
}

/// What the aggregator does with a method's calls, by its catalogue id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Schedule,
    Preempt,
    Evict,
    Allocate,
    Touch,
    Execute,
    Forward,
    Encoder,
    CrossAttention,
    EncoderHit,
    Stats,
    Moe,
    Route,
    Sample,
    User,
    Graph(graph::Part),
    Other,
}

impl Part {
    fn of(id: &str) -> Self {
        match id {
            "scheduler.schedule" => Self::Schedule,
            "scheduler.preempt" => Self::Preempt,
            "block_pool.evict" => Self::Evict,
            "block_pool.allocate" => Self::Allocate,
            "block_pool.touch" => Self::Touch,
            "runner.execute_model" => Self::Execute,
            "runner.model_forward" => Self::Forward,
            "encoder.execute" => Self::Encoder,
            "encoder.cross_attention" => Self::CrossAttention,
            "encoder.cache_lookup" => Self::EncoderHit,
            "scheduler.make_stats" => Self::Stats,
            "moe.forward" => Self::Moe,
            "moe.route" => Self::Route,
            "moe.sample" => Self::Sample,
            id if id.starts_with("user.") => Self::User,
            id => graph::Part::of(id).map_or(Self::Other, Self::Graph),
        }
    }
}

/// A method in a slot, and what is done with its calls.
struct Bound {
    method: Method,
    part: Part,
}

/// One call with everything that its handlers need.
#[derive(Clone, Copy)]
struct Seen<'a> {
    call: &'a Call,
    method: &'a Method,
    fields: Fields<'a>,
    /// `None`: the length of a cycle is not known.
    duration_ns: Option<u64>,
}

impl Seen<'_> {
    /// When the call began; when it was seen, if its duration is not known.
    fn start_ns(&self) -> u64 {
        self.call
            .ts_ns
            .saturating_sub(self.duration_ns.unwrap_or(0))
    }
}

/// Folds events into rows.
#[derive(Default)]
pub struct Aggregator {
    session: Session,
    clock: Clock,
    bindings: HashMap<(u32, u16, u8), Arc<Bound>>,
    shared: HashMap<(u16, u8), Arc<Bound>>,
    programs: HashMap<u32, Arc<Program>>,
    processes: Processes,
    preempts: Preempts,
    operations: Operations,
    graphs: Graphs,
    walks: Walks,
    waiting: VecDeque<Event>,
    counters: Counters,
    facts: Facts,
    moe: moe::Moe,
}

impl Aggregator {
    /// Takes one event. Calls come in the order of their time.
    pub fn push(&mut self, event: Event, rows: &mut Rows) {
        match event {
            Event::Note(note) => self.note(note, rows),
            event if !self.clock.is_known() => {
                self.waiting.push_back(event);
                if self.waiting.len() > WAITING {
                    self.drain(rows);
                }
            }
            event => self.take(&event, rows),
        }
    }

    /// Takes a call of either kind.
    fn take(&mut self, event: &Event, rows: &mut Rows) {
        match event {
            Event::Call(call) => self.call(call, rows),
            Event::Driver(call) => {
                self.walked(call, rows);
                self.driver(call, rows);
            }
            Event::Frame(frame) => self.frame(frame, rows),
            Event::Note(_) => {}
        }
    }

    /// The stream's time has come to `now_ns`, with every call older than that pushed: nothing waits longer than
    /// [`HOLD_NS`].
    pub fn advance(&mut self, now_ns: u64, rows: &mut Rows) {
        let old = now_ns.saturating_sub(HOLD_NS);
        if self.waiting.front().is_some_and(|call| moment(call) < old) {
            self.drain(rows);
        }
        self.expire(old, rows);
    }

    /// The stream has ended: nothing waits any longer.
    pub fn finish(&mut self, rows: &mut Rows) {
        self.drain(rows);
        for preempt in self.preempts.take_all() {
            self.preempted(&preempt, None, None, rows);
        }
        self.operations
            .release(u64::MAX, &self.processes, &self.session, rows);
        self.finish_walks(None, rows);
        self.finish_graphs(None, rows);
        self.moe.sums(None, &self.processes, &self.session, rows);
    }

    /// Whether something waits for a later event.
    pub fn is_waiting(&self) -> bool {
        !(self.waiting.is_empty() && self.preempts.is_empty() && self.operations.is_empty())
            || self.graphs.is_waiting()
            || self.walks.is_waiting()
    }

    /// The head of the session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// What was learned about the session itself.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The processes of the target.
    pub fn processes(&self) -> &Processes {
        &self.processes
    }

    /// The counters of the slots.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The length of a cycle.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// The method in a slot of a page, as process `pid` has it.
    pub fn method(&self, pid: u32, page: u16, slot: u8) -> Option<&Method> {
        self.bound(pid, page, slot).map(|bound| &bound.method)
    }

    /// All methods that were bound, in no particular order.
    pub fn methods(&self) -> impl Iterator<Item = &Method> {
        self.bindings.values().map(|bound| &bound.method)
    }

    fn bound(&self, pid: u32, page: u16, slot: u8) -> Option<&Arc<Bound>> {
        // A forked child has its parent's page and no note of its own for each slot.
        self.bindings
            .get(&(pid, page, slot))
            .or_else(|| self.shared.get(&(page, slot)))
    }

    fn drain(&mut self, rows: &mut Rows) {
        while let Some(event) = self.waiting.pop_front() {
            self.take(&event, rows);
        }
    }

    fn expire(&mut self, old_ns: u64, rows: &mut Rows) {
        for preempt in self.preempts.take_older(old_ns) {
            self.preempted(&preempt, Some(preempt::RESET), None, rows);
        }
        self.operations
            .release(old_ns, &self.processes, &self.session, rows);
        self.expire_walks(old_ns, rows);
        self.expire_graphs(old_ns, rows);
        self.moe
            .windows(old_ns, &self.processes, &self.session, rows);
    }

    fn note(&mut self, note: Note, rows: &mut Rows) {
        match note {
            Note::Session(session) => self.session = session,
            Note::Process(process) => self.processes.note(process),
            Note::Method(method) => self.bind(method),
            Note::Program(program) => {
                if self.programs.len() < BINDINGS || self.programs.contains_key(&program.id) {
                    self.programs.insert(program.id, Arc::new(program));
                }
            }
            Note::Clock {
                cycles,
                monotonic_ns,
            } => {
                self.clock.read(cycles, monotonic_ns);
                if self.clock.is_known() {
                    self.drain(rows);
                }
            }
            Note::Counters(counters) => self.counters.note(counters),
            Note::Ledger(ledger) => {
                let before = lost(&self.facts.ledger.unwrap_or_default());
                self.facts.count(&ledger);
                if lost(&self.facts.ledger.unwrap_or_default()) > before {
                    // A lost record may have been an allocation, or a decision.
                    self.processes.forget_blocks();
                    self.walks.forget();
                    self.forget_graphs(rows);
                }
            }
            Note::ProcessEnded { pid, at_ns, reason } => {
                self.drain(rows);
                self.finish_walks(Some(pid), rows);
                self.finish_graphs(Some((pid, at_ns)), rows);
                self.moe
                    .sums(Some(pid), &self.processes, &self.session, rows);
                self.operations.ended(pid);
                self.processes.ended(pid, at_ns, reason);
            }
            Note::Unbound {
                pid,
                method,
                reason,
            } => self.facts.unbound(pid, method, reason),
            Note::Doubt { tables, reason, .. } => self.facts.doubt(tables, reason),
            Note::NotCovered { table, reason } => self.facts.not_covered(table, reason),
            Note::Snapshot(snapshot) => self.facts.snapshot = Some(*snapshot),
            Note::Checkpoint(checkpoint) => self.resume(*checkpoint),
            Note::Cost(cost) => self.facts.cost(cost),
            Note::Shed(shed) => self.shed(shed, rows),
            Note::Walk(walk) => self.walks.note(walk),
            Note::Library(library) => {
                self.facts.libraries.insert(library.index, library);
            }
            Note::Ended {
                at_ns,
                wall,
                reason,
            } => {
                self.facts.ended = Some(facts::Ended {
                    at_ns,
                    wall,
                    reason,
                });
            }
        }
    }

    fn bind(&mut self, method: Method) {
        if self.bindings.len() >= BINDINGS {
            return;
        }
        let part = Part::of(&method.id);
        let (pid, page, slot) = (method.pid, method.page, method.slot);
        self.facts.bound(&method);
        let bound = Arc::new(Bound { method, part });
        self.bindings.insert((pid, page, slot), Arc::clone(&bound));
        self.shared.insert((page, slot), bound);
    }

    fn call(&mut self, call: &Call, rows: &mut Rows) {
        self.expire(call.ts_ns.saturating_sub(HOLD_NS), rows);
        let Some(bound) = self.bound(call.pid, call.page, call.slot).cloned() else {
            self.facts.unnamed_calls += 1;
            return;
        };
        let program = self.programs.get(&call.program).cloned();
        let fields = Fields::new(call, program.as_deref());
        self.facts.call(&bound.method.id, fields);
        if let Some(program) = &program {
            self.facts.told_by(&bound.method.id, program);
        }
        let duration_ns = match call.phase {
            Phase::Entry => None,
            Phase::Return => self.clock.between(call.entry_cycles, call.return_cycles),
        };
        let seen = Seen {
            call,
            method: &bound.method,
            fields,
            duration_ns,
        };
        if call.phase == Phase::Entry {
            match bound.part {
                Part::Preempt => self.preempts.entry(call, fields),
                Part::Graph(part) => self.graph_call(part, seen, rows),
                _ => {}
            }
            return;
        }
        let step = self.part(seen, bound.part, rows);
        self.operation(seen, bound.part, step, rows);
    }

    /// Does what the method is there for; the step, if the call made or ran one.
    fn part(&mut self, seen: Seen<'_>, part: Part, rows: &mut Rows) -> Option<operation::StepRef> {
        match part {
            Part::Schedule => return self.schedule(seen, rows),
            Part::Execute => return self.execute(seen, rows),
            Part::Preempt => self.preempt(seen, rows),
            Part::Evict => self.evict(seen, rows),
            Part::Allocate => self.allocate(seen),
            Part::Touch => self.touch(seen),
            Part::Forward => self.decoder(seen),
            Part::Encoder => self.encoder(seen),
            Part::CrossAttention => self.cross_attention(seen),
            Part::EncoderHit => self.encoder_hit(seen),
            Part::Stats => self.drafts(seen),
            Part::Moe => self.moe_layer(seen, rows),
            Part::Route => self.route(seen),
            Part::Sample => self.moe_sample(seen, rows),
            Part::User => self.user(seen, rows),
            Part::Graph(part) => self.graph_call(part, seen, rows),
            Part::Other => {}
        }
        None
    }

    fn stamp(&self, ts_ns: u64) -> Stamp {
        Stamp::new(ts_ns, self.session.started_ns)
    }
}

/// When a call was told.
fn moment(event: &Event) -> u64 {
    match event {
        Event::Call(call) => call.ts_ns,
        Event::Driver(call) => call.ts_ns,
        Event::Frame(frame) => frame.entry_ns,
        Event::Note(_) => 0,
    }
}

/// Records of either kind that were lost.
fn lost(ledger: &Ledger) -> u64 {
    ledger.lost.saturating_add(ledger.driver.lost)
}
