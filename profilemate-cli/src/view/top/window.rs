//! Numbers of the latest seconds.

use std::collections::VecDeque;

/// Time over which rates and means are taken, in nanoseconds.
pub(super) const SPAN_NS: i64 = 2_000_000_000;
/// Samples kept, at most; the oldest go first.
const CAPACITY: usize = 16_384;

/// Samples of the latest [`SPAN_NS`].
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    samples: VecDeque<(i64, f64)>,
    sum: f64,
}

impl Window {
    /// A sample. Time may stand still, and be a little out of order.
    pub(super) fn put(&mut self, at_ns: i64, value: f64) {
        if !value.is_finite() {
            return;
        }
        if self.samples.len() >= CAPACITY {
            self.pop();
        }
        self.samples.push_back((at_ns, value));
        self.sum += value;
    }

    /// Forgets what is older than the span at `now_ns`.
    pub(super) fn prune(&mut self, now_ns: i64) {
        while self
            .samples
            .front()
            .is_some_and(|(at, _)| at.saturating_add(SPAN_NS) < now_ns)
        {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some((_, value)) = self.samples.pop_front() {
            self.sum -= value;
        }
        if self.samples.is_empty() {
            // Whatever rounding has left.
            self.sum = 0.0;
        }
    }

    pub(super) fn count(&self) -> usize {
        self.samples.len()
    }

    pub(super) fn sum(&self) -> f64 {
        self.sum
    }

    pub(super) fn mean(&self) -> Option<f64> {
        (!self.samples.is_empty()).then(|| self.sum / self.samples.len() as f64)
    }

    /// The value below which the given part (0 to 1) of the samples lies.
    pub(super) fn quantile(&self, part: f64) -> Option<f64> {
        let mut values: Vec<f64> = self.samples.iter().map(|(_, value)| *value).collect();
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let at = (part.clamp(0.0, 1.0) * last as f64).round() as usize;
        values.get(at).copied()
    }

    /// Sum by seconds, over the span or the time since `since_ns`, whichever is shorter.
    pub(super) fn rate(&self, since_ns: i64, now_ns: i64) -> f64 {
        let seconds = now_ns.saturating_sub(since_ns).min(SPAN_NS) as f64 / 1e9;
        if seconds > 0.0 {
            self.sum / seconds
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_holds_the_latest_seconds_and_forgets() {
        let mut window = Window::default();
        for second in 0..10_i64 {
            window.put(second * 1_000_000_000, second as f64);
        }
        window.prune(9_000_000_000);
        assert_eq!((window.count(), window.sum()), (3, 24.0));
        assert_eq!(
            (window.mean(), window.quantile(0.5)),
            (Some(8.0), Some(8.0))
        );
        assert!((window.rate(0, 9_000_000_000) - 12.0).abs() < 1e-9);
        window.prune(60_000_000_000);
        assert_eq!((window.mean(), window.sum()), (None, 0.0));
    }

    #[test]
    fn a_session_that_has_just_begun_has_its_own_span() {
        let mut window = Window::default();
        window.put(500_000_000, 10.0);
        assert!((window.rate(0, 1_000_000_000) - 10.0).abs() < 1e-9);
        assert!(window.rate(1, 1) <= 0.0);
    }

    #[test]
    fn a_flood_is_bounded_and_nonsense_is_no_sample() {
        let mut window = Window::default();
        for _ in 0..(CAPACITY + 10) {
            window.put(0, 1.0);
        }
        window.put(0, f64::NAN);
        assert_eq!(window.count(), CAPACITY);
    }
}
