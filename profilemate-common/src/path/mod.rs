//! Field paths, compiled: short lists of bounded reads that give a Python value without running any Python.
//!
//! A path such as `self.kv_cache_manager.block_pool.num_gpu_blocks` or `ret.num_scheduled_tokens:len` is compiled by
//! the tracer into [`Op`]s. The kernel runs them at each event with one accumulator, the address of the current object.
//!
//! Attributes are looked up by name, as the interpreter would find plain instance data: the name is the address of its
//! interned `str`, compared by identity with the keys of the instance's values or dictionary. So a path needs no live
//! instance when it is compiled, and holds for subclasses. Where the tracer knows the class, `expected`, `index` and
//! `hint` are a short cut; they are verified, and a mismatch falls back to the lookup by name. Nothing is ever taken
//! without a check: a changed object makes the field absent with a status, never wrong.
//!
//! The field's last operation is [`CODE_LEAF`] or [`CODE_COLLECT`]; the ops of all fields of a method stand one
//! behind the other in its [`Program`], and the n-th leaf ends the n-th field.

pub mod eval;

use bytemuck::{Pod, Zeroable};

/// Ops of one program, all fields together.
pub const OPS: usize = 128;

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Op {
    /// One of the `CODE_*`.
    pub code: u8,
    /// For [`CODE_LEAF`] and for the items of [`CODE_COLLECT`]: one of the `LEAF_*`.
    pub leaf: u8,
    /// Whether the object reached is kept for a later [`CODE_KEPT`]: 0 or 1.
    pub keep: u8,
    /// For [`CODE_COLLECT`]: how the item is reached from the container's element: one of the `ELEMENT_*`.
    pub element: u8,
    /// [`CODE_ARGUMENT`]: position. [`CODE_ATTRIBUTE`], and elements that are attributes: index among the type's
    /// shared keys, or [`NO_INDEX`].
    pub index: u32,
    /// Where the key lies in the entries of a dictionary or of a type's shared keys, or [`NO_INDEX`]. Only a hint: the
    /// key there is compared. The kernel writes here, and to `offset`, where it found the key last (see
    /// [`eval::Learned`]).
    pub hint: u32,
    /// [`CODE_LOAD`] and [`ELEMENT_LOAD`]: bytes to add. [`CODE_TUPLE_ITEM`], [`CODE_LIST_ITEM`]: item index. Look-ups
    /// of a key: 0, until the kernel has learned something.
    pub offset: i32,
    /// Address of the interned key or argument name; for [`CODE_CONSTANT`] the object.
    pub key: u64,
    /// [`CODE_LOAD`] and [`ELEMENT_LOAD`]: address of the type that the object must have; 0 not checked.
    /// [`CODE_ATTRIBUTE`]: the type for which `index` holds; 0 none.
    pub expected: u64,
}

/// No index known.
pub const NO_INDEX: u32 = u32::MAX;

/// Accumulator := argument `index` by position, else the keyword argument named `key`; else `STATUS_NOT_PASSED`.
/// With `index` [`NO_INDEX`] by keyword only.
pub const CODE_ARGUMENT: u8 = 1;
/// Accumulator := the call's result; `STATUS_NO_RESULT` if there is none.
pub const CODE_RESULT: u8 = 2;
/// Accumulator := `key`, an object known to live as long as the program (module dictionary, closure cell).
pub const CODE_CONSTANT: u8 = 3;
/// Accumulator := the object's instance attribute `key`: from its inline or split values (position `index` if the type
/// is `expected`, else by looking `key` up in the type's shared keys), or from its dictionary (at `hint` if the key
/// there is `key`, else by hash). Not there or null: `STATUS_UNSET`. No instance dictionary: `STATUS_WRONG_TYPE`.
pub const CODE_ATTRIBUTE: u8 = 4;
/// The object must have type `expected`; accumulator := the pointer at `offset` (slots, cells, C structures).
pub const CODE_LOAD: u8 = 5;
/// Accumulator := item `offset` of a tuple (or tuple subclass); bounds are checked.
pub const CODE_TUPLE_ITEM: u8 = 6;
/// Accumulator := item `offset` of a list; bounds are checked.
pub const CODE_LIST_ITEM: u8 = 7;
/// Accumulator := the value of `key` (an interned `str`, by identity) in a `dict`: at `hint`, else by hash.
pub const CODE_DICT_VALUE: u8 = 8;
/// Ends the field with the scalar `leaf` of the object. If the object is `None` (and `leaf` is not
/// [`LEAF_ADDRESS`]): `STATUS_NONE`.
pub const CODE_LEAF: u8 = 9;
/// Ends the field with the items of a `list`, `tuple`, `dict` (its keys), `set` or `frozenset`, each read by `element`
/// and `leaf`. `None`: `STATUS_NONE`. Another type: `STATUS_WRONG_TYPE`.
pub const CODE_COLLECT: u8 = 10;
/// Accumulator := the object that the last operation with `keep` reached. If it reached none: absent, as the field
/// of that operation was. Stands in for the operations that two fields have in common.
pub const CODE_KEPT: u8 = 11;

