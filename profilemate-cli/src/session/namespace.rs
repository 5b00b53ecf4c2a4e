//! Process and thread ids of another pid namespace, in terms of this process's own.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::sys::status::innermost_id;

/// Names remembered, at most.
const CAPACITY: usize = 16_384;
/// Time between two searches for one that was not found.
const SEARCH: Duration = Duration::from_millis(100);

/// Names as the processes of one pid namespace know them.
pub(super) struct Names {
    /// The namespace; `None` if it is this process's own, where names are the same.
    namespace: Option<String>,
    processes: HashMap<u32, u32>,
    threads: HashMap<(u32, u32), u32>,
    searched: Option<Instant>,
}

impl Names {
    /// Those of the namespace of process `pid`.
    pub(super) fn of(pid: u32) -> Self {
        let namespace = namespace(&pid.to_string());
        Self {
            namespace: namespace.filter(|of| namespace_of_self().as_ref() != Some(of)),
            processes: HashMap::new(),
            threads: HashMap::new(),
            searched: None,
        }
    }

    /// The process that calls itself `inner`, if it is there or was when it was looked for.
    pub(super) fn process(&mut self, inner: u32) -> Option<u32> {
        let Some(namespace) = &self.namespace else {
            return Some(inner);
        };
        if let Some(outer) = self.processes.get(&inner) {
            return Some(*outer);
        }
        if self.searched.is_some_and(|at| at.elapsed() < SEARCH) {
            return None;
        }
        self.searched = Some(Instant::now());
        if self.processes.len() >= CAPACITY {
            self.processes.clear();
        }
        for outer in numbers("/proc") {
            let pid = outer.to_string();
            if self::namespace(&pid).as_ref() == Some(namespace)
                && let Some(own) = innermost(&pid)
            {
                self.processes.insert(own, outer);
            }
        }
        self.processes.get(&inner).copied()
    }

    /// The thread of process `pid` that calls itself `inner`; `None` if it has ended before it was looked for.
    pub(super) fn thread(&mut self, pid: u32, inner: u32) -> Option<u32> {
        if self.namespace.is_none() {
            return Some(inner);
        }
        if let Some(outer) = self.threads.get(&(pid, inner)) {
            return Some(*outer);
        }
        if self.threads.len() >= CAPACITY {
            self.threads.clear();
        }
        for outer in numbers(&format!("/proc/{pid}/task")) {
            if let Some(own) = innermost(&format!("{pid}/task/{outer}")) {
                self.threads.insert((pid, own), outer);
            }
        }
        self.threads.get(&(pid, inner)).copied()
    }
}

fn namespace_of_self() -> Option<String> {
    namespace("self")
}

fn namespace(process: &str) -> Option<String> {
    let link = std::fs::read_link(format!("/proc/{process}/ns/pid")).ok()?;
    Some(link.to_string_lossy().into_owned())
}

fn numbers(folder: &str) -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// What a process or thread calls itself.
fn innermost(task: &str) -> Option<u32> {
    innermost_id(&std::fs::read_to_string(format!("/proc/{task}/status")).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_same_namespace_names_are_the_same() {
        let mut names = Names::of(std::process::id());
        assert_eq!(names.process(77), Some(77));
        assert_eq!(names.thread(77, 78), Some(78));
    }

    #[test]
    fn names_of_a_namespace_are_found_by_their_status() {
        // Of this process's own, looked at as if it were another.
        let mut names = Names {
            namespace: namespace_of_self(),
            processes: HashMap::new(),
            threads: HashMap::new(),
            searched: None,
        };
        let own = std::process::id();
        assert_eq!(names.process(own), Some(own));
        assert_eq!(names.thread(own, own), Some(own));
        assert_eq!(names.thread(own, u32::MAX), None);
        assert_eq!(names.process(u32::MAX), None);
    }
}
