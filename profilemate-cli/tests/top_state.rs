//! The live view's numbers, and its screens as ratatui's test backend draws them. `PROFILEMATE_BLESS=1` writes the
//! screens anew.

#[path = "top/screens.rs"]
mod screens;
#[path = "top/story.rs"]
mod story;

use profilemate::sink::watch::{Losses, Pulse, Watcher as _};
use profilemate::table::cell::Stamp;
use profilemate::view::top::Shared;
use profilemate::view::top::draw::{Theme, draw};
use profilemate::view::top::keys::{Choices, Tab};
use profilemate::view::top::view::View;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

fn drawn(view: &View, choices: &Choices, (width, height): (u16, u16), theme: Theme) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| draw(frame, view, choices, theme))
        .unwrap();
    terminal.backend().clone()
}

fn text(backend: &TestBackend) -> String {
    let buffer = backend.buffer();
    let area = buffer.area;
    let lines = (0..area.height).map(|y| {
        let line: String = (0..area.width).map(|x| buffer[(x, y)].symbol()).collect();
        line.trim_end().to_owned() + "\n"
    });
    lines.collect()
}

const PLAIN: Theme = Theme {
    colour: false,
    unicode: false,
};

#[test]
fn the_numbers_are_those_of_the_last_seconds() {
    let view = story::told().view();
    let near = |value: Option<f64>, wanted: f64| {
        let value = value.unwrap_or(f64::NAN);
        assert!(
            (value - wanted).abs() < 0.02 * wanted,
            "{value} is not {wanted}"
        );
    };
    near(view.steps_per_sec, 100.0);
    near(view.tokens_per_sec, 100.0 * 48.5);
    near(view.seq_utilization_pct, 62.5);
    near(view.token_utilization_pct, 31.25);
    near(view.own_cpu_pct, 4.0);
    near(view.graph_hit_pct, 75.0);
    near(Some(view.events_per_sec), 900.0);
    assert_eq!((view.running, view.waiting), (Some(5), Some(2)));
    assert_eq!((view.kv_blocks, view.lost), (Some((366, 400)), 3));
    assert_eq!(
        (view.preemptions, view.evictions, view.finished),
        (Some(2), Some(1), 1)
    );
    // The worker on rank 1 is the slower one, and a step has its time.
    let stage = |name: &str| {
        view.stages
            .iter()
            .find(|stage| stage.name == name)
            .and_then(|stage| stage.ms)
    };
    near(stage("forward"), 3.25);
    near(stage("schedule"), 0.2);
    near(stage("wait"), 0.75);
    near(stage("output"), 0.09);
    assert_eq!(
        view.tokens_history,
        [4000, 4100, 4200, 4300, 4400, 4500, 4600, 4700, 4800, 4900]
    );
}

#[test]
fn each_rank_has_its_own_line() {
    let view = story::told().view();
    let line = |pid: u32| view.ranks.iter().find(|rank| rank.pid == pid).unwrap();
    assert_eq!(line(100).steps_per_sec, None, "a front end makes no steps");
    assert_eq!(line(101).kv_usage_pct, Some(91.5));
    assert_eq!((line(102).rank, line(103).rank), (Some(0), Some(1)));
    assert_eq!(
        (line(102).forward_ms, line(103).forward_p99_ms),
        (Some(4.0), Some(5.0))
    );
}

#[test]
fn requests_are_followed_from_start_to_end() {
    let view = story::told().view();
    let request = |id: &str| {
        view.requests
            .iter()
            .find(|request| request.id == id)
            .unwrap()
    };
    assert_eq!(
        (request("cmpl-slow").state, request("cmpl-slow").preemptions),
        ("running", 1)
    );
    assert_eq!(request("cmpl-slow").age_sec, Some(9.5));
    assert_eq!(
        (request("cmpl-quick").state, request("cmpl-quick").age_sec),
        ("finished", Some(3.0))
    );
    assert_eq!(
        (request("cmpl-early").state, request("cmpl-early").age_sec),
        ("preempted", None)
    );
    assert_eq!(view.requests[0].id, "cmpl-slow");
}

#[test]
fn a_reset_counts_anew_and_forgets_nothing_that_runs() {
    let shared = story::told();
    shared.reset();
    let view = shared.view();
    assert_eq!(
        (view.preemptions, view.evictions, view.finished),
        (Some(0), Some(0), 0)
    );
    assert_eq!(view.steps_per_sec, Some(0.0));
    assert!(
        view.requests
            .iter()
            .any(|request| request.id == "cmpl-slow")
    );
    assert!(
        view.requests
            .iter()
            .all(|request| request.id != "cmpl-quick")
    );
    assert_eq!(view.running, Some(5));
}

#[test]
fn what_was_not_observed_is_absent_and_a_process_that_ended_is_gone() {
    let empty = Shared::default().view();
    assert_eq!(
        (empty.steps_per_sec, empty.preemptions, empty.kv_usage_pct),
        (None, None, None)
    );
    assert!(empty.stages.iter().all(|stage| stage.ms.is_none()));
    let mut shared = story::told();
    shared.pulse(&Pulse {
        now: Stamp(11_000_000_000),
        events: 0,
        lost: 0,
        losses: Losses::default(),
        costs: Vec::new(),
        began_unix_ns: None,
        overhead: None,
        processes: Vec::new(),
    });
    let view = shared.view();
    assert_eq!(
        (view.steps_per_sec, view.running, view.ranks.len()),
        (None, None, 0)
    );
}

#[test]
fn the_screens_are_as_they_were_seen_and_approved() {
    let view = story::told().view();
    let of = |tab: Tab| Choices {
        tab,
        ..Choices::default()
    };
    let cases = [
        ("overview", of(Tab::Overview), (80, 24)),
        ("ranks", of(Tab::Ranks), (80, 24)),
        ("requests", of(Tab::Requests), (80, 24)),
        ("graphs", of(Tab::Graphs), (80, 24)),
        (
            "help",
            Choices {
                help: true,
                ..Choices::default()
            },
            (80, 24),
        ),
        ("narrow", of(Tab::Overview), (50, 30)),
        ("wide", of(Tab::Overview), (132, 40)),
        ("too_small", of(Tab::Overview), (30, 8)),
    ];
    for (name, choices, size) in cases {
        screens::assert_same(name, &text(&drawn(&view, &choices, size, PLAIN)));
    }
    screens::assert_same(
        "empty",
        &text(&drawn(
            &View::default(),
            &of(Tab::Overview),
            (80, 24),
            PLAIN,
        )),
    );
}

#[test]
fn no_size_makes_it_panic() {
    let view = story::told().view();
    for width in [1, 20, 39, 40, 41, 71, 72, 80, 200] {
        for height in [1, 2, 11, 12, 13, 18, 24, 50] {
            for tab in Tab::ALL {
                let choices = Choices {
                    tab,
                    scroll: 100,
                    ..Choices::default()
                };
                drawn(&view, &choices, (width, height), PLAIN);
            }
        }
    }
}

#[test]
fn without_colour_no_cell_has_one_and_the_words_are_the_same() {
    let view = story::told().view();
    let choices = Choices::default();
    let colourful = drawn(
        &view,
        &choices,
        (80, 24),
        Theme {
            colour: true,
            unicode: false,
        },
    );
    let plain = drawn(&view, &choices, (80, 24), PLAIN);
    let coloured = |backend: &TestBackend| {
        backend
            .buffer()
            .content
            .iter()
            .any(|cell| cell.fg != ratatui::style::Color::Reset)
    };
    assert!(coloured(&colourful) && !coloured(&plain));
    assert_eq!(text(&colourful), text(&plain));
}
