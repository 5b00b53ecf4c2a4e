//! The driver probes of a session: which CUDA libraries each process maps, and the probes in them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use profilemate_common::driver::{Cookie, Function, Told};

use super::options::Wanted;
use super::pump::Notes;
use super::trouble::chain;
use crate::attach::{self, Capabilities, DriverLink, DriverSite, Kernel, Nop5};
use crate::event::{self, Note};
use crate::plan::driver::{self as plan, LibraryPlan};
use crate::plan::site::KernelFacts;
use crate::sys::status;
use crate::target::cuda::{self, Library, Side};

/// Time between two looks at a young process, and at others.
const SOON: Duration = Duration::from_millis(100);
const LATER: Duration = Duration::from_secs(2);
/// Time between two readings of the memory map of a process whose code seems unchanged: a map has thousands of lines.
const SELDOM: Duration = Duration::from_secs(10);
/// Library files that are told apart, at most.
const FILES: usize = 256;

/// Why launches of kernels are not probed.
const NO_KERNEL_COUNTS: &str = "launches of kernels are not counted (`--no-kernel-counts`, or no table is wanted that needs them)";

/// The driver probes of a session.
pub(super) struct Drivers {
    wanted: bool,
    kernel_counts: bool,
    facts: KernelFacts,
    files: BTreeMap<(u64, u64), File>,
    processes: BTreeMap<u32, Process>,
}

/// One library file.
struct File {
    side: Side,
    /// Its plan as if nothing else were probed.
    plan: LibraryPlan,
    note: event::Library,
}

/// One process that was looked at.
#[derive(Default)]
struct Process {
    next: Option<Instant>,
    /// Its size at the last look.
    size: Option<u64>,
    /// The size of its code when its memory map was read last, and when that was.
    mapped: Option<(u64, Instant)>,
    /// Its libraries, with the plans for it.
    libraries: BTreeMap<(u64, u64), LibraryPlan>,
    links: Vec<DriverLink>,
    /// What could not be opened or probed, told once.
    failed: BTreeSet<String>,
}

impl Drivers {
    /// Driver probes if they are wanted. `nop5`: what the self-test of five-byte nops has shown.
    pub(super) fn new(wanted: &Wanted, nop5: Option<Nop5>) -> Self {
        let mut facts = KernelFacts::of(Capabilities::probe().version);
        facts.nop5_is_safe = nop5 == Some(Nop5::Safe);
        Self {
            wanted: wanted.driver(),
            kernel_counts: wanted.kernel_counts(),
            facts,
            files: BTreeMap::new(),
            processes: BTreeMap::new(),
        }
    }

    /// Looks at a process, if it is time, and probes what has come.
    pub(super) fn look(
        &mut self,
        pid: u32,
        young: bool,
        kernel: Option<&mut Kernel>,
        notes: &Notes,
    ) {
        let now = Instant::now();
        let process = self.processes.entry(pid).or_default();
        if !self.wanted || process.next.is_some_and(|next| next > now) {
            return;
        }
        process.next = Some(now + if young { SOON } else { LATER });
        // A process that serves maps and unmaps memory all the time, and code hardly ever. Its whole size costs less to
        // read than that of its code, and what has not changed as a whole has no new code.
        let size = size(pid);
        let same_size = size.is_some() && size == process.size;
        process.size = size;
        let recent = process.mapped.filter(|(_, at)| now < *at + SELDOM);
        if recent.is_some() && same_size {
            return;
        }
        let code = code(pid);
        if recent.is_some_and(|(before, _)| code == Some(before)) {
            return;
        }
        process.mapped = code.map(|code| (code, now));
        // A process that has just ended has no map; it is forgotten in a moment.
        let Ok((found, failed)) = cuda::find(pid) else {
            return;
        };
        for (path, error) in failed {
            self.fail(pid, format!("`{path}` cannot be opened: {error}"));
        }
        let new: Vec<Library> = found
            .into_iter()
            .filter(|library| {
                self.processes
                    .get(&pid)
                    .is_some_and(|process| !process.libraries.contains_key(&library.identity))
            })
            .collect();
        self.meet(pid, new, kernel, notes);
    }

    /// Takes in libraries that a process has not had before.
    fn meet(
        &mut self,
        pid: u32,
        mut new: Vec<Library>,
        mut kernel: Option<&mut Kernel>,
        notes: &Notes,
    ) {
        // The driver first: what is probed there is not probed in the runtime.
        new.sort_by_key(|library| library.side != Side::Driver);
        for library in new {
            // What calls a driver that is not loaded yet does nothing; look again when it is.
            let driver = self.functions(pid);
            if library.side == Side::Runtime && driver.is_none() {
                continue;
            }
            let Some(index) = self.file(pid, &library) else {
                continue;
            };
            let Some(file) = self.files.get(&library.identity) else {
                continue;
            };
            let own = match (library.side, driver) {
                (Side::Runtime, Some(driver)) => file.plan.clone().without(&driver),
                _ => file.plan.clone(),
            };
            let attached = match &mut kernel {
                Some(kernel) => attach(kernel, &library, pid, index, &own),
                None => Ok(None),
            };
            let process = self.processes.entry(pid).or_default();
            process.libraries.insert(library.identity, own.clone());
            match attached {
                Ok(Some(link)) => {
                    log::info!(
                        "process {pid}: {} driver functions of `{}` are probed",
                        own.sites.len(),
                        library.path
                    );
                    process.links.push(link);
                    self.tell(pid, library.identity, &own, notes);
                }
                Ok(None) => self.tell(pid, library.identity, &own, notes),
                Err(error) => {
                    let words = chain(&error);
                    let nothing = nothing_probed(&own, &words);
                    self.tell(pid, library.identity, &nothing, notes);
                    self.fail(pid, words);
                }
            }
        }
    }

