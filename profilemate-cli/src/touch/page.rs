//! A marker page in a process, as the tracer sees it.

use std::fs::File;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use bytemuck::{Pod, Zeroable};
use profilemate_common::page::{
    CODE_SIZE, Head, LOG_OFFSET, LOG_SIZE, MAGIC, MODE_OFF, Mode, SLOT_OFFSET, SLOT_STRIDE, SLOTS,
    SWAP_OFFSET, SWAPS, Slot, Swap, VERSION,
};

use super::log::PageLog;
use super::mapping::{Mapping, mappings};
use super::redirect::{Restored, restore_all};
use super::{Error, code};
use crate::event::SlotCounters;
use crate::sys::{lock, vm};

/// A page mapped in a process. Dropping it changes nothing in the process; it gives up the lock.
#[derive(Debug)]
pub struct MarkerPage {
    pid: u32,
    mapping: Mapping,
    memfd: OwnedFd,
    stood_ns: Option<u64>,
    current: bool,
}

impl MarkerPage {
    /// Finds or makes the page of process `pid`, locks it, and puts back what a killed tracer left redirected.
    ///
    /// `original` is the interpreter's own vectorcall function. `held` are the pages that this tracer holds already:
    /// a forked child has its parent's page, and with it the parent's lock. It is given a page of its own, whose slots
    /// can hold other methods than its parent's; but for callables of the helper's, which pass through theirs for good.
    pub fn acquire(pid: u32, original: u64, held: &[&Self]) -> Result<(Self, Restored), Error> {
        let mut undone = Restored::default();
        let mut usable = None;
        for found in Self::find_all(pid)? {
            let relative = held.iter().find(|page| page.inode() == found.inode());
            let page = match relative {
                Some(relative) => relative.inherited_by(pid)?.unwrap_or(found),
                None => found,
            };
            page.lock()?;
            undone = undone.and(restore_all(&page)?);
            let own = relative.is_none() || page.slots()?.iter().any(|slot| slot.callee != 0);
            if usable.is_none() && own && page.current && page.original()? == original {
                usable = Some(page);
            }
        }
        if let Some(page) = usable {
            return Ok((page, undone));
        }
        let page = Self::create(pid, original)?;
        page.lock()?;
        Ok((page, undone))
    }

    /// Maps a new page into process `pid`, whose slots call `original`. Stops one thread for a moment.
    pub fn create(pid: u32, original: u64) -> Result<Self, Error> {
        let code = code::bytes()?;
        let mapped = map(pid)?;
        let head = Head {
            magic: MAGIC,
            version: VERSION,
            slots: SLOTS as u32,
            original,
            thread_id_offset: mapped.thread_id_offset.unwrap_or(0),
            ..Head::zeroed()
        };
        // The pages are mapped privately, and still shared with the file because nobody has written to them.
        let file = File::from(mapped.memfd);
        let written = file
            .set_len((LOG_OFFSET + LOG_SIZE) as u64)
            .and_then(|()| file.write_all_at(code, 0))
            .and_then(|()| file.write_all_at(bytemuck::bytes_of(&head), CODE_SIZE as u64));
        written.map_err(|source| Error::Memory {
            pid,
            address: mapped.base,
            source,
        })?;
        let wanted = Mapping {
            base: mapped.base,
            inode: mapped.inode,
            log: true,
        };
        if !mappings(pid)?.contains(&wanted) {
            return Err(Error::NotOurs {
                pid,
                what: "it is not mapped where it was put",
            });
        }
        let page = Self::validated(pid, wanted, file.into(), Some(mapped.stood_ns))?;
        match page {
            Some(page) if page.current => Ok(page),
            _ => Err(Error::NotOurs {
                pid,
                what: "its code reads back differently",
            }),
        }
    }

    /// The page of process `pid`: its own, or the one that it inherited when it was forked.
    pub fn find(pid: u32) -> Result<Option<Self>, Error> {
        let mut pages = Self::find_all(pid)?;
        let best = pages.iter().position(|page| page.current).unwrap_or(0);
        Ok((!pages.is_empty()).then(|| pages.swap_remove(best)))
    }

    /// All pages of process `pid`. There can be more than one after an upgrade of the tool.
    pub fn find_all(pid: u32) -> Result<Vec<Self>, Error> {
        let mut pages = Vec::new();
        for mapping in mappings(pid)? {
            let memfd = mapping.open(pid)?;
            pages.extend(Self::validated(pid, mapping, memfd, None)?);
        }
        Ok(pages)
    }

    /// The same page in a forked child: the child has its own data, and the lock is shared.
    pub fn inherited_by(&self, child: u32) -> Result<Option<Self>, Error> {
        if !mappings(child)?.contains(&self.mapping) {
            return Ok(None);
        }
        let memfd = self.memfd.try_clone().map_err(Error::Lock)?;
        Self::validated(child, self.mapping, memfd, None)
    }

