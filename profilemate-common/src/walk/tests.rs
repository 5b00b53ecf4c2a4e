//! Walks over made-up memory: the layouts of all versions, stacks that change under the walk, and noise.

use super::{
    FRAMES, LocalWalker, NO_OFFSET, OUTCOME_CHANGED, OUTCOME_DEEP, OUTCOME_FAULT, OUTCOME_FOUND,
    OUTCOME_NO_STATE, OUTCOME_NONE, OUTCOME_OTHER_THREAD, StackLayout, TOLD, Walked,
};
use crate::memory::Memory;
use crate::path::{CODE_LEAF, CODE_LOCAL, LEAF_INT, NO_INDEX, Op, Program};
use crate::python::{INT_TAG, KernelLayout};
use crate::record::{CLASS_FIELDS, STATUS_CHANGED, STATUS_OK, STATUS_UNSET, STATUS_WRONG_TYPE};
use bytemuck::{Pod, Zeroable as _};
use proptest::prelude::*;
use std::boxed::Box;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::vec::Vec;

const THREAD: u64 = 0x7000_0000;
const STATE: u64 = 0x1_0000;
const CFRAME: u64 = 0x2_0000;
const INT: u64 = 0x3_0000;
const CODE: u64 = 0x5_0000;
const OTHER_CODE: u64 = 0x6_0000;

/// Memory that becomes another after a number of reads.
struct Image {
    words: BTreeMap<u64, u64>,
    later: BTreeMap<u64, u64>,
    reads: Cell<u32>,
    change_after: u32,
}

impl Memory for Image {
    fn read<T: Pod>(&self, address: u64) -> Option<T> {
        self.reads.set(self.reads.get() + 1);
        let changed = self.reads.get() > self.change_after;
        let mut value = T::zeroed();
        for (index, byte) in bytemuck::bytes_of_mut(&mut value).iter_mut().enumerate() {
            let at = address.checked_add(index as u64)?;
            let later = self.later.get(&(at & !7)).filter(|_| changed);
            let word = later.or_else(|| self.words.get(&(at & !7)))?;
            *byte = word.to_ne_bytes()[(at & 7) as usize];
        }
        Some(value)
    }
}

/// The layouts of 3.10, 3.11, 3.12 and 3.14.
fn layouts() -> [StackLayout; 4] {
    let newest = StackLayout {
        slot: 0x328,
        thread_id: 152,
        state_frame: 72,
        cframe_frame: NO_OFFSET,
        frame_head: 0,
        code_word: 0,
        previous_word: 1,
        frame_locals: 80,
        frame_instruction: 56,
        number: 3,
        task_pointer: 0,
    };
    [
        StackLayout {
            thread_id: 176,
            state_frame: 24,
            frame_head: 24,
            code_word: 1,
            previous_word: 0,
            frame_locals: 352,
            frame_instruction: 96,
            ..newest
        },
        StackLayout {
            state_frame: 56,
            cframe_frame: 8,
            frame_head: 32,
            previous_word: 2,
            frame_locals: 72,
            ..newest
        },
        StackLayout {
            thread_id: 136,
            state_frame: 56,
            cframe_frame: 0,
            frame_locals: 72,
            ..newest
        },
        newest,
    ]
}

fn objects() -> KernelLayout {
    KernelLayout {
        int: INT_TAG,
        type_int: INT,
        none: 0x9_0000,
        ..KernelLayout::zeroed()
    }
}

