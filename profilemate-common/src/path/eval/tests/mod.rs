//! The evaluator on made-up memory: layouts of which no interpreter may be at hand, and hostile contents.
//!
//! What real interpreters' objects give is tested where there are processes: in `profilemate-cli/src/attach/tests`.

use super::{Call, LocalMachine};
use crate::memory::Memory;
use crate::path::{
    CODE_ARGUMENT, CODE_ATTRIBUTE, CODE_COLLECT, CODE_CONSTANT, CODE_LEAF, CODE_TUPLE_ITEM,
    LEAF_INT, LEAF_STR, NO_INDEX, Op, Program,
};
use crate::python::{
    FLAG_HEAP_TYPE, FLAG_INLINE_VALUES, FLAG_LIST, FLAG_MANAGED_DICT, FLAG_STR, FLAG_TUPLE,
    INSTANCE_INLINE, INT_TAG, KernelLayout, TYPE_BASICSIZE, TYPE_FLAGS,
};
use crate::record::{
    CLASS_BLOB, STATUS_NO_ROOM, STATUS_OK, STATUS_TRUNCATED, STATUS_UNSET, STATUS_WRONG_TYPE,
};
use bytemuck::{Pod, Zeroable as _};
use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec::Vec;

mod learned;
mod noise;

/// Memory of which only some words are readable.
#[derive(Clone, Default)]
struct Words(BTreeMap<u64, u64>);

impl Words {
    fn put(&mut self, address: u64, words: &[u64]) {
        for (index, word) in words.iter().enumerate() {
            self.0.insert(address + 8 * index as u64, *word);
        }
    }
}

impl Memory for Words {
    fn read<T: Pod>(&self, address: u64) -> Option<T> {
        let mut value = T::zeroed();
        for (index, byte) in bytemuck::bytes_of_mut(&mut value).iter_mut().enumerate() {
            let at = address.checked_add(index as u64)?;
            *byte = self.0.get(&(at & !7))?.to_ne_bytes()[(at & 7) as usize];
        }
        Some(value)
    }
}

const NONE: u64 = 0x1_0000;
const INT: u64 = 0x2_0000;
const LIST: u64 = 0x3_0000;
const TUPLE: u64 = 0x4_0000;
const STR: u64 = 0x5_0000;
const CLASS: u64 = 0x6_0000;
const KEYS: u64 = 0x7_0000;
const NAME: u64 = 0x8_0000;
const OTHER_NAME: u64 = 0x8_1000;

/// As in CPython 3.14.
fn layout() -> KernelLayout {
    KernelLayout {
        instance: INSTANCE_INLINE,
        int: INT_TAG,
        dict_keys: 32,
        dict_values: 40,
        values_first: 8,
        keys_size: 9,
        keys_log2_size: 8,
        keys_kind: 10,
        keys_entries: 24,
        keys_indices: 32,
        tuple_items: 32,
        str_ascii: 40,
        str_compact: 56,
        str_state: 32,
        type_cached_keys: 880,
        str_hash: 24,
        none: NONE,
        type_int: INT,
        type_str: STR,
        ..KernelLayout::zeroed()
    }
}

/// Types, and the shared keys of one class whose attribute 1 is `NAME`.
fn world() -> Words {
    let mut words = Words::default();
    for (type_, flags) in [
        (LIST, FLAG_LIST),
        (TUPLE, FLAG_TUPLE),
        (STR, FLAG_STR),
        (
            CLASS,
            FLAG_MANAGED_DICT | FLAG_INLINE_VALUES | FLAG_HEAP_TYPE,
        ),
    ] {
        words.put(type_ + TYPE_FLAGS, &[flags]);
        words.put(type_ + TYPE_BASICSIZE, &[16]);
    }
    words.put(CLASS + 880, &[KEYS]);
    // Eight slots of one byte, split kind, two entries; slot 3 refers to entry 1.
    words.put(
        KEYS,
        &[
            1,
            3 | 3 << 8 | 2 << 16,
            0,
            2,
            0xffff_ffff_01ff_ffff,
            OTHER_NAME,
            0,
            NAME,
            0,
        ],
    );
    words.put(NAME, &[1, STR, 4, 3, 0]);
    words.put(OTHER_NAME, &[1, STR, 4, 4, 0]);
    words
}

/// An `int` of one digit at `address`.
fn int(words: &mut Words, address: u64, value: u64) {
    words.put(address, &[1, INT, 1 << 3, value]);
}

