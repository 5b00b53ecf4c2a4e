//! A live Python process whose frames are known, and its parts as the tracer finds them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use object::{Object as _, ObjectSegment as _, ObjectSymbol as _};
use profilemate::target::python::{
    Compiled, Compiler, Function, Interned, Layout, ProcessMemory, Resolver, assemble, find_stack,
    identify, validate,
};
use profilemate_common::path::Program;
use profilemate_common::walk::StackLayout;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The C library of the test.
pub(crate) struct Library {
    _folder: TempDir,
    pub(crate) path: PathBuf,
}

impl Library {
    pub(crate) fn build() -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("libanchor.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/walk_target/anchor.c");
        let status = Command::new("gcc")
            .args(["-O2", "-shared", "-fPIC", "-pthread", "-o"])
            .args([path.as_os_str(), source.as_ref()])
            .status()
            .expect("gcc is needed to build the test's library");
        assert!(status.success());
        Self {
            _folder: folder,
            path,
        }
    }

    /// Offset of a function in the file.
    pub(crate) fn offset(&self, name: &str) -> u64 {
        let bytes = std::fs::read(&self.path).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let symbol = file
            .dynamic_symbols()
            .find(|symbol| symbol.name() == Ok(name))
            .unwrap();
        let segment = file
            .segments()
            .find(|segment| {
                (segment.address()..segment.address() + segment.size()).contains(&symbol.address())
            })
            .unwrap();
        symbol.address() - segment.address() + segment.file_range().0
    }
}

/// A call to make.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) method: &'static str,
    pub(crate) form: &'static str,
    pub(crate) held: bool,
    pub(crate) thread: bool,
    pub(crate) entry: &'static str,
    pub(crate) tokens: u64,
    pub(crate) requests: u64,
    pub(crate) total: u64,
    pub(crate) depth: u64,
}

/// A running `target.py`; ended when dropped.
pub(crate) struct Target {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    pub(crate) memory: ProcessMemory,
    pub(crate) layout: Layout,
    pub(crate) stack: StackLayout,
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Target {
    pub(crate) fn start(python: &Path, library: &Library) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/walk_target/target.py");
        let mut child = Command::new(python)
            .args(["-B", script])
            .arg(&library.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", python.display()));
        let stdin = child.stdin.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(ready["ready"], true);
        let memory = ProcessMemory { pid: child.id() };
        let interpreter = identify(child.id(), &memory).unwrap();
        let layout = validate(&interpreter, &memory).unwrap();
        let stack = find_stack(&memory, &layout, false).unwrap();
        Self {
            child,
            stdin,
            stdout,
            memory,
            layout,
            stack,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn expect(&mut self, wanted: &str) {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), wanted);
    }

    /// Makes a call; `inside` is run while it stands in `hold`.
    pub(crate) fn call(&mut self, call: &Call, inside: impl FnOnce(&Self)) {
        let what = json!({
            "method": call.method, "form": call.form, "held": call.held, "thread": call.thread,
            "entry": call.entry, "tokens": call.tokens, "requests": call.requests,
            "total": call.total, "depth": call.depth,
        });
        writeln!(self.stdin, "{what}").unwrap();
        self.stdin.flush().unwrap();
        if call.entry == "hold" {
            self.expect("held");
            inside(self);
            self.stdin.write_all(b"x").unwrap();
            self.stdin.flush().unwrap();
        }
        self.expect("done");
    }

    /// A function of the target.
    pub(crate) fn function(&self, qualname: &str) -> Function {
        Resolver::new(&self.memory, &self.layout)
            .resolve("__main__", qualname)
            .unwrap()
    }

    /// The program that reads `paths` in frames of `function`.
    pub(crate) fn program(&self, function: &Function, id: u32, paths: &[&str]) -> Program {
        let resolver = Resolver::new(&self.memory, &self.layout);
        let interned = Interned::new(&resolver);
        let compiler = Compiler::for_frame(&interned, function).unwrap();
        let fields: Vec<Compiled> = paths
            .iter()
            .map(|path| compiler.compile(path).unwrap())
            .collect();
        assemble(id, 0, &fields).unwrap()
    }
}
