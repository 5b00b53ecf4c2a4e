//! Counts since a moment, and counts put together again.

use super::{DriverLedger, Ledger, LogLedger, SlotCounters};

macro_rules! each_count {
    ($one:ident, $other:ident, $how:ident, $($count:ident),+) => {
        Self { $( $count: $one.$count.$how($other.$count), )+ ..*$one }
    };
}

impl Ledger {
    /// The counts since `base`.
    #[must_use]
    pub fn since(&self, base: &Self) -> Self {
        Self {
            driver: self.driver.since(&base.driver),
            log: self.log.since(&base.log),
            ..each_count!(self, base, saturating_sub, fired, submitted, lost, filtered)
        }
    }

    /// The counts of both.
    #[must_use]
    pub fn plus(&self, base: &Self) -> Self {
        Self {
            driver: self.driver.plus(&base.driver),
            log: self.log.plus(&base.log),
            ..each_count!(self, base, saturating_add, fired, submitted, lost, filtered)
        }
    }
}

impl LogLedger {
    /// The counts since `base`.
    #[must_use]
    pub fn since(&self, base: &Self) -> Self {
        Self {
            read: self.read.saturating_sub(base.read),
            lost: self.lost.saturating_sub(base.lost),
        }
    }

    /// The counts of both.
    #[must_use]
    pub fn plus(&self, base: &Self) -> Self {
        Self {
            read: self.read.saturating_add(base.read),
            lost: self.lost.saturating_add(base.lost),
        }
    }
}

impl DriverLedger {
    /// The counts since `base`; what has not ended is that of now.
    #[must_use]
    pub fn since(&self, base: &Self) -> Self {
        each_count!(
            self,
            base,
            saturating_sub,
            fired,
            submitted,
            lost,
            filtered,
            counted
        )
    }

    /// The counts of both; what has not ended is that of now.
    #[must_use]
    pub fn plus(&self, base: &Self) -> Self {
        each_count!(
            self,
            base,
            saturating_add,
            fired,
            submitted,
            lost,
            filtered,
            counted
        )
    }
}

impl SlotCounters {
    /// The counters since `base`; all of them, if they were set back meanwhile.
    #[must_use]
    pub fn since(&self, base: &Self) -> Self {
        if self.calls < base.calls {
            return self.clone();
        }
        let earlier = |bucket| base.bucket(bucket);
        let left = |&(bucket, calls): &(u8, u32)| {
            let calls = calls.wrapping_sub(earlier(bucket));
            (calls > 0).then_some((bucket, calls))
        };
        Self {
            slot: self.slot,
            calls: self.calls - base.calls,
            marks: self.marks.saturating_sub(base.marks),
            cycles: self.cycles.saturating_sub(base.cycles),
            histogram: self.histogram.iter().filter_map(left).collect(),
        }
    }

    /// The counters of both.
    #[must_use]
    pub fn plus(&self, base: &Self) -> Self {
        let buckets = (0..64).filter_map(|bucket| {
            let calls = self.bucket(bucket).wrapping_add(base.bucket(bucket));
            (calls > 0).then_some((bucket, calls))
        });
        Self {
            slot: self.slot,
            calls: self.calls.saturating_add(base.calls),
            marks: self.marks.saturating_add(base.marks),
            cycles: self.cycles.saturating_add(base.cycles),
            histogram: buckets.collect(),
        }
    }

    fn bucket(&self, bucket: u8) -> u32 {
        let own = self.histogram.iter().find(|(own, _)| *own == bucket);
        own.map_or(0, |(_, calls)| *calls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_an_earlier_session_do_not_count() {
        let before = SlotCounters {
            slot: 1,
            calls: 10,
            marks: 10,
            cycles: 100,
            histogram: vec![(5, 10)],
        };
        let now = SlotCounters {
            slot: 1,
            calls: 13,
            marks: 11,
            cycles: 160,
            histogram: vec![(5, 11), (6, 2)],
        };
        let expected = SlotCounters {
            slot: 1,
            calls: 3,
            marks: 1,
            cycles: 60,
            histogram: vec![(5, 1), (6, 2)],
        };
        assert_eq!(now.since(&before), expected);
        assert_eq!(expected.plus(&before), now);
        assert_eq!(before.since(&now), before, "a page was mapped anew");
    }

    #[test]
    fn counts_of_the_kernel_are_told_from_a_base_on() {
        let base = Ledger {
            fired: 5,
            submitted: 4,
            lost: 1,
            ..Ledger::default()
        };
        let now = Ledger {
            fired: 9,
            submitted: 8,
            lost: 1,
            ..Ledger::default()
        };
        let since = now.since(&base);
        assert_eq!((since.fired, since.submitted, since.lost), (4, 4, 0));
        assert_eq!(since.plus(&base), now);
    }
}
