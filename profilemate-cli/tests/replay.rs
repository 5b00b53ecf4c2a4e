//! A capture gives the same bytes again, from the live session and from a recorded file.
//!
//! `PROFILEMATE_BLESS=1` rewrites the recorded capture and tables.

mod stream;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use profilemate::capture::frame::{End, KIND_RECORD};
use profilemate::capture::{Error, Options, Pipeline, replay};
use profilemate::event::{Ledger, Note};
use profilemate::table::TABLES;
use stream::{Result, Stream, V, Values, Who};

const ENGINE: Who = Who {
    pid: 200,
    tid: 200,
    page: 1,
};
const WORKER: Who = Who {
    pid: 201,
    tid: 201,
    page: 2,
};

fn batch(requests: &[(u64, i64, Option<i64>)]) -> Values {
    let cached = || {
        requests
            .iter()
            .filter_map(|request| Some((request.0, request.2?)))
    };
    vec![
        (
            "tokens",
            V::Int(requests.iter().map(|request| request.1).sum()),
        ),
        ("seqs", V::Int(requests.len() as i64)),
        (
            "scheduled",
            V::Pairs(
                requests
                    .iter()
                    .map(|request| (request.0, request.1))
                    .collect(),
            ),
        ),
        (
            "new_keys",
            V::Addresses(
                requests
                    .iter()
                    .filter(|r| r.2.is_none())
                    .map(|r| r.0)
                    .collect(),
            ),
        ),
        (
            "cached_keys",
            V::Addresses(cached().map(|request| request.0).collect()),
        ),
        (
            "cached_outputs",
            V::Ints(cached().map(|request| request.1).collect()),
        ),
    ]
}

struct Step<'a> {
    requests: &'a [(u64, i64, Option<i64>)],
    new: &'a [&'static str],
    resumed: &'a [&'static str],
    preempted: &'a [&'static str],
    finished: &'a [&'static str],
    free_blocks: i64,
}

/// Two requests share a small cache: the second is preempted and resumed, blocks are evicted, both finish.
fn story() -> Stream {
    let mut stream = Stream::new();
    stream.process(100, 1, "api_server", None);
    stream.process(200, 100, "engine_core", Some(1));
    stream.process(201, 200, "worker", Some(2));
    let pool = [
        "block_pool.evict",
        "block_pool.allocate",
        "block_pool.touch",
    ];
    stream.bind(
        200,
        1,
        &["scheduler.schedule", "scheduler.preempt", "user.0"],
    );
    stream.bind(200, 1, &pool);
    stream.bind(201, 2, &["runner.execute_model"]);
    stream.bind_with(201, 2, "runner.prepare_inputs", Some("prepare_inputs"), &[]);
    let none: &[&str] = &[];
    let steps = [
        Step {
            requests: &[(1, 40, None)],
            new: &["a"],
            resumed: none,
            preempted: none,
            finished: none,
            free_blocks: 7,
        },
        Step {
            requests: &[(1, 1, Some(1)), (2, 60, None)],
            new: &["b"],
            resumed: none,
            preempted: none,
            finished: none,
            free_blocks: 1,
        },
        Step {
            requests: &[(1, 1, Some(2))],
            new: none,
            resumed: none,
            preempted: &["b"],
            finished: none,
            free_blocks: 6,
        },
        Step {
            requests: &[(1, 1, Some(3)), (2, 61, Some(1))],
            new: none,
            resumed: &["b"],
            preempted: none,
            finished: none,
            free_blocks: 0,
        },
        Step {
            requests: &[(2, 1, Some(2))],
            new: none,
            resumed: none,
            preempted: none,
            finished: &["a"],
            free_blocks: 5,
        },
        Step {
            requests: &[],
            new: none,
            resumed: none,
            preempted: none,
            finished: &["b"],
            free_blocks: 10,
        },
    ];
    for (index, step) in steps.iter().enumerate() {
        story_step(
            &mut stream,
            30_000 + index as u64 * 30_000,
            index as i64,
            step,
        );
    }
    stream.tick(600_000);
    stream.note(&Note::Ledger(Ledger {
        fired: 40,
        submitted: 40,
        lost: 0,
        filtered: 0,
    }));
    stream.ended(700_000);
    stream
}

