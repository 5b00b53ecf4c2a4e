//! Builds the eBPF objects, and verifies the committed ones.

mod sources;
mod toolchain;

use anyhow::{Context as _, bail};
use clap::{Subcommand, ValueEnum};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use toolchain::Toolchain;

/// What to do with the object.
#[derive(Subcommand)]
pub(crate) enum Task {
    /// Build the objects and put them into `profilemate-ebpf/object`, to be committed.
    Build {
        /// Architecture whose registers the programs read.
        #[arg(long, value_enum, default_value_t = Arch::All)]
        arch: Arch,
        /// Build with debug information and BTF into `target/bpf-debug` instead, for readable verifier logs.
        #[arg(long)]
        debug: bool,
    },
    /// Check that the committed objects are what the sources make, and that this kernel takes them (as root).
    Verify,
}

/// Architectures.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    /// `x86_64`.
    #[value(name = "x86_64")]
    X86,
    /// `aarch64`.
    #[value(name = "aarch64")]
    Arm,
    /// Both.
    All,
}

impl Arch {
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::X86 => &["x86_64"],
            Self::Arm => &["aarch64"],
            Self::All => &["x86_64", "aarch64"],
        }
    }
}

/// How an object is built.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// As it is committed: its bytes depend on instructions only.
    Shipped,
    /// With debug information and BTF.
    Debug,
}

/// Runs `task`.
pub(crate) fn run(task: &Task) -> anyhow::Result<()> {
    let root = root()?;
    match *task {
        Task::Build { arch, debug: true } => build_debug(&root, arch),
        Task::Build { arch, debug: false } => build(&root, arch),
        Task::Verify => verify(&root),
    }
}

/// The repository.
fn root() -> anyhow::Result<PathBuf> {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(xtask
        .parent()
        .context("xtask has no parent folder")?
        .to_owned())
}

fn committed(root: &Path, arch: &str) -> PathBuf {
    root.join(format!("{}/profilemate.{arch}.o", sources::FOLDER))
}

fn build(root: &Path, arch: Arch) -> anyhow::Result<()> {
    let toolchain = Toolchain::find()?;
    println!("compiler: {}", toolchain.describe());
    for arch in arch.names() {
        let built = compile(root, &toolchain, arch, Kind::Shipped)?;
        let place = committed(root, arch);
        let before =
            fs::read(&place).map_or_else(|_| "none".into(), |bytes| sources::sha256(&bytes));
        let bytes = fs::read(&built).with_context(|| format!("reading {}", built.display()))?;
        fs::write(&place, &bytes).with_context(|| format!("writing {}", place.display()))?;
        println!(
            "{arch}: {} bytes, {} (was {})",
            bytes.len(),
            sources::sha256(&bytes),
            before
        );
    }
    let folder = root.join(sources::FOLDER);
    fs::write(folder.join("TOOLCHAIN"), toolchain.versions()?).context("writing TOOLCHAIN")?;
    fs::write(folder.join("DEPENDENCIES"), sources::dependencies(root)?)
        .context("writing DEPENDENCIES")?;
    fs::write(folder.join("SOURCES.sha256"), sources::sums(root)?)
        .context("writing SOURCES.sha256")?;
    println!("commit {}", sources::FOLDER);
    Ok(())
}

fn build_debug(root: &Path, arch: Arch) -> anyhow::Result<()> {
    let toolchain = Toolchain::find()?;
    println!("compiler: {}", toolchain.describe());
    for arch in arch.names() {
        let built = compile(root, &toolchain, arch, Kind::Debug)?;
        println!(
            "{arch}: {}; a debug build of profilemate loads it with PROFILEMATE_OBJECT",
            built.display()
        );
    }
    Ok(())
}

/// Compiles the object for `arch`; where it is.
fn compile(root: &Path, toolchain: &Toolchain, arch: &str, kind: Kind) -> anyhow::Result<PathBuf> {
    let (folder, flags) = match kind {
        Kind::Shipped => ("bpf", "-Cdebuginfo=0 -Cstrip=symbols"),
        Kind::Debug => ("bpf-debug", "-Cdebuginfo=2 -Clink-arg=--btf"),
    };
    let target = root.join(format!("target/{folder}/{arch}"));
    let flags = format!("--cfg bpf_target_arch=\"{arch}\" -Ctarget-cpu=v3 {flags}");
    let mut command = toolchain.cargo();
    command
        .current_dir(root)
        .args([
            "build",
            "--quiet",
            "--release",
            "--locked",
            "--package",
            "profilemate-ebpf",
            "--features",
            "bpf",
        ])
        .args([
            "--bin",
            "profilemate-bpf",
            "--target",
            toolchain::TARGET,
            "--target-dir",
        ])
        .arg(&target)
        .env("CARGO_CFG_BPF_TARGET_ARCH", arch)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS", flags)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS");
    let status = command.status().context("starting cargo")?;
    if !status.success() {
        bail!("the object for {arch} was not built");
    }
    Ok(target
        .join(toolchain::TARGET)
        .join("release/profilemate-bpf"))
}

fn verify(root: &Path) -> anyhow::Result<()> {
    sources::check(root)?;
    println!("sources: as when the objects were built");
    let toolchain = Toolchain::find()?;
    let then = fs::read_to_string(root.join(sources::FOLDER).join("TOOLCHAIN"))
        .context("reading TOOLCHAIN")?;
    let now = toolchain.versions()?;
    for arch in Arch::All.names() {
        let built = compile(root, &toolchain, arch, Kind::Shipped)?;
        let bytes = fs::read(&built).with_context(|| format!("reading {}", built.display()))?;
        let shipped = fs::read(committed(root, arch))
            .with_context(|| format!("reading the object for {arch}"))?;
        if bytes == shipped {
            println!("{arch}: rebuilt, byte for byte the same");
        } else if then == now {
            bail!(
                "{arch}: the same toolchain makes other bytes; see {}",
                built.display()
            );
        } else {
            let (shipped, rebuilt) = (structure(&shipped)?, structure(&bytes)?);
            if shipped != rebuilt {
                bail!("{arch}: the rebuilt object has {rebuilt:?}, the committed one {shipped:?}");
            }
            println!(
                "{arch}: built by another toolchain, structure equal\nthen:\n{then}now:\n{now}"
            );
        }
        if *arch == std::env::consts::ARCH {
            load(root, None)?;
            load(root, Some(&built))?;
        }
    }
    Ok(())
}

/// Has the running kernel verify the committed object, or `other`.
fn load(root: &Path, other: Option<&Path>) -> anyhow::Result<()> {
    let mut command = Command::new("cargo");
    command.current_dir(root).args([
        "test",
        "--quiet",
        "--package",
        "profilemate-ebpf",
        "--test",
        "verifier",
    ]);
    command.args(["--", "--nocapture"]);
    if let Some(path) = other {
        command.env("PROFILEMATE_OBJECT", path);
    }
    if !command.status().context("starting cargo")?.success() {
        bail!("this kernel does not take the object");
    }
    Ok(())
}

/// Names of sections and of global symbols: programs, maps, licence.
fn structure(bytes: &[u8]) -> anyhow::Result<BTreeSet<String>> {
    let file = object::File::parse(bytes).context("reading an object")?;
    let mut names = BTreeSet::new();
    for section in file.sections() {
        names.insert(format!("section {}", section.name()?));
    }
    for symbol in file.symbols().filter(object::ObjectSymbol::is_global) {
        names.insert(format!("symbol {}", symbol.name()?));
    }
    Ok(names)
}
