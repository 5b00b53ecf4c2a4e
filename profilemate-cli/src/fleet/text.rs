//! A fleet for the person at the terminal.

use std::fmt::{Result, Write as _};

use super::change::{Change, Changed, ModelChange};
use super::diagnose::{Diagnosis, Finding, InWhat, Unlike};
use super::inventory::{Agent, Fleet, Server};
use super::measure::{
    GRAPHS, KV, LOST, OVERHEAD, PREEMPTIONS, RUNNING, STEP, TOKENS, Unit, WAITING,
};
use super::rule::Fault;

/// Servers of a fault that are named one by one.
const NAMED: usize = 5;

/// A value in its unit.
pub fn value(value: f64, unit: Unit) -> String {
    let figure = |value: f64| {
        let size = value.abs();
        if size == 0.0 || size >= 100.0 {
            format!("{value:.0}")
        } else if size >= 10.0 {
            format!("{value:.1}")
        } else {
            format!("{value:.2}")
        }
    };
    match unit {
        Unit::Count => figure(value),
        Unit::PerSecond => format!("{}/s", figure(value)),
        Unit::Seconds => format!("{} ms", figure(1e3 * value)),
        Unit::Ratio => format!("{} %", figure(100.0 * value)),
    }
}

/// Why an agent is not well, in words.
pub fn trouble(agent: &Agent) -> String {
    let mut words = Vec::new();
    match (agent.last, agent.reached) {
        (None, _) => words.push("never told anything".to_owned()),
        (Some(state), _) if !matches!(state, super::inventory::State::Telling { .. }) => {
            words.push(state.words());
        }
        _ => {}
    }
    if agent.reached == Some(false) {
        words.push("the engine does not reach it".to_owned());
    }
    for (reason, count) in &agent.failures {
        words.push(format!("{count:.0} failed attaches ({reason})"));
    }
    words.join(", ")
}

/// Columns with their widths; the last is not padded.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let space = if column == 0 { "" } else { "  " };
            // Writing to a `String` cannot fail.
            let _ = write!(line, "{space}{cell:<0$}", widths[column]);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// The columns of `status` that are measured.
const COLUMNS: [(&str, &str, Unit); 9] = [
    ("tokens/s", TOKENS, Unit::Count),
    ("step", STEP, Unit::Seconds),
    ("run", RUNNING, Unit::Count),
    ("wait", WAITING, Unit::Count),
    ("kv", KV, Unit::Ratio),
    ("graphs", GRAPHS, Unit::Ratio),
    ("preempt", PREEMPTIONS, Unit::PerSecond),
    ("cost", OVERHEAD, Unit::Ratio),
    ("lost", LOST, Unit::PerSecond),
];

