//! `tuple` and `list`.

use profilemate_common::python::{FLAG_LIST, FLAG_TUPLE, LIST_ITEMS, OB_SIZE};

use super::{Objects, SEQUENCE_ITEMS};
use crate::target::python::memory::ReadBytes;

impl<M: ReadBytes> Objects<'_, M> {
    fn size(&self, object: u64, limit: usize) -> Option<usize> {
        let size = usize::try_from(self.memory.read::<i64>(object.checked_add(OB_SIZE)?)?).ok()?;
        (size <= limit).then_some(size)
    }

    /// The items of a `tuple` of at most `limit` items.
    pub fn tuple(&self, object: u64, limit: usize) -> Option<Vec<u64>> {
        if !self.has_flag(object, FLAG_TUPLE) {
            return None;
        }
        let size = self.size(object, limit.min(SEQUENCE_ITEMS))?;
        self.memory.read_words(
            object.checked_add(u64::from(self.layout.kernel.tuple_items))?,
            size,
        )
    }

    /// The items of a `list` of at most `limit` items.
    pub fn list(&self, object: u64, limit: usize) -> Option<Vec<u64>> {
        if !self.has_flag(object, FLAG_LIST) {
            return None;
        }
        let size = self.size(object, limit.min(SEQUENCE_ITEMS))?;
        if size == 0 {
            return Some(Vec::new());
        }
        let items = self.pointer(object.checked_add(LIST_ITEMS)?)?;
        self.memory.read_words(items, size)
    }

    /// The texts of a tuple of `str`.
    pub fn names(&self, tuple: u64, limit: usize) -> Option<Vec<(String, u64)>> {
        self.tuple(tuple, limit)?
            .into_iter()
            .map(|name| Some((self.text(name)?, name)))
            .collect()
    }

    /// A `bytes` object of at most `limit` bytes.
    pub fn bytes(&self, object: u64, limit: usize) -> Option<Vec<u8>> {
        use profilemate_common::python::BYTES_DATA;
        if !self.is_exact(object, self.layout.symbols.type_bytes) {
            return None;
        }
        let mut bytes = vec![0; self.size(object, limit)?];
        self.memory
            .read_bytes(object.checked_add(BYTES_DATA)?, &mut bytes)
            .then_some(bytes)
    }
}
