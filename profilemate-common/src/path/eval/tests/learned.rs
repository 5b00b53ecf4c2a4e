//! What operations have learned changes nothing but the number of reads: whatever happens between two events.

use super::super::{Call, LocalMachine};
use super::{BLANK, INT, LIST, Words, constant, int, layout, leaf, program, world};
use crate::memory::Memory;
use crate::path::{
    CODE_ATTRIBUTE, CODE_COLLECT, CODE_KEPT, CODE_LEAF, ELEMENT_ATTRIBUTE, LEAF_INT, Op, Program,
};
use crate::python::{
    FLAG_HEAP_TYPE, FLAG_INLINE_VALUES, FLAG_MANAGED_DICT, INSTANCE_INLINE, INSTANCE_TAGGED,
    KernelLayout, TYPE_BASICSIZE, TYPE_FLAGS, TYPE_VERSION,
};
use crate::record::{STATUS_OK, STATUS_UNSET};
use bytemuck::Pod;
use proptest::prelude::*;
use std::boxed::Box;
use std::cell::Cell;
use std::vec::Vec;

const NAMES: u64 = 5;
const CLASSES: u64 = 3;
const INSTANCES: u64 = 4;

const fn name(index: u64) -> u64 {
    0x100_0000 + 0x100 * index
}
const fn class(index: u64) -> u64 {
    0x200_0000 + 0x1000 * index
}
const fn keys(index: u64) -> u64 {
    0x300_0000 + 0x1000 * index
}
const fn instance(index: u64) -> u64 {
    0x400_0000 + 0x1000 * index
}
const fn number(index: u64) -> u64 {
    0x500_0000 + 0x100 * index
}
const ITEMS_AT: u64 = 0x600_0000;

/// A class: the order of its keys, the size of its instances without values, and its version.
#[derive(Clone, Debug)]
struct Class {
    order: Vec<u64>,
    words: u64,
    version: u64,
}

/// An instance: its class, its attributes by name (a number, or not set), and whether its values are valid.
#[derive(Clone, Debug)]
struct Instance {
    class: u64,
    attributes: Vec<Option<u64>>,
    valid: bool,
}

#[derive(Clone, Debug)]
struct Model {
    inline: bool,
    classes: Vec<Class>,
    instances: Vec<Instance>,
    process: u32,
    next_version: u64,
}

/// What may happen between two events.
#[derive(Clone, Debug)]
enum Change {
    /// An attribute is set, or deleted.
    Set(u64, u64, Option<u64>),
    /// An instance becomes one of another class.
    Class(u64, u64),
    /// A class is collected, and another one comes to lie where it lay, its keys too.
    Replace(u64, Vec<u64>, u64),
    /// A class has no version, as one that was just changed.
    Versionless(u64),
    /// An instance's attributes move into a dictionary, or back.
    Valid(u64, bool),
    /// The process forks, and the child gives the parent's next version to a class of its own.
    Fork(u64, Vec<u64>),
}

fn order() -> impl Strategy<Value = Vec<u64>> {
    Just((0..NAMES).collect::<Vec<u64>>()).prop_shuffle()
}

fn value() -> impl Strategy<Value = Option<u64>> {
    prop::option::weighted(0.9, 0..50_u64)
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0..INSTANCES, 0..NAMES, value()).prop_map(|(at, name, to)| Change::Set(at, name, to)),
        (0..INSTANCES, 0..CLASSES).prop_map(|(at, to)| Change::Class(at, to)),
        (0..CLASSES, order(), 2..5_u64).prop_map(|(at, to, size)| Change::Replace(at, to, size)),
        (0..CLASSES).prop_map(Change::Versionless),
        (0..INSTANCES, any::<bool>()).prop_map(|(at, to)| Change::Valid(at, to)),
        (0..CLASSES, order()).prop_map(|(at, to)| Change::Fork(at, to)),
    ]
}

fn model() -> impl Strategy<Value = Model> {
    let class = (order(), 2..5_u64);
    let instance = (
        0..CLASSES,
        prop::collection::vec(value(), NAMES as usize),
        prop::bool::weighted(0.9),
    );
    (
        any::<bool>(),
        prop::collection::vec(class, CLASSES as usize),
        prop::collection::vec(instance, INSTANCES as usize),
    )
        .prop_map(|(inline, classes, instances)| Model {
            inline,
            classes: (200..)
                .zip(classes)
                .map(|(version, (order, words))| Class {
                    order,
                    words,
                    version,
                })
                .collect(),
            instances: instances
                .into_iter()
                .map(|(class, attributes, valid)| Instance {
                    class,
                    attributes,
                    valid,
                })
                .collect(),
            process: 77,
            next_version: 1000,
        })
}

