//! The command line, as typed. Nothing is decided here.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::examples;

/// See what the engine of a running vLLM server does, step by step.
#[derive(Debug, Parser)]
#[command(
    name = "profilemate",
    disable_version_flag = true,
    max_term_width = 100,
    after_help = examples::ALL
)]
pub struct Cli {
    /// Say more on stderr: -v what is done, -vv every decision.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// No status line and no summary.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Print the version; with -v also the embedded eBPF object's hash and toolchain.
    #[arg(short = 'V', long)]
    pub version: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Trace a running server (--pid), a server that it starts (-- CMD), or the one vLLM server of this host.
    #[command(after_help = examples::TRACE, after_long_help = examples::trace())]
    Trace(Box<Trace>),
    /// Have a flight recorder (`trace --continuous`) write down what it has kept, and print the folder.
    #[command(after_help = examples::SNAPSHOT)]
    Snapshot(super::recorder::Snapshot),
    /// Trace the built-in demo target for 8 seconds: no vLLM and no GPU needed.
    #[command(after_help = examples::DEMO)]
    Demo(Demo),
    /// Put back what a killed tracer left redirected in a process and its children.
    #[command(after_help = examples::DETACH)]
    Detach(Detach),
    /// Make a session's tables again from its `events.pmrec`.
    #[command(after_help = examples::REPLAY)]
    Replay(Replay),
    /// What is probed in which vLLM, and whether that fits a vLLM's sources.
    #[command(after_help = examples::CATALOG)]
    Catalog(super::catalog::Options),
    /// Say whether a trace would work here, line by line, and what to do where it would not. Changes nothing.
    #[command(after_help = examples::DOCTOR)]
    Doctor(super::doctor::Doctor),
    /// Keep every vLLM server of this node attached, and serve their metrics to Prometheus and OpenTelemetry.
    #[command(after_help = examples::AGENT)]
    Agent(super::agent::Agent),
    /// Watch a running server in the terminal, live.
    #[command(after_help = examples::TOP)]
    Top(super::top::Top),
    /// Say of every thread of a server what it waits for and since when, with its Python stack, without stopping it:
    /// for one that is stuck.
    #[command(after_help = examples::WHERE)]
    Where(super::stacks::Where),
    /// Print a completion script for a shell.
    #[command(after_help = examples::COMPLETIONS)]
    Completions(super::pages::Completions),
    /// Print the manual page, or the one of a command, as roff.
    #[command(after_help = examples::MAN)]
    Man(super::pages::Man),
    /// Say what is wrong with a server, by a session's folder: findings with evidence, cost, and what to change.
    #[command(after_help = examples::EXPLAIN)]
    Explain(super::explain::Explain),
    /// Compare two sessions, with confidence intervals: what differs, and what is noise.
    #[command(after_help = examples::DIFF)]
    Diff(super::diff::Diff),
    /// Write a session for another tool: Perfetto, Chrome, Parquet, OpenTelemetry, Speedscope.
    #[command(after_help = examples::EXPORT)]
    Export(super::export::Export),
    /// Make one self-contained HTML page of a session, with plots to look at: no network, no server.
    #[command(after_help = examples::REPORT)]
    Report(super::report::Report),
    /// Many servers at once, by what their agents told Prometheus or what speaks its API.
    #[command(after_help = examples::FLEET)]
    Fleet(Box<super::fleet::Options>),
    /// The Python helper: for CPython 3.11, and where no process may be traced from outside.
    #[command(after_help = examples::HELPER)]
    Helper(super::helper::Helper),
}

/// Options of `trace`.
#[derive(Debug, Default, Args)]
pub struct Trace {
    /// Process id of the server; its children are traced too. Repeatable.
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Vec<u32>,
    /// Whether anything may be written into the target.
    #[arg(long, value_enum, default_value_t = Touch::Probes)]
    pub touch: Touch,
    /// What every session can be told.
    #[command(flatten)]
    pub common: Common,
    /// Print what would be done, method by method, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Trace a Python method of your own, in any Python process: `package.module:Class.method`. Repeatable; rows go to
    /// methods.csv.
    #[arg(long, value_name = "MODULE:QUALNAME")]
    pub method: Vec<String>,
    /// Read a value at each call of every --method: `NAME=PATH`, such as `queue=self.queue:len` or `result=ret`
    /// (docs/field-paths.md). Repeatable.
    #[arg(long, value_name = "NAME=PATH")]
    pub field: Vec<String>,
    /// Take the target's vLLM for this version if its own is not in the catalogue, as with a nightly build.
    #[arg(long, value_name = "VERSION")]
    pub assume_vllm: Option<String>,
    /// Measure what tracing costs each process, and record less where that is more than this part of the time in
    /// steps, such as `1%`. `--dry-run` prints what goes in which order; metadata.json says what went when.
    #[arg(long, value_name = "PERCENT", value_parser = crate::budget::parse)]
    pub budget: Option<f64>,
    /// Count which experts are chosen in every Nth call of each layer's router, also where their ids are in GPU memory:
    /// the Python helper in the server does it (docs/helper.md).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub moe_sample: Option<u32>,
    /// A flight recorder instead of a session that is written down.
    #[command(flatten)]
    pub recorder: super::recorder::Recorder,
    /// Start this command and trace it from its first import on.
    #[arg(last = true, value_name = "CMD")]
    pub run: Vec<String>,
}

/// Where sessions are written.
#[derive(Debug, Default, Args)]
pub struct Place {
    /// Folder in which the session's folder is made.
    #[arg(
        short,
        long,
        env = "VLLM_PROFILING_DIR",
        default_value = "/tmp/vllm_profiling",
        value_name = "DIR"
    )]
    pub output: PathBuf,
}

