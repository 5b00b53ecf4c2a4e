//! The processes of a target: one tree per `--pid`, read from `/proc`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use procfs::process::Process as Proc;

/// One process as `/proc` shows it at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Process id in the tracer's pid namespace.
    pub pid: u32,
    /// Parent.
    pub parent: u32,
    /// Start time in clock ticks since boot: tells a reused pid.
    pub started: u64,
    /// `/proc/PID/comm`, at most 15 bytes.
    pub comm: String,
    /// Command line, joined by spaces; a title set by `setproctitle` replaces it.
    pub command: String,
    /// `Z` or `X`: it has ended.
    pub ended: bool,
    /// Where the code and the stack of the program that runs in it begin: an `exec` moves them, also one of the same
    /// file. A forked child has its parent's. Zeros where they cannot be read.
    pub program: [u64; 2],
}

impl Seen {
    /// Whether another program runs in the process than when it was seen `before`.
    pub fn has_other_program(&self, before: &Self) -> bool {
        let known = |seen: &Self| seen.program != [0, 0];
        known(self) && known(before) && self.program != before.program
    }

    /// How long ago the process was started; `None` where the clock cannot be read.
    pub fn age(&self) -> Option<Duration> {
        let text = std::fs::read_to_string("/proc/uptime").ok()?;
        let uptime: f64 = text.split_whitespace().next()?.parse().ok()?;
        let started = self.started as f64 / procfs::ticks_per_second() as f64;
        Duration::try_from_secs_f64(uptime - started).ok()
    }
}

/// Why a process cannot be taken as a target.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such process.
    #[error("there is no process {0}")]
    NoSuchPid(u32),
    /// It has ended but was not collected.
    #[error("process {0} has ended (it is a zombie)")]
    Zombie(u32),
    /// It has no user memory.
    #[error("process {0} is a kernel thread")]
    KernelThread(u32),
    /// The tracer itself.
    #[error("process {0} is this tracer itself")]
    Own(u32),
    /// `/proc` is not readable.
    #[error("the process list `/proc` cannot be read")]
    Proc(#[source] procfs::ProcError),
}

/// Reads one process; `None` if it is not there (any more).
pub fn seen(pid: u32) -> Option<Seen> {
    let process = Proc::new(i32::try_from(pid).ok()?).ok()?;
    see(&process)
}

fn see(process: &Proc) -> Option<Seen> {
    let mut seen = see_stat(process)?;
    seen.command = command(process);
    Some(seen)
}

fn command(process: &Proc) -> String {
    process
        .cmdline()
        .map(|words| words.join(" ").trim().to_owned())
        .unwrap_or_default()
}

fn see_stat(process: &Proc) -> Option<Seen> {
    let stat = process.stat().ok()?;
    Some(Seen {
        pid: u32::try_from(stat.pid).ok()?,
        parent: u32::try_from(stat.ppid).unwrap_or(0),
        started: stat.starttime,
        command: String::new(),
        comm: stat.comm,
        ended: matches!(stat.state, 'Z' | 'X' | 'x'),
        program: [stat.startcode, stat.startstack],
    })
}

/// The tree below `roots` as it is now, parents before children, without the tracer itself. One file is read for each
/// process of the machine, and the command lines of the tree's.
pub fn tree_now(roots: &BTreeSet<u32>) -> Result<Vec<Seen>, Error> {
    let list = procfs::process::all_processes().map_err(Error::Proc)?;
    let all: Vec<Seen> = list
        .filter_map(Result::ok)
        .filter_map(|process| see_stat(&process))
        .collect();
    let mut found = tree(&all, roots);
    for process in &mut found {
        if let Some(command) = i32::try_from(process.pid)
            .ok()
            .and_then(|pid| Proc::new(pid).ok())
        {
            process.command = self::command(&command);
        }
    }
    Ok(found)
}

/// Follows the tree below some roots without reading the whole process list each time.
///
/// A process can only have come if a process id was given out, and `/proc/loadavg` ends with the one given out last.
/// While that stays, only the processes that are known are read; else those besides that have come. A process that was
/// there and outside of the tree can only come into it with its reaper, which the next reading of all of them finds.
#[derive(Debug, Default)]
pub struct Tree {
    known: BTreeSet<u32>,
    /// Those that are there, and not of the tree.
    others: BTreeSet<u32>,
    last: Option<String>,
    listed: Option<Instant>,
}

/// Time between two readings of the whole list, at most: where `/proc/loadavg` is not the kernel's own (lxcfs).
const LISTING: Duration = Duration::from_secs(2);

