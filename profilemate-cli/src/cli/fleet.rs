//! `fleet`: many servers, by what their agents told a Prometheus-compatible engine.

mod trace;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::args::duration;
use super::{Exit, Failure, print};
use crate::fleet::api::{self, Access, Http, Span};
use crate::fleet::change::{Change, Time};
use crate::fleet::diagnose::Diagnosis;
use crate::fleet::gather::{self, Question};
use crate::fleet::inventory::Fleet;
use crate::fleet::selector::Selector;
use crate::fleet::text;

/// Pieces into which a window is cut, to tell differences from noise.
const PIECES: u32 = 15;

/// Options of `fleet`.
#[derive(Debug, Args)]
pub struct Options {
    /// How to reach the engine.
    #[command(flatten)]
    pub engine: Engine,
    /// What to do.
    #[command(subcommand)]
    pub task: Task,
}

/// How to reach the engine, and which servers to look at.
#[derive(Debug, Args)]
pub struct Engine {
    /// Address of the engine, up to what stands before `/api/v1`: Prometheus, Thanos, Mimir, VictoriaMetrics.
    #[arg(
        long,
        global = true,
        env = "PROFILEMATE_PROMETHEUS",
        default_value = "http://localhost:9090",
        value_name = "URL"
    )]
    pub prometheus: String,
    /// File with a bearer token for the engine. Refused if every user can read it.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        conflicts_with = "basic_auth_file"
    )]
    pub token_file: Option<PathBuf>,
    /// File with `user:password` for the engine. Refused if every user can read it.
    #[arg(long, global = true, value_name = "FILE")]
    pub basic_auth_file: Option<PathBuf>,
    /// Trust these certificates (PEM) instead of the system's.
    #[arg(long, global = true, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Send this header too, such as `X-Scope-OrgID: team` for Mimir. Repeatable.
    #[arg(long, global = true, value_name = "NAME: VALUE")]
    pub header: Vec<String>,
    /// How long an answer may take.
    #[arg(long, global = true, default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// Only servers that match, by labels of `profilemate_server_info`: `model="NAME",pod=~"chat-.*"`.
    #[arg(long, global = true, default_value = "", value_parser = Selector::parse, value_name = "MATCHERS")]
    pub select: Selector,
    /// Ask for what the rules of `deploy/prometheus/profilemate.fleet.rules.yaml` keep, where that is all that the engine
    /// has: one that many others are federated into.
    #[arg(long, global = true)]
    pub recorded: bool,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Every server: version, model, load, KV cache, graphs, preemptions, overhead; and the agents' health.
    Status(Status),
    /// What is wrong: servers, engines and ranks that differ from their like, and faults, by lost throughput.
    Diagnose(Diagnose),
    /// What changed between two times: servers, versions, and measures with confidence intervals.
    Diff(Diff),
    /// Has the agents trace servers, a few at a time, and gathers the session folders.
    Trace(trace::Options),
}

/// Options of `fleet status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Over how long rates and means are taken.
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub window: Duration,
    /// When: `2026-01-01T12:00:00Z`, seconds since 1970, or `1h` ago [default: the engine's present]
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// How far back servers and agents that no longer tell are still named.
    #[arg(long, default_value = "1h", value_parser = duration)]
    pub lookback: Duration,
    /// Exit with code 3 if a server does not tell, or an agent is not well.
    #[arg(long)]
    pub strict: bool,
}

/// Options of `fleet diagnose`.
#[derive(Debug, Args)]
pub struct Diagnose {
    /// Over how long; it is cut into 15 pieces, each of which should have four scrapes or more.
    #[arg(long, default_value = "30m", value_parser = duration)]
    pub window: Duration,
    /// End of the window: `2026-01-01T12:00:00Z`, seconds since 1970, or `1h` ago [default: the engine's present]
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// Exit with code 3 if something was found.
    #[arg(long)]
    pub strict: bool,
}

/// Options of `fleet diff`.
#[derive(Debug, Args)]
pub struct Diff {
    /// Twice: ends of the two windows, as `2026-01-01T12:00:00Z`, seconds since 1970, `1h` ago, or `now`.
    #[arg(long, value_name = "TIME", required = true, num_args = 1)]
    pub at: Vec<String>,
    /// Length of each window.
    #[arg(long, default_value = "15m", value_parser = duration)]
    pub window: Duration,
}

fn failed(error: api::Error) -> Failure {
    let exit = match &error {
        api::Error::Status {
            status: 401 | 403, ..
        } => Exit::Forbidden,
        _ => Exit::Failed,
    };
    let hint = error.hint();
    Failure::new(exit, error).hint(hint)
}

/// A time as typed, by the engine's clock.
fn time(text: &str, now: f64) -> Result<f64, Failure> {
    if text == "now" {
        return Ok(now);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return Ok(seconds);
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(at.as_millisecond() as f64 / 1e3);
    }
    let ago = duration(text.trim_end_matches("ago").trim());
    ago.map(|ago| now - ago.as_secs_f64()).map_err(|_error| {
        Failure::new(Exit::Usage, anyhow::anyhow!("`{text}` is not a time"))
            .hint("give 2026-01-01T12:00:00Z, seconds since 1970, `1h` for an hour ago, or `now`")
    })
}

