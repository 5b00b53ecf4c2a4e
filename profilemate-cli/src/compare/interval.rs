//! How far two means differ, and how sure that is: Welch's interval over the means of pieces.

use statrs::distribution::{ContinuousCDF as _, StudentsT};

/// Pieces that an interval needs on either side.
pub const LEAST: usize = 10;

/// The difference of two means with its confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Mean and the variance of the mean.
fn mean(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, squares / (n - 1.0) / n)
}

/// The interval of `b - a` that is wrong with probability `alpha`; `None` with too few pieces.
pub fn welch(a: &[f64], b: &[f64], alpha: f64) -> Option<Interval> {
    if a.len() < LEAST || b.len() < LEAST {
        return None;
    }
    let ((mean_a, var_a), (mean_b, var_b)) = (mean(a), mean(b));
    let difference = mean_b - mean_a;
    let variance = var_a + var_b;
    if variance <= 0.0 {
        return Some(Interval {
            low: difference,
            high: difference,
        });
    }
    let (n_a, n_b) = (a.len() as f64, b.len() as f64);
    let freedom = variance.powi(2) / (var_a.powi(2) / (n_a - 1.0) + var_b.powi(2) / (n_b - 1.0));
    let student = StudentsT::new(0.0, 1.0, freedom).ok()?;
    let width = student.inverse_cdf(1.0 - alpha / 2.0) * variance.sqrt();
    width.is_finite().then_some(Interval {
        low: difference - width,
        high: difference + width,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_the_textbook_s() {
        // Equal variances of 55/6 and ten values each: 18 degrees of freedom, for which tables have t = 2.100922.
        let a: Vec<f64> = (1..=10).map(f64::from).collect();
        let b: Vec<f64> = a.iter().map(|value| value + 1.0).collect();
        let interval = welch(&a, &b, 0.05).unwrap();
        let width = 2.100_922 * (2.0 * 55.0 / 6.0 / 10.0_f64).sqrt();
        assert!((interval.low - (1.0 - width)).abs() < 1e-5, "{interval:?}");
        assert!((interval.high - (1.0 + width)).abs() < 1e-5, "{interval:?}");
    }

    #[test]
    fn few_values_give_none_and_equal_ones_a_point() {
        assert_eq!(welch(&[1.0; 9], &[2.0; 50], 0.05), None);
        let point = Interval {
            low: 1.0,
            high: 1.0,
        };
        assert_eq!(welch(&[1.0; 20], &[2.0; 20], 0.05), Some(point));
    }

    #[test]
    fn noise_is_called_a_difference_no_more_often_than_said() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut wrong = 0;
        for _ in 0..2_000 {
            let mut draw = || (0..32).map(|_| random.f64()).collect::<Vec<_>>();
            let interval = welch(&draw(), &draw(), 0.05).unwrap();
            wrong += u32::from(interval.low > 0.0 || interval.high < 0.0);
        }
        // 100 are expected; the deviation is 10.
        assert!((60..140).contains(&wrong), "{wrong}");
    }
}
