//! Triggers: how they are written, and when rows set them off. Pure.

use std::collections::HashMap;

use super::signal::{SIGNALS, Signal, Source};
use crate::table::AnyRow;
use crate::table::cell::{Cell, Stamp};

/// Processes for which it is remembered whether a condition holds, at most, over all triggers.
const CAPACITY: usize = 4_096;

/// How a value is compared with a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `<`
    Below,
    /// `<=`
    AtMost,
}

impl Comparison {
    fn holds(self, value: f64, threshold: f64) -> bool {
        match self {
            Self::Above => value > threshold,
            Self::AtLeast => value >= threshold,
            Self::Below => value < threshold,
            Self::AtMost => value <= threshold,
        }
    }
}

/// Longer ones first: `>` is a part of `>=`.
const COMPARISONS: [(&str, Comparison); 4] = [
    (">=", Comparison::AtLeast),
    ("<=", Comparison::AtMost),
    (">", Comparison::Above),
    ("<", Comparison::Below),
];

/// One trigger.
#[derive(Clone, Debug)]
pub struct Trigger {
    /// As it was written.
    pub text: String,
    /// What it looks at.
    pub signal: &'static Signal,
    /// What a value must be; `None` for what has no value.
    pub condition: Option<(Comparison, f64)>,
}

/// What is wrong with a trigger as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No name stands there.
    #[error(
        "`{text}` names nothing; write a name such as `preemption`, or a condition such as `step_ms>200`"
    )]
    Empty {
        /// As it was written.
        text: String,
    },
    /// There is no such name.
    #[error("there is no trigger `{name}`; there are {}", names())]
    Unknown {
        /// The name.
        name: String,
    },
    /// A condition is missing.
    #[error("`{name}` needs a condition, such as `{name}>{example}` ({unit})")]
    NoCondition {
        /// The name.
        name: &'static str,
        /// A number that could stand there.
        example: &'static str,
        /// Unit of its values.
        unit: &'static str,
    },
    /// There is a condition where nothing can be compared.
    #[error("`{name}` happens or does not; it has no value to compare")]
    NoValue {
        /// The name.
        name: &'static str,
    },
    /// What stands behind the comparison is no number.
    #[error(
        "`{text}` is not a number that `{name}` can be compared with ({unit}, without the unit)"
    )]
    Number {
        /// What stands there.
        text: String,
        /// The name.
        name: &'static str,
        /// Unit of its values.
        unit: &'static str,
    },
}

fn names() -> String {
    let names: Vec<&str> = SIGNALS.iter().map(|signal| signal.name).collect();
    names.join(", ")
}

impl std::str::FromStr for Trigger {
    type Err = Error;

    /// `NAME`, or `NAME OP NUMBER` with or without spaces.
    fn from_str(text: &str) -> Result<Self, Error> {
        let word = text.trim();
        let end = word
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(word.len());
        let (name, rest) = (&word[..end], word[end..].trim_start());
        if name.is_empty() {
            return Err(Error::Empty {
                text: text.to_owned(),
            });
        }
        let Some(signal) = Signal::of(name) else {
            return Err(Error::Unknown {
                name: name.to_owned(),
            });
        };
        let operator = COMPARISONS
            .iter()
            .find_map(|(sign, comparison)| Some((*comparison, rest.strip_prefix(sign)?)));
        let condition = match (signal.has_value(), rest.is_empty(), operator) {
            (false, true, _) => None,
            (false, false, _) => return Err(Error::NoValue { name: signal.name }),
            (true, _, Some((comparison, number))) => {
                Some((comparison, number_of(number.trim(), signal)?))
            }
            (true, _, None) => {
                return Err(Error::NoCondition {
                    name: signal.name,
                    example: if signal.unit == "%" { "95" } else { "200" },
                    unit: signal.unit,
                });
            }
        };
        Ok(Self {
            text: word.to_owned(),
            signal,
            condition,
        })
    }
}

fn number_of(text: &str, signal: &'static Signal) -> Result<f64, Error> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    number.ok_or_else(|| Error::Number {
        text: text.to_owned(),
        name: signal.name,
        unit: signal.unit,
    })
}

