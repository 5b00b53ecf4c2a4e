//! What stands in one cell, and how it is written. An absent value is an empty cell, never 0.

use std::fmt::Write as _;

/// A value that can stand in a cell.
pub trait Cell {
    /// Appends the text of the cell. Appending nothing leaves the cell empty.
    fn write(&self, out: &mut String);

    /// The value as a number, for summaries.
    fn number(&self) -> Option<f64> {
        None
    }
}

/// A moment: nanoseconds since the session's start, written as seconds with six decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp(pub i64);

impl Stamp {
    /// The moment `ts_ns` of a session that started at `started_ns`, both on `CLOCK_MONOTONIC`.
    pub fn new(ts_ns: u64, started_ns: u64) -> Self {
        let since = i128::from(ts_ns) - i128::from(started_ns);
        Self(since.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64)
    }
}

impl Cell for Stamp {
    fn write(&self, out: &mut String) {
        let micros = self.0.unsigned_abs() / 1_000;
        let sign = if self.0 < 0 && micros > 0 { "-" } else { "" };
        // Writing to a `String` cannot fail.
        let _ = write!(
            out,
            "{sign}{}.{:06}",
            micros / 1_000_000,
            micros % 1_000_000
        );
    }

    fn number(&self) -> Option<f64> {
        Some(self.0 as f64 / 1e9)
    }
}

/// A duration in nanoseconds, written as milliseconds with six decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Millis(pub u64);

impl Cell for Millis {
    fn write(&self, out: &mut String) {
        let _ = write!(out, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000);
    }

    fn number(&self) -> Option<f64> {
        Some(self.0 as f64 / 1e6)
    }
}

/// A duration in nanoseconds, written as seconds with six decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seconds(pub u64);

impl Cell for Seconds {
    fn write(&self, out: &mut String) {
        let micros = self.0 / 1_000;
        let _ = write!(out, "{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    }

    fn number(&self) -> Option<f64> {
        Some(self.0 as f64 / 1e9)
    }
}

/// A ratio or rate, written with four decimals; empty if it is no finite number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Real(pub f64);

impl Cell for Real {
    fn write(&self, out: &mut String) {
        if self.0.is_finite() {
            let _ = write!(out, "{:.4}", self.0);
        }
    }

    fn number(&self) -> Option<f64> {
        self.0.is_finite().then_some(self.0)
    }
}

macro_rules! integer {
    ($($integer:ty),+) => { $(
        impl Cell for $integer {
            fn write(&self, out: &mut String) {
                let _ = write!(out, "{self}");
            }

            fn number(&self) -> Option<f64> {
                #[allow(clippy::cast_lossless, reason = "the macro is for wider integers too")]
                Some(*self as f64)
            }
        }
    )+ };
}
integer!(u32, u64, i64);

impl Cell for String {
    fn write(&self, out: &mut String) {
        out.push_str(self);
    }
}

impl Cell for &'static str {
    fn write(&self, out: &mut String) {
        out.push_str(self);
    }
}

impl Cell for bool {
    fn write(&self, out: &mut String) {
        out.push_str(if *self { "True" } else { "False" });
    }
}

impl<C: Cell> Cell for Option<C> {
    fn write(&self, out: &mut String) {
        if let Some(cell) = self {
            cell.write(out);
        }
    }

    fn number(&self) -> Option<f64> {
        self.as_ref().and_then(Cell::number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(cell: &dyn Cell) -> String {
        let mut out = String::new();
        cell.write(&mut out);
        out
    }

    #[test]
    fn moments_have_six_decimals_and_a_sign() {
        assert_eq!(text(&Stamp::new(2_500_000_999, 1_000_000_000)), "1.500000");
        assert_eq!(text(&Stamp::new(1_000_000_000, 2_500_000_000)), "-1.500000");
        assert_eq!(text(&Stamp::new(999, 1_000)), "0.000000");
        assert_eq!(text(&Stamp::new(u64::MAX, 0)), "9223372036.854775");
    }

    #[test]
    fn durations_keep_nanoseconds_or_microseconds() {
        assert_eq!(text(&Millis(1_234_567)), "1.234567");
        assert_eq!(text(&Seconds(1_234_567)), "0.001234");
    }

    #[test]
    fn an_absent_or_meaningless_value_is_an_empty_cell() {
        assert_eq!(text(&None::<u64>), "");
        assert_eq!(text(&Real(f64::NAN)), "");
        assert_eq!(text(&Real(f64::INFINITY)), "");
        assert_eq!(text(&Some(0_u64)), "0");
    }
}
