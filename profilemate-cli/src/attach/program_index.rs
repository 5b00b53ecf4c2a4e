//! Which entries of the map of programs are free.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Hands out indices; one that comes back is handed out again only after the quarantine, and after all others.
#[derive(Debug)]
pub(super) struct ProgramIndices {
    fresh: u32,
    limit: u32,
    quarantine: Duration,
    returned: VecDeque<(Instant, u32)>,
}

impl ProgramIndices {
    /// The indices less than `limit`.
    pub(super) fn new(limit: u32, quarantine: Duration) -> Self {
        Self {
            fresh: 0,
            limit,
            quarantine,
            returned: VecDeque::new(),
        }
    }

    /// An index that no event can be reading at `now`.
    pub(super) fn take(&mut self, now: Instant) -> Option<u32> {
        if self.fresh < self.limit {
            self.fresh += 1;
            return Some(self.fresh - 1);
        }
        let (at, _) = self.returned.front()?;
        if now.saturating_duration_since(*at) < self.quarantine {
            return None;
        }
        self.returned.pop_front().map(|(_, index)| index)
    }

    /// Takes back an index that slots do not name any more since `now`.
    pub(super) fn give_back(&mut self, index: u32, now: Instant) {
        self.returned.push_back((now, index));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_comes_back_only_after_the_quarantine() {
        let now = Instant::now();
        let mut indices = ProgramIndices::new(2, Duration::from_secs(1));
        assert_eq!(indices.take(now), Some(0));
        indices.give_back(0, now);
        assert_eq!(indices.take(now), Some(1), "fresh ones go first");
        assert_eq!(indices.take(now + Duration::from_millis(999)), None);
        assert_eq!(indices.take(now + Duration::from_secs(1)), Some(0));
        assert_eq!(indices.take(now + Duration::from_secs(9)), None);
    }
}
