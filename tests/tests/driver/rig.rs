//! The kernel side as the tests use it.

use std::collections::BTreeMap;
use std::path::Path;

use profilemate::attach::{DriverLink, DriverSite, Kernel, Options, Reader, Way};
use profilemate::plan::driver::{self, DriverPlan, LibraryPlan};
use profilemate::plan::site::KernelFacts;
use profilemate::target::cuda::Library;
use profilemate_common::driver::{DriverCalled, Function, Thread};

/// The kernel side, and the records that came.
pub(crate) struct Rig {
    pub(crate) kernel: Kernel,
    pub(crate) ring: Reader,
    pub(crate) records: Vec<DriverCalled>,
}

impl Rig {
    pub(crate) fn new(ring_bytes: u32) -> Self {
        Self::with(ring_bytes, Way::Session)
    }

    /// One that attaches driver probes in no better way than this.
    pub(crate) fn with(ring_bytes: u32, drivers: Way) -> Self {
        let options = Options {
            ring_bytes,
            drivers,
        };
        let mut kernel = Kernel::load(options).unwrap();
        let ring = kernel.ring().unwrap();
        Self {
            kernel,
            ring,
            records: Vec::new(),
        }
    }

    /// Probes all that is planned of `library` in process `pid`.
    pub(crate) fn attach(&mut self, library: &Path, pid: u32) -> (DriverLink, LibraryPlan) {
        self.attach_some(library, pid, |_| true)
    }

    /// Probes what is `wanted` of `library` in process `pid`.
    pub(crate) fn attach_some(
        &mut self,
        library: &Path,
        pid: u32,
        wanted: impl Fn(&DriverPlan) -> bool,
    ) -> (DriverLink, LibraryPlan) {
        let library = Library::open(library).unwrap().unwrap();
        let plan = plan(&library);
        let sites: Vec<DriverSite> = plan
            .sites
            .iter()
            .filter(|site| wanted(site))
            .map(|site| DriverSite {
                offset: site.file_offset,
                cookie: site.cookie,
            })
            .collect();
        let link = self
            .kernel
            .attach_driver(&library.uprobe_path(), pid, &sites)
            .unwrap();
        (link, plan)
    }

    pub(crate) fn drain(&mut self) {
        let records = &mut self.records;
        while self
            .ring
            .drain(|bytes| records.push(bytemuck::pod_read_unaligned(bytes)))
            > 0
        {}
    }

    /// Calls of each function, as the kernel counted them.
    pub(crate) fn calls(&self) -> BTreeMap<Function, u64> {
        self.kernel.driver_calls().unwrap().into_iter().collect()
    }

    /// The records of `function`.
    pub(crate) fn told(&mut self, function: Function) -> Vec<DriverCalled> {
        self.drain();
        let all = self.records.iter().copied();
        all.filter(|record| record.function == function as u8)
            .collect()
    }

    pub(crate) fn thread(&self, tid: u32) -> Thread {
        let threads = self.kernel.driver_threads();
        threads
            .into_iter()
            .find(|(found, _)| *found == tid)
            .map(|(_, thread)| thread)
            .unwrap()
    }

    pub(crate) fn assert_exact(&self) {
        let ledger = self.kernel.ledger().unwrap();
        let driver = ledger.driver;
        assert_eq!(
            driver.fired,
            driver.submitted + driver.lost + driver.filtered + driver.counted + driver.unfinished,
            "{driver:?}"
        );
        assert_eq!(ledger.fired, 0, "the method probes' counts are their own");
    }
}

/// The plan for a library as if nothing else were probed.
pub(crate) fn plan(library: &Library) -> LibraryPlan {
    let facts = KernelFacts::of(profilemate::attach::Capabilities::probe().version);
    driver::library(&library.path, library.side, &library.read().unwrap(), facts)
}
