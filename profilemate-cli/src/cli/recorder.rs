//! The flight recorder's options of `trace`, and `snapshot`.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;

use super::args::{self, Touch};
use super::exit::{Exit, Failure};
use super::print;
use crate::recorder::gate::Limits;
use crate::recorder::trigger::Trigger;
use crate::recorder::{self, Made, Report, signal, socket};
use crate::session::{self, Wanted};

/// Memory of the window, if it is not told.
const MEMORY: &str = "256M";

/// Options of a flight recorder.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Flight recorder")]
pub struct Recorder {
    /// Keep the last so much of what happens in memory, and write it as a session folder only when a traced process
    /// ends, at a --trigger, on SIGUSR1, or on `profilemate snapshot`.
    #[arg(long, value_name = "TIME", value_parser = args::duration)]
    pub continuous: Option<Duration>,
    /// Write it when this happens, such as `step_ms>200` or `preemption`. Repeatable; see below.
    #[arg(long, value_name = "TRIGGER", requires = "continuous", value_parser = trigger)]
    pub trigger: Vec<Trigger>,
    /// Go on for so long after a trigger before writing.
    #[arg(long, value_name = "TIME", requires = "continuous", default_value = "2s", value_parser = args::duration)]
    pub after: Option<Duration>,
    /// Memory that the window may take, such as `64M` or `2G`. What does not fit is dropped, the oldest first.
    #[arg(long, value_name = "SIZE", requires = "continuous", default_value = MEMORY, value_parser = memory)]
    pub continuous_memory: Option<u64>,
    /// Time from one triggered snapshot to the next.
    #[arg(long, value_name = "TIME", requires = "continuous", default_value = "1m", value_parser = args::duration)]
    pub cooldown: Option<Duration>,
    /// Folders that triggers may write in all. The last place is kept for the end of a process.
    #[arg(long, value_name = "COUNT", requires = "continuous", default_value = "20", value_parser = clap::value_parser!(u32).range(1..))]
    pub snapshots: Option<u32>,
    /// Bytes that all snapshots may take.
    #[arg(long, value_name = "SIZE", requires = "continuous", default_value = "4G", value_parser = args::size)]
    pub snapshot_bytes: Option<u64>,
}

/// Options of `snapshot`.
#[derive(Debug, Args)]
pub struct Snapshot {
    /// Process id of the recorder, or of a process that it records. Without it: the one recorder of this host.
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Option<u32>,
}

/// The triggers, for the help of `trace`.
pub(super) fn triggers() -> String {
    format!(
        "Triggers (`>`, `>=`, `<` and `<=`; a condition sets off when it begins to hold):\n{}",
        signal::list()
    )
}

fn trigger(text: &str) -> Result<Trigger, String> {
    text.parse()
        .map_err(|error: recorder::trigger::Error| error.to_string())
}

fn memory(text: &str) -> Result<u64, String> {
    let bytes = args::size(text)?;
    if bytes < 1 << 20 {
        return Err(format!("the window needs at least 1M, not {text}"));
    }
    Ok(bytes)
}

/// What the session is asked to record, if it is a flight recorder.
pub(super) fn options(
    recorder: &Recorder,
    output: &std::path::Path,
    wanted: &Wanted,
    touch: Touch,
    json: bool,
) -> Result<Option<recorder::Options>, Failure> {
    let Some(window) = recorder.continuous else {
        return Ok(None);
    };
    for trigger in &recorder.trigger {
        let table = trigger.signal.table;
        let told = session::options::DRIVER_TABLES.contains(&table);
        let why = if table.is_empty() {
            continue;
        } else if !wanted.table(table) {
            "which `--only` or `--without` leaves out"
        } else if touch == Touch::None && !told {
            "which `--touch none` cannot tell"
        } else {
            continue;
        };
        let error = anyhow::anyhow!("`{}` looks at the table {table}, {why}", trigger.text);
        return Err(Failure::new(Exit::Usage, error));
    }
    let missing = || Failure::new(Exit::Usage, anyhow::anyhow!("an option has no value"));
    Ok(Some(recorder::Options {
        window,
        memory: recorder.continuous_memory.ok_or_else(missing)? as usize,
        triggers: recorder.trigger.clone(),
        after: recorder.after.ok_or_else(missing)?,
        limits: Limits {
            cooldown: recorder.cooldown.ok_or_else(missing)?,
            folders: recorder.snapshots.ok_or_else(missing)?,
            bytes: recorder.snapshot_bytes.ok_or_else(missing)?,
        },
        output: output.to_owned(),
        announce: if json { announce_json } else { announce },
    }))
}