/// What of a row a signal looks at: indices of a table and of its columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) table: usize,
    pub(super) value: Option<usize>,
    pub(super) only: Option<(usize, &'static str)>,
    pub(super) pid: Option<usize>,
    pub(super) stamp: Option<usize>,
}

/// A trigger that was set off.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The trigger as it was written.
    pub trigger: String,
    /// What happened, in plain words.
    pub reason: String,
    /// When, on the session's own time.
    pub stamp: Option<Stamp>,
    /// The value that met its condition.
    pub value: Option<f64>,
    /// Process.
    pub pid: Option<u32>,
}

/// Looks at rows.
#[derive(Debug, Default)]
pub struct Watch {
    armed: Vec<(Trigger, Part)>,
    death: bool,
    /// By trigger and process: whether its condition holds.
    holds: HashMap<(usize, u32), bool>,
}

impl Watch {
    /// Looks for these. The end of a process is looked for in any case.
    pub fn new(triggers: &[Trigger]) -> Self {
        let part = |trigger: &Trigger| Some((trigger.clone(), trigger.signal.parts()?));
        Self {
            armed: triggers.iter().filter_map(part).collect(),
            death: true,
            holds: HashMap::new(),
        }
    }

    /// Takes a row. A condition sets its trigger off when it begins to hold in a process, not while it goes on.
    pub fn row(&mut self, row: &AnyRow) -> Option<Hit> {
        let table = row.table();
        let mut hit = None;
        for (index, (trigger, part)) in self.armed.iter().enumerate() {
            if part.table != table {
                continue;
            }
            let Some(seen) = look(row, part) else {
                continue;
            };
            let Some((comparison, threshold)) = trigger.condition else {
                hit = hit.or_else(|| Some(seen.hit(trigger)));
                continue;
            };
            let Some(value) = seen.value else { continue };
            let holds = comparison.holds(value, threshold);
            let key = (index, seen.pid.unwrap_or(0));
            if self.holds.len() >= CAPACITY && !self.holds.contains_key(&key) {
                self.holds.clear();
            }
            let before = self.holds.insert(key, holds).unwrap_or(false);
            if holds && !before {
                hit = hit.or_else(|| Some(seen.hit(trigger)));
            }
        }
        hit
    }

    /// A traced process has ended.
    pub fn death(&self, pid: u32, role: &str) -> Option<Hit> {
        self.death.then(|| Hit {
            trigger: super::signal::DEATH.to_owned(),
            reason: format!("process {pid} ({role}) ended"),
            stamp: None,
            value: None,
            pid: Some(pid),
        })
    }
}

/// What a signal sees of a row.
struct Sight {
    value: Option<f64>,
    pid: Option<u32>,
    stamp: Option<Stamp>,
}

impl Sight {
    fn hit(&self, trigger: &Trigger) -> Hit {
        let signal = trigger.signal;
        let reason = match (self.value, signal.source) {
            (Some(value), Source::Column(_)) => {
                format!("{}: {value:.3} {}", signal.doc, signal.unit)
            }
            _ => signal.doc.to_owned(),
        };
        Hit {
            trigger: trigger.text.clone(),
            reason: match self.pid {
                Some(pid) => format!("{reason} in process {pid}"),
                None => reason,
            },
            stamp: self.stamp,
            value: self.value,
            pid: self.pid,
        }
    }
}

/// Looks at a row; `None` if the signal is not for it.
fn look(row: &AnyRow, part: &Part) -> Option<Sight> {
    let mut sight = Sight {
        value: None,
        pid: None,
        stamp: None,
    };
    let mut meant = part.only.is_none();
    let mut index = 0;
    row.cells(&mut |cell| {
        if part.value == Some(index) {
            sight.value = cell.number();
        }
        if part.pid == Some(index) {
            sight.pid = cell.number().map(|pid| pid as u32);
        }
        if part.stamp == Some(index) {
            sight.stamp = cell.number().map(|seconds| Stamp((seconds * 1e9) as i64));
        }
        if let Some((at, text)) = part.only
            && at == index
        {
            meant = holds_text(cell, text);
        }
        index += 1;
    });
    meant.then_some(sight)
}