/// A thread whose frames run `codes`, the innermost first; each frame's variable 0 is `value`.
fn image(layout: &StackLayout, codes: &[u64], value: u64) -> Image {
    let mut words = BTreeMap::new();
    words.insert(THREAD + layout.slot as u64, STATE);
    words.insert(STATE + u64::from(layout.thread_id), THREAD);
    let at = |index: usize| {
        if index < codes.len() {
            0x100_0000 + 0x1000 * index as u64
        } else {
            0
        }
    };
    if layout.cframe_frame == NO_OFFSET {
        words.insert(STATE + u64::from(layout.state_frame), at(0));
    } else {
        words.insert(STATE + u64::from(layout.state_frame), CFRAME);
        words.insert(CFRAME + u64::from(layout.cframe_frame), at(0));
    }
    for (index, code) in codes.iter().enumerate() {
        let head = at(index) + u64::from(layout.frame_head);
        for word in 0..3 {
            words.insert(head + 8 * word, 0xdead_0000);
        }
        words.insert(head + 8 * u64::from(layout.code_word), *code);
        words.insert(head + 8 * u64::from(layout.previous_word), at(index + 1));
        words.insert(at(index) + u64::from(layout.frame_instruction), 0x4242);
        words.insert(at(index) + u64::from(layout.frame_locals), value);
    }
    for (object, number) in [(0xa_0000, 7), (0xb_0000, 9)] {
        for (index, word) in [1, INT, 1 << 3, number].into_iter().enumerate() {
            words.insert(object + 8 * index as u64, word);
        }
    }
    Image {
        words,
        later: BTreeMap::new(),
        reads: Cell::new(0),
        change_after: u32::MAX,
    }
}

fn program() -> Program {
    let blank = Op {
        index: NO_INDEX,
        hint: NO_INDEX,
        ..Op::zeroed()
    };
    let mut program = Program {
        id: 5,
        op_count: 2,
        field_count: 1,
        class: CLASS_FIELDS.into(),
        ..Program::zeroed()
    };
    program.ops[0] = Op {
        code: CODE_LOCAL,
        index: 0,
        ..blank
    };
    program.ops[1] = Op {
        code: CODE_LEAF,
        leaf: LEAF_INT,
        ..blank
    };
    program
}

fn walk(image: Image, layout: &StackLayout, last: bool) -> Vec<Walked> {
    let program = program();
    let mut told = Vec::new();
    let find = |code| (code == CODE).then_some((&program, last));
    LocalWalker::new(image).walk(THREAD, layout, &objects(), find, |walked| {
        told.push(walked);
    });
    told
}

#[test]
fn a_frame_is_found_in_every_layout() {
    for layout in layouts() {
        let told = walk(
            image(&layout, &[OTHER_CODE, CODE, OTHER_CODE], 0xa_0000),
            &layout,
            true,
        );
        assert_eq!(told.len(), 1);
        let head = told[0].head;
        assert_eq!(
            (
                head.outcome,
                head.depth,
                head.order,
                head.program,
                head.number
            ),
            (OUTCOME_FOUND, 1, 0, 5, 3)
        );
        assert_eq!((head.code, head.instruction), (CODE, 0x4242));
        assert_eq!(
            (told[0].fields.status[0], told[0].fields.values[0]),
            (STATUS_OK, 7)
        );
    }
}

#[test]
fn a_variable_s_tag_is_taken_off_and_a_number_is_no_object() {
    let layout = layouts()[3];
    for (reference, status) in [
        (0xa_0000, STATUS_OK),
        (0xa_0001, STATUS_OK),
        (0, STATUS_UNSET),
        (1, STATUS_UNSET),
        (0xa_0003, STATUS_WRONG_TYPE),
    ] {
        let told = walk(image(&layout, &[CODE | 1], reference), &layout, true);
        assert_eq!(told[0].fields.status[0], status, "{reference:#x}");
    }
}

#[test]
fn several_frames_are_told_from_the_innermost_on() {
    let layout = layouts()[1];
    let told = walk(image(&layout, &[CODE; 9], 0xa_0000), &layout, false);
    let orders: Vec<u32> = told.iter().map(|walked| walked.head.order).collect();
    assert_eq!(orders, (0..TOLD).collect::<Vec<_>>());
    let told = walk(
        image(&layout, &[CODE, OTHER_CODE], 0xa_0000),
        &layout,
        false,
    );
    assert_eq!(
        told.len(),
        1,
        "the end of the stack is told only if nothing else was"
    );
}