    /// The functions that are probed in the driver libraries of a process; `None` if it has none.
    fn functions(&self, pid: u32) -> Option<BTreeSet<Function>> {
        let process = self.processes.get(&pid)?;
        let mut drivers = process
            .libraries
            .iter()
            .filter(|(identity, _)| {
                self.files
                    .get(identity)
                    .is_some_and(|file| file.side == Side::Driver)
            })
            .peekable();
        drivers.peek()?;
        Some(drivers.flat_map(|(_, plan)| plan.functions()).collect())
    }

    /// The number of a library's file, which is read if it is new.
    fn file(&mut self, pid: u32, library: &Library) -> Option<u16> {
        if let Some(file) = self.files.get(&library.identity) {
            return Some(file.note.index);
        }
        if self.files.len() >= FILES {
            self.fail(pid, format!("more than {FILES} CUDA libraries are mapped"));
            return None;
        }
        let image = match library.read() {
            Ok(image) => image,
            Err(error) => {
                self.fail(pid, format!("`{}` cannot be read: {error}", library.path));
                return None;
            }
        };
        let index = self.files.len() as u16;
        let mut plan = plan::library(&library.path, library.side, &image, self.facts);
        if !self.kernel_counts {
            plan = plan.leave_out(Function::KernelLaunch, NO_KERNEL_COUNTS);
        }
        for (symbol, reason) in &plan.refused {
            log::debug!("`{}`: {symbol} is not probed: {reason}", library.path);
        }
        let note = event::Library {
            index,
            path: plan.path.clone(),
            build_id: plan.build_id.clone(),
            ..event::Library::default()
        };
        self.files.insert(
            library.identity,
            File {
                side: library.side,
                plan,
                note,
            },
        );
        Some(index)
    }

    /// Says in the stream that a process maps a library, and what is probed there.
    fn tell(&mut self, pid: u32, identity: (u64, u64), own: &LibraryPlan, notes: &Notes) {
        let Some(file) = self.files.get_mut(&identity) else {
            return;
        };
        file.note.pids.push(pid);
        // Another process may have had fewer sites (its driver has what this one's has not): all are told.
        for site in own.sites.iter().map(site_note) {
            if !file.note.sites.contains(&site) {
                file.note.sites.push(site);
            }
        }
        let probed: BTreeSet<&str> = file
            .note
            .sites
            .iter()
            .map(|site| site.symbol.as_str())
            .collect();
        file.note.refused = own
            .refused
            .iter()
            .filter(|(symbol, _)| !probed.contains(symbol.as_str()))
            .cloned()
            .collect();
        notes.send(Note::Library(file.note.clone()));
    }

    fn fail(&mut self, pid: u32, words: String) {
        let process = self.processes.entry(pid).or_default();
        if !process.failed.contains(&words) {
            log::warn!("process {pid}: {words}");
            process.failed.insert(words);
        }
    }

    /// Whether driver functions are probed in some process.
    pub(super) fn any(&self) -> bool {
        self.processes
            .values()
            .any(|process| !process.links.is_empty())
    }

    /// Whether driver functions are probed in this process.
    pub(super) fn probes(&self, pid: u32) -> bool {
        self.processes
            .get(&pid)
            .is_some_and(|process| !process.links.is_empty())
    }

    /// The plans for the libraries of a process.
    pub(super) fn plans(&self, pid: u32) -> Vec<LibraryPlan> {
        self.processes
            .get(&pid)
            .map(|process| process.libraries.values().cloned().collect())
            .unwrap_or_default()
    }

    /// A process has ended, or runs another program now.
    pub(super) fn forget(&mut self, pid: u32) {
        if let Some(process) = self.processes.remove(&pid) {
            attach::detach_drivers(process.links);
        }
    }

    /// Takes all probes away.
    pub(super) fn detach(&mut self) {
        let processes = std::mem::take(&mut self.processes).into_values();
        attach::detach_drivers(processes.flat_map(|process| process.links).collect());
    }
}

/// Probes a library in a process, if there is anything to probe.
fn attach(
    kernel: &mut Kernel,
    library: &Library,
    pid: u32,
    index: u16,
    plan: &LibraryPlan,
) -> Result<Option<DriverLink>, attach::Error> {
    if plan.sites.is_empty() {
        return Ok(None);
    }
    let sites: Vec<DriverSite> = plan
        .sites
        .iter()
        .map(|site| DriverSite {
            offset: site.file_offset,
            cookie: Cookie {
                library: index,
                ..site.cookie
            },
        })
        .collect();
    kernel
        .attach_driver(&library.uprobe_path(), pid, &sites)
        .map(Some)
}

/// Pages that a process maps.
fn size(pid: u32) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    statm.split_ascii_whitespace().next()?.parse().ok()
}

/// KiB of code that a process maps besides its executable's.
fn code(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    status::library_code(&status.ok()?)
}

/// A plan of which nothing could be done.
fn nothing_probed(plan: &LibraryPlan, why: &str) -> LibraryPlan {
    let mut refused = plan.refused.clone();
    refused.extend(
        plan.sites
            .iter()
            .map(|site| (site.symbol.clone(), why.to_owned())),
    );
    LibraryPlan {
        sites: Vec::new(),
        refused,
        ..plan.clone()
    }
}

fn site_note(site: &plan::DriverPlan) -> event::Site {
    event::Site {
        function: site.cookie.function as u8,
        symbol: site.symbol.clone(),
        offset: site.offset,
        instruction: site.instruction.clone(),
        cost: site.cost.name().to_owned(),
        with_return: site.cookie.told == Told::AtReturn,
    }
}
