//! `cargo xtask bench`: what tracing costs, measured on this machine.

use anyhow::Result;

use crate::{demo, shell};

/// Options of the bench.
#[derive(Debug, clap::Args)]
pub(crate) struct Bench {
    /// Only this part: call, driver-probe, walk, attach, events, tracer, helper or server. Repeatable.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Fewer repetitions, to see that it works.
    #[arg(long)]
    quick: bool,
}

/// Builds everything as released, and runs the bench as root.
pub(crate) fn bench(bench: &Bench) -> Result<()> {
    shell::need(&[("gcc", "gcc"), ("python3", "python3")])?;
    let packages = [
        "--package",
        "profilemate-cli",
        "--package",
        "profilemate-tests",
    ];
    let binaries = ["--bin", "profilemate", "--bin", "profilemate-bench"];
    shell::run(
        shell::cargo()
            .args(["build", "--release", "--locked"])
            .args(packages)
            .args(binaries),
    )?;
    let mut command = shell::as_root(&demo::target_folder().join("release/profilemate-bench"))?;
    for name in &bench.only {
        command.args(["--only", name]);
    }
    if bench.quick {
        command.arg("--quick");
    }
    shell::run(&mut command)
}
