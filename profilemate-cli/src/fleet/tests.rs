//! Canned answers: missing nodes, late and future series, several engines, what differs and what does not.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use super::api::{Answer, Engine, Error, Series, Span};
use super::change::{Change, Time};
use super::diagnose::{Diagnosis, Finding};
use super::gather::{self, Measured, Question, Roll};
use super::inventory::{Fleet, State};
use super::measure::{BATCH, FORWARD, Histograms, KV, MEASURES, STEP, TOKENS, WAITING};
use super::selector::Selector;
use super::text;
use super::verdict::Verdicts;

mod rules;

use rules::{faults, told};

const NOW: f64 = 1_700_000_000.0;

fn series(labels: &[(&str, &str)], points: &[(f64, f64)]) -> Series {
    Series {
        labels: labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        points: points.to_vec(),
    }
}

fn answer(series: Vec<Series>) -> Answer {
    Answer {
        series,
        warnings: Vec::new(),
    }
}

fn info(instance: &str, version: &str, told: f64) -> Series {
    let labels = [
        ("job", "profilemate"),
        ("instance", instance),
        ("server", "vllm/8000"),
        ("model", "opt"),
        ("version", version),
        ("pid", "7"),
    ];
    series(&labels, &[(NOW, told)])
}

fn agent(instance: &str, told: f64) -> Series {
    let labels = [
        ("job", "profilemate"),
        ("instance", instance),
        ("version", "0.1.0"),
    ];
    series(&labels, &[(NOW, told)])
}

fn span() -> Span {
    Span::new(NOW, Duration::from_secs(1800), 15)
}

/// A value for each piece, from what is told of a piece.
fn course(labels: &[(&str, &str)], value: impl Fn(u32) -> Option<f64>) -> Series {
    let span = span();
    let points = (0..span.pieces).filter_map(|piece| {
        let at = span.start() + f64::from(piece) * span.step.as_secs_f64();
        Some((at, value(piece)?))
    });
    series(labels, &points.collect::<Vec<_>>())
}

/// Nodes `a`, `b`, ... each with one server; noise of one percent.
fn fleet_of(nodes: &[&str]) -> (Roll, Measured) {
    let roll = Roll {
        now: NOW,
        servers: answer(
            nodes
                .iter()
                .map(|node| info(node, "0.32.0", NOW - 5.0))
                .collect(),
        ),
        agents: answer(nodes.iter().map(|node| agent(node, NOW - 5.0)).collect()),
        ..Roll::default()
    };
    let mut measured = Measured::new();
    for (id, level) in [
        (TOKENS, 1000.0),
        (STEP, 0.02),
        (BATCH, 64.0),
        (WAITING, 5.0),
        (KV, 0.5),
    ] {
        let all = nodes.iter().enumerate().map(|(index, node)| {
            let labels = [
                ("job", "profilemate"),
                ("instance", *node),
                ("server", "vllm/8000"),
            ];
            course(&labels, move |piece| {
                let wave = f64::from((piece * 7 + index as u32 * 3) % 5) - 2.0;
                Some(level * (1.0 + 0.005 * wave))
            })
        });
        measured.insert(id, answer(all.collect()));
    }
    (roll, measured)
}

fn scale(measured: &mut Measured, id: &str, node: &str, factor: f64) {
    let answer = measured.get_mut(id).unwrap();
    let series = answer
        .series
        .iter_mut()
        .find(|one| one.label("instance") == node)
        .unwrap();
    series.points.iter_mut().for_each(|point| point.1 *= factor);
}

fn diagnose_with(roll: &Roll, measured: &Measured, verdicts: &Verdicts) -> Diagnosis {
    let fleet = Fleet::of(roll, &Measured::new());
    Diagnosis::of(&fleet, measured, verdicts, span())
}

fn diagnose(roll: &Roll, measured: &Measured) -> Diagnosis {
    diagnose_with(roll, measured, &Verdicts::default())
}

