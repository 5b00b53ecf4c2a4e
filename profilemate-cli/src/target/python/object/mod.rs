//! Readers of Python objects in another process. Every one checks the object's type, bounds every size, and returns
//! `None` for whatever cannot be read or is not what it should be.

use profilemate_common::python::{OB_TYPE, TYPE_FLAGS};

use super::layout::{Layout, TYPE_NAME};
use super::memory::ReadBytes;

mod class;
mod dict;
mod function;
mod scalar;
mod sequence;
mod text;

#[cfg(test)]
mod tests;

pub use dict::{Entry, Keys};
pub use function::{Code, FunctionObject, Local};

/// Items of a dictionary that are read, at most.
pub const DICT_ITEMS: usize = 1 << 20;
/// Items of a tuple or list that are read, at most.
pub const SEQUENCE_ITEMS: usize = 1 << 16;
/// Characters of a string that are read, at most: file names are the longest of interest.
pub const TEXT_LENGTH: usize = 4096;

/// Objects in `memory`, laid out as `layout` says.
pub struct Objects<'a, M> {
    /// The memory.
    pub memory: &'a M,
    /// The layout.
    pub layout: &'a Layout,
}

impl<M> Clone for Objects<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Objects<'_, M> {}

impl<'a, M: ReadBytes> Objects<'a, M> {
    /// Objects in `memory`, laid out as `layout` says.
    pub fn new(memory: &'a M, layout: &'a Layout) -> Self {
        Self { memory, layout }
    }

    /// A pointer field; `None` if it is null, too.
    pub fn pointer(&self, address: u64) -> Option<u64> {
        self.memory
            .read::<u64>(address)
            .filter(|pointer| *pointer != 0 && pointer.is_multiple_of(8))
    }

    /// The object's type.
    pub fn type_of(&self, object: u64) -> Option<u64> {
        self.pointer(object.checked_add(OB_TYPE)?)
    }

    /// Whether the object's type is `class` itself, no subclass.
    pub fn is_exact(&self, object: u64, class: u64) -> bool {
        self.type_of(object) == Some(class)
    }

    /// The flags of a type.
    pub fn type_flags(&self, class: u64) -> Option<u64> {
        self.memory.read(class.checked_add(TYPE_FLAGS)?)
    }

    /// Whether the object is an instance of a built-in type or a subclass of it, by its type's flag.
    pub fn has_flag(&self, object: u64, flag: u64) -> bool {
        self.type_of(object)
            .and_then(|class| self.type_flags(class))
            .is_some_and(|flags| flags & flag != 0)
    }

    /// `tp_name` of a type.
    pub fn type_name(&self, class: u64) -> Option<String> {
        self.c_string(self.pointer_any(class.checked_add(TYPE_NAME)?)?)
    }

    /// `tp_name` of the object's type.
    pub fn type_name_of(&self, object: u64) -> Option<String> {
        self.type_name(self.type_of(object)?)
    }

    /// A pointer that need not be aligned; `None` if it is null.
    fn pointer_any(&self, address: u64) -> Option<u64> {
        self.memory
            .read::<u64>(address)
            .filter(|pointer| *pointer != 0)
    }

    /// A C string of at most 255 printable characters.
    pub fn c_string(&self, address: u64) -> Option<String> {
        let mut bytes = Vec::new();
        for offset in 0..256 {
            let byte: u8 = self.memory.read(address.checked_add(offset)?)?;
            if byte == 0 {
                return String::from_utf8(bytes).ok();
            }
            if byte < b' ' {
                return None;
            }
            bytes.push(byte);
        }
        None
    }
}
