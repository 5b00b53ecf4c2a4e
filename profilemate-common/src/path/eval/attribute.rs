//! Instance attributes and dictionary values: look-up by name, as the interpreter does it, without running it.

use super::{Call, Machine, Next, PROBE, Register, learned};
use crate::path::{NO_INDEX, Op};
use crate::python::{
    FLAG_DICT, FLAG_HEAP_TYPE, FLAG_INLINE_VALUES, FLAG_MANAGED_DICT, INSTANCE_DICT,
    INSTANCE_INLINE, INSTANCE_TAGGED, KernelLayout, OB_TYPE, TYPE_BASICSIZE, TYPE_DICTOFFSET,
    TYPE_FLAGS, TYPE_VERSION,
};
use crate::record::{STATUS_FAULT, STATUS_UNSET, STATUS_WRONG_KEY, STATUS_WRONG_TYPE};

/// From an object back to its values pointer (3.11), which its dictionary pointer (3.11 and newer) or tagged word
/// (3.12) follows.
const VALUES_BEFORE: u64 = 32;
/// From an instance's inline values to the byte that says whether they are valid (3.13).
const INLINE_VALID: u64 = 3;
/// `Index` of an attribute whose place is not known.
const NOWHERE: u64 = u64::MAX;
/// Hash table slots compared for one name, at most.
const PROBES: u64 = 16;
/// CPython's `PERTURB_SHIFT`.
const PERTURB_SHIFT: u32 = 5;

/// `CODE_ATTRIBUTE`.
///
/// What one part has found passes to the next through registers, of which the kernel's verifier remembers nothing: so
/// the ways through the parts add up there and do not multiply.
#[inline(always)]
pub(super) fn attribute<M: Machine>(
    machine: &mut M,
    op: &Op,
    call: &Call,
    layout: &KernelLayout,
    object: u64,
    pc: u64,
) -> Next {
    // If the last look-up was in the same instance, what lies around its head is known. (The thread whose event this
    // is runs nothing meanwhile.)
    if (object == 0 || object != machine.get(Register::Instance)) && !head(machine, object) {
        return Next::Fail(STATUS_FAULT);
    }
    let type_ = machine.get(Register::InstanceType);
    place(machine, op, call, layout, type_, pc);
    let index = machine.get(Register::Index);
    let flags = if index == NOWHERE {
        machine.read_or_zero::<u64>(type_.wrapping_add(TYPE_FLAGS))
    } else {
        FLAG_MANAGED_DICT | FLAG_INLINE_VALUES
    };
    machine.set(Register::Flags, flags);
    if object != machine.get(Register::Instance) {
        let flags = machine.get(Register::Flags);
        if layout.instance == INSTANCE_DICT || flags & FLAG_MANAGED_DICT == 0 {
            // A negative offset counts from the end of an object of variable size (a subclass of `tuple`, or of `int`
            // as `IntEnum`): the attributes of those are not read.
            let offset = machine.read_or_zero::<i64>(type_.wrapping_add(TYPE_DICTOFFSET));
            if offset <= 0 {
                return Next::Fail(STATUS_WRONG_TYPE);
            }
            return Next::DictAt(object.wrapping_add(offset as u64));
        }
        values(machine, layout, object, type_, flags);
        machine.set(Register::Instance, object);
    }
    let values = machine.get(Register::InstanceValues);
    if values == 0 {
        return match machine.get(Register::InstanceDict) {
            0 => Next::Fail(STATUS_UNSET),
            dict => Next::Dict(dict),
        };
    }
    let values = values.wrapping_add(u64::from(layout.values_first));
    let index = machine.get(Register::Index);
    if index != NOWHERE {
        return Next::ObjectAt(values.wrapping_add(8 * index));
    }
    if machine.get(Register::Flags) & FLAG_HEAP_TYPE == 0 {
        return Next::Fail(STATUS_WRONG_TYPE);
    }
    let keys = machine.read_or_zero::<u64>(type_.wrapping_add(u64::from(layout.type_cached_keys)));
    let lesson = learned::lesson(
        machine.get(Register::Version),
        machine.get(Register::InstanceSize),
        call.process,
    );
    machine.set(Register::Lesson, lesson);
    Next::Keys { keys, values }
}

/// Reads what lies around the head of `object`: one read for all of it.
#[inline(always)]
fn head<M: Machine>(machine: &mut M, object: u64) -> bool {
    let around = match machine.read::<[u64; 6]>(object.wrapping_sub(VALUES_BEFORE)) {
        Some(around) => around,
        // What has nothing before it has no instance dictionary there.
        None => match machine.read::<u64>(object.wrapping_add(OB_TYPE)) {
            Some(type_) => [0, 0, 0, 0, 0, type_],
            None => return false,
        },
    };
    machine.set(Register::Instance, 0);
    machine.set(Register::InstanceValues, around[0]);
    machine.set(Register::InstanceDict, around[1]);
    machine.set(Register::InstanceType, around[5]);
    machine.set(Register::InstanceSize, 0);
    true
}

