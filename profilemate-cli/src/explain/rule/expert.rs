//! Mixture of experts: some are chosen much more often than others.

use super::{EXPERTS, Rule, limit};
use crate::explain::{Case, Change, Cost, Evidence, Found};

const BALANCE: &str = "--enable-eplb";
const PARALLEL: &str = "--enable-expert-parallel";

pub(super) const IMBALANCE: Rule = Rule {
    id: "expert_imbalance",
    doc: "Some experts are chosen much more often than others; with expert parallelism their ranks are waited for.",
    needs: &[EXPERTS],
    limits: &[
        limit("choices", 1_000.0, "choices of a layer that is looked at"),
        limit(
            "ratio",
            2.0,
            "choices of the hottest expert by those of the mean one, over all layers",
        ),
    ],
    options: &[BALANCE, PARALLEL],
    check: imbalance,
};

fn imbalance(case: &Case<'_>) -> Option<Found> {
    let experts = &case.facts.experts;
    let layers = experts.layers(case.limit("choices") as u64);
    let choices: f64 = layers.iter().map(|layer| layer.choices as f64).sum();
    let ratio = layers
        .iter()
        .map(|layer| layer.ratio * layer.choices as f64)
        .sum::<f64>()
        / choices;
    // Without a layer the ratio is no number, and no fault.
    if !matches!(ratio.partial_cmp(&case.limit("ratio")), Some(order) if order.is_ge()) {
        return None;
    }
    let worst = layers
        .iter()
        .max_by(|one, two| one.ratio.total_cmp(&two.ratio))?;
    let text = format!(
        "in layer {} expert {} is chosen {:.1} times as often as the mean of {} experts; over {} layers {ratio:.1} times",
        worst.layer,
        worst.hottest,
        worst.ratio,
        worst.experts,
        layers.len()
    );
    let (calls, ms) = &experts.calls;
    let cost = if calls.rows > 0 {
        let most = ms * (1.0 - 1.0 / ratio);
        Cost::milliseconds(
            most,
            format!(
                "at most, of {ms:.0} ms in expert layers, if each expert has a rank of its own"
            ),
        )
    } else {
        Cost::unknown("not measured: moe_expert_timing has no row")
    };
    Some(Found {
        title: format!(
            "Experts are uneven: the hottest is chosen {ratio:.1} times as often as the mean"
        ),
        evidence: vec![
            Evidence::new("moe_expert_selection", &experts.rows, text)
                .number("ratio", ratio)
                .number("worst_layer", worst.layer as f64)
                .number("worst_ratio", worst.ratio)
                .number("choices", choices),
        ],
        cost,
        changes: vec![
            Change::new(
                BALANCE,
                "copies hot experts and moves them between ranks while it runs",
            ),
            Change::new(PARALLEL, "needed for that"),
        ],
    })
}
