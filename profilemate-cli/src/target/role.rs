//! A process's part in vLLM, told by its title.
//!
//! vLLM (`v1/utils.py`, `system_utils.py`) names its children by `setproctitle`: `VLLM::EngineCore[_DP<r>]`,
//! `VLLM::Worker[_DP<r>][_PP<r>][_TP<r>]…`, `VLLM::APIServer_<i>`, `VLLM::DPCoordinator`. The kernel cuts `comm` at 15
//! bytes; the command line holds the whole title. Without setproctitle a child is a plain `python -c …spawn_main…`, and
//! its part is told by the modules that it has imported.

use super::process::Seen;

/// Part of a process in vLLM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// HTTP server, tokenizer; with `LLM()` the program that uses it.
    ApiServer,
    /// Scheduler and KV cache; with one GPU the model runner too.
    EngineCore,
    /// Model runner.
    Worker,
    /// Anything else.
    Other,
}

impl Role {
    /// As written to the tables' metadata.
    pub fn name(self) -> &'static str {
        match self {
            Self::ApiServer => "api_server",
            Self::EngineCore => "engine_core",
            Self::Worker => "worker",
            Self::Other => "other",
        }
    }
}

/// What a title tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Title {
    /// Part.
    pub role: Role,
    /// Data parallel rank, which is the engine's index.
    pub engine: Option<u32>,
    /// Rank among the engine's workers, where the title tells it: tensor and pipeline parallel ranks together do not, for
    /// lack of the sizes.
    pub rank: Option<u32>,
}

/// Reads a process's title; `None` if it has none of vLLM's.
pub fn title(process: &Seen) -> Option<Title> {
    // The prefix is `VLLM_PROCESS_NAME_PREFIX`, so only the part behind `::` is looked at.
    let text = [&process.command, &process.comm]
        .into_iter()
        .find_map(|text| text.split_once("::"))?
        .1;
    let text = text.split_whitespace().next().unwrap_or("");
    let number = |mark: &str| -> Option<u32> {
        let behind = &text[text.find(mark)? + mark.len()..];
        behind
            .split(|c: char| !c.is_ascii_digit())
            .next()?
            .parse()
            .ok()
    };
    let role = if text.starts_with("EngineCor") {
        Role::EngineCore
    } else if text.starts_with("Worker") {
        Role::Worker
    } else if text.starts_with("APIServer") {
        Role::ApiServer
    } else if text.starts_with("DPCoordinator") {
        Role::Other
    } else {
        return None;
    };
    let ranks = [number("_PP"), number("_PCP"), number("_TP")];
    let mut told = ranks.into_iter().flatten();
    Some(Title {
        role,
        engine: number("_DP"),
        rank: told.next().filter(|_| told.next().is_none()),
    })
}

/// Whether a process is a child made by `multiprocessing`: never a front end.
pub fn is_child(process: &Seen) -> bool {
    [
        "multiprocessing.spawn",
        "multiprocessing.forkserver",
        "--multiprocessing-fork",
    ]
    .iter()
    .any(|mark| process.command.contains(mark))
}

/// Whether the process was started with `VLLM_ENABLE_V1_MULTIPROCESSING=0`: its engine runs in itself.
pub fn forbids_engine_process(pid: u32) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment
        .split(|byte| *byte == 0)
        .any(|entry| entry == b"VLLM_ENABLE_V1_MULTIPROCESSING=0")
}

/// Programs to which a process whose parent has ended is given, by `comm`: pid 1 whatever it is called, and those that
/// ask for orphans (`PR_SET_CHILD_SUBREAPER`).
const REAPERS: [&str; 6] = [
    "systemd",
    "containerd-shim",
    "conmon",
    "tini",
    "dumb-init",
    "catatonit",
];

