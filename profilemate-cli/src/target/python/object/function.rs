//! Functions and code.

use super::Objects;
use crate::target::python::memory::ReadBytes;

/// Names of a code object that are read, at most.
const NAMES: usize = 4096;
/// `CO_FAST_FREE` in `co_localspluskinds`.
const KIND_FREE: u8 = 0x80;
/// `CO_FAST_CELL`.
const KIND_CELL: u8 = 0x40;
/// `CO_FAST_HIDDEN`: a variable of a comprehension that was inlined (3.12 and newer).
const KIND_HIDDEN: u8 = 0x10;
/// From `co_freevars` to `co_cellvars` (3.10).
const CELLS_AFTER_FREE: u64 = 8;

/// A local variable of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Its name.
    pub name: String,
    /// Which of the frame's variables it is.
    pub index: u32,
    /// Whether a cell holds it, because an inner function uses it or an outer one has it.
    pub is_cell: bool,
}

/// What is read of a `PyFunctionObject`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionObject {
    /// Its code.
    pub code: u64,
    /// Its globals, the dictionary of its module.
    pub globals: u64,
    /// Its qualified name, a `str`.
    pub qualname: u64,
    /// Its closure, a tuple of cells, or 0.
    pub closure: u64,
    /// Its attributes, a `dict`, or 0.
    pub dict: u64,
    /// Its vectorcall pointer.
    pub vectorcall: u64,
    /// Its version, 0 where there is none.
    pub version: u32,
}

/// What is read of a `PyCodeObject`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// Positional arguments.
    pub argcount: u32,
    /// Arguments by keyword only.
    pub kwonlyargcount: u32,
    /// `co_flags`.
    pub flags: u32,
    /// First line.
    pub firstlineno: u32,
    /// File as the interpreter names it.
    pub filename: String,
    /// Names of the arguments, positional ones first, with the addresses of their strings.
    pub arguments: Vec<(String, u64)>,
}

impl<M: ReadBytes> Objects<'_, M> {
    /// Whether the object is a Python function.
    pub fn is_function(&self, object: u64) -> bool {
        self.is_exact(object, self.layout.symbols.type_function)
    }

    /// Reads a function, whose pointers are checked as far as their types are certain.
    pub fn function(&self, object: u64) -> Option<FunctionObject> {
        if !object.is_multiple_of(8) || !self.is_function(object) {
            return None;
        }
        let offsets = &self.layout.offsets.function;
        let word = |offset: u64| self.memory.read::<u64>(object.checked_add(offset)?);
        let function = FunctionObject {
            code: word(offsets.code)?,
            globals: word(offsets.globals)?,
            qualname: word(offsets.qualname)?,
            closure: word(offsets.closure)?,
            dict: word(offsets.dict)?,
            vectorcall: word(offsets.vectorcall)?,
            version: match offsets.version {
                Some(offset) => self.memory.read(object.checked_add(offset)?)?,
                None => 0,
            },
        };
        self.is_exact(function.code, self.layout.symbols.type_code)
            .then_some(function)
    }

    fn code_number(&self, code: u64, offset: u64) -> Option<u32> {
        u32::try_from(self.memory.read::<i32>(code.checked_add(offset)?)?).ok()
    }

    /// Reads a code object.
    pub fn code(&self, code: u64) -> Option<Code> {
        if !self.is_exact(code, self.layout.symbols.type_code) {
            return None;
        }
        let offsets = &self.layout.offsets.code;
        let argcount = self.code_number(code, offsets.argcount)?;
        let kwonlyargcount = self.code_number(code, offsets.kwonlyargcount)?;
        let locals = self.tuple(self.pointer(code.checked_add(offsets.locals)?)?, NAMES)?;
        let count = argcount.checked_add(kwonlyargcount)? as usize;
        let arguments = locals
            .get(..count)?
            .iter()
            .map(|name| Some((self.text(*name)?, *name)));
        Some(Code {
            argcount,
            kwonlyargcount,
            flags: self.code_number(code, offsets.flags)?,
            firstlineno: self.code_number(code, offsets.firstlineno)?,
            filename: self.text(self.pointer(code.checked_add(offsets.filename)?)?)?,
            arguments: arguments.collect::<Option<_>>()?,
        })
    }

    /// Names that a code object uses: attributes and globals, and its locals. Addresses of strings.
    pub fn code_names(&self, code: u64) -> Vec<u64> {
        let offsets = &self.layout.offsets.code;
        let tuple = |offset: u64| self.tuple(self.pointer(code.checked_add(offset)?)?, NAMES);
        let mut names = tuple(offsets.names).unwrap_or_default();
        names.extend(tuple(offsets.locals).unwrap_or_default());
        names
    }

    /// Code objects among the constants of a code object: functions defined inside.
    pub fn inner_code(&self, code: u64) -> Vec<u64> {
        let consts = code
            .checked_add(self.layout.offsets.code.consts)
            .and_then(|at| self.pointer(at));
        let consts = consts
            .and_then(|consts| self.tuple(consts, NAMES))
            .unwrap_or_default();
        consts
            .into_iter()
            .filter(|object| self.is_exact(*object, self.layout.symbols.type_code))
            .collect()
    }

    /// Names of the free variables of a code object, in the order of its functions' closures.
    pub fn free_variables(&self, code: u64) -> Option<Vec<String>> {
        let offsets = &self.layout.offsets.code;
        let free = self.pointer(code.checked_add(offsets.free)?)?;
        if self.layout.offsets.old_keys {
            return Some(
                self.names(free, NAMES)?
                    .into_iter()
                    .map(|(name, _)| name)
                    .collect(),
            );
        }
        let kinds = self.bytes(free, NAMES)?;
        let locals = self.tuple(self.pointer(code.checked_add(offsets.locals)?)?, NAMES)?;
        let names = locals
            .iter()
            .zip(kinds)
            .filter(|(_, kind)| kind & KIND_FREE != 0);
        names.map(|(name, _)| self.text(*name)).collect()
    }

    /// The local variables of a code object's frames, arguments first.
    pub fn locals(&self, code: u64) -> Option<Vec<Local>> {
        let offsets = &self.layout.offsets.code;
        let tuple = |at: u64| self.tuple(self.pointer(code.checked_add(at)?)?, NAMES);
        let names = tuple(offsets.locals)?;
        let mut all = names;
        let kinds: Vec<u8> = if self.layout.offsets.old_keys {
            let plain = all.len();
            all.extend(tuple(offsets.free.checked_add(CELLS_AFTER_FREE)?)?);
            all.extend(tuple(offsets.free)?);
            (0..all.len())
                .map(|index| if index < plain { 0 } else { KIND_CELL })
                .collect()
        } else {
            self.bytes(self.pointer(code.checked_add(offsets.free)?)?, NAMES)?
        };
        let variables = all.iter().zip(kinds).zip(0u32..);
        variables
            .filter(|((_, kind), _)| kind & KIND_HIDDEN == 0)
            .map(|((name, kind), index)| {
                Some(Local {
                    name: self.text(*name)?,
                    index,
                    is_cell: kind & (KIND_CELL | KIND_FREE) != 0,
                })
            })
            .collect()
    }
}
