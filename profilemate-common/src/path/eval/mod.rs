//! Runs a compiled [`Program`]: the same code in the kernel, in the tracer and in tests.
//!
//! The evaluator is one flat loop of small steps, because the kernel's verifier walks every iteration of every loop
//! and gives up after a million instructions. A step runs one operation, compares one key, or takes one item of a
//! collection. All state between two steps stands in [registers](Register), which the machine keeps in memory whose
//! contents the verifier does not track, so that all iterations look alike to it; and a run may stop after any step
//! and go on later, in another program.
//!
//! Invariants: no recursion, no slice indexing that can fail, no division, no read that is not checked by its
//! machine. A hostile target can make fields absent or wrong for its own objects, and nothing else.

mod argument;
mod attribute;
mod collection;
mod leaf;
mod learned;
mod local;
mod register;
mod sequence;
mod tensor;

pub use learned::Learned;
pub use local::LocalMachine;
pub use register::{REGISTERS, Register};

use crate::memory::Memory;
use crate::path::{
    CODE_ARGUMENT, CODE_ATTRIBUTE, CODE_COLLECT, CODE_CONSTANT, CODE_DICT_VALUE, CODE_KEPT,
    CODE_LEAF, CODE_LIST_ITEM, CODE_LOAD, CODE_LOCAL, CODE_RESULT, CODE_TUPLE_ITEM, LEAF_ADDRESS,
    LEAF_BOOL, LEAF_BYTES, LEAF_FLOAT, LEAF_INT, LEAF_IS_NONE, LEAF_LEN, LEAF_ROWS, LEAF_STR,
    LEAF_TENSOR, OPS, Op, Program,
};
use crate::python::{FLAG_LIST, FLAG_TUPLE, KernelLayout};
use crate::record::{
    FIELDS, STATUS_BAD_PROGRAM, STATUS_FAULT, STATUS_NO_ROOM, STATUS_OK, STATUS_UNSET,
};

/// Steps of one part of a run.
pub const STEPS: u32 = 64;
/// Parts of one event's run, at most. What is not reached keeps [`INITIAL_STATUS`].
pub const PARTS: u32 = 32;
/// Status that every field must have before [`start`]: nothing was read for lack of room or steps.
pub const INITIAL_STATUS: u8 = STATUS_NO_ROOM;

/// The call as the marker page's registers show it, or a frame as a walk of the stack found it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Call {
    /// Address of the arguments (`PyObject *` each): positional ones, then those by keyword. For a frame: of its local
    /// variables.
    pub args: u64,
    /// Positional arguments, `self` included.
    pub nargs: u32,
    /// The tuple of keyword names; 0 if there are none.
    pub kwnames: u64,
    /// The result; 0 if the call raised or has not been made.
    pub result: u64,
    /// One of `record::PHASE_*`.
    pub phase: u8,
    /// The process: what was learned in one does not hold in its forked children.
    pub process: u32,
}

/// What the evaluator runs on: foreign memory to read, registers to remember by, and a record to fill.
///
/// Offsets into the blob are multiples of 8 and, with what is written there, less than `BLOB_SIZE`.
pub trait Machine: Memory {
    /// Value of a register; all are 0 before [`start`].
    fn get(&self, register: Register) -> u64;
    /// Sets a register.
    fn set(&mut self, register: Register, value: u64);
    /// Sets the status of `field`, which is less than `FIELDS`.
    fn set_status(&mut self, field: u64, status: u8);
    /// Sets the value of `field`, which is less than `FIELDS`.
    fn set_value(&mut self, field: u64, value: u64);
    /// What operation `pc` of the program, which is `op`, has learned: one read of both halves.
    fn learned(&self, op: &Op, pc: u64) -> Learned;
    /// Remembers in operation `pc` of the program, less than `OPS`, where its key was found: one write.
    fn learn(&mut self, pc: u64, what: Learned);
    /// Sets eight bytes of the blob.
    fn set_blob(&mut self, offset: u64, word: u64);
    /// Copies `length` (at most 63) bytes of foreign memory to the blob at `offset + 1`; false if not readable.
    fn copy_to_blob(&mut self, offset: u64, length: u64, from: u64) -> bool;
    /// Copies `length` (at most [`TENSOR_BYTES`](crate::path::TENSOR_BYTES)) bytes of foreign memory to the blob at
    /// `offset`, which lies in its first half; false if not readable.
    fn copy_much_to_blob(&mut self, offset: u64, length: u64, from: u64) -> bool;
}

