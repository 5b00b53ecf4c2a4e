//! `cargo xtask test`: every test that this machine can run.

use std::process::Command;

use anyhow::Result;

use crate::shell;

pub(crate) fn test() -> Result<()> {
    shell::need(&[("gcc", "gcc"), ("python3", "python3")])?;
    let cargo = |arguments: &[&str]| {
        let mut command = cargo_as_root();
        command.args(arguments);
        command
    };
    shell::run(&mut cargo(&[
        "build",
        "--locked",
        "--package",
        "profilemate-cli",
    ]))?;
    shell::run(&mut cargo(&[
        "test",
        "--locked",
        "--no-fail-fast",
        "--workspace",
        "--exclude",
        "profilemate-tests",
    ]))?;
    // One at a time: they share two cores with the servers that they trace.
    let end_to_end = [
        "test",
        "--locked",
        "--no-fail-fast",
        "--package",
        "profilemate-tests",
        "--",
        "--test-threads=1",
    ];
    shell::run(&mut cargo(&end_to_end))?;
    let mut python = Command::new("python3");
    python.args([
        "-m",
        "unittest",
        "discover",
        "-s",
        concat!(env!("CARGO_MANIFEST_DIR"), "/../python/tests"),
    ]);
    shell::run(&mut python)
}

/// The cargo that runs us. It builds as the user, and runs what it built as root: the tests attach real probes to real
/// processes.
pub(crate) fn cargo_as_root() -> Command {
    let mut command = shell::cargo();
    if !shell::is_root() && shell::has("sudo") {
        for target in ["X86_64_UNKNOWN_LINUX_GNU", "AARCH64_UNKNOWN_LINUX_GNU"] {
            command.env(
                format!("CARGO_TARGET_{target}_RUNNER"),
                "sudo --preserve-env",
            );
        }
    }
    command
}
