//! Which interpreter runs in a process, and where its symbols are.
//!
//! Files are opened only through `/proc/PID/map_files` (the very file that is mapped, whatever lies at its path now)
//! or, where that is not allowed, below `/proc/PID/root` and only if the inode is the mapped one.

use std::ops::Range;

use profilemate_common::memory::Memory;

use super::elf;
use super::symbols::{REQUIRED, Symbols, WANTED};
use crate::target::maps::{self, Mapping};

/// A CPython version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct Version {
    /// 12 for 3.12.
    pub minor: u8,
    /// 1 for 3.12.1; not known on 3.10 before its `sys` module was read.
    pub patch: Option<u8>,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.patch {
            Some(patch) => write!(f, "3.{}.{patch}", self.minor),
            None => write!(f, "3.{}", self.minor),
        }
    }
}

impl Version {
    /// From `PY_VERSION_HEX`; `None` for another major version than 3.
    pub fn from_hex(hex: u32) -> Option<Self> {
        let [major, minor, patch, _] = hex.to_be_bytes();
        (major == 3).then_some(Self {
            minor,
            patch: Some(patch),
        })
    }
}

/// The interpreter of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub struct Interpreter {
    /// Process id.
    pub pid: u32,
    /// Version, as far as it is known without reading objects.
    pub version: Version,
    /// The file with the interpreter's code, as the target sees it.
    pub path: String,
    /// The file's build id, hexadecimal.
    pub build_id: Option<String>,
    /// Where the file's code is mapped.
    pub text: Vec<Range<u64>>,
    /// Where its variables lie.
    pub data: Vec<Range<u64>>,
    /// Addresses of its symbols.
    pub symbols: Symbols,
}

impl Interpreter {
    /// Whether `address` lies in the interpreter's own code.
    pub fn is_text(&self, address: u64) -> bool {
        self.text.iter().any(|range| range.contains(&address))
    }
}

/// Why a process's interpreter is not known.
#[derive(Debug, thiserror::Error)]
pub enum IdentifyError {
    /// `/proc/PID/maps` cannot be read.
    #[error("cannot read the memory map of process {pid}: {source}")]
    Maps {
        /// Process.
        pid: u32,
        /// The system's word.
        source: std::io::Error,
    },
    /// No file mapped there looks like CPython.
    #[error("process {pid} does not run CPython")]
    NotPython {
        /// Process.
        pid: u32,
    },
    /// The interpreter's file cannot be opened or is no ELF file.
    #[error("cannot read {path} of process {pid}: {reason}")]
    File {
        /// Process.
        pid: u32,
        /// The file, as the target sees it.
        path: String,
        /// What went wrong.
        reason: String,
    },
    /// It lacks the symbols.
    #[error("{path} of process {pid} looks like CPython but lacks the symbol {missing}")]
    NoSymbols {
        /// Process.
        pid: u32,
        /// The file, as the target sees it.
        path: String,
        /// One of those that lack.
        missing: &'static str,
    },
    /// CPython, but a version for which no layout is known.
    #[error("process {pid} runs CPython {version}; ProfileMate knows 3.10 to 3.14")]
    Unsupported {
        /// Process.
        pid: u32,
        /// `3.9`.
        version: String,
    },
    /// A build without the global interpreter lock.
    #[error(
        "process {pid} runs a free-threaded CPython {version}, whose objects are laid out differently"
    )]
    FreeThreaded {
        /// Process.
        pid: u32,
        /// Version.
        version: Version,
    },
}

impl IdentifyError {
    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Maps { .. } => "run as root, and check that the process still runs",
            Self::NotPython { .. } => "give the pid of the server's Python process",
            Self::File { .. } => {
                "run as root with CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE and CAP_SYS_PTRACE"
            }
            Self::NoSymbols { .. } => {
                "the interpreter must keep its dynamic symbols; rebuild it without stripping them"
            }
            Self::Unsupported { .. } => "run the server on CPython 3.10, 3.11, 3.12, 3.13 or 3.14",
            Self::FreeThreaded { .. } => "run the server on the ordinary build of the same version",
        }
    }
}

