//! `cargo xtask docs`: what is made from the declarations in the code, pages of `docs/` and rules of `deploy/`.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// What is generated, and where it stands; `profilemate-cli/examples/reference.rs` prints each.
const PAGES: [(&str, &str); 5] = [
    ("tables", "docs/tables.md"),
    ("catalog", "docs/catalog.md"),
    ("findings", "docs/findings.md"),
    ("metrics", "docs/metrics.md"),
    (
        "fleet-rules",
        "deploy/prometheus/profilemate.fleet.rules.yaml",
    ),
];

/// What to do with pages that differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Write them anew.
    Write,
    /// Fail.
    Check,
}

pub(crate) fn docs(mode: Mode) -> Result<()> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let mut stale = Vec::new();
    for (page, file) in PAGES {
        let path = root.join(file);
        let text = generate(page)?;
        if std::fs::read(&path).is_ok_and(|old| old == text) {
            continue;
        }
        if mode == Mode::Check {
            stale.push(file);
            continue;
        }
        std::fs::write(&path, text)
            .with_context(|| format!("cannot write `{}`", path.display()))?;
        eprintln!("wrote {file}");
    }
    if !stale.is_empty() {
        bail!(
            "{} differ from the code: run `cargo xtask docs` and commit what it writes",
            stale.join(" and ")
        );
    }
    Ok(())
}

fn generate(page: &str) -> Result<Vec<u8>> {
    let mut command = shell::cargo();
    command.args(["run", "--quiet", "--locked", "--package", "profilemate-cli"]);
    command.args(["--example", "reference", "--", page]);
    let output = command.output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!(
            "`--example reference -- {page}` failed:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output.stdout)
}