impl Tree {
    /// The tree below `roots` as it is now, as [`tree_now`].
    pub fn now(&mut self, roots: &BTreeSet<u32>) -> Result<Vec<Seen>, Error> {
        let last = last_pid();
        let recent = self.listed.is_some_and(|at| at.elapsed() < LISTING);
        if recent && last.is_some() && last == self.last {
            let known: Vec<Seen> = self.known.iter().filter_map(|&pid| seen(pid)).collect();
            return Ok(tree(&known, roots));
        }
        let there = there()?;
        let found = if recent {
            let new = there.difference(&self.others);
            let candidates: Vec<Seen> = new.filter_map(|&pid| seen(pid)).collect();
            tree(&candidates, roots)
        } else {
            self.listed = Some(Instant::now());
            tree_now(roots)?
        };
        self.known = found.iter().map(|process| process.pid).collect();
        self.others = &there - &self.known;
        // Read before the list: what comes while it is read changes it.
        self.last = last;
        Ok(found)
    }
}

/// The ids of all processes.
fn there() -> Result<BTreeSet<u32>, Error> {
    let entries =
        std::fs::read_dir("/proc").map_err(|error| Error::Proc(procfs::ProcError::from(error)))?;
    let names = entries.flatten().map(|entry| entry.file_name());
    Ok(names
        .filter_map(|name| name.to_str()?.parse().ok())
        .collect())
}

/// The process id that was given out last, as text.
fn last_pid() -> Option<String> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().nth(4).map(str::to_owned)
}

/// Every process of the machine that can be read now.
pub fn all() -> Result<Vec<Seen>, Error> {
    let list = procfs::process::all_processes().map_err(Error::Proc)?;
    Ok(list
        .filter_map(Result::ok)
        .filter_map(|process| see(&process))
        .collect())
}

/// Checks that `pid` can be a target, and reads it.
pub fn target(pid: u32) -> Result<Seen, Error> {
    if pid == std::process::id() {
        return Err(Error::Own(pid));
    }
    let seen = seen(pid).ok_or(Error::NoSuchPid(pid))?;
    if seen.ended {
        return Err(Error::Zombie(pid));
    }
    if seen.command.is_empty() && std::fs::read_link(format!("/proc/{pid}/exe")).is_err() {
        return Err(Error::KernelThread(pid));
    }
    Ok(seen)
}

/// The processes of `all` that are one of `roots` or below one, parents before children, without the tracer itself.
pub fn tree(all: &[Seen], roots: &BTreeSet<u32>) -> Vec<Seen> {
    let mut children: BTreeMap<u32, Vec<&Seen>> = BTreeMap::new();
    for process in all {
        children.entry(process.parent).or_default().push(process);
    }
    let own = std::process::id();
    let mut found = Vec::new();
    let mut taken = BTreeSet::new();
    let mut queue: Vec<&Seen> = all
        .iter()
        .filter(|process| roots.contains(&process.pid))
        .collect();
    while let Some(process) = queue.pop() {
        if process.ended || process.pid == own || !taken.insert(process.pid) {
            continue;
        }
        found.push(process.clone());
        queue.extend(children.get(&process.pid).into_iter().flatten());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, parent: u32) -> Seen {
        Seen {
            pid,
            parent,
            started: 1,
            ..Seen::default()
        }
    }

    #[test]
    fn a_tree_holds_all_below_its_root_once_and_nothing_else() {
        let all = [
            process(10, 1),
            process(11, 10),
            process(12, 11),
            process(20, 1),
            process(13, 10),
        ];
        let mut pids: Vec<u32> = tree(&all, &BTreeSet::from([10, 11]))
            .iter()
            .map(|p| p.pid)
            .collect();
        pids.sort_unstable();
        assert_eq!(pids, [10, 11, 12, 13]);
    }

    #[test]
    fn a_followed_tree_has_each_new_child_at_once() {
        let own = std::process::id();
        let start = || {
            std::process::Command::new("sleep")
                .arg("30")
                .spawn()
                .unwrap()
        };
        let mut children: Vec<std::process::Child> = Vec::new();
        let mut tree = Tree::default();
        for count in 1..=3 {
            children.push(start());
            let roots: BTreeSet<u32> = children.iter().map(std::process::Child::id).collect();
            let found = tree.now(&roots).unwrap();
            assert!(
                roots
                    .iter()
                    .all(|root| found.iter().any(|p| p.pid == *root))
            );
            assert!(found.iter().all(|p| p.pid != own));
            let again = tree.now(&roots).unwrap();
            assert!(again.len() >= count, "{again:?}");
        }
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let roots: BTreeSet<u32> = children.iter().map(std::process::Child::id).collect();
        assert!(
            tree.now(&roots)
                .unwrap()
                .iter()
                .all(|p| !roots.contains(&p.pid))
        );
    }

    #[test]
    fn a_loop_of_parents_ends() {
        let all = [process(10, 11), process(11, 10)];
        assert_eq!(tree(&all, &BTreeSet::from([10])).len(), 2);
    }

    #[test]
    fn this_process_is_no_target_and_neither_is_one_that_is_not_there() {
        assert!(matches!(target(std::process::id()), Err(Error::Own(_))));
        assert!(matches!(target(u32::MAX / 2), Err(Error::NoSuchPid(_))));
    }
}
