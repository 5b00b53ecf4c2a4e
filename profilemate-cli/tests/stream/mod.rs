//! Hand-made streams: frames as a live session would make them, on a clock of two cycles a nanosecond.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unused_imports, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "these are tests")]
#![allow(
    clippy::needless_pass_by_value,
    clippy::needless_for_each,
    clippy::too_many_lines,
    reason = "short calls read better, and a story is told at a stretch"
)]

pub(crate) mod driver;
pub(crate) mod encode;
pub(crate) mod graphs;
pub(crate) mod server;
pub(crate) mod story;
pub(crate) mod tables;

use std::collections::HashMap;
use std::path::Path;

use profilemate::capture::frame::{KIND_NOTE, KIND_RECORD, KIND_TICK};
use profilemate::capture::{Options, Outcome, Pipeline};
use profilemate::event::{
    Counters, Field, Method, Note, Process, Program, Session, Shape, SlotCounters, Unread,
};
use profilemate_common::record::{self, MethodCalled};

use encode::encode;
pub(crate) use encode::join;
pub(crate) use tables::Tables;

/// `CLOCK_MONOTONIC` at the start of every stream.
pub(crate) const START_NS: u64 = 1_000_000_000_000;
const NONE: u64 = 0x1000;
const TRUE: u64 = 0x1010;
const FALSE: u64 = 0x1020;

/// What a call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Result {
    Object,
    None,
    True,
    False,
    Raised,
}

