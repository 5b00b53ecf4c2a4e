//! Probes on driver functions: attached to one process and to no other, all at once where the kernel can.
//!
//! A breakpoint is put only into processes that a link names, so a process outside the target that maps the same
//! library runs on as before. In exchange a forked child is not seen until it gets links of its own.

mod multi;
mod session;

use super::{Error, Kernel, Wire, error, uprobe};
use crate::event::DriverLedger;
use crate::sys::bpf::{self, Attached};
use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use aya::programs::links::FdLink;
use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeScope};
use aya::{Ebpf, maps::MapError};
use profilemate_common::driver::{Cookie, Function, Thread, Told};
use profilemate_ebpf as object;
use std::num::NonZeroU32;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

/// How driver probes are attached, from what every kernel has to what costs least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// One link for each begin and each end.
    OneByOne,
    /// A link for all begins, and one for all ends (Linux 6.10).
    Many,
    /// One link for all, which hears of the end of a call where that is wanted (Linux 6.13).
    Session,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::OneByOne, Self::Many, Self::Session];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::OneByOne => "one by one",
            Self::Many => "many at once",
            Self::Session => "many at once, begin and end together",
        }
    }
}

/// One driver function to probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriverSite {
    /// Offset of the probed instruction in the file.
    pub offset: u64,
    /// What the kernel side is told of it.
    pub cookie: Cookie,
}

/// The probes on the driver functions of one library in one process; they go when it is dropped, which takes about
/// 25 ms, or 110 ms for each function where the kernel attaches them one by one ([`detach_drivers`]).
#[derive(Debug)]
pub struct DriverLink {
    fds: Vec<Fd>,
}

