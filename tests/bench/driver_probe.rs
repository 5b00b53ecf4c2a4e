//! `driver-probe`: what a probed call of a CUDA driver function costs, on NVIDIA's own library, which needs no GPU to
//! be loaded. Fails if a chosen site is one that the kernel single-steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use profilemate::attach::{
    self, Capabilities, DriverSite, Kernel, Options as Load, detach_drivers,
};
use profilemate::plan::driver::{self, DriverPlan, LibraryPlan};
use profilemate::plan::site::{Cost, KernelFacts};
use profilemate::target::cuda::Library;
use profilemate_common::driver::Told;
use profilemate_tests::cuda::{self, Caller};

use crate::Options;
use crate::report::{self, Goal};
use crate::stats::Summary;

/// Calls of one repetition.
const CALLS: u32 = 2000;
/// Calls of each of two threads in a burst of the run of many calls, and how long that run is at least.
const MANY: u64 = 500_000;
const LASTS: Duration = Duration::from_secs(2);
/// Ring buffer for that run: 2 million records of 112 bytes.
const RING: u32 = 256 << 20;
/// What a probe in a process would add to each of its calls at least: the cheapest trap costs more than that.
const PROBED_NS: f64 = 100.0;

/// One case: symbol, how its calls are told (`None`: not probed), whether the probe is at offset 0 instead of where it
/// was chosen, what it is, and the figure to reach. All these functions begin alike and fail at once without a device.
struct Case(&'static str, Option<Told>, bool, &'static str, Option<f64>);

const CASES: [Case; 5] = [
    Case("cuGraphUpload", None, false, "not probed", None),
    Case(
        "cuLaunchKernel",
        Some(Told::Counted),
        false,
        "counted for its thread",
        None,
    ),
    Case(
        "cuEventRecord",
        Some(Told::AtEntry),
        false,
        "told when it begins",
        Some(600.0),
    ),
    Case(
        "cuGraphLaunch",
        Some(Told::AtReturn),
        false,
        "told when it ends, with both times",
        Some(900.0),
    ),
    Case(
        "cuGraphLaunch_ptsz",
        Some(Told::AtEntry),
        true,
        "told when it begins, probe at offset 0",
        None,
    ),
];

/// NVIDIA's library, or the stand-in where it cannot be had, and what is probed in it.
pub(crate) fn planned() -> Result<(Library, LibraryPlan)> {
    let path = match cuda::real("libcuda-535") {
        Some(path) => path,
        None => cuda::library(),
    };
    let library = Library::open(&path)?.context("it is no CUDA library")?;
    let facts = KernelFacts::of(Capabilities::probe().version);
    let plan = driver::library(&library.path, library.side, &library.read()?, facts);
    Ok((library, plan))
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let (library, plan) = planned()?;
    report::remark(&format!(
        "{}, {} sites; {CALLS} calls a repetition, net of the same call not probed",
        library.path,
        plan.sites.len()
    ));
    if let Some(site) = plan
        .sites
        .iter()
        .find(|site| site.cost == Cost::SingleStepped)
    {
        bail!(
            "{} would be single-stepped at +{}",
            site.symbol,
            site.offset
        );
    }
    costs(options, &library, &plan)?;
    whole(&library, &plan)
}

/// What one call costs in each case.
fn costs(options: &Options, library: &Library, plan: &LibraryPlan) -> Result<()> {
    let rounds = if options.quick { 15 } else { 61 };
    let mut kernel = Kernel::load(Load::default())?;
    let drain = Drain::start(kernel.ring()?);
    let (mut target, mut other) = (start(library), start(library));
    let untouched = repeat(&mut other, "cuGraphLaunch", rounds);
    let sites: Vec<DriverSite> = CASES
        .iter()
        .filter_map(|case| {
            let site = plan.sites.iter().find(|site| site.symbol == case.0)?;
            let mut cookie = site.cookie;
            cookie.told = case.1?;
            let back = if case.2 { site.offset } else { 0 };
            Some(DriverSite {
                offset: site.file_offset - back,
                cookie,
            })
        })
        .collect();
    let link = kernel.attach_driver(&library.uprobe_path(), target.pid(), &sites)?;
    let mut random = fastrand::Rng::new();
    let mut order: Vec<usize> = (0..CASES.len()).collect();
    let mut lists = vec![Vec::new(); CASES.len()];
    let mut beside = Vec::new();
    for _ in 0..rounds {
        random.shuffle(&mut order);
        for &index in &order {
            lists[index].push(call(&mut target, CASES[index].0));
        }
        beside.push(call(&mut other, "cuGraphLaunch"));
    }
    detach_drivers(vec![link]);
    drain.finish();
    let plain = Summary::of(&lists[0]);
    report::line("the call itself", plain, "ns", None);
    let net: Vec<Summary> = lists
        .iter()
        .map(|list| Summary::of(&list.iter().map(|ns| ns - plain.median).collect::<Vec<_>>()))
        .collect();
    for (case, cost) in CASES.iter().zip(&net).skip(1) {
        report::line(case.3, *cost, "ns", case.4.map(Goal::AtMost));
    }
    report::line(
        "another process, before",
        Summary::of(&untouched),
        "ns",
        None,
    );
    report::line(
        "another process, meanwhile",
        Summary::of(&beside),
        "ns",
        None,
    );
    let (before, meanwhile) = (Summary::of(&untouched).median, Summary::of(&beside).median);
    if meanwhile - before > PROBED_NS {
        bail!(
            "a call of another process cost {before:.0} ns before and {meanwhile:.0} ns meanwhile"
        );
    }
    let (chosen, at_zero) = (net[2].median, net[4].median);
    if chosen * 2.0 > at_zero {
        bail!("the chosen site costs {chosen:.0} ns, one that is single-stepped {at_zero:.0} ns");
    }
    Ok(())
}

