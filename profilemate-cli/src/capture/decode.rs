//! Frames become events. Total: any bytes give an event or a counted error, never a panic.

use std::collections::HashMap;

use profilemate_common::driver::{DriverCalled, Function, KIND_DRIVER_CALLED};
use profilemate_common::path;
use profilemate_common::record::{
    self, CLASS_BARE, CollectionHead, FIELDS, Fields, KIND_METHOD_CALLED, KIND_METHOD_LOGGED,
    MethodCalled, STATUS_FAULT, STATUS_NONE, STATUS_OK, STATUS_TRUNCATED, STRING_SIZE, TensorHead,
};
use profilemate_common::walk::{FUNCTION_OTHER, FrameWalked, KIND_FRAME_WALKED, OUTCOME_DEEP};
use serde::Serialize;

use super::frame::{self, KIND_NOTE, KIND_RECORD};
use crate::event::{Call, DriverCall, Event, Frame, Note, Outcome, Phase, Program, Shape, Value};

/// Programs remembered, at most. Their ids are the tracer's own; the bound is for damaged files.
const PROGRAMS: usize = 65_536;

/// What could not be decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Errors {
    /// Records that are too short, or of an unknown kind, class or phase.
    pub records: u64,
    /// Notes that are no valid JSON, or of an unknown kind.
    pub notes: u64,
    /// Frames of an unknown kind.
    pub frames: u64,
    /// Strings and collections that point outside their record.
    pub fields: u64,
    /// Records whose program is unknown; their calls have no fields.
    pub programs: u64,
}

impl Errors {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.records + self.notes + self.frames + self.fields + self.programs
    }
}

/// Turns frames into events; remembers the programs to read fields by.
#[derive(Default)]
pub struct Decoder {
    programs: HashMap<u32, Program>,
    errors: Errors,
    records: u64,
    driver_records: u64,
    logged_records: u64,
}

impl Decoder {
    /// Decodes one frame. `None`: it was counted as an error.
    pub fn frame(&mut self, kind: u8, bytes: &[u8]) -> Option<Event> {
        match kind {
            KIND_RECORD => {
                let kind = frame::record_kind(bytes);
                let event = match kind {
                    Some(KIND_METHOD_CALLED | KIND_METHOD_LOGGED) => {
                        self.record(bytes).map(Event::Call)
                    }
                    Some(KIND_DRIVER_CALLED) => driver_call(bytes).map(Event::Driver),
                    Some(KIND_FRAME_WALKED) => self.frame_walked(bytes).map(Event::Frame),
                    _ => None,
                };
                match event {
                    Some(_) => {
                        self.records += 1;
                        self.driver_records += u64::from(matches!(event, Some(Event::Driver(_))));
                        self.logged_records += u64::from(kind == Some(KIND_METHOD_LOGGED));
                    }
                    None => self.errors.records += 1,
                }
                event
            }
            KIND_NOTE => {
                let Ok(note) = serde_json::from_slice::<Note>(bytes) else {
                    self.errors.notes += 1;
                    return None;
                };
                self.learn(&note);
                Some(Event::Note(note))
            }
            _ => {
                self.errors.frames += 1;
                None
            }
        }
    }

    /// What could not be decoded so far.
    pub fn errors(&self) -> Errors {
        self.errors
    }

    /// Records decoded so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Of these, records of driver calls.
    pub fn driver_records(&self) -> u64 {
        self.driver_records
    }

    /// Of these, records of logged calls.
    pub fn logged_records(&self) -> u64 {
        self.logged_records
    }

    fn learn(&mut self, note: &Note) {
        if let Note::Program(program) = note
            && (self.programs.len() < PROGRAMS || self.programs.contains_key(&program.id))
        {
            self.programs.insert(program.id, program.clone());
        }
    }

