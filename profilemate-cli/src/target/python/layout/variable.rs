//! The interpreter's variable for the dictionary of interned strings, to 3.11: it has no exported symbol, but its value
//! cannot be mistaken. It is a dictionary in which well-known interned strings are their own values.

use std::ops::Range;

use profilemate_common::python::DICT_USED;

use super::Layout;
use crate::target::python::memory::{ReadBytes, plausible};
use crate::target::python::object::Objects;

/// Bytes of variables that are searched, at most (CPython 3.10 and 3.11 have under 1 MB).
const SEARCHED: u64 = 8 << 20;
/// Words read at once.
const CHUNK: usize = 4096;
/// An interpreter that runs has thousands of interned strings.
const USED: u64 = 500;

/// The address of the variable, searched for in `data`.
pub(super) fn find_interned<M: ReadBytes>(
    data: &[Range<u64>],
    memory: &M,
    layout: &Layout,
) -> Option<u64> {
    let objects = Objects::new(memory, layout);
    let mut left = SEARCHED;
    for range in data {
        let end = range.end.min(range.start.saturating_add(left));
        left = left.saturating_sub(end.saturating_sub(range.start));
        for start in (range.start..end).step_by(8 * CHUNK) {
            let count = CHUNK.min(((end - start) / 8) as usize);
            let words = memory.read_words(start, count).unwrap_or_default();
            let found = words
                .iter()
                .position(|word| is_interned_dict(&objects, *word));
            if let Some(index) = found {
                return Some(start + 8 * index as u64);
            }
        }
    }
    None
}

fn is_interned_dict<M: ReadBytes>(objects: &Objects<'_, M>, object: u64) -> bool {
    let own_value = |name| {
        let entry = objects.dict_lookup(object, name).flatten();
        entry.is_some_and(|entry| entry.key == entry.value && objects.is_interned(entry.key))
    };
    object.is_multiple_of(8)
        && plausible(object, 64)
        && objects.is_exact(object, objects.layout.symbols.type_dict)
        && objects
            .memory
            .read::<u64>(object + DICT_USED)
            .is_some_and(|used| used >= USED)
        && ["__init__", "__name__", "self"].into_iter().all(own_value)
}
