//! Cells read back from their text. The writer is [`super::cell`]; older versions and the predecessor wrote a little
//! differently, and what they wrote is understood too.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::cell::{Millis, Real, Seconds, Stamp};

/// Different words that are kept, at most.
const WORDS: usize = 512;
/// Bytes of a word, at most.
const WORD: usize = 64;

/// What kind of value stands in a column's cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number.
    Integer,
    /// A number with decimals.
    Real,
    /// `True` or `False`.
    Truth,
    /// Text.
    Text,
}

/// A value that can be read from a cell.
pub trait ReadCell: Sized {
    /// Its kind.
    const KIND: Kind;

    /// The value; `None` if the text does not say one.
    fn read(text: &str) -> Option<Self>;

    /// What stands for a column that the file does not have. It means "not observed" only for an [`Option`]; whether
    /// the file has the column is known by [`crate::recorded::Sheet::has`].
    fn absent() -> Self;
}

/// A finite number.
fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|n: &f64| n.is_finite())
}

/// A duration or moment in nanoseconds, from one written in units of `unit` nanoseconds.
fn nanoseconds(text: &str, unit: f64) -> Option<f64> {
    number(text).map(|value| (value * unit).round())
}

impl ReadCell for Stamp {
    const KIND: Kind = Kind::Real;

    fn read(text: &str) -> Option<Self> {
        nanoseconds(text, 1e9)
            .filter(|ns| ns.abs() < i64::MAX as f64)
            .map(|ns| Self(ns as i64))
    }

    fn absent() -> Self {
        Self::default()
    }
}

macro_rules! duration {
    ($($duration:ident: $unit:literal),+) => { $(
        impl ReadCell for $duration {
            const KIND: Kind = Kind::Real;

            fn read(text: &str) -> Option<Self> {
                nanoseconds(text, $unit)
                    .filter(|&ns| (0.0..u64::MAX as f64).contains(&ns))
                    .map(|ns| Self(ns as u64))
            }

            fn absent() -> Self {
                Self::default()
            }
        }
    )+ };
}
duration!(Millis: 1e6, Seconds: 1e9);

impl ReadCell for Real {
    const KIND: Kind = Kind::Real;

    fn read(text: &str) -> Option<Self> {
        number(text).map(Self)
    }

    fn absent() -> Self {
        Self(f64::NAN)
    }
}

macro_rules! integer {
    ($($integer:ty),+) => { $(
        impl ReadCell for $integer {
            const KIND: Kind = Kind::Integer;

            fn read(text: &str) -> Option<Self> {
                let text = text.trim();
                // A data frame library writes integers with gaps as `3.0`.
                let whole = text.strip_suffix(".0").unwrap_or(text);
                whole.parse().ok()
            }

            fn absent() -> Self {
                0
            }
        }
    )+ };
}
integer!(u32, u64, i64);

impl ReadCell for bool {
    const KIND: Kind = Kind::Truth;

    fn read(text: &str) -> Option<Self> {
        match text.trim() {
            "True" | "true" | "1" => Some(true),
            "False" | "false" | "0" => Some(false),
            _ => None,
        }
    }

    fn absent() -> Self {
        false
    }
}

impl ReadCell for String {
    const KIND: Kind = Kind::Text;

    fn read(text: &str) -> Option<Self> {
        // The predecessor wrote Python's `str` of an enumeration.
        Some(
            text.strip_prefix("CUDAGraphMode.")
                .unwrap_or(text)
                .to_owned(),
        )
    }

    fn absent() -> Self {
        Self::new()
    }
}

impl ReadCell for &'static str {
    const KIND: Kind = Kind::Text;

    fn read(text: &str) -> Option<Self> {
        word(text.strip_prefix("CUDAGraphMode.").unwrap_or(text))
    }

    fn absent() -> Self {
        ""
    }
}

impl<C: ReadCell> ReadCell for Option<C> {
    const KIND: Kind = C::KIND;

    fn read(text: &str) -> Option<Self> {
        match text {
            "" | "None" | "nan" | "NaN" => Some(None),
            text => C::read(text).map(Some),
        }
    }

    fn absent() -> Self {
        None
    }
}

/// A word of a column that has few different ones, kept for as long as the program runs. `None` for a text that is too
/// long, or when there are too many: such a column holds something else.
fn word(text: &str) -> Option<&'static str> {
    static KNOWN: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    if text.len() > WORD {
        return None;
    }
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    if let Some(&word) = known.get(text) {
        return Some(word);
    }
    if known.len() >= WORDS {
        return None;
    }
    let word: &'static str = Box::leak(text.to_owned().into_boxed_str());
    known.insert(word);
    Some(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::cell::Cell;

    fn again<C: Cell + ReadCell>(value: &C) -> Option<C> {
        let mut text = String::new();
        value.write(&mut text);
        C::read(&text)
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(again(&Stamp(-1_500_000_000)), Some(Stamp(-1_500_000_000)));
        assert_eq!(again(&Millis(1_234_567)), Some(Millis(1_234_567)));
        assert_eq!(again(&Seconds(7_000_001_000)), Some(Seconds(7_000_001_000)));
        assert_eq!(again(&Some(Real(2.5))), Some(Some(Real(2.5))));
        assert_eq!(again(&Some(u64::MAX)), Some(Some(u64::MAX)));
        assert_eq!(
            (again(&None::<i64>), again(&true)),
            (Some(None), Some(true))
        );
        assert_eq!(again(&Some("decode")), Some(Some("decode")));
    }

    #[test]
    fn the_words_of_python_are_understood() {
        assert_eq!(Option::<u64>::read("None"), Some(None));
        assert_eq!(i64::read("12.0"), Some(12));
        assert_eq!(String::read("CUDAGraphMode.FULL").as_deref(), Some("FULL"));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(Stamp::read("1e300"), None);
        assert_eq!(Millis::read("-1"), None);
        assert_eq!(Real::read("inf"), None);
        assert_eq!(u32::read("12.5"), None);
        assert_eq!(bool::read("maybe"), None);
        assert_eq!(<&'static str>::read(&"x".repeat(WORD + 1)), None);
    }
}
