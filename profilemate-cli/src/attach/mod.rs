//! The kernel side, as the tracer sees it: loads the eBPF object, attaches the marker pages, and speaks with the
//! programs through their maps.
//!
//! Nothing here reads or writes a target. A uprobe on a marker page changes that page's code in every process that
//! maps it, and goes when its [`Link`] is dropped, or with this process.

mod btf;
mod capability;
mod driver;
mod error;
mod nop5;
mod price;
mod program_index;
mod relocated;
mod ring;
mod stack;
mod trial;

pub use capability::{Capabilities, OLDEST_KERNEL};
pub use driver::{DriverLink, DriverSite, Way, detach_drivers};
pub use error::Error;
pub use nop5::{Nop5, probe_nop5};
pub use price::{Statistics, probe_price, statistics};
pub use ring::Reader;
pub use stack::StackLink;
pub use trial::trial;

use crate::event::{Ledger, LogLedger};
use crate::sys::bpf::{self, Attached};
use aya::maps::{Array, MapData, PerCpuArray, ProgramArray};
use aya::programs::UProbe;
use aya::programs::links::FdLink;
use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeScope};
use aya::{Ebpf, EbpfLoader};
use profilemate_common::page;
use profilemate_common::path::{OPS, Program};
use profilemate_common::python::KernelLayout;
use profilemate_common::record::FIELDS;
use profilemate_ebpf as object;
use program_index::ProgramIndices;
use relocated::Relocated;
use std::borrow::Cow;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long an index stays unused after its program was replaced: an event that began before may still read it. (The
/// kernel side checks the program's id besides.)
const QUARANTINE: Duration = Duration::from_secs(1);

/// How to load.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Size of the ring buffer in bytes; a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// The best way to attach driver probes that may be used; a lesser one is where the kernel has not got it.
    pub drivers: Way,
}

impl Default for Options {
    /// 16 MiB: one second of stall at 200,000 events of 64 bytes a second.
    fn default() -> Self {
        Self {
            ring_bytes: 16 << 20,
            drivers: Way::Session,
        }
    }
}

/// The loaded programs and their maps.
pub struct Kernel {
    ebpf: Ebpf,
    slots: Array<MapData, u32>,
    programs: Array<MapData, Wire<Program>>,
    layouts: Array<MapData, Wire<KernelLayout>>,
    counts: PerCpuArray<MapData, u64>,
    /// The programs to go on in, which go when the last user space reference to the map does.
    parts: ProgramArray<MapData>,
    /// Whether fields are read in a loop of the kernel's.
    loops: bool,
    /// Whether the programs that walk stacks are loaded.
    walks: bool,
    stacks: stack::Stacks,
    drivers: driver::Drivers,
    indices: ProgramIndices,
    /// Index into `programs` for each slot of each page.
    used: Vec<Option<u32>>,
}

/// A uprobe on one marker page; detached when dropped, which takes about 110 ms ([`detach_all`]).
#[derive(Debug)]
pub struct Link {
    _fd: FdLink,
    /// Index of the page.
    pub page: u16,
}

/// One of our shared types, as a map's value.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Wire<T>(T);

// SAFETY: `bytemuck::Pod` asks for the same and more: any bytes are valid, and there is no padding.
unsafe impl<T: bytemuck::Pod> aya::Pod for Wire<T> {}

impl Kernel {
    /// Loads the object into the kernel and has it verified, which takes a tenth of a second; a whole one where the
    /// kernel has no loops of its own (before 5.17).
    pub fn load(options: Options) -> Result<Self, Error> {
        let bytes = object_bytes()?;
        let mut ebpf = load_object(&bytes, options.ring_bytes)?;
        // Before any map is taken out.
        let looped = load_looped(&ebpf, &bytes);
        let drivers = driver::Drivers::new(&mut ebpf, &bytes, options.drivers)?;
        let mut parts = take(&mut ebpf, object::PARTS)?;
        load_programs(&mut ebpf, &mut parts, &[object::METHOD_CALLED])?;
        if let Err(reason) = &looped {
            log::debug!("fields are read in parts: {reason}");
            load_programs(&mut ebpf, &mut parts, &[object::FIELDS_READ])?;
        }
        let slots = usize::from(PAGES) * page::SLOTS;
        Ok(Self {
            slots: take(&mut ebpf, object::SLOTS)?,
            programs: take(&mut ebpf, object::PROGRAMS)?,
            layouts: take(&mut ebpf, object::LAYOUTS)?,
            counts: take(&mut ebpf, object::COUNTS_MAP)?,
            parts,
            loops: looped.is_ok(),
            walks: false,
            stacks: stack::Stacks::take(&mut ebpf)?,
            drivers,
            indices: ProgramIndices::new(object::PROGRAM_COUNT, QUARANTINE),
            used: vec![None; slots],
            ebpf,
        })
    }