/// Finds the interpreter of process `pid`, whose memory is `memory`.
pub fn identify(pid: u32, memory: &impl Memory) -> Result<Interpreter, IdentifyError> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/maps"))
        .map_err(|source| IdentifyError::Maps { pid, source })?;
    let executable = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let executable = executable.as_deref().and_then(|path| path.to_str());
    let maps = maps::parse(&text);
    let mut failure = None;
    for candidate in candidates(&maps, executable) {
        match examine(pid, &maps, candidate, memory) {
            Ok(Some(interpreter)) => return Ok(interpreter),
            Ok(None) => {}
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    Err(failure.unwrap_or(IdentifyError::NotPython { pid }))
}

/// Executable mappings that may be an interpreter's, likeliest first: libpython, the executable, and what is named
/// like an interpreter (one started by an explicit dynamic loader is not the process's executable).
fn candidates<'maps>(maps: &'maps [Mapping], executable: Option<&str>) -> Vec<&'maps Mapping> {
    let mut found: Vec<(u8, &Mapping)> = Vec::new();
    for mapping in maps.iter().filter(|mapping| mapping.executable) {
        let name = mapping.path.rsplit('/').next().unwrap_or_default();
        let rank = if name.starts_with("libpython3.") && name != "libpython3.so" {
            0
        } else if executable == Some(mapping.path.as_str()) {
            1
        } else if name.starts_with("python3.") {
            2
        } else {
            continue;
        };
        if found
            .iter()
            .all(|(_, seen)| seen.inode != mapping.inode || seen.path != mapping.path)
        {
            found.push((rank, mapping));
        }
    }
    found.sort_by_key(|(rank, _)| *rank);
    found
        .into_iter()
        .take(8)
        .map(|(_, mapping)| mapping)
        .collect()
}

fn examine(
    pid: u32,
    maps: &[Mapping],
    mapping: &Mapping,
    memory: &impl Memory,
) -> Result<Option<Interpreter>, IdentifyError> {
    let path = mapping.path.clone();
    let broken = |reason: String| IdentifyError::File {
        pid,
        path: path.clone(),
        reason,
    };
    let file = maps::open(pid, mapping).map_err(|error| broken(error.to_string()))?;
    let image = elf::read(file, WANTED).map_err(|error| broken(error.to_string()))?;
    if !image.symbols.contains_key("_PyRuntime") && !image.symbols.contains_key("PyType_Type") {
        return Ok(None);
    }
    let bias = image
        .bias(mapping.addresses.start, mapping.offset)
        .ok_or_else(|| broken("its code is not mapped where the file says".to_owned()))?;
    let symbols = Symbols::from_image(&image, bias);
    let version = version(pid, &path, &symbols, memory)?;
    if let Some(missing) = REQUIRED
        .iter()
        .find(|name| !image.symbols.contains_key(**name))
    {
        return Err(IdentifyError::NoSymbols { pid, path, missing });
    }
    if free_threaded(version, &path, &symbols, memory) {
        return Err(IdentifyError::FreeThreaded { pid, version });
    }
    let text = mapped(maps, mapping, |other| other.executable);
    let mut data = mapped(maps, mapping, |other| other.writable);
    // Variables without a value in the file (`.bss`) lie in the anonymous memory that follows it.
    let end = data.iter().map(|range| range.end).max();
    let follows = |other: &&Mapping| {
        other.path.is_empty() && other.writable && Some(other.addresses.start) == end
    };
    data.extend(
        maps.iter()
            .find(follows)
            .map(|other| other.addresses.clone()),
    );
    Ok(Some(Interpreter {
        pid,
        version,
        path,
        build_id: image.build_id,
        text,
        data,
        symbols,
    }))
}

