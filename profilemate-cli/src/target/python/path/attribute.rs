//! How an attribute is reached in instances of a class that may be known.

use profilemate_common::memory::Memory;
use profilemate_common::path::NO_INDEX;
use profilemate_common::python::{FLAG_MANAGED_DICT, TYPE_DICTOFFSET, TYPE_FLAGS};

use super::compile::Compiler;
use super::error::CompileError;
use crate::target::python::memory::ReadBytes;

/// How an attribute is reached.
pub(super) struct Reach {
    /// Whether at a fixed offset (a slot) instead of by name.
    pub(super) load: bool,
    /// Position among the shared keys of `expected`, or `NO_INDEX`.
    pub(super) index: u32,
    /// Bytes into the object, for a slot.
    pub(super) offset: i32,
    /// The name's interned string.
    pub(super) key: u64,
    /// The class for which this holds, or 0.
    pub(super) expected: u64,
}

impl<M: ReadBytes> Compiler<'_, '_, '_, M> {
    /// How attribute `name` is reached in an instance, of `class` if that is known.
    pub(super) fn reach(&self, class: Option<u64>, name: &str) -> Result<Reach, CompileError> {
        let by_name = |index, expected| -> Result<Reach, CompileError> {
            Ok(Reach {
                load: false,
                index,
                offset: 0,
                key: self.name(name)?,
                expected,
            })
        };
        let Some(class) = class else {
            return by_name(NO_INDEX, 0);
        };
        let objects = self.interned.resolver().objects();
        let class_name = || {
            objects
                .type_name(class)
                .unwrap_or_else(|| "the class".to_owned())
        };
        if let Some((_, entry)) = objects.class_attribute(class, name) {
            let symbols = &self.interned.resolver().layout().symbols;
            let kind = objects.type_of(entry.value).unwrap_or(0);
            if kind == symbols.type_member {
                let offset = objects
                    .member_offset(entry.value, class, name)
                    .ok_or_else(|| CompileError::NotAnObject {
                        class: class_name(),
                        name: name.to_owned(),
                    })?;
                return Ok(Reach {
                    load: true,
                    index: NO_INDEX,
                    offset,
                    key: self.name(name)?,
                    expected: class,
                });
            }
            let descriptors = [
                symbols.type_property,
                symbols.type_function,
                symbols.type_staticmethod,
                symbols.type_classmethod,
            ];
            if descriptors.contains(&kind) {
                let what = objects.type_name(kind).unwrap_or_default();
                return Err(CompileError::RunsCode {
                    class: class_name(),
                    name: name.to_owned(),
                    what,
                });
            }
        }
        if !self.has_instance_dict(class) {
            return Err(CompileError::NoAttribute {
                class: class_name(),
                name: name.to_owned(),
            });
        }
        match objects.shared_key_index(class, name) {
            Some(index) => by_name(index, class),
            None => by_name(NO_INDEX, 0),
        }
    }

    fn has_instance_dict(&self, class: u64) -> bool {
        let objects = self.interned.resolver().objects();
        let flags = objects
            .memory
            .read::<u64>(class.wrapping_add(TYPE_FLAGS))
            .unwrap_or(0);
        let managed =
            self.interned.resolver().layout().version.minor >= 11 && flags & FLAG_MANAGED_DICT != 0;
        managed
            || objects
                .memory
                .read::<i64>(class.wrapping_add(TYPE_DICTOFFSET))
                .is_some_and(|offset| offset != 0)
    }
}