/// An instance of the class at `address` with `value` as attribute 1; its values are valid or not.
fn instance(words: &mut Words, address: u64, value: u64, valid: u64) {
    words.put(address - 32, &[0, 0, 0, 0, 1, CLASS, valid << 24, 0, value]);
}

const BLANK: Op = Op {
    code: 0,
    leaf: 0,
    keep: 0,
    element: 0,
    index: NO_INDEX,
    hint: NO_INDEX,
    offset: 0,
    key: 0,
    expected: 0,
};

fn constant(key: u64) -> Op {
    Op {
        code: CODE_CONSTANT,
        key,
        ..BLANK
    }
}

fn leaf(leaf: u8) -> Op {
    Op {
        code: CODE_LEAF,
        leaf,
        ..BLANK
    }
}

fn program(ops: &[Op], field_count: u32) -> Program {
    let mut program = Program {
        id: 1,
        class: CLASS_BLOB.into(),
        field_count,
        ..Program::zeroed()
    };
    program.ops[..ops.len()].copy_from_slice(ops);
    program.op_count = ops.len() as u32;
    program
}

fn run(words: &Words, ops: &[Op], field_count: u32) -> (Box<LocalMachine<Words>>, usize) {
    let mut machine = Box::new(LocalMachine::new(words.clone()));
    let used = machine.run(&Call::default(), &program(ops, field_count), &layout());
    (machine, used)
}

#[test]
fn an_inline_attribute_is_found_by_name_and_by_index() {
    let mut words = world();
    int(&mut words, 0x9_0000, 42);
    instance(&mut words, 0xa_0000, 0x9_0000, 1);
    let by_name = Op {
        code: CODE_ATTRIBUTE,
        key: NAME,
        ..BLANK
    };
    let by_index = Op {
        index: 1,
        expected: CLASS,
        ..by_name
    };
    let of_another = Op {
        index: 0,
        expected: TUPLE,
        ..by_name
    };
    for attribute in [by_name, by_index, of_another] {
        let (machine, _) = run(&words, &[constant(0xa_0000), attribute, leaf(LEAF_INT)], 1);
        assert_eq!(
            (machine.fields.status[0], machine.fields.values[0]),
            (STATUS_OK, 42),
            "{attribute:?}"
        );
    }
    let other = Op {
        code: CODE_ATTRIBUTE,
        key: OTHER_NAME,
        ..BLANK
    };
    let (machine, _) = run(&words, &[constant(0xa_0000), other, leaf(LEAF_INT)], 1);
    assert_eq!(
        machine.fields.status[0], STATUS_UNSET,
        "its hash leads to an empty slot"
    );
}

#[test]
fn values_that_are_not_valid_are_not_read() {
    let mut words = world();
    int(&mut words, 0x9_0000, 42);
    instance(&mut words, 0xa_0000, 0x9_0000, 0);
    let attribute = Op {
        code: CODE_ATTRIBUTE,
        key: NAME,
        index: 1,
        expected: CLASS,
        ..BLANK
    };
    let (machine, _) = run(&words, &[constant(0xa_0000), attribute, leaf(LEAF_INT)], 1);
    assert_eq!(machine.fields.status[0], STATUS_UNSET);
}

#[test]
fn a_tuple_of_3_14_has_its_hash_before_its_items() {
    let mut words = world();
    int(&mut words, 0x9_0000, 7);
    words.put(0xb_0000, &[1, TUPLE, 1, 0x9_9999, 0x9_0000]);
    let item = Op {
        code: CODE_TUPLE_ITEM,
        ..BLANK
    };
    let (machine, _) = run(&words, &[constant(0xb_0000), item, leaf(LEAF_INT)], 1);
    assert_eq!(
        (machine.fields.status[0], machine.fields.values[0]),
        (STATUS_OK, 7)
    );
}

#[test]
fn a_failed_field_does_not_touch_the_next_one() {
    let mut words = world();
    int(&mut words, 0x9_0000, 7);
    let unknown = Op { code: 200, ..BLANK };
    let good = [constant(0x9_0000), leaf(LEAF_INT)];
    let ops = [
        unknown,
        constant(1),
        leaf(LEAF_INT),
        good[0],
        good[1],
        constant(0x5555),
        leaf(LEAF_STR),
        good[0],
        good[1],
    ];
    let (machine, used) = run(&words, &ops, 4);
    assert_eq!(used, 0);
    assert_eq!(
        (machine.fields.status[1], machine.fields.values[1]),
        (STATUS_OK, 7)
    );
    assert_eq!(
        (machine.fields.status[3], machine.fields.values[3]),
        (STATUS_OK, 7)
    );
    assert_ne!(machine.fields.status[0], STATUS_OK);
    assert_ne!(machine.fields.status[2], STATUS_OK);
}

