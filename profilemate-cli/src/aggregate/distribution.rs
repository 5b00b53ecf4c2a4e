//! The distribution of many values in bounded memory.

use std::collections::BTreeMap;

/// Width of a bucket: each holds values up to one percent greater than its least.
const GROWTH: f64 = 1.01;

/// The distribution of one column's values, in bounded memory.
#[derive(Clone, Debug, Default)]
pub struct Distribution {
    count: u64,
    sum: f64,
    max: Option<f64>,
    /// Values by the logarithm of their size; those that are not positive stand at the least key.
    buckets: BTreeMap<i32, u64>,
}

impl Distribution {
    /// Takes one value.
    pub fn add(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        self.count += 1;
        self.sum += value;
        self.max = Some(self.max.map_or(value, |max| max.max(value)));
        let bucket = if value > 0.0 {
            (value.ln() / GROWTH.ln()).floor() as i32
        } else {
            i32::MIN
        };
        *self.buckets.entry(bucket).or_default() += 1;
    }

    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean; `None` if there was none.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// The greatest of them.
    pub fn max(&self) -> Option<f64> {
        self.max
    }

    /// The value below which the given part (0 to 1) of the values lies, within half a percent.
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let wanted = ((self.count as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        for (&bucket, &count) in &self.buckets {
            seen += count;
            if seen >= wanted {
                let value = if bucket == i32::MIN {
                    0.0
                } else {
                    GROWTH.powf(f64::from(bucket) + 0.5)
                };
                return Some(self.max.map_or(value, |max| value.min(max)));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_half_a_percent() {
        let mut distribution = Distribution::default();
        for value in 1..=1_000 {
            distribution.add(f64::from(value));
        }
        for (part, expected) in [(0.5, 500.0), (0.95, 950.0), (0.99, 990.0)] {
            let value = distribution.quantile(part).unwrap();
            assert!((value / expected - 1.0).abs() < 0.006, "{part}: {value}");
        }
        assert_eq!(distribution.quantile(1.0), Some(1_000.0));
    }

    #[test]
    fn odd_values_are_no_harm() {
        let mut distribution = Distribution::default();
        assert_eq!(distribution.quantile(0.5), None);
        assert_eq!(distribution.mean(), None);
        for value in [
            0.0,
            -3.0,
            f64::NAN,
            f64::INFINITY,
            f64::MAX,
            f64::MIN_POSITIVE,
        ] {
            distribution.add(value);
        }
        assert_eq!(distribution.count(), 4);
        assert_eq!(distribution.quantile(0.5), Some(0.0));
        assert_eq!(distribution.max(), Some(f64::MAX));
    }
}
