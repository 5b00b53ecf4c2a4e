//! Taking an archive from somebody who may lie: only known names, only plain files, only so many bytes.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use tar::{Archive, Entry, EntryType};

use super::{LAST, names};

/// Characters of a name that are shown.
const SHOWN: usize = 80;

/// Why an archive was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no archive, or did not arrive.
    #[error("the archive cannot be read")]
    Archive(#[source] io::Error),
    /// It has something that no session has.
    #[error("the archive has {what} `{name}`, which is refused")]
    Stranger {
        /// What: a file of another name, a link.
        what: &'static str,
        /// Its name, without control characters.
        name: String,
    },
    /// It would need too much room.
    #[error("the archive holds more than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// It ends before its end.
    #[error("the archive is torn")]
    Torn,
    /// A file or folder cannot be written.
    #[error("cannot write `{path}`")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Unpacks into the new folder `folder`, which is there only if all went well. Gives the bytes of its files.
pub fn unpack(from: impl Read, folder: &Path, limit: u64) -> Result<u64, Error> {
    let mut part = folder.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Write { path, source }
    };
    DirBuilder::new()
        .mode(0o700)
        .create(&part)
        .map_err(failed(&part))?;
    let done = entries(from, &part, limit);
    let done = done.and_then(|bytes| {
        // A folder of that name that has something in it is not replaced.
        fs::rename(&part, folder).map_err(failed(folder))?;
        Ok(bytes)
    });
    if done.is_err()
        && let Err(error) = fs::remove_dir_all(&part)
    {
        log::warn!("cannot remove `{}`: {error}", part.display());
    }
    done
}

fn entries(from: impl Read, folder: &Path, limit: u64) -> Result<u64, Error> {
    let mut archive = Archive::new(from);
    let mut total = 0_u64;
    let mut whole = false;
    // Raw: what an extension says of the next entry is not heeded, and no extension is read into memory.
    let entries = archive.entries().map_err(Error::Archive)?.raw(true);
    for entry in entries {
        let mut entry = entry.map_err(Error::Archive)?;
        let name = name(&entry)?;
        let size = entry.header().entry_size().map_err(Error::Archive)?;
        total = total.saturating_add(size);
        if total > limit {
            return Err(Error::TooLarge { limit });
        }
        let path = folder.join(&name);
        let failed = |source| Error::Write {
            path: path.clone(),
            source,
        };
        // A name that comes twice is refused here.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(failed)?;
        if copy(&mut entry, &mut file).map_err(|error| match error {
            Side::Read(source) => Error::Archive(source),
            Side::Write(source) => failed(source),
        })? != size
        {
            return Err(Error::Torn);
        }
        whole = name == LAST;
    }
    if whole { Ok(total) } else { Err(Error::Torn) }
}

/// The name of an entry that is a plain file of a session.
fn name<R: Read>(entry: &Entry<'_, R>) -> Result<String, Error> {
    let header = entry.header();
    let bytes = header.path_bytes();
    let known = names().find(|name| name.as_bytes() == &*bytes);
    let stranger = |what| Error::Stranger {
        what,
        name: String::from_utf8_lossy(&bytes)
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .take(SHOWN)
            .collect(),
    };
    if header.entry_type() != EntryType::Regular {
        return Err(stranger("something that is no file,"));
    }
    known.ok_or_else(|| stranger("a file that no session has,"))
}

enum Side {
    Read(io::Error),
    Write(io::Error),
}

fn copy(from: &mut impl Read, to: &mut impl io::Write) -> Result<u64, Side> {
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Side::Read(error)),
        };
        to.write_all(&buffer[..count]).map_err(Side::Write)?;
        total += count as u64;
    }
}