// Stages: what the next step does. An operation's stage is its code; the leaves and inner stages have their own.
/// Take the next operation.
const NEXT: u64 = 0;
/// Pass over the rest of a failed field. In the place of [`CODE_LEAF`], which is never a stage.
const SKIP: u64 = CODE_LEAF as u64;
/// Compare one keyword name.
const KEYWORD: u64 = 13;
/// Compare one slot of a dictionary's hash table.
const PROBE: u64 = 14;
/// Take the next item of a collection.
const ITEM: u64 = 15;
/// Compare a type and its bases with the types that have no flag.
const BASE: u64 = 16;
/// An operation that is not known.
const UNKNOWN: u64 = 17;
/// Stage of leaf 0; the others follow.
const LEAF: u64 = 18;

/// Prepares a run.
#[inline(always)]
pub fn start<M: Machine>(machine: &mut M) {
    machine.set(Register::Pc, u64::MAX);
}

/// Runs the next [`STEPS`] steps of `program` on `call`, which fills the machine's record. False if more are needed.
#[inline(always)]
pub fn run<M: Machine>(
    machine: &mut M,
    call: &Call,
    program: &Program,
    layout: &KernelLayout,
) -> bool {
    for _ in 0..STEPS {
        if !step(machine, call, program, layout) {
            return true;
        }
    }
    false
}

/// What a step leads to. Handlers return it and one place acts on it: so there is one copy of the code for each way
/// to go on, which keeps the kernel program small.
#[derive(Clone, Copy)]
enum Next {
    /// An item has been taken and is now the object.
    Taken,
    /// Go on with a stage.
    Stage(u64),
    /// The path has reached this object.
    Object(u64),
    /// The path has reached the object that the pointer at this address refers to.
    ObjectAt(u64),
    /// The value of the field, or of the current item.
    Value(u64),
    /// The value is the word at this address.
    ValueAt(u64),
    /// Up to 63 characters are the value.
    Text { length: u64, data: u64 },
    /// Look the key up in the dictionary that the pointer at this address refers to.
    DictAt(u64),
    /// Look the key up in this dictionary.
    Dict(u64),
    /// Look the key up in this keys object, with values apart at `values` unless 0.
    Keys { keys: u64, values: u64 },
    /// The key is in entry `index`, with `value` beside it.
    Entry { index: u64, value: u64 },
    /// The items of these elements are the value.
    Elements(collection::Elements),
    /// An item is in the blob, which is now used up to here.
    Stored(u64),
    /// The field ends with this value and status.
    Finish(u64, u8),
    /// The field is absent.
    Fail(u8),
}

/// One step; false after the last field. [`run`] makes many, and so does a kernel that has loops of its own.
#[inline(always)]
pub fn step<M: Machine>(
    machine: &mut M,
    call: &Call,
    program: &Program,
    layout: &KernelLayout,
) -> bool {
    let mut stage = machine.get(Register::Stage);
    let mut pc = machine.get(Register::Pc);
    if stage == NEXT {
        pc = pc.wrapping_add(1);
        machine.set(Register::Pc, pc);
    }
    if pc >= u64::from(program.op_count) || machine.get(Register::Field) >= FIELDS as u64 {
        return false;
    }
    let op = &program.ops[pc as usize & (OPS - 1)];
    if stage == NEXT {
        stage = entry_stage(op);
    }
    let mut next = Next::Taken;
    if stage == ITEM {
        next = collection::item(machine, op);
        stage = machine.get(Register::ItemStage);
    }
    if let Next::Taken = next {
        next = handle(machine, call, op, layout, stage, pc);
    }
    let stage = go_on(machine, op, layout, pc, next);
    machine.set(Register::Stage, stage);
    true
}

