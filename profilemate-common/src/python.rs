//! The part of a CPython build's memory layout that the kernel side needs, as data.

use bytemuck::{Pod, Zeroable};

/// Instance attributes lie in a dictionary at `tp_dictoffset` (3.10).
pub const INSTANCE_DICT: u32 = 0;
/// Values pointer at -32, dictionary pointer at -24 (3.11).
pub const INSTANCE_VALUES_BEFORE: u32 = 1;
/// One tagged word at -24: values + 1, or the dictionary (3.12).
pub const INSTANCE_TAGGED: u32 = 2;
/// Dictionary pointer at -24; inline values behind the object while their `valid` byte is set (3.13+).
pub const INSTANCE_INLINE: u32 = 3;

/// Integers: sign in `ob_size` (to 3.11).
pub const INT_OB_SIZE: u32 = 0;
/// Integers: `lv_tag` (3.12+).
pub const INT_TAG: u32 = 1;

/// Field offsets in bytes, and choices, for one CPython minor version. Sources: the headers of that version; the
/// tracer has checked them on known objects of the live process before it loads them here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct KernelLayout {
    /// One of `INSTANCE_*`.
    pub instance: u32,
    /// One of `INT_*`.
    pub int: u32,
    /// `PyDictObject.ma_keys`.
    pub dict_keys: u32,
    /// `PyDictObject.ma_values`.
    pub dict_values: u32,
    /// From a dictionary's or instance's values pointer to the first value (0; 8 where the values have a head).
    pub values_first: u32,
    /// `PyDictKeysObject`: offset of `dk_log2_index_bytes` (3.11+), or of `dk_size` (3.10).
    pub keys_size: u32,
    /// Offset of `dk_log2_size` (3.11+); on 3.10 of `dk_size`, the size itself.
    pub keys_log2_size: u32,
    /// Offset of `dk_kind` (3.11+); `u32::MAX` on 3.10, where all entries are general.
    pub keys_kind: u32,
    /// Offset of `dk_nentries`.
    pub keys_entries: u32,
    /// Offset of the index table.
    pub keys_indices: u32,
    /// `PyTupleObject.ob_item`.
    pub tuple_items: u32,
    /// Start of the characters of a compact ASCII string (`sizeof(PyASCIIObject)`).
    pub str_ascii: u32,
    /// Start of the characters of another compact string (`sizeof(PyCompactUnicodeObject)`).
    pub str_compact: u32,
    /// `PyASCIIObject.state`.
    pub str_state: u32,
    /// `PyHeapTypeObject.ht_cached_keys`.
    pub type_cached_keys: u32,
    /// Offset of the cached hash in a `str` (`PyASCIIObject.hash`).
    pub str_hash: u32,
    /// Address of `None`.
    pub none: u64,
    /// Address of `True`.
    pub true_: u64,
    /// Address of `False`.
    pub false_: u64,
    /// Address of `PyLong_Type`.
    pub type_int: u64,
    /// Address of `PyFloat_Type`.
    pub type_float: u64,
    /// Address of `PyUnicode_Type`.
    pub type_str: u64,
    /// Address of `PyBytes_Type`.
    pub type_bytes: u64,
    /// Address of `PySet_Type`.
    pub type_set: u64,
    /// Address of `PyFrozenSet_Type`.
    pub type_frozenset: u64,
    /// Address of `collections.deque`; 0 if the process has not imported it.
    pub type_deque: u64,
    /// Address of `PyList_Type`.
    pub type_list: u64,
    /// Address of `PyTuple_Type`.
    pub type_tuple: u64,
    /// Address of `PyDict_Type`.
    pub type_dict: u64,
}

/// `PyObject.ob_type`, in every supported build (a free-threaded one differs and is refused).
pub const OB_TYPE: u64 = 8;
/// `PyVarObject.ob_size`.
pub const OB_SIZE: u64 = 16;
/// `PyListObject.ob_item`.
pub const LIST_ITEMS: u64 = 24;
/// `PyFloatObject.ob_fval`.
pub const FLOAT_VALUE: u64 = 16;
/// `PyLongObject`: `lv_tag` or `ob_size`.
pub const INT_HEAD: u64 = 16;
/// `PyLongObject`: first 30-bit digit.
pub const INT_DIGITS: u64 = 24;
/// `PyASCIIObject.length`.
pub const STR_LENGTH: u64 = 16;
/// `PyBytesObject.ob_sval`.
pub const BYTES_DATA: u64 = 32;
/// `PyDictObject.ma_used`.
pub const DICT_USED: u64 = 16;
/// `PySetObject`: `fill`, `used`, `mask`, `table`.
pub const SET_USED: u64 = 24;
/// `PySetObject.mask`: table slots less one.
pub const SET_MASK: u64 = 32;
/// `PySetObject.table`: entries of (key, hash), 16 bytes each.
pub const SET_TABLE: u64 = 40;

/// `PyTypeObject.tp_basicsize`.
pub const TYPE_BASICSIZE: u64 = 32;
/// `PyTypeObject.tp_flags`.
pub const TYPE_FLAGS: u64 = 168;
/// `PyTypeObject.tp_base`.
pub const TYPE_BASE: u64 = 256;
/// `PyTypeObject.tp_dictoffset`.
pub const TYPE_DICTOFFSET: u64 = 288;
/// `PyTypeObject.tp_version_tag`, 32 bits: a number that no other type of the interpreter has or will have; 0 for none.
pub const TYPE_VERSION: u64 = 384;
/// `Py_TPFLAGS_INLINE_VALUES` (3.13+).
pub const FLAG_INLINE_VALUES: u64 = 1 << 2;
/// `Py_TPFLAGS_MANAGED_DICT` (3.11+).
pub const FLAG_MANAGED_DICT: u64 = 1 << 4;
/// `Py_TPFLAGS_HEAPTYPE`.
pub const FLAG_HEAP_TYPE: u64 = 1 << 9;
/// `Py_TPFLAGS_LONG_SUBCLASS`.
pub const FLAG_INT: u64 = 1 << 24;
/// `Py_TPFLAGS_LIST_SUBCLASS`.
pub const FLAG_LIST: u64 = 1 << 25;
/// `Py_TPFLAGS_TUPLE_SUBCLASS`.
pub const FLAG_TUPLE: u64 = 1 << 26;
/// `Py_TPFLAGS_BYTES_SUBCLASS`.
pub const FLAG_BYTES: u64 = 1 << 27;
/// `Py_TPFLAGS_UNICODE_SUBCLASS`.
pub const FLAG_STR: u64 = 1 << 28;
/// `Py_TPFLAGS_DICT_SUBCLASS`.
pub const FLAG_DICT: u64 = 1 << 29;
