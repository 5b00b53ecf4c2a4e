//! A machine in ordinary memory: runs a program outside the kernel, for tests and for reading a value at once.

use super::{Call, INITIAL_STATUS, Learned, Machine, PARTS, REGISTERS, Register, run, start};
use crate::memory::Memory;
use crate::path::{OPS, Op, Program};
use crate::python::KernelLayout;
use crate::record::{BLOB_SIZE, FIELDS, Fields, STRING_SIZE};
use bytemuck::Pod;

/// A record under construction in ordinary memory. Large: better boxed.
pub struct LocalMachine<M> {
    /// What it reads.
    pub memory: M,
    registers: [u64; REGISTERS],
    learned: [Option<Learned>; OPS],
    /// The fields read.
    pub fields: Fields,
    /// Strings and collections; the first [`LocalMachine::run`] result bytes are in use.
    pub blob: [u8; BLOB_SIZE],
}

impl<M: Memory> LocalMachine<M> {
    /// A machine that reads `memory`.
    pub const fn new(memory: M) -> Self {
        Self {
            memory,
            registers: [0; REGISTERS],
            learned: [None; OPS],
            fields: Fields {
                status: [INITIAL_STATUS; FIELDS],
                values: [0; FIELDS],
            },
            blob: [0; BLOB_SIZE],
        }
    }

    /// Runs `program` on `call`, from a clean record. Returns the bytes of the blob that are in use.
    pub fn run(&mut self, call: &Call, program: &Program, layout: &KernelLayout) -> usize {
        self.learned = [None; OPS];
        self.run_again(call, program, layout)
    }

    /// As [`LocalMachine::run`], with what the program's operations have learned since that.
    pub fn run_again(&mut self, call: &Call, program: &Program, layout: &KernelLayout) -> usize {
        self.registers = [0; REGISTERS];
        self.fields = Fields {
            status: [INITIAL_STATUS; FIELDS],
            values: [0; FIELDS],
        };
        start(self);
        for _ in 0..PARTS {
            if run(self, call, program, layout) {
                break;
            }
        }
        self.get(Register::Cursor) as usize
    }
}

impl<M: Memory> Memory for LocalMachine<M> {
    fn read<T: Pod>(&self, address: u64) -> Option<T> {
        self.memory.read(address)
    }
}

impl<M: Memory> Machine for LocalMachine<M> {
    fn get(&self, register: Register) -> u64 {
        self.registers.get(register as usize).copied().unwrap_or(0)
    }

    fn set(&mut self, register: Register, value: u64) {
        if let Some(place) = self.registers.get_mut(register as usize) {
            *place = value;
        }
    }

    fn set_status(&mut self, field: u64, status: u8) {
        if let Some(place) = self.fields.status.get_mut(field as usize) {
            *place = status;
        }
    }

    fn set_value(&mut self, field: u64, value: u64) {
        if let Some(place) = self.fields.values.get_mut(field as usize) {
            *place = value;
        }
    }

    fn learned(&self, op: &Op, pc: u64) -> Learned {
        let learned = self.learned.get(pc as usize).copied().flatten();
        learned.unwrap_or(Learned::of(op))
    }

    fn learn(&mut self, pc: u64, what: Learned) {
        if let Some(place) = self.learned.get_mut(pc as usize) {
            *place = Some(what);
        }
    }

    fn set_blob(&mut self, offset: u64, word: u64) {
        let at = offset as usize & (BLOB_SIZE - 8);
        if let Some(place) = self.blob.get_mut(at..at + 8) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
    }

    fn copy_to_blob(&mut self, offset: u64, length: u64, from: u64) -> bool {
        let at = (offset as usize & (BLOB_SIZE - 8)) + 1;
        for index in 0..length.min(STRING_SIZE as u64 - 1) {
            let Some(byte) = self.memory.read::<u8>(from.wrapping_add(index)) else {
                return false;
            };
            if let Some(place) = self.blob.get_mut(at + index as usize) {
                *place = byte;
            }
        }
        true
    }
}
