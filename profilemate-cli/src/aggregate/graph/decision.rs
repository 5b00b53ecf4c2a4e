//! What vLLM decided for a batch: which graph, or none and why.

use super::descriptor::{Descriptor, Mode};
use crate::aggregate::fields::Fields;

/// A decision of a dispatcher.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// Number of the decision, from 1; unique in a session.
    pub serial: u64,
    /// The dispatcher's identity.
    pub manager: Option<u64>,
    /// What was decided.
    pub descriptor: Descriptor,
    /// Tokens of the batch, without padding.
    pub batch_tokens: Option<u64>,
    /// Without a graph: why, as its inputs show.
    pub reason: Option<&'static str>,
    /// When it was made, `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// Graphs launched since.
    pub launches: u64,
    /// The mode that graphs are configured with is `NONE`.
    pub disabled: bool,
    /// It may be the second one for a batch.
    pub repeats: bool,
}

impl Decision {
    /// The decision that a call's fields tell of; `None` if they tell nothing.
    pub fn of(fields: Fields<'_>, at_ns: u64) -> Option<Self> {
        let descriptor = Descriptor::of(fields)?;
        let number = |name: &str| fields.int(name).and_then(|value| u64::try_from(value).ok());
        let manager = fields.address("manager");
        let eager = descriptor.mode == Some(Mode::None);
        Some(Self {
            manager,
            batch_tokens: number("batch_tokens"),
            reason: eager.then(|| reason(fields)).flatten(),
            disabled: fields.text("config_mode") == Some("NONE"),
            repeats: repeats(fields),
            descriptor,
            at_ns,
            ..Self::default()
        })
    }

    /// Whether this and `before` are of the same batch.
    pub fn is_of_batch_of(&self, before: &Self) -> bool {
        let one = self.manager.is_some() && self.manager == before.manager;
        one && self.repeats && before.launches == 0
    }

    /// Takes the place of `before`, which the same dispatcher had made for the same batch: with data parallelism, it
    /// is asked again with the size that all ranks agreed on.
    pub fn again(&mut self, before: &Self) {
        self.batch_tokens = match (self.batch_tokens, before.batch_tokens) {
            (Some(now), Some(before)) => Some(now.min(before)),
            (now, before) => now.or(before),
        };
    }
}

/// Whether the call may ask a second time for one batch. The first model runner then says which modes are left; the
/// second one asks in the same way, and once for each batch otherwise.
fn repeats(fields: Fields<'_>) -> bool {
    match fields.value("valid_modes") {
        Some(_) => fields
            .texts("valid_modes")
            .is_some_and(|modes| !modes.is_empty()),
        None => fields.value("d_uniform_tokens").is_some(),
    }
}

/// Why no graph was chosen. What the dispatcher was asked and what it holds show it, in the order in which it asks
/// itself.
fn reason(fields: Fields<'_>) -> Option<&'static str> {
    let flag = |name: &str| fields.int(name).map(|value| value != 0);
    let config = fields.text("config_mode")?;
    if config == "NONE" {
        return Some("graphs_disabled");
    }
    if flag("ready") == Some(false) {
        return Some("not_captured_yet");
    }
    if let (Some(tokens), Some(largest)) = (fields.int("batch_tokens"), fields.int("largest"))
        && tokens > largest
    {
        return Some("above_largest_captured");
    }
    let valid = fields.texts("valid_modes").unwrap_or_default();
    if !valid.is_empty() && valid.iter().all(|mode| mode == "NONE") {
        return Some("forced_eager");
    }
    let excluded = fields
        .texts("invalid_modes")
        .unwrap_or_default()
        .iter()
        .any(|mode| mode == "FULL");
    let decode_only = config == "FULL_DECODE_ONLY";
    let uniform = match fields.value("batch_uniform_tokens") {
        Some(crate::event::Value::None) => Some(false),
        Some(crate::event::Value::Int(_)) => Some(true),
        _ => flag("batch_uniform"),
    };
    if decode_only && uniform == Some(false) {
        return Some("not_a_uniform_decode");
    }
    if excluded || flag("no_full") == Some(true) {
        return Some("full_graphs_excluded");
    }
    let lora = flag("batch_lora").or(fields.int("batch_loras").map(|loras| loras > 0));
    if lora == Some(true) {
        return Some("lora");
    }
    Some("no_matching_graph")
}
