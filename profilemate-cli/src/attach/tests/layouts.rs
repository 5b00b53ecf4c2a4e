//! Layouts of the interpreters under test, with the offsets from their own headers.

use profilemate_common::python::{
    INSTANCE_DICT, INSTANCE_INLINE, INSTANCE_TAGGED, INSTANCE_VALUES_BEFORE, INT_OB_SIZE, INT_TAG,
    KernelLayout,
};
use std::collections::HashMap;

/// The layout of CPython 3.`minor`, whose objects lie at `addresses`.
pub(super) fn layout(minor: u32, addresses: &HashMap<String, u64>) -> KernelLayout {
    let old = minor <= 10;
    KernelLayout {
        instance: match minor {
            ..=10 => INSTANCE_DICT,
            11 => INSTANCE_VALUES_BEFORE,
            12 => INSTANCE_TAGGED,
            _ => INSTANCE_INLINE,
        },
        int: if minor <= 11 { INT_OB_SIZE } else { INT_TAG },
        dict_keys: 32,
        dict_values: 40,
        values_first: if minor >= 13 { 8 } else { 0 },
        keys_size: if old { 8 } else { 9 },
        keys_log2_size: 8,
        keys_kind: if old { u32::MAX } else { 10 },
        keys_entries: if old { 32 } else { 24 },
        keys_indices: if old { 40 } else { 32 },
        tuple_items: if minor >= 14 { 32 } else { 24 },
        str_ascii: if minor <= 11 { 48 } else { 40 },
        str_compact: if minor <= 11 { 72 } else { 56 },
        str_state: 32,
        type_cached_keys: if minor <= 11 { 872 } else { 880 },
        str_hash: 24,
        type_list: addresses["list"],
        type_tuple: addresses["tuple"],
        type_dict: addresses["dict"],
        none: addresses["None"],
        true_: addresses["True"],
        false_: addresses["False"],
        type_int: addresses["int"],
        type_float: addresses["float"],
        type_str: addresses["str"],
        type_bytes: addresses["bytes"],
        type_set: addresses["set"],
        type_frozenset: addresses["frozenset"],
        type_deque: addresses["deque"],
    }
}
