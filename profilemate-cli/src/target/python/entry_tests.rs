//! Ways in by recorded offsets, and threads that are left alone.

use std::cell::RefCell;
use std::collections::BTreeMap;

use bytemuck::Pod;
use profilemate_common::memory::Memory;

use super::*;
use crate::target::python::layout::offsets;
use crate::target::python::{Symbols, Version};

/// Words by address. What is not there cannot be read.
#[derive(Default)]
struct Words(RefCell<BTreeMap<u64, u64>>);

impl Words {
    fn set(&self, address: u64, value: u64) {
        self.0.borrow_mut().insert(address, value);
    }
}

impl Memory for Words {
    fn read<T: Pod>(&self, address: u64) -> Option<T> {
        let word = self.0.borrow().get(&address).copied()?;
        bytemuck::try_pod_read_unaligned(word.to_ne_bytes().get(..size_of::<T>())?).ok()
    }
}

impl ReadBytes for Words {
    fn read_bytes(&self, _: u64, _: &mut [u8]) -> bool {
        false
    }
}

const RUNTIME: u64 = 0x10_0000;
const INTERPRETER: u64 = 0x20_0000;
const STATE: u64 = 0x30_0000;

fn layout(minor: u8) -> Layout {
    let version = Version {
        minor,
        patch: Some(0),
    };
    let symbols = Symbols {
        runtime: RUNTIME,
        ..Symbols::default()
    };
    let mut layout = Layout::unchecked(offsets(minor).unwrap(), version, symbols);
    layout.interpreter = INTERPRETER;
    layout
}

/// What CPython 3.14.10 (Debian's) says of its interface, and a main thread of this process.
fn recorded() -> Words {
    let memory = Words::default();
    for (word, offset) in [
        (word::THREADS_MAIN, 7360),
        (word::BREAKER, 24),
        (word::SUPPORT, 304),
        (word::ENABLED, 8076),
        (word::PENDING, 0),
        (word::PATH, 4),
        (word::PATH_SIZE, 512),
    ] {
        memory.set(RUNTIME + word * 8, offset);
    }
    memory.set(INTERPRETER + 8076, 1);
    memory.set(INTERPRETER + 7360, STATE);
    memory.set(STATE + STATE_INTERPRETER, INTERPRETER);
    memory.set(STATE + 160, u64::from(std::process::id()));
    memory
}

fn way(memory: &Words) -> Result<RemoteEntry, EntryError> {
    remote(std::process::id(), &layout(14), memory)
}

#[test]
fn the_interface_of_3_14_is_found_by_its_own_offsets() {
    assert_eq!(
        way(&recorded()),
        Ok(RemoteEntry {
            pending: STATE + 304,
            path: STATE + 308,
            path_size: 512,
            breaker: STATE + 24,
        })
    );
}

#[test]
fn an_interface_that_is_switched_off_is_not_used() {
    let memory = recorded();
    memory.set(INTERPRETER + 8076, 0);
    assert_eq!(way(&memory), Err(EntryError::Disabled));
}

#[test]
fn an_interface_that_cannot_be_is_not_used() {
    for (address, value) in [
        (RUNTIME + word::PATH_SIZE * 8, 8),
        (RUNTIME + word::SUPPORT * 8, 1 << 40),
        (INTERPRETER + 8076, 7),
        (INTERPRETER + 7360, 0),
        (STATE + STATE_INTERPRETER, INTERPRETER + 8),
        (STATE + 160, 1),
    ] {
        let memory = recorded();
        memory.set(address, value);
        assert!(
            matches!(way(&memory), Err(EntryError::Odd { .. })),
            "{address:#x}"
        );
    }
}

#[test]
fn a_thread_is_left_alone_while_anything_is_to_be_done_in_it() {
    for minor in 10..=13 {
        let layout = layout(minor);
        let eval = layout.offsets.eval.unwrap();
        let entry = EvalEntry {
            eval: 0,
            run: 0,
            back: 0,
            interpreter: INTERPRETER,
            thread_id: u64::from(layout.offsets.stack.thread_id),
            breaker: eval.breaker,
            exception: eval.exception,
        };
        let breaker = match eval.breaker {
            Breaker::Interpreter(offset) => INTERPRETER + offset,
            Breaker::Thread(offset) => STATE + offset,
        };
        let calm = || {
            let memory = Words::default();
            memory.set(STATE + STATE_INTERPRETER, INTERPRETER);
            memory.set(STATE + entry.thread_id, 77);
            memory.set(STATE + eval.exception, 0);
            memory.set(breaker, 0);
            memory
        };
        assert!(entry.is_calm(&calm(), 77, STATE, false), "3.{minor}");
        assert!(
            !entry.is_calm(&calm(), 77, STATE, true),
            "an exception is thrown"
        );
        assert!(
            !entry.is_calm(&calm(), 78, STATE, false),
            "another thread's"
        );
        for address in [breaker, STATE + eval.exception, STATE + STATE_INTERPRETER] {
            let memory = calm();
            memory.set(address, 2);
            assert!(
                !entry.is_calm(&memory, 77, STATE, false),
                "3.{minor} {address:#x}"
            );
        }
    }
}
