//! Field offsets of each CPython minor version, as data, and their check on live objects.
//!
//! The numbers were printed by programs compiled against the headers of 3.10.13, 3.11.7, 3.12.1, 3.13.0 and 3.14.10.
//! They are never believed for a process before [`validate`] has found known objects through them.

use profilemate_common::python::KernelLayout;

use super::hash::HashKey;
use super::identify::Version;
use super::symbols::Symbols;

mod check;
mod eval;
mod sample;
mod stack;
mod v3_10;
mod v3_11;
mod v3_12;
mod v3_13;
mod v3_14;
mod variable;

pub use check::{LayoutError, validate};
pub use eval::{Breaker, EvalOffsets};
pub use stack::{STATE_INTERPRETER, STATE_NEXT, StackOffsets};

/// Offsets in bytes for one minor version.
#[derive(Debug, PartialEq, Eq)]
pub struct Offsets {
    /// 12 for 3.12.
    pub minor: u8,
    /// `_PyRuntimeState.interpreters.main`.
    pub runtime_main: u64,
    /// `PyInterpreterState.modules` (`imports.modules`).
    pub interpreter_modules: u64,
    /// Where interned strings are kept; `None` where only a static variable of the interpreter's file knows (to 3.11).
    pub interned: Option<InternedOffsets>,
    /// The cache that finds functions by version (3.13+).
    pub version_cache: Option<VersionCache>,
    /// `_Py_DebugOffsets` (3.13+): for each known offset, where the interpreter itself states it.
    pub debug: &'static [DebugOffset],
    /// `PyFunctionObject`.
    pub function: FunctionOffsets,
    /// `PyCodeObject`.
    pub code: CodeOffsets,
    /// Threads and their frames.
    pub stack: StackOffsets,
    /// What tells whether a thread at the entry of the eval loop has something to do first; `None` where that is not
    /// asked (3.14).
    pub eval: Option<EvalOffsets>,
    /// What the kernel side needs; addresses are filled in for each process.
    pub kernel: KernelLayout,
    /// Whether dictionary keys have the 3.10 shape (`dk_size` as a word, general entries only).
    pub old_keys: bool,
    /// Rounds of the string hash: for each eight bytes, at the end.
    pub hash_rounds: (u8, u8),
    /// Whether specialised calls look at `vectorcall` before they inline a function. 3.11 does not.
    pub honours_vectorcall: bool,
}

/// Where interned strings are kept.
#[derive(Debug, PartialEq, Eq)]
pub struct InternedOffsets {
    /// `PyInterpreterState.cached_objects.interned_strings`: points to a dictionary.
    pub interpreter: u64,
    /// `_PyRuntimeState.cached_objects.interned_strings`: a `_Py_hashtable_t` with the statically allocated ones.
    pub runtime: u64,
}

/// `PyInterpreterState.func_state.func_version_cache`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionCache {
    /// In `PyInterpreterState`.
    pub offset: u64,
    /// Bytes of an entry, whose first word is the function.
    pub item_size: u64,
    /// `FUNC_VERSION_CACHE_SIZE`; a function is at its version modulo this.
    pub items: u32,
}

/// One statement of `_Py_DebugOffsets`.
#[derive(Debug, PartialEq, Eq)]
pub struct DebugOffset {
    /// What it states.
    pub name: &'static str,
    /// Which 64-bit word of `_PyRuntime` states it.
    pub word: u64,
    /// What the table here says.
    pub value: u64,
}

/// Offsets in `PyFunctionObject`.
#[derive(Debug, PartialEq, Eq)]
pub struct FunctionOffsets {
    /// `func_globals`.
    pub globals: u64,
    /// `func_name`.
    pub name: u64,
    /// `func_qualname`.
    pub qualname: u64,
    /// `func_code`.
    pub code: u64,
    /// `func_defaults`.
    pub defaults: u64,
    /// `func_kwdefaults`.
    pub kwdefaults: u64,
    /// `func_closure`.
    pub closure: u64,
    /// `func_dict`.
    pub dict: u64,
    /// `func_module`.
    pub module: u64,
    /// `vectorcall`.
    pub vectorcall: u64,
    /// `func_version`, 32 bits (3.11+).
    pub version: Option<u64>,
}

/// Offsets in `PyCodeObject`.
#[derive(Debug, PartialEq, Eq)]
pub struct CodeOffsets {
    /// `co_argcount`, 32 bits, as the next four.
    pub argcount: u64,
    /// `co_kwonlyargcount`.
    pub kwonlyargcount: u64,
    /// `co_flags`.
    pub flags: u64,
    /// `co_firstlineno`.
    pub firstlineno: u64,
    /// `co_names`.
    pub names: u64,
    /// `co_consts`.
    pub consts: u64,
    /// `co_name`.
    pub name: u64,
    /// `co_filename`.
    pub filename: u64,
    /// `co_localsplusnames`, or `co_varnames` on 3.10: arguments first.
    pub locals: u64,
    /// `co_localspluskinds` (`bytes`), or `co_freevars` (a tuple of names) on 3.10.
    pub free: u64,
}

