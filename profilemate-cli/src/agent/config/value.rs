//! Values with units.

use serde::{Deserialize, Deserializer, de};

/// A duration such as `500ms`, `30s`, `5m`, `2h` or `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duration(pub std::time::Duration);

impl Duration {
    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(std::time::Duration::from_secs(seconds))
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let days = text.strip_suffix('d').and_then(|days| days.parse().ok());
        if let Some(days) = days.filter(|days: &u64| (1..36_500).contains(days)) {
            return Ok(Self::seconds(days * 86_400));
        }
        crate::cli::args::duration(&text)
            .map(Self)
            .map_err(|error| de::Error::custom(format!("{error}; such as `30s`, `5m` or `7d`")))
    }
}

/// What tracing may cost a process, in percent of its time in steps, such as `1%`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget(pub f64);

impl<'de> Deserialize<'de> for Budget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        crate::budget::parse(&text)
            .map(Self)
            .map_err(de::Error::custom)
    }
}

/// Bytes, such as `16M` or `2G`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor: Option<u64> = match &text[digits.len()..] {
            "" | "B" => Some(1),
            "K" | "KiB" => Some(1 << 10),
            "M" | "MiB" => Some(1 << 20),
            "G" | "GiB" => Some(1 << 30),
            "T" | "TiB" => Some(1 << 40),
            _ => None,
        };
        let number: Option<u64> = digits.parse().ok();
        number
            .zip(factor)
            .and_then(|(number, factor)| number.checked_mul(factor))
            .map(Self)
            .ok_or_else(|| de::Error::custom(format!("`{text}` is not a size such as `16M`")))
    }
}