/// `fleet status`.
pub fn status(fleet: &Fleet) -> String {
    let mut rows = vec![
        ["server", "agent", "model", "vLLM"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows[0].extend(COLUMNS.iter().map(|column| column.0.to_owned()));
    rows[0].push("state".to_owned());
    rows.extend(fleet.servers.iter().map(row));
    let mut out = table(&rows);
    let telling = fleet.servers.iter().filter(|one| one.state.tells()).count();
    let well = fleet.agents.iter().filter(|agent| agent.is_well()).count();
    // Writing to a `String` cannot fail.
    let _ = writeln!(
        out,
        "\n{telling} of {} servers tell; {well} of {} agents are well",
        fleet.servers.len(),
        fleet.agents.len()
    );
    for agent in fleet.agents.iter().filter(|agent| !agent.is_well()) {
        let _ = writeln!(out, "  agent {}: {}", agent.instance, trouble(agent));
    }
    notes(&mut out, &fleet.notes);
    trimmed(out)
}

fn row(server: &Server) -> Vec<String> {
    let or_dash = |text: &str| if text.is_empty() { "-" } else { text }.to_owned();
    let mut cells: Vec<String> = [
        &server.server,
        &server.instance,
        &server.model,
        &server.version,
    ]
    .map(|text| or_dash(text))
    .to_vec();
    for (_, id, unit) in COLUMNS {
        let told = server.values.get(id).map(|one| value(*one, unit));
        cells.push(told.unwrap_or_else(|| "-".to_owned()));
    }
    cells.push(match server.attached {
        Some(false) if server.state.tells() => "not attached".to_owned(),
        _ => server.state.words(),
    });
    cells
}

fn notes(out: &mut String, notes: &[String]) {
    for note in notes {
        // Writing to a `String` cannot fail.
        let _ = writeln!(out, "note: {note}");
    }
}

fn trimmed(mut out: String) -> String {
    out.truncate(out.trim_end().len());
    out
}

/// `fleet diagnose`.
pub fn diagnosis(diagnosis: &Diagnosis) -> String {
    let mut out = String::new();
    // Writing to a `String` cannot fail.
    let _ = write_diagnosis(&mut out, diagnosis);
    trimmed(out)
}

fn write_diagnosis(out: &mut String, diagnosis: &Diagnosis) -> Result {
    for (index, finding) in diagnosis.findings.iter().enumerate() {
        match finding {
            Finding::Peer(unlike) => peer(out, index + 1, unlike)?,
            Finding::Rule(fault) => rule(out, index + 1, fault)?,
        }
        writeln!(out)?;
    }
    let (judged, minutes) = (diagnosis.judged, diagnosis.window_sec / 60.0);
    if diagnosis.findings.is_empty() && judged > 0 {
        writeln!(
            out,
            "nothing differs by more than noise, and no fault was seen"
        )?;
    }
    writeln!(
        out,
        "looked at {judged} servers over {minutes:.1} minutes in {} pieces",
        diagnosis.pieces
    )?;
    if !diagnosis.alone.is_empty() {
        writeln!(out, "without their like: {}", diagnosis.alone.join(", "))?;
    }
    for (server, why) in &diagnosis.not_judged {
        writeln!(out, "not judged: {server}: {why}")?;
    }
    for (agent, why) in &diagnosis.agents {
        writeln!(out, "agent {agent}: {why}")?;
    }
    rules(out, diagnosis)?;
    notes(out, &diagnosis.notes);
    Ok(())
}

/// What rules did not find, and what they could not judge.
fn rules(out: &mut String, diagnosis: &Diagnosis) -> Result {
    let well = diagnosis.rules_nothing_wrong.iter();
    let well: Vec<String> = well
        .map(|(rule, servers)| format!("{rule} ({servers})"))
        .collect();
    if !well.is_empty() {
        writeln!(
            out,
            "looked for and not seen, on so many servers: {}",
            well.join(", ")
        )?;
    }
    for one in &diagnosis.rules_not_judged {
        let servers = one.servers.len();
        writeln!(
            out,
            "not judged on {servers} servers: {}: {}",
            one.rule, one.reason
        )?;
    }
    if !diagnosis.rules_untold.is_empty() {
        let servers = some(&diagnosis.rules_untold);
        writeln!(
            out,
            "no rule is told of: {servers} (an older agent, or its first window of rows is not over)"
        )?;
    }
    Ok(())
}

/// The first few names.
fn some(names: &[String]) -> String {
    let first: Vec<&str> = names.iter().take(NAMED).map(String::as_str).collect();
    let more = names.len().saturating_sub(NAMED);
    let first = first.join(", ");
    if more > 0 {
        format!("{first} and {more} more")
    } else {
        first
    }
}

fn peer(out: &mut String, number: usize, unlike: &Unlike) -> Result {
    write!(out, "{number}. {}", unlike.server)?;
    if let Some(engine) = &unlike.engine {
        write!(out, ", engine {engine}")?;
    }
    if let Some(rank) = &unlike.rank {
        write!(out, ", rank {rank}")?;
    }
    let peers = unlike.differs.first().map_or(0, |one| one.numbers.peers);
    writeln!(out, " differs from {peers} {}", unlike.like)?;
    writeln!(out, "   kind    {}", unlike.group)?;
    for one in &unlike.differs {
        writeln!(out, "   seen    {}", seen(one))?;
    }
    if unlike.one_peer {
        writeln!(
            out,
            "           only two are alike: which of both is off, metrics cannot tell"
        )?;
    }
    match unlike.lost_tokens_per_sec {
        Some(lost) => writeln!(out, "   costs   {lost:.0} {}", unlike.cost),
        None => writeln!(out, "   costs   {}", unlike.cost),
    }
}

fn seen(one: &InWhat) -> String {
    let numbers = &one.numbers;
    let mut text = format!(
        "{}: {}, others {}",
        one.title,
        value(numbers.value, one.unit),
        value(numbers.peers_value, one.unit)
    );
    if numbers.peers_value != 0.0 {
        let part = 100.0 * numbers.difference / numbers.peers_value.abs();
        // Writing to a `String` cannot fail.
        let _ = write!(text, " ({part:+.0} %)");
    }
    let noise = match numbers.spread_of_peers {
        Some(spread) => spread.max(numbers.noise_over_time),
        None => numbers.noise_over_time,
    };
    let same = (numbers.same_side * numbers.pieces as f64).round();
    // Writing to a `String` cannot fail.
    let _ = write!(
        text,
        "; noise {}; in {same:.0} of {} pieces",
        value(noise, one.unit),
        numbers.pieces
    );
    if let Some(given) = one.follows_from.and_then(super::measure::by_id) {
        let _ = write!(text, "; its {} differ too", given.title);
    }
    text
}

fn rule(out: &mut String, number: usize, fault: &Fault) -> Result {
    writeln!(out, "{number}. {} [{}]", fault.title, fault.rule)?;
    writeln!(
        out,
        "   on      {} of {} servers",
        fault.servers.len(),
        fault.judged
    )?;
    for sick in fault.servers.iter().take(NAMED) {
        let (share, now) = (100.0 * sick.share, if sick.now { "" } else { ", not now" });
        let lost = lost(sick.lost_tokens_per_sec, sick.lost_sec_per_sec);
        let lost = lost.map_or_else(String::new, |lost| format!(": {lost}"));
        writeln!(
            out,
            "   seen    {} ({}) for {share:.0} % of the time{now}{lost}",
            sick.server, sick.group
        )?;
    }
    if fault.servers.len() > NAMED {
        writeln!(out, "           and {} more", fault.servers.len() - NAMED)?;
    }
    let lost = lost(fault.lost_tokens_per_sec, fault.lost_sec_per_sec);
    let unknown = "not told; `explain` of a trace has the evidence";
    writeln!(out, "   costs   {}", lost.as_deref().unwrap_or(unknown))?;
    if !fault.options.is_empty() {
        writeln!(out, "   change  {}", fault.options.join(", "))?;
    }
    Ok(())
}

/// What is lost, in words.
fn lost(tokens: Option<f64>, time: Option<f64>) -> Option<String> {
    let tokens = tokens.map(|lost| format!("{lost:.0} tokens/s"));
    let time = time.map(|lost| format!("{lost:.2} s each second"));
    match (tokens, time) {
        (Some(tokens), Some(time)) => Some(format!("{tokens} ({time})")),
        (tokens, time) => tokens.or(time),
    }
}

/// `fleet diff`.
pub fn change(change: &Change) -> String {
    let mut out = String::new();
    // Writing to a `String` cannot fail.
    let _ = write_change(&mut out, change);
    trimmed(out)
}

fn write_change(out: &mut String, change: &Change) -> Result {
    let at = |seconds: f64| {
        jiff::Timestamp::from_millisecond((seconds * 1e3) as i64)
            .map_or_else(|_error| format!("{seconds}"), |at| format!("{at:.0}"))
    };
    writeln!(
        out,
        "{:.1} minutes until {}, and until {}",
        change.window_sec / 60.0,
        at(change.at[0]),
        at(change.at[1])
    )?;
    for (what, servers) in [("came", &change.came), ("went", &change.went)] {
        if !servers.is_empty() {
            writeln!(out, "{what}: {}", servers.join(", "))?;
        }
    }
    for (server, [was, is]) in &change.replaced {
        writeln!(out, "replaced: {server}: {was}; now {is}")?;
    }
    for model in &change.models {
        writeln!(out)?;
        write_model(out, model)?;
    }
    if change.models.is_empty() {
        writeln!(out, "no model has servers at both times")?;
    }
    notes(out, &change.notes);
    Ok(())
}

fn write_model(out: &mut String, model: &ModelChange) -> Result {
    let versions = |all: &std::collections::BTreeMap<String, usize>| {
        let one = all.iter().map(|(version, count)| {
            let version = if version.is_empty() { "?" } else { version };
            format!("{count} with vLLM {version}")
        });
        one.collect::<Vec<_>>().join(", ")
    };
    let (before, after) = (
        versions(&model.versions_before),
        versions(&model.versions_after),
    );
    let name = if model.model.is_empty() {
        "unknown model"
    } else {
        &model.model
    };
    if before == after {
        writeln!(out, "{name}: {before}")?;
    } else {
        writeln!(out, "{name}: {before}; now {after}")?;
    }
    let rows: Vec<Vec<String>> = model.changed.iter().map(changed).collect();
    out.push_str(&table(&rows));
    if model.changed.is_empty() {
        writeln!(out, "  nothing differs by more than noise")?;
    }
    if !model.same.is_empty() {
        writeln!(out, "  within noise: {}", model.same.join(", "))?;
    }
    if !model.not_compared.is_empty() {
        writeln!(out, "  too few values: {}", model.not_compared.join(", "))?;
    }
    Ok(())
}

fn changed(one: &Changed) -> Vec<String> {
    let [low, high] = one.interval;
    let judged = match one.better {
        Some(true) => "better",
        Some(false) => "worse",
        None => "",
    };
    vec![
        format!("  {}", one.title),
        value(one.before, one.unit),
        format!("-> {}", value(one.after, one.unit)),
        format!("{} to {}", value(low, one.unit), value(high, one.unit)),
        judged.to_owned(),
    ]
}
