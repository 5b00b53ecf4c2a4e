//! A plot as data, in the plotting library's own shape. Colours are names that the page resolves, by light or dark.

use serde::Serialize;
use serde_json::{Value, json};

use super::text::label;
use super::thin::Drawn;
use crate::sink::summary::rounded;

/// Points of a plot with all of its views, as far as each series keeps enough to be seen.
const POINTS: usize = 48_000;
/// Points of a series, at most.
const MOST: usize = 4_096;
/// And at least.
const LEAST: usize = 400;

/// Points of each of so many series.
pub(super) fn share(series: usize) -> usize {
    (POINTS / series.max(1)).clamp(LEAST, MOST)
}

/// What is drawn in one place of the page: one view for each engine or worker, of which one is shown at a time.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Plot {
    /// Name in the page.
    pub(super) id: String,
    /// Heading.
    #[serde(skip)]
    pub(super) title: String,
    /// Whether the horizontal axis is the session's time, and moves with the others'.
    pub(super) over_time: bool,
    /// The views; never empty.
    pub(super) views: Vec<View>,
}

impl Plot {
    /// A plot with these views; none where there are none.
    pub(super) fn new(id: &str, title: &str, over_time: bool, views: Vec<View>) -> Option<Self> {
        (!views.is_empty()).then(|| Self {
            id: id.to_owned(),
            title: title.to_owned(),
            over_time,
            views,
        })
    }
}

/// One engine's or worker's drawing.
#[derive(Clone, Debug, Serialize)]
pub(super) struct View {
    /// Whose it is.
    pub(super) name: String,
    /// What it shows, in words and numbers.
    #[serde(skip)]
    pub(super) summary: String,
    /// What limits it.
    #[serde(skip)]
    pub(super) notes: Vec<String>,
    /// The traces.
    pub(super) data: Vec<Value>,
    /// The axes.
    pub(super) layout: Value,
}

/// A colour by what it stands for; `page.js` has one list for light and one for dark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    /// Runs.
    Blue,
    /// Waits.
    Orange,
    /// Decodes.
    Green,
    /// Preempted or lost.
    Red,
    /// Mixed.
    Purple,
    /// Other things.
    Teal,
    /// A limit, or what is not told apart.
    Grey,
}

impl Colour {
    /// Those for things without a meaning of their own, in order.
    pub(super) const CYCLE: [Self; 6] = [
        Self::Blue,
        Self::Orange,
        Self::Green,
        Self::Purple,
        Self::Teal,
        Self::Red,
    ];

    /// As a trace names it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Blue => "@blue",
            Self::Orange => "@orange",
            Self::Green => "@green",
            Self::Red => "@red",
            Self::Purple => "@purple",
            Self::Teal => "@teal",
            Self::Grey => "@grey",
        }
    }

    /// Of a phase of vLLM's steps.
    pub(super) fn of_phase(phase: &str) -> Self {
        match phase {
            "decode" => Self::Green,
            "prefill" => Self::Blue,
            "mixed" => Self::Purple,
            _ => Self::Grey,
        }
    }
}

/// A number of a plot: as exact as the tables.
pub(super) fn number(value: f64) -> Value {
    json!(rounded(value))
}

/// The coordinates of what is drawn.
fn coordinates(drawn: &Drawn) -> (Vec<Value>, Vec<Value>) {
    let points = drawn.points.iter();
    points
        .map(|&(at, value)| (number(at), value.map_or(Value::Null, number)))
        .unzip()
}

/// Values over time that hold until the next one.
pub(super) fn steps(name: &str, colour: Colour, drawn: &Drawn) -> Value {
    let (x, y) = coordinates(drawn);
    json!({
        "type": "scatter", "mode": "lines", "name": label(name), "x": x, "y": y,
        "line": {"color": colour.name(), "width": 1.4, "shape": "hv"}
    })
}

/// Values over time, each for itself; `unit` stands behind the value in the hover text.
pub(super) fn dots(name: &str, colour: Colour, drawn: &Drawn, unit: &str) -> Value {
    let (x, y) = coordinates(drawn);
    let size = if x.len() < 600 { 6 } else { 4 };
    json!({
        "type": "scatter", "mode": "markers", "name": label(name), "x": x, "y": y,
        "marker": {"color": colour.name(), "size": size, "opacity": 0.65},
        "hovertemplate": format!("%{{y:.4~g}} {unit} at %{{x:.3f}} s")
    })
}

/// Puts a trace on the `n`th vertical axis.
pub(super) fn on_axis(mut trace: Value, n: usize) -> Value {
    trace["yaxis"] = json!(format!("y{n}"));
    trace
}

/// The horizontal axis of what happens over time.
pub(super) fn time_axis() -> Value {
    json!({"title": {"text": "seconds since the session's start"}, "zeroline": false})
}

/// A vertical axis from 0 on.
pub(super) fn axis(title: &str) -> Value {
    json!({"title": {"text": title}, "rangemode": "tozero", "zeroline": false})
}

/// A vertical axis in a part of the plot's height, with the horizontal axis at the foot of the whole plot.
pub(super) fn axis_in(title: &str, domain: [f64; 2]) -> Value {
    let mut axis = axis(title);
    axis["domain"] = json!(domain);
    axis
}
