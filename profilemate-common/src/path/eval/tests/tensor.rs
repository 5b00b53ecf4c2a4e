//! Tensors, laid out as PyTorch 2.9 (pointer at 24, two words of Python) and 2.13 (pointer at 16, one) have them.

use super::{Words, constant, leaf, run, world};
use crate::path::{LEAF_ROWS, LEAF_TENSOR, Op, TENSOR_BYTES};
use crate::record::{
    STATUS_ELSEWHERE, STATUS_FAULT, STATUS_NONE, STATUS_OK, STATUS_TRUNCATED, STATUS_WRONG_TYPE,
};
use std::vec::Vec;

const OBJECT: u64 = 0x20_0000;
const IMPL: u64 = 0x21_0000;
const STORAGE: u64 = 0x22_0000;
const DATA: u64 = 0x23_0000;
const VTABLE: u64 = 0x24_0000;

/// What stands in the head of a tensor of `rows` by `columns` numbers, from its number of dimensions on.
#[derive(Clone, Copy)]
struct Shape {
    dimensions: u64,
    sizes: [u64; 2],
    strides: [u64; 2],
    offset: u64,
    count: u64,
    /// Type, device, its index, and whether there is one.
    kind: u64,
}

/// Two rows of three 32-bit integers.
const SMALL: Shape = Shape {
    dimensions: 2,
    sizes: [2, 3],
    strides: [3, 1],
    offset: 0,
    count: 6,
    kind: 0x0001_4101_ff00_0003,
};

fn memory(shape: Shape, newer: bool, device: u64, bytes: u64) -> Words {
    let mut words = world();
    let pointer = if newer { [IMPL, 0] } else { [0, IMPL] };
    words.put(OBJECT, &[2, 0x5_5555, pointer[0], pointer[1]]);
    let back = if newer { [OBJECT, 0] } else { [0x77, OBJECT] };
    words.put(IMPL, &[VTABLE, 1, STORAGE, 0, 0, 0, back[0], back[1]]);
    let at = IMPL + if newer { 56 } else { 64 };
    let Shape { sizes, strides, .. } = shape;
    words.put(at, &[shape.dimensions, sizes[0], sizes[1], 0, 0, 0]);
    words.put(at + 48, &[strides[0], strides[1], 0, 0, 0]);
    words.put(at + 88, &[shape.offset, shape.count, shape.kind]);
    words.put(STORAGE, &[0x99, 1, DATA, 0x88, DATA, device, bytes]);
    let numbers: Vec<u64> = (0..2048)
        .map(|pair| (2 * pair) | ((2 * pair + 1) << 32))
        .collect();
    words.put(DATA, &numbers);
    words
}

fn ops(newer: bool, leaf_code: u8) -> [Op; 2] {
    let tensor = Op {
        offset: if newer { 16 } else { 24 },
        expected: VTABLE,
        ..leaf(leaf_code)
    };
    [constant(OBJECT), tensor]
}

/// Status, then stored, total, width and columns, then the numbers as 32 bits each.
fn read(words: &Words, newer: bool) -> (u8, Vec<u32>) {
    let (machine, used) = run(words, &ops(newer, LEAF_TENSOR), 1);
    let words = machine.blob[..used]
        .chunks_exact(4)
        .map(|four| u32::from_ne_bytes(four.try_into().unwrap()));
    (machine.fields.status[0], words.collect())
}

#[test]
fn numbers_are_copied_row_by_row() {
    for newer in [true, false] {
        let words = memory(SMALL, newer, 0xff00, 24);
        assert_eq!(
            read(&words, newer),
            (STATUS_OK, [6, 6, 4, 3, 0, 1, 2, 3, 4, 5].to_vec())
        );
        let (machine, _) = run(&words, &ops(newer, LEAF_ROWS), 1);
        assert_eq!(
            (machine.fields.status[0], machine.fields.values[0]),
            (STATUS_OK, 2)
        );
    }
    let slice = Shape { offset: 4, ..SMALL };
    let (status, words) = read(&memory(slice, true, 0xff00, 40), true);
    assert_eq!((status, &words[4..]), (STATUS_OK, &[4, 5, 6, 7, 8, 9][..]));
}

#[test]
fn a_long_tensor_is_cut() {
    let long = Shape {
        sizes: [1500, 2],
        strides: [2, 1],
        count: 3000,
        ..SMALL
    };
    let (status, words) = read(&memory(long, true, 0xff00, 12_000), true);
    let kept = TENSOR_BYTES / 4;
    assert_eq!(
        (status, &words[..4]),
        (STATUS_TRUNCATED, &[kept, 3000, 4, 2][..])
    );
    assert_eq!(words.get(4 + kept as usize - 1), Some(&(kept - 1)));
}

#[test]
fn what_does_not_agree_is_not_believed() {
    let wrong = [
        Shape { count: 7, ..SMALL },
        Shape {
            dimensions: 3,
            ..SMALL
        },
        Shape {
            dimensions: 0,
            ..SMALL
        },
        Shape {
            strides: [1, 2],
            ..SMALL
        },
        Shape { offset: 1, ..SMALL },
        Shape {
            offset: u64::MAX,
            ..SMALL
        },
        // Floating point.
        Shape {
            kind: 0x0001_4101_ff00_0006,
            ..SMALL
        },
    ];
    for (index, shape) in wrong.into_iter().enumerate() {
        let (status, words) = read(&memory(shape, true, 0xff00, 24), true);
        assert_eq!((status, words.len()), (STATUS_WRONG_TYPE, 0), "{index}");
    }
    assert_eq!(
        read(&memory(SMALL, true, 0xff00, 23), true).0,
        STATUS_WRONG_TYPE
    );
    assert_eq!(
        read(&memory(SMALL, false, 0xff00, 24), true).0,
        STATUS_FAULT
    );
    let mut other = memory(SMALL, true, 0xff00, 24);
    other.put(IMPL + 48, &[OBJECT + 16]);
    assert_eq!(read(&other, true).0, STATUS_WRONG_TYPE, "the pointer back");
    let mut other = memory(SMALL, true, 0xff00, 24);
    other.put(IMPL, &[VTABLE + 8]);
    assert_eq!(read(&other, true).0, STATUS_WRONG_TYPE, "the vtable");
    let (machine, _) = run(
        &other,
        &[constant(super::NONE), ops(true, LEAF_TENSOR)[1]],
        1,
    );
    assert_eq!(machine.fields.status[0], STATUS_NONE);
}

#[test]
fn numbers_elsewhere_are_not_read_but_counted() {
    let there = Shape {
        kind: 0x0001_0001_0003,
        ..SMALL
    };
    let words = memory(there, true, 1, 24);
    assert_eq!(read(&words, true), (STATUS_ELSEWHERE, Vec::new()));
    let (machine, _) = run(&words, &ops(true, LEAF_ROWS), 1);
    assert_eq!(
        (machine.fields.status[0], machine.fields.values[0]),
        (STATUS_OK, 2)
    );
    assert_eq!(read(&memory(SMALL, true, 1, 24), true).0, STATUS_ELSEWHERE);
}