/// The whole set: how long attach and detach take, and whether many calls are counted exactly.
fn whole(library: &Library, plan: &LibraryPlan) -> Result<()> {
    let mut kernel = Kernel::load(Load {
        ring_bytes: RING,
        ..Load::default()
    })?;
    let drain = Drain::start(kernel.ring()?);
    let mut target = start(library);
    let sites: Vec<DriverSite> = plan.sites.iter().map(site).collect();
    let began = Instant::now();
    let link = kernel.attach_driver(&library.uprobe_path(), target.pid(), &sites)?;
    let attached = began.elapsed();
    let began = Instant::now();
    let mut made = 0;
    while began.elapsed() < LASTS {
        target.ask(&format!("threads 2 cuGraphLaunch {MANY} 0 0"));
        made += 2 * MANY;
    }
    let seconds = began.elapsed().as_secs_f64();
    let began = Instant::now();
    detach_drivers(vec![link]);
    let detached = began.elapsed();
    let taken = drain.finish();
    let ledger = kernel.ledger()?.driver;
    let words = kernel.driver_way().name();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    report::number(
        &format!("attach of {} sites, {words}", sites.len()),
        milliseconds(attached),
        "ms",
        None,
    );
    report::number(
        "detach of them",
        milliseconds(detached),
        "ms",
        Some(Goal::AtMost(500.0)),
    );
    report::number(
        "graph launches of two threads, all told",
        made as f64 / seconds,
        "/s",
        Some(Goal::AtLeast(1_000_000.0)),
    );
    report::remark(&format!(
        "ledger: {made} calls were made in {seconds:.1} s; {ledger:?}; {taken} records taken out"
    ));
    let ended =
        ledger.submitted + ledger.lost + ledger.filtered + ledger.counted + ledger.unfinished;
    if ledger.fired != made || ended != ledger.fired || taken != ledger.submitted {
        bail!("the ledger is not exact");
    }
    Ok(())
}

fn site(plan: &DriverPlan) -> DriverSite {
    DriverSite {
        offset: plan.file_offset,
        cookie: plan.cookie,
    }
}

fn start(library: &Library) -> Caller {
    Caller::start(std::path::Path::new(&library.path))
}

/// Nanoseconds a call.
fn call(caller: &mut Caller, symbol: &str) -> f64 {
    caller.call(&format!("{symbol} {CALLS} 0 0 0 0 0 0")).1
}

fn repeat(caller: &mut Caller, symbol: &str, rounds: usize) -> Vec<f64> {
    (0..rounds).map(|_| call(caller, symbol)).collect()
}

/// Takes records out of the ring buffer every ten milliseconds, as the tracer does.
pub(crate) struct Drain {
    stop: Arc<AtomicBool>,
    taken: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Drain {
    pub(crate) fn start(mut ring: attach::Reader) -> Self {
        let (stop, taken) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&taken));
        let thread = std::thread::spawn(move || {
            loop {
                let last = stopped.load(Ordering::Acquire);
                loop {
                    let batch = ring.drain(|_| {}) as u64;
                    count.fetch_add(batch, Ordering::Relaxed);
                    if batch == 0 {
                        break;
                    }
                }
                if last {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Self {
            stop,
            taken,
            thread,
        }
    }

    /// Takes out the rest; how many there were.
    pub(crate) fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Release);
        let _ended = self.thread.join();
        self.taken.load(Ordering::Relaxed)
    }
}
