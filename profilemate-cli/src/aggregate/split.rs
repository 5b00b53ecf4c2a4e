//! Prefill and decode, as vLLM itself tells them apart.

use std::collections::{HashMap, HashSet};

use super::fields::Fields;

/// Tokens of a batch by phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Of requests that are new, resumed, or have generated nothing yet.
    pub prefill_tokens: i64,
    /// Of requests that generate.
    pub decode_tokens: i64,
}

impl Split {
    /// `prefill`, `decode` or `mixed`; `None` if there is no token.
    pub fn phase(self) -> Option<&'static str> {
        match (self.prefill_tokens > 0, self.decode_tokens > 0) {
            (true, true) => Some("mixed"),
            (true, false) => Some("prefill"),
            (false, true) => Some("decode"),
            (false, false) => None,
        }
    }

    /// Splits the batch that `fields` describe. `resumed` are the keys of resumed requests, `None` if they are not
    /// known. `None` if a collection is not whole, or they contradict one another.
    pub fn of(fields: Fields<'_>, resumed: Option<&HashSet<u64>>) -> Option<Self> {
        let scheduled = fields.pairs("scheduled")?;
        let new: HashSet<u64> = fields.addresses("new_keys")?.iter().copied().collect();
        let keys = fields.addresses("cached_keys")?;
        let outputs = fields.ints("cached_outputs")?;
        let resumed = resumed?;
        if keys.len() != outputs.len() {
            return None;
        }
        let cached: HashMap<u64, i64> = keys.iter().copied().zip(outputs.iter().copied()).collect();
        let mut split = Self::default();
        for &(key, tokens) in scheduled {
            let reads_prompt =
                new.contains(&key) || resumed.contains(&key) || *cached.get(&key)? == 0;
            let sum = if reads_prompt {
                &mut split.prefill_tokens
            } else {
                &mut split.decode_tokens
            };
            *sum = sum.checked_add(tokens).filter(|_| tokens >= 0)?;
        }
        match fields.int("tokens") {
            Some(tokens)
                if split.prefill_tokens.checked_add(split.decode_tokens) != Some(tokens) =>
            {
                None
            }
            _ => Some(split),
        }
    }
}