#[test]
fn the_replica_that_is_slower_is_found_and_what_it_costs() {
    let (roll, mut measured) = fleet_of(&["a", "b", "c", "d", "e"]);
    assert_eq!(diagnose(&roll, &measured).findings, []);
    scale(&mut measured, STEP, "c", 1.5);
    let found = diagnose(&roll, &measured);
    let [Finding::Peer(unlike)] = &found.findings[..] else {
        panic!("{:#?}", found.findings)
    };
    assert_eq!(unlike.server, "vllm/8000 @ c");
    assert_eq!(unlike.differs.len(), 1);
    assert_eq!(
        (unlike.differs[0].measure, unlike.differs[0].worse),
        (STEP, Some(true))
    );
    let lost = unlike.lost_tokens_per_sec.unwrap();
    assert!((450.0..550.0).contains(&lost), "{lost}");
    let text = text::diagnosis(&found);
    assert!(
        text.contains("time of a step: 30.0 ms, others 20.0 ms (+50 %)"),
        "{text}"
    );
    assert!(
        text.contains("looked at 5 servers over 30.0 minutes in 15 pieces"),
        "{text}"
    );
}

#[test]
fn longer_steps_follow_from_larger_batches() {
    let (roll, mut measured) = fleet_of(&["a", "b", "c", "d", "e"]);
    scale(&mut measured, STEP, "c", 1.5);
    scale(&mut measured, BATCH, "c", 2.0);
    let found = diagnose(&roll, &measured);
    let [Finding::Peer(unlike)] = &found.findings[..] else {
        panic!("{:#?}", found.findings)
    };
    let step = unlike
        .differs
        .iter()
        .find(|one| one.measure == STEP)
        .unwrap();
    assert_eq!(step.follows_from, Some(BATCH));
    assert_eq!(unlike.lost_tokens_per_sec, None);
}

#[test]
fn other_versions_are_no_peers_and_one_alone_is_named_so() {
    let (mut roll, mut measured) = fleet_of(&["a", "b", "c", "d"]);
    roll.servers.series[3] = info("d", "0.17.1", NOW - 5.0);
    scale(&mut measured, STEP, "d", 3.0);
    let found = diagnose(&roll, &measured);
    assert_eq!(found.findings, []);
    assert_eq!(found.alone, ["vllm/8000 @ d"]);
}

#[test]
fn of_two_the_worse_is_told_with_the_doubt() {
    let (roll, mut measured) = fleet_of(&["a", "b"]);
    scale(&mut measured, STEP, "b", 1.5);
    let found = diagnose(&roll, &measured);
    let [Finding::Peer(unlike)] = &found.findings[..] else {
        panic!("{:#?}", found.findings)
    };
    assert!(unlike.one_peer && unlike.server.ends_with("@ b"));
}

#[test]
fn a_missing_node_is_named_and_is_nobodys_peer() {
    let (mut roll, mut measured) = fleet_of(&["a", "b", "c", "d"]);
    // The node of `d` has been gone for ten minutes: its last pieces are empty, and nothing of it is told now.
    roll.servers.series.pop();
    roll.servers_seen = answer(vec![info("d", "0.32.0", NOW - 600.0)]);
    roll.agents.series.pop();
    roll.agents_seen = answer(vec![agent("d", NOW - 600.0)]);
    let up = [("job", "profilemate"), ("instance", "d")];
    roll.scraped = answer(vec![series(&up, &[(NOW, 0.0)])]);
    for answer in measured.values_mut() {
        answer.series[3].points.truncate(9);
    }
    scale(&mut measured, STEP, "d", 9.0);
    let found = diagnose(&roll, &measured);
    assert_eq!(found.findings, []);
    assert_eq!(found.judged, 3);
    assert_eq!(found.not_judged["vllm/8000 @ d"], "silent for 600 s");
    assert_eq!(
        found.agents["d"],
        "silent for 600 s, the engine does not reach it"
    );
    let fleet = Fleet::of(&roll, &Measured::new());
    assert_eq!(fleet.servers[3].state, State::Silent { age_sec: 600.0 });
    assert!(text::status(&fleet).contains("3 of 4 servers tell; 3 of 4 agents are well"));
}

#[test]
fn a_server_that_has_just_started_is_not_judged_yet() {
    let (roll, mut measured) = fleet_of(&["a", "b", "c"]);
    measured.get_mut(TOKENS).unwrap().series[0]
        .points
        .drain(..12);
    let found = diagnose(&roll, &measured);
    assert_eq!(
        found.not_judged["vllm/8000 @ a"],
        "tokens were told for 3 of 15 pieces of the window"
    );
}

