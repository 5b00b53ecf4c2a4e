//! Classes and modules.

use profilemate_common::python::{FLAG_HEAP_TYPE, TYPE_BASICSIZE};

use super::{Entry, Objects};
use crate::target::python::layout::{
    DESCRIPTOR_MEMBER, DESCRIPTOR_NAME, FLAG_TYPE, MEMBER_OFFSET, MEMBER_TYPE, MODULE_DICT,
    TYPE_DICT, TYPE_MRO,
};
use crate::target::python::memory::ReadBytes;

/// Classes in a method resolution order, at most.
const MRO: usize = 256;
/// `T_OBJECT` and `T_OBJECT_EX`: a member that is a pointer to an object.
const MEMBER_OBJECT: [i32; 2] = [6, 16];
/// Longest instance that is believed, bytes.
const BASICSIZE: i64 = 1 << 16;

impl<M: ReadBytes> Objects<'_, M> {
    /// Whether the object is a class.
    pub fn is_class(&self, object: u64) -> bool {
        self.has_flag(object, FLAG_TYPE)
    }

    /// Whether the object is a module (or an instance of a subclass of one).
    pub fn is_module(&self, object: u64) -> bool {
        let module = self.layout.symbols.type_module;
        self.type_of(object).is_some_and(|class| {
            class == module || self.mro(class).is_some_and(|mro| mro.contains(&module))
        })
    }

    /// The dictionary of a module.
    pub fn module_dict(&self, module: u64) -> Option<u64> {
        self.is_module(module)
            .then(|| self.pointer(module.checked_add(MODULE_DICT)?))?
    }

    /// The classes in which attributes of instances of `class` are looked up, itself first.
    pub fn mro(&self, class: u64) -> Option<Vec<u64>> {
        let mro = self.tuple(self.pointer(class.checked_add(TYPE_MRO)?)?, MRO)?;
        (mro.first() == Some(&class)).then_some(mro)
    }

    /// The class's own dictionary. `None` for built-in types from 3.12 on, which keep it elsewhere.
    pub fn class_dict(&self, class: u64) -> Option<u64> {
        self.pointer(class.checked_add(TYPE_DICT)?)
    }

    /// What the class or the first of its bases that has it holds under `name`, and which of them that is.
    pub fn class_attribute(&self, class: u64, name: &str) -> Option<(u64, Entry)> {
        if !self.is_class(class) {
            return None;
        }
        self.mro(class)?.into_iter().find_map(|base| {
            let entry = self.dict_lookup(self.class_dict(base)?, name)??;
            Some((base, entry))
        })
    }

    /// Whether a class was made by a `class` statement (or as one at run time), so that it has shared keys.
    pub fn is_heap_class(&self, class: u64) -> bool {
        self.type_flags(class)
            .is_some_and(|flags| flags & FLAG_HEAP_TYPE != 0)
    }

    /// The shared keys of a class's instances.
    pub fn shared_keys(&self, class: u64) -> Option<super::Keys> {
        if !self.is_class(class) || !self.is_heap_class(class) {
            return None;
        }
        let keys =
            self.pointer(class.checked_add(u64::from(self.layout.kernel.type_cached_keys))?)?;
        self.keys(keys)
    }

    /// Position of attribute `name` among the shared keys of a class's instances.
    pub fn shared_key_index(&self, class: u64, name: &str) -> Option<u32> {
        let keys = self.shared_keys(class)?;
        self.key_entries(&keys)?
            .into_iter()
            .find(|entry| self.is_text(entry.key, name))
            .map(|entry| entry.index)
    }

    /// Where a slot named `name` lies in an instance, bytes: what a member descriptor for an object says.
    pub fn member_offset(&self, descriptor: u64, class: u64, name: &str) -> Option<i32> {
        if !self.is_exact(descriptor, self.layout.symbols.type_member)
            || !self.is_text(
                self.pointer(descriptor.checked_add(DESCRIPTOR_NAME)?)?,
                name,
            )
        {
            return None;
        }
        let member = self.pointer(descriptor.checked_add(DESCRIPTOR_MEMBER)?)?;
        let kind: i32 = self.memory.read(member.checked_add(MEMBER_TYPE)?)?;
        let offset: i64 = self.memory.read(member.checked_add(MEMBER_OFFSET)?)?;
        let basicsize: i64 = self.memory.read(class.checked_add(TYPE_BASICSIZE)?)?;
        let fits = offset % 8 == 0 && (16..BASICSIZE).contains(&offset) && offset + 8 <= basicsize;
        (MEMBER_OBJECT.contains(&kind) && fits).then_some(offset as i32)
    }
}
