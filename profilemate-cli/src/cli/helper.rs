//! `helper`: the Python helper in an environment, on PYTHONPATH, or in a running process.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Exit, Failure, find, print};
use crate::helper::install::{self, Error, Installed, Way};
use crate::target::process::{self, Seen};
use crate::touch::Resident;

/// Options of `helper`.
#[derive(Debug, Args)]
pub struct Helper {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do with the helper.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Install it into a virtual environment: servers started from it can then be traced also on CPython 3.11, and
    /// where no process may be traced from outside. It touches nothing until a tracer comes.
    Install(Install),
    /// Put it into a folder and print that folder, for PYTHONPATH.
    Path,
    /// Say where it is installed, or whether it waits in a running server and if not, why.
    Status(Status),
    /// Remove it from an environment.
    Remove(Remove),
}

/// Options of `helper remove`.
#[derive(Debug, Args)]
pub struct Remove {
    /// Virtual environment, or its `site-packages` folder.
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
}

/// Options of `helper install`.
#[derive(Debug, Args)]
pub struct Install {
    /// Virtual environment, or its `site-packages` folder.
    #[arg(long, value_name = "DIR")]
    pub into: PathBuf,
    /// How it gets into a process.
    #[arg(long, value_enum, default_value_t)]
    pub way: Way,
}

/// Options of `helper status`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Status {
    /// Virtual environment, or its `site-packages` folder.
    #[arg(long = "in", value_name = "DIR")]
    pub environment: Option<PathBuf>,
    /// Process id of a server; its children are looked at too. Repeatable.
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Vec<u32>,
}

/// `helper`.
pub(super) fn helper(helper: &Helper) -> Result<Exit, Failure> {
    match &helper.action {
        Action::Install(options) => {
            for site in install::sites(&options.into).map_err(failure)? {
                let installed = install::install(&site, options.way).map_err(failure)?;
                print::data(&told(&installed));
            }
            print::note("servers that are started from it from now on wait for a tracer");
        }
        Action::Remove(options) => {
            for site in install::sites(&options.from).map_err(failure)? {
                install::remove(&site).map_err(failure)?;
                print::data(&format!("removed from {}", site.display()));
            }
        }
        Action::Path => {
            let folder = install::shared_folder();
            install::lay_out(&folder).map_err(failure)?;
            print::note(
                "PYTHONPATH with this folder in it lets the helper wait in a server from its start",
            );
            print::data(&folder.display().to_string());
        }
        Action::Status(options) => return status(options),
    }
    Ok(Exit::Done)
}

fn status(options: &Status) -> Result<Exit, Failure> {
    if let Some(folder) = &options.environment {
        let mut missing = false;
        for site in install::sites(folder).map_err(failure)? {
            let found = install::status(&site).map_err(failure)?;
            missing |= found.is_none();
            print::data(&found.map_or_else(
                || format!("not installed in {}", site.display()),
                |installed| told(&installed),
            ));
        }
        return Ok(if missing { Exit::NoTarget } else { Exit::Done });
    }
    let roots: BTreeSet<u32> = find::given(&options.pid)?;
    let tree = process::tree_now(&roots).map_err(|error| Failure::new(Exit::Failed, error))?;
    let mut found = false;
    for seen in &tree {
        let line = in_process(seen)?;
        found |= line["state"].is_string();
        print::data(&line.to_string());
    }
    Ok(if found { Exit::Done } else { Exit::NoTarget })
}

/// What is known of the helper in one process, as JSON.
fn in_process(seen: &Seen) -> Result<serde_json::Value, Failure> {
    let resident = Resident::find(seen.pid).map_err(|error| {
        Failure::new(Exit::Forbidden, error).hint("run as root or as the server's user")
    })?;
    let state = resident.and_then(|resident| resident.state());
    let reason = match &state {
        Some(state) => state.reason.clone(),
        None => Some(why_not(seen.pid)),
    };
    Ok(json!({
        "pid": seen.pid,
        "command": seen.command.chars().take(80).collect::<String>(),
        "state": state.as_ref().map(|state| &state.state),
        "python": state.as_ref().map(|state| &state.python),
        "reason": reason,
    }))
}

/// Why there is no helper in a process, from its command line and its environment at its start.
fn why_not(pid: u32) -> String {
    let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let words = |bytes: &[u8]| -> Vec<String> {
        bytes
            .split(|byte| *byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect()
    };
    let environment = words(&read("environ"));
    let value = |name: &str| {
        environment
            .iter()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(str::to_owned)
    };
    if value("VLLM_ENABLE_PROFILING").as_deref() == Some("0") {
        return "VLLM_ENABLE_PROFILING=0 forbids it".to_owned();
    }
    if let Some(flag) = python_flag(&words(&read("cmdline"))) {
        return format!("its Python was started with {flag}");
    }
    match value("VLLM_PLUGINS") {
        Some(list) if !list.split(',').any(|name| name == "profilemate") => format!(
            "VLLM_PLUGINS={list} leaves out `profilemate`, and no `.pth` line or PYTHONPATH leads to it"
        ),
        _ => "it is not installed in its environment, was installed after its start, or vLLM is not imported"
            .to_owned(),
    }
}

/// The option of a Python command line that keeps a helper out, and what it keeps out.
fn python_flag(words: &[String]) -> Option<&'static str> {
    for word in words.iter().skip(1) {
        let letters = word
            .strip_prefix('-')
            .filter(|rest| !rest.starts_with('-'))?;
        if letters.contains('S') {
            return Some(
                "-S: neither a `.pth` line nor a sitecustomize is run; vLLM's entry point is",
            );
        }
        if letters.contains('I') || letters.contains('E') {
            return Some(
                "-I or -E: PYTHONPATH is ignored; a `.pth` line or vLLM's entry point works",
            );
        }
        if letters.ends_with(['c', 'm']) {
            return None;
        }
    }
    None
}

fn told(installed: &Installed) -> String {
    let ways = match (installed.pth, installed.plugin) {
        (true, true) => "`.pth` line and vLLM plugin",
        (true, false) => "`.pth` line",
        (false, true) => "vLLM plugin",
        (false, false) => "no way in: install it again",
    };
    format!(
        "profilemate-helper {} in {} ({ways})",
        installed.version,
        installed.folder.display()
    )
}

fn failure(error: Error) -> Failure {
    let (exit, hint) = match &error {
        Error::NoEnvironment(_) | Error::NoPython(_) => (
            Exit::NoTarget,
            "give the folder that holds `bin/python`, or a `site-packages` folder",
        ),
        Error::Owner { .. } => (Exit::Forbidden, "run this command as that user"),
        Error::NotInstalled(_) => (
            Exit::NoTarget,
            "`profilemate helper install --into DIR` installs it",
        ),
        Error::Io { .. } => (
            Exit::Output,
            "is the folder writable, and its disk not full?",
        ),
    };
    Failure::new(exit, error).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_python_that_keep_the_helper_out_are_seen() {
        let flag =
            |line: &str| python_flag(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(flag("python3 -m vllm.entrypoints -S"), None);
        assert_eq!(flag("python3 server.py -I"), None);
        assert_eq!(flag("python3 -u -c pass -S"), None);
        assert!(flag("python3 -S x.py").unwrap().starts_with("-S"));
        assert!(flag("python3 -uI -m vllm").unwrap().starts_with("-I"));
    }
}
