//! Speculative decoding: how many of the drafted tokens were accepted.

use serde_json::json;

use super::seconds;
use crate::recorded::Metadata;
use crate::report::Section;
use crate::report::member::{Member, Members};
use crate::report::plot::{Colour, Plot, View, axis_in, on_axis, share, steps, time_axis};
use crate::report::text::{figure, thousands};
use crate::report::thin::{Thin, note};
use crate::table::speculative_decoding::SpeculativeStep;

/// One engine.
#[derive(Clone, Debug, Default)]
struct Engine {
    acceptance: Thin,
    drafted: Thin,
    accepted: Thin,
    sums: (f64, f64),
}

/// The drafts of all engines.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    engines: Members<Engine>,
}

impl Draft {
    pub(super) fn row(&mut self, row: &SpeculativeStep) {
        let Some(engine) = self.engines.of(Member::new(row.engine, row.pid)) else {
            return;
        };
        let at = seconds(row.timestamp_sec);
        let value = |number: Option<u64>| number.map(|number| number as f64);
        engine
            .acceptance
            .add(at, row.acceptance_pct.map(|pct| pct.0));
        engine.drafted.add(at, value(row.draft_tokens));
        engine.accepted.add(at, value(row.accepted_tokens));
        engine.sums.0 += value(row.draft_tokens).unwrap_or(0.0);
        engine.sums.1 += value(row.accepted_tokens).unwrap_or(0.0);
    }

    pub(super) fn section(&self, metadata: &Metadata) -> Section {
        let most = share(self.engines.len() * 3);
        let mut views: Vec<View> = self
            .engines
            .iter()
            .map(|(member, engine)| engine.view(member.name("engine", metadata), most))
            .collect();
        if let Some(view) = views.first_mut() {
            view.notes.extend(self.engines.note());
        }
        let plot = Plot::new("drafts", "Drafted and accepted tokens", true, views);
        Section {
            id: "drafts",
            title: "Speculative decoding",
            lead: "Tokens that were drafted ahead in each step, and how many of them the model accepted.",
            tables: &["speculative_decoding"],
            plots: plot.into_iter().collect(),
        }
    }
}

impl Engine {
    fn view(&self, name: String, most: usize) -> View {
        let mut all = Vec::new();
        let mut series = |what: &str, colour, thin: &Thin| {
            let drawn = thin.drawn(most);
            let trace = steps(what, colour, &drawn);
            all.push((what.to_owned(), drawn));
            trace
        };
        let data = vec![
            series("acceptance", Colour::Green, &self.acceptance),
            on_axis(series("drafted", Colour::Orange, &self.drafted), 2),
            on_axis(series("accepted", Colour::Blue, &self.accepted), 2),
        ];
        let (drafted, accepted) = self.sums;
        let summary = if drafted > 0.0 {
            format!(
                "{} of {} drafted tokens were accepted: {} %.",
                thousands(accepted),
                thousands(drafted),
                figure(100.0 * accepted / drafted)
            )
        } else {
            "No token was drafted.".to_owned()
        };
        let mut axis = time_axis();
        axis["anchor"] = json!("y2");
        View {
            name,
            summary,
            notes: note(&all).into_iter().collect(),
            data,
            layout: json!({
                "height": 400, "hovermode": "x unified", "xaxis": axis,
                "yaxis": axis_in("% accepted", [0.5, 1.0]), "yaxis2": axis_in("tokens", [0.0, 0.42])
            }),
        }
    }
}
