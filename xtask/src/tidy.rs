//! `cargo xtask tidy`: house rules that no lint knows.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Lines of a source file, at most.
const LINES: usize = 600;

pub(crate) fn tidy() -> Result<()> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let mut faults = Vec::new();
    for path in sources(root)? {
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        check(&path, &text, &mut faults);
    }
    if faults.is_empty() {
        return Ok(());
    }
    bail!("{} faults:\n  {}", faults.len(), faults.join("\n  "));
}

fn check(path: &Path, text: &str, faults: &mut Vec<String>) {
    let name = path.display();
    if text.lines().count() > LINES {
        faults.push(format!("{name}: more than {LINES} lines"));
    }
    let rust = path.extension().is_some_and(|extension| extension == "rs");
    if rust && !text.starts_with("//!") && !text.starts_with("#!") {
        faults.push(format!("{name}: does not begin with a module doc"));
    }
    for (number, line) in text.lines().enumerate() {
        let at = number + 1;
        if line != line.trim_end() {
            faults.push(format!("{name}:{at}: trailing space"));
        }
        for mark in [
            concat!("todo", "!("),
            concat!("unimplemented", "!("),
            concat!("FIX", "ME"),
            concat!("#[", "ignore"),
        ] {
            if line.contains(mark) {
                faults.push(format!("{name}:{at}: `{mark}`"));
            }
        }
    }
}

/// Rust and Python sources that git tracks.
fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let output = std::process::Command::new("git")
        .args(["ls-files", "*.rs", "*.py", "*.md", "*.toml"])
        .current_dir(root)
        .output()
        .context("cannot run git")?;
    let list = String::from_utf8(output.stdout).context("file names in UTF-8")?;
    Ok(list
        .lines()
        .map(|line| root.join(line))
        .filter(|path| path.exists())
        .collect())
}
