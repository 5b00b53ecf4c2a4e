//! Finds a compiler that knows the eBPF target.

use anyhow::{Context as _, bail};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;

/// The compiler's name for what we build.
pub(super) const TARGET: &str = "bpfel-unknown-none";
/// Names a compiler that is to be used before all others.
const CHOICE: &str = "PROFILEMATE_BPF_RUSTC";
/// What to install if there is none.
const HELP: &str = "no compiler for the eBPF target was found; install one of these

  Debian: apt-get install rustc-web libstd-rust-web-dev-bpf llvm-22-dev libpolly-22-dev
          PATH=/usr/lib/llvm-22/bin:$PATH LLVM_PREFIX=/usr/lib/llvm-22 \\
            cargo install bpf-linker --version 0.13.0 --no-default-features --features llvm-22
  rustup: rustup toolchain install nightly --component rust-src
          cargo install bpf-linker

or name a compiler with PROFILEMATE_BPF_RUSTC";

/// A compiler, and how it gets the core library.
pub(super) enum Toolchain {
    /// It has the core library for the target.
    Prebuilt(OsString),
    /// rustup's nightly, which builds the core library from its source.
    Nightly,
}

impl Toolchain {
    /// The first that works: the chosen one, `rustc` on the path, `/usr/bin/rustc`, rustup's nightly.
    pub(super) fn find() -> anyhow::Result<Self> {
        if output(Command::new("bpf-linker").arg("--version")).is_err() {
            bail!("`bpf-linker` is not on the path\n\n{HELP}");
        }
        if let Some(rustc) = std::env::var_os(CHOICE) {
            if !has_target(&rustc) {
                bail!(
                    "{} has no core library for {TARGET}, which {CHOICE} promises",
                    rustc.to_string_lossy()
                );
            }
            return Ok(Self::Prebuilt(rustc));
        }
        for rustc in ["rustc", "/usr/bin/rustc"] {
            if has_target(OsStr::new(rustc)) {
                return Ok(Self::Prebuilt(rustc.into()));
            }
        }
        let sysroot =
            output(Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]));
        if sysroot.is_ok_and(|sysroot| {
            Path::new(sysroot.trim())
                .join("lib/rustlib/src/rust/library/core")
                .is_dir()
        }) {
            return Ok(Self::Nightly);
        }
        bail!(HELP)
    }

    /// In words.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Prebuilt(rustc) => rustc.to_string_lossy().into_owned(),
            Self::Nightly => "rustup's nightly, with a core library built from source".into(),
        }
    }

    /// A cargo that uses it.
    pub(super) fn cargo(&self) -> Command {
        match self {
            Self::Prebuilt(rustc) => {
                let mut cargo = Command::new("cargo");
                // The programs use one unstable intrinsic, see `profilemate-ebpf/src/main.rs`.
                cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", rustc);
                cargo
            }
            Self::Nightly => {
                let mut cargo = Command::new("rustup");
                cargo
                    .args(["run", "nightly", "cargo", "-Zbuild-std=core"])
                    .env_remove("RUSTC");
                cargo
            }
        }
    }

    /// What identifies compiler and linker.
    pub(super) fn versions(&self) -> anyhow::Result<String> {
        let rustc = match self {
            Self::Prebuilt(rustc) => output(Command::new(rustc).arg("-vV"))?,
            Self::Nightly => {
                output(Command::new("rustup").args(["run", "nightly", "rustc", "-vV"]))?
            }
        };
        let wanted = |line: &&str| {
            ["release:", "commit-hash:", "LLVM version:"]
                .iter()
                .any(|key| line.starts_with(key))
        };
        let mut text = String::new();
        for line in rustc.lines().filter(wanted) {
            text.push_str("rustc ");
            text.push_str(line);
            text.push('\n');
        }
        text.push_str(&output(Command::new("bpf-linker").arg("--version"))?);
        Ok(text)
    }
}

/// Whether `rustc` has the core library for the target.
fn has_target(rustc: &OsStr) -> bool {
    output(Command::new(rustc).args(["--print", "sysroot"])).is_ok_and(|sysroot| {
        Path::new(sysroot.trim())
            .join("lib/rustlib")
            .join(TARGET)
            .join("lib")
            .is_dir()
    })
}

/// What a command prints.
fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed");
    }
    String::from_utf8(output.stdout).context("output that is not text")
}
