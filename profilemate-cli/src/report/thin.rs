//! Values over time in bounded memory: every row while there are few, and of many the lowest and the highest in each
//! piece of time, which are rows too.

use std::collections::BTreeMap;

use super::text::{duration, thousands};
use crate::aggregate::distribution::Distribution;

/// Rows that are kept one by one, at most.
const ROWS: usize = 4_096;
/// Pieces of time, at most; then each two become one.
const PIECES: usize = 2_048;
/// Length of a piece at first, in seconds.
const LENGTH: f64 = 1e-3;

/// A moment in seconds since the session's start, and what was there; `None` for an empty cell.
pub(super) type Point = (f64, Option<f64>);

/// Values over time.
#[derive(Clone, Debug, Default)]
pub(super) struct Thin {
    rows: Vec<Point>,
    pieces: Option<Pieces>,
    count: u64,
    all: Distribution,
}

/// What is drawn of a [`Thin`].
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Drawn {
    /// In order of time.
    pub(super) points: Vec<Point>,
    /// Rows that there were.
    pub(super) rows: u64,
    /// If not every row is drawn: the length of a piece of time, in seconds.
    pub(super) piece_sec: Option<f64>,
}

/// What is said under a plot whose series, by name, are not all drawn row by row.
pub(super) fn note(series: &[(String, Drawn)]) -> Option<String> {
    let sampled: Vec<(&str, &Drawn, f64)> = series
        .iter()
        .filter_map(|(name, drawn)| Some((name.as_str(), drawn, drawn.piece_sec?)))
        .collect();
    let longest = sampled.iter().map(|one| one.2).reduce(f64::max)?;
    let mut before = None;
    let told: Vec<String> = sampled
        .iter()
        .map(|(name, drawn, _)| {
            let points = thousands(drawn.points.len() as f64);
            if before.replace(drawn.rows) == Some(drawn.rows) {
                return format!("{name} {points}");
            }
            format!("{name} {points} of {} rows", thousands(drawn.rows as f64))
        })
        .collect();
    Some(format!(
        "Drawn are the lowest and the highest row of each {} or less: {}.",
        duration(longest),
        told.join(", ")
    ))
}

impl Thin {
    /// Takes a row's value.
    pub(super) fn add(&mut self, at: f64, value: Option<f64>) {
        let value = value.filter(|value| value.is_finite());
        self.count += 1;
        if let Some(value) = value {
            self.all.add(value);
        }
        if let Some(pieces) = &mut self.pieces {
            pieces.add(at, value);
            return;
        }
        self.rows.push((at, value));
        if self.rows.len() > ROWS {
            self.pieces = Some(Pieces::of(&self.rows));
            self.rows = Vec::new();
        }
    }

    /// All values.
    pub(super) fn all(&self) -> &Distribution {
        &self.all
    }

    /// At most `most` points (but never fewer than two).
    pub(super) fn drawn(&self, most: usize) -> Drawn {
        let rows = self.count;
        if self.pieces.is_none() && self.rows.len() <= most {
            let mut points = self.rows.clone();
            points.sort_by(|one, two| one.0.total_cmp(&two.0));
            return Drawn {
                points,
                rows,
                piece_sec: None,
            };
        }
        let mut pieces = match &self.pieces {
            Some(pieces) => pieces.clone(),
            None => Pieces::of(&self.rows),
        };
        while pieces.map.len() > 1 && pieces.map.len() * 2 > most {
            pieces.double();
        }
        Drawn {
            points: pieces.points(),
            rows,
            piece_sec: Some(pieces.length),
        }
    }
}

/// The lowest and the highest row of each piece of time in which there was one.
#[derive(Clone, Debug)]
struct Pieces {
    length: f64,
    map: BTreeMap<i64, [(f64, f64); 2]>,
}

impl Pieces {
    fn of(rows: &[Point]) -> Self {
        let mut pieces = Self {
            length: LENGTH,
            map: BTreeMap::new(),
        };
        for &(at, value) in rows {
            pieces.add(at, value);
        }
        pieces
    }

    fn add(&mut self, at: f64, value: Option<f64>) {
        let Some(value) = value else {
            return;
        };
        let key = (at / self.length).floor() as i64;
        extend(&mut self.map, key, [(at, value); 2]);
        while self.map.len() > PIECES {
            self.double();
        }
    }

    fn double(&mut self) {
        self.length *= 2.0;
        let mut map = BTreeMap::new();
        for (key, ends) in std::mem::take(&mut self.map) {
            extend(&mut map, key.div_euclid(2), ends);
        }
        self.map = map;
    }

    fn points(&self) -> Vec<Point> {
        let mut points = Vec::with_capacity(self.map.len() * 2);
        for [low, high] in self.map.values() {
            let (first, second) = if low.0 <= high.0 {
                (low, high)
            } else {
                (high, low)
            };
            points.push((first.0, Some(first.1)));
            if second != first {
                points.push((second.0, Some(second.1)));
            }
        }
        points
    }
}

fn extend(map: &mut BTreeMap<i64, [(f64, f64); 2]>, key: i64, [low, high]: [(f64, f64); 2]) {
    let known = map.entry(key).or_insert([low, high]);
    if low.1 < known[0].1 {
        known[0] = low;
    }
    if high.1 > known[1].1 {
        known[1] = high;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_rows_are_all_drawn_with_their_gaps() {
        let mut thin = Thin::default();
        thin.add(2.0, None);
        thin.add(1.0, Some(5.0));
        thin.add(3.0, Some(f64::NAN));
        let drawn = thin.drawn(100);
        assert_eq!(drawn.points, [(1.0, Some(5.0)), (2.0, None), (3.0, None)]);
        assert_eq!(drawn.rows, 3);
        assert_eq!(note(&[("x".to_owned(), drawn)]), None);
    }

    #[test]
    fn of_many_rows_the_lowest_and_highest_are_kept_and_the_rest_is_told() {
        let mut thin = Thin::default();
        let value = |row: u32| f64::from(row % 1_000) + if row == 777_777 { 1e6 } else { 0.0 };
        for row in 0..1_000_000 {
            thin.add(f64::from(row) * 1e-3, Some(value(row)));
        }
        for most in [4_096, 500, 1] {
            let drawn = thin.drawn(most);
            assert!(drawn.points.len() <= most.max(2), "{most}");
            assert!(drawn.points.contains(&(777.777, Some(value(777_777)))));
            assert!(drawn.points.is_sorted_by(|one, two| one.0 <= two.0));
            for &(at, drawn) in &drawn.points {
                assert_eq!(
                    drawn,
                    Some(value((at * 1e3).round() as u32)),
                    "a row of {at}"
                );
            }
            let note = note(&[("tokens".to_owned(), drawn)]).unwrap();
            assert!(note.contains("of 1,000,000 rows"), "{note}");
        }
        assert_eq!(thin.all().count(), 1_000_000);
    }

    #[test]
    fn a_moment_far_away_does_not_take_the_room_of_the_others() {
        let mut thin = Thin::default();
        (0..10_000).for_each(|row| thin.add(f64::from(row) * 1e-2, Some(1.0)));
        thin.add(-9e9, Some(1.0));
        thin.add(9e9, Some(1.0));
        let drawn = thin.drawn(4_096);
        assert!(drawn.points.len() > 500, "{}", drawn.points.len());
    }
}