impl Model {
    fn layout(&self) -> KernelLayout {
        KernelLayout {
            instance: if self.inline {
                INSTANCE_INLINE
            } else {
                INSTANCE_TAGGED
            },
            values_first: if self.inline { 8 } else { 0 },
            type_list: LIST,
            ..layout()
        }
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Set(at, name, to) => {
                self.instances[*at as usize].attributes[*name as usize] = *to;
            }
            Change::Class(at, to) => self.instances[*at as usize].class = *to,
            Change::Replace(at, order, words) => {
                self.classes[*at as usize] = Class {
                    order: order.clone(),
                    words: *words,
                    version: self.next_version,
                };
                self.next_version += 1;
            }
            Change::Versionless(at) => self.classes[*at as usize].version = 0,
            Change::Valid(at, to) => self.instances[*at as usize].valid = *to,
            Change::Fork(at, order) => {
                // The version stays as it is; in the parent it was another class's.
                self.classes[*at as usize].order.clone_from(order);
                self.process += 1;
            }
        }
    }

    /// The memory that this makes.
    fn words(&self) -> Words {
        let mut words = world();
        for at in 0..NAMES {
            words.put(name(at), &[1, 0, 4, at * 11 + 3, 0]);
        }
        for value in 0..50 {
            int(&mut words, number(value), value);
        }
        for (at, class_) in (0..).zip(&self.classes) {
            let (own, own_keys) = (class(at), keys(at));
            let flags = FLAG_MANAGED_DICT | FLAG_INLINE_VALUES | FLAG_HEAP_TYPE;
            words.put(own + TYPE_FLAGS, &[flags]);
            words.put(own + TYPE_BASICSIZE, &[8 * class_.words]);
            words.put(own + TYPE_VERSION, &[class_.version]);
            words.put(own + 880, &[own_keys]);
            let mut indices = [0xff_u8; 8];
            let mut entries = Vec::new();
            for (index, key) in (0_u8..).zip(&class_.order) {
                let hash = key * 11 + 3;
                let (mut slot, mut perturb) = (hash & 7, hash);
                while indices[slot as usize] != 0xff {
                    perturb >>= 5;
                    slot = (slot * 5 + perturb + 1) & 7;
                }
                indices[slot as usize] = index;
                entries.extend([name(*key), 0]);
            }
            words.put(own_keys, &[1, 3 | 3 << 8 | 2 << 16, 0, NAMES]);
            words.put(own_keys + 32, &[u64::from_ne_bytes(indices)]);
            words.put(own_keys + 40, &entries);
        }
        for (at, own) in (0..).zip(&self.instances) {
            let class_ = &self.classes[own.class as usize];
            let values: Vec<u64> = class_
                .order
                .iter()
                .map(|name| own.attributes[*name as usize].map_or(0, number))
                .collect();
            let address = instance(at);
            words.put(address - 32, &[0, 0, 0, 0, 1, class(own.class)]);
            if self.inline {
                let behind = address + 8 * class_.words;
                words.put(behind, &[u64::from(own.valid) << 24]);
                words.put(behind + 8, &values);
            } else {
                let apart = address + 0x800;
                words.put(apart, &values);
                let tagged = if own.valid { apart - 1 } else { 0 };
                words.put(address - 24, &[tagged]);
            }
        }
        let items: Vec<u64> = (0..INSTANCES).map(instance).collect();
        words.put(ITEMS_AT, &[1, LIST, INSTANCES, ITEMS_AT + 0x100]);
        words.put(ITEMS_AT + 0x100, &items);
        words
    }
}

fn attribute(key: u64) -> Op {
    Op {
        code: CODE_ATTRIBUTE,
        key: name(key),
        ..BLANK
    }
}

/// For each instance two attributes, the second from where the first one is kept; then one attribute of all instances.
fn reads(first: u64, second: u64) -> Program {
    let mut ops = Vec::new();
    for at in 0..INSTANCES {
        ops.push(Op {
            keep: 1,
            ..constant(instance(at))
        });
        ops.extend([attribute(first), leaf(LEAF_INT)]);
        ops.push(Op {
            code: CODE_KEPT,
            ..BLANK
        });
        ops.extend([attribute(second), leaf(LEAF_INT)]);
    }
    ops.push(constant(ITEMS_AT));
    ops.push(Op {
        code: CODE_COLLECT,
        leaf: LEAF_INT,
        element: ELEMENT_ATTRIBUTE,
        ..attribute(first)
    });
    program(&ops, 2 * INSTANCES as u32 + 1)
}

