//! What tracing costs, measured side by side in one run: `cargo xtask bench [--only NAME] [--quick]`.
//!
//! Every comparison interleaves its cases in random order and gives medians with the 10th and 90th percentile. A figure
//! to reach is named beside what was measured. That one was missed is a result, not a failure: the exit code is 1 only
//! if something did not work.

mod attach;
mod call;
mod driver_probe;
mod events;
mod helper;
mod process;
mod report;
mod rig;
mod server;
mod stats;
mod target;
mod tracer;
mod walk;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

/// What was typed.
struct Options {
    only: Vec<String>,
    /// Fewer repetitions: to see that everything works.
    quick: bool,
}

type Part = (&'static str, fn(&Options) -> Result<()>);

/// The parts, in the order in which they run.
const PARTS: &[Part] = &[
    ("call", call::run),
    ("driver-probe", driver_probe::run),
    ("walk", walk::run),
    ("attach", attach::run),
    ("events", events::run),
    ("tracer", tracer::run),
    ("helper", helper::run),
    ("server", server::run),
];

fn options() -> Result<Options> {
    let names: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
    let mut options = Options {
        only: Vec::new(),
        quick: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => options.quick = true,
            "--only" => options
                .only
                .push(words.next().context("`--only` needs a name")?),
            _ => bail!("`{word}` is not known: write `[--only NAME] [--quick]`"),
        }
    }
    if let Some(unknown) = options
        .only
        .iter()
        .find(|name| !names.contains(&name.as_str()))
    {
        bail!("there is no `{unknown}`: there are {}", names.join(", "));
    }
    Ok(options)
}

fn run() -> Result<bool> {
    let options = options()?;
    report::machine();
    let mut good = true;
    for (name, part) in PARTS {
        if !options.only.is_empty() && !options.only.iter().any(|only| only == name) {
            continue;
        }
        report::title(name);
        if let Err(error) = part(&options) {
            eprintln!("{name} did not work: {error:#}");
            good = false;
        }
    }
    Ok(good)
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
