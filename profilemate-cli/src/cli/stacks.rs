//! `where`.

use std::fmt::Write as _;

use clap::Args;
use serde_json::json;

use super::exit::{Exit, Failure};
use super::{find, print};
use crate::catalog::Catalog;
use crate::session::chain;
use crate::target::process::{self, Seen};
use crate::target::python::traceback::{self, Frame, Thread};
use crate::target::python::{ProcessMemory, identify, validate};

/// Options of `where`.
#[derive(Debug, Args)]
pub struct Where {
    /// Process id of the server; its children are looked at too. Repeatable. Without it: the one vLLM server of this
    /// host.
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Vec<u32>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// What was found in one process.
struct Found {
    seen: Seen,
    python: Result<(String, Vec<Thread>), String>,
}

/// Prints the Python stack of every thread of every process, without stopping any.
pub(super) fn stacks(options: &Where) -> Result<Exit, Failure> {
    let roots = if options.pid.is_empty() {
        find::only_server()?
    } else {
        find::given(&options.pid)?
    };
    let tree = process::tree_now(&roots).map_err(|error| Failure::new(Exit::Failed, error))?;
    let found: Vec<Found> = tree.into_iter().map(look).collect();
    print::data(&if options.json {
        format!("{:#}", json!(found.iter().map(as_json).collect::<Vec<_>>()))
    } else {
        found.iter().map(text).collect::<Vec<_>>().join("\n")
    });
    if found.iter().any(|found| found.python.is_ok()) {
        return Ok(Exit::Done);
    }
    let error = anyhow::anyhow!("no Python stack could be read");
    Err(Failure::new(Exit::NoTarget, error)
        .hint("the reasons are above; `profilemate doctor --pid PID` says more"))
}

fn look(seen: Seen) -> Found {
    let memory = ProcessMemory { pid: seen.pid };
    let python = identify(seen.pid, &memory)
        .map_err(|error| chain(&error))
        .and_then(|interpreter| validate(&interpreter, &memory).map_err(|error| chain(&error)))
        .map(|layout| {
            (
                layout.version.to_string(),
                traceback::threads(&memory, &layout),
            )
        });
    Found { seen, python }
}

/// The catalogue's name for the method that a frame runs, if it is in the catalogue.
fn catalogued(catalog: &Catalog, frame: &Frame) -> Option<String> {
    let method = catalog.methods.iter().find(|method| {
        let file = method.module.replace('.', "/") + ".py";
        // 3.10 tells plain names only.
        let plain = method.qualname.rsplit('.').next() == Some(frame.name.as_str());
        frame.file.ends_with(&file) && (method.qualname == frame.name || plain)
    })?;
    Some(method.id.clone())
}

/// The innermost method of the catalogue that a thread is in.
fn in_progress(catalog: &Catalog, thread: &Thread) -> Option<String> {
    thread
        .frames
        .iter()
        .find_map(|frame| catalogued(catalog, frame))
}

/// A thread's name, state and the kernel function that it waits in.
fn kernel_side(pid: u32, tid: u32) -> (String, String, String) {
    let read = |name: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/{name}"))
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let status = read("status");
    let state = status
        .lines()
        .find_map(|line| line.strip_prefix("State:"))
        .unwrap_or("")
        .trim();
    let wait = read("wchan");
    (
        read("comm"),
        state.to_owned(),
        if wait == "0" { String::new() } else { wait },
    )
}

fn text(found: &Found) -> String {
    let catalog = Catalog::vllm();
    let title: String = found.seen.command.chars().take(60).collect();
    let mut out = format!("process {}  {title}\n", found.seen.pid);
    let (version, threads) = match &found.python {
        Ok(python) => python,
        Err(reason) => {
            let _ = writeln!(out, "  no Python stack: {reason}");
            return out;
        }
    };
    let _ = writeln!(out, "  CPython {version}, {} threads", threads.len());
    for thread in threads {
        let (name, state, wait) = thread
            .tid
            .map(|tid| kernel_side(found.seen.pid, tid))
            .unwrap_or_default();
        let tid = thread
            .tid
            .map_or_else(|| "?".to_owned(), |tid| tid.to_string());
        let _ = writeln!(out, "  thread {tid}  {name}  {state}  {wait}");
        if let Some(method) = in_progress(&catalog, thread) {
            let _ = writeln!(out, "    in {method}");
        }
        if !thread.steady {
            let _ = writeln!(out, "    it runs: these frames are of more than one moment");
        }
        for frame in &thread.frames {
            let line = frame
                .line
                .map(|line| format!(":{line}"))
                .unwrap_or_default();
            let _ = writeln!(out, "      {:<40} {}{line}", frame.name, frame.file);
        }
    }
    out
}

fn as_json(found: &Found) -> serde_json::Value {
    let catalog = Catalog::vllm();
    let threads = found.python.as_ref().ok().map(|(_, threads)| {
        let threads = threads.iter().map(|thread| {
            let (name, state, wait) = thread.tid.map(|tid| kernel_side(found.seen.pid, tid)).unwrap_or_default();
            let frames: Vec<_> = thread
                .frames
                .iter()
                .map(|frame| json!({ "name": frame.name, "file": frame.file, "line": frame.line }))
                .collect();
            json!({
                "tid": thread.tid, "name": name, "state": state, "waits_in": wait, "steady": thread.steady,
                "method": in_progress(&catalog, thread), "frames": frames,
            })
        });
        threads.collect::<Vec<_>>()
    });
    json!({
        "pid": found.seen.pid,
        "command": found.seen.command,
        "python": found.python.as_ref().ok().map(|(version, _)| version),
        "reason": found.python.as_ref().err(),
        "threads": threads,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_method_of_the_catalogue_is_named() {
        let frame = |name: &str, file: &str| Frame {
            name: name.into(),
            file: file.into(),
            line: None,
        };
        let thread = |frames| Thread {
            tid: None,
            frames,
            steady: true,
        };
        let scheduler = "/x/vllm/v1/core/sched/scheduler.py";
        let stack = vec![
            frame("len_of", "/x/a.py"),
            frame("Scheduler.schedule", scheduler),
            frame("step", "/x/b.py"),
        ];
        let catalog = Catalog::vllm();
        assert_eq!(
            in_progress(&catalog, &thread(stack)).as_deref(),
            Some("scheduler.schedule")
        );
        let plain = vec![frame("schedule", scheduler)];
        assert_eq!(
            in_progress(&catalog, &thread(plain)).as_deref(),
            Some("scheduler.schedule")
        );
        let other = vec![frame("Scheduler.schedule", "/x/other.py")];
        assert_eq!(in_progress(&catalog, &thread(other)), None);
    }
}
