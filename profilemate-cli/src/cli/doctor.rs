//! `doctor`.

use std::io::IsTerminal as _;

use clap::Args;

use super::args::Place;
use super::exit::{Exit, Failure};
use super::find::{self, Servers};
use super::print;
use super::underway::Underway;
use crate::doctor::{self, Mark, Wanted};

/// Options of `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Process id of the server; its children are looked at too. Repeatable. Without it: every vLLM server of this
    /// host.
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Vec<u32>,
    /// Where sessions would be written.
    #[command(flatten)]
    pub place: Place,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Looks at everything that a trace needs, and says whether one would work.
pub(super) fn doctor(options: &Doctor, quiet: bool) -> Result<Exit, Failure> {
    let mut wanted = Wanted {
        roots: find::given(&options.pid)?,
        output: options.place.output.clone(),
        chosen: Vec::new(),
    };
    if options.pid.is_empty() {
        choose(&mut wanted)?;
    }
    let underway = Underway::start("looking".to_owned(), quiet);
    let report = doctor::examine(&wanted);
    drop(underway);
    print::data(&if options.json {
        format!("{:#}", report.json())
    } else {
        report.text(print::colour(std::io::stdout().is_terminal()))
    });
    Ok(report.exit())
}

/// Every server of this host, and a line on each choice.
fn choose(wanted: &mut Wanted) -> Result<(), Failure> {
    let servers = Servers::now()?;
    wanted.roots = servers.roots.iter().map(|seen| seen.pid).collect();
    for orphan in &servers.orphans {
        wanted.chosen.push((
            Mark::Warn,
            format!(
                "process {} ({}) has outlived its server; it is left alone",
                orphan.pid, orphan.command
            ),
            Some(format!("end it, or look at it with `--pid {}`", orphan.pid)),
        ));
    }
    let todo = match servers.roots.len() {
        1 => return Ok(()),
        0 => "to look at a server, start it, or give --pid",
        _ => "`trace` takes one of several only with --pid",
    };
    let mark = if servers.roots.is_empty() {
        Mark::Fact
    } else {
        Mark::Warn
    };
    let found = format!("{} vLLM servers run on this host", servers.roots.len());
    wanted.chosen.push((mark, found, Some(todo.to_owned())));
    Ok(())
}
