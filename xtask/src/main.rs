//! Development tasks: `cargo xtask --help`.

mod bench;
mod bpf;
mod demo;
mod docs;
mod gpu;
mod kernels;
mod scale;
mod shell;
mod test;
mod tidy;
mod verify;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// ProfileMate's development tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measure what tracing costs, side by side in one run.
    Bench(bench::Bench),
    /// The eBPF object that is committed in `profilemate-ebpf/object`.
    #[command(subcommand)]
    Bpf(bpf::Task),
    /// Build ProfileMate and trace the demo target; the options are those of `profilemate demo`.
    Demo {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Write those pages of docs/ that are made from the code.
    Docs {
        /// Write nothing, and fail if a page is stale.
        #[arg(long)]
        check: bool,
    },
    /// Measure what a fleet of agents needs of a Prometheus, by simulation; `--help` tells the options.
    #[command(disable_help_flag = true)]
    FleetScale {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// On a machine with an NVIDIA GPU: compare what is traced of PyTorch's CUDA graphs with what was done.
    GpuCheck(gpu::GpuCheck),
    /// Trace the demo target under other kernels, in a virtual machine.
    Kernels(kernels::Kernels),
    /// Run every test that this machine can run.
    Test,
    /// Check the house rules that no lint knows.
    Tidy,
    /// Trace real vLLM versions (CPU builds) live, and compare every table with the counter inside them.
    VerifyVllm(verify::Verify),
}

fn main() -> Result<()> {
    match Args::parse().task {
        Task::Bench(options) => bench::bench(&options),
        Task::Bpf(task) => bpf::run(&task),
        Task::Demo { arguments } => demo::demo(&arguments),
        Task::Docs { check } => docs::docs(if check {
            docs::Mode::Check
        } else {
            docs::Mode::Write
        }),
        Task::FleetScale { arguments } => scale::scale(&arguments),
        Task::GpuCheck(options) => gpu::check(&options),
        Task::Kernels(options) => kernels::kernels(&options),
        Task::Test => test::test(),
        Task::Tidy => tidy::tidy(),
        Task::VerifyVllm(options) => verify::verify(&options),
    }
}
