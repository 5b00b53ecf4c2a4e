//! `cargo xtask demo`: build ProfileMate and trace the demo target.

use std::path::PathBuf;

use anyhow::Result;

use crate::shell;

pub(crate) fn demo(arguments: &[String]) -> Result<()> {
    shell::need(&[("gcc", "gcc libc6-dev"), ("python3", "python3")])?;
    shell::run(shell::cargo().args([
        "build",
        "--release",
        "--locked",
        "--package",
        "profilemate-cli",
    ]))?;
    let binary = target_folder().join("release/profilemate");
    let mut command = shell::as_root(&binary)?;
    command.arg("demo");
    if arguments.is_empty() {
        command.args(["--duration", "10s"]);
    }
    shell::run(command.args(arguments))
}

/// Cargo's target folder.
pub(crate) fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")),
        PathBuf::from,
    )
}
