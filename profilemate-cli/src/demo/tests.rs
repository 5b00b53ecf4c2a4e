//! The demo target, started on the Pythons of this machine.

use std::{collections::BTreeSet, os::unix::fs::PermissionsExt as _};

use super::*;

/// Paths of the Python files below a folder, relative to it.
fn python_files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "py") {
                found.insert(
                    path.strip_prefix(folder)
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned(),
                );
            }
        }
    }
    found
}

fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn wait_for(condition: impl Fn() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(POLL);
    }
    true
}

/// The tests need some Python, as the demo does.
fn start(options: &Options) -> Option<DemoTarget> {
    match DemoTarget::start(options) {
        Ok(target) => Some(target),
        Err(Error::Interpreter(error)) => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn every_python_file_is_bundled() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../python/demo");
    let bundled: BTreeSet<String> = bundle::DEMO
        .iter()
        .map(|file| file.path.to_owned())
        .collect();
    assert_eq!(bundled, python_files(&source));
}

#[test]
fn unpacked_files_are_private_and_nothing_is_overwritten() {
    let folder = bundle::private_folder().unwrap();
    bundle::unpack(bundle::DEMO, folder.path()).unwrap();
    assert_eq!(python_files(folder.path()).len(), bundle::DEMO.len());
    let mode = |path: &str| {
        fs::metadata(folder.path().join(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(
        (mode(""), mode("vllm"), mode("vllm/version.py")),
        (0o700, 0o700, 0o600)
    );
    let again = bundle::unpack(bundle::DEMO, folder.path()).unwrap_err();
    assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn dropping_the_target_ends_all_its_processes_and_removes_its_files() {
    let options = Options {
        duration: Duration::from_mins(1),
        workers: Some(2),
        ..Options::default()
    };
    let Some(target) = start(&options) else {
        return;
    };
    let mut pids = vec![target.pid, target.engine_core];
    pids.extend(&target.workers);
    assert_eq!(pids.len(), 4);
    assert!(pids.iter().all(|&pid| is_alive(pid)));
    let folder = target.folder().to_owned();
    drop(target);
    assert!(!pids.iter().any(|&pid| is_alive(pid)));
    assert!(!folder.exists());
}

#[test]
fn a_server_that_ends_by_itself_leaves_its_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    let options = Options {
        duration: Duration::from_mins(1),
        requests: Some(5),
        output_tokens: Some(tokens.clone()),
        truth: Some(folder.path().join("truth")),
        gaps: false,
        ..Options::default()
    };
    let Some(mut target) = start(&options) else {
        return;
    };
    assert_eq!(target.wait(Duration::from_mins(1)).unwrap(), Some(true));
    assert_eq!(fs::read_to_string(tokens).unwrap().lines().count(), 5);
    assert!(
        fs::read_to_string(folder.path().join("truth"))
            .unwrap()
            .contains("\"schedule\"")
    );
}

#[test]
fn a_killed_engine_ends_the_server() {
    let options = Options {
        duration: Duration::from_mins(1),
        ..Options::default()
    };
    let Some(mut target) = start(&options) else {
        return;
    };
    let engine = rustix::process::Pid::from_raw(target.engine_core as i32).unwrap();
    rustix::process::kill_process(engine, rustix::process::Signal::KILL).unwrap();
    assert_eq!(target.wait(Duration::from_secs(30)).unwrap(), Some(false));
    let workers = target.workers.clone();
    assert!(wait_for(|| !workers.iter().any(|&pid| is_alive(pid))));
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let options = Options {
        blocks: Some(1),
        ..Options::default()
    };
    match DemoTarget::start(&options) {
        Err(Error::Ended { complaint, .. }) => assert!(
            complaint.contains("--blocks must be at least"),
            "{complaint}"
        ),
        Err(Error::Interpreter(error)) => println!("skipped: {error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_server_that_is_late_is_ended() {
    let options = Options {
        startup: Duration::ZERO,
        ..Options::default()
    };
    match DemoTarget::start(&options) {
        Err(Error::NotReady { waited, .. }) => assert_eq!(waited, Duration::ZERO),
        Err(Error::Interpreter(error)) => println!("skipped: {error}"),
        other => panic!("{other:?}"),
    }
}