/// A field's value.
#[derive(Clone, Debug)]
pub(crate) enum V {
    Int(i64),
    Bool(bool),
    Float(f64),
    Str(&'static str),
    Ints(Vec<i64>),
    Strs(Vec<&'static str>),
    Address(u64),
    Addresses(Vec<u64>),
    Pairs(Vec<(u64, i64)>),
    /// 32-bit integers, and how many a row has.
    Tensor(Vec<i32>, u32),
    None,
    /// Not read, with this status.
    Absent(u8),
    /// The collection, as the first items of one of so many.
    Cut(Box<V>, u32),
}

/// Fields by name.
pub(crate) type Values = Vec<(&'static str, V)>;

/// Catalogue ids with their fields, as the catalogue has them.
pub(crate) fn catalogue(id: &str) -> Vec<(&'static str, Shape)> {
    use Shape::{Address, Addresses, Bool, Float, Int, Ints, Pairs, Str, Strs};
    let descriptor = [
        ("mode", Str),
        ("d_tokens", Int),
        ("d_reqs", Int),
        ("d_uniform", Bool),
        ("d_lora", Bool),
    ];
    let batch = [
        ("tokens", Int),
        ("seqs", Int),
        ("scheduled", Pairs),
        ("new_keys", Addresses),
        ("cached_keys", Addresses),
        ("cached_outputs", Ints),
    ];
    match id {
        "scheduler.schedule" => batch
            .into_iter()
            .chain([
                ("new_ids", Strs),
                ("cached_ids", Strs),
                ("resumed_flags", Ints),
                ("resumed_ids", Strs),
                ("preempted_ids", Strs),
                ("finished_ids", Strs),
                ("running", Int),
                ("waiting", Int),
                ("waiting_heap", Int),
                ("waiting_skipped", Int),
                ("waiting_kv_holding", Int),
                ("max_seqs", Int),
                ("max_tokens", Int),
                ("blocks", Int),
                ("free_blocks", Int),
                ("encoder_evictions", Int),
                ("asynchronous", Bool),
            ])
            .collect(),
        "scheduler.preempt" => vec![
            ("request_id", Str),
            ("computed_tokens", Int),
            ("num_preemptions", Int),
        ],
        "block_pool.evict" => vec![("block_id", Int), ("pool", Address)],
        "block_pool.allocate" | "block_pool.touch" => {
            vec![("block_ids", Ints), ("pool", Address)]
        }
        "runner.execute_model" => batch
            .into_iter()
            .chain([
                ("dummy_run", Bool),
                ("model_experts", Int),
                ("multimodal", Bool),
                ("rank", Int),
            ])
            .collect(),
        "graph.dispatch" => descriptor
            .into_iter()
            .chain([
                ("manager", Address),
                ("batch_tokens", Int),
                ("batch_uniform", Bool),
                ("batch_lora", Bool),
                ("valid_modes", Strs),
                ("invalid_modes", Strs),
                ("config_mode", Str),
                ("ready", Bool),
                ("largest", Int),
            ])
            .collect(),
        "graph.capture" => descriptor
            .into_iter()
            .chain([("piece", Int), ("pieces", Int)])
            .collect(),
        "graph.segments" | "graph.hint" => descriptor.to_vec(),
        "graph.dispatch_full" => vec![("manager", Address), ("d_tokens", Int)],
        "graph.dispatch_encoder" | "graph.capture_encoder" => {
            vec![("manager", Address), ("d_tokens", Int)]
        }
        "graph.capture_model" => vec![("profile_only", Bool)],
        "moe.forward" => vec![
            ("layer_name", Str),
            ("num_experts", Int),
            ("top_k", Int),
            ("tokens", Int),
        ],
        "encoder.execute" => vec![("items", Int), ("requests", Int)],
        "encoder.cache_lookup" => vec![("request_id", Str), ("input_id", Int)],
        "encoder.cross_attention" => vec![("tokens", Int)],
        "scheduler.make_stats" => vec![
            ("log_stats", Bool),
            ("spec_none", Bool),
            ("spec_drafts", Int),
            ("spec_draft_tokens", Int),
            ("spec_accepted_tokens", Int),
            ("spec_configured", Int),
        ],
        "moe.route" => vec![("ids", Shape::Tensor)],
        "moe.monolithic" => Vec::new(),
        "moe.sample" => vec![
            ("layer_name", Str),
            ("num_experts", Int),
            ("top_k", Int),
            ("every", Int),
            ("calls", Int),
            ("sampled", Int),
            ("captured", Int),
            ("kind", Int),
            ("keys", Ints),
            ("values", Ints),
        ],
        "user.0" => vec![
            ("size", Int),
            ("name", Str),
            ("ratio", Float),
            ("items", Ints),
        ],
        _ => vec![],
    }
}

/// A stream under construction.
#[derive(Default)]
pub(crate) struct Stream {
    /// The frames, in order.
    pub(crate) frames: Vec<(u8, Vec<u8>)>,
    slots: HashMap<(u16, String), (u8, u32)>,
    programs: u32,
    /// What the program of the next method to be bound does not read.
    pub(crate) unread: Vec<Unread>,
}

/// The moment `us` microseconds after the start.
pub(crate) fn at(us: u64) -> u64 {
    START_NS + us * 1_000
}

impl Stream {
    /// A stream with the head of a session and two readings of the clock.
    pub(crate) fn new() -> Self {
        let mut stream = Self::default();
        stream.note(&Note::Session(Session {
            format: 1,
            id: "session_20260102_030405_abc".to_owned(),
            started_ns: START_NS,
            started_wall: "2026-01-02T03:04:05Z".to_owned(),
            command: vec!["profilemate".to_owned(), "trace".to_owned()],
            host: "host".to_owned(),
            kernel: "6.18".to_owned(),
            tool: "0.1.0".to_owned(),
        }));
        stream.clock(0);
        stream.clock(20_000);
        stream
    }

    pub(crate) fn note(&mut self, note: &Note) {
        self.frames
            .push((KIND_NOTE, serde_json::to_vec(note).unwrap()));
    }

    pub(crate) fn clock(&mut self, us: u64) {
        self.note(&Note::Clock {
            cycles: at(us) * 2,
            monotonic_ns: at(us),
        });
    }

    pub(crate) fn tick(&mut self, us: u64) {
        self.frames.push((KIND_TICK, at(us).to_le_bytes().to_vec()));
    }

    pub(crate) fn process(&mut self, pid: u32, parent: u32, role: &str, page: Option<u16>) {
        self.note(&Note::Process(Process {
            pid,
            parent,
            role: role.to_owned(),
            engine: (role == "engine_core").then_some(0),
            rank: (role == "worker").then_some(0),
            title: role.to_owned(),
            python: Some("3.12.1".to_owned()),
            vllm: Some("0.32.0".to_owned()),
            page,
            technique: if page.is_some() {
                "method_probes"
            } else {
                "none"
            }
            .to_owned(),
            reason: None,
        }));
    }

    /// Binds methods of the catalogue to the first slots of a page.
    pub(crate) fn bind(&mut self, pid: u32, page: u16, ids: &[&str]) {
        for id in ids {
            self.bind_with(pid, page, id, None, &catalogue(id));
        }
    }

    /// Binds a method with an operation name.
    pub(crate) fn bind_with(
        &mut self,
        pid: u32,
        page: u16,
        id: &str,
        operation: Option<&str>,
        fields: &[(&str, Shape)],
    ) {
        self.programs += 1;
        let slot = self.slots.keys().filter(|key| key.0 == page).count() as u8;
        let program = self.programs;
        self.slots.insert((page, id.to_owned()), (slot, program));
        self.note(&Note::Method(Method {
            pid,
            page,
            slot,
            id: id.to_owned(),
            module: "module".to_owned(),
            qualname: format!("Class.{id}"),
            operation: operation.map(str::to_owned),
            mode: 1,
        }));
        let field = |(name, shape): &(&str, Shape)| Field {
            name: (*name).to_owned(),
            path: format!("self.{name}"),
            shape: *shape,
        };
        let unread = std::mem::take(&mut self.unread);
        self.note(&Note::Program(Program {
            id: program,
            page,
            slot,
            none: NONE,
            true_: TRUE,
            false_: FALSE,
            fields: fields.iter().map(field).collect(),
            unread,
        }));
    }

    /// A call that returned, as bytes of a record.
    pub(crate) fn record(
        &self,
        who: Who,
        id: &str,
        from_us: u64,
        to_us: u64,
        result: Result,
        values: &Values,
    ) -> Vec<u8> {
        let (slot, program) = self.slots[&(who.page, id.to_owned())];
        let names: Vec<&str> = match id {
            "custom" => values.iter().map(|value| value.0).collect(),
            _ => catalogue(id).iter().map(|field| field.0).collect(),
        };
        let (fields, blob) = encode(&names, values);
        let head = MethodCalled {
            kind: record::KIND_METHOD_CALLED,
            page: who.page,
            slot,
            phase: record::PHASE_RETURN,
            class: record::CLASS_BLOB,
            field_count: names.len() as u8,
            pid: who.pid,
            tid: who.tid,
            ts_ns: at(to_us),
            entry_cycles: at(from_us) * 2,
            return_cycles: at(to_us) * 2,
            result: match result {
                Result::Object => 0xbeef,
                Result::None => NONE,
                Result::True => TRUE,
                Result::False => FALSE,
                Result::Raised => 0,
            },
            program,
            blob_len: blob.len() as u32,
            callable: 0xca11,
        };
        join(&head, &fields, &blob)
    }

    /// A call that returned.
    pub(crate) fn call(
        &mut self,
        who: Who,
        id: &str,
        from_us: u64,
        to_us: u64,
        result: Result,
        values: Values,
    ) {
        let bytes = self.record(who, id, from_us, to_us, result, &values);
        self.frames.push((KIND_RECORD, bytes));
    }

    /// The event before a call that begins at `from_us`.
    pub(crate) fn entry(&mut self, who: Who, id: &str, from_us: u64, values: Values) {
        let mut bytes = self.record(who, id, from_us, from_us, Result::Raised, &values);
        let mut head: MethodCalled =
            bytemuck::pod_read_unaligned(&bytes[..size_of::<MethodCalled>()]);
        head.phase = record::PHASE_ENTRY;
        head.return_cycles = 0;
        bytes[..size_of::<MethodCalled>()].copy_from_slice(bytemuck::bytes_of(&head));
        self.frames.push((KIND_RECORD, bytes));
    }

    /// A method was called so often, as the page counts it.
    pub(crate) fn counted(&mut self, pid: u32, page: u16, us: u64, id: &str, calls: u64) {
        let (slot, _) = self.slots[&(page, id.to_owned())];
        let slot = SlotCounters {
            slot,
            calls,
            ..SlotCounters::default()
        };
        self.counters(pid, page, us, vec![slot]);
    }

    pub(crate) fn counters(&mut self, pid: u32, page: u16, us: u64, slots: Vec<SlotCounters>) {
        self.note(&Note::Counters(Counters {
            pid,
            page,
            at_ns: at(us),
            slots,
        }));
    }

    pub(crate) fn ended(&mut self, us: u64) {
        let wall = "2026-01-02T03:04:06Z".to_owned();
        self.note(&Note::Ended {
            at_ns: at(us),
            wall,
            reason: "interrupted".to_owned(),
        });
    }

    /// The tables that the stream gives.
    pub(crate) fn tables(&self) -> Tables {
        let folder = tempfile::tempdir().unwrap();
        let outcome = self.write(&folder.path().join("session"));
        Tables { outcome, folder }
    }

    /// Writes a session folder.
    pub(crate) fn write(&self, folder: &Path) -> Outcome {
        let mut pipeline = Pipeline::new(folder, Options::default()).unwrap();
        for (kind, bytes) in &self.frames {
            pipeline.frame(*kind, bytes).unwrap();
        }
        pipeline.finish().unwrap()
    }
}

/// Process, thread and page of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who {
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    pub(crate) page: u16,
}
