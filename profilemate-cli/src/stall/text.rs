//! The report for a person.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Moved, Process, Report, Thread};

/// Characters of a command line that are shown.
const TITLE: usize = 60;

impl Report {
    /// The report as text.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for process in &self.processes {
            self.process(&mut out, process);
            out.push('\n');
        }
        let conclusions = self.conclusions();
        if !conclusions.is_empty() {
            out.push_str("what waits for what\n");
            for line in conclusions {
                let _ = writeln!(out, "  {line}");
            }
        }
        out.trim_end().to_owned()
    }

    fn process(&self, out: &mut String, process: &Process) {
        let title: String = process.seen.command.chars().take(TITLE).collect();
        let _ = writeln!(out, "process {}  {title}", process.seen.pid);
        match &process.python {
            Ok(version) => {
                let _ = writeln!(
                    out,
                    "  CPython {version}, {} threads",
                    process.threads.len()
                );
            }
            Err(reason) => {
                let _ = writeln!(out, "  no Python stack: {reason}");
            }
        }
        if process.cuda || self.launches.last.contains_key(&process.seen.pid) {
            let _ = writeln!(out, "  last graph launched: {}", self.launched(process));
        }
        for thread in &process.threads {
            one(out, thread);
        }
        for (path, why) in &process.unread {
            let _ = writeln!(out, "  functions of {path} are not told: {why}");
        }
        let (told, rest): (Vec<&Thread>, Vec<&Thread>) = process
            .native_threads
            .iter()
            .partition(|thread| thread.device_call().is_some());
        for thread in told {
            one(out, thread);
        }
        if !rest.is_empty() {
            let _ = writeln!(
                out,
                "  {} threads without Python and outside of CUDA: {}",
                rest.len(),
                names(&rest)
            );
        }
    }

    fn launched(&self, process: &Process) -> String {
        if !self.same_ids {
            return "not known: run on the host, whose process ids a tracer records".to_owned();
        }
        let Some(launch) = self.launches.last.get(&process.seen.pid) else {
            return format!("not known: {}", self.launches.why_unknown(process.seen.pid));
        };
        let ago = Duration::from_nanos(self.now_ns.saturating_sub(launch.at_ns));
        format!(
            "{:#x}, {} ago, by thread {} (recorded by tracer {})",
            launch.exec,
            time(ago),
            launch.tid,
            launch.tracer
        )
    }
}

fn names(threads: &[&Thread]) -> String {
    let mut counts = std::collections::BTreeMap::new();
    for thread in threads {
        let name = thread.task.as_ref().map_or("?", |task| task.name.as_str());
        *counts.entry(name).or_insert(0_u32) += 1;
    }
    let list: Vec<String> = counts
        .into_iter()
        .map(|(name, count)| match count {
            1 => name.to_owned(),
            _ => format!("{name} x{count}"),
        })
        .collect();
    list.join(", ")
}

fn one(out: &mut String, thread: &Thread) {
    let tid = thread
        .tid()
        .map_or_else(|| "?".to_owned(), |tid| tid.to_string());
    let (name, state, wait) = thread.task.as_ref().map_or(("", "", ""), |task| {
        (
            task.name.as_str(),
            task.state.as_str(),
            task.waits_in.as_deref().unwrap_or(""),
        )
    });
    let _ = writeln!(out, "  thread {tid}  {name}  {state}  {wait}");
    let _ = writeln!(out, "    {}", moved(thread));
    if let Some(wait) = &thread.wait {
        let _ = writeln!(out, "    waits for {}", wait.says);
    }
    if !thread.methods.is_empty() {
        let ids: Vec<&str> = thread
            .methods
            .iter()
            .map(|method| method.id.as_str())
            .collect();
        let since = match thread.methods[0].at_least {
            Some(least) => format!("for at least {}", time(least)),
            None => "since when is not known: calls may have ended meanwhile".to_owned(),
        };
        let _ = writeln!(out, "    in {}, {since}", ids.join(" < "));
    }
    match &thread.native {
        Ok(found) if !found.is_empty() => {
            let list: Vec<String> = found
                .iter()
                .map(|found| format!("{} ({})", found.function, found.library))
                .collect();
            let _ = writeln!(out, "    found on the native stack: {}", list.join(" < "));
        }
        Ok(_) | Err(_) => {}
    }
    let Some(python) = &thread.python else {
        return;
    };
    if !python.steady {
        let _ = writeln!(out, "    it runs: these frames are of more than one moment");
    }
    for frame in &python.frames {
        let line = frame
            .line
            .map(|line| format!(":{line}"))
            .unwrap_or_default();
        let _ = writeln!(out, "      {:<40} {}{line}", frame.name, frame.file);
    }
}

fn moved(thread: &Thread) -> String {
    match (thread.moved, thread.still_for()) {
        (_, Some(still)) => format!("has not moved for at least {}", time(still)),
        (Moved::Ran { ran, between }, _) => {
            format!(
                "ran {} of the last {}",
                time(ran.min(between)),
                time(between)
            )
        }
        (Moved::Unknown(why), _) => format!("whether it moves is not known: {why}"),
        (Moved::No(_), None) => String::new(),
    }
}

/// A time for a person.
pub(super) fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1000.0)
    } else if seconds < 120.0 {
        format!("{seconds:.1} s")
    } else if seconds < 7200.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3600.0)
    }
}
