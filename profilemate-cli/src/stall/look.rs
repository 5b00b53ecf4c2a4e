//! The two looks, and what they tell together.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::wait::{Wait, waiting, waits};
use super::{InProgress, Launches, Moved, Process, Report, Thread};
use crate::catalog::Catalog;
use crate::session::chain;
use crate::sys::clock;
use crate::target::native::{Found, Libraries};
use crate::target::process::Seen;
use crate::target::python::object::Objects;
use crate::target::python::traceback::{self, Frame};
use crate::target::python::{Layout, ProcessMemory, identify, validate};
use crate::target::role::{self, Role};
use crate::target::task::{self, Call, Task};
use crate::touch::MarkerPage;

/// One look at a process.
struct Look {
    tasks: Vec<Task>,
    threads: Vec<traceback::Thread>,
    /// Calls that have ended, by code object: as a marker page counts them.
    ended: BTreeMap<u64, u64>,
    began: Instant,
    done: Instant,
}

/// What is the same at both looks.
struct Subject {
    seen: Seen,
    memory: ProcessMemory,
    layout: Result<Layout, String>,
}

/// Looks at processes twice, `watch` apart.
pub fn look(tree: Vec<Seen>, watch: Duration) -> Report {
    let subjects: Vec<Subject> = tree.into_iter().map(Subject::open).collect();
    let first: Vec<Look> = subjects.iter().map(Subject::look).collect();
    std::thread::sleep(watch);
    let catalog = Catalog::vllm();
    let waits = waits();
    let second: Vec<Look> = subjects.iter().map(Subject::look).collect();
    let now_ns = clock::monotonic_ns();
    let processes = subjects
        .into_iter()
        .zip(first.iter().zip(&second))
        .map(|(subject, (before, after))| subject.compare(before, after, &catalog, &waits))
        .collect();
    Report {
        processes,
        launches: Launches::now(),
        now_ns,
        same_ids: crate::sys::process::in_first_pid_namespace(),
    }
}

impl Subject {
    fn open(seen: Seen) -> Self {
        let memory = ProcessMemory { pid: seen.pid };
        let layout = identify(seen.pid, &memory)
            .map_err(|error| chain(&error))
            .and_then(|interpreter| validate(&interpreter, &memory).map_err(|error| chain(&error)));
        Self {
            seen,
            memory,
            layout,
        }
    }

    fn look(&self) -> Look {
        let began = Instant::now();
        let tasks = task::tasks(self.seen.pid);
        let layout = self.layout.as_ref().ok();
        let threads = layout
            .map(|layout| traceback::threads(&self.memory, layout))
            .unwrap_or_default();
        let ended = layout
            .and_then(|layout| self.ended(layout))
            .unwrap_or_default();
        Look {
            tasks,
            threads,
            ended,
            began,
            done: Instant::now(),
        }
    }

    /// What the slots of a marker page have counted.
    fn ended(&self, layout: &Layout) -> Option<BTreeMap<u64, u64>> {
        let page = MarkerPage::find(self.seen.pid).ok()??;
        let objects = Objects::new(&self.memory, layout);
        let slots = page.slots().ok()?;
        let used = slots.iter().filter(|slot| slot.function != 0);
        Some(
            used.filter_map(|slot| Some((objects.function(slot.function)?.code, slot.calls)))
                .collect(),
        )
    }

    fn compare(self, before: &Look, after: &Look, catalog: &Catalog, waits: &[Wait]) -> Process {
        let libraries = Libraries::of(self.seen.pid).ok();
        let both = Both {
            before,
            after,
            between: after.began.saturating_duration_since(before.done),
            catalog,
            waits,
            libraries: libraries.as_ref(),
        };
        let mut rest: Vec<&Task> = after.tasks.iter().collect();
        let mut threads = Vec::new();
        for python in &after.threads {
            // What a thread says its id is counts only if there is such a thread, and no other one has said so.
            let at = rest
                .iter()
                .position(|task| Some(task.own_tid) == python.tid);
            let task = at.map(|at| rest.swap_remove(at));
            threads.push(both.thread(task, Some(python)));
        }
        rest.sort_by_key(|task| task.tid);
        let native_threads = rest
            .into_iter()
            .map(|task| both.thread(Some(task), None))
            .collect();
        let role = role::title(&self.seen).map_or(Role::Other, |title| title.role);
        Process {
            role,
            python: self.layout.map(|layout| layout.version.to_string()),
            threads,
            native_threads,
            cuda: libraries.as_ref().is_some_and(Libraries::has_driver),
            unread: libraries
                .map(|libraries| libraries.unread)
                .unwrap_or_default(),
            seen: self.seen,
        }
    }
}

/// Both looks at a process, and what they are compared by.
struct Both<'a> {
    before: &'a Look,
    after: &'a Look,
    between: Duration,
    catalog: &'a Catalog,
    waits: &'a [Wait],
    libraries: Option<&'a Libraries>,
}