/// Sets `Index` to the attribute's index among the values of instances of `type_`, if that is known.
#[inline(always)]
fn place<M: Machine>(
    machine: &mut M,
    op: &Op,
    call: &Call,
    layout: &KernelLayout,
    type_: u64,
    pc: u64,
) {
    machine.set(Register::Index, NOWHERE);
    if layout.instance == INSTANCE_DICT {
        return;
    }
    if type_ == op.expected && op.index != NO_INDEX {
        machine.set(Register::Index, u64::from(op.index));
        return;
    }
    if type_ != machine.get(Register::VersionOf) {
        let version = machine.read_or_zero::<u32>(type_.wrapping_add(TYPE_VERSION));
        machine.set(Register::VersionOf, type_);
        machine.set(Register::Version, u64::from(version));
    }
    let learned = machine.learned(op, pc);
    if learned.holds(machine.get(Register::Version), call.process) {
        machine.set(Register::Index, learned.index());
        machine.set(Register::InstanceSize, learned.size());
    }
}

/// Sets `InstanceValues` to where the values of `object` lie; to 0 if its attributes are in a dictionary.
#[inline(always)]
fn values<M: Machine>(machine: &mut M, layout: &KernelLayout, object: u64, type_: u64, flags: u64) {
    if layout.instance == INSTANCE_TAGGED {
        let word = machine.get(Register::InstanceDict);
        let values = if word & 1 == 0 {
            0
        } else {
            word.wrapping_add(1)
        };
        machine.set(Register::InstanceValues, values);
    } else if layout.instance == INSTANCE_INLINE {
        machine.set(Register::InstanceValues, 0);
        if flags & FLAG_INLINE_VALUES == 0 {
            return;
        }
        if machine.get(Register::InstanceSize) == 0 {
            let size = machine.read_or_zero::<u64>(type_.wrapping_add(TYPE_BASICSIZE));
            machine.set(Register::InstanceSize, size);
        }
        let values = object.wrapping_add(machine.get(Register::InstanceSize));
        if machine.read_or_zero::<u8>(values.wrapping_add(INLINE_VALID)) != 0 {
            machine.set(Register::InstanceValues, values);
        }
    }
}

/// `CODE_DICT_VALUE`.
#[inline(always)]
pub(super) fn dict_value<M: Machine>(machine: &M, object: u64) -> Next {
    let Some(type_) = machine.read::<u64>(object.wrapping_add(OB_TYPE)) else {
        return Next::Fail(STATUS_FAULT);
    };
    if machine.read_or_zero::<u64>(type_.wrapping_add(TYPE_FLAGS)) & FLAG_DICT == 0 {
        return Next::Fail(STATUS_WRONG_TYPE);
    }
    Next::Dict(object)
}

/// Looks a key up in `dict`.
#[inline(always)]
pub(super) fn in_dict<M: Machine>(machine: &mut M, layout: &KernelLayout, dict: u64) -> Next {
    let [keys, mut values] = parts(machine, layout, dict);
    if values != 0 {
        values = values.wrapping_add(u64::from(layout.values_first));
    }
    machine.set(Register::Lesson, 0);
    Next::Keys { keys, values }
}

/// Keys and values pointers of `dict`; they lie side by side in every version.
#[inline(always)]
pub(super) fn parts<M: Machine>(machine: &M, layout: &KernelLayout, dict: u64) -> [u64; 2] {
    machine.read_or_zero(dict.wrapping_add(u64::from(layout.dict_keys)))
}

/// The parts of a `PyDictKeysObject`.
#[derive(Clone, Copy)]
pub(super) struct Table {
    /// Address of the first entry's key; the entry's value follows it.
    pub(super) entries: u64,
    /// Bytes from one entry to the next.
    pub(super) stride: u64,
    /// Entries in use, deleted ones included.
    pub(super) used: u64,
    /// Slots of the hash table less one.
    mask: u64,
    /// Log2 of the bytes of an index.
    scale: u64,
}

/// Reads the head of the keys object at `keys`.
#[inline(always)]
pub(super) fn table<M: Machine>(machine: &M, layout: &KernelLayout, keys: u64) -> Table {
    // From the sizes to `dk_nentries`, which is the third word (the fourth on 3.10).
    let [head, _, third, fourth] =
        machine.read_or_zero::<[u64; 4]>(keys.wrapping_add(u64::from(layout.keys_log2_size)));
    let indices = keys.wrapping_add(u64::from(layout.keys_indices));
    let used = if layout.keys_entries.wrapping_sub(layout.keys_log2_size) == 16 {
        third
    } else {
        fourth
    };
    if layout.keys_kind == u32::MAX {
        // 3.10: `dk_size` itself; an index has one byte up to 255 slots, two up to 65,535, four beyond.
        let scale = if head <= 0xff {
            0
        } else if head <= 0xffff {
            1
        } else {
            2
        };
        let entries = indices.wrapping_add(head << scale).wrapping_add(8);
        return Table {
            entries,
            stride: 24,
            used,
            mask: head.wrapping_sub(1),
            scale,
        };
    }
    let log2_size = head & 63;
    let log2_bytes = head >> (8 * (layout.keys_size.wrapping_sub(layout.keys_log2_size) & 7)) & 63;
    let kind = head >> (8 * (layout.keys_kind.wrapping_sub(layout.keys_log2_size) & 7)) & 255;
    let entries = indices.wrapping_add(1 << log2_bytes);
    let mask = (1u64 << log2_size).wrapping_sub(1);
    let scale = log2_bytes.wrapping_sub(log2_size) & 3;
    if kind == 0 {
        // General entries begin with the hash.
        Table {
            entries: entries.wrapping_add(8),
            stride: 24,
            used,
            mask,
            scale,
        }
    } else {
        Table {
            entries,
            stride: 16,
            used,
            mask,
            scale,
        }
    }
}