/// Tells the folder of a snapshot on stdout, what it is for on stderr.
fn announce(made: &Made) {
    if let Ok(folder) = &made.folder {
        print::note(&format!("snapshot ({}): {}", made.trigger, made.reason));
        print::data(&folder.display().to_string());
    }
}

/// Tells a snapshot as a JSON line.
fn announce_json(made: &Made) {
    print::data(&json(made).to_string());
}

fn json(made: &Made) -> serde_json::Value {
    serde_json::json!({
        "snapshot": made.folder.as_ref().ok(),
        "trigger": made.trigger,
        "reason": made.reason,
        "error": made.folder.as_ref().err(),
    })
}

/// What a recorder has done, as JSON.
pub(super) fn report_json(report: &Report) -> serde_json::Value {
    serde_json::json!({
        "snapshots": report.made.iter().map(json).collect::<Vec<_>>(),
        "suppressed": report.suppressed,
    })
}

/// What a recorder has done, in a line.
pub(super) fn report_text(report: &Report) -> String {
    let written = report
        .made
        .iter()
        .filter(|made| made.folder.is_ok())
        .count();
    let suppressed = report.suppressed;
    let mut text = format!("{written} snapshots were written");
    for (count, why) in [
        (suppressed.cooldown, "came too soon after the one before"),
        (suppressed.folders, "came after --snapshots of them"),
        (suppressed.bytes, "came after --snapshot-bytes of them"),
        (suppressed.failed, "could not be written"),
    ] {
        if count > 0 {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "; {count} {why}");
        }
    }
    text
}

/// `snapshot`: asks a recorder, and prints the folder.
pub(super) fn snapshot(options: &Snapshot) -> Result<Exit, Failure> {
    let failed = |error: socket::Error| {
        Failure::new(Exit::Forbidden, error)
            .hint("run as root, or as the user that the recorder runs as")
    };
    let mut recorders = socket::recorders().map_err(failed)?;
    if let Some(pid) = options.pid {
        recorders.retain(|(_, answer)| answer.tracer == pid || answer.pids.contains(&pid));
    }
    let socket = match recorders.as_slice() {
        [(socket, _)] => socket,
        [] => {
            let what = options.pid.map_or_else(
                || "no flight recorder runs on this host".to_owned(),
                |pid| format!("no flight recorder records process {pid}, or is it"),
            );
            return Err(Failure::new(Exit::NoTarget, anyhow::anyhow!(what))
                .hint("start one with `sudo profilemate trace --continuous 60s`"));
        }
        several => {
            let line = |(_, answer): &(_, socket::Answer)| {
                format!("\n  {} records {:?}", answer.tracer, answer.pids)
            };
            let list: String = several.iter().map(line).collect();
            let error = anyhow::anyhow!("several flight recorders run on this host:{list}");
            return Err(Failure::new(Exit::NoTarget, error).hint("choose with --pid"));
        }
    };
    let answer = socket::snapshot(socket).map_err(failed)?;
    match (answer.folder, answer.error) {
        (Some(folder), _) => {
            print::data(&folder.display().to_string());
            Ok(Exit::Done)
        }
        (None, reason) => {
            let reason = reason.unwrap_or_else(|| "the recorder gave no folder".to_owned());
            Err(Failure::new(Exit::Output, anyhow::anyhow!(reason)))
        }
    }
}