/// Options of every session.
#[derive(Debug, Default, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
pub struct Common {
    /// Stop after this time, such as `30s`, `5m` or `500ms`; else at Ctrl-C or when the target ends.
    #[arg(short, long, value_parser = duration)]
    pub duration: Option<Duration>,
    /// Where it is written.
    #[command(flatten)]
    pub place: Place,
    /// Bind only the methods that this table needs, such as `batch_utilization`. Repeatable.
    #[arg(long, value_name = "TABLE", conflicts_with = "without", value_parser = table)]
    pub only: Vec<String>,
    /// Leave this table out, and the methods that only it needs. Repeatable.
    #[arg(long, value_name = "TABLE", value_parser = table)]
    pub without: Vec<String>,
    /// Do not count launches of CUDA kernels, which costs a server without CUDA graphs 0.6 us for each: `kernels` of
    /// `forward_pass_timing.csv` stays empty.
    #[arg(long)]
    pub no_kernel_counts: bool,
    /// Also write a row for each replay of a CUDA graph to `cuda_graph_timeline.csv`: one or more a step.
    #[arg(long)]
    pub graph_timeline: bool,
    /// On stdout, print each call of a --method as a JSON line, and at the end (or with --dry-run) JSON instead of text.
    #[arg(long)]
    pub json: bool,
    /// Exit with code 3 if records were lost or a process of the target could not be attached.
    #[arg(long)]
    pub strict: bool,
    /// Size of the kernel ring buffer, a power of two from 4K to 1024M. Larger if records are lost.
    #[arg(long, default_value = "16M", value_parser = ring_size, hide_short_help = true)]
    pub ring_size: u32,
}

/// Options of `demo`.
#[derive(Debug, Default, Args)]
pub struct Demo {
    /// What every session can be told.
    #[command(flatten)]
    pub common: Common,
    /// Python to run the demo target with, from 3.10 to 3.13 [default: the first good one on PATH or in ~/.pyenv]
    #[arg(long, env = "PROFILEMATE_PYTHON", value_name = "PYTHON")]
    pub python: Option<PathBuf>,
}

/// Options of `detach`.
#[derive(Debug, Args)]
pub struct Detach {
    /// Process id of the server; its children are looked at too. Repeatable.
    #[arg(short, long, required = true, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Vec<u32>,
}

/// Options of `replay`.
#[derive(Debug, Args)]
pub struct Replay {
    /// `events.pmrec`, or a session folder that holds one.
    pub recording: PathBuf,
    /// Where it is written.
    #[command(flatten)]
    pub place: Place,
}

/// Whether anything may be written into the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Touch {
    /// Nothing is written into the target. Calls of the CUDA driver are recorded, named by walks of the Python stack.
    None,
    /// A marker page is mapped and methods are redirected through it until the end. A command started with `--` that
    /// runs on CPython 3.11 loads the Python helper.
    #[default]
    Probes,
    /// No pointer is redirected from outside: methods are bound by the Python helper that waits in the process
    /// (`profilemate helper install`), or that a command started with `--` loads. Where a process given with `--pid` has
    /// none, its main thread is made to start one.
    Helper,
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits
        .parse()
        .map_err(|_error| format!("`{text}` is not a duration such as `30s`"))?;
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        other => return Err(format!("unknown unit `{other}`: use ms, s, m or h")),
    };
    Duration::try_from_secs_f64(number * unit)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| format!("`{text}` is not a duration above zero"))
}

pub(crate) fn table(text: &str) -> Result<String, String> {
    let name = text.trim_end_matches(".csv");
    if crate::table::index_of(name).is_some() {
        return Ok(name.to_owned());
    }
    Err(format!(
        "there is no table `{name}`; there are {}",
        crate::table::TABLES
            .iter()
            .map(|table| table.file)
            .collect::<Vec<_>>()
            .join(", ")
    ))
}

/// A size in bytes: `64M`, `2G`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits
        .parse()
        .map_err(|_error| format!("`{text}` is not a size such as `64M`"))?;
    let factor = match &text[digits.len()..] {
        "" | "B" => 1,
        "K" | "k" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        other => return Err(format!("unknown unit `{other}`: use K, M or G")),
    };
    number
        .checked_mul(factor)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| format!("`{text}` is not a size above zero"))
}

fn ring_size(text: &str) -> Result<u32, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits
        .parse()
        .map_err(|_error| format!("`{text}` is not a size such as `16M`"))?;
    let factor = match &text[digits.len()..] {
        "" | "B" => 1,
        "K" | "k" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        other => return Err(format!("unknown unit `{other}`: use K or M")),
    };
    let bytes = number.saturating_mul(factor);
    if bytes.is_power_of_two() && (4096..=1 << 30).contains(&bytes) {
        return Ok(bytes as u32);
    }
    Err(format!(
        "the ring buffer's size must be a power of two between 4K and 1024M, not {text}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_and_sizes_are_read_and_nonsense_is_refused() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(
            duration("0s").is_err()
                && duration("x").is_err()
                && duration("3d").is_err()
                && duration("-1s").is_err()
        );
        assert_eq!(ring_size("16M"), Ok(16 << 20));
        assert_eq!(size("2G"), Ok(2 << 30));
        assert!(size("0").is_err() && size("9T").is_err() && size("M").is_err());
        assert!(ring_size("3M").is_err() && ring_size("1K").is_err());
    }

    #[test]
    fn tables_are_known_by_name_with_or_without_csv() {
        assert_eq!(table("kv_cache_usage.csv").as_deref(), Ok("kv_cache_usage"));
        assert!(table("nothing").unwrap_err().contains("kv_cache_usage"));
    }
}