/// Looks `op.key` up in `keys`: where it was found last, then by hash.
#[inline(always)]
pub(super) fn search<M: Machine>(
    machine: &mut M,
    op: &Op,
    layout: &KernelLayout,
    keys: u64,
    values: u64,
    pc: u64,
) -> Next {
    machine.set(Register::Values, values);
    if keys != machine.get(Register::TableOf) {
        let table = table(machine, layout, keys);
        machine.set(Register::TableOf, keys);
        machine.set(Register::Entries, table.entries);
        machine.set(Register::EntryStride, table.stride);
        machine.set(Register::Used, table.used);
        machine.set(Register::TableMask, table.mask);
        machine.set(Register::IndexScale, table.scale);
    }
    let candidate = machine.learned(op, pc).candidate();
    if candidate < machine.get(Register::Used) {
        let stride = machine.get(Register::EntryStride);
        let key = machine
            .get(Register::Entries)
            .wrapping_add(candidate.wrapping_mul(stride));
        let [key, value] = machine.read_or_zero::<[u64; 2]>(key);
        if key == op.key {
            return Next::Entry {
                index: candidate,
                value,
            };
        }
    }
    let hash = machine.read_or_zero::<u64>(op.key.wrapping_add(u64::from(layout.str_hash)));
    let mask = machine.get(Register::TableMask);
    let scale = machine.get(Register::IndexScale) & 3;
    machine.set(
        Register::Indices,
        keys.wrapping_add(u64::from(layout.keys_indices)),
    );
    machine.set(Register::IndexShift, 64_u64.wrapping_sub(8 << scale));
    machine.set(Register::Mask, mask);
    machine.set(Register::Slot, hash & mask);
    machine.set(Register::Perturb, hash);
    machine.set(Register::Tries, 0);
    Next::Stage(PROBE)
}

/// Compares one slot of the hash table.
#[inline(always)]
pub(super) fn probe<M: Machine>(machine: &mut M, op: &Op) -> Next {
    let slot = machine.get(Register::Slot);
    let at = machine
        .get(Register::Indices)
        .wrapping_add(slot << (machine.get(Register::IndexScale) & 3));
    // Eight bytes whatever the width: the entries follow the indices, so there is always something to read.
    let Some(word) = machine.read::<u64>(at) else {
        return Next::Fail(STATUS_FAULT);
    };
    let shift = machine.get(Register::IndexShift) & 63;
    let index = ((word << shift) as i64) >> shift;
    if index == -1 {
        return Next::Fail(STATUS_UNSET);
    }
    if index >= 0 {
        let stride = machine.get(Register::EntryStride);
        let key = machine
            .get(Register::Entries)
            .wrapping_add((index as u64).wrapping_mul(stride));
        let [key, value] = machine.read_or_zero::<[u64; 2]>(key);
        if key == op.key {
            return Next::Entry {
                index: index as u64,
                value,
            };
        }
    }
    let tries = machine.get(Register::Tries) + 1;
    if tries >= PROBES {
        return Next::Fail(STATUS_WRONG_KEY);
    }
    machine.set(Register::Tries, tries);
    let perturb = machine.get(Register::Perturb) >> PERTURB_SHIFT;
    machine.set(Register::Perturb, perturb);
    let next = slot.wrapping_mul(5).wrapping_add(perturb).wrapping_add(1);
    let mask = machine.get(Register::Mask);
    machine.set(Register::Slot, next & mask);
    Next::Stage(PROBE)
}

/// The value that belongs to entry `index`: `value` beside the key, unless the table is split. Instances of a class have
/// their keys in the same places as a rule, so the next event looks here first.
#[inline(always)]
pub(super) fn entry_value<M: Machine>(
    machine: &mut M,
    op: &Op,
    pc: u64,
    index: u64,
    value: u64,
) -> Next {
    let lesson = machine.get(Register::Lesson);
    learned::learn(machine, op, pc, lesson, index);
    let values = machine.get(Register::Values);
    if values != 0 {
        Next::ObjectAt(values.wrapping_add(index.wrapping_mul(8)))
    } else if value == 0 {
        Next::Fail(STATUS_UNSET)
    } else {
        Next::Object(value)
    }
}
