//! Collections: the items of a list, tuple, dictionary or set, one after the other into the blob.

use super::leaf::start_bases;
use super::{
    ATTRIBUTE, ITEM, LEAF_STAGE_INT, LOAD, Machine, Next, Register, attribute, leaf_stage,
};
use crate::path::{
    CODE_ATTRIBUTE, ELEMENT_ATTRIBUTE, ELEMENT_LOAD, ITEMS, ITEMS_TOTAL, LEAF_BYTES, LEAF_KEY_INT,
    LEAF_STR, Op,
};
use crate::python::{
    DICT_USED, FLAG_DICT, FLAG_LIST, FLAG_TUPLE, KernelLayout, LIST_ITEMS, OB_SIZE, OB_TYPE,
    SET_MASK, SET_TABLE, SET_USED, TYPE_FLAGS,
};
use crate::record::{
    BLOB_SIZE, STATUS_BAD_PROGRAM, STATUS_FAULT, STATUS_NO_ROOM, STATUS_NONE, STATUS_OK,
    STATUS_TRUNCATED, STATUS_WRONG_TYPE, STRING_SIZE,
};

/// An element is one pointer.
const PAIR_NONE: u64 = 0;
/// An element is a key and a value; it is deleted if either is null.
const PAIR_VALUE: u64 = 1;
/// An element is a key and its hash; it is empty if the key is null, deleted if the hash is -1.
const PAIR_HASH: u64 = 2;
/// Bytes of a collection's head.
const HEAD: u64 = 8;

const _: () = assert!(CODE_ATTRIBUTE as u64 == ATTRIBUTE);
const _: () = assert!(DICT_USED == OB_SIZE && LIST_ITEMS == OB_SIZE + 8);

/// Where a collection's elements lie.
#[derive(Clone, Copy)]
pub(super) struct Elements {
    first: u64,
    stride: u64,
    pair: u64,
    apart: u64,
    count: u64,
    total: u64,
}

/// `CODE_COLLECT`.
#[inline(always)]
pub(super) fn collect<M: Machine>(machine: &mut M, layout: &KernelLayout, object: u64) -> Next {
    if object == layout.none {
        return Next::Fail(STATUS_NONE);
    }
    // Type; `ob_size` or `ma_used`; a list's items.
    let Some([type_, total, items]) = machine.read::<[u64; 3]>(object.wrapping_add(OB_TYPE)) else {
        return Next::Fail(STATUS_FAULT);
    };
    let flags = if type_ == layout.type_list {
        FLAG_LIST
    } else {
        machine.read_or_zero::<u64>(type_.wrapping_add(TYPE_FLAGS))
    };
    if flags & (FLAG_LIST | FLAG_TUPLE | FLAG_DICT) == 0 {
        return start_bases(machine, type_);
    }
    let mut elements = Elements {
        first: 0,
        stride: 8,
        pair: PAIR_NONE,
        apart: 0,
        count: total,
        total,
    };
    if flags & FLAG_LIST != 0 {
        elements.first = items;
    } else if flags & FLAG_TUPLE != 0 {
        elements.first = object.wrapping_add(u64::from(layout.tuple_items));
    } else {
        let [keys, values] = attribute::parts(machine, layout, object);
        let table = attribute::table(machine, layout, keys);
        elements.first = table.entries;
        elements.stride = table.stride;
        elements.pair = PAIR_VALUE;
        elements.apart = if values == 0 {
            0
        } else {
            values.wrapping_add(u64::from(layout.values_first))
        };
        elements.count = table.used;
    }
    Next::Elements(elements)
}

/// `CODE_COLLECT` of a `set` or `frozenset`.
#[inline(always)]
pub(super) fn set<M: Machine>(machine: &M, object: u64) -> Next {
    let elements = Elements {
        first: machine.read_or_zero::<u64>(object.wrapping_add(SET_TABLE)),
        stride: 16,
        pair: PAIR_HASH,
        apart: 0,
        count: machine
            .read_or_zero::<u64>(object.wrapping_add(SET_MASK))
            .wrapping_add(1),
        total: machine.read_or_zero::<u64>(object.wrapping_add(SET_USED)),
    };
    Next::Elements(elements)
}

