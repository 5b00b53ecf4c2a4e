//! Development tasks: `cargo xtask --help`.

mod bench;
mod bpf;
mod demo;
mod docs;
mod shell;
mod test;
mod tidy;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// ProfileMate's development tasks.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
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
    /// Write those pages of docs/ that are made from the code.
    Docs {
        /// Write nothing, and fail if a page is stale.
        #[arg(long)]
        check: bool,
    },
    /// Measure what tracing costs, side by side in one run.
    Bench(bench::Bench),
    /// The eBPF object that is committed in `profilemate-ebpf/object`.
    #[command(subcommand)]
    Bpf(bpf::Task),
}

fn main() -> Result<()> {
    match Args::parse().task {
        Task::Demo { arguments } => demo::demo(&arguments),
        Task::Test => test::test(),
        Task::Tidy => tidy::tidy(),
        Task::Docs { check } => docs::docs(if check { docs::Mode::Check } else { docs::Mode::Write }),
        Task::Bench(options) => bench::bench(&options),
        Task::Bpf(task) => bpf::run(&task),
    }
}
