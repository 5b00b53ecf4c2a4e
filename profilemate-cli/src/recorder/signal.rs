//! What a trigger can look at: data, in one place.

use crate::recorder::trigger::Part;

/// Where a signal's values stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// In a column of a table.
    Column(&'static str),
    /// Each row of the table is one occurrence; there is no value.
    Row,
    /// It is no row: a traced process has ended.
    Death,
}

/// Something that a trigger can look at.
#[derive(Clone, Copy, Debug)]
pub struct Signal {
    /// Name in `--trigger`.
    pub name: &'static str,
    /// Table, file name without `.csv`; empty for what is no row.
    pub table: &'static str,
    /// Where in it.
    pub source: Source,
    /// Only rows in which this column holds this text.
    pub only: Option<(&'static str, &'static str)>,
    /// Unit of its values, in words.
    pub unit: &'static str,
    /// What it is.
    pub doc: &'static str,
}

const fn column(
    name: &'static str,
    table: &'static str,
    column: &'static str,
    unit: &'static str,
    doc: &'static str,
) -> Signal {
    Signal {
        name,
        table,
        source: Source::Column(column),
        only: None,
        unit,
        doc,
    }
}

/// Name of the trigger that is always armed.
pub const DEATH: &str = "process_death";

/// Everything that a trigger can look at.
pub const SIGNALS: &[Signal] = &[
    Signal {
        only: Some(("operation", "engine_step")),
        ..column(
            "step_ms",
            "cpu_operations_timing",
            "duration_ms",
            "ms",
            "duration of a step of the engine",
        )
    },
    column(
        "schedule_ms",
        "batch_utilization",
        "schedule_ms",
        "ms",
        "duration of a call of the scheduler",
    ),
    column(
        "forward_ms",
        "forward_pass_timing",
        "forward_time_ms",
        "ms",
        "duration of a forward pass",
    ),
    column(
        "kv_usage",
        "kv_cache_usage",
        "usage_pct",
        "%",
        "how full the KV cache is",
    ),
    column(
        "running",
        "batch_utilization",
        "running_queue_len",
        "requests",
        "requests that run",
    ),
    column(
        "waiting",
        "batch_utilization",
        "waiting_queue_len",
        "requests",
        "requests that wait",
    ),
    column(
        "batch_tokens",
        "batch_utilization",
        "num_tokens",
        "tokens",
        "tokens of a step",
    ),
    column(
        "request_s",
        "request_lifecycle",
        "total_time_sec",
        "s",
        "time of a request from its first schedule call to its end",
    ),
    Signal {
        name: "preemption",
        table: "preemption_events",
        source: Source::Row,
        only: Some(("event", "preempted")),
        unit: "",
        doc: "a request is preempted",
    },
    Signal {
        name: "eviction",
        table: "kv_cache_evictions",
        source: Source::Row,
        only: None,
        unit: "",
        doc: "a block of the KV cache loses its cached content",
    },
    Signal {
        name: DEATH,
        table: "",
        source: Source::Death,
        only: None,
        unit: "",
        doc: "a traced process ends; always armed",
    },
];

impl Signal {
    /// The signal of this name.
    pub fn of(name: &str) -> Option<&'static Self> {
        SIGNALS.iter().find(|signal| signal.name == name)
    }

    /// Whether it has a value to be compared.
    pub const fn has_value(&self) -> bool {
        matches!(self.source, Source::Column(_))
    }

    /// The parts of rows that it looks at.
    pub(super) fn parts(&self) -> Option<Part> {
        let table = crate::table::index_of(self.table)?;
        let columns = crate::table::TABLES[table].columns;
        let at = |name: &str| columns.iter().position(|column| column.name == name);
        let value = match self.source {
            Source::Column(name) => Some(at(name)?),
            Source::Row | Source::Death => None,
        };
        let only = match self.only {
            Some((name, text)) => Some((at(name)?, text)),
            None => None,
        };
        Some(Part {
            table,
            value,
            only,
            pid: at("pid"),
            stamp: at("timestamp_sec"),
        })
    }
}

/// The signals as lines of a help text.
pub fn list() -> String {
    let line = |signal: &Signal| {
        let condition = if signal.has_value() {
            format!("{} > NUMBER", signal.name)
        } else {
            signal.name.to_owned()
        };
        let unit = if signal.unit.is_empty() {
            String::new()
        } else {
            format!(" ({})", signal.unit)
        };
        format!("  {condition:<22} {}{unit}", signal.doc)
    };
    SIGNALS.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_is_in_the_manual() {
        let manual = include_str!("../../../docs/flight-recorder.md");
        for signal in SIGNALS {
            let line = format!("| `{}` | {} | {}", signal.name, signal.doc, signal.unit);
            assert!(manual.contains(line.trim_end()), "{line}");
        }
    }

    #[test]
    fn every_signal_stands_in_a_table_that_there_is() {
        for signal in SIGNALS {
            assert_eq!(
                signal.parts().is_some(),
                signal.source != Source::Death,
                "{}",
                signal.name
            );
        }
        for signal in SIGNALS {
            let names = SIGNALS.iter().filter(|other| other.name == signal.name);
            assert_eq!(names.count(), 1, "{}", signal.name);
        }
    }
}
