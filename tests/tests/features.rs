//! The real vLLM with features that a server may have (drafts, grammars, adapters, encoders, offloaded blocks, several
//! ranks and engines), against the reference counter inside it and vLLM's own counts.

use std::collections::{BTreeMap, BTreeSet};

use profilemate_tests::vllm::truth::{
    assert_evictions_equal, assert_forwards_equal, assert_preemptions_equal, assert_steps_equal,
    number, rows_of,
};
use profilemate_tests::vllm::{self, Run};
use profilemate_tests::{Row, Session, assert_ledger_exact};

/// What vLLM's CPU backend lacks for several ranks.
const CPU_GAPS: &str = "worker_extension_cls=\"cpu_gaps.CpuGaps\"";

/// A run of `features.py` or `driver.py`, of which everything that every run has is equal.
fn check(script: &str, arguments: &[&str]) -> Option<(Run, Session)> {
    if !vllm::is_current("these features are run with the current version") {
        return None;
    }
    let (run, session) = vllm::traced(&vllm::version(), script, arguments)?;
    assert_steps_equal(&run, &session, false);
    assert_preemptions_equal(&run, &session);
    assert_forwards_equal(&run, &session);
    assert_eq!(assert_ledger_exact(&session), 0);
    Some((run, session))
}

/// How often each operation was called in each process, of those that the reference counts.
fn assert_operations_equal(run: &Run, session: &Session, names: &[&str]) {
    let rows = session.rows("cpu_operations_timing");
    for name in names {
        let mut truth: BTreeMap<String, usize> = BTreeMap::new();
        for (pid, event) in run.events("operation") {
            if event["name"] == *name {
                *truth.entry(pid.to_string()).or_default() += 1;
            }
        }
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for row in rows.iter().filter(|row| row["operation"] == *name) {
            *seen.entry(row["pid"].clone()).or_default() += 1;
        }
        assert!(!truth.is_empty(), "{name} was called");
        assert_eq!(seen, truth, "{name}");
    }
}

fn coverage(session: &Session, table: &str) -> (String, String) {
    let coverage = &session.metadata["tables"][table]["coverage"];
    let text = |name: &str| coverage[name].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"))
}

fn assert_coverage(session: &Session, table: &str, status: &str, reason: &str) {
    let (is, why) = coverage(session, table);
    assert!(is == status && why.contains(reason), "{table}: {is}: {why}");
}

/// The numbers of some columns of every row.
fn numbers(rows: &[Row], columns: &[&str]) -> Vec<Vec<u64>> {
    let row = |row: &Row| -> Vec<u64> {
        let cell = |column: &&str| number(row, column) as u64;
        columns.iter().map(cell).collect()
    };
    rows.iter().map(row).collect()
}

/// Members of the reference's events of one kind.
fn members(run: &Run, kind: &str, names: &[&str]) -> Vec<Vec<u64>> {
    let member = |event: &serde_json::Value, name: &str| {
        let value = event[name].as_u64();
        value.unwrap_or_else(|| panic!("{name} in {event}"))
    };
    run.events(kind)
        .iter()
        .map(|(_, event)| names.iter().map(|name| member(event, name)).collect())
        .collect()
}

#[test]
fn drafts_grammars_and_adapters_equal_the_reference() {
    let arguments = [
        "--feature",
        "drafts",
        "--feature",
        "grammar",
        "--feature",
        "adapters",
        "--requests",
        "4",
        "--max-tokens",
        "24",
    ];
    let Some((run, session)) = check("features.py", &arguments) else {
        return;
    };
    assert_evictions_equal(&run, &session);
    let rows = session.rows("speculative_decoding");
    let columns = ["step", "num_drafts", "draft_tokens", "accepted_tokens"];
    let drafted = numbers(&rows, &columns);
    assert_eq!(
        drafted,
        members(&run, "drafts", &["step", "drafts", "tokens", "accepted"])
    );
    for (index, metric) in ["drafts", "draft_tokens", "accepted_tokens"]
        .iter()
        .enumerate()
    {
        let sum: u64 = drafted.iter().map(|row| row[index + 1]).sum();
        let own = &run.result[format!("spec_decode_num_{metric}")];
        assert_eq!(own.as_f64(), Some(sum as f64), "vLLM's own metric {metric}");
        assert!(sum > 0, "{metric}");
    }
    let names = [
        "grammar_bitmask",
        "set_active_loras",
        "propose_draft_token_ids",
    ];
    assert_operations_equal(&run, &session, &names);
    assert_coverage(&session, "speculative_decoding", "observed", "");
    assert_coverage(
        &session,
        "encoder_decoder_timing",
        "not_applicable",
        "no encoder",
    );
    assert_coverage(
        &session,
        "moe_expert_timing",
        "not_applicable",
        "no MoE layers",
    );
}

/// Rows of `encoder_decoder_timing` of one component.
fn component(session: &Session, name: &str) -> Vec<Row> {
    let rows = session.rows("encoder_decoder_timing").into_iter();
    rows.filter(|row| row["component"] == name).collect()
}

