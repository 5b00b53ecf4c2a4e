//! `profilemate trace` with driver probes: libraries that come late, in other mount namespaces, with the runtime
//! beside the driver.
#![expect(clippy::unwrap_used, reason = "this is a test")]

use std::process::{Command, Stdio};
use std::time::Duration;

use profilemate_tests::cuda::{self, Caller};
use profilemate_tests::{Guard, Session, binary, root, wait_for};
use serde_json::Value;

/// A tracer of one process.
struct Tracer {
    guard: Guard,
    output: tempfile::TempDir,
}

impl Tracer {
    fn start(pid: u32) -> Self {
        Self::with(pid, &[])
    }

    fn with(pid: u32, options: &[&str]) -> Self {
        let output = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(output.path().join("log")).unwrap();
        let guard = Guard::start(
            Command::new(binary())
                .args(["trace", "--touch", "none", "-v", "--pid", &pid.to_string()])
                .args(options)
                .arg("--output")
                .arg(output.path().join("sessions"))
                .stdout(Stdio::null())
                .stderr(log),
        );
        Self { guard, output }
    }

    /// Waits until `words` stand in its log so many `times`.
    fn wait_for(&self, words: &str, times: usize) {
        wait_for(words, Duration::from_secs(60), || {
            let log = std::fs::read_to_string(self.output.path().join("log")).unwrap();
            log.matches(words).count() >= times
        });
    }

    fn finish(mut self) -> Value {
        self.guard.signal(libc::SIGINT);
        let code = self.guard.wait(Duration::from_secs(60));
        let log = std::fs::read_to_string(self.output.path().join("log")).unwrap();
        assert_eq!(code, 0, "{log}");
        let session = Session::only(&self.output.path().join("sessions"));
        let driver = &session.metadata["ledger"]["driver"];
        assert_eq!(driver["fired_not_accounted"], 0, "{driver}");
        assert_eq!(driver["received"], driver["submitted"], "{driver}");
        assert_eq!(driver["lost"], 0, "{driver}");
        session.metadata
    }
}

const PROBED: &str = "driver functions of";

/// Whether the metadata names a probed `symbol` in the library at `path`.
fn probes(metadata: &Value, path: &str, symbol: &str) -> bool {
    let libraries = metadata["libraries"].as_array().unwrap();
    libraries
        .iter()
        .filter(|library| library["path"].as_str().unwrap().contains(path))
        .any(|library| {
            let sites = library["sites"].as_array().unwrap();
            sites.iter().any(|site| site["symbol"] == symbol)
        })
}

#[test]
fn a_library_that_is_loaded_after_the_attach_is_probed() {
    if !root() {
        return;
    }
    let mut caller = Caller::bare();
    let tracer = Tracer::start(caller.pid());
    tracer.wait_for("probe site", 1);
    caller.open(&cuda::library());
    tracer.wait_for(PROBED, 1);
    caller.call("cuGraphLaunch 40 0 0");
    caller.call("cuLaunchKernel 7 0");
    let metadata = tracer.finish();
    let driver = &metadata["ledger"]["driver"];
    assert_eq!(
        (driver["fired"].as_u64(), driver["counted"].as_u64()),
        (Some(47), Some(7))
    );
    let library = &metadata["libraries"][0];
    assert_eq!(library["pids"][0], caller.pid());
    let site = &library["sites"]
        .as_array()
        .unwrap()
        .iter()
        .find(|site| site["symbol"] == "cuGraphLaunch")
        .unwrap();
    assert_eq!(
        (site["offset"].as_u64(), site["cost"].as_str()),
        (Some(10), Some("emulated"))
    );
    assert!(site["instruction"].as_str().unwrap().starts_with("je "));
}

#[test]
fn launches_of_kernels_can_be_left_out() {
    if !root() {
        return;
    }
    let mut caller = Caller::start(&cuda::library());
    let tracer = Tracer::with(caller.pid(), &["--no-kernel-counts"]);
    tracer.wait_for(PROBED, 1);
    caller.call("cuGraphLaunch 40 0 0");
    caller.call("cuLaunchKernel 7 0");
    let metadata = tracer.finish();
    let driver = &metadata["ledger"]["driver"];
    assert_eq!(
        (driver["fired"].as_u64(), driver["counted"].as_u64()),
        (Some(40), Some(0))
    );
    assert!(!probes(&metadata, "libcuda.so.1", "cuLaunchKernel"));
    let text = metadata["libraries"].to_string();
    assert!(text.contains("--no-kernel-counts"), "{text}");
}

#[test]
fn without_a_driver_library_nothing_is_probed_and_the_tables_say_so() {
    if !root() {
        return;
    }
    let caller = Caller::bare();
    let tracer = Tracer::start(caller.pid());
    tracer.wait_for("probe site", 1);
    std::thread::sleep(Duration::from_millis(300));
    let metadata = tracer.finish();
    assert_eq!(metadata["libraries"].as_array().unwrap().len(), 0);
    let coverage = &metadata["tables"]["cuda_graph_captures"]["coverage"];
    assert_eq!(coverage["status"], "not_applicable");
    assert!(
        coverage["reason"]
            .as_str()
            .unwrap()
            .contains("CUDA driver library"),
        "{coverage}"
    );
}

#[test]
fn the_same_launch_is_not_counted_in_runtime_and_driver() {
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("libcuda.so.1");
    cuda::variant(&odd, &["-DODD_LAUNCH"]);
    for (library, in_runtime) in [(cuda::library(), false), (odd, true)] {
        let mut caller = Caller::start(&library);
        caller.open(&cuda::folder().join("libcudart.so.12"));
        let tracer = Tracer::start(caller.pid());
        tracer.wait_for(PROBED, 1 + usize::from(in_runtime));
        for what in [
            "cudaStreamBeginCapture 1 1 0",
            "cudaStreamEndCapture 1 1 @0",
            "cudaGraphInstantiate 1 @1 *0 0",
            "cudaGraphLaunch 30 *1 1",
            "cudaStreamSynchronize 2 1",
        ] {
            assert_eq!(caller.call(what).0, 0, "{what}");
        }
        let metadata = tracer.finish();
        assert_eq!(metadata["ledger"]["driver"]["fired"], 35, "{in_runtime}");
        assert_eq!(
            probes(&metadata, "libcudart", "cudaGraphLaunch"),
            in_runtime
        );
        assert_eq!(
            probes(&metadata, "libcuda.so.1", "cuGraphLaunch"),
            !in_runtime
        );
        assert!(!probes(&metadata, "libcudart", "cudaStreamSynchronize"));
    }
}

#[test]
fn a_library_in_another_mount_namespace_is_found() {
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    let (library, caller) = (cuda::library(), cuda::folder().join("caller"));
    let script = format!(
        "mount -t tmpfs none {at} && cp {} {at}/libcuda.so.9 && exec {}",
        library.display(),
        caller.display()
    );
    let mut caller = Caller::run(Command::new("unshare").args(["-m", "sh", "-c", &script]));
    caller.open(&folder.path().join("libcuda.so.9"));
    assert!(!folder.path().join("libcuda.so.9").exists(), "it is theirs");
    // And a second file beside it.
    caller.open(&cuda::library());
    let tracer = Tracer::start(caller.pid());
    tracer.wait_for(PROBED, 2);
    caller.call("cuGraphLaunch 9 0 0");
    let metadata = tracer.finish();
    assert_eq!(metadata["ledger"]["driver"]["fired"], 9);
    assert_eq!(metadata["libraries"].as_array().unwrap().len(), 2);
    assert!(probes(&metadata, "libcuda.so.9", "cuGraphLaunch"));
}
