//! `summary.json`: for every measured column count, mean, percentiles and maximum; and the counted methods.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::aggregate::Aggregator;
use crate::aggregate::counter::quantile;
use crate::table::{AnyRow, TABLES};

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

    /// Values taken.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// The greatest.
    pub fn max(&self) -> Option<f64> {
        self.max
    }

    fn json(&self) -> Value {
        json!({
            "count": self.count,
            "mean": rounded(self.sum / self.count as f64),
            "p50": self.quantile(0.5).map(rounded),
            "p95": self.quantile(0.95).map(rounded),
            "p99": self.quantile(0.99).map(rounded),
            "max": self.max.map(rounded),
        })
    }
}

pub(crate) fn rounded(value: f64) -> f64 {
    if value.abs() > 1e15 {
        return value;
    }
    (value * 1e6).round() / 1e6
}

/// Gathers the measured columns of all tables.
#[derive(Debug)]
pub struct Summary {
    columns: Vec<Vec<Distribution>>,
}

impl Default for Summary {
    fn default() -> Self {
        Self {
            columns: TABLES
                .iter()
                .map(|table| vec![Distribution::default(); table.columns.len()])
                .collect(),
        }
    }
}

impl Summary {
    /// Takes one row.
    pub fn row(&mut self, row: &AnyRow) {
        let table = row.table();
        let mut column = 0;
        row.cells(&mut |cell| {
            if TABLES[table].columns[column].unit.is_measured()
                && let Some(number) = cell.number()
            {
                self.columns[table][column].add(number);
            }
            column += 1;
        });
    }

    /// The document.
    pub fn json(&self, aggregator: &Aggregator) -> Value {
        let mut tables = serde_json::Map::new();
        for (table, distributions) in TABLES.iter().zip(&self.columns) {
            let mut columns = serde_json::Map::new();
            for (column, distribution) in table.columns.iter().zip(distributions) {
                if distribution.count > 0 {
                    columns.insert(column.name.to_owned(), distribution.json());
                }
            }
            if !columns.is_empty() {
                tables.insert(table.file.to_owned(), Value::Object(columns));
            }
        }
        json!({
            "schema_version": 1,
            "percentiles": "of tables within 0.5 percent; of counters the bounds of a bucket a factor of two wide",
            "tables": tables,
            "counters": counters(aggregator),
        })
    }
}

fn counters(aggregator: &Aggregator) -> Vec<Value> {
    let clock = aggregator.clock();
    let micros = |cycles: u64| clock.nanoseconds(cycles).map(|ns| ns as f64 / 1e3);
    let bounds = |cycles: Option<(u64, u64)>| {
        cycles.map(|(least, less)| json!([micros(least), micros(less)]))
    };
    let rows = aggregator
        .counters()
        .iter()
        .map(|(pid, page, slot, counters)| {
            let method = aggregator.method(pid, page, slot);
            let mean = clock
                .nanoseconds(counters.cycles)
                .filter(|_| counters.calls > 0 && counters.cycles > 0);
            json!({
                "pid": pid,
                "method": method.map(|method| method.id.as_str()),
                "qualname": method.map(|method| format!("{}:{}", method.module, method.qualname)),
                "calls": counters.calls,
                "marks": counters.marks,
                "mean_us": mean.map(|ns| rounded(ns as f64 / 1e3 / counters.calls as f64)),
                "p50_us_between": bounds(quantile(counters, 0.5)),
                "p99_us_between": bounds(quantile(counters, 0.99)),
            })
        });
    rows.collect()
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
        assert_eq!(distribution.count, 4);
        assert_eq!(distribution.quantile(0.5), Some(0.0));
        assert_eq!(distribution.json()["max"], json!(f64::MAX));
    }
}
