//! The fan-out against agents that answer, refuse, lie and hang.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::address::{Error as AddressError, Template};
use super::agent::Agent;
use super::fan::{Job, run};
use super::{Outcome, Report, Traced, text};
use crate::agent::trace::Asked;
use crate::fleet::api::{Labels, http};
use crate::parcel::pack::Folder;

const METADATA: &str = r#"{"tables": {"a": {"rows": 4}, "b": {"rows": 5}}}"#;

/// How a stand-in behaves.
#[derive(Clone, Debug, Default)]
struct Ways {
    /// Refuses the trace so.
    refuses: Option<u16>,
    /// Answers to `GET /sessions`, in order; the last one stays.
    standings: Vec<Value>,
    /// What it sends for the session.
    archive: Vec<u8>,
    /// Looks at the sessions, and traces that are taken now and at most.
    asked: Arc<AtomicUsize>,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

async fn begin(State(ways): State<Ways>, Json(asked): Json<Value>) -> Response {
    assert_eq!(asked["server"], "s");
    if let Some(status) = ways.refuses {
        let status = StatusCode::from_u16(status).unwrap();
        let body = json!({"error": "no\u{1b}[31m\ntraces", "hint": "ask the owner"});
        return (status, Json(body)).into_response();
    }
    let now = ways.now.fetch_add(1, Ordering::SeqCst) + 1;
    ways.most.fetch_max(now, Ordering::SeqCst);
    (
        StatusCode::ACCEPTED,
        Json(json!({"trace": 3, "server": "s"})),
    )
        .into_response()
}

async fn sessions(State(ways): State<Ways>) -> Response {
    let index = ways.asked.fetch_add(1, Ordering::SeqCst);
    let standing = ways.standings.get(index).or(ways.standings.last());
    match standing.unwrap() {
        Value::Number(status) => {
            let status = u16::try_from(status.as_u64().unwrap()).unwrap();
            StatusCode::from_u16(status).unwrap().into_response()
        }
        standing => Json(json!({"servers": [], "traces": [standing]})).into_response(),
    }
}

async fn archive(State(ways): State<Ways>) -> Vec<u8> {
    ways.now.fetch_sub(1, Ordering::SeqCst);
    ways.archive.clone()
}

async fn stand_in(ways: Ways) -> SocketAddr {
    let router = Router::new()
        .route("/trace", post(begin))
        .route("/sessions", get(sessions))
        .route("/sessions/3.tar", get(archive))
        .with_state(ways);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            tokio::spawn(async move {
                let stream = hyper_util::rt::TokioIo::new(stream);
                let http1 = hyper::server::conn::http1::Builder::new();
                let _closed = http1.serve_connection(stream, service).await;
            });
        }
    });
    address
}

/// How a trace stands, as an agent tells it.
fn standing(state: &str) -> Value {
    let mut value = json!({"id": 3, "server": "s", "state": state});
    if state == "done" {
        let more = json!({
            "reason": "duration reached", "folder": "/etc/../hostile", "events": 70, "lost": 1
        });
        let more = more.as_object().unwrap().clone();
        value.as_object_mut().unwrap().extend(more);
    }
    if state == "failed" {
        value["reason"] = json!("no such process");
    }
    value
}

/// The archive of a small session.
fn small() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("metadata.json"), METADATA).unwrap();
    std::fs::write(folder.path().join("events.pmrec"), b"12").unwrap();
    let mut bytes = Vec::new();
    let opened = Folder::open(folder.path()).unwrap();
    opened.pack(&mut bytes).unwrap();
    bytes
}

fn well() -> Ways {
    Ways {
        standings: ["waiting", "running", "done"].map(standing).to_vec(),
        archive: small(),
        ..Ways::default()
    }
}

fn job(address: &str, folder: PathBuf) -> Job {
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(30))
        .build();
    let base = http::address(address).unwrap();
    Job {
        agent: Agent::new(client.unwrap(), base).unwrap(),
        server: "s".to_owned(),
        asked: Asked {
            server: Some("s".to_owned()),
            duration: "1ms".to_owned(),
            tables: Vec::new(),
            graph_timeline: false,
        },
        duration: Duration::from_millis(1),
        pause: Duration::from_millis(5),
        folder,
    }
}

/// The outcomes of agents that behave so, `width` at a time.
async fn outcomes(all: Vec<Ways>, width: usize, folder: &Path) -> Vec<Outcome> {
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let mut jobs = Vec::new();
    for (index, ways) in all.into_iter().enumerate() {
        let address = stand_in(ways).await;
        jobs.push(job(
            &format!("http://{address}"),
            folder.join(index.to_string()),
        ));
    }
    let (outcomes, stopped) = run(jobs, width, std::future::pending(), |_, _| {}).await;
    assert!(!stopped);
    outcomes
}