#[test]
fn why_no_frame_is_found_is_told() {
    let layout = layouts()[2];
    let outcome = |image: Image| walk(image, &layout, true)[0].head.outcome;
    let whole = || image(&layout, &[OTHER_CODE; 4], 0);
    assert_eq!(outcome(whole()), OUTCOME_NONE);
    assert_eq!(outcome(image(&layout, &[], 0)), OUTCOME_NONE);
    let deep = [OTHER_CODE; FRAMES as usize + 1];
    assert_eq!(outcome(image(&layout, &deep, 0)), OUTCOME_DEEP);
    let mut changed = whole();
    changed.words.insert(THREAD + 0x328, 0);
    assert_eq!(outcome(changed), OUTCOME_NO_STATE);
    let mut changed = whole();
    changed.words.insert(STATE + 136, THREAD + 64);
    assert_eq!(outcome(changed), OUTCOME_OTHER_THREAD);
    let mut changed = whole();
    changed.words.remove(&0x100_1000);
    assert_eq!(outcome(changed), OUTCOME_FAULT);
    let mut round = whole();
    // The last frame was called by the first one.
    round.words.insert(0x100_3000 + 8, 0x100_0000);
    assert_eq!(outcome(round), OUTCOME_DEEP);
}

proptest! {
    /// Whatever changes at whatever moment: the walk tells the value from before, the one from after, or none.
    #[test]
    fn a_change_under_the_walk_is_never_a_wrong_number(
        layout in 0_usize..4,
        after in 0_u32..80,
        what in 0_usize..5,
    ) {
        let layout = layouts()[layout];
        let mut image = image(&layout, &[OTHER_CODE, CODE], 0xa_0000);
        image.change_after = after;
        let frame = 0x100_1000;
        match what {
            // Another object in the variable.
            0 => { image.later.insert(frame + u64::from(layout.frame_locals), 0xb_0000); }
            // The object is freed, and the allocator writes over it.
            1 => { image.later.insert(0xa_0000 + 24, 0xffff_ffff); image.later.insert(0xa_0000 + 8, 0); }
            // The frame is left, and another one is entered at its place.
            2 => {
                image.later.insert(frame + u64::from(layout.frame_head) + 8 * u64::from(layout.code_word), OTHER_CODE);
                image.later.insert(frame + u64::from(layout.frame_locals), 0xc_0000);
            }
            // The thread runs on.
            3 => { image.later.insert(frame + u64::from(layout.frame_instruction), 0x4250); }
            // The thread ends.
            _ => { image.later.insert(THREAD + layout.slot as u64, 0); }
        }
        let told = walk(image, &layout, true);
        prop_assert_eq!(told.len(), 1);
        let walked = told[0];
        if walked.head.outcome == OUTCOME_FOUND {
            let field = (walked.fields.status[0], walked.fields.values[0]);
            let right = [(STATUS_OK, 7), (STATUS_OK, 9), (STATUS_CHANGED, 0)];
            prop_assert!(right.contains(&field) || field.0 != STATUS_OK, "{:?}", field);
        } else {
            prop_assert!(walked.head.outcome <= OUTCOME_DEEP);
            prop_assert!(walked.head.outcome == OUTCOME_CHANGED || walked.head.program == 0);
        }
    }

    /// Noise in the place of a stack ends every walk.
    #[test]
    fn noise_ends_every_walk(seed in any::<u64>(), layout in 0_usize..4) {
        struct Noise(u64);
        impl Memory for Noise {
            fn read<T: Pod>(&self, address: u64) -> Option<T> {
                let mut value = T::zeroed();
                for (index, byte) in bytemuck::bytes_of_mut(&mut value).iter_mut().enumerate() {
                    *byte = (address.wrapping_add(index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.0)
                        .to_ne_bytes()[5];
                }
                Some(value)
            }
        }
        let program = program();
        let mut told = 0;
        let mut walker = Box::new(LocalWalker::new(Noise(seed)));
        walker.walk(seed, &layouts()[layout], &objects(), |_| Some((&program, false)), |_| told += 1);
        prop_assert!((1..=TOLD + 1).contains(&told));
    }
}