/// Does what `stage` says.
#[inline(always)]
fn handle<M: Machine>(
    machine: &mut M,
    call: &Call,
    op: &Op,
    layout: &KernelLayout,
    stage: u64,
    pc: u64,
) -> Next {
    let object = machine.get(Register::Object);
    match stage {
        ARGUMENT => argument::argument(machine, op, call),
        RESULT => argument::result(call),
        CONSTANT => Next::Object(op.key),
        KEPT => argument::kept(machine),
        ATTRIBUTE => attribute::attribute(machine, op, call, layout, object, pc),
        LOAD => sequence::load(machine, op, object),
        TUPLE_ITEM => sequence::item(
            machine,
            op,
            object,
            [FLAG_TUPLE, layout.type_tuple],
            u64::from(layout.tuple_items),
        ),
        LIST_ITEM => sequence::item(machine, op, object, [FLAG_LIST, layout.type_list], 0),
        DICT_VALUE => attribute::dict_value(machine, object),
        SKIP => skip(machine, op, pc),
        COLLECT => collection::collect(machine, layout, object),
        LOCAL => argument::local(machine, op, call),
        KEYWORD => argument::keyword(machine, op, call, layout),
        PROBE => attribute::probe(machine, op),
        BASE => leaf::base(machine, op, layout, object),
        LEAF_STAGE_ADDRESS => Next::Value(object),
        LEAF_STAGE_IS_NONE => Next::Value(u64::from(object == layout.none)),
        LEAF_STAGE_TENSOR | LEAF_STAGE_ROWS => tensor::tensor(machine, op, layout, object),
        LEAF_STAGE_INT..=LEAF_STAGE_BYTES if object == layout.none => leaf::none(machine),
        LEAF_STAGE_INT => leaf::int(machine, layout, object),
        LEAF_STAGE_BOOL => leaf::bool(layout, object),
        LEAF_STAGE_FLOAT => leaf::float(machine, layout, object),
        LEAF_STAGE_LEN => leaf::len(machine, layout, object),
        LEAF_STAGE_STR => leaf::str(machine, layout, object),
        LEAF_STAGE_BYTES => leaf::bytes(machine, object),
        _ => Next::Fail(STATUS_BAD_PROGRAM),
    }
}

/// The stage that reads the leaf `leaf`.
#[inline(always)]
fn leaf_stage(leaf: u8) -> u64 {
    if leaf > LEAF_ROWS {
        UNKNOWN
    } else {
        LEAF + u64::from(leaf)
    }
}

/// Acts on what a step led to; the next step's stage. Each way leads only to ways further down.
#[inline(always)]
fn go_on<M: Machine>(
    machine: &mut M,
    op: &Op,
    layout: &KernelLayout,
    pc: u64,
    mut next: Next,
) -> u64 {
    if let Next::DictAt(address) = next {
        next = match machine.read::<u64>(address) {
            None => Next::Fail(STATUS_FAULT),
            Some(0) => Next::Fail(STATUS_UNSET),
            Some(dict) => Next::Dict(dict),
        };
    }
    if let Next::Dict(dict) = next {
        next = attribute::in_dict(machine, layout, dict);
    }
    if let Next::Keys { keys, values } = next {
        next = attribute::search(machine, op, layout, keys, values, pc);
    }
    if let Next::Entry { index, value } = next {
        next = attribute::entry_value(machine, op, pc, index, value);
    }
    if let Next::ObjectAt(address) = next {
        next = match machine.read::<u64>(address) {
            None => Next::Fail(STATUS_FAULT),
            Some(0) => Next::Fail(STATUS_UNSET),
            Some(object) => Next::Object(object),
        };
    }
    if let Next::Elements(elements) = next {
        next = collection::start(machine, op, &elements);
    }
    if let Next::ValueAt(address) = next {
        next = match machine.read::<u64>(address) {
            None => Next::Fail(STATUS_FAULT),
            Some(word) => Next::Value(word),
        };
    }
    if let Next::Text { length, data } = next {
        next = leaf::text(machine, length, data);
    }
    if let Next::Value(value) = next {
        next = if machine.get(Register::InItem) == 0 {
            Next::Finish(value, STATUS_OK)
        } else {
            let cursor = machine.get(Register::Cursor);
            machine.set_blob(cursor, value);
            Next::Stored(cursor + 8)
        };
    }
    match next {
        Next::Stage(stage) => stage,
        Next::Object(object) => {
            machine.set(Register::Object, object);
            if op.keep != 0 {
                machine.set(Register::Kept, object);
            }
            machine.get(Register::After)
        }
        Next::Stored(cursor) => collection::stored(machine, cursor),
        Next::Finish(value, status) => finish(machine, value, status),
        Next::Fail(status) => fail(machine, status),
        // Every other way has been replaced by one of these above.
        _ => fail(machine, STATUS_BAD_PROGRAM),
    }
}

