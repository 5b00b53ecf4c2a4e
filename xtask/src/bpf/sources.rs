//! What the committed objects were made from.

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the objects are committed.
pub(super) const FOLDER: &str = "profilemate-ebpf/object";
/// Folders whose files the objects are made from.
const SOURCES: [&str; 2] = ["profilemate-common/src", "profilemate-ebpf/src"];
/// The packages in `Cargo.lock` that are compiled into the objects.
const PACKAGES: [&str; 6] = [
    "aya-ebpf",
    "aya-ebpf-bindings",
    "aya-ebpf-cty",
    "aya-ebpf-macros",
    "bytemuck",
    "bytemuck_derive",
];

/// SHA-256 in hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Names and versions of the packages that are compiled into the objects, as `Cargo.lock` has them.
pub(super) fn dependencies(root: &Path) -> anyhow::Result<String> {
    let lock = fs::read_to_string(root.join("Cargo.lock")).context("reading Cargo.lock")?;
    let value = |line: Option<&str>, key: &str| {
        line.and_then(|line| line.strip_prefix(key))
            .map(|value| value.trim_matches('"').to_owned())
    };
    let mut text = String::new();
    for package in lock.split("[[package]]\n") {
        let mut lines = package.lines();
        let name = value(lines.next(), "name = ");
        let version = value(lines.next(), "version = ");
        if let (Some(name), Some(version)) = (name, version)
            && PACKAGES.contains(&name.as_str())
        {
            let _ = writeln!(text, "{name} {version}");
        }
    }
    Ok(text)
}

/// Lines for `sha256sum --check`, run in the repository's root.
pub(super) fn sums(root: &Path) -> anyhow::Result<String> {
    let mut files = Vec::new();
    for folder in SOURCES {
        list(root, Path::new(folder), &mut files)?;
    }
    for name in [
        "DEPENDENCIES",
        "TOOLCHAIN",
        "profilemate.aarch64.o",
        "profilemate.x86_64.o",
    ] {
        files.push(Path::new(FOLDER).join(name));
    }
    files.sort();
    let mut text = String::new();
    for file in files {
        let bytes =
            fs::read(root.join(&file)).with_context(|| format!("reading {}", file.display()))?;
        let _ = writeln!(text, "{}  {}", sha256(&bytes), file.display());
    }
    Ok(text)
}

/// Fails if anything changed since the objects were built.
pub(super) fn check(root: &Path) -> anyhow::Result<()> {
    let committed = fs::read_to_string(root.join(FOLDER).join("SOURCES.sha256"))
        .context("reading SOURCES.sha256")?;
    let now = sums(root)?;
    for line in now.lines() {
        if !committed.lines().any(|committed| committed == line) {
            let (_, file) = line.split_once("  ").unwrap_or(("", line));
            bail!(
                "{file} changed after the object was built; run `cargo xtask bpf build` and commit {FOLDER}"
            );
        }
    }
    let dependencies = fs::read_to_string(root.join(FOLDER).join("DEPENDENCIES"))
        .context("reading DEPENDENCIES")?;
    if committed.lines().count() != now.lines().count() || dependencies != self::dependencies(root)?
    {
        bail!(
            "sources or dependencies were removed or changed; run `cargo xtask bpf build` and commit {FOLDER}"
        );
    }
    Ok(())
}

/// All files under `folder` but tests.
fn list(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries =
        fs::read_dir(root.join(folder)).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("reading {}", folder.display()))?;
        let path = folder.join(entry.file_name());
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            continue;
        }
        if entry.file_type().context("reading a file's type")?.is_dir() {
            list(root, &path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
