//! Starting the helper in a process that runs already, where the user asked for that.

use super::look::Runtime;
use super::trouble::Trouble;
use crate::cli::Exit;
use crate::helper;
use crate::plan::late::Late;
use crate::target::python::{Entry, EntryError, find_entry};

/// The way into an interpreter. Reads only.
pub(super) fn entry(runtime: &Runtime) -> Result<Entry, Trouble> {
    let pid = runtime.memory.pid;
    if is_forbidden(pid) {
        let reason = "VLLM_ENABLE_PROFILING=0 in its environment forbids the helper";
        return Err(Trouble::lasting(Exit::Forbidden, reason)
            .hint("start it without that variable, or leave out `--touch helper`"));
    }
    find_entry(&runtime.interpreter, &runtime.layout, &runtime.memory).map_err(|error| {
        let exit = match &error {
            EntryError::Disabled => Exit::Forbidden,
            _ => Exit::Unsupported,
        };
        Trouble::lasting(exit, error.to_string()).hint(
            "nothing was written; `profilemate helper install` has the helper wait in it from its next start on",
        )
    })
}

/// Starts the helper by that way.
pub(super) fn load(pid: u32, entry: &Entry, plan: Option<&Late>) -> Result<(), Trouble> {
    if let Some(plan) = plan {
        log::info!("process {pid}: {}", plan.text());
    }
    helper::load(pid, entry)?;
    Ok(())
}

/// What the process was started with.
fn is_forbidden(pid: u32) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment
        .split(|byte| *byte == 0)
        .any(|line| line == b"VLLM_ENABLE_PROFILING=0")
}
