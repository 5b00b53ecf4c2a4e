//! A capture gives the same bytes again, from the live session and from a recorded file.
//!
//! `PROFILEMATE_BLESS=1` rewrites the recorded capture and tables.

mod stream;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use profilemate::capture::frame::{End, KIND_RECORD};
use profilemate::capture::{Error, Options, Pipeline, replay};
use profilemate::table::TABLES;
use stream::server::{ENGINE, batch};
use stream::story::story;
use stream::{Result, Stream};

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
        let folder = tempfile::tempdir().ok()?;
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
