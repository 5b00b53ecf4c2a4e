//! `cargo xtask test`: every test that this machine can run.

use anyhow::Result;

use crate::shell;

pub(crate) fn test() -> Result<()> {
    shell::need(&[("gcc", "gcc"), ("python3", "python3")])?;
    // Built as the user, run as root: the tests attach real probes to real processes.
    let runner = if shell::is_root() {
        ""
    } else {
        "sudo --preserve-env"
    };
    let cargo = |arguments: &[&str]| {
        let mut command = shell::cargo();
        command.args(arguments);
        if !runner.is_empty() && shell::has("sudo") {
            for target in ["X86_64_UNKNOWN_LINUX_GNU", "AARCH64_UNKNOWN_LINUX_GNU"] {
                command.env(format!("CARGO_TARGET_{target}_RUNNER"), runner);
            }
        }
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
        "--workspace",
        "--exclude",
        "profilemate-tests",
    ]))?;
    // One at a time: they share two cores with the servers that they trace.
    let end_to_end = [
        "test",
        "--locked",
        "--package",
        "profilemate-tests",
        "--",
        "--test-threads=1",
    ];
    shell::run(&mut cargo(&end_to_end))?;
    let mut python = std::process::Command::new("python3");
    python.args([
        "-m",
        "unittest",
        "discover",
        "-s",
        concat!(env!("CARGO_MANIFEST_DIR"), "/../python/tests"),
    ]);
    shell::run(&mut python)
}