/// Encoders' calls with their items, decoders' and the cache's hits and evictions equal the reference's.
fn assert_encoders_equal(run: &Run, session: &Session) {
    let encoders = component(session, "encoder");
    let seen: Vec<(String, String)> = encoders
        .iter()
        .map(|row| (row["num_items"].clone(), row["context"].clone()))
        .collect();
    let truth: Vec<(String, String)> = run
        .events("encode")
        .iter()
        .map(|(_, event)| {
            (
                event["items"].to_string(),
                format!("requests={}", event["requests"]),
            )
        })
        .collect();
    assert!(!truth.is_empty(), "something was encoded");
    assert_eq!(seen, truth);
    let hits: Vec<String> = component(session, "encoder_cache_hit")
        .iter()
        .map(|row| row["context"].clone())
        .collect();
    let truth: Vec<String> = run
        .events("encoder_hit")
        .iter()
        .map(|(_, event)| {
            let request = event["req"].as_str().expect("a request id");
            format!("request={request} input={}", event["input"])
        })
        .collect();
    assert_eq!(hits, truth);
    let evictions = component(session, "encoder_cache_eviction");
    let freed = members(run, "schedule", &["step", "encoder_freed"]);
    let freed: Vec<Vec<u64>> = freed.into_iter().filter(|row| row[1] > 0).collect();
    assert_eq!(numbers(&evictions, &["step", "num_items"]), freed);
    let decoders = component(session, "decoder");
    assert_eq!(decoders.len(), session.rows("forward_pass_timing").len());
    for row in encoders.iter().chain(&decoders) {
        assert!(
            number(row, "duration_ms") > 0.0 && number(row, "step") > 0.0,
            "{row:?}"
        );
    }
    assert_coverage(session, "encoder_decoder_timing", "observed", "");
    assert_coverage(
        session,
        "speculative_decoding",
        "not_applicable",
        "speculative decoding is not configured",
    );
}

#[test]
fn images_and_the_cache_of_their_encoder_equal_the_reference() {
    let arguments = [
        "--feature",
        "images",
        "--requests",
        "12",
        "--max-tokens",
        "8",
        "--max-num-batched-tokens",
        "64",
        "--max-num-seqs",
        "4",
    ];
    let Some((run, session)) = check("features.py", &arguments) else {
        return;
    };
    assert_encoders_equal(&run, &session);
    let count = |name: &str| component(&session, name).len();
    assert!(count("encoder_cache_hit") > 0 && count("encoder_cache_eviction") > 0);
}

#[test]
fn speech_and_its_cross_attention_equal_the_reference() {
    let arguments = [
        "--feature",
        "speech",
        "--requests",
        "6",
        "--max-tokens",
        "8",
        "--max-model-len",
        "128",
    ];
    let Some((run, session)) = check("features.py", &arguments) else {
        return;
    };
    assert_encoders_equal(&run, &session);
    let seen: Vec<String> = component(&session, "cross_attention")
        .iter()
        .map(|row| row["context"].clone())
        .collect();
    let truth: Vec<String> = members(&run, "cross", &["tokens"])
        .iter()
        .map(|row| format!("tokens={}", row[0]))
        .collect();
    assert!(!truth.is_empty());
    assert_eq!(seen, truth);
}

#[test]
fn blocks_of_an_offload_tier_are_told_apart() {
    let arguments = [
        "--feature",
        "offload",
        "--requests",
        "12",
        "--max-tokens",
        "8",
        "--num-gpu-blocks",
        "20",
        "--max-num-seqs",
        "2",
    ];
    let Some((run, session)) = check("features.py", &arguments) else {
        return;
    };
    let pools = assert_evictions_equal(&run, &session);
    assert!(
        pools.len() == 2 && pools.iter().all(|&count| count > 0),
        "{pools:?}"
    );
    let hits = run.result["external_prefix_cache_hits"].as_f64();
    assert!(hits > Some(0.0), "blocks came back: {}", run.result);
}

#[test]
fn ranks_of_tensor_and_pipeline_parallel_workers_are_told_apart() {
    let arguments = [
        // Ranks wait for one another by spinning: on fewer processors than ranks each token takes seconds.
        "--requests",
        "2",
        "--max-tokens",
        "4",
        "--engine-arg",
        "tensor_parallel_size=2",
        "--engine-arg",
        "pipeline_parallel_size=2",
        "--engine-arg",
        CPU_GAPS,
    ];
    let Some((run, session)) = check("driver.py", &arguments) else {
        return;
    };
    let mut ranks = BTreeMap::new();
    for (pid, event) in run.events("execute_model") {
        ranks.insert(pid, event["rank"].to_string());
    }
    let distinct: BTreeSet<&String> = ranks.values().collect();
    assert_eq!((ranks.len(), distinct.len()), (4, 4), "{ranks:?}");
    for table in ["forward_pass_timing", "cpu_operations_timing"] {
        let rows = session.rows(table);
        for (pid, rank) in &ranks {
            let own = rows_of(&rows, *pid);
            assert!(!own.is_empty(), "{table} of worker {pid}");
            for row in own {
                // Titles do not tell it; until its first pass has ended nothing does.
                let unknown = row["rank"].is_empty() && row["step"].is_empty();
                assert!(unknown || &row["rank"] == rank, "{table}: {row:?}");
            }
        }
    }
}

#[test]
fn engines_of_a_data_parallel_server_are_told_apart() {
    let arguments = [
        "--serve",
        "--port",
        "0",
        "--model-kind",
        "moe",
        "--requests",
        "12",
        "--max-tokens",
        "8",
        "--engine-arg",
        "data_parallel_size=2",
        "--engine-arg",
        CPU_GAPS,
    ];
    let Some((run, session)) = check("driver.py", &arguments) else {
        return;
    };
    let mut engines = BTreeMap::new();
    for (pid, event) in run.events("schedule") {
        engines.insert(pid, event["engine"].to_string());
    }
    assert_eq!(engines.values().collect::<Vec<_>>().len(), 2, "{engines:?}");
    for table in ["batch_utilization", "kv_cache_usage", "preemption_events"] {
        for row in session.rows(table) {
            let pid: u32 = row["pid"].parse().expect("a pid");
            assert_eq!(Some(&row["engine"]), engines.get(&pid), "{table}: {row:?}");
        }
    }
    assert_operations_equal(&run, &session, &["dummy_batch", "data_parallel_wave"]);
}
