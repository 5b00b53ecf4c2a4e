//! The vLLM servers of this node: which there are, and what each is called.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::config::Config;
use super::identity::{self, Identity};
use super::names::Names;
use crate::cli::Failure;
use crate::cli::find::Servers;
use crate::metrics::rows::About;
use crate::target::process::Seen;

/// Port of `vllm serve` where none is given.
const PORT: &str = "8000";

/// One server: its topmost process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot.
    pub started: u64,
}

/// A server that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Which process.
    pub key: Key,
    /// What it is called on this node.
    pub name: String,
    /// What is known of it.
    pub about: About,
}

/// The servers that there are now and that the agent is to look after.
pub fn look(config: &Config) -> Result<Vec<Seen>, Failure> {
    let servers = Servers::now()?.roots.into_iter();
    let with = &config.servers.with_environment;
    let without = &config.servers.without_environment;
    // A process that has given itself a title may have written it over its environment; its parent has the same.
    let has = |seen: &Seen, wanted: &[String]| {
        !wanted.is_empty()
            && [seen.pid, seen.parent]
                .iter()
                .any(|pid| identity::has_one_of(*pid, wanted))
    };
    Ok(servers
        .filter(|seen| with.is_empty() || has(seen, with))
        .filter(|seen| !has(seen, without))
        .collect())
}

impl Key {
    /// Of a process.
    pub fn of(seen: &Seen) -> Self {
        Self {
            pid: seen.pid,
            started: seen.started,
        }
    }
}

/// Finds out about a server; `taken` are the names that others have.
pub(super) async fn find_out(
    seen: &Seen,
    config: &Config,
    names: &mut Names,
    taken: &BTreeSet<String>,
) -> Found {
    let folder = &config.identity.log_folder;
    let logs = Some(folder.as_path()).filter(|folder| *folder != Path::new(""));
    let mut identity = Identity::of(seen.pid);
    names.complete(&mut identity).await;
    identity.complete(seen.pid, logs);
    let mut name = name(seen, &identity);
    if taken.contains(&name) {
        name = format!("{name}-{}", seen.pid);
    }
    Found {
        key: Key::of(seen),
        name,
        about: About {
            model: model(&seen.command),
            pod: identity.pod,
            namespace: identity.namespace,
            container: identity.container,
            pid: seen.pid,
        },
    }
}

/// What a server is called: its pod, else the beginning of its container's id, else its port, else its process id.
fn name(seen: &Seen, identity: &Identity) -> String {
    if !identity.pod.is_empty() {
        return identity.pod.clone();
    }
    if !identity.container_id.is_empty() {
        return identity.container_id.chars().take(12).collect();
    }
    match port(&seen.command) {
        Some(port) => format!("vllm/{port}"),
        None => format!("pid-{}", seen.pid),
    }
}

/// The value of an option on a command line, which is joined by blanks.
fn option<'a>(command: &'a str, name: &str) -> Option<&'a str> {
    let mut words = command.split_whitespace();
    while let Some(word) = words.next() {
        if word == name {
            return words.next();
        }
        if let Some(value) = word
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('='))
        {
            return Some(value);
        }
    }
    None
}

/// The port that a server listens on, by its command line; `None` for what is no HTTP server.
fn port(command: &str) -> Option<&str> {
    if let Some(port) = option(command, "--port") {
        let digits =
            (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
        return digits.then_some(port);
    }
    let serves = command.contains("vllm.entrypoints.") || after_serve(command).is_some();
    serves.then_some(PORT)
}

/// The word behind `vllm serve`.
fn after_serve(command: &str) -> Option<&str> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let at = words
        .windows(2)
        .position(|pair| pair[0].ends_with("vllm") && pair[1] == "serve")?;
    words.get(at + 2).copied()
}

/// The model, by the command line; empty if that does not tell it.
fn model(command: &str) -> String {
    let positional = after_serve(command).filter(|word| !word.starts_with('-'));
    option(command, "--model")
        .or(positional)
        .filter(|model| !model.starts_with('-'))
        .unwrap_or_default()
        .to_owned()
}

/// What has come and what has gone, against what is looked after.
pub fn changes<'a>(now: &'a [Seen], known: &BTreeMap<Key, String>) -> (Vec<&'a Seen>, Vec<Key>) {
    let there: BTreeSet<Key> = now.iter().map(Key::of).collect();
    let come = now
        .iter()
        .filter(|seen| !known.contains_key(&Key::of(seen)))
        .collect();
    let gone = known
        .keys()
        .filter(|key| !there.contains(*key))
        .cloned()
        .collect();
    (come, gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(pid: u32, command: &str) -> Seen {
        Seen {
            pid,
            started: 5,
            command: command.into(),
            ..Seen::default()
        }
    }

    #[test]
    fn a_server_is_called_by_pod_container_port_or_pid() {
        let bare = Identity::default();
        let serve = seen(
            9,
            "/usr/bin/python3 /usr/bin/vllm serve org/model --port 8001",
        );
        assert_eq!(name(&serve, &bare), "vllm/8001");
        assert_eq!(
            name(&seen(9, "vllm serve m --api-key s --port=81"), &bare),
            "vllm/81"
        );
        assert_eq!(name(&seen(9, "vllm serve m"), &bare), "vllm/8000");
        assert_eq!(name(&seen(9, "vllm serve m --port ../x"), &bare), "pid-9");
        assert_eq!(name(&seen(9, "VLLM::EngineCore"), &bare), "pid-9");
        let container = Identity {
            container_id: "0123456789abcdef".repeat(4),
            ..bare.clone()
        };
        assert_eq!(name(&serve, &container), "0123456789ab");
        let pod = Identity {
            pod: "p-1".into(),
            ..container
        };
        assert_eq!(name(&serve, &pod), "p-1");
    }

    #[test]
    fn the_model_is_told_and_secrets_are_not() {
        assert_eq!(
            model("/usr/bin/python3 /usr/bin/vllm serve org/model --api-key secret"),
            "org/model"
        );
        assert_eq!(
            model("python -m vllm.entrypoints.openai.api_server --model m --api-key=secret"),
            "m"
        );
        assert_eq!(
            model("python -m vllm.entrypoints.openai.api_server --model=m2"),
            "m2"
        );
        assert_eq!(model("vllm serve --config file"), "");
        assert_eq!(model("VLLM::EngineCore"), "");
        assert_eq!(model("vllm serve --model"), "");
    }

    #[test]
    fn servers_come_and_go_and_a_reused_pid_is_another_one() {
        let now = [seen(1, ""), seen(2, "")];
        let known = BTreeMap::from([
            (Key { pid: 1, started: 4 }, "old".to_owned()),
            (Key { pid: 2, started: 5 }, "b".to_owned()),
        ]);
        let (come, gone) = changes(&now, &known);
        assert_eq!(come.iter().map(|seen| seen.pid).collect::<Vec<_>>(), [1]);
        assert_eq!(gone, [Key { pid: 1, started: 4 }]);
    }
}
