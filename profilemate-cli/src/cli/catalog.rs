//! `catalog`: what is probed in which vLLM, and whether it fits one.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::underway::Underway;
use super::{Exit, Failure, print};
use crate::catalog::check::{self, CheckError};
use crate::catalog::{Catalog, Method};

/// Options of `catalog`.
#[derive(Debug, Args)]
pub struct Options {
    /// What to do with it.
    #[command(subcommand)]
    pub task: Task,
}

/// What to do with the catalogue.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Check every method, argument and attribute of the catalogue against the sources of a vLLM; nothing of them is
    /// run. Exit code 0: all of it is there, or cannot be told from the sources; 3: something is missing; 4: there is
    /// no vLLM.
    Check(Check),
    /// List the methods and fields of the catalogue.
    List(List),
}

/// Options of `catalog check`.
#[derive(Debug, Args)]
pub struct Check {
    /// A source tree, an installed package's folder, a virtual environment, or a wheel.
    pub path: PathBuf,
    /// Take the sources for this version, as with a source tree that states none.
    #[arg(long, value_name = "VERSION")]
    pub vllm: Option<String>,
    /// List what was found too.
    #[arg(long)]
    pub all: bool,
    /// Print the whole report as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Options of `catalog list`.
#[derive(Debug, Args)]
pub struct List {
    /// Only what holds for this version.
    #[arg(long, value_name = "VERSION")]
    pub vllm: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `catalog`.
pub(super) fn run(options: &Options, quiet: bool) -> Result<Exit, Failure> {
    match &options.task {
        Task::Check(options) => check(options, quiet),
        Task::List(options) => list(options),
    }
}

fn check(options: &Check, quiet: bool) -> Result<Exit, Failure> {
    let version = options.vllm.as_deref();
    let what = format!("reading the sources in {}", options.path.display());
    let underway = Underway::start(what, quiet);
    let mut catalog = Catalog::vllm();
    catalog.methods.extend(crate::catalog::sampled_routers());
    let report = check::check(&catalog, &options.path, version)
        .map_err(|error| failure(&options.path, error))?;
    drop(underway);
    let text = if options.json {
        format!("{:#}", serde_json::json!(report))
    } else {
        check::text(&report, options.all)
    };
    print::data(text.trim_end());
    Ok(if report.totals.not_found > 0 {
        Exit::Incomplete
    } else {
        Exit::Done
    })
}

fn failure(path: &Path, error: CheckError) -> Failure {
    let (exit, hint) = match &error {
        CheckError::Tree(_) => (
            Exit::NoTarget,
            "give a source tree, the folder of an installed package, a virtual environment or a wheel",
        ),
        CheckError::NoVersion | CheckError::OddVersion(_) if path.is_dir() => (
            Exit::Usage,
            "`--vllm VERSION` says which version it is; a source tree gets its own when it is built",
        ),
        CheckError::NoVersion | CheckError::OddVersion(_) => {
            (Exit::Usage, "`--vllm VERSION` says which version it is")
        }
    };
    Failure::new(exit, error).hint(hint)
}

fn list(options: &List) -> Result<Exit, Failure> {
    let catalog = Catalog::vllm();
    let release = super::vllm_release(options.vllm.as_deref())?;
    let holds = |versions: &semver::VersionReq| {
        release
            .as_ref()
            .is_none_or(|release| versions.matches(release))
    };
    let methods: Vec<Method> = catalog
        .methods
        .into_iter()
        .filter(|method| holds(&method.versions))
        .map(|mut method| {
            method.fields.retain(|field| holds(&field.versions));
            method
        })
        .collect();
    let text = if options.json {
        format!("{:#}", json(&catalog.range, &methods))
    } else {
        text(&methods)
    };
    print::data(text.trim_end());
    Ok(Exit::Done)
}

fn text(methods: &[Method]) -> String {
    let mut out = String::new();
    for method in methods {
        let _ = writeln!(
            out,
            "{}:{}  ({}; {})",
            method.module,
            method.qualname,
            method.versions,
            method.events.words()
        );
        if !method.tables.is_empty() {
            let _ = writeln!(out, "    for {}", method.tables.join(", "));
        }
        for field in &method.fields {
            let _ = write!(out, "    {} = {}", field.name, field.path);
            if field.versions != semver::VersionReq::STAR {
                let _ = write!(out, "  ({})", field.versions);
            }
            let _ = writeln!(out);
        }
    }
    out
}

fn json(range: &semver::VersionReq, methods: &[Method]) -> serde_json::Value {
    let methods: Vec<_> = methods
        .iter()
        .map(|method| {
            let fields: Vec<_> = method
                .fields
                .iter()
                .map(|field| {
                    serde_json::json!({
                        "name": field.name, "path": field.path, "versions": field.versions.to_string(),
                    })
                })
                .collect();
            serde_json::json!({
                "id": method.id, "module": method.module, "qualname": method.qualname,
                "versions": method.versions.to_string(), "events": method.events.words(),
                "operation": method.operation, "tables": method.tables, "fields": fields,
            })
        })
        .collect();
    serde_json::json!({ "range": range.to_string(), "methods": methods })
}