fn holds_text(cell: &dyn Cell, text: &str) -> bool {
    let mut own = String::new();
    cell.write(&mut own);
    own == text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::table::cell::Real;
    use crate::table::kv_cache_usage::KvCacheUse;
    use crate::table::preemption_events::PreemptionEvent;

    fn trigger(text: &str) -> Trigger {
        text.parse().unwrap()
    }

    fn usage(pid: u32, percent: f64) -> AnyRow {
        KvCacheUse {
            pid,
            timestamp_sec: Stamp(2_000_000_000),
            usage_pct: Some(Real(percent)),
            ..KvCacheUse::default()
        }
        .into()
    }

    #[test]
    fn names_and_conditions_are_read_with_and_without_spaces() {
        for text in ["step_ms>200", "step_ms > 200", "  step_ms >200 "] {
            assert_eq!(trigger(text).condition, Some((Comparison::Above, 200.0)));
        }
        let at_least = trigger("kv_usage>=95.5");
        assert_eq!(at_least.condition, Some((Comparison::AtLeast, 95.5)));
        assert_eq!(trigger("preemption").condition, None);
        assert_eq!(
            trigger("waiting<1").condition,
            Some((Comparison::Below, 1.0))
        );
    }

    #[test]
    fn errors_name_what_is_wrong_and_what_would_be_right() {
        let error = |text: &str| text.parse::<Trigger>().unwrap_err().to_string();
        assert!(error("steps_ms>1").contains("`steps_ms`") && error("x").contains("preemption"));
        assert!(error("step_ms").contains("step_ms>200"));
        assert!(error("kv_usage").contains("kv_usage>95"));
        assert!(error("preemption>3").contains("no value"));
        assert!(error("step_ms>fast").contains("`fast`"));
        assert!(error("step_ms>200ms").contains("without the unit"));
        assert!(error("step_ms=200").contains("step_ms>200"));
        assert!(error(" > 3").contains("names nothing"));
        assert!(error("step_ms>inf").contains("`inf`"));
    }

    #[test]
    fn a_condition_sets_off_when_it_begins_to_hold_in_a_process() {
        let mut watch = Watch::new(&[trigger("kv_usage>95")]);
        let hits: Vec<bool> = [
            (1, 90.0),
            (1, 96.0),
            (1, 97.0),
            (2, 99.0),
            (1, 95.0),
            (1, 95.1),
        ]
        .into_iter()
        .map(|(pid, percent)| watch.row(&usage(pid, percent)).is_some())
        .collect();
        assert_eq!(hits, [false, true, false, true, false, true]);
    }

    #[test]
    fn a_hit_says_what_where_and_when() {
        let mut watch = Watch::new(&[trigger("kv_usage>95")]);
        let hit = watch.row(&usage(7, 96.25)).unwrap();
        assert_eq!((hit.pid, hit.value), (Some(7), Some(96.25)));
        assert_eq!(hit.stamp, Some(Stamp(2_000_000_000)));
        assert_eq!(
            hit.reason,
            "how full the KV cache is: 96.250 % in process 7"
        );
    }

    #[test]
    fn an_event_sets_off_each_time_and_only_where_it_is_meant() {
        let mut watch = Watch::new(&[trigger("preemption")]);
        let row = |event| {
            AnyRow::from(PreemptionEvent {
                event,
                ..PreemptionEvent::default()
            })
        };
        assert!(watch.row(&row("started")).is_none());
        assert!(watch.row(&row("preempted")).is_some());
        assert!(watch.row(&row("preempted")).is_some());
        assert!(watch.row(&usage(1, 100.0)).is_none());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let _read = text.parse::<Trigger>();
        }

        #[test]
        fn what_is_written_is_read_again(
            index in 0..SIGNALS.len(),
            sign in 0..COMPARISONS.len(),
            number in -1e9_f64..1e9,
        ) {
            let signal = &SIGNALS[index];
            let text = if signal.has_value() {
                format!("{}{}{number}", signal.name, COMPARISONS[sign].0)
            } else {
                signal.name.to_owned()
            };
            let read = trigger(&text);
            prop_assert_eq!(read.signal.name, signal.name);
            let expected = signal.has_value().then_some((COMPARISONS[sign].1, number));
            prop_assert_eq!(read.condition, expected);
        }
    }
}