/// Addresses of the mappings of the same file that are wanted.
fn mapped(
    maps: &[Mapping],
    mapping: &Mapping,
    wanted: impl Fn(&Mapping) -> bool,
) -> Vec<Range<u64>> {
    let same_file = |other: &&Mapping| {
        other.inode == mapping.inode && other.path == mapping.path && wanted(other)
    };
    maps.iter()
        .filter(same_file)
        .map(|other| other.addresses.clone())
        .collect()
}

/// The version by `Py_Version`, or, before 3.11, by the file's name. (`validate` checks it against `sys.hexversion`.)
fn version(
    pid: u32,
    path: &str,
    symbols: &Symbols,
    memory: &impl Memory,
) -> Result<Version, IdentifyError> {
    let unsupported = |version: String| IdentifyError::Unsupported { pid, version };
    let version = if symbols.version == 0 {
        let minor =
            minor_in_name(path).ok_or_else(|| unsupported("of unknown version".to_owned()))?;
        Version { minor, patch: None }
    } else {
        let hex: u32 = memory
            .read(symbols.version)
            .ok_or(IdentifyError::NotPython { pid })?;
        Version::from_hex(hex).ok_or_else(|| unsupported(format!("{hex:#x}")))?
    };
    // Without `Py_Version` only 3.10 is possible, with it only 3.11 and later.
    if !(10..=14).contains(&version.minor) || (symbols.version == 0) != (version.minor == 10) {
        return Err(unsupported(version.to_string()));
    }
    Ok(version)
}

fn minor_in_name(path: &str) -> Option<u8> {
    let name = path.rsplit('/').next()?;
    let (_, after) = name.split_once("python3.")?;
    let digits = after.bytes().take_while(u8::is_ascii_digit).count();
    after.get(..digits)?.parse().ok()
}

/// `_Py_DebugOffsets.free_threaded` tells on 3.13+; the `t` in the name is the second sign.
fn free_threaded(version: Version, path: &str, symbols: &Symbols, memory: &impl Memory) -> bool {
    const FREE_THREADED: u64 = 16;
    let name = path.rsplit('/').next().unwrap_or_default();
    version.minor >= 13
        && (name.contains(&format!("python3.{}t", version.minor))
            || memory
                .read::<u64>(symbols.runtime.wrapping_add(FREE_THREADED))
                .is_some_and(|flag| flag != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minor_from_names() {
        assert_eq!(minor_in_name("/x/python3.9/libpython3.10.so.1.0"), Some(10));
        assert_eq!(minor_in_name("/usr/bin/python3.8"), Some(8));
        assert_eq!(minor_in_name("/usr/bin/python3"), None);
        assert_eq!(minor_in_name("/usr/bin/python3.999999"), None);
    }

    /// `_PyRuntime` of a build whose flag is this.
    struct Runtime(u64);

    impl Memory for Runtime {
        fn read<T: bytemuck::Pod>(&self, address: u64) -> Option<T> {
            let flag = (address == 0x1010).then_some(self.0)?;
            bytemuck::try_from_bytes(bytemuck::bytes_of(&flag))
                .ok()
                .copied()
        }
    }

    #[test]
    fn free_threaded_builds_are_told_by_either_sign() {
        let symbols = Symbols {
            runtime: 0x1000,
            ..Symbols::default()
        };
        let told = |minor, path, flag| {
            let version = Version { minor, patch: None };
            free_threaded(version, path, &symbols, &Runtime(flag))
        };
        assert!(told(13, "/x/bin/python3.13", 1));
        assert!(told(14, "/x/lib/libpython3.14t.so.1.0", 0));
        assert!(!told(13, "/x/bin/python3.13", 0));
        // Before, that word is something else.
        assert!(!told(12, "/x/bin/python3.12", 1));
    }

    #[test]
    fn version_from_hex() {
        let version = Version::from_hex(0x030c_01f0).map(|version| version.to_string());
        assert_eq!(version.as_deref(), Some("3.12.1"));
        assert_eq!(Version::from_hex(0x0207_12f0), None);
    }
}