/// The question, with its time by the engine's clock.
async fn question(
    http: &Http,
    engine: &Engine,
    (window, lookback): (Duration, Duration),
    at: Option<&str>,
) -> Result<Question, Failure> {
    let mut question = Question {
        select: engine.select.clone(),
        window,
        lookback,
        at: None,
        recorded: engine.recorded,
    };
    if let Some(at) = at {
        let now = gather::now(http, None).await.map_err(failed)?;
        question.at = Some(time(at, now)?);
    }
    Ok(question)
}

/// A fleet without anybody is an error that says what to look at.
fn somebody(fleet: Fleet) -> Result<Fleet, Failure> {
    if !fleet.servers.is_empty() || !fleet.agents.is_empty() {
        return Ok(fleet);
    }
    let error = anyhow::anyhow!("the engine knows no agent and no server of ProfileMate");
    Err(Failure::new(Exit::NoTarget, error).hint(
        "does it scrape the agents? `curl http://NODE:9464/metrics` shows what one tells; docs/fleet.md has the setup",
    ))
}

async fn status(http: &Http, options: &Options, status: &Status) -> Result<Exit, Failure> {
    let lengths = (status.window, status.lookback);
    let question = question(http, &options.engine, lengths, status.at.as_deref()).await?;
    let roll = gather::roll(http, &question).await.map_err(failed)?;
    let measured = gather::latest(http, &question, roll.now)
        .await
        .map_err(failed)?;
    let fleet = somebody(Fleet::of(&roll, &measured))?;
    show(options.engine.json, &fleet, text::status);
    let well = fleet
        .agents
        .iter()
        .all(crate::fleet::inventory::Agent::is_well)
        && fleet
            .servers
            .iter()
            .all(|one| one.state.tells() && one.attached != Some(false));
    Ok(exit(status.strict && !well))
}

async fn diagnose(http: &Http, options: &Options, diagnose: &Diagnose) -> Result<Exit, Failure> {
    let lengths = (diagnose.window, diagnose.window);
    let question = question(http, &options.engine, lengths, diagnose.at.as_deref()).await?;
    let roll = gather::roll(http, &question).await.map_err(failed)?;
    let fleet = somebody(Fleet::of(&roll, &gather::Measured::new()))?;
    let span = Span::new(roll.now, diagnose.window, PIECES);
    let measured = gather::over(http, &question, span).await.map_err(failed)?;
    let verdicts = gather::verdicts(http, &question, roll.now)
        .await
        .map_err(failed)?;
    let diagnosis = Diagnosis::of(&fleet, &measured, &verdicts, span);
    show(options.engine.json, &diagnosis, text::diagnosis);
    Ok(exit(diagnose.strict && !diagnosis.findings.is_empty()))
}

async fn diff(http: &Http, options: &Options, diff: &Diff) -> Result<Exit, Failure> {
    let [before, after] = &diff.at[..] else {
        let error = anyhow::anyhow!("a difference is one of two times, not of {}", diff.at.len());
        return Err(
            Failure::new(Exit::Usage, error).hint("give --at TIME twice, such as --at 2h --at now")
        );
    };
    let mut sides = Vec::new();
    for at in [before, after] {
        let question =
            question(http, &options.engine, (diff.window, diff.window), Some(at)).await?;
        let roll = gather::roll(http, &question).await.map_err(failed)?;
        let span = Span::new(roll.now, diff.window, PIECES);
        let measured = gather::over(http, &question, span).await.map_err(failed)?;
        sides.push((
            somebody(Fleet::of(&roll, &gather::Measured::new()))?,
            measured,
            span,
        ));
    }
    let side = |index: usize| {
        let (fleet, measured, span) = &sides[index];
        Time {
            fleet,
            measured,
            span: *span,
        }
    };
    show(
        options.engine.json,
        &Change::of(side(0), side(1)),
        text::change,
    );
    Ok(Exit::Done)
}

fn show<T: serde::Serialize>(json: bool, what: &T, text: fn(&T) -> String) {
    print::data(&if json {
        format!("{:#}", serde_json::json!(what))
    } else {
        text(what)
    });
}

fn exit(incomplete: bool) -> Exit {
    if incomplete {
        Exit::Incomplete
    } else {
        Exit::Done
    }
}

/// `fleet`.
pub(super) fn run(options: &Options) -> Result<Exit, Failure> {
    let engine = &options.engine;
    let http = Http::new(&Access {
        url: engine.prometheus.clone(),
        token_file: engine.token_file.clone(),
        basic_auth_file: engine.basic_auth_file.clone(),
        ca_file: engine.ca_file.clone(),
        headers: engine.header.clone(),
        timeout: engine.timeout,
    })
    .map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, error))?;
    runtime.block_on(async {
        match &options.task {
            Task::Status(task) => status(&http, options, task).await,
            Task::Diagnose(task) => diagnose(&http, options, task).await,
            Task::Diff(task) => diff(&http, options, task).await,
            Task::Trace(task) => trace::trace(&http, engine, task).await,
        }
    })
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "what is computed is exact")]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_by_the_engine_s_clock() {
        let now = 1_000_000.0;
        assert_eq!(time("now", now).unwrap(), now);
        assert_eq!(time("1h", now).unwrap(), now - 3600.0);
        assert_eq!(time("90s ago", now).unwrap(), now - 90.0);
        assert_eq!(time("1700000000", now).unwrap(), 1.7e9);
        assert_eq!(time("2023-11-14T22:13:20Z", now).unwrap(), 1.7e9);
        assert_eq!(time("yesterday", now).unwrap_err().exit, Exit::Usage);
    }
}
