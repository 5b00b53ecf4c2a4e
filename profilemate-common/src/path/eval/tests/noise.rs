//! Any program on any memory: nothing panics, nothing is written out of place.

use super::super::{Call, LocalMachine};
use super::{layout, program};
use crate::memory::Memory;
use crate::path::{NO_INDEX, OPS, Op};
use crate::python::KernelLayout;
use crate::record::{BLOB_SIZE, FIELDS, STATUS_ELSEWHERE, STATUS_TRUNCATED};
use bytemuck::Pod;
use proptest::prelude::*;
use std::boxed::Box;

/// Memory that answers every read with bytes made from the address: plausible nowhere, readable everywhere.
struct Noise(u64);

impl Memory for Noise {
    fn read<T: Pod>(&self, address: u64) -> Option<T> {
        let mut value = T::zeroed();
        for (index, byte) in bytemuck::bytes_of_mut(&mut value).iter_mut().enumerate() {
            let mixed = address
                .wrapping_add(index as u64)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                ^ self.0;
            *byte = (mixed >> 29) as u8 & (mixed >> 41) as u8;
        }
        (address & self.0 & 0x700 != 0x700).then_some(value)
    }
}

fn any_op() -> impl Strategy<Value = Op> {
    let index = prop_oneof![Just(NO_INDEX), 0..40_u32];
    (
        1..14_u8,
        0..12_u8,
        0..4_u8,
        index.clone(),
        index,
        any::<i16>(),
        any::<u16>(),
    )
        .prop_map(|(code, leaf, element, index, hint, offset, key)| Op {
            code,
            leaf,
            keep: (key >> 8 & 1) as u8,
            element,
            index,
            hint,
            offset: offset.into(),
            key: u64::from(key),
            expected: 0,
        })
}

proptest! {
    #[test]
    fn noise_harms_nobody(seed in any::<u64>(), ops in prop::collection::vec(any_op(), 1..OPS), old in any::<bool>()) {
        let mut machine = Box::new(LocalMachine::new(Noise(seed)));
        let keys_kind = if old { u32::MAX } else { 10 };
        let layout = KernelLayout { keys_kind, instance: (seed & 3) as u32, ..layout() };
        let call = Call { args: seed, nargs: (seed >> 60) as u32, kwnames: !seed, result: seed >> 8, phase: 1, process: 7 };
        let used = machine.run(&call, &program(&ops, FIELDS as u32), &layout);
        prop_assert!(used <= BLOB_SIZE);
        for (status, value) in machine.fields.status.iter().zip(machine.fields.values) {
            prop_assert!(*status <= STATUS_ELSEWHERE);
            if *status == STATUS_TRUNCATED {
                let at = value as usize;
                let stored = u32::from_ne_bytes(machine.blob[at..at + 4].try_into().unwrap()) as usize;
                prop_assert!(at + 8 + 8 * stored <= used);
            }
        }
    }
}
