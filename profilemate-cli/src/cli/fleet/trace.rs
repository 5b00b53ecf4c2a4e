//! `fleet trace`: traces of many servers, taken by their agents and gathered here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::{Engine, failed, question, somebody};
use crate::agent::trace::Asked;
use crate::cli::args::{duration, table};
use crate::cli::print::note;
use crate::cli::{Exit, Failure};
use crate::fleet::api::{Access, Http, Labels, http};
use crate::fleet::gather;
use crate::fleet::inventory::{Fleet, Server};
use crate::fleet::selector::Selector;
use crate::fleet::trace::address::Template;
use crate::fleet::trace::agent::Agent;
use crate::fleet::trace::fan::{self, Job};
use crate::fleet::trace::{Outcome, Report, Traced, text};

/// Time between two looks at a trace.
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes of a folder's name.
const NAME: usize = 120;

/// Options of `fleet trace`.
#[derive(Debug, Args)]
pub struct Options {
    /// Which servers, by labels of `profilemate_server_info`: `model="NAME",pod=~"chat-.*"`; `{}` for all.
    #[arg(value_name = "SELECTOR", value_parser = Selector::parse)]
    pub which: Selector,
    /// How long each trace takes.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub duration: Duration,
    /// File with the token of the agents. Refused if every user can read it.
    #[arg(long, value_name = "FILE")]
    pub agent_token_file: PathBuf,
    /// Address of a server's agent; labels of `profilemate_server_info` stand in braces: `https://{instance}:9464`.
    #[arg(long, value_name = "TEMPLATE", default_value = "https://{instance}", value_parser = Template::parse)]
    pub agent_url: Template,
    /// Trust these certificates (PEM) for the agents [default: those of --ca-file]
    #[arg(long, value_name = "FILE")]
    pub agent_ca_file: Option<PathBuf>,
    /// Servers at once.
    #[arg(long, default_value = "8", value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,
    /// Only the methods that this table needs, such as `batch_utilization`. Repeatable.
    #[arg(long, value_name = "TABLE", value_parser = table)]
    pub only: Vec<String>,
    /// Also a row for each replay of a CUDA graph.
    #[arg(long)]
    pub graph_timeline: bool,
    /// Folder in which the folder with the sessions is made.
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    pub output: PathBuf,
    /// How far back servers that no longer tell are still named.
    #[arg(long, default_value = "10m", value_parser = duration)]
    pub lookback: Duration,
    /// Exit with code 3 if a session was not gathered, or records were lost.
    #[arg(long)]
    pub strict: bool,
}

/// All labels of a server.
fn labels(server: &Server) -> Labels {
    let mut labels = server.info.clone();
    labels.extend(server.key.clone());
    for (name, value) in [("model", &server.model), ("version", &server.version)] {
        labels.insert(name.to_owned(), value.clone());
    }
    labels
}

/// A folder's name for a server that no other has.
fn folder_name(server: &Server, taken: &mut BTreeSet<String>) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "-_.".contains(c) {
            c
        } else {
            '_'
        }
    };
    let both = format!("{}@{}", server.server, server.instance);
    let mut parts = both
        .split('@')
        .map(|part| part.chars().map(plain).collect());
    let first: String = parts.next().unwrap_or_default();
    let rest: Vec<String> = parts.collect();
    let mut name = format!("{first}@{}", rest.join("_"));
    name.truncate(NAME);
    if name.starts_with('.') {
        name.insert(0, '_');
    }
    let mut unique = name.clone();
    let mut count = 2;
    while !taken.insert(unique.clone()) {
        unique = format!("{name}-{count}");
        count += 1;
    }
    unique
}

/// A new folder for the sessions.
fn new_folder(output: &Path) -> Result<PathBuf, Failure> {
    let failed = |error: std::io::Error| {
        let error = anyhow::Error::new(error);
        let error = error.context(format!("cannot make a folder in `{}`", output.display()));
        Failure::new(Exit::Output, error).hint("--output DIR chooses another folder")
    };
    std::fs::create_dir_all(output).map_err(failed)?;
    let prefix = format!("fleet_{}_", jiff::Zoned::now().strftime("%Y%m%d_%H%M%S"));
    let made = tempfile::Builder::new().prefix(&prefix).tempdir_in(output);
    Ok(made.map_err(failed)?.keep())
}

/// Who is to be traced: what is already said of each, and the jobs with the places of their servers.
struct Plan {
    servers: Vec<Traced>,
    jobs: Vec<(usize, Job)>,
}

