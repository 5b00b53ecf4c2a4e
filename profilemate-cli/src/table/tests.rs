//! The tables against the surface that people have notebooks over.

use super::*;

/// The compatibility surface: file, leading columns, appended columns.
const SURFACE: &[(&str, &str, &str)] = &[
    (
        "cuda_graph_captures",
        "runtime_mode, num_tokens, num_reqs, uniform, has_lora, capture_time_sec",
        "duration_ms, pid, rank, module, graph_exec, graphs_in_capture, outcome, throwaway, num_active_loras, uniform_token_count, max_query_len, \
         num_ubatches, descriptor_source",
    ),
    (
        "cuda_graph_usage",
        "runtime_mode, num_tokens, num_reqs, uniform, has_lora, replay_count",
        "padded_tokens, actual_tokens, padding_pct, launch_host_us_mean, launch_host_us_p99, first_sec, last_sec, pid, rank, launches, eager_passes, eager_reason, token_replays, num_active_loras, \
         uniform_token_count, max_query_len, num_ubatches, module, descriptor_source",
    ),
    (
        "kv_cache_usage",
        "timestamp_sec, usage_pct, num_blocks, total_blocks",
        "running, waiting, pid, engine",
    ),
    (
        "kv_cache_evictions",
        "timestamp_sec, lifetime_sec, idle_sec",
        "block_id, pid, engine, pool",
    ),
    (
        "moe_expert_selection",
        "layer_idx, expert_id, activation_count, percentage",
        "sampled_calls, pid, rank, calls, seen_pct, physical",
    ),
    (
        "moe_expert_timing",
        "timestamp_sec, layer_idx, duration_ms, num_tokens",
        "num_experts, top_k, pid, rank",
    ),
    (
        "forward_pass_timing",
        "timestamp_sec, phase, batch_size, num_tokens, forward_time_ms, throughput_tokens_per_sec",
        "step, graph_mode, graph_launches, sync_wait_ms, gpu_time_ms, gpu_time_source, pid, rank, kernels, eager_reason",
    ),
    (
        "cpu_operations_timing",
        "timestamp_sec, operation, duration_ms, context",
        "step, pid, rank, self_ms",
    ),
    (
        "batch_utilization",
        "timestamp_sec, num_seqs, max_num_seqs, seq_utilization_pct, num_tokens, max_tokens, token_utilization_pct, phase, running_queue_len, waiting_queue_len",
        "step, prefill_tokens, decode_tokens, schedule_ms, pid, engine",
    ),
    (
        "preemption_events",
        "timestamp_sec, request_id, event, reason, running_time_sec, extra_info",
        "step, kv_usage_pct, computed_tokens_lost, pid, engine",
    ),
    (
        "encoder_decoder_timing",
        "timestamp_sec, component, duration_ms, context",
        "step, num_items, pid, rank",
    ),
    (
        "cuda_graph_timeline",
        "timestamp_sec, descriptor, duration_ms",
        "launches, num_tokens, pid, rank",
    ),
    (
        "request_lifecycle",
        "request_id, started_sec, preempted_sec, resumed_sec, finished_sec, total_time_sec, preemption_delay_sec",
        "preemptions, pid, engine, prefill_time_sec, time_per_output_token_sec",
    ),
    (
        "moe_expert_coselection",
        "layer_idx, expert_id_1, expert_id_2, coselection_count",
        "pid, rank",
    ),
    (
        "moe_load_imbalance",
        "layer_idx, timestamp_sec, std_dev, max_min_ratio",
        "choices, pid, rank",
    ),
    (
        "speculative_decoding",
        "timestamp_sec, step, num_drafts, draft_tokens, accepted_tokens, acceptance_pct",
        "pid, engine",
    ),
    (
        "methods",
        "timestamp_sec, method, duration_ms, outcome, pid, tid, fields",
        "",
    ),
];

#[test]
fn the_compatibility_surface_holds() {
    let declared: Vec<(String, String)> = TABLES
        .iter()
        .map(|table| {
            let names: Vec<_> = table.columns.iter().map(|column| column.name).collect();
            (table.file.to_owned(), names.join(", "))
        })
        .collect();
    let expected: Vec<(String, String)> = SURFACE
        .iter()
        .map(|(file, leading, appended)| {
            let all = if appended.is_empty() {
                (*leading).to_owned()
            } else {
                format!("{leading}, {appended}")
            };
            ((*file).to_owned(), all)
        })
        .collect();
    assert_eq!(declared, expected);
}

#[test]
fn a_row_has_one_cell_for_each_column_and_knows_its_table() {
    let row = AnyRow::from(batch_utilization::BatchUse::default());
    let mut cells = 0;
    row.cells(&mut |_| cells += 1);
    let table = TABLES[row.table()];
    assert_eq!(table.file, "batch_utilization");
    assert_eq!(cells, table.columns.len());
}

#[test]
fn every_table_and_column_is_documented() {
    for table in TABLES {
        assert!(!table.doc.trim().is_empty(), "{}", table.file);
        for column in table.columns {
            assert!(
                !column.doc.trim().is_empty(),
                "{}.{}",
                table.file,
                column.name
            );
        }
    }
}
