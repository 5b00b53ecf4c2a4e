//! `cargo xtask fleet-scale`: what a fleet needs of its engine.

use anyhow::Result;

use crate::{demo, shell};

/// Builds everything as released, and runs the simulation as root; the arguments are its own.
pub(crate) fn scale(arguments: &[String]) -> Result<()> {
    shell::need(&[("python3", "python3")])?;
    let packages = ["profilemate-cli", "profilemate-tests"];
    let binaries = ["profilemate", "profilemate-fleet-scale"];
    let mut build = shell::cargo();
    build.args(["build", "--release", "--locked"]);
    for (package, binary) in packages.into_iter().zip(binaries) {
        build.args(["--package", package, "--bin", binary]);
    }
    shell::run(&mut build)?;
    let binary = demo::target_folder().join("release/profilemate-fleet-scale");
    shell::run(shell::as_root(&binary)?.args(arguments))
}
