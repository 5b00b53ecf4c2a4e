//! The lists: ranks, requests, graphs; and the help.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Row, Table};

use super::draw::{count, number, strong};
use super::keys::Choices;
use super::view::View;

/// Columns of a table: heading, width, and on which side the text stands.
type Columns<const N: usize> = [(&'static str, Constraint, Alignment); N];

/// Draws a table from line `scroll` on, with a heading.
fn table<const N: usize>(
    frame: &mut Frame<'_>,
    area: Rect,
    columns: Columns<N>,
    rows: Vec<[String; N]>,
    scroll: usize,
) {
    let line = |texts: [String; N]| {
        let cells = texts.into_iter().zip(columns);
        Row::new(cells.map(|(text, (_, _, side))| Line::raw(text).alignment(side)))
    };
    let heading = line(columns.map(|(name, ..)| name.to_owned())).style(strong());
    // A list that has become shorter shows its last line.
    let first = scroll.min(rows.len().saturating_sub(1));
    let rows = rows.into_iter().skip(first).map(line);
    let widths = columns.map(|(_, width, _)| width);
    frame.render_widget(Table::new(rows, widths).header(heading), area);
}

fn words(name: &'static str, width: u16) -> (&'static str, Constraint, Alignment) {
    (name, Constraint::Length(width), Alignment::Left)
}

fn numbers(name: &'static str, width: u16) -> (&'static str, Constraint, Alignment) {
    (name, Constraint::Length(width), Alignment::Right)
}

pub(super) fn ranks(frame: &mut Frame<'_>, area: Rect, view: &View, choices: &Choices) {
    let columns = [
        numbers("pid", 8),
        words("part", 11),
        numbers("dp", 2),
        numbers("tp", 2),
        numbers("steps/s", 7),
        numbers("tokens/s", 8),
        numbers("run", 4),
        numbers("wait", 4),
        numbers("KV %", 5),
        numbers("fwd ms", 8),
        numbers("p99", 8),
    ];
    let rows = view.ranks.iter().map(|rank| {
        [
            rank.pid.to_string(),
            rank.role.clone(),
            count(rank.engine),
            count(rank.rank),
            number(rank.steps_per_sec, 1),
            number(rank.tokens_per_sec, 0),
            count(rank.running),
            count(rank.waiting),
            number(rank.kv_usage_pct, 1),
            number(rank.forward_ms, 3),
            number(rank.forward_p99_ms, 3),
        ]
    });
    table(frame, area, columns, rows.collect(), choices.scroll);
}

pub(super) fn requests(frame: &mut Frame<'_>, area: Rect, view: &View, choices: &Choices) {
    let columns = [
        ("slowest requests", Constraint::Min(12), Alignment::Left),
        words("state", 9),
        numbers("sec", 7),
        numbers("pre", 4),
    ];
    let rows = choices.requests(view).into_iter().map(|request| {
        [
            request.id.clone(),
            request.state.to_owned(),
            number(request.age_sec, 2),
            request.preemptions.to_string(),
        ]
    });
    table(frame, area, columns, rows.collect(), choices.scroll);
}

pub(super) fn graphs(frame: &mut Frame<'_>, area: Rect, view: &View, choices: &Choices) {
    if view.graphs.is_empty() {
        let text = "no replay of a CUDA graph was observed";
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let columns = [
        words("mode", 12),
        numbers("padded to", 10),
        numbers("replays", 10),
        numbers("padding %", 10),
    ];
    let rows = view.graphs.iter().map(|graph| {
        [
            graph.mode.clone(),
            count(graph.size),
            graph.replays.to_string(),
            number(graph.padding_pct, 1),
        ]
    });
    table(frame, area, columns, rows.collect(), choices.scroll);
}

/// What each key does, and what the numbers are.
const HELP: [&str; 18] = [
    "q, Ctrl-C    quit: everything is put back",
    "?            this page",
    "p, space     the numbers stand still; the session goes on",
    "r            count anew from now on",
    "Tab, arrows  the next panel, the one before",
    "Up, Down     scroll the list; PgUp, PgDn, Home, End too",
    "s            sort requests by age, preemptions or id",
    "/            show only requests whose id holds a text",
    "",
    "Rates and means are of the last 2 seconds. A dash is what was not observed.",
    "Batch        sequences of a step by the most there can be (mean)",
    "Budget       tokens of a step by the most there can be (mean)",
    "KV cache     blocks in use, of the fullest engine",
    "A step's time, on the slowest rank: wait is the bookkeeping after the model",
    "             ran, in which the host waits for the GPU",
    "Graphs hit   forward passes that replayed a CUDA graph",
    "pre          preemptions of a request",
    "target stood time for which threads of the server stood still, at the attach",
];

pub(super) fn help(frame: &mut Frame<'_>, area: Rect) {
    let lines: Vec<Line<'_>> = HELP.iter().map(|line| Line::raw(*line)).collect();
    frame.render_widget(Paragraph::new(lines), area);
}
