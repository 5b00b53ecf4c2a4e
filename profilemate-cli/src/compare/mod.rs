//! Two sessions compared, table by table and batch descriptor by batch descriptor, with confidence intervals.
//!
//! Values that follow each other in a session are alike, so intervals are made of the means of long pieces
//! ([`series`]). All intervals hold together with the given confidence: the more is compared, the wider they are. What
//! lies within them is noise, and is called so.

pub mod group;
pub mod html;
pub mod interval;
pub mod series;
pub mod text;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::recorded::{self, Session};
use crate::sink::summary::rounded;
use crate::table::{AnyRow, TABLES, Unit};
use interval::{Interval, welch};
use series::Series;

/// Groups of a table that are told apart, at most.
const GROUPS: usize = 512;
/// Length of the pieces of time over which rates are counted, in seconds.
const SECOND: f64 = 1.0;
/// Name of the rates among the tables.
pub const RATES: &str = "rates";

/// How two columns differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A duration is less in B.
    Faster,
    /// A duration is more in B.
    Slower,
    /// More in B.
    More,
    /// Less in B.
    Less,
    /// The interval holds zero: no difference was seen.
    Noise,
    /// Too few values for an interval.
    TooFew,
}

impl Verdict {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::More => "more",
            Self::Less => "less",
            Self::Noise => "noise",
            Self::TooFew => "too few",
        }
    }

    /// Whether it is a difference.
    pub const fn is_difference(self) -> bool {
        !matches!(self, Self::Noise | Self::TooFew)
    }
}

/// One side of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Side {
    /// Values.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Median.
    pub p50: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
}

/// One column of one group, compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Table, the file name without `.csv`, or [`RATES`].
    pub table: &'static str,
    /// Group of its rows; empty for all.
    pub group: String,
    /// Column.
    pub column: &'static str,
    /// Unit in words.
    pub unit: &'static str,
    /// In A.
    pub a: Side,
    /// In B.
    pub b: Side,
    /// Mean of B less mean of A.
    pub difference: f64,
    /// The same in percent of A; absent where A's mean is zero.
    pub relative_pct: Option<f64>,
    /// Where the difference lies, with the confidence of the comparison.
    pub interval: Option<[f64; 2]>,
    /// What that means.
    pub verdict: Verdict,
}

/// What a session was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Name {
    /// Folder.
    pub folder: String,
    /// When it began.
    pub start_time: Option<String>,
    /// vLLM version.
    pub vllm: Option<String>,
    /// Records that did not arrive.
    pub lost: Option<u64>,
}

/// Two sessions compared.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// The first.
    pub a: Name,
    /// The second.
    pub b: Name,
    /// With what probability all intervals hold together, in percent.
    pub confidence_pct: f64,
    /// All that was compared, in the order of the tables.
    pub differences: Vec<Difference>,
    /// What is in one of them only, and what was odd.
    pub notes: Vec<String>,
}

/// Table, group and column; table [`TABLES`]`.len()` holds the rates.
type Key = (usize, String, usize);

/// A session's columns.
#[derive(Default)]
struct Columns {
    series: BTreeMap<Key, Series>,
    groups: BTreeMap<usize, u64>,
    rates: Rates,
    left_out: u64,
}

