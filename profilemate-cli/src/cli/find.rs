//! Which target `trace` takes.

use std::collections::{BTreeMap, BTreeSet};

use super::exit::{Exit, Failure};
use super::print;
use crate::target::process::{self, Error, Seen};
use crate::target::role;

/// Checks the pids that were given.
pub(super) fn given(pids: &[u32]) -> Result<BTreeSet<u32>, Failure> {
    pids.iter()
        .map(|&pid| process::target(pid).map(|seen| seen.pid).map_err(failure))
        .collect()
}

/// The one vLLM server of this host. An engine whose server has ended is never chosen by itself.
pub(super) fn only_server() -> Result<BTreeSet<u32>, Failure> {
    let servers = Servers::now()?;
    match servers.roots.as_slice() {
        [root] => {
            for orphan in &servers.orphans {
                print::note(&format!(
                    "left alone: {} (process {}), whose server has ended; --pid {} would choose it",
                    orphan.command, orphan.pid, orphan.pid
                ));
            }
            Ok(BTreeSet::from([root.pid]))
        }
        [] if servers.orphans.is_empty() => Err(Failure::new(
            Exit::NoTarget,
            anyhow::anyhow!("no vLLM server was found on this host"),
        )
        .hint(LOOKED_FOR)),
        [] => {
            let error = anyhow::anyhow!(
                "no vLLM server was found on this host, only processes whose server has ended:{}",
                list(&servers.orphans)
            );
            Err(Failure::new(Exit::NoTarget, error)
                .hint("choose one with --pid, or end them: nobody serves with them"))
        }
        several => {
            let mut text = list(several);
            if !servers.orphans.is_empty() {
                text.push_str("\nand processes whose server has ended:");
                text.push_str(&list(&servers.orphans));
            }
            let error = anyhow::anyhow!("several vLLM servers run on this host:{text}");
            Err(Failure::new(Exit::NoTarget, error).hint("choose with --pid (repeatable)"))
        }
    }
}

const LOOKED_FOR: &str = "looked for `vllm serve`, `python -m vllm.entrypoints...` and processes titled `VLLM::...` \
                          among the processes visible here; give --pid, start one with `trace -- CMD`, or try \
                          `profilemate demo`";

fn list(processes: &[Seen]) -> String {
    let lines: Vec<String> = processes
        .iter()
        .map(|seen| format!("\n  {:>8}  {}", seen.pid, seen.command))
        .collect();
    lines.concat()
}

/// What looks like vLLM on this host.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    /// The topmost process of each server.
    pub(crate) roots: Vec<Seen>,
    /// Topmost processes with one of vLLM's titles, whose server has ended.
    pub(crate) orphans: Vec<Seen>,
}

impl Servers {
    /// As it is now.
    pub(crate) fn now() -> Result<Self, Failure> {
        Ok(Self::among(&process::all().map_err(failure)?))
    }

    fn among(all: &[Seen]) -> Self {
        let like: BTreeSet<u32> = all
            .iter()
            .filter(|seen| !seen.ended && role::looks_like_vllm(seen))
            .map(|seen| seen.pid)
            .collect();
        let by_pid: BTreeMap<u32, &Seen> = all.iter().map(|seen| (seen.pid, seen)).collect();
        let mut servers = Self::default();
        for (_, seen) in by_pid.iter().filter(|(pid, _)| like.contains(pid)) {
            // An ancestor that looks like vLLM too is the root; the walk up is bounded.
            let mut above = seen.parent;
            let mut topmost = true;
            for _ in 0..64 {
                topmost = !like.contains(&above);
                match by_pid.get(&above) {
                    Some(next) if topmost && next.parent != above => above = next.parent,
                    _ => break,
                }
            }
            if !topmost {
                continue;
            }
            let parent = by_pid.get(&seen.parent).copied();
            if role::is_orphan(seen, parent) {
                servers.orphans.push((*seen).clone());
            } else {
                servers.roots.push((*seen).clone());
            }
        }
        servers
    }
}

fn failure(error: Error) -> Failure {
    let hint = match &error {
        Error::NoSuchPid(_) => {
            "`pgrep -af vllm` lists candidates; in a container give the host's pid"
        }
        Error::Zombie(_) => "its parent has not collected it; there is nothing left to trace",
        Error::KernelThread(_) | Error::Own(_) => "give the pid of the server",
        Error::Proc(_) => "mount /proc",
    };
    Failure::new(Exit::NoTarget, error).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(pid: u32, parent: u32, command: &str) -> Seen {
        Seen {
            pid,
            parent,
            command: command.into(),
            ..Seen::default()
        }
    }

    #[test]
    fn a_server_is_its_topmost_process() {
        let all = [
            seen(5, 1, "bash"),
            seen(6, 5, "python3 -m vllm.entrypoints.openai.api_server"),
            seen(7, 6, "VLLM::EngineCore"),
            seen(8, 7, "VLLM::Worker_TP0"),
            seen(9, 1, "/usr/bin/python3 /usr/bin/vllm serve m"),
        ];
        let servers = Servers::among(&all);
        let pids = |list: &[Seen]| list.iter().map(|seen| seen.pid).collect::<Vec<_>>();
        assert_eq!(pids(&servers.roots), [6, 9]);
        assert!(servers.orphans.is_empty());
    }

    #[test]
    fn an_engine_whose_server_has_ended_is_no_server() {
        let all = [
            seen(1, 0, "/sbin/init"),
            seen(7, 1, "VLLM::EngineCore"),
            seen(8, 7, "VLLM::Worker_TP0"),
            seen(9, 1, "/usr/bin/python3 /usr/bin/vllm serve m"),
            seen(10, 9, "VLLM::EngineCore"),
        ];
        let servers = Servers::among(&all);
        let pids = |list: &[Seen]| list.iter().map(|seen| seen.pid).collect::<Vec<_>>();
        assert_eq!(pids(&servers.roots), [9]);
        assert_eq!(pids(&servers.orphans), [7]);
    }

    #[test]
    fn an_engine_of_a_program_that_is_no_server_is_chosen() {
        let all = [
            seen(1, 0, "/sbin/init"),
            seen(5, 1, "/usr/bin/python3 offline.py"),
            seen(7, 5, "VLLM::EngineCore"),
        ];
        let servers = Servers::among(&all);
        assert_eq!(servers.roots.first().map(|seen| seen.pid), Some(7));
        assert!(servers.orphans.is_empty());
    }
}
