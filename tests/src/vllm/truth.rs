//! What a session tells of a run, against what the reference counter inside it has recorded: row for row.
#![allow(
    clippy::float_cmp,
    reason = "both sides hold whole numbers, or the same text of a number"
)]

use std::collections::BTreeMap;

use super::Run;
use crate::{Row, Session};

/// Engine processes of the reference: pid and its schedule events, in order.
fn schedules(run: &Run) -> BTreeMap<u32, Vec<&serde_json::Value>> {
    let mut by_pid: BTreeMap<u32, Vec<_>> = BTreeMap::new();
    for (pid, event) in run.events("schedule") {
        by_pid.entry(pid).or_default().push(event);
    }
    by_pid
}

/// The rows of one process.
pub fn rows_of(rows: &[Row], pid: u32) -> Vec<&Row> {
    rows.iter()
        .filter(|row| row["pid"] == pid.to_string())
        .collect()
}

/// A number in a row.
pub fn number(row: &Row, column: &str) -> f64 {
    row[column]
        .parse()
        .unwrap_or_else(|_| panic!("column `{column}` is `{}` in {row:?}", row[column]))
}

/// Every step's tokens, sequences, running, waiting, usage and preempted ids equal the reference's. `from` is the
/// first reference step that must be there (0: all).
pub fn assert_steps_equal(run: &Run, session: &Session, attached_late: bool) -> usize {
    let batches = session.rows("batch_utilization");
    let usages = session.rows("kv_cache_usage");
    let mut compared = 0;
    for (pid, reference) in schedules(run) {
        let batches = rows_of(&batches, pid);
        let usages = rows_of(&usages, pid);
        assert_eq!(batches.len(), usages.len(), "one row each per step");
        let skip = if attached_late {
            reference.len() - batches.len()
        } else {
            0
        };
        assert_eq!(
            batches.len(),
            reference.len() - skip,
            "every step of engine {pid} is there"
        );
        for ((batch, usage), truth) in batches.iter().zip(&usages).zip(&reference[skip..]) {
            let of = |name: &str| {
                truth[name]
                    .as_f64()
                    .unwrap_or_else(|| panic!("{name} in {truth}"))
            };
            assert_eq!(
                number(batch, "num_tokens"),
                of("total_num_scheduled_tokens"),
                "{batch:?} {truth}"
            );
            assert_eq!(
                number(batch, "num_seqs"),
                of("n_sched_reqs"),
                "{batch:?} {truth}"
            );
            assert_eq!(
                number(batch, "running_queue_len"),
                of("running"),
                "{batch:?} {truth}"
            );
            assert_eq!(number(usage, "waiting"), of("waiting"), "{usage:?} {truth}");
            assert!(
                (number(usage, "usage_pct") / 100.0 - of("usage")).abs() < 1e-6,
                "{usage:?} {truth}"
            );
            assert_eq!(number(usage, "total_blocks"), of("num_gpu_blocks") - 1.0);
            compared += 1;
        }
    }
    assert!(compared > 0, "the reference saw steps");
    compared
}

/// Preempted ids, in order, equal the reference's.
pub fn assert_preemptions_equal(run: &Run, session: &Session) -> usize {
    let rows = session.rows("preemption_events");
    let seen: Vec<&str> = rows
        .iter()
        .filter(|row| row["event"] == "preempted")
        .map(|row| row["request_id"].as_str())
        .collect();
    let truth: Vec<&str> = run
        .events("preempt")
        .iter()
        .map(|(_, event)| event["req"].as_str().expect("a request id"))
        .collect();
    assert_eq!(seen, truth);
    let by_step: Vec<&str> = run
        .events("schedule")
        .iter()
        .flat_map(|(_, event)| event["preempted"].as_array().into_iter().flatten())
        .filter_map(|id| id.as_str())
        .collect();
    assert_eq!(by_step.len(), seen.len());
    for row in rows.iter().filter(|row| row["event"] == "preempted") {
        assert_eq!(row["reason"], "kv_blocks_exhausted", "{row:?}");
        assert!(number(row, "computed_tokens_lost") > 0.0, "{row:?}");
        assert!(!row["running_time_sec"].is_empty(), "{row:?}");
    }
    seen.len()
}

/// Evicted blocks, in order, and which of them are of the same block pool, equal the reference's. Gives how many there
/// were in each pool.
pub fn assert_evictions_equal(run: &Run, session: &Session) -> Vec<usize> {
    let rows = session.rows("kv_cache_evictions");
    let seen = rows.iter().map(|row| {
        let block: i64 = row["block_id"].parse().expect("a block");
        (block, row["pool"].clone())
    });
    let truth = run.events("evict").into_iter().map(|(pid, event)| {
        let block = event["block"].as_i64().expect("a block");
        (block, format!("{pid} {}", event["pool"]))
    });
    let (seen, pools) = by_pool(seen);
    assert_eq!(seen, by_pool(truth).0);
    pools
}

/// Blocks with their pools, numbered as they appear; and how many blocks there are in each.
fn by_pool(blocks: impl Iterator<Item = (i64, String)>) -> (Vec<(i64, usize)>, Vec<usize>) {
    let (mut names, mut counts, mut numbered) = (Vec::new(), Vec::new(), Vec::new());
    for (block, name) in blocks {
        let known = names.iter().position(|known| *known == name);
        let pool = known.unwrap_or_else(|| {
            names.push(name);
            counts.push(0);
            names.len() - 1
        });
        counts[pool] += 1;
        numbered.push((block, pool));
    }
    (numbered, counts)
}

/// Forward passes equal the reference's `execute_model` calls that had tokens.
pub fn assert_forwards_equal(run: &Run, session: &Session) {
    let rows = session.rows("forward_pass_timing");
    let mut truth: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for (pid, event) in run.events("execute_model") {
        let tokens = event["tokens"].as_f64().unwrap_or(0.0);
        if tokens > 0.0 {
            truth.entry(pid).or_default().push(tokens);
        }
    }
    assert!(!truth.is_empty());
    for (pid, tokens) in truth {
        let seen: Vec<f64> = rows_of(&rows, pid)
            .iter()
            .map(|row| number(row, "num_tokens"))
            .collect();
        assert_eq!(seen, tokens, "forward passes of worker {pid}");
        for row in rows_of(&rows, pid) {
            assert!(!row["step"].is_empty(), "joined to its step: {row:?}");
        }
    }
}
