//! Counts in bounded memory: of rows in pieces of time, and of values by their size.

use std::collections::BTreeMap;

/// Pieces of time, at most; then each two become one.
const PIECES: usize = 240;
/// Length of a piece at first, in seconds.
const LENGTH: f64 = 1e-3;
/// Upper by lower end of a class of values.
const GROWTH: f64 = 1.05;

/// Rows in each piece of time.
#[derive(Clone, Debug)]
pub(super) struct OverTime {
    length: f64,
    pieces: BTreeMap<i64, u64>,
    count: u64,
}

impl Default for OverTime {
    fn default() -> Self {
        Self {
            length: LENGTH,
            pieces: BTreeMap::new(),
            count: 0,
        }
    }
}

impl OverTime {
    /// Takes a row of that moment, in seconds.
    pub(super) fn add(&mut self, at: f64) {
        self.count += 1;
        let key = (at / self.length).floor() as i64;
        *self.pieces.entry(key).or_default() += 1;
        while self.pieces.len() > PIECES {
            self.double();
        }
    }

    fn double(&mut self) {
        self.length *= 2.0;
        let mut map = BTreeMap::new();
        for (key, count) in std::mem::take(&mut self.pieces) {
            *map.entry(key.div_euclid(2)).or_default() += count;
        }
        self.pieces = map;
    }

    /// The same with pieces long enough to be seen in `span` seconds.
    pub(super) fn seen_in(&self, span: f64) -> Self {
        let mut counts = self.clone();
        while counts.length * (PIECES as f64) < span && counts.length < 1e9 {
            counts.double();
        }
        counts
    }

    /// Rows.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Length of a piece, in seconds.
    pub(super) fn length(&self) -> f64 {
        self.length
    }

    /// The middle of each piece that has rows, and how many.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        self.pieces
            .iter()
            .map(|(&key, &count)| ((key as f64 + 0.5) * self.length, count))
    }
}

/// Values by their size, in classes of equal ratio.
#[derive(Clone, Debug, Default)]
pub(super) struct BySize {
    classes: BTreeMap<i32, u64>,
    /// Values that are zero or less, which no such class holds.
    small: u64,
}

impl BySize {
    /// Takes a value.
    pub(super) fn add(&mut self, value: f64) {
        if value > 0.0 && value.is_finite() {
            let class = (value.ln() / GROWTH.ln()).floor() as i32;
            *self.classes.entry(class).or_default() += 1;
        } else {
            self.small += 1;
        }
    }

    /// Values that are in no class.
    pub(super) fn small(&self) -> u64 {
        self.small
    }

    /// The classes from the first to the last, with the empty ones beside those that have values: lower end and count.
    /// One more with 0 closes the last.
    pub(super) fn classes(&self) -> Vec<(f64, u64)> {
        let mut out: Vec<(f64, u64)> = Vec::new();
        let mut next = None;
        for (&class, &count) in &self.classes {
            if let Some(next) = next
                && next != class
            {
                out.push((GROWTH.powi(next), 0));
            }
            out.push((GROWTH.powi(class), count));
            next = Some(class + 1);
        }
        if let Some(next) = next {
            out.push((GROWTH.powi(next), 0));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_counted_in_few_pieces() {
        let mut counts = OverTime::default();
        (0..100_000).for_each(|row| counts.add(f64::from(row) * 0.01));
        counts.add(-1e12);
        assert!(counts.pieces().count() <= PIECES);
        assert_eq!(counts.pieces().map(|piece| piece.1).sum::<u64>(), 100_001);
        assert_eq!(counts.count(), 100_001);
        let mut few = OverTime::default();
        for at in [1.05, 1.1, 99.0] {
            few.add(at);
        }
        let coarse = few.seen_in(100.0);
        assert!(coarse.length() >= 100.0 / PIECES as f64);
        assert_eq!(
            coarse.pieces().map(|piece| piece.1).collect::<Vec<_>>(),
            [2, 1]
        );
    }

    #[test]
    fn every_value_is_in_the_class_that_holds_it() {
        let mut sizes = BySize::default();
        for value in [1.0, 1.04, 50.0, 0.0, -1.0, f64::NAN] {
            sizes.add(value);
        }
        let classes = sizes.classes();
        assert_eq!(classes.iter().map(|class| class.1).sum::<u64>(), 3);
        assert_eq!(sizes.small(), 3);
        assert_eq!((classes[0], classes[1].1), ((1.0, 2), 0));
        let fifty = classes.iter().rfind(|class| class.1 > 0).unwrap();
        assert!(fifty.0 <= 50.0 && 50.0 < fifty.0 * GROWTH, "{fifty:?}");
        assert!(BySize::default().classes().is_empty());
    }
}
