//! Getting a session under way: kernel programs, session folder, pump, tracker.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::budget::{Budget, Prices};
use super::drivers::Drivers;
use super::options::{DRIVER_TABLES, Options};
use super::pump::{Notes, Pump};
use super::tracker::Tracker;
use super::{CALIBRATION, calibrate};
use crate::attach::{self, Kernel};
use crate::capture::Pipeline;
use crate::capture::pipeline::Files;
use crate::cli::args::Touch;
use crate::cli::{Exit, Failure};
use crate::event::{self, Note};
use crate::recorder::socket::Socket;
use crate::recorder::{self, Recorder, Report};
use crate::sink::lines::Lines;
use crate::sink::watch::Watcher;
use crate::sys::clock;
use crate::{sink, touch};

/// A session that is under way.
pub(super) struct Started {
    pub(super) tracker: Tracker,
    pub(super) pump: Pump,
    pub(super) folder: PathBuf,
    pub(super) recorder: Option<Recording>,
}

/// A flight recorder that is under way.
pub(super) struct Recording {
    pub(super) report: Arc<Mutex<Report>>,
    /// `None`: the folder of the sockets cannot be used.
    _socket: Option<Socket>,
}

/// Version of the stream's format.
const FORMAT: u32 = 1;

pub(super) fn start(
    options: &Options,
    files: Files,
    watcher: Option<Box<dyn Watcher>>,
) -> Result<Started, Failure> {
    // The kernel first: without it no folder is made.
    let (mut kernel, found) = match options.touch {
        Touch::None if !options.wanted.driver() => (None, site(false)),
        Touch::None | Touch::Probes | Touch::Helper => {
            // The verifier takes half a second for the programs, the self-test a sixth: side by side.
            let (kernel, site) = std::thread::scope(|scope| {
                let test = scope.spawn(|| site(true));
                (load(options), test.join())
            });
            (Some(kernel?), site.unwrap_or_else(|_| site_one_byte(true)))
        }
    };
    let Site {
        offset,
        words,
        nop5,
    } = found;
    let budget = match options.budget {
        Some(percent) => Some(Budget::new(percent, prices(offset)?)),
        None => None,
    };
    let ring = match &mut kernel {
        Some(kernel) => Some(kernel.ring().map_err(kernel_failure)?),
        None => None,
    };
    let files = if options.recorder.is_some() {
        Files::None
    } else {
        files
    };
    let (name, folder) = match files {
        Files::None if options.recorder.is_some() => (recorder_name(), PathBuf::new()),
        Files::Session => folder(&options.output, "session")?,
        Files::None => ("watch".to_owned(), PathBuf::new()),
    };
    let how = crate::capture::Options {
        files,
        ..crate::capture::Options::default()
    };
    let mut pipeline = Pipeline::new(&folder, how).map_err(output_failure)?;
    if let Some(watcher) = watcher {
        pipeline.set_watcher(watcher);
    }
    if options.json {
        pipeline.set_lines(Lines::new(Box::new(std::io::stdout())));
    }
    let report = match &options.recorder {
        Some(recorder) => Some(record(&mut pipeline, recorder)?),
        None => None,
    };
    let pump = Pump::start(pipeline, ring, options.ring_bytes).map_err(|error| {
        Failure::new(
            Exit::Failed,
            anyhow::Error::new(error).context("cannot start a thread"),
        )
    })?;
    introduce(&pump, options, name);
    let recorder = report.map(|report| answering(options, &pump, report));
    log::info!("probe site: {words}");
    let drivers = Drivers::new(&options.wanted, nop5);
    let mut tracker = Tracker::new(
        options.clone(),
        kernel,
        offset,
        drivers,
        pump.notes().clone(),
    );
    tracker.budget = budget;
    Ok(Started {
        tracker,
        pump,
        folder,
        recorder,
    })
}

/// Lets the pipeline keep the latest part of the stream.
fn record(
    pipeline: &mut Pipeline,
    recorder: &recorder::Options,
) -> Result<Arc<Mutex<Report>>, Failure> {
    // Told now, and not when the first snapshot is due.
    writable(&recorder.output)?;
    let recorder = Recorder::new(recorder.clone(), clock::monotonic_ns());
    let report = recorder.report();
    pipeline.set_recorder(recorder);
    Ok(report)
}

/// Lets a flight recorder be asked for snapshots.
fn answering(options: &Options, pump: &Pump, report: Arc<Mutex<Report>>) -> Recording {
    let asker = pump.asker();
    let ask: recorder::socket::Ask = Arc::new(move |reply| asker.ask("snapshot", Some(reply)));
    let roots = options.roots.iter().copied().collect();
    let socket = Socket::open(roots, Arc::clone(&report), ask);
    Recording {
        report,
        _socket: socket
            .inspect_err(|error| {
                log::warn!(
                    "`profilemate snapshot` will not find this recorder: {}; SIGUSR1 works",
                    super::chain(error)
                );
            })
            .ok(),
    }
}

/// Checks that folders can be made in `output`.
fn writable(output: &Path) -> Result<(), Failure> {
    let (_, folder) = folder(output, "recorder")?;
    discard(&folder);
    Ok(())
}

fn recorder_name() -> String {
    let now = jiff::Zoned::now();
    format!(
        "recorder_{}_{}",
        now.strftime("%Y%m%d_%H%M%S"),
        std::process::id()
    )
}