    /// Believes a mapping only if its data says what a page says. `None` if it is no page (yet).
    fn validated(
        pid: u32,
        mapping: Mapping,
        memfd: OwnedFd,
        stood_ns: Option<u64>,
    ) -> Result<Option<Self>, Error> {
        let mut page = Self {
            pid,
            mapping,
            memfd,
            stood_ns,
            current: false,
        };
        let Ok(head) = page.head() else {
            return Ok(None);
        };
        if head.magic != MAGIC {
            return Ok(None);
        }
        if head.version != VERSION || head.slots as usize != SLOTS {
            return Err(Error::OtherVersion {
                pid,
                version: head.version,
            });
        }
        let mut found = vec![0; CODE_SIZE];
        page.read_at(0, &mut found)?;
        page.current = code::is_ours(&found);
        Ok(Some(page))
    }

    /// Takes the lock that tells other tracers that this one is alive; the kernel frees it when this process ends.
    ///
    /// Processes that share the page by `fork` share its lock: use [`MarkerPage::inherited_by`] for them.
    pub fn lock(&self) -> Result<(), Error> {
        if !lock::try_exclusive(&self.memfd).map_err(Error::Lock)? {
            return Err(Error::AnotherTracer {
                pid: self.pid,
                tracer: self.head()?.tracer,
            });
        }
        self.write_data(offset_of!(Head, tracer), &std::process::id().to_ne_bytes())
    }

    /// The tracer that holds the lock, as process id in its own pid namespace; `None` if nobody does. Writes nothing:
    /// the lock is on the file, and is held for the moment in which it is tried.
    pub fn holder(&self) -> Result<Option<u32>, Error> {
        if lock::try_exclusive(&self.memfd).map_err(Error::Lock)? {
            self.unlock()?;
            return Ok(None);
        }
        Ok(Some(self.head()?.tracer))
    }

    /// Gives the lock back.
    pub fn unlock(&self) -> Result<(), Error> {
        lock::release(&self.memfd).map_err(Error::Lock)
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Address of the code in the process.
    pub fn base(&self) -> u64 {
        self.mapping.base
    }

    /// Inode of the memfd. A forked child's page has the same.
    pub fn inode(&self) -> u64 {
        self.mapping.inode
    }

    /// A reader of the page's log, of what is written from now on; `None` if the page has no log, or its process does
    /// not tell its threads apart by a known word. A forked child writes into the same log.
    pub fn log(&self) -> Result<Option<PageLog>, Error> {
        if !self.mapping.log || self.head()?.thread_id_offset == 0 {
            return Ok(None);
        }
        let memfd = File::from(self.memfd.try_clone().map_err(Error::Lock)?);
        let failed = |source| self.failed(self.base() + LOG_OFFSET as u64, source);
        PageLog::new(memfd).map(Some).map_err(failed)
    }

    /// For how long one thread stood while the page was mapped, in nanoseconds; `None` if the page was found.
    pub fn stood_ns(&self) -> Option<u64> {
        self.stood_ns
    }

    /// Whether the code is this build's. Another build's page can only be restored.
    pub fn is_current(&self) -> bool {
        self.current
    }

    /// The memfd, to put uprobes on. Offsets in it are [`super::MARK_NOP1_OFFSET`] and [`super::MARK_NOP5_OFFSET`].
    pub fn memfd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }

