//! The stand-ins for CUDA's libraries (`tests/cuda`), the real ones, and a process that calls them.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::LazyLock;

/// Where the sources are.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cuda");

/// The stand-ins, built once for each test program.
static BUILT: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    compile(
        "fake_cuda.c",
        &at.join("libcuda.so.1"),
        &shared("libcuda.so.1"),
    );
    compile(
        "fake_cudart.c",
        &at.join("libcudart.so.12"),
        &shared("libcudart.so.12"),
    );
    compile("caller.c", &at.join("caller"), &[]);
    compile("repeat.c", &at.join("repeat.so"), &shared("repeat.so"));
    folder
});

fn shared(name: &str) -> Vec<String> {
    ["-shared", "-fPIC", "-fno-omit-frame-pointer"]
        .into_iter()
        .map(str::to_owned)
        .chain([format!("-Wl,-soname,{name}")])
        .collect()
}

fn compile(source: &str, to: &Path, options: &[String]) {
    let status = Command::new("gcc")
        .args(["-O2", "-Wall", "-Wextra", "-Wno-unused-parameter"])
        .args(options)
        .arg(format!("{SOURCES}/{source}"))
        .arg("-o")
        .arg(to)
        .args(["-lpthread", "-ldl"])
        .status()
        .expect("gcc, which these tests need");
    assert!(status.success(), "{source} was not compiled");
}

/// The folder with `libcuda.so.1`, `libcudart.so.12`, `caller` and `repeat.so`.
pub fn folder() -> &'static Path {
    BUILT.path()
}

/// The stand-in for the driver.
pub fn library() -> PathBuf {
    folder().join("libcuda.so.1")
}

/// The stand-in for the driver, built with `defines` (`-DNAME=VALUE`) into `to`.
pub fn variant(to: &Path, defines: &[&str]) {
    let mut options = shared("libcuda.so.1");
    options.extend(defines.iter().map(|define| (*define).to_owned()));
    compile("fake_cuda.c", to, &options);
}

/// A process that calls what it is told to call.
pub struct Caller {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Where the stand-in counts its calls.
    counts: tempfile::TempDir,
}

impl Caller {
    /// Starts one that has loaded nothing yet.
    pub fn bare() -> Self {
        Self::run(&mut Command::new(folder().join("caller")))
    }

    /// Starts a command that becomes one.
    pub fn run(command: &mut Command) -> Self {
        let counts = tempfile::tempdir().expect("a folder");
        let mut child = command
            .env("FAKE_CUDA_COUNTS", counts.path())
            .env("LD_LIBRARY_PATH", folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the caller starts");
        let input = child.stdin.take().expect("its input");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        Self {
            child,
            input,
            output,
            counts,
        }
    }

    /// Starts one that has loaded `library`.
    pub fn start(library: &Path) -> Self {
        let mut caller = Self::bare();
        caller.open(library);
        caller
    }

    /// Has it load a library.
    pub fn open(&mut self, library: &Path) {
        assert_eq!(self.ask(&format!("open {}", library.display())), "ok");
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives it an order.
    pub fn ask(&mut self, order: &str) -> String {
        self.send(order);
        self.answer()
    }

    /// Gives it an order and does not wait.
    pub fn send(&mut self, order: &str) {
        writeln!(self.input, "{order}").expect("the caller listens");
    }

    /// Waits for the answer to an order.
    pub fn answer(&mut self) -> String {
        let mut line = String::new();
        self.output
            .read_line(&mut line)
            .expect("the caller answers");
        line.trim_end().to_owned()
    }

    /// Calls a function: `cuGraphLaunch 1000 *1 0`. Gives result and nanoseconds a call.
    pub fn call(&mut self, what: &str) -> (i32, f64) {
        let times: f64 = what
            .split(' ')
            .nth(1)
            .and_then(|times| times.parse().ok())
            .expect("a number of calls");
        let answer = self.ask(&format!("call {what}"));
        let (result, ns) = answer.split_once(' ').unwrap_or((&answer, ""));
        let parsed = result.parse().ok().zip(ns.parse::<f64>().ok());
        let (result, ns) = parsed.unwrap_or_else(|| panic!("`call {what}`: {answer}"));
        (result, ns / times)
    }

    /// What the stand-in counted in this process, of the functions that were called.
    pub fn counted(&self) -> BTreeMap<String, u64> {
        counted(&self.counts.path().join(self.pid().to_string()))
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Reads a file of counts (`fake_cuda.c` tells its format).
pub fn counted(file: &Path) -> BTreeMap<String, u64> {
    let bytes = std::fs::read(file).expect("the stand-in's counts");
    bytes
        .chunks_exact(64)
        .filter_map(|record| {
            let name = record[..56].split(|byte| *byte == 0).next()?;
            let calls = u64::from_ne_bytes(record[56..].try_into().ok()?);
            (calls > 0).then(|| (String::from_utf8_lossy(name).into_owned(), calls))
        })
        .collect()
}

/// The real library `name` (`tests/cuda/setup` tells which there are), fetched if need be. Where it cannot be had,
/// says so, or fails if `PROFILEMATE_REQUIRE_CUDA=1`.
pub fn real(name: &str) -> Option<PathBuf> {
    let output = Command::new(format!("{SOURCES}/setup"))
        .arg(name)
        .output()
        .expect("the script starts");
    let text = String::from_utf8_lossy(&output.stdout);
    if let (true, Some(path)) = (output.status.success(), text.lines().last()) {
        return Some(PathBuf::from(path));
    }
    let why = String::from_utf8_lossy(&output.stderr);
    let why = why.lines().last().unwrap_or("no reason was given");
    assert!(
        std::env::var_os("PROFILEMATE_REQUIRE_CUDA").is_none(),
        "{name} cannot be had: {why}"
    );
    println!("skipped: {name} cannot be had: {why}");
    None
}