impl Both<'_> {
    fn thread(&self, task: Option<&Task>, python: Option<&traceback::Thread>) -> Thread {
        let moved = self.moved(task);
        let native = self.native(task);
        let frames = python.map_or(&[][..], |python| &python.frames);
        let found = native.as_deref().unwrap_or_default();
        let wait = waiting(self.waits, frames, found)
            .filter(|_| task.is_none_or(|task| !matches!(task.call, Call::Running)));
        let mut thread = Thread {
            task: task.cloned(),
            python: python.cloned(),
            moved,
            methods: Vec::new(),
            wait,
            native,
        };
        thread.methods = python.map_or_else(Vec::new, |python| self.methods(python, &thread));
        thread
    }

    fn moved(&self, task: Option<&Task>) -> Moved {
        let Some(after) = task else {
            return Moved::Unknown("it is not known which of the kernel's threads it is");
        };
        let before = self.before.tasks.iter().find(|task| task.tid == after.tid);
        let Some(before) = before else {
            return Moved::Unknown("it was not there at the first look");
        };
        match (before.ran, after.ran) {
            (Some(first), Some(second)) if first == second && after.call != Call::Running => {
                Moved::No(self.between)
            }
            (Some((first, _)), Some((second, _))) => Moved::Ran {
                ran: second.saturating_sub(first),
                between: self.between,
            },
            _ => Moved::Unknown("the kernel does not count how long threads run"),
        }
    }

    fn native(&self, task: Option<&Task>) -> Result<Vec<Found>, &'static str> {
        let task = task.ok_or("it is not known which of the kernel's threads it is")?;
        let libraries = self
            .libraries
            .ok_or("the process's memory map cannot be read")?;
        match task.call {
            Call::Waits {
                stack, instruction, ..
            } => Ok(libraries.on_stack(stack, instruction)),
            Call::Running => Err("it runs: its native stack cannot be read without stopping it"),
            Call::Unknown => Err("the kernel does not tell where it waits"),
        }
    }

    /// Methods of the catalogue in progress.
    fn methods(&self, python: &traceback::Thread, thread: &Thread) -> Vec<InProgress> {
        let frames = python.frames.iter();
        frames
            .filter_map(|frame| {
                let id = catalogued(self.catalog, frame)?;
                let at_least = thread
                    .still_for()
                    .or_else(|| self.same_call(python.tid, frame));
                Some(InProgress { id, at_least })
            })
            .collect()
    }

    /// The time between the looks, if a marker page has counted that no call of the method ended meanwhile and it was
    /// in progress before: then it is the same call, although the thread ran.
    fn same_call(&self, tid: Option<u32>, frame: &Frame) -> Option<Duration> {
        let counted = |look: &Look| look.ended.get(&frame.code).copied();
        let was = self
            .before
            .threads
            .iter()
            .find(|thread| thread.tid == tid && tid.is_some())?;
        let there = was
            .frames
            .iter()
            .any(|old| (old.address, old.code) == (frame.address, frame.code));
        let same = counted(self.before).is_some() && counted(self.before) == counted(self.after);
        (there && same && was.steady).then_some(self.between)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_of_the_catalogue_are_known_by_file_and_name() {
        let frame = |name: &str, file: &str| Frame {
            name: name.into(),
            file: file.into(),
            line: None,
            address: 0,
            code: 0,
            instruction: 0,
        };
        let catalog = Catalog::vllm();
        let scheduler = "/x/vllm/v1/core/sched/scheduler.py";
        for name in ["Scheduler.schedule", "schedule"] {
            assert_eq!(
                catalogued(&catalog, &frame(name, scheduler)).as_deref(),
                Some("scheduler.schedule")
            );
        }
        for (name, file) in [("Scheduler.schedule", "/x/other.py"), ("len_of", scheduler)] {
            assert_eq!(catalogued(&catalog, &frame(name, file)), None);
        }
    }

    #[test]
    fn this_process_s_own_threads_are_told_and_one_that_waits_has_not_moved() {
        let (send, receive) = std::sync::mpsc::channel::<()>();
        let waiter = std::thread::Builder::new()
            .name("a waiter".into())
            .spawn(move || receive.recv().is_err())
            .unwrap();
        let seen = crate::target::process::seen(std::process::id()).unwrap();
        let mut thread = None;
        for _ in 0..100 {
            let report = look(vec![seen.clone()], Duration::from_millis(20));
            let process = report.processes.into_iter().next().unwrap();
            assert!(process.python.is_err() && process.threads.is_empty());
            let named = |thread: &Thread| {
                thread
                    .task
                    .as_ref()
                    .is_some_and(|task| task.name == "a waiter")
            };
            thread = process.native_threads.into_iter().find(named);
            let still = |thread: &Thread| matches!(thread.moved, Moved::No(_));
            if thread.as_ref().is_some_and(still) {
                break;
            }
        }
        let thread = thread.unwrap();
        assert!(
            matches!(thread.moved, Moved::No(time) if time >= Duration::from_millis(20)),
            "{thread:?}"
        );
        assert!(thread.native.is_ok(), "{thread:?}");
        drop(send);
        waiter.join().unwrap();
    }
}
