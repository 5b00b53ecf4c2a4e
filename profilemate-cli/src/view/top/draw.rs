//! The screen: numbers and choices in, cells out. Usable at 80x24, without colour, and at any other size.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::bar;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Sparkline};

use super::keys::{Choices, Tab};
use super::panels;
use super::view::View;

/// Least size at which anything useful can be shown.
const LEAST: (u16, u16) = (40, 12);
/// From this width on, the lower half has two columns.
const WIDE: u16 = 72;

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// Colours.
    pub colour: bool,
    /// More than ASCII.
    pub unicode: bool,
}

/// For what should catch the eye without colours too.
pub(super) fn strong() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

impl Theme {
    /// For a number that is fine below `high` and alarming above.
    fn level(self, value: Option<f64>, high: f64) -> Style {
        match value {
            Some(value) if self.colour && value >= high => Style::new().fg(Color::Red),
            Some(_) if self.colour => Style::new().fg(Color::Green),
            Some(value) if value >= high => strong(),
            _ => Style::new(),
        }
    }

    /// For a count that should be zero.
    fn alarm(self, count: u64) -> Style {
        if count == 0 {
            return Style::new();
        }
        let style = strong();
        if self.colour {
            style.fg(Color::Red)
        } else {
            style
        }
    }
}

/// A number, or a dash for what was not observed.
pub(super) fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
}

pub(super) fn count<T: std::fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, view: &View, choices: &Choices, theme: Theme) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!(
            "too small: {}x{}, not {}x{}",
            area.width, area.height, LEAST.0, LEAST.1
        );
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let [header, tabs, body, losses, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(2),
        Constraint::Min(1),
        Constraint::Length(1),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(head(view, choices)), header);
    frame.render_widget(Paragraph::new(tab_line(choices)), tabs);
    match (choices.help, choices.tab) {
        (true, _) => panels::help(frame, body),
        (false, Tab::Overview) => overview(frame, body, view, choices, theme),
        (false, Tab::Ranks) => panels::ranks(frame, body, view, choices),
        (false, Tab::Requests) => panels::requests(frame, body, view, choices),
        (false, Tab::Graphs) => panels::graphs(frame, body, view, choices),
    }
    frame.render_widget(Paragraph::new(cost(view, theme)), losses);
    frame.render_widget(Paragraph::new(key_line(choices)), keys);
}

fn head(view: &View, choices: &Choices) -> Line<'static> {
    let seconds = view.elapsed_sec.max(0.0) as u64;
    let engines = view
        .ranks
        .iter()
        .filter(|rank| rank.role == "engine_core")
        .count();
    let workers = view
        .ranks
        .iter()
        .filter(|rank| rank.role == "worker")
        .count();
    let mut text = format!(
        "profilemate top  {:02}:{:02}:{:02}  engines {engines}  workers {workers}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    );
    if view.ranks.is_empty() {
        text.push_str("  attaching");
    }
    if choices.paused {
        text.push_str("  PAUSED");
    }
    Line::styled(text, strong())
}

fn tab_line(choices: &Choices) -> Line<'static> {
    let mut spans = Vec::new();
    for tab in Tab::ALL {
        let chosen = tab == choices.tab;
        // Brackets, because without colours and attributes the chosen one must be seen too.
        let text = if chosen {
            format!("[{}] ", tab.name())
        } else {
            format!(" {}  ", tab.name())
        };
        spans.push(Span::styled(
            text,
            if chosen { strong() } else { Style::new() },
        ));
    }
    Line::from(spans)
}

fn key_line(choices: &Choices) -> String {
    if choices.typing {
        return format!("filter: {}_   Enter keeps, Esc clears", choices.filter);
    }
    "q quit  ? help  p pause  r reset  Tab panel  arrows scroll  s sort  / filter".to_owned()
}

fn cost(view: &View, theme: Theme) -> Line<'static> {
    let rss = view
        .own_rss_bytes
        .map(|bytes| bytes as f64 / f64::from(1 << 20));
    Line::from(vec![
        Span::raw(format!("events {:.0}/s  ", view.events_per_sec)),
        Span::styled(format!("lost {}", view.lost), theme.alarm(view.lost)),
        Span::raw(format!(
            "  tracer {} % CPU, {} MiB  target stood {} ms",
            number(view.own_cpu_pct, 1),
            number(rss, 0),
            number(view.target_stopped_ms, 1)
        )),
    ])
}

