//! Writes the stream file as it comes.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::frame;
use crate::sink;

/// Bytes buffered before they are written, at most.
const BUFFER: usize = 256 << 10;

/// A growing `events.pmrec`. The caller's [`CaptureWriter::flush`] decides how long frames may stay in the buffer.
pub struct CaptureWriter {
    path: PathBuf,
    file: BufWriter<File>,
    dirty: bool,
    bytes: u64,
}

impl CaptureWriter {
    /// Creates the file, which must not exist.
    pub fn create(path: &Path) -> Result<Self, sink::Error> {
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        let file = file.map_err(|source| sink::Error::Create {
            path: path.to_owned(),
            source,
        })?;
        let mut writer = Self {
            path: path.to_owned(),
            file: BufWriter::with_capacity(BUFFER, file),
            dirty: true,
            bytes: 0,
        };
        writer.put(&frame::file_head())?;
        writer.flush()?;
        Ok(writer)
    }

    /// Appends a frame.
    pub fn frame(&mut self, kind: u8, bytes: &[u8]) -> Result<(), sink::Error> {
        let mut head = [0; frame::HEAD_LEN];
        head[..4].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        head[4] = kind;
        self.put(&head)?;
        self.put(bytes)?;
        self.dirty = true;
        Ok(())
    }

    /// Hands everything to the kernel.
    pub fn flush(&mut self) -> Result<(), sink::Error> {
        if self.dirty {
            self.file.flush().map_err(|source| sink::Error::Write {
                path: self.path.clone(),
                source,
            })?;
            self.dirty = false;
        }
        Ok(())
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), sink::Error> {
        self.bytes += bytes.len() as u64;
        self.file
            .write_all(bytes)
            .map_err(|source| sink::Error::Write {
                path: self.path.clone(),
                source,
            })
    }
}
