//! Tensors of PyTorch in host memory.
//!
//! The object leads to a `c10::TensorImpl`, whose layout is C++ and promises nothing. So nothing of it is believed
//! before it has shown itself: its vtable must be the one that `libc10.so` of this process exports, and its pointer
//! back must lead to this very object. That pointer stands at one of two places (with or without one for its
//! interpreter before it), and what follows it is the same from PyTorch 2.6 to 2.13. Sizes, strides, number of
//! elements and the bytes of the storage must agree with one another; else the field is absent.

use super::{Machine, Next, Register};
use crate::path::{LEAF_ROWS, Op, TENSOR_BYTES};
use crate::python::KernelLayout;
use crate::record::{
    BLOB_SIZE, STATUS_ELSEWHERE, STATUS_FAULT, STATUS_NO_ROOM, STATUS_NONE, STATUS_OK,
    STATUS_TRUNCATED, STATUS_WRONG_TYPE,
};

/// From the end of the pointer back: number of dimensions, then sizes.
const SIZES: u64 = 0;
/// Strides.
const STRIDES: u64 = 48;
/// Offset into the storage, number of elements, then type and device.
const REST: u64 = 88;
/// `StorageImpl`: address, deleter, context, device, bytes.
const STORAGE: u64 = 16;
/// `c10::ScalarType::Int` and `Long`.
const TYPE_INT: u64 = 3;
const TYPE_LONG: u64 = 4;
/// Dimensions that `SizesAndStrides` keeps in place.
const DIMENSIONS: u64 = 5;
/// Elements, at most: what the head can tell, and no product overflows.
const ELEMENTS: u64 = 1 << 31;
/// Bytes of a tensor's head.
const HEAD: u64 = 16;

/// `LEAF_TENSOR` and `LEAF_ROWS`.
#[inline(always)]
pub(super) fn tensor<M: Machine>(
    machine: &mut M,
    op: &Op,
    layout: &KernelLayout,
    object: u64,
) -> Next {
    if object == layout.none {
        return Next::Fail(STATUS_NONE);
    }
    let impl_ = machine.read_or_zero::<u64>(object.wrapping_add(i64::from(op.offset) as u64));
    let Some([vtable, _, storage]) = machine.read::<[u64; 3]>(impl_) else {
        return Next::Fail(STATUS_FAULT);
    };
    let [newer, older] = machine.read_or_zero::<[u64; 2]>(impl_.wrapping_add(48));
    let mut at = impl_.wrapping_add(56);
    if newer != object {
        at = impl_.wrapping_add(64);
    }
    if vtable != op.expected || (newer != object && older != object) {
        return Next::Fail(STATUS_WRONG_TYPE);
    }
    let [dimensions, rows, columns] = machine.read_or_zero::<[u64; 3]>(at.wrapping_add(SIZES));
    if dimensions == 0 || dimensions > DIMENSIONS || rows > ELEMENTS {
        return Next::Fail(STATUS_WRONG_TYPE);
    }
    if op.leaf == LEAF_ROWS {
        return Next::Value(rows);
    }
    let [row, column] = machine.read_or_zero::<[u64; 2]>(at.wrapping_add(STRIDES));
    let [offset, count, type_] = machine.read_or_zero::<[u64; 3]>(at.wrapping_add(REST));
    let (rows, columns, row, column) = if dimensions == 1 {
        (1, rows, 0, row)
    } else {
        (rows, columns, row, column)
    };
    if dimensions > 2 || columns > ELEMENTS {
        return Next::Fail(STATUS_WRONG_TYPE);
    }
    // A dimension of length one has any stride.
    let contiguous = (column == 1 || columns == 1) && (row == columns || rows == 1);
    let scalar = type_ & 0xffff;
    if count != rows.wrapping_mul(columns)
        || count > ELEMENTS
        || !(contiguous || count == 0)
        || (scalar != TYPE_INT && scalar != TYPE_LONG)
    {
        return Next::Fail(STATUS_WRONG_TYPE);
    }
    let [data, _, _, device, bytes] =
        machine.read_or_zero::<[u64; 5]>(storage.wrapping_add(STORAGE));
    // Type and index of a device; that of the tensor is optional, and must be there.
    if type_ >> 16 & 0xff != 0 || type_ >> 32 & 0xff != 1 || device & 0xff != 0 {
        return Next::Fail(STATUS_ELSEWHERE);
    }
    let width = if scalar == TYPE_INT { 2 } else { 3 };
    if offset > ELEMENTS || bytes < (offset + count) << width {
        return Next::Fail(STATUS_WRONG_TYPE);
    }
    let from = data.wrapping_add(offset << width);
    store(machine, from, count, columns, width)
}

/// Copies `count` numbers of `1 << width` bytes into the blob.
#[inline(always)]
fn store<M: Machine>(machine: &mut M, from: u64, count: u64, columns: u64, width: u64) -> Next {
    let head = machine.get(Register::Cursor);
    if head > BLOB_SIZE as u64 / 2 - 8 - HEAD {
        return Next::Fail(STATUS_NO_ROOM);
    }
    let stored = count.min(u64::from(TENSOR_BYTES) >> width);
    machine.set_blob(head, stored | count << 32);
    machine.set_blob(head + 8, 1 << width | columns << 32);
    if stored > 0 && !machine.copy_much_to_blob(head + HEAD, stored << width, from) {
        return Next::Fail(STATUS_FAULT);
    }
    // The cursor stays a multiple of 8.
    machine.set(
        Register::Cursor,
        head + HEAD + (((stored << width) + 7) & !7),
    );
    let status = if stored < count {
        STATUS_TRUNCATED
    } else {
        STATUS_OK
    };
    Next::Finish(head, status)
}
