//! Where the time of a step goes on the host.

use std::collections::BTreeMap;

use serde_json::json;

use super::millis;
use crate::recorded::Metadata;
use crate::report::Section;
use crate::report::member::{Member, Members};
use crate::report::plot::{Colour, Plot, View, number};
use crate::report::text::{count, duration, figure, label};
use crate::table::cpu_operations_timing::CpuOperation;

/// Operations of a process that are told apart, at most.
const OPERATIONS: usize = 64;
/// What is told of a step by no operation.
const REST: &str = "unattributed";

/// Calls of one operation.
#[derive(Clone, Copy, Debug, Default)]
struct Calls {
    count: u64,
    /// Milliseconds without the operations within it.
    own_ms: f64,
    /// Milliseconds.
    all_ms: f64,
}

/// One process.
#[derive(Clone, Debug, Default)]
struct Process {
    operations: BTreeMap<String, Calls>,
    rank: Option<u32>,
    /// Rows that do not say their own time: those of the predecessor.
    nested: u64,
}

/// The operations of all processes.
#[derive(Clone, Debug, Default)]
pub(super) struct Split {
    processes: Members<Process>,
}

impl Split {
    pub(super) fn row(&mut self, row: &CpuOperation) {
        // Operations of one process count together, whether they know their rank or not.
        let Some(process) = self.processes.of(Member::new(None, row.pid)) else {
            return;
        };
        process.rank = process.rank.or(row.rank);
        let known = process.operations.contains_key(&row.operation);
        let name = if known || process.operations.len() < OPERATIONS {
            row.operation.as_str()
        } else {
            "other"
        };
        let all = millis(row.duration_ms);
        let own = millis(row.self_ms);
        process.nested += u64::from(own.is_none());
        let calls = match process.operations.get_mut(name) {
            Some(calls) => calls,
            None => process.operations.entry(name.to_owned()).or_default(),
        };
        calls.count += 1;
        calls.all_ms += all.unwrap_or(0.0);
        calls.own_ms += own.or(all).unwrap_or(0.0);
    }

    pub(super) fn section(&self, metadata: &Metadata) -> Section {
        let mut processes: Vec<_> = self.processes.iter().collect();
        // What makes the steps comes first: that is what is drawn until another one is chosen.
        processes.sort_by_key(|(member, _)| match role(member.pid, metadata) {
            Some("engine_core") => 0,
            Some("worker") => 1,
            _ => 2,
        });
        let mut views: Vec<View> = processes
            .into_iter()
            .map(|(member, process)| process.view(name(member.pid, process.rank, metadata)))
            .collect();
        if let Some(view) = views.first_mut() {
            view.notes.extend(self.processes.note());
        }
        let plot = Plot::new("split", "Time of the steps by operation", false, views);
        Section {
            id: "split",
            title: "Where a step's time goes",
            lead: "Host time of each operation in a process, without the operations within it, so that the bars add up. \
                   'unattributed' is time of a step that no operation tells.",
            tables: &["cpu_operations_timing"],
            plots: plot.into_iter().collect(),
        }
    }
}

fn role(pid: u32, metadata: &Metadata) -> Option<&str> {
    metadata.process(pid)?.role.as_deref()
}

/// What a process is, in words.
fn name(pid: u32, rank: Option<u32>, metadata: &Metadata) -> String {
    let kind = match role(pid, metadata) {
        Some("engine_core") => "engine",
        Some("api_server") => "API server",
        Some("worker") => "worker",
        _ => "process",
    };
    Member::new(rank, pid).name(kind, metadata)
}

impl Process {
    fn view(&self, name: String) -> View {
        let mut operations: Vec<(&str, Calls)> = self
            .operations
            .iter()
            .map(|(name, calls)| (name.as_str(), *calls))
            .collect();
        operations.sort_by(|one, two| one.1.own_ms.total_cmp(&two.1.own_ms));
        let sum: f64 = operations.iter().map(|one| one.1.own_ms).sum();
        let part = |ms: f64| if sum > 0.0 { 100.0 * ms / sum } else { 0.0 };
        let hover: Vec<String> = operations
            .iter()
            .map(|(_, calls)| {
                format!(
                    "{} in {}, {} % of the time, {} a call",
                    duration(calls.own_ms / 1e3),
                    count(calls.count, "call", "calls"),
                    figure(part(calls.own_ms)),
                    duration(calls.own_ms / 1e3 / calls.count.max(1) as f64)
                )
            })
            .collect();
        let colours: Vec<&str> = operations
            .iter()
            .map(|one| {
                if one.0 == REST {
                    Colour::Grey
                } else {
                    Colour::Blue
                }
                .name()
            })
            .collect();
        let shares: Vec<String> = operations
            .iter()
            .map(|one| format!("{:.1} %", part(one.1.own_ms)))
            .collect();
        let data = json!({
            "type": "bar", "orientation": "h", "name": "time", "showlegend": false,
            "x": operations.iter().map(|one| number(one.1.own_ms)).collect::<Vec<_>>(),
            "y": operations.iter().map(|one| label(one.0)).collect::<Vec<_>>(),
            "text": shares, "textposition": "auto", "hovertext": hover, "hovertemplate": "%{y}: %{hovertext}<extra></extra>",
            "marker": {"color": colours}
        });
        let largest: Vec<String> = operations
            .iter()
            .rev()
            .take(3)
            .map(|(name, calls)| format!("{name} {} %", figure(part(calls.own_ms))))
            .collect();
        let mut notes = Vec::new();
        if self.nested > 0 {
            notes.push(
                "This session does not say which operations ran within others: their time is counted in both."
                    .to_owned(),
            );
        }
        View {
            name,
            summary: format!(
                "{} of host time in {}. Most of it: {}.",
                duration(sum / 1e3),
                count(operations.len() as u64, "operation", "operations"),
                largest.join(", ")
            ),
            notes,
            layout: json!({
                "height": 120 + 24 * operations.len(), "hovermode": "closest",
                "xaxis": {"title": {"text": "ms in the session"}, "rangemode": "tozero"},
                "yaxis": {"type": "category", "automargin": true, "ticklabelstandoff": 6}
            }),
            data: vec![data],
        }
    }
}
