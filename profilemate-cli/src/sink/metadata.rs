//! `metadata.json`: what the session was, and how far each table tells what happened.

use std::path::Path;

use profilemate_common::driver::Function;
use serde::Serialize;
use serde_json::{Value, json};

use super::watch::Losses;
use crate::aggregate::{Aggregator, coverage};
use crate::capture::decode;
use crate::event::{DriverLedger, Ledger};
use crate::table::TABLES;
use crate::table::cell::{Cell as _, Stamp};

/// Version of the session folder's shape.
pub const SCHEMA_VERSION: u32 = 1;

/// What the pipeline counted on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Records that arrived.
    pub received: u64,
    /// Of these, records of driver calls.
    pub received_driver: u64,
    /// Of these, records of calls that the pages' logs told.
    pub received_logged: u64,
    /// Records that user space had to drop.
    pub lost_userspace: u64,
    /// Records that came after a younger one had been used.
    pub late: u64,
    /// Frames that could not be decoded.
    pub decode_errors: decode::Errors,
}

/// What tracing cost, as the session measured it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Overhead {
    /// Processor time of the tracer.
    pub tracer_cpu_sec: Option<f64>,
    /// Largest resident memory of the tracer.
    pub tracer_rss_bytes: Option<u64>,
    /// Time for which the target's threads stood still at attach and detach, summed.
    pub target_stopped_ms: Option<f64>,
    /// Run time of the probe programs, as the kernel counts it.
    pub probe_run_ms: Option<f64>,
}

/// Records that did not arrive.
pub fn lost(aggregator: &Aggregator, counts: &Counts) -> u64 {
    let ledger = aggregator.facts().ledger.unwrap_or_default();
    ledger
        .lost
        .saturating_add(ledger.driver.lost)
        .saturating_add(ledger.log.lost)
        .saturating_add(counts.lost_userspace)
}

/// The same by where they were lost, and what could not be decoded.
pub fn losses(aggregator: &Aggregator, counts: &Counts) -> Losses {
    let ledger = aggregator.facts().ledger.unwrap_or_default();
    Losses {
        ring: ledger.lost,
        driver: ledger.driver.lost,
        log: ledger.log.lost,
        userspace: counts.lost_userspace,
        undecodable: counts.decode_errors.total(),
    }
}

/// The document.
pub fn json(
    folder: &Path,
    aggregator: &Aggregator,
    rows: &[u64],
    counts: &Counts,
    overhead: Option<Overhead>,
) -> Value {
    let session = aggregator.session();
    let facts = aggregator.facts();
    let ended = facts.ended.as_ref();
    json!({
        "schema_version": SCHEMA_VERSION,
        "session_id": session.id,
        "start_time": session.started_wall,
        "end_time": ended.map(|ended| &ended.wall),
        "end_reason": ended.map(|ended| &ended.reason),
        "duration_sec": ended.map(|ended| ended.at_ns.saturating_sub(session.started_ns) as f64 / 1e9),
        "output_dir": folder.display().to_string(),
        "command": session.command,
        "host": session.host,
        "kernel": session.kernel,
        "tool_version": session.tool,
        "anchor": { "monotonic_ns": session.started_ns, "wall": session.started_wall },
        "processes": processes(aggregator),
        "libraries": libraries(aggregator),
        "tables": tables(aggregator, rows, lost(aggregator, counts)),
        "events": {
            "received": counts.received,
            "lost_kernel": facts.ledger.map(|ledger| ledger.lost.saturating_add(ledger.driver.lost)),
            "lost_log": facts.ledger.map(|ledger| ledger.log.lost),
            "lost_userspace": counts.lost_userspace,
            "late": counts.late,
            "unnamed_calls": facts.unnamed_calls,
            "decode_errors": counts.decode_errors.total(),
            "decode_errors_by_kind": counts.decode_errors,
        },
        "ledger": facts.ledger.map(|ledger| ledger_json(ledger, aggregator, counts)),
        "overhead": overhead,
        "snapshot": facts.snapshot,
        "budget": budget(aggregator),
    })
}

/// What tracing cost each process as last measured, and what was shed for it; `null` without a budget.
fn budget(aggregator: &Aggregator) -> Value {
    let facts = aggregator.facts();
    if facts.costs.is_empty() && facts.shed.is_empty() {
        return Value::Null;
    }
    let started_ns = aggregator.session().started_ns;
    let seconds = |at_ns: u64| Stamp::new(at_ns, started_ns).number();
    let costs: Vec<_> = facts
        .costs
        .values()
        .map(|cost| {
            json!({
                "pid": cost.pid,
                "timestamp_sec": seconds(cost.at_ns),
                "over_ms": cost.over_ns as f64 / 1e6,
                "hits": cost.hits,
                "cost_ms": cost.cost_ns as f64 / 1e6,
                "of_ms": cost.base_ns as f64 / 1e6,
                "of": if cost.in_steps { "steps" } else { "all time" },
                "cost_pct": cost.percent(),
            })
        })
        .collect();
    let changes: Vec<_> = facts
        .shed
        .iter()
        .enumerate()
        .map(|(index, shed)| {
            json!({
                "timestamp_sec": seconds(shed.at_ns),
                "pid": shed.pid,
                "change": if shed.shed { "shed" } else { "recorded again" },
                "what": shed.rung,
                "methods": shed.methods,
                "tables": shed.tables,
                "cost_before_pct": shed.before_pct,
                "cost_after_pct": facts.after_shed.get(&index),
                "budget_pct": shed.budget_pct,
            })
        })
        .collect();
    json!({ "costs": costs, "changes": changes })
}