#[test]
fn late_series_and_clocks_that_are_ahead_are_named() {
    let roll = Roll {
        now: NOW,
        servers: answer(vec![
            info("late", "1", NOW - 290.0),
            info("well", "1", NOW - 10.0),
        ]),
        servers_seen: answer(vec![
            info("late", "1", NOW - 290.0),
            info("well", "1", NOW),
            info("ahead", "1", NOW + 400.0),
        ]),
        ..Roll::default()
    };
    let fleet = Fleet::of(&roll, &Measured::new());
    let states: BTreeMap<&str, State> = fleet
        .servers
        .iter()
        .map(|server| (server.instance.as_str(), server.state))
        .collect();
    assert_eq!(states["late"], State::Late { age_sec: 290.0 });
    assert_eq!(states["well"], State::Telling { age_sec: 10.0 });
    assert_eq!(states["ahead"], State::Ahead { by_sec: 400.0 });
}

#[test]
fn a_server_that_was_restarted_is_one_and_its_last_word_counts() {
    let mut old = info("a", "0.17.1", NOW - 200.0);
    old.labels.insert("pid".to_owned(), "6".to_owned());
    let roll = Roll {
        now: NOW,
        servers: answer(vec![old, info("a", "0.32.0", NOW - 5.0)]),
        ..Roll::default()
    };
    let fleet = Fleet::of(&roll, &Measured::new());
    assert_eq!(fleet.servers.len(), 1);
    assert_eq!(fleet.servers[0].version, "0.32.0");
}

#[test]
fn a_lagging_rank_is_found_among_the_ranks_of_its_engine() {
    let (roll, mut measured) = fleet_of(&["a", "b"]);
    let mut ranks = Vec::new();
    for node in ["a", "b"] {
        for rank in ["0", "1", "2", "3"] {
            let labels = [
                ("job", "profilemate"),
                ("instance", node),
                ("server", "vllm/8000"),
                ("engine", "0"),
                ("rank", rank),
            ];
            let slow = if (node, rank) == ("b", "2") {
                1.25
            } else {
                1.0
            };
            ranks.push(course(&labels, move |piece| {
                Some(0.016 * slow * (1.0 + 0.002 * f64::from(piece % 3)))
            }));
        }
    }
    measured.insert(FORWARD, answer(ranks));
    let found = diagnose(&roll, &measured);
    let [Finding::Peer(unlike)] = &found.findings[..] else {
        panic!("{:#?}", found.findings)
    };
    assert_eq!(
        (unlike.rank.as_deref(), unlike.engine.as_deref()),
        (Some("2"), Some("0"))
    );
    // The rule that looks for the same says it no second time, nor that it is not there; where peers do not tell, it does.
    let lag = |node| Verdicts {
        found: told(&[(node, "rank_lag", "", 1.0)]),
        ..Verdicts::default()
    };
    let with = diagnose_with(&roll, &measured, &lag("b"));
    assert_eq!(with.findings, found.findings);
    assert_eq!(with.rules_nothing_wrong, BTreeMap::new());
    assert_eq!(
        faults(&diagnose_with(&roll, &measured, &lag("a")))[0].rule,
        "rank_lag"
    );
    // Four of twenty milliseconds of each step, at 1,000 tokens/s.
    let lost = unlike.lost_tokens_per_sec.unwrap();
    assert!((180.0..220.0).contains(&lost), "{lost}");
}