#[test]
fn an_item_that_can_not_be_read_makes_the_collection_absent_and_frees_its_room() {
    let mut words = world();
    int(&mut words, 0x9_0000, 7);
    words.put(0xb_0000, &[1, LIST, 2, 0xc_0000]);
    words.put(0xc_0000, &[0x9_0000, NONE]);
    words.put(NONE, &[1, 0, 0, 0]);
    let collect = Op {
        code: CODE_COLLECT,
        leaf: LEAF_INT,
        ..BLANK
    };
    let (machine, used) = run(
        &words,
        &[
            constant(0xb_0000),
            collect,
            constant(0x9_0000),
            leaf(LEAF_INT),
        ],
        2,
    );
    assert_eq!((machine.fields.status[0], used), (STATUS_WRONG_TYPE, 0));
    assert_eq!(
        (machine.fields.status[1], machine.fields.values[1]),
        (STATUS_OK, 7)
    );
}

#[test]
fn collections_share_one_budget() {
    let mut words = world();
    int(&mut words, 0x9_0000, 7);
    words.put(0xb_0000, &[1, LIST, 5000, 0xc_0000]);
    let items: Vec<u64> = std::iter::repeat_n(0x9_0000, 5000).collect();
    words.put(0xc_0000, &items);
    let collect = Op {
        code: CODE_COLLECT,
        leaf: LEAF_INT,
        ..BLANK
    };
    let one = [constant(0xb_0000), collect];
    let ops: Vec<Op> = std::iter::repeat_n(one, 3).flatten().collect();
    let (machine, used) = run(&words, &ops, 3);
    assert_eq!(machine.fields.status[..3], [STATUS_TRUNCATED; 3]);
    let stored = |field: usize| {
        let at = machine.fields.values[field] as usize;
        u32::from_ne_bytes(machine.blob[at..at + 4].try_into().unwrap())
    };
    assert_eq!([stored(0), stored(1), stored(2)], [1024, 512, 0]);
    assert_eq!(used, 3 * 8 + 1536 * 8);
}

#[test]
fn an_endless_set_of_empty_slots_ends_with_the_steps() {
    let mut words = world();
    words.put(0xb_0000, &[1, LIST, u64::MAX, 0xc_0000]);
    let zeros: Vec<u64> = std::iter::repeat_n(0, 50_000).collect();
    words.put(0xc_0000, &zeros);
    let collect = Op {
        code: CODE_COLLECT,
        leaf: LEAF_INT,
        ..BLANK
    };
    let (machine, used) = run(
        &words,
        &[
            constant(0xb_0000),
            collect,
            constant(0x9_0000),
            leaf(LEAF_INT),
        ],
        2,
    );
    assert_eq!((machine.fields.status[0], used), (STATUS_TRUNCATED, 8));
    assert_eq!(machine.fields.status[1], STATUS_NO_ROOM, "not reached");
}

#[test]
fn an_argument_is_found_by_position_or_by_name() {
    let mut words = world();
    int(&mut words, 0x9_0000, 7);
    int(&mut words, 0x9_1000, 8);
    words.put(0xd_0000, &[0x9_0000, 0x9_1000]);
    words.put(0xe_0000, &[1, TUPLE, 1, 0, NAME]);
    let call = Call {
        args: 0xd_0000,
        nargs: 1,
        kwnames: 0xe_0000,
        ..Call::default()
    };
    let mut machine = Box::new(LocalMachine::new(words));
    let argument = |index, key| Op {
        code: CODE_ARGUMENT,
        index,
        key,
        ..BLANK
    };
    let ops = [
        argument(0, 0),
        leaf(LEAF_INT),
        argument(1, NAME),
        leaf(LEAF_INT),
        argument(1, OTHER_NAME),
        leaf(LEAF_INT),
    ];
    machine.run(&call, &program(&ops, 3), &layout());
    assert_eq!(machine.fields.values[..2], [7, 8]);
    assert_eq!(
        machine.fields.status[..3],
        [STATUS_OK, STATUS_OK, crate::record::STATUS_NOT_PASSED]
    );
}