impl Plan {
    fn of(fleet: &Fleet, options: &Options, client: &reqwest::Client, folder: &Path) -> Self {
        let mut plan = Self {
            servers: Vec::new(),
            jobs: Vec::new(),
        };
        let mut taken = BTreeSet::new();
        for server in &fleet.servers {
            let mut traced = Traced {
                server: server.server.clone(),
                instance: server.instance.clone(),
                agent: None,
                outcome: Outcome::Silent {
                    reason: server.state.words(),
                },
            };
            if server.state.tells() {
                let url = options.agent_url.fill(&labels(server));
                traced.agent = url.as_ref().ok().map(ToString::to_string);
                let agent = url.map_err(|error| error.to_string()).and_then(|url| {
                    let agent = Agent::new(client.clone(), url);
                    agent.map_err(|error| format!("{error}: give an `https` --agent-url"))
                });
                match agent {
                    Err(reason) => traced.outcome = Outcome::Failed { reason },
                    Ok(agent) => {
                        let folder = folder.join(folder_name(server, &mut taken));
                        let job = job(server, options, agent, folder);
                        plan.jobs.push((plan.servers.len(), job));
                    }
                }
            }
            plan.servers.push(traced);
        }
        plan
    }
}

fn job(server: &Server, options: &Options, agent: Agent, folder: PathBuf) -> Job {
    Job {
        agent,
        server: server.server.clone(),
        asked: Asked {
            server: Some(server.server.clone()),
            duration: format!("{}ms", options.duration.as_millis()),
            tables: options.only.clone(),
            graph_timeline: options.graph_timeline,
        },
        duration: options.duration,
        pause: PAUSE,
        folder,
    }
}

/// The client of all agents.
fn client(engine: &Engine, options: &Options) -> Result<reqwest::Client, Failure> {
    let access = Access {
        url: "https://agents".to_owned(),
        token_file: Some(options.agent_token_file.clone()),
        ca_file: options
            .agent_ca_file
            .clone()
            .or_else(|| engine.ca_file.clone()),
        timeout: engine.timeout,
        ..Access::default()
    };
    let base = http::address(&access.url).map_err(failed)?;
    http::client(&access, &base).map_err(failed)
}

/// The servers that are asked for.
async fn fleet(http: &Http, engine: &Engine, options: &Options) -> Result<Fleet, Failure> {
    let lengths = (options.lookback, options.lookback);
    let mut question = question(http, engine, lengths, None).await?;
    question.select = question.select.and(&options.which);
    let roll = gather::roll(http, &question).await.map_err(failed)?;
    let fleet = somebody(Fleet::of(&roll, &gather::Measured::new()))?;
    if fleet.servers.is_empty() {
        let matchers = question.select.braces();
        let error = anyhow::anyhow!("no server matches `{matchers}`");
        return Err(Failure::new(Exit::NoTarget, error)
            .hint("`profilemate fleet status` lists the servers; `{}` matches all"));
    }
    Ok(fleet)
}

/// `fleet trace`.
pub(super) async fn trace(
    http: &Http,
    engine: &Engine,
    options: &Options,
) -> Result<Exit, Failure> {
    let client = client(engine, options)?;
    let fleet = fleet(http, engine, options).await?;
    let folder = new_folder(&options.output)?;
    let Plan { mut servers, jobs } = Plan::of(&fleet, options, &client, &folder);
    note(&format!(
        "tracing {} of {} servers for {} s, {} at a time",
        jobs.len(),
        servers.len(),
        options.duration.as_secs_f64(),
        options.concurrency
    ));
    let (places, jobs): (Vec<usize>, Vec<Job>) = jobs.into_iter().unzip();
    let stop = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let names: Vec<String> = places
        .iter()
        .map(|place| format!("{} @ {}", servers[*place].server, servers[*place].instance))
        .collect();
    let tell = |index: usize, outcome: &Outcome| match outcome {
        Outcome::Gathered { bytes, .. } => note(&format!("{}: {bytes} bytes", names[index])),
        Outcome::Failed { reason } => note(&format!("{}: {reason}", names[index])),
        Outcome::Silent { .. } | Outcome::Interrupted { .. } => {}
    };
    let width = usize::from(options.concurrency);
    let (outcomes, interrupted) = fan::run(jobs, width, stop, tell).await;
    for (place, outcome) in places.into_iter().zip(outcomes) {
        servers[place].outcome = outcome;
    }
    let report = Report {
        folder,
        interrupted,
        servers,
        notes: fleet.notes,
    };
    super::show(engine.json, &report, text::report);
    if report.gathered() == 0 {
        // An empty folder helps nobody; one that is not empty stays.
        let _not_empty = std::fs::remove_dir(&report.folder);
        return Ok(Exit::Failed);
    }
    Ok(super::exit(options.strict && !report.is_whole()))
}