fn story_step(stream: &mut Stream, us: u64, index: i64, step: &Step<'_>) {
    if !step.preempted.is_empty() {
        stream.entry(
            ENGINE,
            "scheduler.preempt",
            us + 5,
            vec![("computed_tokens", V::Int(60))],
        );
        let values = vec![
            ("request_id", V::Str(step.preempted[0])),
            ("num_preemptions", V::Int(1)),
        ];
        stream.call(
            ENGINE,
            "scheduler.preempt",
            us + 5,
            us + 9,
            Result::None,
            values,
        );
    }
    if !step.requests.is_empty() {
        if index == 3 {
            stream.call(
                ENGINE,
                "block_pool.evict",
                us + 11,
                us + 12,
                Result::True,
                vec![("block_id", V::Int(1))],
            );
        }
        let ids = vec![(
            "block_ids",
            V::Ints((index..index + 2).map(|id| id % 4).collect()),
        )];
        stream.call(
            ENGINE,
            "block_pool.allocate",
            us + 10,
            us + 14,
            Result::Object,
            ids,
        );
    }
    let mut values = batch(step.requests);
    values.extend([
        ("new_ids", V::Strs(step.new.to_vec())),
        ("resumed_ids", V::Strs(step.resumed.to_vec())),
        ("preempted_ids", V::Strs(step.preempted.to_vec())),
        ("finished_ids", V::Strs(step.finished.to_vec())),
        ("running", V::Int(step.requests.len() as i64)),
        ("waiting", V::Int(step.preempted.len() as i64)),
        ("max_seqs", V::Int(4)),
        ("max_tokens", V::Int(64)),
        ("blocks", V::Int(11)),
        ("free_blocks", V::Int(step.free_blocks)),
    ]);
    stream.call(
        ENGINE,
        "scheduler.schedule",
        us,
        us + 100,
        Result::Object,
        values,
    );
    stream.call(
        WORKER,
        "runner.prepare_inputs",
        us + 160,
        us + 200,
        Result::Object,
        vec![],
    );
    stream.call(
        WORKER,
        "runner.execute_model",
        us + 150,
        us + 4_150,
        Result::None,
        batch(step.requests),
    );
    stream.call(
        ENGINE,
        "user.0",
        us + 5_000,
        us + 5_001,
        Result::None,
        vec![("size", V::Int(index))],
    );
    stream.tick(us + 20_000);
}

fn recorded(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/captures")
        .join(name)
}

fn files() -> impl Iterator<Item = String> {
    TABLES.iter().map(|table| format!("{}.csv", table.file))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_recorded_capture_gives_the_recorded_tables() {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("live");
    if std::env::var_os("PROFILEMATE_BLESS").is_some() {
        story().write(&live);
        fs::create_dir_all(recorded("preempted_once")).unwrap();
        fs::copy(live.join("events.pmrec"), recorded("preempted_once.pmrec")).unwrap();
        for file in files().filter(|file| read(&live.join(file)).lines().count() > 1) {
            fs::copy(live.join(&file), recorded("preempted_once").join(&file)).unwrap();
        }
    }
    let again = folder.path().join("again");
    let outcome = replay(&recorded("preempted_once.pmrec"), &again).unwrap();
    assert_eq!(outcome.capture_end, Some(End::Whole));
    assert_eq!(outcome.decode_errors.total(), 0);
    for (table, rows) in &outcome.rows {
        let file = format!("{table}.csv");
        assert_eq!(
            read(&again.join(&file)),
            read(&recorded("preempted_once").join(&file)),
            "{file}"
        );
        assert!(*rows > 0);
    }
    assert_eq!(
        outcome.rows.len(),
        fs::read_dir(recorded("preempted_once")).unwrap().count()
    );
}

#[test]
fn the_live_session_and_its_replay_write_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("live");
    let mut pipeline = Pipeline::new(&live, Options::default()).unwrap();
    let mut now_us = 20_000;
    for (index, (kind, bytes)) in story().frames.iter().enumerate() {
        if *kind == KIND_RECORD {
            now_us += 1_000 + (index as u64 * 7) % 60_000;
        }
        // The ring buffer hands out whole records; only the used bytes are kept.
        let mut long = bytes.clone();
        if *kind == KIND_RECORD {
            long.resize(bytes.len() + 100, 0xaa);
        }
        pipeline.frame(*kind, &long).unwrap();
        pipeline.tick(stream::at(now_us)).unwrap();
    }
    let live_outcome = pipeline.finish().unwrap();
    let again = folder.path().join("again");
    let outcome = replay(&live.join("events.pmrec"), &again).unwrap();
    assert_eq!(outcome.rows, live_outcome.rows);
    assert!(outcome.rows.len() >= 8, "{:?}", outcome.rows);
    for file in files().chain(["summary.json".to_owned()]) {
        assert_eq!(read(&again.join(&file)), read(&live.join(&file)), "{file}");
    }
}

