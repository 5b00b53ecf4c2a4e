//! `cargo xtask kernels`: the demo target, traced under other kernels in a virtual machine.

mod guest;
mod root;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::{demo, shell};
use guest::Told;

/// Options of the kernel matrix.
#[derive(Debug, clap::Args)]
pub(crate) struct Kernels {
    /// Kernels: bzImage files, or names of Debian packages such as `linux-image-6.1.0-50-cloud-amd64`, which are
    /// downloaded and unpacked, not installed.
    #[arg(required = true, value_name = "IMAGE|PACKAGE")]
    kernels: Vec<String>,
    /// The Python that runs the demo target in the guest.
    #[arg(long, value_name = "PATH", default_value = "python3")]
    python: PathBuf,
}

/// Boots each kernel with a file system that holds nothing but ProfileMate, Python and busybox, has the demo target
/// traced there, and says at the end which kernels failed. Without KVM a boot and the run take some minutes.
pub(crate) fn kernels(options: &Kernels) -> Result<()> {
    shell::need(&[
        ("gcc", "gcc libc6-dev"),
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("busybox", "busybox-static"),
        ("cpio", "cpio"),
    ])?;
    shell::run(shell::cargo().args([
        "build",
        "--release",
        "--locked",
        "--package",
        "profilemate-cli",
    ]))?;
    let folder = demo::target_folder().join("kernels");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let initrd = root::build(&folder, &options.python)?;
    let mut failed = Vec::new();
    for kernel in &options.kernels {
        let told = image(kernel, &folder).and_then(|image| guest::boot(&image, &initrd));
        match told.and_then(|told| check(&told).map(|()| told)) {
            Ok(told) => println!("{kernel}: Linux {}\n{}", told.kernel, summary(&told)),
            Err(error) => {
                println!("{kernel}: {error:#}");
                failed.push(kernel.as_str());
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed under {}", failed.join(", "));
    }
    Ok(())
}

/// The kernel's image: a file as it is, or out of a Debian package.
fn image(kernel: &str, folder: &Path) -> Result<PathBuf> {
    if Path::new(kernel).is_file() {
        return Ok(kernel.into());
    }
    let unpacked = folder.join(kernel);
    if !unpacked.is_dir() {
        std::fs::create_dir_all(&unpacked)?;
        shell::run(
            std::process::Command::new("apt-get")
                .args(["-q", "download", kernel])
                .current_dir(&unpacked),
        )?;
        let package = only(&unpacked, "")?;
        shell::run(
            std::process::Command::new("dpkg-deb")
                .arg("--extract")
                .arg(&package)
                .arg(&unpacked),
        )?;
        std::fs::remove_file(package)?;
    }
    only(&unpacked.join("boot"), "vmlinuz")
}

/// The only file in `folder` whose name begins with `prefix`.
fn only(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let mut found = None;
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_file() && name.starts_with(prefix) && found.replace(path.clone()).is_some() {
            bail!(
                "{} holds more than one {prefix}: remove the others",
                folder.display()
            );
        }
    }
    found.with_context(|| format!("{} holds no {prefix}", folder.display()))
}

/// The tables that the demo target fills on any kernel.
const FILLED: [&str; 7] = [
    "batch_utilization",
    "kv_cache_usage",
    "kv_cache_evictions",
    "preemption_events",
    "request_lifecycle",
    "forward_pass_timing",
    "cuda_graph_usage",
];

fn check(told: &Told) -> Result<()> {
    let log = || format!("{}\n{}", told.doctor.join("\n"), told.log.join("\n"));
    if told.exit != Some(0) {
        bail!("`profilemate demo` ended with {:?}:\n{}", told.exit, log());
    }
    for table in FILLED {
        if told.rows.get(table).copied().unwrap_or(0) == 0 {
            bail!("{table} has no rows:\n{}", log());
        }
    }
    let metadata: serde_json::Value =
        serde_json::from_str(&told.metadata).context("the session's metadata.json")?;
    let ledger = &metadata["ledger"];
    for part in [ledger, &ledger["driver"]] {
        if part["fired_not_accounted"] != 0 {
            bail!("the ledger is not exact: {ledger}");
        }
    }
    if !told.differing.is_empty() {
        bail!("replay made other bytes of {}", told.differing.join(", "));
    }
    Ok(())
}

fn summary(told: &Told) -> String {
    let rows: Vec<String> = told
        .rows
        .iter()
        .filter(|(_, rows)| **rows > 0)
        .map(|(table, rows)| format!("  {table:<26} {rows:>7} rows"))
        .collect();
    format!(
        "{}\n{}",
        told.log
            .iter()
            .filter(|line| line.contains("lost"))
            .cloned()
            .collect::<Vec<_>>()
            .join("\n"),
        rows.join("\n")
    )
}
