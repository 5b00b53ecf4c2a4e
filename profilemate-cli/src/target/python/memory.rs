//! Bytes of another process.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use bytemuck::Pod;
use profilemate_common::memory::Memory;

/// Memory that can be read in bulk.
pub trait ReadBytes: Memory {
    /// Fills `into` from `address`. False, with `into` in any state, if not all of it is readable.
    fn read_bytes(&self, address: u64, into: &mut [u8]) -> bool;

    /// Reads `count` words.
    fn read_words(&self, address: u64, count: usize) -> Option<Vec<u64>> {
        let mut words = vec![0u64; count];
        self.read_bytes(address, bytemuck::cast_slice_mut(&mut words))
            .then_some(words)
    }

    /// Told by a [`Snapshot`] of this memory what is read of the pages that it has cached.
    #[cfg(test)]
    fn note(&self, _address: u64, _len: usize) {}
}

/// A live process's memory, by `process_vm_readv`. Needs no stop and leaves no trace in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessMemory {
    /// Process id.
    pub pid: u32,
}

/// First address that no user mapping of x86-64 or arm64 reaches.
const ADDRESS_END: u64 = 1 << 56;
/// Below this nothing is mapped (`vm.mmap_min_addr` is at least a page wherever Python runs).
const ADDRESS_START: u64 = 4096;

/// Whether `len` bytes at `address` may lie in a user address space at all.
pub fn plausible(address: u64, len: usize) -> bool {
    address >= ADDRESS_START
        && address
            .checked_add(len as u64)
            .is_some_and(|end| end <= ADDRESS_END)
}

impl ReadBytes for ProcessMemory {
    fn read_bytes(&self, address: u64, into: &mut [u8]) -> bool {
        if into.is_empty() {
            return true;
        }
        if !plausible(address, into.len()) {
            return false;
        }
        crate::sys::vm::read(self.pid, address, into).is_ok()
    }
}

impl Memory for ProcessMemory {
    fn read<T: Pod>(&self, address: u64) -> Option<T> {
        let mut value = T::zeroed();
        self.read_bytes(address, bytemuck::bytes_of_mut(&mut value))
            .then_some(value)
    }
}

/// Bytes of a cached page.
const PAGE: usize = 4096;
/// Pages kept by one snapshot, 64 MiB.
const PAGES: usize = 16384;
/// Reads that one pass may make. The largest honest pass seen (all of vLLM's methods and names) makes under 100,000.
const READS: u32 = 4_000_000;

/// Caches pages of another memory for one pass over it, and bounds the pass: after a fixed number of reads every
/// further one fails, so that no pass over hostile memory goes on for long.
///
/// A pass sees each page as it was when first read. [`Snapshot::refresh`] begins the next pass.
pub struct Snapshot<'m, M> {
    memory: &'m M,
    pages: RefCell<HashMap<u64, Option<Box<[u8; PAGE]>>>>,
    reads_left: Cell<u32>,
}

impl<'m, M: ReadBytes> Snapshot<'m, M> {
    /// Begins a pass over `memory`.
    pub fn new(memory: &'m M) -> Self {
        Self {
            memory,
            pages: RefCell::default(),
            reads_left: Cell::new(READS),
        }
    }

    /// As [`Snapshot::new`], with another bound on the number of reads.
    pub fn with_reads(memory: &'m M, reads: u32) -> Self {
        Self {
            memory,
            pages: RefCell::default(),
            reads_left: Cell::new(reads),
        }
    }

    /// Forgets what was read and begins another pass.
    pub fn refresh(&self) {
        self.pages.borrow_mut().clear();
        self.reads_left.set(READS);
    }

    /// Reads made in this pass.
    pub fn reads(&self) -> u32 {
        READS.saturating_sub(self.reads_left.get())
    }

    /// The memory under the cache.
    pub fn direct(&self) -> &'m M {
        self.memory
    }

    fn copy_within_page(&self, address: u64, into: &mut [u8]) -> bool {
        let base = address & !(PAGE as u64 - 1);
        let start = (address - base) as usize;
        let mut pages = self.pages.borrow_mut();
        if pages.len() >= PAGES && !pages.contains_key(&base) {
            pages.clear();
        }
        let page = pages.entry(base).or_insert_with(|| {
            let mut bytes = Box::new([0u8; PAGE]);
            self.memory
                .read_bytes(base, &mut bytes[..])
                .then_some(bytes)
        });
        match page {
            Some(bytes) => {
                into.copy_from_slice(&bytes[start..start + into.len()]);
                true
            }
            None => false,
        }
    }
}

impl<M: ReadBytes> ReadBytes for Snapshot<'_, M> {
    fn read_bytes(&self, address: u64, into: &mut [u8]) -> bool {
        let Some(left) = self.reads_left.get().checked_sub(1) else {
            return false;
        };
        self.reads_left.set(left);
        if into.is_empty() {
            return true;
        }
        if !plausible(address, into.len()) {
            return false;
        }
        #[cfg(test)]
        self.memory.note(address, into.len());
        let mut done = 0;
        while done < into.len() {
            let at = address + done as u64;
            let room = PAGE - (at as usize & (PAGE - 1));
            let end = into.len().min(done + room);
            if !self.copy_within_page(at, &mut into[done..end]) {
                return false;
            }
            done = end;
        }
        true
    }
}

impl<M: ReadBytes> Memory for Snapshot<'_, M> {
    fn read<T: Pod>(&self, address: u64) -> Option<T> {
        let mut value = T::zeroed();
        self.read_bytes(address, bytemuck::bytes_of_mut(&mut value))
            .then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> ProcessMemory {
        ProcessMemory {
            pid: std::process::id(),
        }
    }

    #[test]
    fn reads_own_bytes_across_pages() {
        let bytes: Vec<u8> = (0..20_000u32).map(|i| (i * 7) as u8).collect();
        let mut copy = vec![0; bytes.len()];
        assert!(own().read_bytes(bytes.as_ptr() as u64, &mut copy));
        assert_eq!(copy, bytes);
        let memory = own();
        let snapshot = Snapshot::new(&memory);
        let mut copy = vec![0; bytes.len()];
        assert!(snapshot.read_bytes(bytes.as_ptr() as u64, &mut copy));
        assert_eq!(copy, bytes);
    }

    #[test]
    fn refuses_what_cannot_be_there() {
        for address in [0, 8, u64::MAX, u64::MAX - 3, 1 << 56, 0xffff_8000_0000_0000] {
            assert_eq!(own().read::<u64>(address), None, "{address:#x}");
            assert_eq!(
                Snapshot::new(&own()).read::<u64>(address),
                None,
                "{address:#x}"
            );
        }
    }

    #[test]
    fn a_pass_is_bounded() {
        let (value, memory) = (7u64, own());
        let snapshot = Snapshot::with_reads(&memory, 3);
        let address = &raw const value as u64;
        let got: Vec<_> = (0..5).map(|_| snapshot.read::<u64>(address)).collect();
        assert_eq!(got, [Some(7), Some(7), Some(7), None, None]);
        snapshot.refresh();
        assert_eq!(snapshot.read::<u64>(address), Some(7));
    }
}