/// Begins to read a collection.
#[inline(always)]
pub(super) fn start<M: Machine>(machine: &mut M, op: &Op, elements: &Elements) -> Next {
    if op.leaf == LEAF_KEY_INT && elements.pair != PAIR_VALUE {
        return Next::Fail(STATUS_WRONG_TYPE);
    }
    let head = machine.get(Register::Cursor);
    if head > BLOB_SIZE as u64 - HEAD {
        return Next::Fail(STATUS_NO_ROOM);
    }
    // A size is 3, 4 or 6 as a shift, so that no division is needed.
    let shift = if op.leaf == LEAF_STR || op.leaf == LEAF_BYTES {
        STRING_SIZE.trailing_zeros()
    } else if op.leaf == LEAF_KEY_INT {
        4
    } else {
        3
    };
    let room = (BLOB_SIZE as u64 - HEAD - head) >> shift;
    let budget = u64::from(ITEMS_TOTAL).saturating_sub(machine.get(Register::Spent));
    let limit = room.min(budget).min(u64::from(ITEMS));
    machine.set(Register::Elements, elements.first);
    machine.set(Register::Stride, elements.stride);
    machine.set(Register::Pair, elements.pair);
    machine.set(Register::Apart, elements.apart);
    machine.set(Register::Position, 0);
    machine.set(Register::Count, elements.count);
    machine.set(Register::Stored, 0);
    machine.set(Register::Limit, limit);
    machine.set(Register::Total, elements.total.min(u64::from(u32::MAX)));
    let leaf = leaf_stage(op.leaf);
    let (item, after) = if op.leaf == LEAF_KEY_INT {
        (LEAF_STAGE_INT, LEAF_STAGE_INT)
    } else if op.element == ELEMENT_ATTRIBUTE {
        (ATTRIBUTE, leaf)
    } else if op.element == ELEMENT_LOAD {
        (LOAD, leaf)
    } else {
        (leaf, leaf)
    };
    if op.element > ELEMENT_LOAD {
        return Next::Fail(STATUS_BAD_PROGRAM);
    }
    machine.set(Register::ItemStage, item);
    machine.set(Register::After, after);
    machine.set(Register::InItem, 1);
    // Should the steps run out, what is stored by then counts.
    let field = machine.get(Register::Field);
    machine.set_value(field, head);
    machine.set_status(field, STATUS_TRUNCATED);
    set_head(machine);
    machine.set(Register::Cursor, head + HEAD);
    Next::Stage(ITEM)
}

/// Writes the collection's head: items stored, items there are.
#[inline(always)]
fn set_head<M: Machine>(machine: &mut M) {
    let stored = (machine.get(Register::Stored) as u32).to_ne_bytes();
    let total = (machine.get(Register::Total) as u32).to_ne_bytes();
    let word = [
        stored[0], stored[1], stored[2], stored[3], total[0], total[1], total[2], total[3],
    ];
    let head = machine.get(Register::Start);
    machine.set_blob(head, u64::from_ne_bytes(word));
}

/// Takes the next element.
#[inline(always)]
pub(super) fn item<M: Machine>(machine: &mut M, op: &Op) -> Next {
    let position = machine.get(Register::Position);
    let stored = machine.get(Register::Stored);
    if position >= machine.get(Register::Count) || stored >= machine.get(Register::Limit) {
        return end(machine, stored);
    }
    machine.set(Register::Position, position + 1);
    let stride = machine.get(Register::Stride);
    let address = machine
        .get(Register::Elements)
        .wrapping_add(position.wrapping_mul(stride));
    let pair = machine.get(Register::Pair);
    let read = if pair == PAIR_NONE {
        machine.read::<u64>(address).map(|key| [key, 1])
    } else {
        machine.read::<[u64; 2]>(address)
    };
    let Some([key, mut other]) = read else {
        return Next::Fail(STATUS_FAULT);
    };
    let apart = machine.get(Register::Apart);
    if apart != 0 {
        other = machine.read_or_zero::<u64>(apart.wrapping_add(position.wrapping_mul(8)));
    }
    if pair == PAIR_HASH {
        other = other.wrapping_add(1);
    }
    if key == 0 || other == 0 {
        return Next::Stage(ITEM);
    }
    let mut object = key;
    if op.leaf == LEAF_KEY_INT {
        let cursor = machine.get(Register::Cursor);
        machine.set_blob(cursor, key);
        machine.set(Register::Cursor, cursor + 8);
        object = other;
    }
    machine.set(Register::Object, object);
    Next::Taken
}

/// An item has been stored; the next one begins at `cursor`.
#[inline(always)]
pub(super) fn stored<M: Machine>(machine: &mut M, cursor: u64) -> u64 {
    machine.set(Register::Cursor, cursor);
    let stored = machine.get(Register::Stored) + 1;
    machine.set(Register::Stored, stored);
    set_head(machine);
    ITEM
}

/// Ends a collection.
#[inline(always)]
fn end<M: Machine>(machine: &mut M, stored: u64) -> Next {
    machine.set(Register::InItem, 0);
    machine.set(Register::After, super::NEXT);
    let spent = machine.get(Register::Spent) + stored;
    machine.set(Register::Spent, spent);
    let status = if stored < machine.get(Register::Total) {
        STATUS_TRUNCATED
    } else {
        STATUS_OK
    };
    let head = machine.get(Register::Start);
    Next::Finish(head, status)
}