fn overview(frame: &mut Frame<'_>, area: Rect, view: &View, choices: &Choices, theme: Theme) {
    let [rates, history, bars, counts, _, below] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(3),
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Min(0),
    ])
    .areas(area);
    let line = format!(
        "Steps {:>9} /s    Tokens {:>9} /s    {}",
        number(view.steps_per_sec, 1),
        number(view.tokens_per_sec, 0),
        peak(&view.tokens_history)
    );
    frame.render_widget(Paragraph::new(Line::styled(line, strong())), rates);
    spark(frame, history, &view.tokens_history, theme);
    let width = usize::from(area.width);
    let of = |pair: Option<(i64, i64)>, what: &str| {
        pair.map_or_else(
            || format!("-/- {what}"),
            |(used, all)| format!("{used}/{all} {what}"),
        )
    };
    let lines = vec![
        bar_line(
            "Batch",
            view.seq_utilization_pct,
            &of(view.seqs, "sequences"),
            width,
            Style::new(),
        ),
        bar_line(
            "Budget",
            view.token_utilization_pct,
            "of a step's tokens",
            width,
            Style::new(),
        ),
        bar_line(
            "KV cache",
            view.kv_usage_pct,
            &of(view.kv_blocks, "blocks"),
            width,
            theme.level(view.kv_usage_pct, 90.0),
        ),
    ];
    frame.render_widget(Paragraph::new(lines), bars);
    frame.render_widget(Paragraph::new(count_lines(view, theme)), counts);
    if below.width >= WIDE {
        let [left, right] =
            Layout::horizontal([Constraint::Length(38), Constraint::Min(0)]).areas(below);
        stages(frame, left, view);
        panels::requests(frame, right, view, choices);
    } else {
        let [upper, lower] =
            Layout::vertical([Constraint::Length(8), Constraint::Min(0)]).areas(below);
        stages(frame, upper, view);
        panels::requests(frame, lower, view, choices);
    }
}

fn peak(history: &[u64]) -> String {
    history
        .iter()
        .max()
        .map_or_else(String::new, |peak| format!("peak {peak} in 1 s"))
}

fn count_lines(view: &View, theme: Theme) -> Vec<Line<'static>> {
    let preempted = view.preemptions.unwrap_or(0);
    vec![
        Line::raw(format!(
            "Requests  running {}  waiting {}  finished {}    Graphs hit {} %",
            count(view.running),
            count(view.waiting),
            view.finished,
            number(view.graph_hit_pct, 1)
        )),
        Line::from(vec![
            Span::raw("Pressure  "),
            Span::styled(
                format!("preemptions {}", count(view.preemptions)),
                theme.alarm(preempted),
            ),
            Span::raw(format!(
                "  evictions {} ({:.0}/s)",
                count(view.evictions),
                view.evictions_per_sec
            )),
        ]),
    ]
}

/// Columns of a bar's label and of its number.
const LABEL: usize = 9;
const NUMBER: usize = 8;
/// Columns of the text behind a bar.
const BEHIND: usize = 20;

fn bar_line(
    label: &str,
    pct: Option<f64>,
    behind: &str,
    width: usize,
    style: Style,
) -> Line<'static> {
    let room = width.saturating_sub(LABEL + NUMBER + BEHIND + 5);
    Line::from(vec![
        Span::raw(format!("{label:<LABEL$}[")),
        Span::styled(strokes(pct.map(|pct| pct / 100.0), room), style),
        Span::raw(format!("]{:>NUMBER$} %  {behind}", number(pct, 1))),
    ])
}

/// A bar of strokes: `part` (0 to 1) of `room` columns.
fn strokes(part: Option<f64>, room: usize) -> String {
    let filled = (part.unwrap_or(0.0).clamp(0.0, 1.0) * room as f64).round() as usize;
    format!(
        "{}{}",
        "|".repeat(filled),
        " ".repeat(room.saturating_sub(filled))
    )
}

fn stages(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let most = view
        .stages
        .iter()
        .filter_map(|stage| stage.ms)
        .fold(0.0, f64::max);
    let mut lines = vec![Line::styled("A step's time, ms", strong())];
    for stage in &view.stages {
        let part = stage.ms.filter(|_| most > 0.0).map(|ms| ms / most);
        lines.push(Line::raw(format!(
            "{:<LABEL$}{:>NUMBER$} {}",
            stage.name,
            number(stage.ms, 3),
            strokes(part, 16)
        )));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn spark(frame: &mut Frame<'_>, area: Rect, history: &[u64], theme: Theme) {
    let set = if theme.unicode {
        bar::NINE_LEVELS
    } else {
        ASCII
    };
    let shown = history.len().saturating_sub(usize::from(area.width));
    let line = Sparkline::default().data(&history[shown..]).bar_set(set);
    frame.render_widget(line, area);
}

/// Levels of a sparkline for terminals that know ASCII only.
const ASCII: bar::Set<'static> = bar::Set {
    full: "#",
    seven_eighths: "%",
    three_quarters: "*",
    five_eighths: "+",
    half: "=",
    three_eighths: "-",
    one_quarter: ":",
    one_eighth: ".",
    empty: " ",
};

/// The screen as text, for `--once`.
pub fn text(view: &View, width: u16, height: u16) -> String {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    let theme = Theme {
        colour: false,
        unicode: false,
    };
    let choices = Choices::default();
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let Ok(_drawn) = terminal.draw(|frame| draw(frame, view, &choices, theme));
    let buffer = terminal.backend().buffer();
    let lines = (0..height.saturating_sub(1)).map(|y| {
        let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        line.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}