/// Accumulator := local variable `index` of a Python frame ([`crate::walk`]), without the tag that a reference in a
/// frame may carry (3.14). Not assigned: `STATUS_UNSET`.
pub const CODE_LOCAL: u8 = 12;

/// The object's address, unchecked. 8 bytes in a collection.
pub const LEAF_ADDRESS: u8 = 0;
/// `int` (or `bool`, or a subclass such as `IntEnum`): two's complement in 64 bits. 8 bytes in a collection.
/// An `int` between 2^63 and 2^64-1 is `STATUS_TOO_BIG`.
pub const LEAF_INT: u8 = 1;
/// `bool`: 0 or 1.
pub const LEAF_BOOL: u8 = 2;
/// `float`: its bits.
pub const LEAF_FLOAT: u8 = 3;
/// Length of a `list`, `tuple`, `dict`, `set`, `frozenset`, `deque`, `str`, `bytes` or a subclass of one.
pub const LEAF_LEN: u8 = 4;
/// `str`, ASCII or Latin-1/UCS compact; up to 63 bytes of its characters, into the blob ([`crate::record::STRING_SIZE`]
/// bytes). A longer one, or one that is not ASCII, is cut or `STATUS_WRONG_TYPE`.
pub const LEAF_STR: u8 = 5;
/// `bytes`, as [`LEAF_STR`].
pub const LEAF_BYTES: u8 = 6;
/// In a collection over a dictionary only: the key's address and the value as `int`, 16 bytes.
pub const LEAF_KEY_INT: u8 = 7;
/// Whether the object is `None`: 0 or 1. Never `STATUS_NONE`.
pub const LEAF_IS_NONE: u8 = 8;

/// `torch.Tensor` of one or two dimensions, contiguous, of 32 or 64 bit integers, in host memory: its numbers, into the
/// blob, behind a [`crate::record::TensorHead`]. With [`CODE_LEAF`] only; `expected` is the address of the vtable of
/// `c10::TensorImpl`, `offset` where in the object the pointer to it lies.
pub const LEAF_TENSOR: u8 = 9;
/// Length of the first dimension of a `torch.Tensor` of any kind, wherever its numbers are. As [`LEAF_TENSOR`].
pub const LEAF_ROWS: u8 = 10;

/// The element itself.
pub const ELEMENT_SELF: u8 = 0;
/// The element's instance attribute `key` (as [`CODE_ATTRIBUTE`], with `index`, `hint`, `offset`, `expected`).
pub const ELEMENT_ATTRIBUTE: u8 = 1;
/// The pointer at `offset` in the element (as [`CODE_LOAD`]).
pub const ELEMENT_LOAD: u8 = 2;

/// Items of one collection, at most.
pub const ITEMS: u32 = 1024;
/// Bytes of one tensor that are read, at most: one less than half of the blob.
pub const TENSOR_BYTES: u32 = crate::record::BLOB_SIZE as u32 / 2 - 1;
/// Items of all collections of one event, at most.
pub const ITEMS_TOTAL: u32 = 1536;

/// What one slot's events read.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Program {
    /// Number of this program, unique in the session; copied into each record.
    pub id: u32,
    /// Index of its [`crate::python::KernelLayout`].
    pub layout: u32,
    /// Valid ops.
    pub op_count: u32,
    /// Fields: number of leaves and collects among the ops.
    pub field_count: u32,
    /// One of `record::CLASS_*`: with `CLASS_BARE` no fields are read.
    pub class: u32,
    /// Room for later versions.
    pub reserved: u32,
    /// The ops.
    pub ops: [Op; OPS],
}

const _: () = assert!(size_of::<Op>() == 32);
