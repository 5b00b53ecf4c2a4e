//! The tracer's own rooms, put together for measuring: every method in a mode of its own, and a thread that empties
//! the ring buffer as the tracer does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use profilemate::attach::{Kernel, Link, Nop5, Options, Reader, detach_all, probe_nop5};
use profilemate::event::Ledger;
use profilemate::target::python::{
    Compiler, Function, Interned, Layout, ProcessMemory, Resolver, assemble, identify, validate,
};
use profilemate::touch::{
    MARK_NOP1_OFFSET, MARK_NOP5_OFFSET, MarkerPage, Redirect, VersionCache, VersionWrite, redirect,
    restore_all,
};
use profilemate_common::page::{MODE_OFF, Mode};

/// One method to redirect: name in `Engine`, mode, field paths.
pub(crate) type Method<'m> = (&'m str, Mode, &'m [&'m str]);

/// One attached target.
pub(crate) struct Rig {
    kernel: Kernel,
    pages: Vec<MarkerPage>,
    links: Vec<Link>,
    drain: Drain,
    site: u64,
    programs: u32,
}

impl Rig {
    /// Loads the programs; attaches nothing yet.
    pub(crate) fn new() -> Result<Self> {
        let mut kernel = Kernel::load(Options::default())?;
        let drain = Drain::start(kernel.ring()?);
        let site = if probe_nop5().is_ok_and(|answer| answer == Nop5::Safe) {
            MARK_NOP5_OFFSET
        } else {
            MARK_NOP1_OFFSET
        };
        Ok(Self {
            kernel,
            pages: Vec::new(),
            links: Vec::new(),
            drain,
            site: site as u64,
            programs: 0,
        })
    }

    /// The probed instruction, in words.
    pub(crate) fn site(&self) -> &'static str {
        if self.site == MARK_NOP1_OFFSET as u64 {
            "one-byte nop"
        } else {
            "five-byte nop"
        }
    }

    /// Attaches a target and redirects some of its methods.
    pub(crate) fn attach(&mut self, pid: u32, methods: &[Method<'_>]) -> Result<()> {
        let memory = ProcessMemory { pid };
        let interpreter = identify(pid, &memory)?;
        let layout = validate(&interpreter, &memory)?;
        let resolver = Resolver::new(&memory, &layout);
        let interned = Interned::new(&resolver);
        let number = self.pages.len() as u16;
        let (page, _) = MarkerPage::acquire(pid, layout.default_vectorcall, &[])?;
        self.kernel.set_layout(u32::from(number), &layout.kernel)?;
        self.links.push(
            self.kernel
                .attach_page(&page.uprobe_path(), self.site, number)?,
        );
        for (name, mode, paths) in methods {
            let function = resolver.resolve("profilemate_bench", &format!("Engine.{name}"))?;
            let compiler = Compiler::new(&interned, &function);
            let compiled: Vec<_> = paths
                .iter()
                .map(|path| compiler.compile(path).context((*path).to_owned()))
                .collect::<Result<_>>()?;
            self.programs += 1;
            let program = assemble(self.programs, u32::from(number), &compiled)
                .map_err(|error| anyhow!("{name}: {error}"))?;
            let outcome = redirect(&page, &[request(&function, &layout)])?.remove(0);
            let slot = outcome.with_context(|| (*name).to_owned())?.slot;
            self.kernel.set_program(number, slot, &program)?;
            page.set_mode(slot, *mode)?;
        }
        self.pages.push(page);
        Ok(())
    }

    /// The kernel's counts, and the records taken out of the ring buffer.
    pub(crate) fn counts(&self) -> Result<(Ledger, u64)> {
        Ok((
            self.kernel.ledger()?,
            self.drain.taken.load(Ordering::Relaxed),
        ))
    }

    /// Puts every pointer back and takes the probes away.
    pub(crate) fn detach(&mut self) -> Result<()> {
        for page in &self.pages {
            let left = restore_all(page)?.left;
            if left > 0 {
                bail!("{left} pointers were not put back");
            }
        }
        detach_all(std::mem::take(&mut self.links));
        Ok(())
    }
}

fn request(function: &Function, layout: &Layout) -> Redirect {
    Redirect {
        function: function.address,
        vectorcall_address: function.vectorcall_address,
        expected: layout.default_vectorcall,
        version: function
            .version_address
            .map(|address| VersionWrite { address, value: 0 }),
        version_cache: function.version_cache_slot.map(|address| VersionCache {
            address,
            expected: function.address,
        }),
        mode: MODE_OFF,
        skip: 0,
    }
}

/// The thread that empties the ring buffer every ten milliseconds, as the tracer's does.
struct Drain {
    taken: Arc<AtomicU64>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drain {
    fn start(mut reader: Reader) -> Self {
        let (taken, ending) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (count, end) = (Arc::clone(&taken), Arc::clone(&ending));
        let thread = std::thread::spawn(move || {
            let mut records = Vec::new();
            while !end.load(Ordering::Relaxed) {
                records.clear();
                // Copied out, as the tracer does.
                let took = reader.drain(|record| records.extend_from_slice(record));
                count.fetch_add(took as u64, Ordering::Relaxed);
                if took < Reader::BATCH {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        });
        Self {
            taken,
            ending,
            thread: Some(thread),
        }
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            eprintln!("the drain thread panicked: {panic:?}");
        }
    }
}