    /// Puts a uprobe at `offset` of the file at `path` (such as `/proc/self/fd/N` of a memfd), for every process that
    /// maps it now or later. The records carry `page`.
    pub fn attach_page(&mut self, path: &Path, offset: u64, page: u16) -> Result<Link, Error> {
        if page >= PAGES {
            return Err(Error::OutOfRange {
                what: "page",
                value: page.into(),
                limit: PAGES.into(),
            });
        }
        let fd = attach(&mut self.ebpf, path, offset, page.into())?;
        Ok(Link { _fd: fd, page })
    }

    /// Has the events of `slot` on `page` read `program`'s fields from now on. A replaced program may serve events
    /// that have begun already.
    pub fn set_program(&mut self, page: u16, slot: u8, program: &Program) -> Result<(), Error> {
        let at = position(page, slot)?;
        let index = self.put_program(program)?;
        self.slots
            .set(at, index + 1, 0)
            .map_err(|source| Error::Map {
                map: object::SLOTS,
                source,
            })?;
        self.retire(at, Some(index));
        Ok(())
    }

    /// Whether the kernel reads fields in a loop of its own (Linux 5.17).
    pub fn loops(&self) -> bool {
        self.loops
    }

    /// Reads fields in parts from now on, as on kernels that have no loops.
    pub fn read_in_parts(&mut self) -> Result<(), Error> {
        load_programs(&mut self.ebpf, &mut self.parts, &[object::FIELDS_READ])?;
        self.loops = false;
        Ok(())
    }

    /// Has the programs that walk stacks verified, once. Most sessions need none of them.
    fn load_walks(&mut self) -> Result<(), Error> {
        if !self.walks {
            load_programs(&mut self.ebpf, &mut self.parts, &object::WALK_PROGRAMS)?;
            self.walks = true;
        }
        Ok(())
    }

    /// Loads a program; its index.
    fn put_program(&mut self, program: &Program) -> Result<u32, Error> {
        for (what, value, limit) in [
            ("number of operations", program.op_count, OPS as u32 + 1),
            ("number of fields", program.field_count, FIELDS as u32 + 1),
            ("layout", program.layout, object::LAYOUT_COUNT),
        ] {
            if value >= limit {
                return Err(Error::OutOfRange {
                    what,
                    value: value.into(),
                    limit: limit.into(),
                });
            }
        }
        let index = self
            .indices
            .take(Instant::now())
            .ok_or(Error::TooManyPrograms {
                limit: object::PROGRAM_COUNT,
            })?;
        self.programs
            .set(index, Wire(*program), 0)
            .map_err(|source| Error::Map {
                map: object::PROGRAMS,
                source,
            })?;
        Ok(index)
    }

    /// Has the events of `slot` on `page` tell nothing but the call, until a program is set.
    pub fn clear_slot(&mut self, page: u16, slot: u8) -> Result<(), Error> {
        let at = position(page, slot)?;
        self.slots.set(at, 0, 0).map_err(|source| Error::Map {
            map: object::SLOTS,
            source,
        })?;
        self.retire(at, None);
        Ok(())
    }

    /// Sets the layout that programs with this [`Program::layout`] use.
    pub fn set_layout(&mut self, index: u32, layout: &KernelLayout) -> Result<(), Error> {
        if index >= object::LAYOUT_COUNT {
            return Err(Error::OutOfRange {
                what: "layout",
                value: index.into(),
                limit: object::LAYOUT_COUNT.into(),
            });
        }
        self.layouts
            .set(index, Wire(*layout), 0)
            .map_err(|source| Error::Map {
                map: object::LAYOUTS,
                source,
            })
    }

    /// The kernel side's counts since it was loaded, summed over CPUs. Exact when no event is under way.
    pub fn ledger(&self) -> Result<Ledger, Error> {
        Ok(Ledger {
            fired: self.count(object::COUNT_FIRED)?,
            submitted: self.count(object::COUNT_SUBMITTED)?,
            lost: self.count(object::COUNT_LOST)?,
            filtered: self.count(object::COUNT_FILTERED)?,
            driver: self.driver_ledger()?,
            log: LogLedger::default(),
        })
    }

    /// One of the counts, summed over CPUs.
    fn count(&self, index: u32) -> Result<u64, Error> {
        let values = self.counts.get(&index, 0).map_err(|source| Error::Map {
            map: object::COUNTS_MAP,
            source,
        })?;
        Ok(values.iter().sum())
    }

