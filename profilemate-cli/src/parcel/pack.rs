//! Making an archive of a session folder. No link is followed, and no name comes from outside.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use tar::{Builder, EntryType, Header};

use super::{LAST, names};

/// Why there is no archive, or only a part of one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder is gone, or is none.
    #[error("the session folder cannot be opened")]
    Folder(#[source] io::Error),
    /// A file cannot be read, or is a link.
    #[error("`{name}` cannot be read")]
    File {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was read could not be sent.
    #[error("the archive cannot be sent")]
    Sent(#[source] io::Error),
}

/// A session folder, held open: what is put in its place later is not read.
#[derive(Debug)]
pub struct Folder(OwnedFd);

impl Folder {
    /// Opens it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(CWD, path, flags, Mode::empty());
        let folder = Self(opened.map_err(|error| Error::Folder(error.into()))?);
        match folder.file(LAST)? {
            Some(_) => Ok(folder),
            None => Err(Error::Folder(io::ErrorKind::NotFound.into())),
        }
    }

    /// A file in it; `None` if there is none of that name.
    fn file(&self, name: &str) -> Result<Option<File>, Error> {
        let failed = |source| Error::File {
            name: name.to_owned(),
            source,
        };
        // Opening a pipe that somebody has put there must not wait for its other end.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(self.0.as_fd(), name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failed(error.into())),
        };
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(failed(io::Error::other("it is no regular file")));
        }
        Ok(Some(file))
    }

    /// Writes the archive.
    pub fn pack(&self, to: impl Write) -> Result<(), Error> {
        let mut builder = Builder::new(to);
        for name in names() {
            let Some(file) = self.file(&name)? else {
                continue;
            };
            let failed = |source| Error::File {
                name: name.clone(),
                source,
            };
            let metadata = file.metadata().map_err(failed)?;
            let mut header = Header::new_gnu();
            header.set_path(&name).map_err(failed)?;
            header.set_entry_type(EntryType::Regular);
            header.set_mode(0o644);
            header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
            header.set_size(metadata.len());
            header.set_cksum();
            let exact = Exact {
                file,
                left: metadata.len(),
            };
            builder.append(&header, exact).map_err(Error::Sent)?;
        }
        let mut to = builder.into_inner().map_err(Error::Sent)?;
        to.flush().map_err(Error::Sent)
    }
}

/// As many bytes of a file as its header has announced: fewer are an error, more are left.
struct Exact {
    file: File,
    left: u64,
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (&mut self.file).take(self.left).read(buffer)?;
        if count == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}