    fn record(&mut self, bytes: &[u8]) -> Option<Call> {
        let bytes = frame::used(bytes)?;
        let head = frame::record_head(bytes)?;
        let phase = match head.phase {
            record::PHASE_ENTRY => Phase::Entry,
            record::PHASE_RETURN => Phase::Return,
            _ => return None,
        };
        let fields = self.fields(&head, bytes)?;
        let program = self.programs.get(&head.program);
        Some(Call {
            pid: head.pid,
            tid: head.tid,
            page: head.page,
            slot: head.slot,
            phase,
            ts_ns: head.ts_ns,
            entry_cycles: head.entry_cycles,
            return_cycles: head.return_cycles,
            outcome: outcome(&head, phase, program),
            fields,
            program: head.program,
        })
    }

    /// A frame that a walk found. `None` if the record is too short, or of an unknown function or outcome.
    fn frame_walked(&mut self, bytes: &[u8]) -> Option<Frame> {
        let bytes = frame::used(bytes)?;
        let fields = self.fields(&frame::record_head(bytes)?, bytes)?;
        let head: FrameWalked =
            bytemuck::pod_read_unaligned(bytes.get(..size_of::<FrameWalked>())?);
        let function = match head.function {
            FUNCTION_OTHER => None,
            number => Some(Function::from_number(number)?),
        };
        (head.outcome <= OUTCOME_DEEP).then_some(Frame {
            pid: head.pid,
            tid: head.tid,
            function,
            entry_ns: head.entry_ns,
            outcome: head.outcome,
            order: head.order,
            frame: head.frame,
            instruction: head.instruction,
            program: head.program,
            fields,
        })
    }

    /// The fields of a record with this head; `None` if it is too short for them.
    fn fields(&mut self, head: &MethodCalled, bytes: &[u8]) -> Option<Vec<Value>> {
        let program = self.programs.get(&head.program);
        let mut fields = Vec::new();
        if head.program != 0 && program.is_none() {
            self.errors.programs += 1;
        }
        if let (Some(program), true) = (program, head.class != CLASS_BARE) {
            let scalars = frame::record_fields(bytes)?;
            let blob = bytes
                .get(size_of::<MethodCalled>() + size_of::<Fields>()..)
                .unwrap_or_default();
            let count = usize::from(head.field_count)
                .min(FIELDS)
                .min(program.fields.len());
            fields.reserve(count);
            for index in 0..count {
                let shape = program.fields[index].shape;
                let value = field(scalars.status[index], scalars.values[index], shape, blob);
                self.errors.fields += u64::from(value.is_none());
                fields.push(value.unwrap_or(Value::Absent(STATUS_FAULT)));
            }
        }
        Some(fields)
    }
}

/// A call of a driver function; `None` if the record is too short, or of an unknown function or phase.
fn driver_call(bytes: &[u8]) -> Option<DriverCall> {
    let record: DriverCalled =
        bytemuck::pod_read_unaligned(bytes.get(..size_of::<DriverCalled>())?);
    let function = Function::from_number(record.function)?;
    let phase = match record.phase {
        record::PHASE_ENTRY => Phase::Entry,
        record::PHASE_RETURN => Phase::Return,
        _ => return None,
    };
    let ended = phase == Phase::Return;
    let has_out = matches!(
        function,
        Function::StreamEndCapture | Function::GraphInstantiate
    );
    Some(DriverCall {
        pid: record.pid,
        tid: record.tid,
        library: record.library,
        function,
        phase,
        entry_ns: record.entry_ns,
        ts_ns: record.ts_ns,
        args: record.args,
        result: ended.then_some(record.result as i32),
        out: (ended && has_out && record.result as i32 == 0).then_some(record.out),
        totals: record.totals,
    })
}

