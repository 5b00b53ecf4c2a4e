//! Where a path begins: the call's arguments and its result.

use super::{Call, KEYWORD, Machine, Next, Register};
use crate::path::Op;
use crate::python::{KernelLayout, OB_SIZE};
use crate::record::{
    PHASE_RETURN, STATUS_BAD_PROGRAM, STATUS_FAULT, STATUS_NO_RESULT, STATUS_NOT_PASSED, STATUS_OK,
    STATUS_UNSET, STATUS_WRONG_TYPE,
};
use crate::walk::TAG;

/// Keyword arguments that are searched, at most.
const KEYWORDS: u64 = 16;

/// `CODE_ARGUMENT`.
#[inline(always)]
pub(super) fn argument<M: Machine>(machine: &mut M, op: &Op, call: &Call) -> Next {
    if op.index < call.nargs {
        return Next::ObjectAt(call.args.wrapping_add(8 * u64::from(op.index)));
    }
    if call.kwnames == 0 || op.key == 0 {
        return Next::Fail(STATUS_NOT_PASSED);
    }
    let names = machine.read_or_zero::<u64>(call.kwnames.wrapping_add(OB_SIZE));
    machine.set(
        Register::Mask,
        if names > KEYWORDS { KEYWORDS } else { names },
    );
    machine.set(Register::Slot, 0);
    Next::Stage(KEYWORD)
}

/// Compares one keyword name.
#[inline(always)]
pub(super) fn keyword<M: Machine>(
    machine: &mut M,
    op: &Op,
    call: &Call,
    layout: &KernelLayout,
) -> Next {
    let slot = machine.get(Register::Slot);
    if slot >= machine.get(Register::Mask) {
        return Next::Fail(STATUS_NOT_PASSED);
    }
    let names = call.kwnames.wrapping_add(u64::from(layout.tuple_items));
    if machine.read_or_zero::<u64>(names.wrapping_add(8 * slot)) == op.key {
        let position = u64::from(call.nargs).wrapping_add(slot);
        return Next::ObjectAt(call.args.wrapping_add(position.wrapping_mul(8)));
    }
    machine.set(Register::Slot, slot + 1);
    Next::Stage(KEYWORD)
}

/// `CODE_KEPT`: the object that two fields have in common, or why the first of them did not reach it.
#[inline(always)]
pub(super) fn kept<M: Machine>(machine: &M) -> Next {
    match (
        machine.get(Register::Kept),
        machine.get(Register::Failure) as u8,
    ) {
        (0, STATUS_OK) => Next::Fail(STATUS_BAD_PROGRAM),
        (0, status) => Next::Fail(status),
        (object, _) => Next::Object(object),
    }
}

/// `CODE_RESULT`.
#[inline(always)]
pub(super) fn result(call: &Call) -> Next {
    if call.phase == PHASE_RETURN && call.result != 0 {
        Next::Object(call.result)
    } else {
        Next::Fail(STATUS_NO_RESULT)
    }
}

/// `CODE_LOCAL`.
#[inline(always)]
pub(super) fn local<M: Machine>(machine: &M, op: &Op, call: &Call) -> Next {
    let at = call.args.wrapping_add(8 * u64::from(op.index));
    let Some(reference) = machine.read::<u64>(at) else {
        return Next::Fail(STATUS_FAULT);
    };
    if reference & TAG == TAG {
        // A small number instead of an object (3.14); never the value of a variable.
        return Next::Fail(STATUS_WRONG_TYPE);
    }
    match reference & !TAG {
        0 => Next::Fail(STATUS_UNSET),
        object => Next::Object(object),
    }
}