#[test]
fn two_times_are_compared_with_intervals() {
    let (roll, measured) = fleet_of(&["a", "b", "c"]);
    let (mut later, mut after) = fleet_of(&["a", "b", "d"]);
    for node in ["a", "b", "d"] {
        scale(&mut after, STEP, node, 0.8);
    }
    later.servers.series[1] = info("b", "0.33.0", NOW);
    let none = Measured::new();
    let (one, two) = (Fleet::of(&roll, &none), Fleet::of(&later, &none));
    let time = |fleet, measured| Time {
        fleet,
        measured,
        span: span(),
    };
    let change = Change::of(time(&one, &measured), time(&two, &after));
    assert_eq!(
        (&change.came[..], &change.went[..]),
        (
            &["vllm/8000 @ d".to_owned()][..],
            &["vllm/8000 @ c".to_owned()][..]
        )
    );
    assert_eq!(change.replaced.keys().next().unwrap(), "vllm/8000 @ b");
    let model = &change.models[0];
    assert_eq!(model.changed.len(), 1);
    assert_eq!(
        (model.changed[0].measure, model.changed[0].better),
        (STEP, Some(true))
    );
    assert!(model.same.contains(&TOKENS) && model.not_compared.contains(&"request_sec"));
    let text = text::change(&change);
    assert!(
        text.contains("2 with vLLM 0.32.0, 1 with vLLM 0.33.0"),
        "{text}"
    );
    assert!(text.contains("better"), "{text}");
}

/// An engine that answers by the first of its rules whose text is in the query.
#[derive(Default)]
struct Canned {
    rules: Vec<(&'static str, Result<Answer, &'static str>)>,
    asked: RefCell<Vec<String>>,
}

impl Canned {
    fn answer(&self, query: &str) -> Result<Answer, Error> {
        self.asked.borrow_mut().push(query.to_owned());
        match self.rules.iter().find(|rule| query.contains(rule.0)) {
            None => Ok(Answer::default()),
            Some((_, Ok(answer))) => Ok(answer.clone()),
            Some((_, Err(text))) => Err(Error::Refused {
                kind: "bad_data".to_owned(),
                text: (*text).to_owned(),
            }),
        }
    }
}

impl Engine for Canned {
    async fn at(&self, query: &str, _time: Option<f64>) -> Result<Answer, Error> {
        self.answer(query)
    }
    async fn over(&self, query: &str, _span: Span) -> Result<Answer, Error> {
        self.answer(query)
    }
}

fn ask<T>(task: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(task)
}

#[test]
fn an_engine_without_native_histograms_is_asked_for_classic_ones_only() {
    let refuses = Canned {
        rules: vec![("histogram_count", Err("unknown function"))],
        ..Canned::default()
    };
    assert_eq!(
        ask(gather::histograms(&refuses, NOW)).unwrap(),
        Histograms::Classic
    );
    let has = Canned {
        rules: vec![(
            "histogram_count",
            Ok(answer(vec![series(&[], &[(NOW, 3.0)])])),
        )],
        ..Canned::default()
    };
    assert_eq!(
        ask(gather::histograms(&has, NOW)).unwrap(),
        Histograms::Native
    );
}

#[test]
fn a_selection_reaches_every_query_and_the_engine_s_clock_is_the_only_one() {
    let engine = Canned {
        rules: vec![("time()", Ok(answer(vec![series(&[], &[(NOW, NOW)])])))],
        ..Canned::default()
    };
    let question = Question {
        select: Selector::parse("model=opt").unwrap(),
        window: Duration::from_secs(300),
        lookback: Duration::from_secs(3600),
        at: None,
        recorded: false,
    };
    let roll = ask(gather::roll(&engine, &question)).unwrap();
    assert_eq!(roll.now, NOW);
    for recorded in [false, true] {
        let question = Question {
            recorded,
            ..question.clone()
        };
        engine.asked.borrow_mut().clear();
        let measured = ask(gather::over(&engine, &question, span())).unwrap();
        assert_eq!(measured.len(), MEASURES.len());
        ask(gather::verdicts(&engine, &question, NOW)).unwrap();
        let asked = engine.asked.borrow();
        assert_eq!(
            asked
                .iter()
                .filter(|query| query.contains("_finding"))
                .count(),
            5
        );
        let measures = asked
            .iter()
            .filter(|query| !query.starts_with("count(histogram"));
        for query in measures {
            assert!(
                query.contains(r#"profilemate_server_info{model="opt"}"#),
                "{query}"
            );
            // Where only rules' series are, nothing else is asked for.
            assert_eq!(query.contains("fleet:profilemate_"), recorded, "{query}");
            assert!(!(recorded && query.contains("rate(")), "{query}");
        }
    }
}