/// `PyModuleObject.md_dict`.
pub const MODULE_DICT: u64 = 16;
/// `cm_callable`, `sm_callable` and `prop_get`: what a class method, static method or property holds.
pub const WRAPPER_CALLABLE: u64 = 16;
/// `PyCellObject.ob_ref`.
pub const CELL_VALUE: u64 = 16;
/// `PyDescrObject.d_name`.
pub const DESCRIPTOR_NAME: u64 = 24;
/// `PyMemberDescrObject.d_member`.
pub const DESCRIPTOR_MEMBER: u64 = 40;
/// `PyMemberDef.type`, 32 bits.
pub const MEMBER_TYPE: u64 = 8;
/// `PyMemberDef.offset`.
pub const MEMBER_OFFSET: u64 = 16;
/// `PyTypeObject.tp_name`.
pub const TYPE_NAME: u64 = 24;
/// `PyTypeObject.tp_dict`.
pub const TYPE_DICT: u64 = 264;
/// `PyTypeObject.tp_mro`.
pub const TYPE_MRO: u64 = 344;
/// `Py_TPFLAGS_TYPE_SUBCLASS`: instances are classes.
pub const FLAG_TYPE: u64 = 1 << 31;

/// The offsets for a minor version; `None` for one that is not known.
pub fn offsets(minor: u8) -> Option<&'static Offsets> {
    [
        &v3_10::OFFSETS,
        &v3_11::OFFSETS,
        &v3_12::OFFSETS,
        &v3_13::OFFSETS,
        &v3_14::OFFSETS,
    ]
    .into_iter()
    .find(|offsets| offsets.minor == minor)
}

/// A checked layout: offsets and addresses that hold in one process, and in its forked children.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Field offsets.
    pub offsets: &'static Offsets,
    /// Full version, from `sys.hexversion`.
    pub version: Version,
    /// `sys.hexversion`.
    pub hexversion: u32,
    /// Addresses of the interpreter's symbols.
    pub symbols: Symbols,
    /// The main `PyInterpreterState`.
    pub interpreter: u64,
    /// The interpreter's own vectorcall function for Python functions, which functions have unless someone changed it.
    pub default_vectorcall: u64,
    /// Where the pointer to the dictionary of interned strings lies, if that is known: in the interpreter's state
    /// (3.12+), or in a variable found by its value.
    pub(super) interned: Option<u64>,
    /// The string hash, if it could be confirmed on a live string.
    pub(super) hash: Option<HashKey>,
    /// What the kernel side needs.
    pub kernel: KernelLayout,
}

impl Layout {
    /// A layout whose addresses are not checked: what the readers use during the check itself.
    pub(super) fn unchecked(offsets: &'static Offsets, version: Version, symbols: Symbols) -> Self {
        let kernel = KernelLayout {
            none: symbols.none,
            true_: symbols.true_,
            false_: symbols.false_,
            type_int: symbols.type_int,
            type_float: symbols.type_float,
            type_str: symbols.type_str,
            type_bytes: symbols.type_bytes,
            type_set: symbols.type_set,
            type_frozenset: symbols.type_frozenset,
            type_deque: 0,
            type_list: symbols.type_list,
            type_tuple: symbols.type_tuple,
            type_dict: symbols.type_dict,
            ..offsets.kernel
        };
        Self {
            offsets,
            version,
            hexversion: 0,
            symbols,
            interpreter: 0,
            default_vectorcall: 0,
            interned: None,
            hash: None,
            kernel,
        }
    }

    /// Whether a changed `vectorcall` takes effect for calls from specialised bytecode. False on 3.11, where another
    /// way to redirect is needed.
    pub fn honours_vectorcall(&self) -> bool {
        self.offsets.honours_vectorcall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_supported_minor_has_offsets() {
        for minor in 10..=14 {
            assert_eq!(offsets(minor).map(|offsets| offsets.minor), Some(minor));
        }
        assert_eq!(offsets(9), None);
        assert_eq!(offsets(15), None);
    }

    /// What `PyFunction_SetVectorcall` changes must be aligned for a store that no reader sees half done.
    #[test]
    fn written_fields_are_aligned() {
        for offsets in (10..=14).filter_map(offsets) {
            assert_eq!(offsets.function.vectorcall % 8, 0);
            assert_eq!(offsets.function.version.unwrap_or(0) % 4, 0);
        }
    }
}
