//! The command line: parse, do, and tell how it ended.

mod agent;
pub mod args;
pub mod catalog;
mod diff;
mod doctor;
mod examples;
pub mod exit;
mod explain;
mod export;
pub(crate) mod find;
mod fleet;
pub mod helper;
mod pages;
pub(crate) mod print;
pub mod recorder;
mod report;
mod run;
mod stacks;
mod top;
pub(crate) mod underway;

use clap::Parser as _;

pub use exit::{Exit, Failure};

use args::{Cli, Command};

/// Runs the command line of this process and gives its exit code.
pub fn main() -> std::process::ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let help = !error.use_stderr();
            let _shown = error.print();
            return if help {
                Exit::Done.into()
            } else {
                Exit::Usage.into()
            };
        }
    };
    print::start_log(cli.verbose);
    if cli.version {
        print::version(cli.verbose > 0);
        return Exit::Done.into();
    }
    let done = match &cli.command {
        Some(Command::Trace(trace)) => run::trace(trace, cli.quiet),
        Some(Command::Snapshot(snapshot)) => recorder::snapshot(snapshot),
        Some(Command::Demo(demo)) => run::demo(demo, cli.quiet),
        Some(Command::Detach(detach)) => run::detach(detach),
        Some(Command::Helper(options)) => helper::helper(options),
        Some(Command::Replay(replay)) => run::replay(replay, cli.quiet),
        Some(Command::Explain(explain)) => explain::run(explain, cli.quiet),
        Some(Command::Diff(diff)) => diff::run(diff, cli.quiet),
        Some(Command::Export(export)) => export::run(export, cli.quiet),
        Some(Command::Report(report)) => report::run(report, cli.quiet),
        Some(Command::Fleet(options)) => fleet::run(options),
        Some(Command::Catalog(options)) => catalog::run(options, cli.quiet),
        Some(Command::Doctor(options)) => doctor::doctor(options, cli.quiet),
        Some(Command::Agent(options)) => agent::agent(options),
        Some(Command::Top(options)) => top::top(options),
        Some(Command::Where(options)) => stacks::stacks(options, cli.quiet),
        Some(Command::Completions(options)) => Ok(pages::completions(options)),
        Some(Command::Man(options)) => pages::man(options),
        None => Err(Failure::new(
            Exit::Usage,
            anyhow::anyhow!("say what to do: trace, top, explain, doctor, demo, detach or replay"),
        )
        .hint("`profilemate --help` lists the commands; `profilemate demo` needs no vLLM")),
    };
    match done {
        Ok(exit) => exit.into(),
        Err(failure) => {
            print::failure(&failure);
            failure.exit.into()
        }
    }
}

/// The release that an option names, if it was given.
fn vllm_release(text: Option<&str>) -> Result<Option<semver::Version>, Failure> {
    text.map(|text| {
        crate::catalog::release(text).ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                anyhow::anyhow!("`{text}` is not a version such as 0.32.0"),
            )
        })
    })
    .transpose()
}
