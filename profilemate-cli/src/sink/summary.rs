//! `summary.json`: for every measured column count, mean, percentiles and maximum; and the counted methods.

use serde_json::{Value, json};

use crate::aggregate::Aggregator;
use crate::aggregate::counter::quantile;
use crate::aggregate::distribution::Distribution;
use crate::table::{AnyRow, TABLES};

fn distribution_json(distribution: &Distribution) -> Value {
    json!({
        "count": distribution.count(),
        "mean": distribution.mean().map(rounded),
        "p50": distribution.quantile(0.5).map(rounded),
        "p95": distribution.quantile(0.95).map(rounded),
        "p99": distribution.quantile(0.99).map(rounded),
        "max": distribution.max().map(rounded),
    })
}

fn rounded(value: f64) -> f64 {
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
                if distribution.count() > 0 {
                    columns.insert(column.name.to_owned(), distribution_json(distribution));
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
