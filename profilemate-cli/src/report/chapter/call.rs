//! Calls over time: of encoders, and of the methods that the user named.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::json;

use super::{millis, seconds};
use crate::recorded::Metadata;
use crate::report::Section;
use crate::report::member::{Member, Members};
use crate::report::plot::{Colour, Plot, View, axis, dots, share, time_axis};
use crate::report::text::{count, duration, label};
use crate::report::thin::{Thin, note};
use crate::table::encoder_decoder_timing::EncoderCall;
use crate::table::methods::MethodCall;

/// Names of a process that are told apart, at most.
const NAMES: usize = 24;
/// Names that the summary has numbers of, at most.
const TOLD: usize = 4;

/// Durations by name.
type Names = BTreeMap<String, Thin>;

/// Encoders and methods.
#[derive(Clone, Debug, Default)]
pub(super) struct Call {
    encoders: Members<Names>,
    methods: Members<Names>,
}

fn add(names: Option<&mut Names>, name: &str, at: f64, ms: Option<f64>) {
    let Some(names) = names else {
        return;
    };
    let known = names.contains_key(name) || names.len() < NAMES;
    let name = if known { name } else { "other" };
    match names.get_mut(name) {
        Some(thin) => thin.add(at, ms),
        None => names.entry(name.to_owned()).or_default().add(at, ms),
    }
}

impl Call {
    pub(super) fn encoder(&mut self, row: &EncoderCall) {
        let names = self.encoders.of(Member::new(row.rank, row.pid));
        add(
            names,
            row.component,
            seconds(row.timestamp_sec),
            millis(row.duration_ms),
        );
    }

    pub(super) fn method(&mut self, row: &MethodCall) {
        let names = self.methods.of(Member::new(None, row.pid));
        add(
            names,
            &row.method,
            seconds(row.timestamp_sec),
            millis(row.duration_ms),
        );
    }

    pub(super) fn encoders(&self, metadata: &Metadata) -> Section {
        Section {
            id: "encoders",
            title: "Encoders",
            lead: "Calls of encoders and of what stands beside them, on the host.",
            tables: &["encoder_decoder_timing"],
            plots: plot("encoder-calls", &self.encoders, "worker", metadata),
        }
    }

    pub(super) fn methods(&self, metadata: &Metadata) -> Section {
        Section {
            id: "methods",
            title: "Methods of your own",
            lead: "Calls of the methods that were given with --method.",
            tables: &["methods"],
            plots: plot("method-calls", &self.methods, "process", metadata),
        }
    }
}

fn plot(id: &str, members: &Members<Names>, kind: &str, metadata: &Metadata) -> Vec<Plot> {
    let series = members.iter().map(|one| one.1.len()).sum();
    let mut views: Vec<View> = members
        .iter()
        .map(|(member, names)| view(member.name(kind, metadata), names, share(series)))
        .collect();
    if let Some(view) = views.first_mut() {
        view.notes.extend(members.note());
    }
    Plot::new(id, "Duration of each call", true, views)
        .into_iter()
        .collect()
}

fn view(name: String, names: &Names, most: usize) -> View {
    let mut all = Vec::new();
    let mut told = Vec::new();
    let colours = Colour::CYCLE.iter().cycle();
    let data = names
        .iter()
        .zip(colours)
        .map(|((name, thin), colour)| {
            let drawn = thin.drawn(most);
            let mut text = format!("{name}: {}", count(drawn.rows, "call", "calls"));
            if let (Some(p50), Some(max)) = (thin.all().quantile(0.5), thin.all().max()) {
                // Writing to a `String` cannot fail.
                let _ = write!(
                    text,
                    ", median {}, longest {}",
                    duration(p50 / 1e3),
                    duration(max / 1e3)
                );
            }
            told.push(text);
            let trace = dots(name, *colour, &drawn, "ms");
            all.push((label(name), drawn));
            trace
        })
        .collect();
    if told.len() > TOLD {
        let more = told.len() - TOLD;
        told.truncate(TOLD);
        told.push(format!("{more} more"));
    }
    View {
        name,
        summary: told.join("; ") + ".",
        notes: note(&all).into_iter().collect(),
        data,
        layout: json!({"height": 340, "hovermode": "closest", "xaxis": time_axis(), "yaxis": axis("ms")}),
    }
}
