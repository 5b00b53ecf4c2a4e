//! Development tasks: `cargo xtask TASK`.

mod bench;
mod demo;
mod shell;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::Parser;

/// Development tasks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Task {
    /// Build ProfileMate and trace the demo target; arguments go to `profilemate demo`.
    Demo {
        /// Arguments of `profilemate demo`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run every test that this machine can run.
    Test,
    /// Check the house rules that no lint knows.
    Tidy,
    /// Measure what tracing costs, side by side in one run.
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Demo { arguments } => demo::demo(&arguments),
        Task::Test => test::test(),
        Task::Tidy => tidy::tidy(),
        Task::Bench(options) => bench::bench(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
