//! CUDA libraries in the memory map of a process.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use object::read::ReadCache;
use object::{Object, ObjectSegment, ObjectSymbol, SegmentFlags, SymbolFlags};

use super::functions::{DRIVER, Declared, RUNTIME, declared};
use crate::target::maps;

/// CUDA libraries of one process, at most: a bound on what a made-up memory map can cost.
const LIBRARIES: usize = 16;
/// Symbols looked at, at most.
const SYMBOLS: usize = 1 << 20;
/// Bytes of a function that are read, at most.
const CODE: u64 = 1 << 20;
/// Bytes read of a function of unknown size.
const UNSIZED: u64 = 64;

/// Which side of the driver a library is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// `libcuda`.
    Driver,
    /// `libcudart`, which calls the driver.
    Runtime,
}

impl Side {
    /// By a file's name; the wheels of some packages put a hash into it.
    fn of(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next()?;
        let name = name.strip_suffix(" (deleted)").unwrap_or(name);
        let is = |stem: &str| {
            name.strip_prefix(stem)
                .is_some_and(|rest| rest.starts_with('.') || rest.starts_with('-'))
                && name.contains(".so")
        };
        if is("libcuda") {
            Some(Self::Driver)
        } else if is("libcudart") {
            Some(Self::Runtime)
        } else {
            None
        }
    }

    /// The functions that such a library has.
    pub fn functions(self) -> &'static [Declared] {
        match self {
            Self::Driver => DRIVER,
            Self::Runtime => RUNTIME,
        }
    }
}

/// A library file that a process maps.
#[derive(Debug)]
pub struct Library {
    /// What it is.
    pub side: Side,
    /// Path as the process sees it.
    pub path: String,
    /// The file: device and inode.
    pub identity: (u64, u64),
    file: File,
}

/// What is wanted of a library's file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Build id in hex; empty if there is none.
    pub build_id: String,
    /// The declared functions that it exports, by name.
    pub exports: Vec<Export>,
    /// Symbols that it exports and that are no code that can be read, and why.
    pub unreadable: Vec<(String, String)>,
}

/// A declared function that a library exports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Symbol.
    pub symbol: String,
    /// Its address as linked.
    pub address: u64,
    /// Where in the file it begins.
    pub offset: u64,
    /// Its code.
    pub code: Vec<u8>,
}

/// Libraries that could not be opened: path, and why.
pub type Unopened = Vec<(String, io::Error)>;

/// The CUDA libraries that process `pid` maps, each file once. What cannot be opened is told with its path.
pub fn find(pid: u32) -> io::Result<(Vec<Library>, Unopened)> {
    let bytes = std::fs::read(format!("/proc/{pid}/maps"))?;
    let text = String::from_utf8_lossy(&bytes);
    let mut seen = BTreeSet::new();
    let mut found: Vec<Library> = Vec::new();
    let mut failed = Vec::new();
    for mapping in maps::parse(&text) {
        let Some(side) = Side::of(&mapping.path) else {
            continue;
        };
        // Device numbers in `maps` are not those of `stat` on every file system; path and inode tell files apart.
        let key = (mapping.inode, mapping.path.clone());
        if !mapping.executable || !seen.insert(key) {
            continue;
        }
        if found.len() + failed.len() >= LIBRARIES {
            break;
        }
        match maps::open(pid, &mapping).and_then(|file| Ok((file.metadata()?, file))) {
            Ok((stat, file)) => {
                let identity = (stat.dev(), stat.ino());
                if !found.iter().any(|library| library.identity == identity) {
                    found.push(Library {
                        side,
                        path: mapping.path,
                        identity,
                        file,
                    });
                }
            }
            Err(error) => failed.push((mapping.path, error)),
        }
    }
    Ok((found, failed))
}

impl Library {
    /// A path that leads to this very file as long as it is open, whatever happens to the process.
    pub fn uprobe_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// Reads the declared functions.
    pub fn read(&self) -> Result<Image, object::Error> {
        image(&self.file, self.side)
    }

    /// A library by its path on this host, for tests and measurements.
    pub fn open(path: &std::path::Path) -> io::Result<Option<Self>> {
        let file = File::open(path)?;
        let stat = file.metadata()?;
        let path = std::fs::canonicalize(path)?.display().to_string();
        Ok(Side::of(&path).map(|side| Self {
            side,
            path,
            identity: (stat.dev(), stat.ino()),
            file,
        }))
    }
}

fn image(file: &File, side: Side) -> Result<Image, object::Error> {
    let cache = ReadCache::new(file);
    let elf = object::File::parse(&cache)?;
    let mut image = Image {
        build_id: elf.build_id()?.map(hex).unwrap_or_default(),
        ..Image::default()
    };
    for symbol in elf.dynamic_symbols().take(SYMBOLS) {
        let Ok(name) = symbol.name() else { continue };
        if symbol.is_undefined() || declared(name, side.functions()).is_none() {
            continue;
        }
        let indirect =
            matches!(symbol.flags(), SymbolFlags::Elf { st_info, .. } if st_info & 0xf == 10);
        let place = (!indirect).then(|| place(&elf, symbol.address(), symbol.size()));
        match place {
            Some(Some((offset, code))) => image.exports.push(Export {
                symbol: name.to_owned(),
                address: symbol.address(),
                offset,
                code,
            }),
            Some(None) => image
                .unreadable
                .push((name.to_owned(), "it lies in no code of the file".to_owned())),
            None => image.unreadable.push((
                name.to_owned(),
                "it is chosen by a function when the library is loaded".to_owned(),
            )),
        }
    }
    image
        .exports
        .sort_by(|one, other| one.symbol.cmp(&other.symbol));
    image.unreadable.sort();
    Ok(image)
}

/// Where in the file a function's code is, and the code.
fn place<'data>(elf: &impl Object<'data>, address: u64, size: u64) -> Option<(u64, Vec<u8>)> {
    for segment in elf.segments() {
        let SegmentFlags::Elf { p_flags } = segment.flags() else {
            continue;
        };
        let (file_offset, file_size) = segment.file_range();
        let Some(within) = address.checked_sub(segment.address()) else {
            continue;
        };
        if p_flags & object::elf::PF_X == 0 || within >= file_size {
            continue;
        }
        let wanted = if size == 0 { UNSIZED } else { size.min(CODE) };
        let length = wanted.min(file_size - within);
        let code = segment.data_range(address, length).ok()??;
        return Some((file_offset.checked_add(within)?, code.to_vec()));
    }
    None
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().take(64).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_told_by_their_names() {
        for (path, side) in [
            ("/usr/lib/libcuda.so.1", Some(Side::Driver)),
            ("/usr/lib/libcuda.so.535.261.03", Some(Side::Driver)),
            ("/x y/libcuda.so.1 (deleted)", Some(Side::Driver)),
            ("/w/libcudart.so.12", Some(Side::Runtime)),
            ("/w/libcudart-b2b9d5d6.so.12.8.90", Some(Side::Runtime)),
            ("/usr/lib/libcudadebugger.so.1", None),
            ("/usr/lib/libcudnn.so.9", None),
            ("/usr/lib/libcuda.txt", None),
            ("", None),
        ] {
            assert_eq!(Side::of(path), side, "{path}");
        }
    }

    #[test]
    fn a_process_without_cuda_has_none() {
        let (found, failed) = find(std::process::id()).unwrap();
        assert!(found.is_empty() && failed.is_empty());
    }
}
