//! What is compared with what: the rows of a table that are alike.

use crate::table::AnyRow;
use crate::table::cuda_graph_usage::CudaGraphUse;
use crate::table::forward_pass_timing::ForwardPass;

/// The group of a row within its table, in words; empty where all rows are one group.
pub fn of(row: &AnyRow) -> String {
    match row {
        AnyRow::ForwardPass(row) => forward(row),
        AnyRow::CpuOperation(row) => row.operation.clone(),
        AnyRow::EncoderCall(row) => row.component.to_owned(),
        AnyRow::MethodCall(row) => row.method.clone(),
        AnyRow::BatchUse(row) => row.phase.unwrap_or_default().to_owned(),
        AnyRow::CudaGraphUse(row) => graph(row),
        AnyRow::CudaGraphReplay(row) => row.descriptor.clone().unwrap_or_default(),
        AnyRow::PreemptionEvent(row) => row.event.to_owned(),
        AnyRow::MoeExpertTime(row) => row
            .layer_idx
            .map(|layer| format!("layer {layer}"))
            .unwrap_or_default(),
        _ => String::new(),
    }
}

/// Batches of one size; those with prompts, which have all sizes, up to a power of two.
fn forward(row: &ForwardPass) -> String {
    let phase = row
        .phase
        .filter(|phase| !phase.is_empty())
        .unwrap_or("unknown phase");
    let mode = row.graph_mode.filter(|mode| !mode.is_empty());
    let mode = mode.map(|mode| format!(" {mode}")).unwrap_or_default();
    match (phase, row.batch_size, row.num_tokens) {
        ("decode", Some(seqs), Some(tokens)) => {
            format!("decode{mode}, {seqs} seqs, {tokens} tokens")
        }
        (phase, _, Some(tokens)) if tokens > 0 => {
            let most = u64::try_from(tokens)
                .unwrap_or(1)
                .checked_next_power_of_two();
            format!("{phase}{mode}, up to {} tokens", most.unwrap_or(u64::MAX))
        }
        (phase, ..) => format!("{phase}{mode}"),
    }
}

/// vLLM's batch descriptor.
fn graph(row: &CudaGraphUse) -> String {
    let number =
        |value: Option<u64>| value.map_or_else(|| "any".to_owned(), |value| value.to_string());
    let mut words = format!(
        "{}, {} tokens, {} requests",
        row.runtime_mode.unwrap_or("unknown mode"),
        number(row.num_tokens),
        number(row.num_reqs)
    );
    if row.uniform == Some(true) {
        words.push_str(", uniform");
    }
    if row.has_lora == Some(true) {
        words.push_str(", LoRA");
    }
    words
}