/// Memory that counts its reads.
struct Counted(Words, Cell<u32>);

impl Memory for Counted {
    fn read<T: Pod>(&self, address: u64) -> Option<T> {
        self.1.set(self.1.get() + 1);
        self.0.read(address)
    }
}

proptest! {
    #[test]
    fn what_was_learned_never_gives_another_value(
        mut model in model(),
        changes in prop::collection::vec(change(), 1..30),
        first in 0..NAMES,
        second in 0..NAMES,
    ) {
        let program = reads(first, second);
        let layout = model.layout();
        let mut learning = Box::new(LocalMachine::new(Words::default()));
        for change in &changes {
            let call = Call { process: model.process, ..Call::default() };
            learning.memory = model.words();
            let used = learning.run_again(&call, &program, &layout);
            let mut fresh = Box::new(LocalMachine::new(model.words()));
            prop_assert_eq!(used, fresh.run(&call, &program, &layout));
            prop_assert_eq!(learning.fields, fresh.fields);
            prop_assert_eq!(&learning.blob[..used], &fresh.blob[..used]);
            for (field, own) in model.instances.iter().flat_map(|own| [(first, own), (second, own)]).enumerate() {
                let (name, own) = own;
                let expected = own.attributes[name as usize].filter(|_| own.valid);
                let found = (learning.fields.status[field], learning.fields.values[field]);
                prop_assert_eq!(found, expected.map_or((STATUS_UNSET, 0), |value| (STATUS_OK, value)));
            }
            model.apply(change);
        }
    }
}

#[test]
fn a_second_event_reads_less() {
    let model = Model {
        inline: false,
        classes: (0..CLASSES)
            .map(|at| Class {
                order: (0..NAMES).collect(),
                words: 2,
                version: 200 + at,
            })
            .collect(),
        instances: (0..INSTANCES)
            .map(|at| Instance {
                class: at % CLASSES,
                attributes: (0..NAMES).map(Some).collect(),
                valid: true,
            })
            .collect(),
        process: 7,
        next_version: 1000,
    };
    let ops = [constant(instance(0)), attribute(3), leaf(LEAF_INT)];
    let (program, layout) = (program(&ops, 1), model.layout());
    let mut machine = Box::new(LocalMachine::new(Counted(model.words(), Cell::new(0))));
    let mut reads = Vec::new();
    for process in [7, 7, 8, 7] {
        let call = Call {
            process,
            ..Call::default()
        };
        machine.run_again(&call, &program, &layout);
        assert_eq!(
            (machine.fields.status[0], machine.fields.values[0]),
            (STATUS_OK, 3)
        );
        reads.push(machine.memory.1.take());
    }
    // Head, version, value, number; what a process has learned does not hold in its children.
    assert_eq!(reads[1], 4);
    assert!(reads[0] > reads[1] && reads[2] > reads[1] && reads[3] > reads[1]);
}

#[test]
fn what_fields_have_in_common_fails_for_all_of_them() {
    let mut words = world();
    int(&mut words, number(1), 5);
    let kept = Op {
        code: CODE_KEPT,
        ..BLANK
    };
    let int = leaf(LEAF_INT);
    // The object can not be read; nothing was kept before; and a good one afterwards.
    let ops = [
        kept,
        int,
        constant(number(1)),
        int,
        constant(0x5555),
        Op {
            keep: 1,
            ..attribute(0)
        },
        attribute(1),
        int,
        kept,
        attribute(2),
        int,
        Op {
            keep: 1,
            ..constant(number(1))
        },
        int,
        kept,
        int,
    ];
    assert_eq!(INT, layout().type_int);
    let (machine, _) = super::run(&words, &ops, 6);
    let statuses = &machine.fields.status[..6];
    assert_ne!(statuses[0], STATUS_OK);
    assert_eq!(statuses[1], STATUS_OK);
    assert_ne!(statuses[2], STATUS_OK);
    assert_eq!(statuses[3], statuses[2]);
    assert_eq!(statuses[4..6], [STATUS_OK; 2]);
    assert_eq!(machine.fields.values[4..6], [5, 5]);
    assert_eq!(ops[3].code, CODE_LEAF);
}
