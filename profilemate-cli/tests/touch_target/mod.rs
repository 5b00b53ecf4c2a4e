//! The C target of the touch tests, compiled on the fly and told what to do line by line.

#![allow(clippy::unwrap_used, reason = "test code")]
#![allow(dead_code, reason = "each test uses a part of it")]

mod root;

pub(crate) use root::is_root;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use profilemate::sys::vm;
use profilemate::touch::{MarkerPage, Redirect, Redirected, Refusal, VersionWrite};
use profilemate_common::page::Slot;

fn executable() -> PathBuf {
    static BUILT: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/touch_target/target.c");
        let status = Command::new("gcc")
            .args(["-O1", "-fno-omit-frame-pointer", "-pthread", "-o"])
            .args([folder.path().join("target").as_os_str(), source.as_ref()])
            .status()
            .expect("gcc is needed to build the test's target");
        assert!(status.success());
        folder
    });
    folder.path().join("target")
}

/// A running target; killed when dropped.
pub(crate) struct Target {
    child: Child,
    commands: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
    functions: u64,
    stride: u64,
    /// The function that all pointers point to at first.
    pub(crate) original: u64,
}

impl Target {
    pub(crate) fn start() -> Self {
        let mut child = Command::new(executable())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = child.stdin.take();
        let mut replies = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        replies.read_line(&mut line).unwrap();
        let numbers: Vec<u64> = line
            .split_ascii_whitespace()
            .skip(1)
            .map(|word| word.parse().unwrap())
            .collect();
        let [functions, stride, original] = numbers[..] else {
            panic!("odd greeting: {line}")
        };
        Self {
            child,
            commands,
            replies,
            functions,
            stride,
            original,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn function(&self, index: u64) -> u64 {
        self.functions + index * self.stride
    }

    /// The pointer of a function, as it is now.
    pub(crate) fn pointer(&self, index: u64) -> u64 {
        vm::read_value(self.pid(), self.function(index) + 128).unwrap()
    }

    pub(crate) fn version(&self, index: u64) -> u32 {
        vm::read_value(self.pid(), self.function(index) + 8).unwrap()
    }

    pub(crate) fn redirect(&self, index: u64, mode: u32) -> Redirect {
        Redirect {
            function: self.function(index),
            vectorcall_address: self.function(index) + 128,
            expected: self.original,
            version: Some(VersionWrite {
                address: self.function(index) + 8,
                value: 0,
            }),
            version_cache: None,
            mode,
            skip: 0,
        }
    }

    pub(crate) fn page(&self) -> MarkerPage {
        let page = MarkerPage::create(self.pid(), self.original).unwrap();
        page.lock().unwrap();
        page
    }

    /// Sends a command and waits for its reply.
    pub(crate) fn tell(&mut self, command: &str) -> String {
        self.send(command);
        self.reply(command)
    }

    /// Sends a command.
    pub(crate) fn send(&mut self, command: &str) {
        writeln!(self.commands.as_mut().unwrap(), "{command}").unwrap();
    }

    /// Waits for the reply to a command that was sent.
    pub(crate) fn reply(&mut self, command: &str) -> String {
        let mut line = String::new();
        self.replies.read_line(&mut line).unwrap();
        assert!(
            !line.is_empty(),
            "the target has died at `{command}`: {:?}",
            self.child.try_wait()
        );
        line.trim_end().to_owned()
    }

    /// Lets it end; it tells by its status whether every check of its own held.
    pub(crate) fn finish(mut self) {
        drop(self.commands.take());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "the target's own checks failed: {status}");
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The slots of functions that were all redirected.
pub(crate) trait Slots {
    fn all_slots(self) -> Vec<u8>;
}

impl Slots for Vec<Result<Redirected, Refusal>> {
    fn all_slots(self) -> Vec<u8> {
        self.into_iter()
            .map(|result| result.unwrap().slot)
            .collect()
    }
}

/// One slot's data.
pub(crate) fn slot(page: &MarkerPage, number: u8) -> Slot {
    page.slots().unwrap()[usize::from(number)]
}
