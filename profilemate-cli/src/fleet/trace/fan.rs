//! Many servers, a few at a time. One that fails holds nobody up.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Outcome;
use super::agent::{Agent, Error};
use crate::agent::trace::{Asked, Progress};
use crate::session::chain;

/// How long after its time a trace may end: attaching and writing take a moment.
const GRACE: Duration = Duration::from_secs(120);
/// How often in a row an agent that is traced may fail to answer.
const MISSED: u32 = 8;
/// Bytes of a session's metadata that are read.
const METADATA: u64 = 64 << 20;

/// How far a server has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Waiting,
    Asking,
    Tracing(u64),
    Gathering(u64),
}

impl Stage {
    /// What it leaves behind where it is interrupted.
    fn left(self) -> String {
        match self {
            Self::Waiting => "the agent was not asked yet".to_owned(),
            Self::Asking => "the agent may have begun a trace".to_owned(),
            Self::Tracing(id) => {
                format!("trace {id} goes on to its end, and its session stays with the agent")
            }
            Self::Gathering(id) => format!("the session of trace {id} stays with the agent"),
        }
    }
}

/// One server that is to be traced.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its agent.
    pub agent: Agent,
    /// Its name on its node.
    pub server: String,
    /// What is asked of the agent.
    pub asked: Asked,
    /// How long the trace takes.
    pub duration: Duration,
    /// Time between two looks at it.
    pub pause: Duration,
    /// The folder that its session gets.
    pub folder: PathBuf,
}

impl Job {
    async fn run(&self, stage: &Mutex<Stage>) -> Outcome {
        match self.try_run(stage).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Failed {
                reason: chain(&error),
            },
        }
    }

    async fn try_run(&self, stage: &Mutex<Stage>) -> Result<Outcome, Error> {
        set(stage, Stage::Asking);
        let id = self.agent.begin(&self.asked).await?;
        set(stage, Stage::Tracing(id));
        let (ended, events, lost) = self.wait(id).await?;
        set(stage, Stage::Gathering(id));
        let bytes = self.gather(id).await?;
        Ok(Outcome::Gathered {
            rows: rows(&self.folder),
            folder: self.folder.clone(),
            ended,
            events,
            lost,
            bytes,
        })
    }

    /// Waits for a trace's end; an agent that does not answer for a while is asked again.
    async fn wait(&self, id: u64) -> Result<(String, u64, u64), Error> {
        let end = Instant::now() + self.duration + GRACE;
        let mut missed = 0;
        loop {
            tokio::time::sleep(self.pause).await;
            match self.agent.standing(id, &self.server).await {
                Ok(Progress::Done {
                    reason,
                    events,
                    lost,
                    ..
                }) => return Ok((reason, events, lost)),
                Ok(_) => missed = 0,
                Err(error) if error.may_pass() && missed < MISSED => missed += 1,
                Err(error) => return Err(error),
            }
            if Instant::now() > end {
                return Err(Error::Late(GRACE.as_secs()));
            }
        }
    }

    /// Gathers a session; an agent that sends others is asked again.
    async fn gather(&self, id: u64) -> Result<u64, Error> {
        let end = Instant::now() + GRACE;
        loop {
            match self.agent.gather(id, &self.folder).await {
                Err(error) if error.may_pass() && Instant::now() < end => {
                    tokio::time::sleep(self.pause).await;
                }
                gathered => return gathered,
            }
        }
    }
}

fn set(stage: &Mutex<Stage>, now: Stage) {
    *stage.lock().unwrap_or_else(PoisonError::into_inner) = now;
}

/// Rows of all tables, by a session's metadata.
fn rows(folder: &Path) -> Option<u64> {
    let file = std::fs::File::open(folder.join("metadata.json")).ok()?;
    let text = std::io::read_to_string(std::io::Read::take(file, METADATA)).ok()?;
    let metadata: serde_json::Value = serde_json::from_str(&text).ok()?;
    let tables = metadata["tables"].as_object()?.values();
    Some(
        tables
            .filter_map(|table| table["rows"].as_u64())
            .fold(0, u64::saturating_add),
    )
}

/// Does all jobs, `width` at a time, until they have ended or `stop` has. `tell` hears of each that ends. Gives the
/// outcomes in the order of the jobs, and whether it was stopped.
pub async fn run(
    jobs: Vec<Job>,
    width: usize,
    stop: impl Future<Output = ()>,
    mut tell: impl FnMut(usize, &Outcome),
) -> (Vec<Outcome>, bool) {
    let room = Arc::new(Semaphore::new(width.max(1)));
    let stages: Vec<Arc<Mutex<Stage>>> = jobs.iter().map(|_| Arc::default()).collect();
    let mut done: Vec<Option<Outcome>> = jobs.iter().map(|_| None).collect();
    let mut tasks = JoinSet::new();
    for (index, job) in jobs.into_iter().enumerate() {
        let (room, stage) = (Arc::clone(&room), Arc::clone(&stages[index]));
        tasks.spawn(async move {
            // The semaphore is never closed.
            let _permit = room.acquire().await;
            (index, job.run(&stage).await)
        });
    }
    let mut stop = std::pin::pin!(stop);
    let stopped = loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                Some(Ok((index, outcome))) => {
                    tell(index, &outcome);
                    done[index] = Some(outcome);
                }
                Some(Err(error)) => log::error!("a server's task has failed: {error}"),
                None => break false,
            },
            () = &mut stop => break true,
        }
    };
    tasks.shutdown().await;
    let stages = stages
        .iter()
        .map(|stage| *stage.lock().unwrap_or_else(PoisonError::into_inner));
    let outcomes = done.into_iter().zip(stages).map(|(outcome, stage)| {
        outcome.unwrap_or_else(|| Outcome::Interrupted {
            reason: stage.left(),
        })
    });
    (outcomes.collect(), stopped)
}
