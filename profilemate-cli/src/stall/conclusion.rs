//! What waits for what, in a sentence for each process of vLLM.

use std::fmt::Write as _;

use super::{Process, Report, Thread};
use crate::target::role::Role;

impl Report {
    /// What waits for what: of each engine and worker the thread that does its work, and what to look at.
    pub fn conclusions(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut hints: Vec<&str> = Vec::new();
        for process in &self.processes {
            let Some(thread) = worth(process) else {
                continue;
            };
            lines.push(format!("{} {}", name(process), does(thread)));
            if let (Some(wait), Some(_)) = (&thread.wait, thread.still_for()) {
                hints.extend(
                    wait.hint
                        .as_deref()
                        .filter(|hint| !hints.contains(hint))
                        .as_slice(),
                );
            }
        }
        // "Look at the workers" helps only where nothing is known of them.
        if hints.len() > 1 {
            hints.retain(|hint| *hint != "look at what the workers do");
        }
        lines.extend(hints.into_iter().map(|hint| format!("to do: {hint}")));
        lines
    }
}

/// The thread of a process of vLLM that tells most: one that waits for the device or for others before the main
/// thread.
fn worth(process: &Process) -> Option<&Thread> {
    let waits_for = |thread: &&Thread, ids: &[&str]| {
        thread
            .wait
            .as_ref()
            .is_some_and(|wait| ids.contains(&wait.id.as_str()))
    };
    let device = ["gpu", "copy", "peers"];
    let of = |ids: &[&str]| process.threads.iter().find(|thread| waits_for(thread, ids));
    let main = || {
        let is_main = |thread: &&Thread| thread.tid() == Some(process.seen.pid);
        process.threads.iter().find(is_main)
    };
    match process.role {
        Role::EngineCore | Role::Worker => of(&device)
            .or_else(|| of(&["workers", "engine", "requests"]))
            .or_else(main),
        Role::ApiServer | Role::Other => of(&device),
    }
}

fn name(process: &Process) -> String {
    let title = process.seen.command.split_whitespace().next().unwrap_or("");
    let title = title.split_once("::").map_or("", |(_, title)| title);
    let what = match (title, process.role) {
        ("", Role::EngineCore) => "EngineCore",
        ("", Role::Worker) => "worker",
        ("", _) => "process",
        (title, _) => title,
    };
    format!("{what} ({})", process.seen.pid)
}

fn does(thread: &Thread) -> String {
    let mut text = match (&thread.wait, thread.native.as_ref().err()) {
        (Some(wait), _) => format!("waits for {}", wait.says),
        (None, Some(_)) => "runs".to_owned(),
        (None, None) if thread.still_for().is_some() => {
            "waits, it is not known for what".to_owned()
        }
        (None, None) => "works".to_owned(),
    };
    if let Some(found) = thread.device_call() {
        let _ = write!(text, ": {} is on its stack", found.function);
    }
    if let Some(method) = thread.methods.first() {
        let _ = write!(text, ", in {}", method.id);
    }
    if let Some(time) = thread.still_for() {
        let still = super::text::time(time);
        let _ = write!(text, "; it has not moved for at least {still}");
    }
    text
}