fn outcome(head: &MethodCalled, phase: Phase, program: Option<&Program>) -> Outcome {
    match (phase, head.result, program) {
        (Phase::Entry, ..) => Outcome::Pending,
        (Phase::Return, 0, _) => Outcome::Raised,
        (_, result, Some(program)) if result == program.none => Outcome::None,
        (_, result, Some(program)) if result == program.true_ => Outcome::True,
        (_, result, Some(program)) if result == program.false_ => Outcome::False,
        (_, result, _) => Outcome::Object(result),
    }
}

/// One field; `None` if it points outside the blob.
fn field(status: u8, value: u64, shape: Shape, blob: &[u8]) -> Option<Value> {
    match status {
        STATUS_OK | STATUS_TRUNCATED => {}
        STATUS_NONE => return Some(Value::None),
        other => return Some(Value::Absent(other)),
    }
    let at = value as u32 as usize;
    Some(match shape {
        Shape::Int => Value::Int(value as i64),
        Shape::Bool => Value::Bool(value != 0),
        Shape::Float => Value::Float(f64::from_bits(value)),
        Shape::Address => Value::Address(value),
        Shape::Str | Shape::Bytes => Value::Str(text(blob, at)?),
        Shape::Ints => {
            let (head, items) = collection(blob, at, 8)?;
            Value::Ints(
                items
                    .chunks_exact(8)
                    .map(|item| word(item) as i64)
                    .collect(),
                head.total,
            )
        }
        Shape::Addresses => {
            let (head, items) = collection(blob, at, 8)?;
            Value::Addresses(items.chunks_exact(8).map(word).collect(), head.total)
        }
        Shape::Pairs => {
            let (head, items) = collection(blob, at, 16)?;
            let pairs = items
                .chunks_exact(16)
                .map(|item| (word(&item[..8]), word(&item[8..]) as i64));
            Value::Pairs(pairs.collect(), head.total)
        }
        Shape::Strs => {
            let (head, items) = collection(blob, at, STRING_SIZE)?;
            let texts: Option<Vec<_>> = items
                .chunks_exact(STRING_SIZE)
                .map(|item| text(item, 0))
                .collect();
            Value::Strs(texts?, head.total)
        }
        Shape::Tensor => tensor(blob, at)?,
    })
}

/// A string of the blob: a byte of length, then up to 63 bytes.
fn text(blob: &[u8], at: usize) -> Option<String> {
    let len = usize::from(*blob.get(at)?);
    if len >= STRING_SIZE {
        return None;
    }
    let start = at.checked_add(1)?;
    let bytes = blob.get(start..start.checked_add(len)?)?;
    Some(String::from_utf8_lossy(bytes).into_owned())
}

/// A collection's head and the bytes of its items.
fn collection(blob: &[u8], at: usize, item: usize) -> Option<(CollectionHead, &[u8])> {
    let start = at.checked_add(size_of::<CollectionHead>())?;
    let mut head: CollectionHead = bytemuck::pod_read_unaligned(blob.get(at..start)?);
    if head.stored > path::ITEMS {
        return None;
    }
    let end = start.checked_add(head.stored as usize * item)?;
    let items = blob.get(start..end)?;
    head.total = head.total.max(head.stored);
    Some((head, items))
}

/// A tensor's head and its numbers.
fn tensor(blob: &[u8], at: usize) -> Option<Value> {
    let start = at.checked_add(size_of::<TensorHead>())?;
    let head: TensorHead = bytemuck::pod_read_unaligned(blob.get(at..start)?);
    let width = match head.width {
        4 | 8 => head.width as usize,
        _ => return None,
    };
    let bytes = blob.get(start..start.checked_add((head.stored as usize).checked_mul(width)?)?)?;
    let number = |item: &[u8]| match item.try_into() {
        Ok(four) => i64::from(i32::from_ne_bytes(four)),
        Err(_) => word(item) as i64,
    };
    Some(Value::Tensor {
        items: bytes.chunks_exact(width).map(number).collect(),
        total: head.total.max(head.stored),
        columns: head.columns,
    })
}

fn word(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_ne_bytes)
}
