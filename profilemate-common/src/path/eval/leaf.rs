//! Scalars: what a field, or an item of a collection, ends with.

use super::{BASE, Machine, Next, Register, collection};
use crate::path::{CODE_COLLECT, Op};
use crate::python::{
    BYTES_DATA, FLAG_BYTES, FLAG_DICT, FLAG_INT, FLAG_LIST, FLAG_STR, FLAG_TUPLE, FLOAT_VALUE,
    INT_DIGITS, INT_TAG, KernelLayout, OB_SIZE, OB_TYPE, SET_USED, TYPE_BASE, TYPE_FLAGS,
};
use crate::record::{
    BLOB_SIZE, STATUS_FAULT, STATUS_NO_ROOM, STATUS_NONE, STATUS_OK, STATUS_TOO_BIG,
    STATUS_WRONG_TYPE, STRING_SIZE,
};

const _: () = assert!(FLOAT_VALUE == OB_TYPE + 8 && SET_USED == OB_TYPE + 16);

/// Bits of one digit of an `int`.
const DIGIT_BITS: u32 = 30;
/// The digit's bits, set.
const DIGIT: u64 = (1 << DIGIT_BITS) - 1;
/// `PyASCIIObject.state`: the characters follow the head.
const STATE_COMPACT: u32 = 1 << 5;
/// `PyASCIIObject.state`: all characters are ASCII.
const STATE_ASCII: u32 = 1 << 6;
/// Types of a class's line of bases that are compared, at most: itself and three bases.
const BASES: u64 = 4;

/// The object is `None`: the field's status, or a wrong item.
#[inline(always)]
pub(super) fn none<M: Machine>(machine: &M) -> Next {
    if machine.get(Register::InItem) == 0 {
        Next::Fail(STATUS_NONE)
    } else {
        Next::Fail(STATUS_WRONG_TYPE)
    }
}

/// `LEAF_INT`.
#[inline(always)]
pub(super) fn int<M: Machine>(machine: &M, layout: &KernelLayout, object: u64) -> Next {
    // Type, sign and size, and two digits. An int of one digit ends four bytes earlier, inside its allocation.
    let Some([type_, head, digits]) = machine.read::<[u64; 3]>(object.wrapping_add(OB_TYPE)) else {
        return Next::Fail(STATUS_FAULT);
    };
    if type_ != layout.type_int
        && machine.read_or_zero::<u64>(type_.wrapping_add(TYPE_FLAGS)) & FLAG_INT == 0
    {
        return Next::Fail(STATUS_WRONG_TYPE);
    }
    let (count, negative) = if layout.int == INT_TAG {
        (head >> 3, head >> 1 & 1)
    } else {
        let sign = head >> 63;
        ((head ^ sign.wrapping_neg()).wrapping_add(sign), sign)
    };
    let mut magnitude = digits & DIGIT;
    if count != 1 {
        if count == 0 {
            return Next::Value(0);
        }
        magnitude |= (digits >> 32 & DIGIT) << DIGIT_BITS;
        if count != 2 {
            let third = u64::from(machine.read_or_zero::<u32>(object.wrapping_add(INT_DIGITS + 8)));
            magnitude |= third << (2 * DIGIT_BITS);
            // 8 is 2^63, which only a negative number may reach, and only just.
            if count != 3 || third > 8 || magnitude > (i64::MAX as u64) + negative {
                return Next::Fail(STATUS_TOO_BIG);
            }
        }
    }
    Next::Value((magnitude ^ negative.wrapping_neg()).wrapping_add(negative))
}

/// `LEAF_BOOL`.
#[inline(always)]
pub(super) fn bool(layout: &KernelLayout, object: u64) -> Next {
    if object == layout.true_ {
        Next::Value(1)
    } else if object == layout.false_ {
        Next::Value(0)
    } else {
        Next::Fail(STATUS_WRONG_TYPE)
    }
}

/// `LEAF_FLOAT`: a `float`, or a direct subclass.
#[inline(always)]
pub(super) fn float<M: Machine>(machine: &M, layout: &KernelLayout, object: u64) -> Next {
    let Some([type_, bits]) = machine.read::<[u64; 2]>(object.wrapping_add(OB_TYPE)) else {
        return Next::Fail(STATUS_FAULT);
    };
    if type_ != layout.type_float
        && machine.read_or_zero::<u64>(type_.wrapping_add(TYPE_BASE)) != layout.type_float
    {
        return Next::Fail(STATUS_WRONG_TYPE);
    }
    Next::Value(bits)
}

