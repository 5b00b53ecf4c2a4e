//! The counters of the slots: the latest reading of each, and what they tell.

use std::collections::BTreeMap;

use crate::event::{Counters as Reading, SlotCounters};

/// Slots remembered, at most.
const CAPACITY: usize = 65_536;

/// The latest counters of each slot, by process, page and slot.
#[derive(Debug, Default)]
pub struct Counters {
    latest: BTreeMap<(u32, u16, u8), SlotCounters>,
    /// Where they stood when the stream began, if it began in the middle of a longer one.
    base: BTreeMap<(u32, u16, u8), SlotCounters>,
}

impl Counters {
    /// Takes one reading of a page.
    pub fn note(&mut self, reading: Reading) {
        for slot in reading.slots {
            let key = (reading.pid, reading.page, slot.slot);
            if self.latest.len() < CAPACITY || self.latest.contains_key(&key) {
                let slot = match self.base.get(&key) {
                    Some(base) => slot.since(base),
                    None => slot,
                };
                self.latest.insert(key, slot);
            }
        }
    }

    /// Process, page, slot and counters.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u16, u8, &SlotCounters)> {
        self.latest
            .iter()
            .map(|(&(pid, page, slot), counters)| (pid, page, slot, counters))
    }

    /// The latest readings, page by page.
    pub fn readings(&self) -> Vec<Reading> {
        let mut pages: BTreeMap<(u32, u16), Vec<SlotCounters>> = BTreeMap::new();
        for (&(pid, page, number), slot) in &self.latest {
            let base = self.base.get(&(pid, page, number));
            let slot = base.map_or_else(|| slot.clone(), |base| slot.plus(base));
            pages.entry((pid, page)).or_default().push(slot);
        }
        let reading = |((pid, page), slots)| Reading {
            pid,
            page,
            at_ns: 0,
            slots,
        };
        pages.into_iter().map(reading).collect()
    }

    /// The counters of the readings to come are told from here on.
    pub fn count_from(&mut self, readings: Vec<Reading>) {
        for reading in readings {
            for slot in reading.slots {
                self.base
                    .insert((reading.pid, reading.page, slot.slot), slot);
            }
        }
    }

    /// Events that the pages say they made.
    pub fn marks(&self) -> u64 {
        self.latest
            .values()
            .fold(0, |sum, slot| sum.saturating_add(slot.marks))
    }
}

/// The bucket that holds the given part (0 to 1) of the calls, as the bounds of its durations in cycles: at least the
/// first, less than the second.
pub fn quantile(slot: &SlotCounters, part: f64) -> Option<(u64, u64)> {
    let mut buckets: Vec<(u8, u32)> = slot
        .histogram
        .iter()
        .copied()
        .filter(|&(bucket, _)| bucket < 64)
        .collect();
    buckets.sort_unstable();
    let total: u64 = buckets.iter().map(|&(_, calls)| u64::from(calls)).sum();
    let wanted = ((total as f64 * part).ceil() as u64).max(1);
    let mut seen = 0;
    for (bucket, calls) in buckets {
        seen += u64::from(calls);
        if calls > 0 && seen >= wanted {
            let least = 1_u64 << bucket;
            return Some((least, least.saturating_mul(2)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(histogram: &[(u8, u32)]) -> SlotCounters {
        SlotCounters {
            histogram: histogram.to_vec(),
            ..SlotCounters::default()
        }
    }

    #[test]
    fn a_quantile_is_a_bucket() {
        let slot = slot(&[(12, 1), (10, 98), (11, 1)]);
        assert_eq!(quantile(&slot, 0.5), Some((1 << 10, 1 << 11)));
        assert_eq!(quantile(&slot, 0.99), Some((1 << 11, 1 << 12)));
        assert_eq!(quantile(&slot, 1.0), Some((1 << 12, 1 << 13)));
    }

    #[test]
    fn odd_histograms_give_no_panic() {
        assert_eq!(quantile(&slot(&[]), 0.5), None);
        assert_eq!(quantile(&slot(&[(200, 5)]), 0.5), None);
        assert_eq!(
            quantile(&slot(&[(63, u32::MAX)]), 0.99),
            Some((1 << 63, u64::MAX))
        );
    }

    #[test]
    fn a_later_reading_replaces_the_earlier_one() {
        let mut counters = Counters::default();
        let reading = |marks| Reading {
            pid: 1,
            slots: vec![SlotCounters {
                slot: 3,
                marks,
                ..SlotCounters::default()
            }],
            ..Reading::default()
        };
        counters.note(reading(5));
        counters.note(reading(8));
        assert_eq!(counters.marks(), 8);
        assert_eq!(counters.iter().count(), 1);
    }
}