/// What keeps probes in place; they go when it is closed.
#[derive(Debug)]
enum Fd {
    Many(#[expect(dead_code, reason = "held, to be closed")] OwnedFd),
    One(#[expect(dead_code, reason = "held, to be closed")] FdLink),
}

/// The driver probes' part of the kernel side.
pub(super) struct Drivers {
    /// The programs, loaded for [`bpf::link_uprobes`], where the kernel has that.
    many: Option<multi::Programs>,
    /// Whether the programs are loaded to be attached one by one.
    loaded: bool,
    seats: Array<MapData, Wire<Thread>>,
    owners: HashMap<MapData, u32, u32>,
    threads: HashMap<MapData, u32, Wire<Thread>>,
    calls: PerCpuArray<MapData, u64>,
}

impl Drivers {
    /// Takes the driver probes' maps, and loads their programs if they can be attached many at once and that is not
    /// better than the `best` way allowed. All other maps must still be there: the programs use them too.
    pub(super) fn new(ebpf: &mut Ebpf, bytes: &[u8], best: Way) -> Result<Self, Error> {
        Ok(Self {
            many: many(ebpf, bytes, best),
            loaded: false,
            seats: super::take(ebpf, object::SEATS)?,
            owners: super::take(ebpf, object::OWNERS)?,
            threads: super::take(ebpf, object::THREADS)?,
            calls: super::take(ebpf, object::DRIVER_CALLS)?,
        })
    }

    fn way(&self) -> Way {
        self.many
            .as_ref()
            .map_or(Way::OneByOne, multi::Programs::way)
    }
}

/// The programs, loaded in the best way that works.
fn many(ebpf: &Ebpf, bytes: &[u8], best: Way) -> Option<multi::Programs> {
    if best == Way::Session {
        let programs = session::works(ebpf, bytes)
            .and_then(|()| multi::Programs::load(ebpf, bytes, Attached::Session));
        match programs {
            Ok(programs) => return Some(programs),
            Err(reason) => log::debug!("ends of driver calls are probed by themselves: {reason}"),
        }
    }
    if best == Way::OneByOne {
        return None;
    }
    match multi::Programs::load(ebpf, bytes, Attached::Many) {
        Ok(programs) => bpf::links_uprobes(programs.called.as_fd()).then_some(programs),
        Err(reason) => {
            log::debug!("driver probes are attached one by one: {reason}");
            None
        }
    }
}

impl Drivers {
    /// Has the driver probes walk stacks, too.
    pub(super) fn walk(&mut self) -> Result<(), Error> {
        match &mut self.many {
            None => Ok(()),
            Some(programs) => programs.load_walks().map_err(|error| Error::Walk {
                reason: format!("the kernel refused to load the programs: {error}"),
            }),
        }
    }
}

impl Kernel {
    /// Puts probes at `sites` of the file at `path` in process `pid`, and in no other one. Where the kernel takes
    /// only one probe at a time and refuses one, none stays.
    pub fn attach_driver(
        &mut self,
        path: &Path,
        pid: u32,
        sites: &[DriverSite],
    ) -> Result<DriverLink, Error> {
        let ends: Vec<DriverSite> = sites
            .iter()
            .filter(|site| site.cookie.told == Told::AtReturn)
            .copied()
            .collect();
        // The ends first: a call whose beginning is seen must have its end seen.
        let lists = match self.driver_way() {
            Way::Session => vec![(sites, false)],
            Way::Many | Way::OneByOne => vec![(ends.as_slice(), true), (sites, false)],
        };
        let mut fds = Vec::new();
        for (sites, at_return) in lists {
            if sites.is_empty() {
                continue;
            }
            match &self.drivers.many {
                Some(programs) => fds.push(Fd::Many(programs.attach(path, pid, sites, at_return)?)),
                None => {
                    for site in sites {
                        fds.push(Fd::One(self.attach_one(path, pid, site, at_return)?));
                    }
                }
            }
        }
        Ok(DriverLink { fds })
    }

    /// How driver probes are attached.
    pub fn driver_way(&self) -> Way {
        self.drivers.way()
    }

    fn attach_one(
        &mut self,
        path: &Path,
        pid: u32,
        site: &DriverSite,
        at_return: bool,
    ) -> Result<FdLink, Error> {
        if !self.drivers.loaded {
            for name in [object::DRIVER_CALLED, object::DRIVER_RETURNED] {
                uprobe(&mut self.ebpf, name)?
                    .load()
                    .map_err(|source| error::refused(name, source))?;
            }
            self.drivers.loaded = true;
        }
        let failed = |source| Error::Attach {
            path: path.into(),
            offset: site.offset,
            source: Box::new(source),
        };
        let name = if at_return {
            object::DRIVER_RETURNED
        } else {
            object::DRIVER_CALLED
        };
        let point = UProbeAttachPoint {
            location: UProbeAttachLocation::AbsoluteOffset(site.offset),
            cookie: Some(site.cookie.encode()),
        };
        let pid = NonZeroU32::new(pid).ok_or(Error::OutOfRange {
            what: "process id",
            value: 0,
            limit: u64::from(u32::MAX),
        })?;
        let program = uprobe(&mut self.ebpf, name)?;
        let id = program
            .attach(point, path, UProbeScope::OneProcess(pid))
            .map_err(failed)?;
        let link = program.take_link(id).map_err(failed)?;
        FdLink::try_from(link).map_err(|_| Error::OldKernel)
    }

    /// Calls of each driver function since the kernel side was loaded, of those that were called.
    pub fn driver_calls(&self) -> Result<Vec<(Function, u64)>, Error> {
        let mut calls = Vec::new();
        for function in Function::ALL {
            let values = self
                .drivers
                .calls
                .get(&u32::from(function as u8), 0)
                .map_err(|source| map_error(object::DRIVER_CALLS, source))?;
            let sum: u64 = values.iter().sum();
            if sum > 0 {
                calls.push((function, sum));
            }
        }
        Ok(calls)
    }

    /// The kernel side's counts of driver calls since it was loaded.
    pub(super) fn driver_ledger(&self) -> Result<DriverLedger, Error> {
        let fired = self.driver_calls()?.iter().map(|(_, calls)| calls).sum();
        let count = |index| self.count(index);
        let (submitted, lost) = (
            count(object::COUNT_DRIVER_SUBMITTED)?,
            count(object::COUNT_DRIVER_LOST)?,
        );
        let (ended, end_lost) = (
            count(object::COUNT_DRIVER_ENDED)?,
            count(object::COUNT_DRIVER_END_LOST)?,
        );
        let opened = count(object::COUNT_DRIVER_OPENED)?;
        Ok(DriverLedger {
            fired,
            submitted: submitted + ended,
            lost: lost + end_lost,
            filtered: count(object::COUNT_DRIVER_FILTERED)?,
            counted: count(object::COUNT_DRIVER_COUNTED)?,
            unfinished: opened.saturating_sub(ended + end_lost),
        })
    }

    /// What each thread has done, by thread id.
    pub fn driver_threads(&self) -> Vec<(u32, Thread)> {
        let drivers = &self.drivers;
        let taken = drivers.owners.keys().filter_map(Result::ok);
        let seated = taken.filter_map(|index| drivers.seats.get(&index, 0).ok());
        let others = drivers.threads.iter().filter_map(Result::ok);
        seated
            .chain(others.map(|(_, thread)| thread))
            .map(|Wire(thread)| (thread.tid, thread))
            .collect()
    }

    /// Takes out the threads for which `ended` holds, if many are kept.
    pub fn forget_threads(&mut self, ended: impl Fn(u32) -> bool) {
        let drivers = &mut self.drivers;
        let seated: Vec<(u32, u32)> = drivers.owners.iter().filter_map(Result::ok).collect();
        if seated.len() >= object::SEAT_COUNT as usize / 2 {
            for (index, _) in seated.into_iter().filter(|(_, tid)| ended(*tid)) {
                // The owner last: until then nobody takes the place.
                if drivers.seats.set(index, Wire(Thread::default()), 0).is_ok() {
                    let _gone = drivers.owners.remove(&index);
                }
            }
        }
        let tids: Vec<u32> = drivers.threads.keys().filter_map(Result::ok).collect();
        if tids.len() < object::THREAD_COUNT as usize / 2 {
            return;
        }
        for tid in tids.into_iter().filter(|tid| ended(*tid)) {
            // It is gone already if another process had taken its id; then its entry is a new one.
            let _gone = drivers.threads.remove(&tid);
        }
    }
}

/// Detaches many probes at once.
pub fn detach_drivers(links: Vec<DriverLink>) {
    std::thread::scope(|scope| {
        for fd in links.into_iter().flat_map(|link| link.fds) {
            scope.spawn(move || drop(fd));
        }
    });
}

fn map_error(map: &'static str, source: MapError) -> Error {
    Error::Map { map, source }
}
