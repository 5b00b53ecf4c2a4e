//! What an operation remembers of its last look-up, in one word that is written and read at once.

use super::Machine;
use crate::path::Op;

/// What an operation has learned: `hint` in the lower half, `offset` in the upper one.
///
/// With 0 in the upper half the lower one is where the key lay among the entries of a dictionary or of a type's shared
/// keys: a hint, and the key there is compared. Otherwise the upper half is the version of a type, whose shared keys
/// never change their places, and the lower half tells where an instance's value lies: bits 0..8 the index among the
/// shared keys, bits 8..16 the type's basic size in words (for values that follow the object), bits 16..32 the lower
/// bits of the process that has learned it. No other type of that process has the version, not even one that lies
/// where a collected one lay; a forked child, which may give the same version to another type, has another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learned(pub u64);

impl Learned {
    /// What `op` says, unless something else was learned.
    #[inline(always)]
    pub const fn of(op: &Op) -> Self {
        Self(op.hint as u64 | (op.offset as u32 as u64) << 32)
    }

    /// Whether the indices hold for types of this version, in this process.
    #[inline(always)]
    pub(super) const fn holds(self, version: u64, process: u32) -> bool {
        version != 0 && self.0 >> 32 == version && self.0 >> 16 & 0xffff == process as u64 & 0xffff
    }

    /// Index of the value.
    #[inline(always)]
    pub(super) const fn index(self) -> u64 {
        self.0 & 0xff
    }

    /// The type's basic size, in bytes.
    #[inline(always)]
    pub(super) const fn size(self) -> u64 {
        (self.0 >> 8 & 0xff) * 8
    }

    /// Where to look for the key first.
    #[inline(always)]
    pub(super) const fn candidate(self) -> u64 {
        if self.0 >> 32 == 0 {
            self.0
        } else {
            self.index()
        }
    }
}

/// What may be learned of a type besides an index; 0 for nothing.
#[inline(always)]
pub(super) const fn lesson(version: u64, size: u64, process: u32) -> u64 {
    if version == 0 || size & 7 != 0 || size > 255 * 8 {
        return 0;
    }
    version << 32 | (process as u64 & 0xffff) << 16 | (size >> 3) << 8
}

/// The key of operation `pc` has been found at `index`.
#[inline(always)]
pub(super) fn learn<M: Machine>(machine: &mut M, op: &Op, pc: u64, lesson: u64, index: u64) {
    let word = if lesson != 0 && index < 256 {
        lesson | index
    } else {
        index & 0xffff_ffff
    };
    if machine.learned(op, pc) != Learned(word) {
        machine.learn(pc, Learned(word));
    }
}
