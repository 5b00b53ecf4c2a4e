//! What is asked of an engine, in which order. All times are the engine's: the clock of this machine is never used, so
//! that it may be wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use super::api::{Answer, Engine, Error, Span};
use super::measure::{Histograms, MEASURES, Measure, expand};
use super::recorded;
use super::selector::Selector;
use super::verdict::{self, Verdicts};

/// What to ask for.
#[derive(Clone, Debug)]
pub struct Question {
    /// Which servers.
    pub select: Selector,
    /// Over how long rates and means are taken.
    pub window: Duration,
    /// How far back a server or agent that no longer tells is still named.
    pub lookback: Duration,
    /// When; `None` is the engine's present.
    pub at: Option<f64>,
    /// Whether the measures are asked for as the engine's recording rules keep them.
    pub recorded: bool,
}

/// How far ahead an agent's clock is looked for: one that is ahead tells into the engine's future.
pub const AHEAD: Duration = Duration::from_secs(20 * 60);
/// How often those that told something are looked at.
const LOOK: Duration = Duration::from_secs(30);

/// Who is there, and who was.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Roll {
    /// The engine's time.
    pub now: f64,
    /// Servers that tell: `profilemate_server_info`, the value is when it was told.
    pub servers: Answer,
    /// Servers that told within the lookback, or tell into the future: the value is when they last did.
    pub servers_seen: Answer,
    /// Agents that tell: `profilemate_agent_info`.
    pub agents: Answer,
    /// Agents as `servers_seen`.
    pub agents_seen: Answer,
    /// Whether the engine reaches the agents that it scrapes.
    pub scraped: Answer,
    /// Whether each server is attached and tells.
    pub attached: Answer,
    /// Attaches that failed within the window, by reason.
    pub failures: Answer,
}

impl Roll {
    /// What limited the answers.
    pub fn warnings(&self) -> impl Iterator<Item = &String> {
        [
            &self.servers,
            &self.servers_seen,
            &self.agents,
            &self.agents_seen,
            &self.scraped,
            &self.attached,
            &self.failures,
        ]
        .into_iter()
        .flat_map(|answer| &answer.warnings)
    }
}

/// Answers by the id of their measure.
pub type Measured = BTreeMap<&'static str, Answer>;

/// The engine's time, or the time that was asked for.
pub async fn now(engine: &impl Engine, at: Option<f64>) -> Result<f64, Error> {
    if let Some(at) = at {
        return Ok(at);
    }
    let answer = engine.at("time()", None).await?;
    let time = answer.series.first().and_then(super::api::Series::last);
    time.ok_or(Error::NoTime)
}

/// Whether the engine has native histograms. An engine that does not know the function refuses it.
pub async fn histograms(engine: &impl Engine, now: f64) -> Result<Histograms, Error> {
    let query = "count(histogram_count(profilemate_step_duration_seconds))";
    match engine.at(query, Some(now)).await {
        Ok(answer) if answer.series.is_empty() => Ok(Histograms::Classic),
        Ok(_) => Ok(Histograms::Native),
        Err(Error::Refused { .. }) => Ok(Histograms::Classic),
        Err(error) => Err(error),
    }
}

/// Asks who is there.
pub async fn roll(engine: &impl Engine, question: &Question) -> Result<Roll, Error> {
    let now = now(engine, question.at).await?;
    let select = question.select.braces();
    let ask = async |query: String| engine.at(&query, Some(now)).await;
    let seen = |metric: String| {
        // What follows a time of the past is no clock that is ahead.
        let ahead = question.at.map_or(AHEAD.as_secs(), |_past| 0);
        let look = LOOK.as_secs();
        let span = question.lookback.as_secs() + ahead;
        let offset = if ahead > 0 {
            format!(" offset -{ahead}s")
        } else {
            String::new()
        };
        format!("max_over_time(timestamp({metric})[{span}s:{look}s]{offset})")
    };
    // `timestamp` alone does not do: VictoriaMetrics takes it of the last sample within five minutes, also where a later
    // scrape has marked that series as ended. The series itself is then gone in every engine.
    let present = |metric: &str| format!("timestamp({metric}) and {metric}");
    let lookback = question.lookback.as_secs();
    let (info, agent) = (
        format!("profilemate_server_info{select}"),
        "profilemate_agent_info",
    );
    let window = question.window.as_secs().max(1);
    Ok(Roll {
        now,
        servers: ask(present(&info)).await?,
        servers_seen: ask(seen(info)).await?,
        agents: ask(present(agent)).await?,
        agents_seen: ask(seen(agent.to_owned())).await?,
        scraped: ask(format!(
            "up and on (job) last_over_time({agent}[{lookback}s])"
        ))
        .await?,
        attached: ask("profilemate_server_up".to_owned()).await?,
        failures: ask(format!(
            "increase(profilemate_attach_failures_total[{window}s]) > 0"
        ))
        .await?,
    })
}

/// Each measure's query over pieces of `window`, of the chosen servers only.
async fn queries(
    engine: &impl Engine,
    question: &Question,
    window: Duration,
    now: f64,
) -> Result<Vec<(&'static str, String)>, Error> {
    let histograms = if question.recorded {
        None
    } else {
        Some(histograms(engine, now).await?)
    };
    let query = |measure: &'static Measure| {
        let query = match histograms {
            None => recorded::query(measure, window),
            Some(histograms) => expand(measure, window, histograms),
        };
        (measure.id, of(&query, &question.select, question.window))
    };
    Ok(MEASURES.iter().map(query).collect())
}

fn of(query: &str, select: &Selector, window: Duration) -> String {
    if select.is_empty() {
        return query.to_owned();
    }
    format!(
        "({query}) and on (job, instance, server) last_over_time(profilemate_server_info{}[{}s])",
        select.braces(),
        window.as_secs().max(60)
    )
}

/// All measures at one time.
pub async fn latest(
    engine: &impl Engine,
    question: &Question,
    now: f64,
) -> Result<Measured, Error> {
    let mut all = Measured::new();
    for (id, query) in queries(engine, question, question.window, now).await? {
        all.insert(id, engine.at(&query, Some(now)).await?);
    }
    Ok(all)
}

/// What the agents found over the question's window.
pub async fn verdicts(
    engine: &impl Engine,
    question: &Question,
    now: f64,
) -> Result<Verdicts, Error> {
    let (window, recorded) = (question.window, question.recorded);
    let ask = async |query: String| {
        let query = of(&query, &question.select, window);
        engine.at(&query, Some(now)).await
    };
    Ok(Verdicts {
        found: ask(verdict::FOUND.mean(window, recorded)).await?,
        now: ask(verdict::FOUND.now(recorded)).await?,
        tokens: ask(verdict::TOKENS.mean(window, recorded)).await?,
        time: ask(verdict::TIME.mean(window, recorded)).await?,
        not_judged: ask(verdict::NOT_JUDGED.mean(window, recorded)).await?,
    })
}

/// All measures over a span, piece by piece.
pub async fn over(
    engine: &impl Engine,
    question: &Question,
    span: Span,
) -> Result<Measured, Error> {
    let mut all = Measured::new();
    for (id, query) in queries(engine, question, span.step, span.end).await? {
        all.insert(id, engine.over(&query, span).await?);
    }
    Ok(all)
}
