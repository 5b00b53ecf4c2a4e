//! Medians of a list without one of its values, for each of its values in turn: sorted once, so that ten thousand units
//! are compared with their peers as fast as they are read.

use std::collections::BTreeMap;

use super::peer::NORMAL;

/// Values in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Sorted(Vec<f64>);

impl FromIterator<f64> for Sorted {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        Self(values)
    }
}

impl Sorted {
    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The values without one that is `value`, which must be among them.
    fn without(&self, value: f64) -> impl Fn(usize) -> Option<f64> + '_ {
        let gap = self.0.partition_point(|one| one.total_cmp(&value).is_lt());
        move |at| self.0.get(at + usize::from(at >= gap)).copied()
    }

    /// Their median; `None` if it is the only one.
    pub(super) fn median_without(&self, value: f64) -> Option<f64> {
        let (at, rest) = (self.without(value), self.len().checked_sub(1)?);
        let upper = at(rest / 2)?;
        if rest % 2 == 1 {
            return Some(upper);
        }
        Some(f64::midpoint(upper, at(rest / 2 - 1)?))
    }

    /// The least and the greatest of them.
    pub(super) fn ends_without(&self, value: f64) -> Option<(f64, f64)> {
        let at = self.without(value);
        Some((at(0)?, at(self.len().checked_sub(2)?)?))
    }
}

/// The deviations of a list without one of its values. What is left has one of very few medians, and the distances
/// from each are sorted once.
#[derive(Debug)]
pub(super) struct Deviations<'a> {
    of: &'a Sorted,
    away: BTreeMap<u64, Sorted>,
}

impl<'a> Deviations<'a> {
    /// Of a list.
    pub(super) fn of(of: &'a Sorted) -> Self {
        let away = BTreeMap::new();
        Self { of, away }
    }

    /// As [`super::peer::deviation`] of the list without one that is `value`.
    pub(super) fn without(&mut self, value: f64) -> Option<f64> {
        let centre = self.of.median_without(value)?;
        let from = |one: f64| (one - centre).abs();
        let values = &self.of.0;
        let away = self.away.entry(centre.to_bits());
        let away = away.or_insert_with(|| values.iter().map(|one| from(*one)).collect());
        Some(NORMAL * away.median_without(from(value))?)
    }
}
