//! `where`.

use std::time::Duration;

use clap::Args;

use super::exit::{Exit, Failure};
use super::underway::Underway;
use super::{find, print};
use crate::stall;
use crate::target::process;

/// Time between the two looks, at most: the point is to see what does not move.
const LONGEST: Duration = Duration::from_mins(10);

/// Options of `where`.
#[derive(Debug, Args)]
pub struct Where {
    /// Process id of the server; its children are looked at too. Repeatable. Without it: the one vLLM server of this
    /// host.
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Vec<u32>,
    /// Time between the two looks that tell what moves, such as `5s`: up to 10m.
    #[arg(short, long, value_name = "TIME", default_value = "100ms", value_parser = watch)]
    pub watch: Duration,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

fn watch(text: &str) -> Result<Duration, String> {
    let time = super::args::duration(text)?;
    if time > LONGEST {
        return Err(format!("`{text}` is longer than 10m"));
    }
    Ok(time)
}

/// Prints what every thread of every process does and since when at least, without stopping any.
pub(super) fn stacks(options: &Where, quiet: bool) -> Result<Exit, Failure> {
    let roots = if options.pid.is_empty() {
        find::only_server()?
    } else {
        find::given(&options.pid)?
    };
    let tree = process::tree_now(&roots).map_err(|error| Failure::new(Exit::Failed, error))?;
    let what = format!("looking at {} processes", tree.len());
    let underway = Underway::start(what, quiet);
    let report = stall::look(tree, options.watch);
    drop(underway);
    print::data(&if options.json {
        format!("{:#}", report.json())
    } else {
        report.text()
    });
    if report
        .processes
        .iter()
        .any(|process| process.python.is_ok())
    {
        return Ok(Exit::Done);
    }
    let error = anyhow::anyhow!("no Python stack could be read");
    Err(Failure::new(Exit::NoTarget, error)
        .hint("the reasons are above; `profilemate doctor --pid PID` says more"))
}