#[test]
fn a_capture_cut_anywhere_is_read_up_to_its_last_whole_frame() {
    let folder = tempfile::tempdir().unwrap();
    let live = folder.path().join("live");
    story().write(&live);
    let whole = fs::read(live.join("events.pmrec")).unwrap();
    for part in [8, 9, 100, whole.len() / 2, whole.len() - 1] {
        let cut = folder.path().join(format!("cut_{part}.pmrec"));
        fs::write(&cut, &whole[..part]).unwrap();
        let again = folder.path().join(format!("again_{part}"));
        let outcome = replay(&cut, &again).unwrap();
        assert_eq!(
            matches!(outcome.capture_end, Some(End::Torn(_))),
            part != 8,
            "{part}"
        );
        let rows = read(&live.join("batch_utilization.csv"));
        assert!(rows.starts_with(&read(&again.join("batch_utilization.csv"))));
    }
}

#[test]
fn rows_are_on_the_disk_within_a_second_of_ticks() {
    let folder = tempfile::tempdir().unwrap();
    let mut pipeline = Pipeline::new(folder.path(), Options::default()).unwrap();
    let mut stream = Stream::new();
    stream.process(200, 100, "engine_core", Some(1));
    stream.bind(200, 1, &["scheduler.schedule"]);
    let values = batch(&[(1, 40, None)]);
    stream.call(
        ENGINE,
        "scheduler.schedule",
        100_000,
        100_100,
        Result::Object,
        values,
    );
    for (kind, bytes) in &stream.frames {
        pipeline.frame(*kind, bytes).unwrap();
    }
    for us in (120_000..1_200_000).step_by(20_000) {
        pipeline.tick(stream::at(us)).unwrap();
    }
    assert_eq!(
        read(&folder.path().join("batch_utilization.csv"))
            .lines()
            .count(),
        2
    );
    let metadata = read(&folder.path().join("metadata.json"));
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    assert_eq!(metadata["tables"]["batch_utilization"]["rows"], 1);
    assert!(metadata["end_time"].is_null());
    let again = folder.path().join("again");
    replay(&folder.path().join("events.pmrec"), &again).unwrap();
    assert_eq!(
        read(&again.join("batch_utilization.csv")),
        read(&folder.path().join("batch_utilization.csv"))
    );
}

#[test]
fn a_folder_with_a_session_in_it_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    story().write(folder.path());
    let before = read(&folder.path().join("metadata.json"));
    let error = Pipeline::new(folder.path(), Options::default())
        .err()
        .unwrap();
    assert!(error.to_string().contains("metadata.json"), "{error}");
    assert_eq!(read(&folder.path().join("metadata.json")), before);
}

#[test]
fn a_file_that_is_no_capture_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.bin");
    fs::write(&path, b"something else entirely").unwrap();
    let error = replay(&path, &folder.path().join("out")).unwrap_err();
    assert!(
        matches!(error, Error::Capture { .. }) && error.to_string().contains("other.bin"),
        "{error}"
    );
    assert!(!folder.path().join("out").exists());
}

/// A small file system of its own, unmounted at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
            .arg(folder.path())
            .status();
        mount
            .is_ok_and(|status| status.success())
            .then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_an_error_that_names_the_file() {
    let Some(disk) = SmallDisk::mount() else {
        assert!(
            std::env::var_os("PROFILEMATE_REQUIRE_ROOT").is_none(),
            "cannot mount a tmpfs"
        );
        println!("skipped: mounting a tmpfs needs root");
        return;
    };
    let mut pipeline = Pipeline::new(&disk.0.path().join("session"), Options::default()).unwrap();
    let stream = story();
    let error = (0..10_000).find_map(|_| {
        stream
            .frames
            .iter()
            .find_map(|(kind, bytes)| pipeline.frame(*kind, bytes).err())
    });
    let error = error.unwrap();
    assert!(error.to_string().contains("session/"), "{error}");
    assert!(
        std::error::Error::source(&error)
            .unwrap()
            .to_string()
            .contains("space")
    );
}
