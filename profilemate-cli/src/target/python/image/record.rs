//! Recording: what is read of a live process is written down.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::ops::Range;
use std::process::{Child, Command, Stdio};

use bytemuck::Pod;
use profilemate_common::memory::Memory;
use serde_json::Value;

use super::case::Cases;
use super::{Head, Image, LINE, Noted, folder, value};
use crate::target::python::layout::{Layout, validate};
use crate::target::python::memory::{ProcessMemory, ReadBytes};
use crate::target::python::{Interpreter, identify};

/// Records an image of each interpreter in `PROFILEMATE_PYTHONS`.
pub(super) fn record() {
    let pythons = std::env::var("PROFILEMATE_PYTHONS").unwrap_or_default();
    for python in pythons.split(':').filter(|path| !path.is_empty()) {
        let mut child = start(python);
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let facts: Value = serde_json::from_str(&line).unwrap();
        // From here on it waits, and nothing in it changes.
        std::thread::sleep(std::time::Duration::from_millis(500));
        let image = take(child.id(), facts);
        child.kill().unwrap();
        child.wait().unwrap();
        let path = folder().join(format!("{}.image", image.version()));
        image.save(&path);
        let kept: usize = image.regions.values().map(Vec::len).sum();
        let size = std::fs::metadata(&path).unwrap().len();
        println!(
            "{}: {kept} bytes of memory, {size} in the file",
            path.display()
        );
    }
}

/// Without random addresses and hashes, and without paths in memory.
fn start(python: &str) -> Child {
    let script = std::fs::read_to_string(folder().join("target.py")).unwrap();
    Command::new("setarch")
        .args(["-R", python, "-S", "-B", "-c", &script])
        .env_clear()
        .env("PYTHONHASHSEED", "7")
        .env("PYTHONSAFEPATH", "1")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn take(pid: u32, facts: Value) -> Image {
    let memory = ProcessMemory { pid };
    let mut interpreter = identify(pid, &memory).unwrap();
    let layout = validate(&interpreter, &memory).unwrap();
    // What the image's own check of the layout will search for the dictionary of interned strings.
    let searched = layout
        .interned
        .filter(|_| layout.offsets.interned.is_none());
    let around = |at: u64| at - at % LINE..at - at % LINE + 2 * LINE;
    interpreter.data = searched.map(around).into_iter().collect();
    let memory = Shortened {
        memory,
        emptied: emptied(&layout),
    };
    let noted = Noted::new(&memory);
    let layout = validate(&interpreter, &noted).unwrap();
    let cases = Cases::compile(&noted, &layout, &facts);
    for case in &cases.list {
        case.run(&cases.call, &noted, &layout.kernel);
    }
    let regions = regions(&memory, &noted.seen.into_inner());
    let path = interpreter.path.rsplit('/').next().unwrap().to_owned();
    let head = Head {
        interpreter: Interpreter {
            pid: 1,
            path,
            ..interpreter
        },
        facts,
    };
    Image::new(head, regions)
}

/// Of the cache that finds functions by version all but an eighth, from 3.13 on: every function in it is read.
fn emptied(layout: &Layout) -> Range<u64> {
    layout.offsets.version_cache.map_or(0..0, |cache| {
        let begin = layout.interpreter + cache.offset;
        let size = cache.item_size * u64::from(cache.items);
        begin + size / 8..begin + size
    })
}

/// A process's memory, of which some reads as zeros.
struct Shortened {
    memory: ProcessMemory,
    emptied: Range<u64>,
}

impl ReadBytes for Shortened {
    fn read_bytes(&self, address: u64, into: &mut [u8]) -> bool {
        let read = self.memory.read_bytes(address, into);
        for (byte, at) in into.iter_mut().zip(address..) {
            if self.emptied.contains(&at) {
                *byte = 0;
            }
        }
        read
    }
}

impl Memory for Shortened {
    fn read<T: Pod>(&self, address: u64) -> Option<T> {
        value(self, address)
    }
}

/// The bytes that were read, in whole lines.
fn regions(memory: &Shortened, seen: &BTreeSet<u64>) -> BTreeMap<u64, Vec<u8>> {
    let lines: BTreeSet<u64> = seen.iter().map(|at| at - at % LINE).collect();
    let mut regions: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for line in lines {
        let mut bytes = [0; LINE as usize];
        if !memory.read_bytes(line, &mut bytes) {
            continue;
        }
        match regions.last_entry() {
            Some(mut last) if *last.key() + last.get().len() as u64 == line => {
                last.get_mut().extend(bytes);
            }
            _ => {
                regions.insert(line, bytes.to_vec());
            }
        }
    }
    regions
}
