//! Measures and verdicts that an engine keeps ready: a recording rule for each, which computes it where the series are, so that a
//! fleet of many engines is asked at one, and with few series. `cargo xtask docs` writes the rules of `deploy/prometheus`
//! from here.

use std::fmt::Write as _;
use std::time::Duration;

use super::measure::{Histograms, MEASURES, Measure, expand};
use super::verdict::VERDICTS;

/// Over how long a rule takes rates and means.
pub const RANGE: Duration = Duration::from_secs(120);
/// Time between two evaluations.
pub const EVERY: Duration = Duration::from_secs(60);

/// The series in which a measure is kept.
pub fn series(measure: &Measure) -> String {
    format!("fleet:profilemate_{}:mean", measure.id)
}

/// The query of a measure over a window: the mean of what was kept in it.
pub fn query(measure: &Measure, window: Duration) -> String {
    let window = window.as_secs().max(1);
    format!("avg_over_time({}[{window}s])", series(measure))
}

/// The rules, as Prometheus reads them. Times are whole seconds.
pub fn rules(range: Duration, every: Duration) -> String {
    let mut out = format!(
        "groups:\n  - name: profilemate.fleet\n    interval: {}s\n    rules:\n",
        every.as_secs().max(1)
    );
    for measure in MEASURES {
        let expr = expand(measure, range, Histograms::Native);
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            out,
            "      - record: {}\n        expr: {expr}",
            series(measure)
        );
    }
    for verdict in VERDICTS {
        let (series, expr) = (verdict.series(), verdict.mean(range, false));
        // Writing to a `String` cannot fail.
        let _ = writeln!(out, "      - record: {series}\n        expr: {expr}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::measure::{TOKENS, by_id};

    #[test]
    fn each_measure_has_a_rule_and_is_asked_by_its_name() {
        let rules = rules(RANGE, EVERY);
        for measure in MEASURES {
            let record = format!("- record: {}\n", series(measure));
            assert_eq!(rules.matches(&record).count(), 1, "{record}");
        }
        for verdict in VERDICTS {
            let record = format!("- record: {}\n", verdict.series());
            assert_eq!(rules.matches(&record).count(), 1, "{record}");
        }
        let tokens = by_id(TOKENS).unwrap();
        assert_eq!(
            query(tokens, Duration::from_secs(120)),
            "avg_over_time(fleet:profilemate_tokens_per_sec:mean[120s])"
        );
        // What begins a value of another kind in YAML, or a comment, stands in none of them.
        let exprs = rules
            .lines()
            .filter_map(|line| line.trim().strip_prefix("expr: "));
        for expr in exprs {
            assert!(expr.starts_with(['s', 'm', '(', '1', 'a']), "{expr}");
            assert!(!expr.contains(": ") && !expr.contains(" #"), "{expr}");
        }
    }
}
