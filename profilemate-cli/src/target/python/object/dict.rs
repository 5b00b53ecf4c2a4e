//! `dict`: combined, with general or string-only keys, and split (instance dictionaries with shared keys).

use profilemate_common::python::FLAG_DICT;

use super::{DICT_ITEMS, Objects};
use crate::target::python::memory::ReadBytes;

/// An entry of a table of keys: in a split table the values lie elsewhere, and `value` is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Position among the entries.
    pub index: u32,
    /// The key's address.
    pub key: u64,
    /// The value's address, or 0.
    pub value: u64,
}

/// The head of a `PyDictKeysObject`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Slots of the index table, a power of two.
    size: u64,
    /// Address of the index table.
    indices: u64,
    /// Bytes of one index: 1, 2, 4 or 8.
    index_bytes: u64,
    /// Address of the first entry.
    first: u64,
    /// Entries in use, deleted ones included.
    count: usize,
    /// Bytes of one entry: 24 (hash, key, value) or 16 (key, value).
    entry_bytes: u64,
}

/// Slots that one lookup by hash looks at, at most; beyond that the table is taken for inconsistent.
const PROBES: usize = 1024;
/// An index slot that was never used.
const EMPTY: i64 = -1;

impl<M: ReadBytes> Objects<'_, M> {
    /// The head of a table of keys.
    pub fn keys(&self, keys: u64) -> Option<Keys> {
        let kernel = &self.layout.kernel;
        let mut head = [0u8; 40];
        if !self.memory.read_bytes(keys, &mut head) {
            return None;
        }
        let word = |at: u32| {
            Some(u64::from_ne_bytes(
                head.get(at as usize..at as usize + 8)?.try_into().ok()?,
            ))
        };
        let count = usize::try_from(word(kernel.keys_entries)?).ok()?;
        let indices = keys.checked_add(u64::from(kernel.keys_indices))?;
        let (size, table_bytes, entry_bytes) = if self.layout.offsets.old_keys {
            let size = word(kernel.keys_size)?;
            let index_bytes = if size <= 0xff {
                1
            } else if size <= 0xffff {
                2
            } else {
                4
            };
            (size, size.checked_mul(index_bytes)?, 24)
        } else {
            let byte = |at: u32| head.get(at as usize).copied();
            let (log2_size, log2_bytes) = (byte(kernel.keys_log2_size)?, byte(kernel.keys_size)?);
            if log2_size > 40 || log2_bytes > 43 || log2_bytes < log2_size {
                return None;
            }
            (
                1 << log2_size,
                1 << log2_bytes,
                if byte(kernel.keys_kind)? == 0 { 24 } else { 16 },
            )
        };
        if !u64::is_power_of_two(size) || count > DICT_ITEMS || count as u64 > size {
            return None;
        }
        Some(Keys {
            size,
            indices,
            index_bytes: table_bytes / size,
            first: indices.checked_add(table_bytes)?,
            count,
            entry_bytes,
        })
    }

    /// The entries of a table of keys whose key is set.
    pub fn key_entries(&self, keys: &Keys) -> Option<Vec<Entry>> {
        let width = (keys.entry_bytes / 8) as usize;
        let words = self.memory.read_words(keys.first, keys.count * width)?;
        let entries = words
            .chunks_exact(width)
            .zip(0..)
            .map(|(entry, index)| Entry {
                index,
                key: entry[width - 2],
                value: entry[width - 1],
            });
        Some(entries.filter(|entry| entry.key != 0).collect())
    }

    /// Keys and, for a split table, address of the first value.
    fn dict_parts(&self, dict: u64) -> Option<(Keys, Option<u64>)> {
        if !self.is_exact(dict, self.layout.symbols.type_dict) && !self.has_flag(dict, FLAG_DICT) {
            return None;
        }
        let kernel = &self.layout.kernel;
        let keys = self.keys(self.pointer(dict.checked_add(u64::from(kernel.dict_keys))?)?)?;
        let values: u64 = self
            .memory
            .read(dict.checked_add(u64::from(kernel.dict_values))?)?;
        let first = match values {
            0 => None,
            values => Some(values.checked_add(u64::from(kernel.values_first))?),
        };
        Some((keys, first))
    }

    /// The items of a `dict` in order.
    pub fn dict_entries(&self, dict: u64) -> Option<Vec<Entry>> {
        let (keys, split) = self.dict_parts(dict)?;
        let mut entries = self.key_entries(&keys)?;
        if let Some(first) = split {
            let values = self.memory.read_words(first, keys.count)?;
            for entry in &mut entries {
                entry.value = *values.get(entry.index as usize)?;
            }
        }
        entries.retain(|entry| entry.value != 0);
        Some(entries)
    }

    /// The entry for the ASCII string `name` in a `dict`: by hash where the process's hash is known, else by scanning.
    /// `Some(None)` means that the dictionary was read and does not have it.
    pub fn dict_lookup(&self, dict: u64, name: &str) -> Option<Option<Entry>> {
        let (keys, split) = self.dict_parts(dict)?;
        let Some(mut entry) = self.key_lookup(&keys, name)? else {
            return Some(None);
        };
        if let Some(first) = split {
            entry.value = self
                .memory
                .read(first.checked_add(8 * u64::from(entry.index))?)?;
        }
        Some((entry.value != 0).then_some(entry))
    }

    /// The value for the ASCII string `name` in a `dict`.
    pub fn dict_value(&self, dict: u64, name: &str) -> Option<u64> {
        Some(self.dict_lookup(dict, name)??.value)
    }

    /// The entry of a table of keys for the ASCII string `name`.
    pub fn key_lookup(&self, keys: &Keys, name: &str) -> Option<Option<Entry>> {
        let Some(hash) = self.layout.hash else {
            let entries = self.key_entries(keys)?;
            return Some(
                entries
                    .into_iter()
                    .find(|entry| self.is_text(entry.key, name)),
            );
        };
        let hash = hash.of(name.as_bytes());
        let mask = keys.size - 1;
        let mut perturb = hash;
        let mut slot = hash & mask;
        for _ in 0..PROBES {
            let index = self.index_at(keys, slot)?;
            if index == EMPTY {
                return Some(None);
            }
            if let Ok(index) = usize::try_from(index) {
                let entry = self.entry_at(keys, index)?;
                if entry.key != 0
                    && self.cached_hash(entry.key) == Some(hash)
                    && self.is_text(entry.key, name)
                {
                    return Some(Some(entry));
                }
            }
            perturb >>= 5;
            slot = slot.wrapping_mul(5).wrapping_add(perturb).wrapping_add(1) & mask;
        }
        None
    }

    fn index_at(&self, keys: &Keys, slot: u64) -> Option<i64> {
        let at = keys
            .indices
            .checked_add(slot.checked_mul(keys.index_bytes)?)?;
        match keys.index_bytes {
            1 => self.memory.read::<i8>(at).map(i64::from),
            2 => self.memory.read::<i16>(at).map(i64::from),
            4 => self.memory.read::<i32>(at).map(i64::from),
            8 => self.memory.read(at),
            _ => None,
        }
    }

    fn entry_at(&self, keys: &Keys, index: usize) -> Option<Entry> {
        if index >= keys.count {
            return None;
        }
        let at = keys.first.checked_add(keys.entry_bytes * index as u64)? + keys.entry_bytes - 16;
        let [key, value] = self.memory.read::<[u64; 2]>(at)?;
        Some(Entry {
            index: index as u32,
            key,
            value,
        })
    }
}
