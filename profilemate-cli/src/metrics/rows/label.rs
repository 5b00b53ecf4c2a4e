//! Values of labels, of which there are few.

use crate::event::Process;
use crate::table::AnyRow;
use crate::view::top::STAGES;

/// Largest padded batch size that has a label value of its own.
const LARGEST: u64 = 8_192;
/// What a label says where it was not seen.
pub(super) const UNKNOWN: &str = "unknown";

/// The process of a row that these numbers are made of.
pub(super) fn pid(row: &AnyRow) -> Option<u32> {
    Some(match row {
        AnyRow::BatchUse(row) => row.pid,
        AnyRow::KvCacheUse(row) => row.pid,
        AnyRow::KvCacheEviction(row) => row.pid,
        AnyRow::PreemptionEvent(row) => row.pid,
        AnyRow::RequestLifecycle(row) => row.pid,
        AnyRow::ForwardPass(row) => row.pid,
        AnyRow::CpuOperation(row) => row.pid,
        AnyRow::CudaGraphUse(row) => row.pid,
        _ => return None,
    })
}

/// The index of the engine that a process is or works for: its own, else that of the engine above it, else 0, as vLLM
/// calls the only one.
pub(super) fn engine_of(process: &Process, all: &[&Process]) -> String {
    let mut at = process;
    for _ in 0..8 {
        if let Some(index) = at.engine {
            return index.to_string();
        }
        match all.iter().find(|other| other.pid == at.parent) {
            Some(parent) => at = parent,
            None => break,
        }
    }
    "0".to_owned()
}

/// The stage of a step that an operation belongs to.
pub(super) fn stage(operation: &str) -> &'static str {
    STAGES
        .iter()
        .find(|(_, operations)| operations.contains(&operation))
        .map_or_else(
            || match operation {
                "execute_model" => "execute",
                "unattributed" => "unattributed",
                _ => "other",
            },
            |(name, _)| name,
        )
}

/// The label value of a padded batch size: the power of two at or above it.
pub(super) fn size(tokens: Option<u64>) -> String {
    match tokens {
        None => UNKNOWN.to_owned(),
        Some(tokens) if tokens > LARGEST => "larger".to_owned(),
        Some(tokens) => tokens.max(1).next_power_of_two().to_string(),
    }
}
