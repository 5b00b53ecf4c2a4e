//! Which batches a graph serves: vLLM's batch descriptor, in all its forms.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::aggregate::fields::Fields;
use crate::event::Value;

/// vLLM's runtime mode of one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Mode {
    /// No graph.
    None,
    /// A graph for each piece of the model between two attention layers.
    Piecewise,
    /// One graph for the model.
    Full,
}

impl Mode {
    /// The mode with this name in `CUDAGraphMode`.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "NONE" => Some(Self::None),
            "PIECEWISE" => Some(Self::Piecewise),
            "FULL" => Some(Self::Full),
            _ => None,
        }
    }

    /// The mode with this value in `CUDAGraphMode`.
    pub fn of_value(value: i64) -> Option<Self> {
        match value {
            0 => Some(Self::None),
            1 => Some(Self::Piecewise),
            2 => Some(Self::Full),
            _ => None,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Piecewise => "PIECEWISE",
            Self::Full => "FULL",
        }
    }
}

/// A graph's mode and the batches that it serves. What vLLM leaves open, or what was not read, is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Descriptor {
    /// Runtime mode.
    pub mode: Option<Mode>,
    /// Tokens, padding included.
    pub tokens: Option<u64>,
    /// Requests, padding included.
    pub reqs: Option<u64>,
    /// Whether all requests have the same number of tokens.
    pub uniform: Option<bool>,
    /// Whether `LoRA` kernels run.
    pub has_lora: Option<bool>,
    /// `LoRA` adapters that it serves.
    pub active_loras: Option<u64>,
    /// Tokens of each request, where all have the same.
    pub uniform_tokens: Option<u64>,
    /// Most tokens of one request.
    pub max_query_len: Option<u64>,
    /// Microbatches.
    pub ubatches: Option<u64>,
    /// Part of the model, if it is not the language model as a whole.
    #[serde(with = "crate::aggregate::word")]
    pub part: crate::aggregate::word::Word,
}

impl Descriptor {
    /// The descriptor that a call's `mode` and `d_*` fields give; `None` if they give nothing.
    pub fn of(fields: Fields<'_>) -> Option<Self> {
        let number = |name: &str| fields.int(name).and_then(|value| u64::try_from(value).ok());
        let flag = |name: &str| fields.int(name).map(|value| value != 0);
        let uniform_tokens = number("d_uniform_tokens");
        let uniform_known = matches!(
            fields.value("d_uniform_tokens"),
            Some(Value::Int(_) | Value::None)
        );
        let active_loras = number("d_loras");
        let descriptor = Self {
            // A method tells the name, a frame the value.
            mode: match fields.int("mode") {
                Some(value) => Mode::of_value(value),
                None => fields.text("mode").and_then(Mode::of),
            },
            tokens: number("d_tokens"),
            reqs: number("d_reqs"),
            uniform: flag("d_uniform").or(uniform_known.then_some(uniform_tokens.is_some())),
            has_lora: flag("d_lora").or(active_loras.map(|loras| loras > 0)),
            active_loras,
            uniform_tokens,
            max_query_len: number("d_query_len"),
            ubatches: number("d_ubatches"),
            part: None,
        };
        (descriptor != Self::default()).then_some(descriptor)
    }

    /// Whether both can be of the same graph: equal where both are known, and mode and tokens are not both unknown.
    pub fn fits(&self, other: &Self) -> bool {
        fn agree<T: PartialEq + Copy>(one: Option<T>, other: Option<T>) -> bool {
            one.is_none() || other.is_none() || one == other
        }
        self.part == other.part
            && (self.tokens.is_some() && self.tokens == other.tokens)
            && agree(self.mode, other.mode)
            && agree(self.reqs, other.reqs)
            && agree(self.uniform, other.uniform)
            && agree(self.has_lora, other.has_lora)
            && agree(self.active_loras, other.active_loras)
            && agree(self.uniform_tokens, other.uniform_tokens)
            && agree(self.max_query_len, other.max_query_len)
            && agree(self.ubatches, other.ubatches)
    }

    /// This, with what only `other` knows.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        Self {
            mode: self.mode.or(other.mode),
            tokens: self.tokens.or(other.tokens),
            reqs: self.reqs.or(other.reqs),
            uniform: self.uniform.or(other.uniform),
            has_lora: self.has_lora.or(other.has_lora),
            active_loras: self.active_loras.or(other.active_loras),
            uniform_tokens: self.uniform_tokens.or(other.uniform_tokens),
            max_query_len: self.max_query_len.or(other.max_query_len),
            ubatches: self.ubatches.or(other.ubatches),
            part: self.part.or(other.part),
        }
    }

    /// In one cell: `FULL tokens=8 reqs=8 uniform`.
    pub fn text(&self) -> String {
        let mut text = self
            .part
            .or(self.mode.map(Mode::name))
            .unwrap_or("unknown")
            .to_owned();
        let numbers = [
            ("tokens", self.tokens),
            ("reqs", self.reqs),
            ("uniform_tokens", self.uniform_tokens),
            ("loras", self.active_loras.filter(|loras| *loras > 0)),
            ("max_query_len", self.max_query_len),
            ("ubatches", self.ubatches.filter(|ubatches| *ubatches != 1)),
        ];
        for (name, value) in numbers {
            if let Some(value) = value {
                // Writing to a `String` cannot fail.
                let _ = write!(text, " {name}={value}");
            }
        }
        for (name, flag) in [("uniform", self.uniform), ("lora", self.has_lora)] {
            if flag == Some(true) {
                text.push(' ');
                text.push_str(name);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(tokens: u64) -> Descriptor {
        Descriptor {
            mode: Some(Mode::Full),
            tokens: Some(tokens),
            ..Descriptor::default()
        }
    }

    #[test]
    fn a_partly_known_descriptor_fits_and_is_completed() {
        let hint = Descriptor {
            tokens: Some(8),
            reqs: Some(8),
            ..Descriptor::default()
        };
        let whole = Descriptor {
            reqs: Some(8),
            uniform: Some(true),
            ..full(8)
        };
        assert!(hint.fits(&whole) && whole.fits(&hint));
        assert_eq!(hint.clone().or(&whole), whole);
        assert!(!hint.fits(&full(16)));
        assert!(!Descriptor::default().fits(&full(16)), "nothing is known");
        let encoder = Descriptor {
            part: Some("encoder"),
            ..hint
        };
        assert!(!encoder.fits(&whole));
    }

    #[test]
    fn a_descriptor_is_one_cell() {
        let whole = Descriptor {
            reqs: Some(8),
            uniform: Some(true),
            active_loras: Some(0),
            ubatches: Some(1),
            ..full(8)
        };
        assert_eq!(whole.text(), "FULL tokens=8 reqs=8 uniform");
        assert_eq!(Descriptor::default().text(), "unknown");
    }
}
