//! Which functions of known libraries a waiting thread is in, by what lies on its stack; without stopping it.
//!
//! A thread that waits in the kernel has a known stack pointer. Above it lie the return addresses of the calls in
//! progress, among other things. A word is taken for one if it points behind a call instruction of a known library. So
//! what is told was *found on the stack*: strong evidence, and no unwinding.
//!
//! libcuda exports functions that only jump to unnamed ones, through a variable each. The variables' values, read in
//! the process, name these; where they begin and end is told by the file's unwind information.

mod image;

use std::collections::BTreeMap;
use std::ops::Range;

use super::maps::{self, Mapping};
use super::python::{ProcessMemory, ReadBytes as _};
use image::Image;

/// What is looked for: how the file's name begins, what it is called, and whether its exports lead on by variables.
const KNOWN: [(&str, &str, bool); 6] = [
    ("libcuda.so", "libcuda", true),
    ("libcudart", "libcudart", false),
    ("libnccl.so", "libnccl", false),
    ("libc.so", "libc", false),
    ("libc-2", "libc", false),
    ("libpthread", "libpthread", false),
];
/// Libraries of one process, at most.
const LIBRARIES: usize = 16;
/// Bytes of a stack that are searched: several hundred native calls.
const SEARCHED: u64 = 64 << 10;
/// Functions of one thread that are told, at most.
const TOLD: usize = 16;
/// Functions of the C library that are told where no other was found.
const C_TOLD: usize = 1;
/// Exported functions of one library that lead on and are followed, at most.
const STUBS: usize = 8192;

/// A function that was found on a stack.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Found {
    /// Library: `libcuda`.
    pub library: &'static str,
    /// Function: `cuStreamSynchronize`.
    pub function: String,
}

/// One library as it is mapped.
#[derive(Debug)]
struct Library {
    name: &'static str,
    /// Where its code lies.
    code: Vec<Range<u64>>,
    /// What is added to an address as linked.
    bias: u64,
    image: Image,
    /// Where functions begin that exported ones lead to, at addresses as linked.
    led_to: BTreeMap<u64, String>,
}

/// The known libraries of one process.
#[derive(Debug)]
pub struct Libraries {
    memory: ProcessMemory,
    mapped: Vec<Library>,
    /// Memory that may be a stack.
    writable: Vec<Range<u64>>,
    /// Libraries that could not be read: path, and why.
    pub unread: Vec<(String, String)>,
}

impl Libraries {
    /// Those of process `pid`.
    pub fn of(pid: u32) -> std::io::Result<Self> {
        let bytes = std::fs::read(format!("/proc/{pid}/maps"))?;
        let text = String::from_utf8_lossy(&bytes);
        let maps = maps::parse(&text);
        let mut found = Self {
            memory: ProcessMemory { pid },
            mapped: Vec::new(),
            writable: writable(&text),
            unread: Vec::new(),
        };
        let mut by_file: BTreeMap<(u64, &str), Vec<&Mapping>> = BTreeMap::new();
        for mapping in maps.iter().filter(|mapping| mapping.executable) {
            let files = by_file.len();
            let key = (mapping.inode, mapping.path.as_str());
            if known(&mapping.path).is_some() && (files < LIBRARIES || by_file.contains_key(&key)) {
                by_file.entry(key).or_default().push(mapping);
            }
        }
        for ((_, path), mappings) in by_file {
            match found.open(pid, path, &mappings) {
                Ok(library) => found.mapped.extend(library),
                Err(why) => found.unread.push((path.to_owned(), why)),
            }
        }
        Ok(found)
    }

    fn open(&self, pid: u32, path: &str, mappings: &[&Mapping]) -> Result<Option<Library>, String> {
        let (Some((_, name, leads_on)), Some(first)) = (known(path), mappings.first()) else {
            return Ok(None);
        };
        let file = maps::open(pid, first).map_err(|error| error.to_string())?;
        let image = Image::read(&file, *leads_on).map_err(|error| error.to_string())?;
        let linked = image
            .linked(first.offset)
            .ok_or("its code is not where its segments say")?;
        let mut library = Library {
            name,
            code: mappings
                .iter()
                .map(|mapping| mapping.addresses.clone())
                .collect(),
            bias: first.addresses.start.wrapping_sub(linked),
            image,
            led_to: BTreeMap::new(),
        };
        self.follow(&mut library);
        Ok(Some(library))
    }

    /// Names the functions that exported ones lead to.
    fn follow(&self, library: &mut Library) {
        for stub in library.image.stubs.iter().take(STUBS) {
            let mut word = [0; 8];
            let at = stub.variable.wrapping_add(library.bias);
            if !self.memory.read_bytes(at, &mut word) {
                continue;
            }
            let target = u64::from_ne_bytes(word);
            let linked = target.wrapping_sub(library.bias);
            // Only where a function begins.
            if library.holds(target) && library.image.start(linked) == Some(linked) {
                library
                    .led_to
                    .entry(linked)
                    .or_insert_with(|| stub.name.clone());
            }
        }
    }

