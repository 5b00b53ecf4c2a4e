//! The examples that `--help` shows, each of which the command line understands.

/// Examples of `profilemate`.
pub(super) const ALL: &str = "\
Examples:
  sudo profilemate doctor              # would a trace work here?
  sudo profilemate trace               # the one vLLM server of this host, until Ctrl-C
  sudo profilemate top                 # what it does, live
  sudo profilemate demo                # no vLLM and no GPU needed";

/// Examples of `trace`.
pub(super) const TRACE: &str = "\
Examples:
  sudo profilemate trace --pid 4711 --duration 30s
  sudo profilemate trace --dry-run                          # what would be done, and nothing more
  sudo profilemate trace --only batch_utilization --output /data
  sudo profilemate trace -- vllm serve facebook/opt-125m    # from the first import on
  sudo profilemate trace --continuous 60s --trigger 'step_ms>200' --trigger preemption
  sudo profilemate trace --budget 1%                        # record less where tracing costs more
  sudo profilemate trace --pid 4711 --method app.queue:Queue.take --field size=self.items:len --json

Exit codes: 0 done, 2 wrong command line, 3 incomplete (--strict), 4 no such target, 5 version not supported,
6 not allowed, 7 output cannot be written, 8 another tracer, 1 anything else";

/// Examples and triggers of `trace`.
pub(super) fn trace() -> String {
    format!("{TRACE}\n\n{}", super::recorder::triggers())
}

/// Examples of `snapshot`.
pub(super) const SNAPSHOT: &str = "\
Examples:
  sudo profilemate snapshot               # the one flight recorder of this host
  sudo profilemate snapshot --pid 4711    # the one that records this server";

/// Examples of `demo`.
pub(super) const DEMO: &str = "\
Examples:
  sudo profilemate demo
  sudo profilemate demo --duration 20s --python python3.12";

/// Examples of `detach`.
pub(super) const DETACH: &str = "\
Examples:
  sudo profilemate detach --pid 4711";

/// Examples of `replay`.
pub(super) const REPLAY: &str = "\
Examples:
  profilemate replay /tmp/vllm_profiling/session_20261123_013114_txthjv --output /tmp";

/// Examples of `doctor`.
pub(super) const DOCTOR: &str = "\
Examples:
  sudo profilemate doctor                          # this host, and every vLLM server on it
  sudo profilemate doctor --pid 4711 --json
  sudo profilemate doctor --output /data

Ends with 0 if a trace would work, with 3 if only a part of the processes would be traced, and else with the exit
code of `trace`.";

/// Examples of `helper`.
pub(super) const HELPER: &str = "\
Examples:
  profilemate helper install --into /path/to/venv    # for servers started from it from then on
  profilemate helper status --pid 4711
  profilemate helper remove --from /path/to/venv";

/// Examples of `agent`.
pub(super) const AGENT: &str = "\
Examples:
  sudo profilemate agent                                  # metrics on http://127.0.0.1:9464/metrics
  profilemate agent --print-config > agent.toml
  sudo profilemate agent --config agent.toml --check
  sudo profilemate agent --config agent.toml";

/// Examples of `top`.
pub(super) const TOP: &str = "\
Examples:
  sudo profilemate top                            # the one vLLM server of this host
  sudo profilemate top --pid 4711 --interval 500ms
  sudo profilemate top --once --json              # for scripts
  sudo profilemate top --output /data             # keep the session as well

Keys: q quit, ? help, p pause, r reset, Tab and arrows to move, s sort, / filter. NO_COLOR is honoured.";

/// Examples of `where`.
pub(super) const WHERE: &str = "\
Examples:
  sudo profilemate where               # the one vLLM server of this host
  sudo profilemate where --watch 5s    # look for longer at what does not move
  sudo profilemate where --pid 4711 --json";

/// Examples of `completions`.
pub(super) const COMPLETIONS: &str = "\
Examples:
  profilemate completions bash > /etc/bash_completion.d/profilemate
  profilemate completions zsh > /usr/share/zsh/site-functions/_profilemate
  profilemate completions fish > ~/.config/fish/completions/profilemate.fish";

/// Examples of `man`.
pub(super) const MAN: &str = "\
Examples:
  profilemate man > /usr/local/share/man/man1/profilemate.1
  profilemate man trace > /usr/local/share/man/man1/profilemate-trace.1";

/// Examples of `explain`.
pub(super) const EXPLAIN: &str = "\
Examples:
  profilemate explain /tmp/vllm_profiling/session_20261123_013114_txthjv
  profilemate explain /tmp/vllm_profiling/session_20261123_013114_txthjv --json";

/// Examples of `diff`.
pub(super) const DIFF: &str = "\
Examples:
  profilemate diff before/session_1 after/session_2
  profilemate diff before/session_1 after/session_2 --html report.html";

/// Examples of `export`.
pub(super) const EXPORT: &str = "\
Examples:
  profilemate export /tmp/vllm_profiling/session_20261123_013114_txthjv --to perfetto
  profilemate export /tmp/vllm_profiling/session_20261123_013114_txthjv --to parquet";

/// Examples of `report`.
pub(super) const REPORT: &str = "\
Examples:
  profilemate report /tmp/vllm_profiling/session_20261123_013114_txthjv
  profilemate report /tmp/vllm_profiling/session_20261123_013114_txthjv -o report.html

Exit codes: 0 done, 1 if the folder cannot be read, 7 if the page cannot be written.";

/// Examples of `fleet`.
pub(super) const FLEET: &str = "\
Examples:
  profilemate fleet --prometheus http://prometheus:9090 status
  profilemate fleet diagnose --window 1h --select model=facebook/opt-125m
  profilemate fleet diff --at 2h --at now --json
  profilemate fleet trace model=facebook/opt-125m --agent-token-file ~/.agent-token --duration 30s
  profilemate fleet --prometheus https://metrics.example.org --token-file ~/.metrics-token status --strict

Exit codes: 0 done, 2 wrong command line, 3 something was found (--strict), 4 no agent and no server, 6 not allowed,
1 anything else. The address can also stand in PROFILEMATE_PROMETHEUS.";

/// Examples of `catalog`.
pub(super) const CATALOG: &str = "\
Examples:
  profilemate catalog check /path/to/venv            # also: a source tree, a package's folder, a wheel
  profilemate catalog check vllm-0.33.0.whl --json
  profilemate catalog list --vllm 0.17.1";

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use crate::cli::args::Cli;

    /// The example lines of a help text, as words, without comments, redirections and `sudo`.
    fn examples(help: &str) -> Vec<Vec<String>> {
        help.lines()
            .map(|line| line.trim().trim_start_matches("sudo "))
            .filter(|line| line.starts_with("profilemate "))
            .map(|line| {
                let line = line.split(" # ").next().unwrap_or(line);
                let line = line.split(" > ").next().unwrap_or(line);
                line.split_whitespace()
                    .map(|word| word.trim_matches('\'').to_owned())
                    .collect()
            })
            .collect()
    }

    #[test]
    fn every_command_shows_examples_that_the_command_line_understands() {
        let command = Cli::command();
        let helps = command
            .get_subcommands()
            .map(|command| (command.get_name(), command.get_after_help()))
            .chain([("profilemate", command.get_after_help())]);
        for (name, help) in helps {
            let help = help.map(ToString::to_string).unwrap_or_default();
            let examples = examples(&help);
            assert!(!examples.is_empty(), "`{name}` has no example");
            for words in examples {
                let read = Cli::try_parse_from(&words);
                assert!(read.is_ok(), "{words:?}: {:?}", read.err());
            }
        }
    }
}