/// Whether a titled process of vLLM has outlived the program that started it. `parent` is its parent as it is now:
/// `None` if that cannot be seen. In a container pid 1 may be the Python program itself.
pub fn is_orphan(process: &Seen, parent: Option<&Seen>) -> bool {
    let Some(parent) = parent.filter(|parent| !parent.ended) else {
        return title(process).is_some();
    };
    let first = parent.command.split_whitespace().next().unwrap_or("");
    let python =
        parent.comm.contains("python") || first.contains("python") || looks_like_vllm(parent);
    let reaper = parent.pid == 1 || REAPERS.iter().any(|name| parent.comm.starts_with(name));
    title(process).is_some() && reaper && !python
}

/// Whether a command line looks like the start of a vLLM server: what `trace` without a pid looks for.
pub fn looks_like_vllm(process: &Seen) -> bool {
    let words: Vec<&str> = process.command.split_whitespace().collect();
    let serve = words
        .windows(2)
        .any(|pair| (pair[0] == "vllm" || pair[0].ends_with("/vllm")) && pair[1] == "serve");
    serve
        || words
            .iter()
            .any(|word| word.starts_with("vllm.entrypoints."))
        || title(process).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(comm: &str, command: &str) -> Seen {
        Seen {
            pid: 2,
            parent: 1,
            comm: comm.into(),
            command: command.into(),
            ..Seen::default()
        }
    }

    #[test]
    fn titles_tell_role_and_ranks_also_when_cut() {
        let of = |comm: &str, command: &str| {
            title(&named(comm, command)).map(|t| (t.role, t.engine, t.rank))
        };
        assert_eq!(
            of("VLLM::EngineCor", "VLLM::EngineCore"),
            Some((Role::EngineCore, None, None))
        );
        assert_eq!(
            of("VLLM::EngineCor", "VLLM::EngineCore_DP3"),
            Some((Role::EngineCore, Some(3), None))
        );
        assert_eq!(
            of("VLLM::Worker_TP", "VLLM::Worker_DP1_TP2_EP2"),
            Some((Role::Worker, Some(1), Some(2)))
        );
        assert_eq!(
            of("VLLM::Worker_PP", "VLLM::Worker_PP1"),
            Some((Role::Worker, None, Some(1)))
        );
        assert_eq!(
            of("VLLM::Worker_PP", "VLLM::Worker_PP1_TP0"),
            Some((Role::Worker, None, None)),
            "the second of two, or of many"
        );
        assert_eq!(
            of("VLLM::EngineCor", "python -c spawn_main"),
            Some((Role::EngineCore, None, None))
        );
        assert_eq!(
            of("prod::Worker", "prod::Worker_TP0"),
            Some((Role::Worker, None, Some(0)))
        );
        assert_eq!(of("python3", "python3 -m http.server"), None);
        assert_eq!(of("x", "std::thread"), None);
    }

    #[test]
    fn an_engine_outlives_its_server_where_a_reaper_is_its_parent() {
        let engine = named("VLLM::EngineCor", "VLLM::EngineCore");
        let parent = |pid: u32, comm: &str, command: &str| Seen {
            pid,
            ..named(comm, command)
        };
        let orphan = |parent: Seen| is_orphan(&engine, Some(&parent));
        assert!(orphan(parent(1, "init", "/sbin/init")));
        assert!(orphan(parent(
            812,
            "systemd",
            "/lib/systemd/systemd --user"
        )));
        assert!(is_orphan(&engine, None));
        assert!(!orphan(parent(1, "python3", "python3 offline.py")));
        assert!(!orphan(parent(
            1,
            "vllm",
            "/usr/bin/python3 /usr/bin/vllm serve m"
        )));
        assert!(!orphan(parent(40, "offline.py", "./offline.py")));
        assert!(!is_orphan(
            &named("vllm", "python3 /usr/bin/vllm serve m"),
            None
        ));
    }

    #[test]
    fn servers_are_recognised_by_their_command() {
        assert!(looks_like_vllm(&named(
            "vllm",
            "/usr/bin/python3 /usr/local/bin/vllm serve m"
        )));
        assert!(looks_like_vllm(&named(
            "python3",
            "python3 -m vllm.entrypoints.openai.api_server --model m"
        )));
        assert!(!looks_like_vllm(&named("vim", "vim vllm.toml")));
    }
}