    /// Whether the CUDA driver is mapped.
    pub fn has_driver(&self) -> bool {
        let mut names = self.mapped.iter().map(|library| library.name);
        names.any(|name| name == "libcuda")
    }

    /// The function of a known library that holds `address`.
    pub fn function(&self, address: u64) -> Option<Found> {
        let library = self.library(address)?;
        let linked = address.wrapping_sub(library.bias);
        let led_to = || library.led_to.get(&library.image.start(linked)?);
        let name = library
            .image
            .name(linked)
            .or_else(|| led_to().map(String::as_str))?;
        Some(Found {
            library: library.name,
            // A version of a signature is no other function to who reads it.
            function: name.split('@').next().unwrap_or(name).to_owned(),
        })
    }

    fn library(&self, address: u64) -> Option<&Library> {
        self.mapped.iter().find(|library| library.holds(address))
    }

    /// The functions of known libraries that a thread is in that waits with its stack pointer at `stack`, at
    /// `instruction`: the innermost first.
    pub fn on_stack(&self, stack: u64, instruction: u64) -> Vec<Found> {
        let mut found: Vec<Found> = self.function(instruction).into_iter().collect();
        for address in self.words(stack) {
            let Some(function) = self.function(address).filter(|_| self.is_return(address)) else {
                continue;
            };
            if found.last() != Some(&function) {
                found.push(function);
            }
            if found.len() >= TOLD {
                break;
            }
        }
        // Of the C library only what the wait itself is in: further out it says nothing, and old words lie there too.
        let device = found.iter().position(|found| !is_c(found));
        let innermost = device.unwrap_or(C_TOLD);
        let mut at = 0;
        found.retain(|found| {
            at += 1;
            !is_c(found) || at <= innermost
        });
        found
    }

    /// The words of a stack from its pointer on, as far as they are read.
    fn words(&self, stack: u64) -> Vec<u64> {
        let within = self
            .writable
            .iter()
            .find(|range| range.contains(&stack))
            .filter(|_| stack.is_multiple_of(8));
        let Some(range) = within else {
            return Vec::new();
        };
        let count = (range.end - stack).min(SEARCHED) / 8;
        self.memory
            .read_words(stack, count as usize)
            .unwrap_or_default()
    }

    /// Whether a call instruction stands before `address`: `call rel32`, or `call` of a register or of memory.
    fn is_return(&self, address: u64) -> bool {
        let mut code = [0; 7];
        let Some(start) = address.checked_sub(7) else {
            return false;
        };
        if !self.memory.read_bytes(start, &mut code) {
            return false;
        }
        // `ff /2` with 0 to 4 bytes of address behind it, and with or without a prefix before it.
        let indirect = |length: usize| {
            let at = 7 - length;
            code[at] == 0xff && code[at + 1] & 0x38 == 0x10
        };
        code[2] == 0xe8 || [2, 3, 4, 6, 7].into_iter().any(indirect)
    }
}

fn is_c(found: &Found) -> bool {
    matches!(found.library, "libc" | "libpthread")
}

impl Library {
    fn holds(&self, address: u64) -> bool {
        self.code.iter().any(|range| range.contains(&address))
    }
}

fn known(path: &str) -> Option<&'static (&'static str, &'static str, bool)> {
    let name = path.rsplit('/').next().unwrap_or(path);
    KNOWN
        .iter()
        .find(|(start, _, _)| name.starts_with(start) && name.contains(".so"))
}

/// Private memory that can be written, `[stack]` too, which is none of the file and anonymous mappings.
fn writable(maps: &str) -> Vec<Range<u64>> {
    let ranges = maps.lines().filter_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        rest.starts_with("rw-p").then_some(())?;
        Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
    });
    ranges.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_c_library_functions_are_found_by_address_and_on_a_made_up_stack() {
        let libraries = Libraries::of(std::process::id()).unwrap();
        let address = libc::getppid as *const () as u64;
        let found = libraries.function(address);
        assert_eq!(
            found.map(|found| found.function).as_deref(),
            Some("getppid"),
            "{:?}",
            libraries.unread
        );
        // Data that only looks like an address is no return address, and a stack that is none is not searched.
        let made_up = Box::new([address; 16]);
        assert!(libraries.on_stack(made_up.as_ptr() as u64, 0).is_empty());
        assert!(libraries.on_stack(8, 0).is_empty());
        assert!(libraries.on_stack(u64::MAX - 7, u64::MAX).is_empty());
    }

    #[test]
    fn files_are_told_by_their_names() {
        for (path, name) in [
            ("/usr/lib/libcuda.so.535.1", Some("libcuda")),
            ("/w/libcudart-b2b9d5d6.so.12.8.90", Some("libcudart")),
            ("/usr/lib/libc.so.6", Some("libc")),
            ("/usr/lib/libc-2.31.so", Some("libc")),
            ("/w/libc10_cuda.so", None),
            ("/w/libcudnn.so.9", None),
        ] {
            assert_eq!(known(path).map(|known| known.1), name, "{path}");
        }
    }
}
