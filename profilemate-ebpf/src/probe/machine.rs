//! The kernel side's machine for field paths: `bpf_probe_read_user`, and a workplace to make the record in.

use super::registers::Mark;
use super::walk::Walk;
use aya_ebpf::helpers::{bpf_probe_read_user, generated};
use bytemuck::Pod;
use core::mem::{MaybeUninit, offset_of};
use profilemate_common::memory::Memory;
use profilemate_common::path::eval::{INITIAL_STATUS, Learned, Machine, REGISTERS, Register};
use profilemate_common::path::{OPS, Op, Program, TENSOR_BYTES};
use profilemate_common::record::{BLOB_SIZE, FIELDS, Fields, MethodCalled, STRING_SIZE};

/// Where one event's record is made.
///
/// It lies in a map, whose contents the verifier does not track: it forgets what a register of the evaluator held, so
/// that all iterations of the evaluator's loop look alike to it. Volatile access keeps the compiler from remembering
/// in its place.
#[repr(C)]
pub(super) struct Workplace {
    /// The thread whose event is made here (as `bpf_get_current_pid_tgid` tells it); 0 if the place is free.
    pub(super) owner: u64,
    /// The event's mark.
    pub(super) mark: Mark,
    /// Index into `PROGRAMS`.
    pub(super) program: u32,
    /// Index of this place.
    pub(super) number: u32,
    /// The walk of the stack that is under way here, if there is one.
    pub(super) walk: Walk,
    registers: [u64; REGISTERS],
    /// The record's head; the record is this and what follows.
    pub(super) head: MethodCalled,
    pub(super) fields: Fields,
    blob: [u8; BLOB_SIZE],
    /// A string that begins at the blob's last word, which never occurs but which the verifier must believe in.
    _beyond: [u8; STRING_SIZE],
}

/// Offset of the record.
pub(super) const RECORD_AT: usize = offset_of!(Workplace, head);
const FIELDS_AT: usize = offset_of!(Workplace, fields);
const REGISTERS_AT: usize = offset_of!(Workplace, registers);
const BLOB_AT: usize = offset_of!(Workplace, blob);
const _: () = assert!(FIELDS_AT == RECORD_AT + size_of::<MethodCalled>());
const _: () = assert!(BLOB_AT == FIELDS_AT + size_of::<Fields>());
/// Lengths are masked with it.
const _: () = assert!((TENSOR_BYTES + 1).is_power_of_two());
/// Field numbers are masked with this rather than compared: 24 to 31 never occur, and would lie within the blob.
const FIELD_MASK: u64 = 31;
const _: () = assert!(FIELDS <= FIELD_MASK as usize + 1);
const _: () =
    assert!(offset_of!(Op, hint) % 8 == 0 && offset_of!(Op, offset) == offset_of!(Op, hint) + 4);

/// A record under construction.
pub(super) struct KernelMachine {
    place: *mut u8,
    /// The program whose hints it may set; null where none is run.
    program: *mut Program,
}

impl KernelMachine {
    /// Goes on in `place`.
    ///
    /// # Safety
    ///
    /// `place` is valid, and nothing else uses it meanwhile. `program` is valid, or null if no program is run.
    #[inline(always)]
    pub(super) unsafe fn new(place: *mut Workplace, program: *mut Program) -> Self {
        Self {
            place: place.cast(),
            program,
        }
    }

    /// Clears what the last event left.
    #[inline(always)]
    pub(super) fn clear(&mut self) {
        let status = u64::from_ne_bytes([INITIAL_STATUS; 8]);
        for word in 0..size_of::<Fields>() / 8 {
            self.store(
                FIELDS_AT + 8 * word,
                if word < FIELDS / 8 { status } else { 0 },
            );
        }
        for register in 0..REGISTERS {
            self.store(REGISTERS_AT + 8 * register, 0_u64);
        }
    }

