//! The touch room against a real Python 3.12: a function is redirected, counted and put back. Needs root, and a
//! `python3.12` on the path or under `~/.pyenv`; skipped where there is none.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, reason = "test code")]

#[path = "touch_target/root.rs"]
mod root;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use profilemate::sys::vm;
use profilemate::touch::{MarkerPage, Redirect, VersionWrite, redirect, restore};
use profilemate_common::page::{MODE_COUNT, MODE_ENTRY, MODE_RETURN};
use root::is_root;

/// Offsets in Python 3.12's `PyFunctionObject`.
const VECTORCALL: u64 = 128;
const FUNC_VERSION: u64 = 136;

const PROGRAM: &str = r"
import sys, threading
class Thing:
    def method(self, a, *rest, b=2, **more):
        if a is None:
            raise ValueError(rest)
        return (a, rest, b, more)
thing = Thing()
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)
def gen(n):
    for i in range(n):
        yield i
def work():
    for i in range(100):
        assert thing.method(i) == (i, (), 2, {})
        assert thing.method(i, 5, 6, b=i, c=9) == (i, (5, 6), i, {'c': 9})
        assert thing.method(*(i, 7), **{'b': 1}) == (i, (7,), 1, {})
        try:
            thing.method(None, i)
            assert False
        except ValueError as error:
            assert error.args == ((i,),)
    assert fib(15) == 610
    assert list(map(fib, [1, 2, 3])) == [1, 1, 2]
    assert list(gen(4)) == [0, 1, 2, 3]
work(), work()
print(id(Thing.method), id(fib), id(gen), flush=True)
for line in sys.stdin:
    if line.startswith('threads'):
        done = []
        def run():
            for _ in range(20):
                work()
            done.append(1)
        many = [threading.Thread(target=run) for _ in range(4)]
        [t.start() for t in many], [t.join() for t in many]
        print(len(done), flush=True)
    else:
        work()
        print('worked', flush=True)
";

fn python() -> Option<PathBuf> {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let installed = std::fs::read_dir(home.join(".pyenv/versions"))
        .into_iter()
        .flatten()
        .flatten();
    let pyenv = installed
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("3.12."))
        .map(|entry| entry.path().join("bin/python3"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path)
        .map(|folder| folder.join("python3.12"))
        .collect::<Vec<_>>();
    pyenv.chain(on_path).find(|python| python.exists())
}

/// The program, and what it said about itself.
struct Program {
    child: Child,
    commands: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
    /// Addresses of its function objects.
    functions: Vec<u64>,
}

impl Program {
    fn start(python: PathBuf) -> Self {
        let mut child = Command::new(python)
            .args(["-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = child.stdin.take();
        let mut replies = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        replies.read_line(&mut line).unwrap();
        let functions = line
            .split_ascii_whitespace()
            .map(|word| word.parse().unwrap())
            .collect();
        Self {
            child,
            commands,
            replies,
            functions,
        }
    }

    fn tell(&mut self, command: &str) -> String {
        writeln!(self.commands.as_mut().unwrap(), "{command}").unwrap();
        let mut line = String::new();
        self.replies.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// All bytes of the redirected pointers.
    fn pointers(&self) -> Vec<u64> {
        let pointer = |function| vm::read_value(self.child.id(), function + VECTORCALL).unwrap();
        self.functions.iter().map(pointer).collect()
    }

    fn finish(mut self) {
        drop(self.commands.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn count_and_mark(function: u64, expected: u64) -> Redirect {
    Redirect {
        function,
        vectorcall_address: function + VECTORCALL,
        expected,
        version: Some(VersionWrite {
            address: function + FUNC_VERSION,
            value: 0,
        }),
        version_cache: None,
        mode: MODE_COUNT | MODE_ENTRY | MODE_RETURN,
        skip: 0,
    }
}

#[test]
fn python_functions_are_counted_and_put_back_to_the_byte() {
    // Calls of one `work`: methods, all calls that `fib` makes, and the call that makes the generator.
    const CALLS: [u64; 3] = [400, 1973 + 1 + 3 + 5, 1];
    if !is_root() {
        return;
    }
    let Some(python) = python() else {
        println!("skipped: no Python 3.12 here");
        return;
    };
    let mut program = Program::start(python);
    let pointers = program.pointers();
    let original = pointers[0];
    let (page, _) = MarkerPage::acquire(program.child.id(), original, &[]).unwrap();
    let requests: Vec<_> = program
        .functions
        .iter()
        .map(|function| count_and_mark(*function, original))
        .collect();
    for (command, reply, works) in [
        ("work", "worked", 1),
        ("threads", "4", 80),
        ("work", "worked", 1),
    ] {
        let results = redirect(&page, &requests).unwrap();
        let slots: Vec<u8> = results
            .into_iter()
            .map(|result| result.unwrap().slot)
            .collect();
        let before = page.slots().unwrap();
        assert_eq!(program.tell(command), reply);
        let after = page.slots().unwrap();
        for (index, slot) in slots.iter().map(|slot| usize::from(*slot)).enumerate() {
            let calls = after[slot].calls - before[slot].calls;
            assert_eq!(calls, CALLS[index] * works, "{command}, function {index}");
            assert_eq!(after[slot].marks - before[slot].marks, 2 * calls);
        }
        assert_eq!(restore(&page, &slots).unwrap().restored, 3);
        assert_eq!(program.pointers(), pointers);
        let calls = |page: &MarkerPage| {
            page.slots()
                .unwrap()
                .iter()
                .map(|slot| slot.calls)
                .sum::<u64>()
        };
        let counted = calls(&page);
        assert_eq!(program.tell("work"), "worked");
        assert_eq!(calls(&page), counted, "no call passes the page any more");
    }
    program.finish();
}