const ARGUMENT: u64 = CODE_ARGUMENT as u64;
const RESULT: u64 = CODE_RESULT as u64;
const CONSTANT: u64 = CODE_CONSTANT as u64;
const ATTRIBUTE: u64 = CODE_ATTRIBUTE as u64;
const LOAD: u64 = CODE_LOAD as u64;
const TUPLE_ITEM: u64 = CODE_TUPLE_ITEM as u64;
const LIST_ITEM: u64 = CODE_LIST_ITEM as u64;
const DICT_VALUE: u64 = CODE_DICT_VALUE as u64;
const COLLECT: u64 = CODE_COLLECT as u64;
const KEPT: u64 = CODE_KEPT as u64;
const LOCAL: u64 = CODE_LOCAL as u64;
const LEAF_STAGE_ADDRESS: u64 = LEAF + LEAF_ADDRESS as u64;
const LEAF_STAGE_INT: u64 = LEAF + LEAF_INT as u64;
const LEAF_STAGE_BOOL: u64 = LEAF + LEAF_BOOL as u64;
const LEAF_STAGE_FLOAT: u64 = LEAF + LEAF_FLOAT as u64;
const LEAF_STAGE_LEN: u64 = LEAF + LEAF_LEN as u64;
const LEAF_STAGE_STR: u64 = LEAF + LEAF_STR as u64;
const LEAF_STAGE_BYTES: u64 = LEAF + LEAF_BYTES as u64;
const LEAF_STAGE_IS_NONE: u64 = LEAF + LEAF_IS_NONE as u64;
const LEAF_STAGE_TENSOR: u64 = LEAF + LEAF_TENSOR as u64;
const LEAF_STAGE_ROWS: u64 = LEAF + LEAF_ROWS as u64;

/// The stage that begins `op`.
#[inline(always)]
fn entry_stage(op: &Op) -> u64 {
    let code = u64::from(op.code);
    if op.code == CODE_LEAF {
        leaf_stage(op.leaf)
    } else if code > LOCAL {
        UNKNOWN
    } else {
        code
    }
}

/// The field, with all its items, is absent for the reason `status`.
#[inline(always)]
fn fail<M: Machine>(machine: &mut M, status: u8) -> u64 {
    let field = machine.get(Register::Field);
    machine.set_status(field, status);
    machine.set(Register::Failure, u64::from(status));
    let start = machine.get(Register::Start);
    machine.set(Register::Cursor, start);
    machine.set(Register::InItem, 0);
    machine.set(Register::After, NEXT);
    SKIP
}

/// Ends the field.
#[inline(always)]
fn finish<M: Machine>(machine: &mut M, value: u64, status: u8) -> u64 {
    let field = machine.get(Register::Field);
    machine.set_value(field, value);
    machine.set_status(field, status);
    machine.set(Register::Field, field + 1);
    let cursor = machine.get(Register::Cursor);
    machine.set(Register::Start, cursor);
    NEXT
}

/// Passes over one operation of a failed field.
#[inline(always)]
fn skip<M: Machine>(machine: &mut M, op: &Op, pc: u64) -> Next {
    if op.keep != 0 {
        // What the fields that begin here have in common has failed for all of them.
        machine.set(Register::Kept, 0);
    }
    if op.code != CODE_LEAF && op.code != CODE_COLLECT {
        machine.set(Register::Pc, pc.wrapping_add(1));
        return Next::Stage(SKIP);
    }
    let field = machine.get(Register::Field);
    machine.set(Register::Field, field + 1);
    Next::Stage(NEXT)
}

#[cfg(test)]
mod tests;
