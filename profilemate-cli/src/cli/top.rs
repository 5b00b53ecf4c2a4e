//! `top`.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use tokio::sync::Notify;

use super::args::{self, Touch};
use super::exit::{Exit, Failure};
use super::{find, print};
use crate::capture::pipeline::Files;
use crate::session::{self, Finished, Options, Wanted, Watching};
use crate::view::top::draw::{self, Theme};
use crate::view::top::view::View;
use crate::view::top::{Shared, screen};

/// For how long `--once` looks, if it is not told.
const ONCE: Duration = Duration::from_secs(3);
/// Seconds that `--once` waits for a first event.
const PATIENCE: f64 = 5.0;
/// Columns and lines of `--once`.
const PAGE: (u16, u16) = (80, 24);

/// Options of `top`.
#[derive(Debug, Args)]
pub struct Top {
    /// Process id of the server; its children are looked at too. Repeatable. Without it: the one vLLM server of this
    /// host.
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Vec<u32>,
    /// Time between two drawings, such as `500ms`.
    #[arg(short, long, default_value = "1s", value_parser = args::duration)]
    pub interval: Duration,
    /// Stop after this time [default of --once: 3s]
    #[arg(short, long, value_parser = args::duration)]
    pub duration: Option<Duration>,
    /// Write a session folder below this one besides, as `trace` does.
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Look for a moment, print what was seen, and end.
    #[arg(long)]
    pub once: bool,
    /// With --once: print JSON.
    #[arg(long, requires = "once")]
    pub json: bool,
}

/// Shows what the engine does, while it does it.
pub(super) fn top(options: &Top) -> Result<Exit, Failure> {
    let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if !options.once && !terminal {
        let error = anyhow::anyhow!("`top` needs a terminal");
        return Err(Failure::new(Exit::Usage, error)
            .hint("`profilemate top --once` prints one page, `--json` as JSON"));
    }
    let roots = if options.pid.is_empty() {
        find::only_server()?
    } else {
        find::given(&options.pid)?
    };
    let wanted = session_options(options, roots);
    let (shared, ended) = (Shared::default(), Arc::new(AtomicBool::new(false)));
    let stop = Arc::new(Notify::new());
    let watching = Watching {
        watcher: Box::new(shared.clone()),
        stop: Arc::clone(&stop),
        files: if options.output.is_some() {
            Files::Session
        } else {
            Files::None
        },
        ends: session::Ends::Signals,
    };
    let viewer = viewer(options, shared, Arc::clone(&ended), stop)?;
    let level = log::max_level();
    if !options.once {
        // The log would be written over the screen.
        log::set_max_level(log::LevelFilter::Off);
    }
    let done = session::run_watched(&wanted, false, Some(watching));
    ended.store(true, Ordering::Relaxed);
    let seen = viewer.join();
    log::set_max_level(level);
    let seen = match seen {
        Ok(seen) => seen.map_err(|error| {
            Failure::new(
                Exit::Failed,
                anyhow::Error::new(error).context("the terminal cannot be used"),
            )
        })?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    finished(options, done?, seen)
}

fn session_options(options: &Top, roots: BTreeSet<u32>) -> Options {
    Options {
        roots,
        touch: Touch::Probes,
        late: false,
        wanted: Wanted::default(),
        methods: Vec::new(),
        assume: None,
        ring_bytes: 16 << 20,
        output: options.output.clone().unwrap_or_default(),
        duration: options.duration.filter(|_| !options.once),
        graph_timeline: false,
        json: false,
        quiet: true,
        strict: false,
        recorder: None,
        budget: None,
        moe_sample: None,
    }
}

/// The thread that shows the numbers, or with `--once` takes them once. It ends the session when it is done.
fn viewer(
    options: &Top,
    shared: Shared,
    ended: Arc<AtomicBool>,
    stop: Arc<Notify>,
) -> Result<std::thread::JoinHandle<std::io::Result<Option<View>>>, Failure> {
    let theme = Theme {
        colour: print::colour(true),
        unicode: unicode(),
    };
    let (once, interval) = (options.once, options.interval);
    let span = options.duration.unwrap_or(ONCE).as_secs_f64();
    std::thread::Builder::new()
        .name("pm-view".into())
        .spawn(move || {
            let seen = if once {
                wait(&shared, &ended, span);
                // Taken before the session ends: a detach takes time, in which there is nothing to see.
                Ok(Some(shared.view()))
            } else {
                screen::show(&shared, &ended, interval, theme).map(|()| None)
            };
            stop.notify_one();
            seen
        })
        .map_err(|error| {
            Failure::new(
                Exit::Failed,
                anyhow::Error::new(error).context("cannot start a thread"),
            )
        })
}

/// Waits for `span` seconds from the first event on; a target in which nothing happens is looked at for longer, but
/// not for ever.
fn wait(shared: &Shared, ended: &AtomicBool, span: f64) {
    // By this thread's own clock: before the session's first record its time is not known.
    let began = Instant::now();
    let mut first = None;
    while !ended.load(Ordering::Relaxed) {
        if first.is_none() && shared.view().events_per_sec > 0.0 {
            first = Some(Instant::now());
        }
        let begun = first.is_some_and(|first| first.elapsed().as_secs_f64() >= span);
        if begun || began.elapsed().as_secs_f64() >= span + PATIENCE {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether the locale says that more than ASCII can be shown.
fn unicode() -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    set.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

fn finished(options: &Top, done: Finished, seen: Option<View>) -> Result<Exit, Failure> {
    for (pid, trouble) in &done.troubles {
        print::note(&format!("process {pid} was not traced: {}", trouble.reason));
    }
    if let Some(trouble) = done.nothing {
        return Err(trouble.into());
    }
    match seen {
        Some(view) if options.json => {
            let text = serde_json::to_string_pretty(&view)
                .map_err(|error| Failure::new(Exit::Failed, error))?;
            print::data(&text);
        }
        Some(view) => print::data(&draw::text(&view, PAGE.0, PAGE.1)),
        None => print::note(done.reason),
    }
    if options.output.is_some() {
        // Beside JSON on stdout, the folder is told on stderr.
        print::note(&done.folder.display().to_string());
    }
    Ok(Exit::Done)
}