/// A tracker that has looked once, and will not touch anything; and the probe site in words.
pub(super) fn look_only(options: &Options) -> Result<(Tracker, String), Failure> {
    let site = site(false);
    let drivers = Drivers::new(&options.wanted, None);
    let mut tracker = Tracker::new(
        options.clone(),
        None,
        site.offset,
        drivers,
        Notes::nowhere(),
    );
    tracker.poll()?;
    Ok((tracker, site.words))
}

/// The first notes of a session: what it is, how long a cycle is, which tables are left out.
fn introduce(pump: &Pump, options: &Options, id: String) {
    let notes = pump.notes();
    notes.send(Note::Session(event::Session {
        format: FORMAT,
        id,
        started_ns: clock::monotonic_ns(),
        started_wall: jiff::Timestamp::now().to_string(),
        command: std::env::args().collect(),
        host: rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        tool: env!("CARGO_PKG_VERSION").to_owned(),
    }));
    calibrate(pump);
    std::thread::sleep(CALIBRATION);
    calibrate(pump);
    for table in crate::table::TABLES {
        let reason = if table.file == "methods" && options.methods.is_empty() {
            // Nothing was asked for: there is nothing to tell.
            continue;
        } else if !options.wanted.table(table.file) && table.file != "methods" {
            "left out by `--only` or `--without`"
        } else if table.file == "cuda_graph_timeline" && !options.graph_timeline {
            "not asked for: `--graph-timeline`"
        } else if options.touch == Touch::None && !DRIVER_TABLES.contains(&table.file) {
            "`--touch none`: nothing is written into the target, so no method is probed"
        } else {
            continue;
        };
        notes.send(Note::NotCovered {
            table: table.file.to_owned(),
            reason: reason.to_owned(),
        });
    }
}

fn load(options: &Options) -> Result<Kernel, Failure> {
    Kernel::load(attach::Options {
        ring_bytes: options.ring_bytes,
        ..attach::Options::default()
    })
    .map_err(kernel_failure)
}

fn kernel_failure(error: attach::Error) -> Failure {
    super::Trouble::from(error).into()
}

/// Finds out what a hit costs here.
fn prices(site: u64) -> Result<Prices, Failure> {
    let hint = "without `--budget` this is not needed";
    let failed = |error| Failure::from(super::Trouble::from(error)).hint(hint);
    let five_bytes = site == touch::MARK_NOP5_OFFSET as u64;
    let prices = Prices {
        trap_ns: attach::probe_price(five_bytes).map_err(failed)?,
        _statistics: attach::statistics().map_err(failed)?,
    };
    log::info!("a trap costs {:.0} ns here", prices.trap_ns);
    Ok(prices)
}

/// Which instruction of the page is probed.
struct Site {
    /// Its offset in the page.
    offset: u64,
    /// What it is, and why.
    words: String,
    /// What the self-test of five-byte nops has shown, if it was made.
    nop5: Option<attach::Nop5>,
}

/// Chooses the instruction of the page: the five-byte nop only where a forked child of our own survived it.
fn site(may_test: bool) -> Site {
    let test = if may_test {
        attach::probe_nop5().ok()
    } else {
        None
    };
    if test == Some(attach::Nop5::Safe) {
        return Site {
            offset: touch::MARK_NOP5_OFFSET as u64,
            words: "five-byte nop (a forked child of our own survived it here)".to_owned(),
            nop5: test,
        };
    }
    Site {
        nop5: test,
        ..site_one_byte(may_test)
    }
}

fn site_one_byte(tested: bool) -> Site {
    let why = if tested {
        "one-byte nop (the five-byte one is not fork-safe on this kernel, or could not be shown to be)"
    } else {
        "one-byte nop, unless the self-test of the five-byte one passes at the attach"
    };
    Site {
        offset: touch::MARK_NOP1_OFFSET as u64,
        words: why.to_owned(),
        nop5: None,
    }
}

/// Makes `<output>/<kind>_<YYYYMMDD_HHMMSS>_<short id>`: the name, and the absolute path.
pub fn folder(output: &Path, kind: &str) -> Result<(String, PathBuf), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(
            Exit::Output,
            anyhow::Error::new(error)
                .context(format!("cannot make a folder in `{}`", output.display())),
        )
        .hint("choose another folder with `--output`")
    };
    std::fs::create_dir_all(output).map_err(failed)?;
    let output = output.canonicalize().map_err(failed)?;
    let now = jiff::Zoned::now();
    let id: String = std::iter::repeat_with(fastrand::lowercase)
        .take(6)
        .collect();
    let name = format!("{kind}_{}_{id}", now.strftime("%Y%m%d_%H%M%S"));
    let folder = output.join(&name);
    std::fs::create_dir(&folder).map_err(failed)?;
    Ok((name, folder))
}

/// Takes away the folder of a session that attached nothing: it holds no row.
pub(super) fn discard(folder: &Path) {
    if folder.as_os_str().is_empty() {
        return;
    }
    if let Err(error) = std::fs::remove_dir_all(folder) {
        log::debug!("{}: {error}", folder.display());
    }
}

/// What is told when the output cannot be written.
pub(super) fn output_failure(error: sink::Error) -> Failure {
    Failure::new(Exit::Output, error).hint(
        "is the disk full? What was written until then is kept; `--output` chooses another folder",
    )
}
