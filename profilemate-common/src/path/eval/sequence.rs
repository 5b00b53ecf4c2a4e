//! Pointers at known places: slots and cells, items of tuples and lists.

use super::{Machine, Next};
use crate::path::Op;
use crate::python::{LIST_ITEMS, OB_SIZE, OB_TYPE, TYPE_FLAGS};
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

/// `CODE_TUPLE_ITEM` and `CODE_LIST_ITEM`: `flag` is the kind that the object must be of; the items begin at `items`
/// in the object, or (0) where a list's pointer says.
#[inline(always)]
pub(super) fn item<M: Machine>(machine: &M, op: &Op, object: u64, flag: u64, items: u64) -> Next {
    let Some(type_) = machine.read::<u64>(object.wrapping_add(OB_TYPE)) else {
        return Next::Fail(STATUS_FAULT);
    };
    if machine.read_or_zero::<u64>(type_.wrapping_add(TYPE_FLAGS)) & flag == 0 {
        return Next::Fail(STATUS_WRONG_TYPE);
    }
    let size = machine.read_or_zero::<i64>(object.wrapping_add(OB_SIZE));
    if op.offset < 0 || i64::from(op.offset) >= size {
        return Next::Fail(STATUS_OUT_OF_RANGE);
    }
    let first = if items == 0 {
        machine.read_or_zero::<u64>(object.wrapping_add(LIST_ITEMS))
    } else {
        object.wrapping_add(items)
    };
    Next::ObjectAt(first.wrapping_add(8 * u64::from(op.offset as u32)))
}
