//! The guest's file system: ProfileMate, a Python, busybox, and the libraries that these need.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{demo, shell};

/// Prints the interpreter's own file, and the folders of its standard library.
const ASK: &str = "\
import os, sys, sysconfig
print(os.path.realpath(sys.executable))
print(sysconfig.get_path('stdlib'))
print(sysconfig.get_path('platstdlib'))";

/// Parts of the standard library that the demo target never imports, and that are most of its size.
const LEFT_OUT: [&str; 6] = [
    "test",
    "site-packages",
    "dist-packages",
    "idlelib",
    "tkinter",
    "ensurepip",
];

/// Builds it below `folder`; the path of the compressed archive.
pub(super) fn build(folder: &Path, python: &Path) -> Result<PathBuf> {
    let root = folder.join("root");
    if root.exists() {
        std::fs::remove_dir_all(&root)?;
    }
    std::fs::create_dir_all(root.join("bin"))?;
    let asked = Command::new(python)
        .args(["-I", "-c", ASK])
        .output()
        .with_context(|| format!("cannot run {}", python.display()))?;
    let answer = String::from_utf8(asked.stdout)?;
    let mut lines = answer.lines().map(PathBuf::from);
    let interpreter = lines
        .next()
        .with_context(|| format!("{} tells nothing about itself", python.display()))?;
    let folders: BTreeSet<PathBuf> = lines.collect();

    let mut objects = vec![interpreter.clone()];
    copy(&interpreter, &root.join(relative(&interpreter)))?;
    for library in &folders {
        copy_tree(library, &root.join(relative(library)), &mut objects)?;
    }
    let binary = demo::target_folder().join("release/profilemate");
    copy(&binary, &root.join("bin/profilemate"))?;
    objects.push(binary);
    for library in libraries(&objects)? {
        copy(&library, &root.join(relative(&library)))?;
    }
    copy(&program("busybox")?, &root.join("bin/busybox"))?;

    let init = include_str!("init.sh").replace("@PYTHON@", &interpreter.to_string_lossy());
    std::fs::write(root.join("init"), init)?;
    std::fs::set_permissions(root.join("init"), Permissions::from_mode(0o755))?;
    archive(&root, &folder.join("root.cpio.gz"))
}

fn archive(root: &Path, to: &Path) -> Result<PathBuf> {
    let script = "cd \"$1\" && find . | cpio --quiet -o -H newc -R 0:0 | gzip -1 >\"$2\"";
    shell::run(
        Command::new("sh")
            .args(["-e", "-c", script, "sh"])
            .arg(std::path::absolute(root)?)
            .arg(std::path::absolute(to)?),
    )?;
    Ok(to.to_owned())
}

/// The shared libraries that `objects` are linked with, and the loader, as the dynamic linker finds them here.
fn libraries(objects: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let output = Command::new("ldd")
        .args(objects)
        .output()
        .context("cannot run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text
        .lines()
        .filter(|line| line.starts_with(char::is_whitespace))
        .flat_map(str::split_whitespace)
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect())
}

/// Copies a folder, as far as it is needed; shared objects in it are added to `objects`.
fn copy_tree(from: &Path, to: &Path, objects: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if LEFT_OUT.iter().any(|left| name == *left) {
            continue;
        }
        if path.is_dir() {
            copy_tree(&path, &to.join(&name), objects)?;
        } else if path
            .extension()
            .is_some_and(|it| it == "py" || it == "pyc" || it == "so")
        {
            copy(&path, &to.join(&name))?;
            if path.extension().is_some_and(|it| it == "so") {
                objects.push(path);
            }
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().context("a file lies in a folder")?;
    std::fs::create_dir_all(folder)?;
    std::fs::copy(from, to).with_context(|| from.display().to_string())?;
    Ok(())
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// Where a program lies.
fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
    {
        Some(found) => Ok(found),
        None => bail!("{name} is not on PATH"),
    }
}
