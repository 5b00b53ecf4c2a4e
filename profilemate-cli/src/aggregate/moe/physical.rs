//! Where the experts of a layer were: with EPLB a logical expert has one or several physical slots.

use std::collections::BTreeMap;

/// Choices by slot, of one layer.
#[derive(Debug, Default)]
pub(super) struct Physical {
    /// Choices so far, by slot.
    sums: BTreeMap<u64, u64>,
    /// Choices of each expert in each slot.
    chosen: BTreeMap<(u64, u64), u64>,
    /// Choices of each slot whose expert is not told yet.
    waiting: BTreeMap<u64, u64>,
}

impl Physical {
    /// A slot was chosen so often in all.
    pub(super) fn set(&mut self, slot: u64, chosen: u64) {
        let before = self.sums.insert(slot, chosen).unwrap_or(0);
        *self.waiting.entry(slot).or_default() += chosen.saturating_sub(before);
    }

    /// A slot held an expert; told one above its id. What was chosen since the last time is taken for its.
    pub(super) fn own(&mut self, slot: u64, expert_above: u64) {
        let Some(expert) = expert_above.checked_sub(1) else {
            return;
        };
        let chosen = self.waiting.remove(&slot).unwrap_or(0);
        *self.chosen.entry((expert, slot)).or_default() += chosen;
    }

    /// `slot:choices` of an expert, by slot; `None` without EPLB.
    pub(super) fn of(&self, expert: u64) -> Option<String> {
        if self.chosen.is_empty() {
            return None;
        }
        let slots: Vec<String> = self
            .chosen
            .range((expert, 0)..=(expert, u64::MAX))
            .map(|((_, slot), chosen)| format!("{slot}:{chosen}"))
            .collect();
        Some(slots.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_belong_to_the_expert_that_was_in_the_slot() {
        let mut physical = Physical::default();
        assert_eq!(physical.of(0), None);
        for (slot, chosen, owner) in [(0, 5, 1), (3, 7, 1), (1, 2, 2)] {
            physical.set(slot, chosen);
            physical.own(slot, owner);
        }
        assert_eq!(physical.of(0).as_deref(), Some("0:5 3:7"));
        // Slot 3 has got another expert.
        physical.set(3, 10);
        physical.own(3, 3);
        assert_eq!(physical.of(0).as_deref(), Some("0:5 3:7"));
        assert_eq!(physical.of(2).as_deref(), Some("3:3"));
        assert_eq!(physical.of(5).as_deref(), Some(""));
    }
}