/// The kernel's counts beside those of the pages and of this side. A difference is not an error by itself: while the
/// session runs, some events are on their way.
fn ledger_json(ledger: Ledger, aggregator: &Aggregator, counts: &Counts) -> Value {
    let difference = |one: u64, other: u64| i128::from(one) - i128::from(other);
    let ended = ledger
        .submitted
        .saturating_add(ledger.lost)
        .saturating_add(ledger.filtered);
    let marks = aggregator.counters().marks();
    let received = counts
        .received
        .saturating_sub(counts.received_driver)
        .saturating_sub(counts.received_logged);
    let arrived = received.saturating_add(counts.lost_userspace);
    // Where a window begins and ends, events are on their way that the counts have or have not got.
    let whole = aggregator.facts().snapshot.is_none();
    json!({
        "page_marks": (marks >= ledger.fired).then_some(marks),
        "fired": ledger.fired,
        "submitted": ledger.submitted,
        "lost": ledger.lost,
        "filtered": ledger.filtered,
        "received": received,
        // A process that ended took its page along: what it counted last was not read.
        "marks_not_fired": marks.checked_sub(ledger.fired).filter(|_| whole),
        "fired_not_accounted": difference(ledger.fired, ended) as i64,
        "submitted_not_received": whole.then(|| difference(ledger.submitted, arrived) as i64),
        "log": {
            "read": ledger.log.read,
            "lost": ledger.log.lost,
            "received": counts.received_logged,
            "read_not_received": whole.then(|| difference(ledger.log.read, counts.received_logged) as i64),
        },
        "driver": driver_ledger(ledger.driver, counts),
    })
}

/// The driver probes' counts: `fired = submitted + lost + filtered + counted + unfinished`.
fn driver_ledger(ledger: DriverLedger, counts: &Counts) -> Value {
    let ended = ledger
        .submitted
        .saturating_add(ledger.lost)
        .saturating_add(ledger.filtered)
        .saturating_add(ledger.counted)
        .saturating_add(ledger.unfinished);
    json!({
        "fired": ledger.fired,
        "submitted": ledger.submitted,
        "lost": ledger.lost,
        "filtered": ledger.filtered,
        "counted": ledger.counted,
        "unfinished": ledger.unfinished,
        "received": counts.received_driver,
        "fired_not_accounted": (i128::from(ledger.fired) - i128::from(ended)) as i64,
    })
}

/// The CUDA libraries, with what is probed in them and how.
fn libraries(aggregator: &Aggregator) -> Vec<Value> {
    let name = |function| Function::from_number(function).map(Function::name);
    let facts = aggregator.facts();
    facts
        .libraries
        .values()
        .map(|library| {
            let sites: Vec<_> = library
                .sites
                .iter()
                .map(|site| {
                    json!({
                        "symbol": site.symbol,
                        "function": name(site.function),
                        "offset": site.offset,
                        "instruction": site.instruction,
                        "cost": site.cost,
                        "with_return": site.with_return,
                    })
                })
                .collect();
            let refused: Vec<_> = library
                .refused
                .iter()
                .map(|(symbol, reason)| json!({ "symbol": symbol, "reason": reason }))
                .collect();
            json!({
                "path": library.path,
                "build_id": library.build_id,
                "pids": library.pids,
                "sites": sites,
                "not_probed": refused,
            })
        })
        .collect()
}

fn processes(aggregator: &Aggregator) -> Vec<Value> {
    let all = aggregator.processes().all();
    all.map(|(process, ended)| {
        json!({
            "pid": process.pid,
            "parent": process.parent,
            "role": process.role,
            "engine": process.engine,
            "rank": process.rank,
            "title": process.title,
            "python": process.python,
            "vllm": process.vllm,
            "technique": process.technique,
            "reason": process.reason,
            "ended": ended.map(|(at_ns, reason)| json!({ "at_ns": at_ns, "reason": reason })),
        })
    })
    .collect()
}

fn tables(aggregator: &Aggregator, rows: &[u64], lost: u64) -> Value {
    let mut tables = serde_json::Map::new();
    for (table, &rows) in TABLES.iter().zip(rows) {
        let entry = json!({
            "file": format!("{}.csv", table.file),
            "rows": rows,
            "source": coverage::source(table.file),
            "coverage": aggregator.coverage(table.file, rows, lost),
        });
        tables.insert(table.file.to_owned(), entry);
    }
    Value::Object(tables)
}