fn reason(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Failed { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_that_fails_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let all = vec![
        well(),
        Ways {
            refuses: Some(401),
            ..well()
        },
        Ways {
            standings: vec![standing("running"), standing("failed")],
            ..well()
        },
        Ways {
            standings: vec![json!({"id": 3, "server": "other", "state": "running"})],
            ..well()
        },
        Ways {
            standings: vec![
                json!(503),
                standing("running"),
                json!(503),
                standing("done"),
            ],
            ..well()
        },
        Ways {
            archive: b"no archive at all".to_vec(),
            ..well()
        },
        Ways {
            archive: small()[..1_024].to_vec(),
            ..well()
        },
        Ways {
            refuses: Some(409),
            ..well()
        },
    ];
    let outcomes = outcomes(all, 3, folder.path()).await;
    for index in [0, 4] {
        let expected = Outcome::Gathered {
            folder: folder.path().join(index.to_string()),
            ended: "duration reached".to_owned(),
            events: 70,
            lost: 1,
            rows: Some(9),
            bytes: METADATA.len() as u64 + 2,
        };
        assert_eq!(outcomes[index], expected);
    }
    assert_eq!(
        reason(&outcomes[1]),
        "the agent refuses (401): no[31m traces; ask the owner"
    );
    assert!(reason(&outcomes[2]).contains("no such process"));
    assert!(reason(&outcomes[3]).contains("no longer knows"));
    assert!(reason(&outcomes[5]).contains("archive"));
    assert!(reason(&outcomes[6]).contains("torn"));
    assert!(reason(&outcomes[7]).contains("409"));
    let mut left: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["0", "4"]);
}

#[tokio::test]
async fn no_more_are_traced_at_once_than_was_said() {
    let folder = tempfile::tempdir().unwrap();
    let (now, most) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    let one = || Ways {
        now: Arc::clone(&now),
        most: Arc::clone(&most),
        ..well()
    };
    let all = (0..9).map(|_| one()).collect();
    let outcomes = outcomes(all, 3, folder.path()).await;
    let gathered = |outcome: &&Outcome| matches!(outcome, Outcome::Gathered { .. });
    assert_eq!(outcomes.iter().filter(gathered).count(), 9);
    let most = most.load(Ordering::SeqCst);
    assert!((1..=3).contains(&most), "{most}");
}

#[tokio::test]
async fn an_interrupt_leaves_what_is_there_and_says_what_is_not() {
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let hangs = Ways {
        standings: vec![standing("running")],
        ..well()
    };
    let looks = Arc::clone(&hangs.asked);
    let addresses = [
        stand_in(well()).await,
        stand_in(hangs).await,
        stand_in(well()).await,
    ];
    let jobs = addresses.iter().enumerate();
    let jobs = jobs
        .map(|(index, address)| {
            job(
                &format!("http://{address}"),
                folder.path().join(index.to_string()),
            )
        })
        .collect();
    // One at a time: the first one ends, the second one hangs, and the third one never begins.
    let stop = async {
        while looks.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let mut told = Vec::new();
    let (outcomes, stopped) = run(jobs, 1, stop, |index, _| told.push(index)).await;
    assert!(stopped);
    assert_eq!(told, [0]);
    assert!(matches!(outcomes[0], Outcome::Gathered { .. }));
    let Outcome::Interrupted { reason } = &outcomes[1] else {
        panic!("{:?}", outcomes[1]);
    };
    assert!(reason.contains("trace 3 goes on"), "{reason}");
    let Outcome::Interrupted { reason } = &outcomes[2] else {
        panic!("{:?}", outcomes[2]);
    };
    assert!(reason.contains("not asked"), "{reason}");
    assert!(folder.path().join("0/metadata.json").is_file());
    let report = Report {
        folder: folder.path().to_owned(),
        interrupted: stopped,
        servers: outcomes
            .into_iter()
            .map(|outcome| Traced {
                server: "s".to_owned(),
                instance: "n".to_owned(),
                agent: None,
                outcome,
            })
            .collect(),
        notes: Vec::new(),
    };
    assert!(!report.is_whole());
    let text = text::report(&report);
    assert!(text.contains("1 of 3 sessions gathered"), "{text}");
    assert!(text.contains("interrupted: what was gathered"), "{text}");
}

#[test]
fn an_address_is_made_of_labels_that_cannot_change_its_kind() {
    let labels = |value: &str| Labels::from([("instance".to_owned(), value.to_owned())]);
    let template = Template::parse("https://{instance}:9464/agent").unwrap();
    let url = template.fill(&labels("node-1.example.org")).unwrap();
    assert_eq!(url.as_str(), "https://node-1.example.org:9464/agent");
    assert_eq!(
        template.fill(&Labels::new()),
        Err(AddressError::Missing {
            label: "instance".to_owned()
        })
    );
    for value in [
        "a/b", "a@b", "a?b", "a#b", "a b", "ä", "a%2fb", "a\\b", ":::",
    ] {
        let filled = template.fill(&labels(value));
        assert!(
            matches!(filled, Err(AddressError::Unfit { .. })),
            "{value}: {filled:?}"
        );
    }
    let plain = Template::parse("https://{instance}").unwrap();
    assert_eq!(
        plain.fill(&labels("[::1]:9464")).unwrap().as_str(),
        "https://[::1]:9464/"
    );
    for text in [
        "",
        "{instance}",
        "https://{",
        "https://{}",
        "https://}",
        "ftp://{a}",
        "https://u:p@{a}",
        "https://{a b}",
    ] {
        assert!(Template::parse(text).is_err(), "{text}");
    }
}

#[test]
fn a_token_is_not_sent_in_the_clear_to_another_host() {
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let agent = |url: &str| Agent::new(reqwest::Client::new(), http::address(url).unwrap());
    assert!(agent("http://node-1:9464").is_err());
    assert!(agent("https://node-1:9464").is_ok());
    assert!(agent("http://127.0.0.1:9464").is_ok());
}
