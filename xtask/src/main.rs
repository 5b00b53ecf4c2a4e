//! Development tasks: `cargo xtask --help`.

mod bpf;

use clap::{Parser, Subcommand};

/// ProfileMate's development tasks.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// The eBPF object that is committed in `profilemate-ebpf/object`.
    #[command(subcommand)]
    Bpf(bpf::Task),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().task {
        Task::Bpf(task) => bpf::run(&task),
    }
}