    /// The reading end of the ring buffer; there is one.
    pub fn ring(&mut self) -> Result<Reader, Error> {
        Ok(Reader::new(take(&mut self.ebpf, object::EVENTS)?))
    }

    /// `index` is in use at `at` from now on; what was there before is free after a while.
    fn retire(&mut self, at: u32, index: Option<u32>) {
        if let Some(old) = std::mem::replace(&mut self.used[at as usize], index) {
            self.indices.give_back(old, Instant::now());
        }
    }
}

/// Detaches many pages at once: the kernel takes about 110 ms for each, most of it waiting.
pub fn detach_all(links: Vec<Link>) {
    std::thread::scope(|scope| {
        for link in links {
            scope.spawn(move || drop(link));
        }
    });
}

/// Pages, at most.
pub const PAGES: u16 = object::PAGE_COUNT as u16;

/// Position of a slot in the map of slots.
fn position(page: u16, slot: u8) -> Result<u32, Error> {
    if page >= PAGES {
        return Err(Error::OutOfRange {
            what: "page",
            value: page.into(),
            limit: PAGES.into(),
        });
    }
    if usize::from(slot) >= page::SLOTS {
        return Err(Error::OutOfRange {
            what: "slot",
            value: slot.into(),
            limit: page::SLOTS as u64,
        });
    }
    Ok(u32::from(page) * page::SLOTS as u32 + u32::from(slot))
}

/// The object.
fn object_bytes() -> Result<Cow<'static, [u8]>, Error> {
    if cfg!(debug_assertions)
        && let Some(path) = std::env::var_os("PROFILEMATE_OBJECT")
    {
        let read = std::fs::read(&path).map_err(|source| Error::Object {
            path: path.into(),
            source,
        })?;
        return Ok(Cow::Owned(read));
    }
    Ok(Cow::Borrowed(object::OBJECT))
}

/// Makes the object's maps.
fn load_object(bytes: &[u8], ring_bytes: u32) -> Result<Ebpf, Error> {
    EbpfLoader::new()
        .map_max_entries(object::EVENTS, ring_bytes)
        .load(bytes)
        .map_err(|source| Error::Load {
            source: Box::new(source),
        })
}

/// Attaches `method_called`.
fn attach(ebpf: &mut Ebpf, path: &Path, offset: u64, cookie: u64) -> Result<FdLink, Error> {
    let failed = |source| Error::Attach {
        path: path.into(),
        offset,
        source: Box::new(source),
    };
    let probe = uprobe(ebpf, object::METHOD_CALLED)?;
    let point = UProbeAttachPoint {
        location: UProbeAttachLocation::AbsoluteOffset(offset),
        cookie: Some(cookie),
    };
    let id = probe
        .attach(point, path, UProbeScope::AllProcesses)
        .map_err(failed)?;
    let link = probe.take_link(id).map_err(failed)?;
    FdLink::try_from(link).map_err(|_| Error::OldKernel)
}

fn uprobe<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut UProbe, Error> {
    let program = ebpf.program_mut(name).ok_or(Error::Missing { name })?;
    program.try_into().map_err(|_| Error::Missing { name })
}

/// Loads the program that reads fields in a loop of the kernel's, and puts it into its place.
fn load_looped(ebpf: &Ebpf, bytes: &[u8]) -> Result<(), String> {
    let array = relocated::descriptor(ebpf, object::PARTS).ok_or("there is no program array")?;
    let program = Relocated::new(ebpf, bytes, None)?.load(object::FIELDS_LOOPED, Attached::One)?;
    bpf::set_program(array, object::PART_FIELDS, program.as_fd()).map_err(|error| error.to_string())
}

/// Loads the programs called `names`, and puts those that others go on in into `parts`.
fn load_programs(
    ebpf: &mut Ebpf,
    parts: &mut ProgramArray<MapData>,
    names: &[&'static str],
) -> Result<(), Error> {
    for &name in names {
        let program = uprobe(ebpf, name)?;
        program
            .load()
            .map_err(|source| error::refused(name, source))?;
        let Some(index) = object::PART_NAMES.iter().position(|part| *part == name) else {
            continue;
        };
        let part = program
            .fd()
            .and_then(|fd| fd.try_clone().map_err(Into::into))
            .map_err(|source| error::refused(name, source))?;
        parts
            .set(index as u32, &part, 0)
            .map_err(|source| Error::Map {
                map: object::PARTS,
                source,
            })?;
    }
    Ok(())
}

/// Takes the map `name` out of the object.
fn take<T: TryFrom<aya::maps::Map>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, Error> {
    let map = ebpf.take_map(name).ok_or(Error::Missing { name })?;
    T::try_from(map).map_err(|_| Error::Missing { name })
}

#[cfg(test)]
mod tests;