/// Something that is counted in pieces of time: name, and what a row adds.
type Counted = (&'static str, fn(&AnyRow) -> f64);

/// All that is counted so.
const COUNTED: &[Counted] = &[
    ("tokens_per_sec", |row| match row {
        AnyRow::BatchUse(row) => row.num_tokens.unwrap_or(0) as f64,
        _ => 0.0,
    }),
    ("steps_per_sec", |row| match row {
        AnyRow::BatchUse(row) => {
            f64::from(u8::from(row.num_tokens.is_some_and(|tokens| tokens > 0)))
        }
        _ => 0.0,
    }),
    ("finished_requests_per_sec", |row| happened(row, "finished")),
    ("preemptions_per_sec", |row| happened(row, "preempted")),
];

fn happened(row: &AnyRow, what: &str) -> f64 {
    match row {
        AnyRow::PreemptionEvent(row) if row.event == what => 1.0,
        _ => 0.0,
    }
}

/// Counts of whole seconds of a session.
#[derive(Default)]
struct Rates {
    /// By second since the session's start.
    seconds: BTreeMap<i64, [f64; COUNTED.len()]>,
}

/// Seconds that are kept: a day and a half.
const SECONDS: usize = 1 << 17;

impl Rates {
    fn row(&mut self, row: &AnyRow) {
        let at = match row {
            AnyRow::BatchUse(row) => row.timestamp_sec.0,
            AnyRow::PreemptionEvent(row) => row.timestamp_sec.0,
            _ => return,
        };
        let second = (at as f64 / 1e9 / SECOND).floor() as i64;
        if self.seconds.len() < SECONDS || self.seconds.contains_key(&second) {
            let counts = self.seconds.entry(second).or_default();
            for (count, (_, add)) in counts.iter_mut().zip(COUNTED) {
                *count += add(row);
            }
        }
    }

    /// One series a rate. The first and last second are not whole, and a second in which nothing ran counts as one.
    fn series(&self) -> Vec<Series> {
        let mut all = vec![Series::default(); COUNTED.len()];
        let (Some(first), Some(last)) =
            (self.seconds.keys().next(), self.seconds.keys().next_back())
        else {
            return all;
        };
        // A file may claim any moment; what is added for gaps is bounded.
        for second in (first + 1..*last).take(SECONDS) {
            let counts = self.seconds.get(&second).copied().unwrap_or_default();
            for (series, count) in all.iter_mut().zip(counts) {
                series.add(count / SECOND);
            }
        }
        all
    }
}

impl Columns {
    fn of(session: &Session) -> Result<(Self, Vec<String>), recorded::Error> {
        let mut columns = Self::default();
        let mut notes = session.each(&mut |row| columns.row(row))?;
        for (index, series) in columns.rates.series().into_iter().enumerate() {
            if series.all().count() > 0 {
                columns
                    .series
                    .insert((TABLES.len(), String::new(), index), series);
            }
        }
        if columns.left_out > 0 {
            notes.push(format!(
                "{} rows of rare batch sizes were not compared",
                columns.left_out
            ));
        }
        Ok((columns, notes))
    }

    fn row(&mut self, row: &AnyRow) {
        self.rates.row(row);
        let table = row.table();
        let group = group::of(row);
        let new = !self
            .series
            .contains_key(&(table, group.clone(), usize::MAX));
        let groups = self.groups.entry(table).or_default();
        if new {
            if *groups >= GROUPS as u64 {
                self.left_out += 1;
                return;
            }
            *groups += 1;
            // Marks the group as known.
            self.series
                .insert((table, group.clone(), usize::MAX), Series::default());
        }
        let mut column = 0;
        row.cells(&mut |cell| {
            if TABLES[table].columns[column].unit.is_measured()
                && let Some(number) = cell.number()
            {
                self.series
                    .entry((table, group.clone(), column))
                    .or_default()
                    .add(number);
            }
            column += 1;
        });
    }
}

/// Compares two sessions; all intervals hold together with `confidence_pct`.
pub fn compare(
    a: &Session,
    b: &Session,
    confidence_pct: f64,
) -> Result<Comparison, recorded::Error> {
    let ((of_a, notes_a), (of_b, notes_b)) = (Columns::of(a)?, Columns::of(b)?);
    let named = |side: &'static str, notes: Vec<String>| {
        notes.into_iter().map(move |note| format!("{side}: {note}"))
    };
    let mut notes: Vec<String> = named("A", notes_a).chain(named("B", notes_b)).collect();
    notes.extend(only_in_one(&of_a, &of_b));
    let pairs: Vec<_> = of_a
        .series
        .iter()
        .filter_map(|(key, one)| Some((key, one, of_b.series.get(key)?)))
        .filter(|(_, one, two)| one.all().count() > 0 && two.all().count() > 0)
        .collect();
    let enough = |series: &Series| series.pieces().len() >= interval::LEAST;
    let judged = pairs
        .iter()
        .filter(|(_, one, two)| enough(one) && enough(two))
        .count();
    let alpha = (1.0 - confidence_pct / 100.0) / judged.max(1) as f64;
    let mut differences: Vec<Difference> = pairs
        .into_iter()
        .filter_map(|(key, one, two)| difference(key, one, two, alpha))
        .collect();
    // What a server is for goes first.
    differences.sort_by_key(|difference| difference.table != RATES);
    Ok(Comparison {
        a: name(a),
        b: name(b),
        confidence_pct,
        differences,
        notes,
    })
}

fn name(session: &Session) -> Name {
    let metadata = &session.metadata;
    Name {
        folder: session.folder.display().to_string(),
        start_time: metadata.start_time.clone(),
        vllm: metadata
            .processes()
            .iter()
            .find_map(|process| process.vllm.clone()),
        lost: metadata.lost(),
    }
}

fn difference(key: &Key, a: &Series, b: &Series, alpha: f64) -> Option<Difference> {
    let (table, column, unit) = match TABLES.get(key.0) {
        Some(table) => {
            let column = table.columns.get(key.2)?;
            (table.file, column.name, column.unit)
        }
        None => (RATES, COUNTED.get(key.2)?.0, Unit::Rate),
    };
    let (side_a, side_b) = (side(a)?, side(b)?);
    let difference = side_b.mean - side_a.mean;
    let interval = welch(a.pieces(), b.pieces(), alpha);
    Some(Difference {
        table,
        group: key.1.clone(),
        column,
        unit: if table == RATES { "1/s" } else { unit.words() },
        a: side_a,
        b: side_b,
        difference: rounded(difference),
        relative_pct: (side_a.mean.abs() > 0.0).then(|| rounded(100.0 * difference / side_a.mean)),
        interval: interval.map(|interval| [rounded(interval.low), rounded(interval.high)]),
        verdict: verdict(interval, unit),
    })
}

fn side(series: &Series) -> Option<Side> {
    let all = series.all();
    Some(Side {
        count: all.count(),
        mean: rounded(all.mean()?),
        p50: all.quantile(0.5).map(rounded),
        p99: all.quantile(0.99).map(rounded),
    })
}

fn verdict(interval: Option<Interval>, unit: Unit) -> Verdict {
    let duration = matches!(
        unit,
        Unit::Seconds | Unit::Milliseconds | Unit::Microseconds
    );
    match interval {
        None => Verdict::TooFew,
        Some(interval) if interval.low > 0.0 && duration => Verdict::Slower,
        Some(interval) if interval.high < 0.0 && duration => Verdict::Faster,
        Some(interval) if interval.low > 0.0 => Verdict::More,
        Some(interval) if interval.high < 0.0 => Verdict::Less,
        Some(_) => Verdict::Noise,
    }
}

/// Tables with rows in one session only.
fn only_in_one(a: &Columns, b: &Columns) -> Vec<String> {
    let mut notes = Vec::new();
    for (index, table) in TABLES.iter().enumerate() {
        match (a.groups.contains_key(&index), b.groups.contains_key(&index)) {
            (true, false) => notes.push(format!("{}.csv has rows in A only", table.file)),
            (false, true) => notes.push(format!("{}.csv has rows in B only", table.file)),
            _ => {}
        }
    }
    notes
}

#[cfg(test)]
mod tests;