    /// A path that names the memfd for as long as this page is held by this process.
    pub fn uprobe_path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.memfd.as_raw_fd()).into()
    }

    /// Where a redirected `vectorcall` pointer of `slot` points to.
    pub fn vectorcall_address(&self, slot: u8) -> u64 {
        self.base() + code::vectorcall_stub(slot) as u64
    }

    /// Whether the `vectorcall` pointer at `address` points into `slot`.
    pub fn redirects(&self, slot: u8, address: u64) -> bool {
        self.read_target::<u64>(address)
            .is_ok_and(|pointer| pointer == self.vectorcall_address(slot))
    }

    /// Where a C method (`METH_FASTCALL | METH_KEYWORDS`) that stands in for the slot's function points to. Set
    /// [`MarkerPage::set_callee`] before anybody can call it.
    pub fn method_address(&self, slot: u8) -> u64 {
        self.base() + code::method_stub(slot) as u64
    }

    /// The head of the data.
    pub fn head(&self) -> Result<Head, Error> {
        let mut head = Head::zeroed();
        self.read_at(CODE_SIZE, bytemuck::bytes_of_mut(&mut head))?;
        Ok(head)
    }

    /// The function that every slot calls.
    pub fn original(&self) -> Result<u64, Error> {
        Ok(self.head()?.original)
    }

    /// All slots.
    pub fn slots(&self) -> Result<Vec<Slot>, Error> {
        let mut slots = vec![Slot::zeroed(); SLOTS];
        self.read_at(
            CODE_SIZE + SLOT_OFFSET,
            bytemuck::cast_slice_mut(&mut slots),
        )?;
        Ok(slots)
    }

    /// Counters of the slots in use, since the page was mapped.
    pub fn counters(&self) -> Result<Vec<SlotCounters>, Error> {
        let slots = (0_u8..)
            .zip(self.slots()?)
            .filter(|(_, slot)| slot.function != 0);
        let counters = slots.map(|(number, slot)| SlotCounters {
            slot: number,
            calls: slot.calls,
            marks: slot.marks,
            cycles: slot.cycles,
            histogram: (0_u8..)
                .zip(slot.histogram)
                .filter(|(_, calls)| *calls != 0)
                .collect(),
        });
        Ok(counters.collect())
    }

    /// Sets what a slot does with calls. The modes differ in one byte only, so no call sees half of it.
    pub fn set_mode(&self, slot: u8, mode: Mode) -> Result<(), Error> {
        self.write_slot(slot, offset_of!(Slot, mode), &mode.to_ne_bytes())
    }

    /// Sets the object whose return makes no event. Do it while the mode lacks
    /// [`profilemate_common::page::MODE_SKIP`].
    pub fn set_skip(&self, slot: u8, object: u64) -> Result<(), Error> {
        self.write_slot(slot, offset_of!(Slot, skip), &object.to_ne_bytes())
    }

    /// Writes the journal: which function a slot belongs to, and how far into it the redirected pointer lies.
    pub fn set_function(&self, slot: u8, function: u64, pointer_offset: u32) -> Result<(), Error> {
        // The function last: a journal entry without it does not count.
        self.write_slot(
            slot,
            offset_of!(Slot, pointer_offset),
            &pointer_offset.to_ne_bytes(),
        )?;
        self.write_slot(slot, offset_of!(Slot, function), &function.to_ne_bytes())
    }

    /// Sets the function that the slot's C method calls.
    pub fn set_callee(&self, slot: u8, callee: u64) -> Result<(), Error> {
        self.write_slot(slot, offset_of!(Slot, callee), &callee.to_ne_bytes())
    }

    /// Frees a slot. The callee stays: a call may have entered the slot and not read it yet.
    pub(super) fn free(&self, slot: u8) -> Result<(), Error> {
        self.set_mode(slot, MODE_OFF)?;
        self.write_slot(slot, offset_of!(Slot, function), &0_u64.to_ne_bytes())
    }

    pub(super) fn require_usable(&self) -> Result<(), Error> {
        if self.current {
            Ok(())
        } else {
            Err(Error::OtherBuild { pid: self.pid })
        }
    }

    pub(super) fn write_swaps(&self, swaps: &[Swap]) -> Result<(), Error> {
        let swaps = &swaps[..swaps.len().min(SWAPS)];
        self.write_data(SWAP_OFFSET, bytemuck::cast_slice(swaps))?;
        self.write_data(
            offset_of!(Head, swap_count),
            &(swaps.len() as u32).to_ne_bytes(),
        )
    }

    pub(super) fn read_swaps(&self, count: usize) -> Result<Vec<Swap>, Error> {
        let mut swaps = vec![Swap::zeroed(); count.min(SWAPS)];
        self.read_at(
            CODE_SIZE + SWAP_OFFSET,
            bytemuck::cast_slice_mut(&mut swaps),
        )?;
        Ok(swaps)
    }

    /// Reads a value of the process.
    pub(super) fn read_target<T: Pod>(&self, address: u64) -> Result<T, Error> {
        vm::read_value(self.pid, address).map_err(|source| self.failed(address, source))
    }

    fn read_at(&self, offset: usize, into: &mut [u8]) -> Result<(), Error> {
        let address = self.base() + offset as u64;
        vm::read(self.pid, address, into).map_err(|source| self.failed(address, source))
    }

    fn write_slot(&self, slot: u8, offset: usize, from: &[u8]) -> Result<(), Error> {
        if usize::from(slot) >= SLOTS {
            return Err(Error::NoSuchSlot { slot });
        }
        self.write_data(SLOT_OFFSET + usize::from(slot) * SLOT_STRIDE + offset, from)
    }

    fn write_data(&self, offset: usize, from: &[u8]) -> Result<(), Error> {
        let address = self.base() + (CODE_SIZE + offset) as u64;
        vm::write(self.pid, address, from).map_err(|source| self.failed(address, source))
    }

    fn failed(&self, address: u64, source: std::io::Error) -> Error {
        if source.raw_os_error() == Some(libc::ESRCH) {
            Error::Gone { pid: self.pid }
        } else {
            Error::Memory {
                pid: self.pid,
                address,
                source,
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn map(pid: u32) -> Result<super::inject::Mapped, Error> {
    super::inject::map(pid)
}

#[cfg(not(target_arch = "x86_64"))]
struct Mapped {
    base: u64,
    memfd: OwnedFd,
    inode: u64,
    thread_id_offset: Option<u32>,
    stood_ns: u64,
}

#[cfg(not(target_arch = "x86_64"))]
fn map(_: u32) -> Result<Mapped, Error> {
    Err(Error::Architecture {
        missing: "the injection of system calls",
    })
}
