//! `cargo xtask gpu-check`: CUDA graphs of PyTorch on a real GPU, traced live.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::shell;
use crate::test::cargo_as_root;

/// Options of the check.
#[derive(Debug, clap::Args)]
pub(crate) struct GpuCheck {
    /// A Python with a CUDA build of PyTorch.
    #[arg(long, default_value = "python3", value_name = "PYTHON")]
    python: PathBuf,
}

/// Builds what is needed, and runs the check as root.
pub(crate) fn check(options: &GpuCheck) -> Result<()> {
    ensure!(
        Path::new("/dev/nvidiactl").exists(),
        "there is no NVIDIA GPU on this machine (no /dev/nvidiactl)"
    );
    let build = ["build", "--locked", "--package", "profilemate-cli"];
    shell::run(cargo_as_root().args(build))?;
    let test = [
        "test",
        "--locked",
        "--package",
        "profilemate-tests",
        "--test",
        "gpu",
        "--",
        "--nocapture",
    ];
    shell::run(
        cargo_as_root()
            .args(test)
            .env("PROFILEMATE_GPU_PYTHON", &options.python)
            .env("PROFILEMATE_REQUIRE_ROOT", "1"),
    )
}