    /// Writes `value` at offset `at` of the workplace.
    #[inline(always)]
    fn store<T>(&self, at: usize, value: T) {
        // SAFETY: every caller keeps `at` within the workplace by a mask or a constant, aligned for `T`; the verifier
        // checks the same.
        unsafe { self.place.add(at).cast::<T>().write_volatile(value) }
    }
}

impl Memory for KernelMachine {
    #[inline(always)]
    fn read<T: Pod>(&self, address: u64) -> Option<T> {
        // SAFETY: the helper checks the address; any bytes are a valid `T`.
        unsafe { bpf_probe_read_user(address as *const T) }.ok()
    }

    #[inline(always)]
    fn read_or_zero<T: Pod>(&self, address: u64) -> T {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper checks the address, writes no more than the size given, and zeros where it cannot read.
        let _ = unsafe {
            generated::bpf_probe_read_user(
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                address as *const _,
            )
        };
        // SAFETY: the helper has written all of it, and any bytes are a valid `T`.
        unsafe { value.assume_init() }
    }
}

impl Machine for KernelMachine {
    #[inline(always)]
    fn get(&self, register: Register) -> u64 {
        // SAFETY: a constant offset within the workplace, aligned.
        unsafe {
            self.place
                .add(REGISTERS_AT + 8 * register as usize)
                .cast::<u64>()
                .read_volatile()
        }
    }

    #[inline(always)]
    fn set(&mut self, register: Register, value: u64) {
        self.store(REGISTERS_AT + 8 * register as usize, value);
    }

    #[inline(always)]
    fn set_status(&mut self, field: u64, status: u8) {
        self.store(
            FIELDS_AT + offset_of!(Fields, status) + (field & FIELD_MASK) as usize,
            status,
        );
    }

    #[inline(always)]
    fn set_value(&mut self, field: u64, value: u64) {
        self.store(
            FIELDS_AT + offset_of!(Fields, values) + 8 * (field & FIELD_MASK) as usize,
            value,
        );
    }

    #[inline(always)]
    fn learned(&self, _: &Op, pc: u64) -> Learned {
        let op = pc as usize & (OPS - 1);
        // SAFETY: the operation lies within the program, by the mask, and `hint` and `offset` side by side, aligned
        // (checked below). One load: events on other CPUs write the word at once.
        Learned(unsafe {
            (&raw const (*self.program).ops[op].hint)
                .cast::<u64>()
                .read_volatile()
        })
    }

    #[inline(always)]
    fn learn(&mut self, pc: u64, what: Learned) {
        let op = pc as usize & (OPS - 1);
        // SAFETY: as above; the store is atomic as every aligned store of a word. Events on other CPUs read the old or
        // the new word, and check either.
        unsafe {
            (&raw mut (*self.program).ops[op].hint)
                .cast::<u64>()
                .write_volatile(what.0);
        }
    }

    #[inline(always)]
    fn set_blob(&mut self, offset: u64, word: u64) {
        self.store(BLOB_AT + (offset as usize & (BLOB_SIZE - 8)), word);
    }

    #[inline(always)]
    fn copy_to_blob(&mut self, offset: u64, length: u64, from: u64) -> bool {
        let at = offset as usize & (BLOB_SIZE - 8);
        let length = length as u32 & (STRING_SIZE as u32 - 1);
        // SAFETY: at most 63 bytes from the second byte of any word of the blob, so within blob and `_beyond`.
        let result = unsafe {
            generated::bpf_probe_read_user(
                self.place.add(BLOB_AT + at + 1).cast(),
                length,
                from as *const _,
            )
        };
        result == 0
    }

    #[inline(always)]
    fn copy_much_to_blob(&mut self, offset: u64, length: u64, from: u64) -> bool {
        let at = offset as usize & (BLOB_SIZE / 2 - 8);
        let length = length as u32 & TENSOR_BYTES;
        // SAFETY: less than half of the blob's bytes, from a place in its first half, so within the blob.
        let result = unsafe {
            generated::bpf_probe_read_user(
                self.place.add(BLOB_AT + at).cast(),
                length,
                from as *const _,
            )
        };
        result == 0
    }
}
