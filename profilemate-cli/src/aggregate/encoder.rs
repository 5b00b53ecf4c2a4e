//! Encoders, the decoders beside them, and the encoders' cache.

use super::operation::What;
use super::{Aggregator, Rows, Seen};
use crate::event::Outcome;
use crate::table::encoder_decoder_timing::EncoderCall;

impl Aggregator {
    /// `encoder.execute`: a row, unless there was nothing to encode.
    pub(super) fn encoder(&mut self, seen: Seen<'_>) {
        let items = seen.fields.int("items");
        if items == Some(0) || !matches!(seen.call.outcome, Outcome::Object(_)) {
            return;
        }
        let requests = seen.fields.int("requests");
        let context = requests.map(|requests| format!("requests={requests}"));
        let items = items.and_then(|items| u64::try_from(items).ok());
        let what = What::Encoder("encoder", context.unwrap_or_default(), items);
        self.operations.pend(seen, what);
    }

    /// `runner.model_forward`: the decoder of a model with an encoder. Whether it has one tells the forward pass around
    /// the call, which ends later; the next ones are known by it.
    pub(super) fn decoder(&mut self, seen: Seen<'_>) {
        let process = self.processes.get(seen.call.pid);
        if process.is_none_or(|process| process.multimodal != Some(false)) {
            self.operations.pend(seen, What::Decoder);
        }
    }

    /// `encoder.cross_attention`: one layer's.
    pub(super) fn cross_attention(&mut self, seen: Seen<'_>) {
        let tokens = seen.fields.int("tokens");
        let context = tokens.map(|tokens| format!("tokens={tokens}"));
        let what = What::Encoder("cross_attention", context.unwrap_or_default(), None);
        self.operations.pend(seen, what);
    }

    /// `encoder.cache_lookup` that returned `True`.
    pub(super) fn encoder_hit(&mut self, seen: Seen<'_>) {
        if seen.call.outcome != Outcome::True {
            return;
        }
        let context = match (seen.fields.text("request_id"), seen.fields.int("input_id")) {
            (Some(request), Some(input)) => format!("request={request} input={input}"),
            (Some(request), None) => format!("request={request}"),
            _ => String::new(),
        };
        self.operations
            .pend(seen, What::Encoder("encoder_cache_hit", context, Some(1)));
    }

    /// Entries that a schedule call took from the encoders' cache.
    pub(super) fn encoder_evictions(&mut self, seen: Seen<'_>, step: u64, rows: &mut Rows) {
        let evicted = seen.fields.int("encoder_evictions");
        let Some(evicted) = evicted.and_then(|evicted| u64::try_from(evicted).ok()) else {
            return;
        };
        if evicted == 0 {
            return;
        }
        let pid = seen.call.pid;
        rows.put(EncoderCall {
            timestamp_sec: self.stamp(seen.call.ts_ns),
            component: "encoder_cache_eviction",
            step: Some(step),
            num_items: Some(evicted),
            pid,
            rank: self.processes.rank(pid),
            ..EncoderCall::default()
        });
    }
}
