//! Recorded memory of real interpreters: what the readers and the evaluator make of each version's objects, tested
//! also on a machine that has none of these interpreters.
//!
//! `profilemate-cli/tests/images/VERSION.image` holds the parts of a process's memory that are read when its layout is
//! checked and when field paths are compiled and run on `tests/images/target.py`, and what the process itself said that
//! they are. After a change that reads more, or for another version, this records them anew:
//!
//! ```text
//! PROFILEMATE_BLESS=1 PROFILEMATE_PYTHONS=/path/to/python3.12:/path/to/python3.13 \
//!     cargo test -p profilemate-cli --lib python::image
//! ```
//!
//! A file is compressed by zlib: the length of a head (8 bytes, little endian); the head, JSON; then regions, each an
//! address (8 bytes), a length (4 bytes) and its bytes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::sync::{Once, OnceLock};

use bytemuck::Pod;
use profilemate_common::memory::Memory;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::identify::Interpreter;
use super::memory::{ReadBytes, plausible};

mod case;
mod corrupt;
mod record;
mod tests;

/// Bytes of a page.
const PAGE: u64 = 4096;
/// Bytes that are recorded together: every piece that is read comes with its neighbours.
const LINE: u64 = 32;

/// An interpreter's recorded memory.
struct Image {
    head: Head,
    pages: BTreeMap<u64, Vec<u8>>,
    regions: BTreeMap<u64, Vec<u8>>,
}

/// What is known of the process.
#[derive(Serialize, Deserialize)]
struct Head {
    interpreter: Interpreter,
    /// What the process said of itself.
    facts: Value,
}

impl Image {
    fn new(head: Head, regions: BTreeMap<u64, Vec<u8>>) -> Self {
        let mut pages: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for (start, bytes) in &regions {
            for (byte, at) in bytes.iter().zip(*start..) {
                let page = pages
                    .entry(at / PAGE)
                    .or_insert_with(|| vec![0; PAGE as usize]);
                page[(at % PAGE) as usize] = *byte;
            }
        }
        Self {
            head,
            pages,
            regions,
        }
    }

    fn load(path: &std::path::Path) -> Self {
        let file = std::fs::File::open(path).unwrap();
        let mut bytes = Vec::new();
        flate2::read::ZlibDecoder::new(file)
            .read_to_end(&mut bytes)
            .unwrap();
        let mut rest = bytes.as_slice();
        let mut take = |length: usize| {
            let (taken, after) = rest.split_at(length);
            rest = after;
            (taken, after.is_empty())
        };
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
        let length = word(take(8).0) as usize;
        let head = serde_json::from_slice(take(length).0).unwrap();
        let mut regions = BTreeMap::new();
        loop {
            let address = word(take(8).0);
            let length = u32::from_le_bytes(take(4).0.try_into().unwrap());
            let (bytes, last) = take(length as usize);
            regions.insert(address, bytes.to_vec());
            if last {
                return Self::new(head, regions);
            }
        }
    }

    fn save(&self, path: &std::path::Path) {
        let file = std::fs::File::create(path).unwrap();
        let mut into = flate2::write::ZlibEncoder::new(file, flate2::Compression::best());
        let head = serde_json::to_vec(&self.head).unwrap();
        into.write_all(&(head.len() as u64).to_le_bytes()).unwrap();
        into.write_all(&head).unwrap();
        for (address, bytes) in &self.regions {
            into.write_all(&address.to_le_bytes()).unwrap();
            into.write_all(&(bytes.len() as u32).to_le_bytes()).unwrap();
            into.write_all(bytes).unwrap();
        }
        into.finish().unwrap();
    }

    fn fact(&self, name: &str) -> u64 {
        self.head.facts[name].as_u64().unwrap()
    }

    fn facts(&self, name: &str) -> BTreeSet<u64> {
        let list = self.head.facts[name].as_array().unwrap();
        list.iter().map(|fact| fact.as_u64().unwrap()).collect()
    }

    fn version(&self) -> &str {
        self.head.facts["version"].as_str().unwrap()
    }

    /// Every recorded byte's address.
    fn addresses(&self) -> impl Iterator<Item = u64> {
        self.regions
            .iter()
            .flat_map(|(start, bytes)| *start..*start + bytes.len() as u64)
    }
}

/// What was not recorded of a page that is there reads as zeros.
impl ReadBytes for Image {
    fn read_bytes(&self, address: u64, into: &mut [u8]) -> bool {
        if !plausible(address, into.len()) {
            return false;
        }
        let mut done = 0;
        while done < into.len() {
            let at = address + done as u64;
            let Some(page) = self.pages.get(&(at / PAGE)) else {
                return false;
            };
            let from = (at % PAGE) as usize;
            let count = (into.len() - done).min(page.len() - from);
            into[done..done + count].copy_from_slice(&page[from..from + count]);
            done += count;
        }
        true
    }
}

impl Memory for Image {
    fn read<T: Pod>(&self, address: u64) -> Option<T> {
        value(self, address)
    }
}

fn value<T: Pod>(memory: &impl ReadBytes, address: u64) -> Option<T> {
    let mut value = T::zeroed();
    memory
        .read_bytes(address, bytemuck::bytes_of_mut(&mut value))
        .then_some(value)
}

/// A memory of which is noted what is read.
struct Noted<'m, M> {
    memory: &'m M,
    /// Addresses of bytes.
    seen: RefCell<BTreeSet<u64>>,
}

impl<'m, M: ReadBytes> Noted<'m, M> {
    fn new(memory: &'m M) -> Self {
        Self {
            memory,
            seen: RefCell::default(),
        }
    }
}

impl<M: ReadBytes> ReadBytes for Noted<'_, M> {
    fn read_bytes(&self, address: u64, into: &mut [u8]) -> bool {
        self.memory.read_bytes(address, into)
    }

    fn note(&self, address: u64, len: usize) {
        self.seen.borrow_mut().extend(address..address + len as u64);
    }
}

impl<M: ReadBytes> Memory for Noted<'_, M> {
    fn read<T: Pod>(&self, address: u64) -> Option<T> {
        if plausible(address, size_of::<T>()) {
            self.note(address, size_of::<T>());
        }
        value(self, address)
    }
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/images"))
}

/// The images of all versions, recorded anew if that is asked for.
fn images() -> &'static [Image] {
    static IMAGES: OnceLock<Vec<Image>> = OnceLock::new();
    IMAGES.get_or_init(|| {
        if std::env::var_os("PROFILEMATE_BLESS").is_some() {
            // Once, also if it fails.
            static RECORDED: Once = Once::new();
            RECORDED.call_once(record::record);
        }
        let files = std::fs::read_dir(folder()).unwrap();
        let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        paths.retain(|path| {
            path.extension()
                .is_some_and(|extension| extension == "image")
        });
        paths.sort();
        paths.iter().map(|path| Image::load(path)).collect()
    })
}