/// `LEAF_LEN`.
#[inline(always)]
pub(super) fn len<M: Machine>(machine: &mut M, layout: &KernelLayout, object: u64) -> Next {
    // Type; `ob_size`, `ma_used` or `length`; a set's `used`. Every such object has room for the three.
    let Some([type_, size, used]) = machine.read::<[u64; 3]>(object.wrapping_add(OB_TYPE)) else {
        return Next::Fail(STATUS_FAULT);
    };
    if type_ == layout.type_list || type_ == layout.type_dict || type_ == layout.type_deque {
        return Next::Value(size);
    }
    if type_ == layout.type_set {
        return Next::Value(used);
    }
    let flags = machine.read_or_zero::<u64>(type_.wrapping_add(TYPE_FLAGS));
    if flags & (FLAG_LIST | FLAG_TUPLE | FLAG_DICT | FLAG_STR | FLAG_BYTES) != 0 {
        return Next::Value(size);
    }
    start_bases(machine, type_)
}

/// Begins the comparison of `type_` and its bases with the types that have no flag.
#[inline(always)]
pub(super) fn start_bases<M: Machine>(machine: &mut M, type_: u64) -> Next {
    machine.set(Register::Slot, type_);
    machine.set(Register::Tries, 0);
    Next::Stage(BASE)
}

/// Compares one type of the line of bases with `set`, `frozenset` and `deque`.
#[inline(always)]
pub(super) fn base<M: Machine>(
    machine: &mut M,
    op: &Op,
    layout: &KernelLayout,
    object: u64,
) -> Next {
    let type_ = machine.get(Register::Slot);
    let tries = machine.get(Register::Tries) + 1;
    if type_ == 0 || tries > BASES {
        return Next::Fail(STATUS_WRONG_TYPE);
    }
    let collecting = op.code == CODE_COLLECT && machine.get(Register::InItem) == 0;
    if type_ == layout.type_set || type_ == layout.type_frozenset {
        if collecting {
            return collection::set(machine, object);
        }
        return Next::ValueAt(object.wrapping_add(SET_USED));
    }
    if type_ == layout.type_deque && !collecting {
        return Next::ValueAt(object.wrapping_add(OB_SIZE));
    }
    machine.set(Register::Tries, tries);
    let base = machine.read_or_zero::<u64>(type_.wrapping_add(TYPE_BASE));
    machine.set(Register::Slot, base);
    Next::Stage(BASE)
}

/// `LEAF_STR`.
#[inline(always)]
pub(super) fn str<M: Machine>(machine: &M, layout: &KernelLayout, object: u64) -> Next {
    // Type, length, hash, and the state, which follows the hash in every version.
    let Some([type_, length, _, state]) = machine.read::<[u64; 4]>(object.wrapping_add(OB_TYPE))
    else {
        return Next::Fail(STATUS_FAULT);
    };
    if type_ != layout.type_str
        && machine.read_or_zero::<u64>(type_.wrapping_add(TYPE_FLAGS)) & FLAG_STR == 0
    {
        return Next::Fail(STATUS_WRONG_TYPE);
    }
    let state = state as u32;
    if state & STATE_ASCII == 0 {
        return Next::Fail(STATUS_WRONG_TYPE);
    }
    let data = if state & STATE_COMPACT != 0 {
        object.wrapping_add(u64::from(layout.str_ascii))
    } else {
        // An instance of a subclass has its characters elsewhere.
        machine.read_or_zero::<u64>(object.wrapping_add(u64::from(layout.str_compact)))
    };
    Next::Text { length, data }
}

/// `LEAF_BYTES`.
#[inline(always)]
pub(super) fn bytes<M: Machine>(machine: &M, object: u64) -> Next {
    let Some([type_, length]) = machine.read::<[u64; 2]>(object.wrapping_add(OB_TYPE)) else {
        return Next::Fail(STATUS_FAULT);
    };
    if machine.read_or_zero::<u64>(type_.wrapping_add(TYPE_FLAGS)) & FLAG_BYTES == 0 {
        return Next::Fail(STATUS_WRONG_TYPE);
    }
    Next::Text {
        length,
        data: object.wrapping_add(BYTES_DATA),
    }
}

/// Puts up to 63 characters into the blob.
#[inline(always)]
pub(super) fn text<M: Machine>(machine: &mut M, length: u64, data: u64) -> Next {
    let cursor = machine.get(Register::Cursor);
    if cursor > (BLOB_SIZE - STRING_SIZE) as u64 {
        return Next::Fail(STATUS_NO_ROOM);
    }
    let kept = if length > STRING_SIZE as u64 - 1 {
        STRING_SIZE as u64 - 1
    } else {
        length
    };
    machine.set_blob(
        cursor,
        u64::from_ne_bytes([kept as u8, 0, 0, 0, 0, 0, 0, 0]),
    );
    for word in 1..STRING_SIZE as u64 / 8 {
        machine.set_blob(cursor + 8 * word, 0);
    }
    if !machine.copy_to_blob(cursor, kept, data) {
        return Next::Fail(STATUS_FAULT);
    }
    let end = cursor + STRING_SIZE as u64;
    if machine.get(Register::InItem) != 0 {
        return Next::Stored(end);
    }
    machine.set(Register::Cursor, end);
    Next::Finish(cursor, STATUS_OK)
}
