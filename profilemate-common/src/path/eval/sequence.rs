//! Pointers at known places: slots and cells, items of tuples and lists.

use super::{Machine, Next};
use crate::path::Op;
use crate::python::{LIST_ITEMS, OB_SIZE, OB_TYPE, TYPE_FLAGS};

const _: () = assert!(OB_SIZE == OB_TYPE + 8 && LIST_ITEMS == OB_SIZE + 8);
use crate::record::{STATUS_FAULT, STATUS_OUT_OF_RANGE, STATUS_WRONG_TYPE};

/// `CODE_LOAD`.
#[inline(always)]
pub(super) fn load<M: Machine>(machine: &M, op: &Op, object: u64) -> Next {
    if op.expected != 0 {
        match machine.read::<u64>(object.wrapping_add(OB_TYPE)) {
            None => return Next::Fail(STATUS_FAULT),
            Some(type_) if type_ != op.expected => return Next::Fail(STATUS_WRONG_TYPE),
            Some(_) => {}
        }
    }
    Next::ObjectAt(object.wrapping_add(i64::from(op.offset) as u64))
}

/// `CODE_TUPLE_ITEM` and `CODE_LIST_ITEM`: `kind` are the flag and the type that the object must be of; the items begin
/// at `items` in the object, or (0) where a list's pointer says.
#[inline(always)]
pub(super) fn item<M: Machine>(
    machine: &M,
    op: &Op,
    object: u64,
    [flag, type_of_kind]: [u64; 2],
    items: u64,
) -> Next {
    // Type, size, and a list's items.
    let Some([type_, size, list]) = machine.read::<[u64; 3]>(object.wrapping_add(OB_TYPE)) else {
        return Next::Fail(STATUS_FAULT);
    };
    if type_ != type_of_kind
        && machine.read_or_zero::<u64>(type_.wrapping_add(TYPE_FLAGS)) & flag == 0
    {
        return Next::Fail(STATUS_WRONG_TYPE);
    }
    if op.offset < 0 || i64::from(op.offset) >= size as i64 {
        return Next::Fail(STATUS_OUT_OF_RANGE);
    }
    let first = if items == 0 {
        list
    } else {
        object.wrapping_add(items)
    };
    Next::ObjectAt(first.wrapping_add(8 * u64::from(op.offset as u32)))
}
