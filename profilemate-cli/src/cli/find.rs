//! Which target `trace` takes.

use std::collections::BTreeSet;

use super::exit::{Exit, Failure};
use crate::target::process::{self, Error, Seen};
use crate::target::role;

/// Checks the pids that were given.
pub(super) fn given(pids: &[u32]) -> Result<BTreeSet<u32>, Failure> {
    pids.iter()
        .map(|&pid| process::target(pid).map(|seen| seen.pid).map_err(failure))
        .collect()
}

/// The one vLLM server of this host.
pub(super) fn only_server() -> Result<BTreeSet<u32>, Failure> {
    let all = process::all().map_err(failure)?;
    let roots = servers(&all);
    match roots.as_slice() {
        [root] => Ok(BTreeSet::from([root.pid])),
        [] => Err(Failure::new(Exit::NoTarget, anyhow::anyhow!("no vLLM server was found on this host")).hint(
            "looked for `vllm serve`, `python -m vllm.entrypoints...` and processes titled `VLLM::...` among the \
             processes visible here; give --pid, start one with `trace -- CMD`, or try `profilemate demo`",
        )),
        several => {
            let list: Vec<String> =
                several.iter().map(|seen| format!("\n  {:>8}  {}", seen.pid, seen.command)).collect();
            let error = anyhow::anyhow!("several vLLM servers run on this host:{}", list.concat());
            Err(Failure::new(Exit::NoTarget, error).hint("choose with --pid (repeatable)"))
        }
    }
}

/// The topmost processes that look like vLLM.
fn servers(all: &[Seen]) -> Vec<&Seen> {
    let like: BTreeSet<u32> = all
        .iter()
        .filter(|seen| !seen.ended && role::looks_like_vllm(seen))
        .map(|seen| seen.pid)
        .collect();
    let parent = |pid: u32| {
        all.iter()
            .find(|seen| seen.pid == pid)
            .map(|seen| seen.parent)
    };
    let mut roots: Vec<&Seen> = all
        .iter()
        .filter(|seen| like.contains(&seen.pid))
        .filter(|seen| {
            // An ancestor that looks like vLLM too is the root; the walk up is bounded.
            let mut above = seen.parent;
            for _ in 0..64 {
                if like.contains(&above) {
                    return false;
                }
                match parent(above) {
                    Some(next) if next != above => above = next,
                    _ => break,
                }
            }
            true
        })
        .collect();
    roots.sort_by_key(|seen| seen.pid);
    roots
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
            started: 0,
            comm: String::new(),
            command: command.into(),
            ended: false,
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
        let roots: Vec<u32> = servers(&all).iter().map(|seen| seen.pid).collect();
        assert_eq!(roots, [6, 9]);
    }
}
