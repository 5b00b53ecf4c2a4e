//! Medians, percentiles and one interval.

/// What is told of many repetitions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) p10: f64,
    pub(crate) p90: f64,
    pub(crate) count: usize,
}

impl Summary {
    /// Of `values`; all zero if there are none.
    pub(crate) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self {
            median: at(&sorted, 0.5),
            p10: at(&sorted, 0.1),
            p90: at(&sorted, 0.9),
            count: sorted.len(),
        }
    }
}

/// The value at a fraction of the sorted list, between two neighbours.
fn at(sorted: &[f64], fraction: f64) -> f64 {
    let place = fraction * (sorted.len().saturating_sub(1)) as f64;
    let (low, part) = (place.floor() as usize, place.fract());
    match (sorted.get(low), sorted.get(low + 1)) {
        (Some(low), Some(high)) => low + (high - low) * part,
        (Some(low), None) => *low,
        (None, _) => 0.0,
    }
}

/// A 95 % interval of the median, by drawing the sample anew many times (bootstrap, percentiles).
pub(crate) fn interval(values: &[f64]) -> (f64, f64) {
    const DRAWS: usize = 10_000;
    let mut random = fastrand::Rng::with_seed(20_260_301);
    let mut medians: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let drawn: Vec<f64> = values
                .iter()
                .filter_map(|_| random.choice(values).copied())
                .collect();
            Summary::of(&drawn).median
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    (at(&medians, 0.025), at(&medians, 0.975))
}
