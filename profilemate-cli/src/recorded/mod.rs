//! A session folder read back: its tables by their declarations in [`crate::table`], and its metadata.
//!
//! Folders of older versions and of the Python predecessor are read too: columns that were appended later are absent
//! there, and so may be whole files. Rows are streamed; nothing here holds a table in memory. The last row of a file
//! that a killed tracer left torn is dropped, and told.

mod limit;
pub mod metadata;
mod sheet;

use std::io;
use std::path::{Path, PathBuf};

pub use metadata::Metadata;
pub use sheet::{Sheet, Tally};

use crate::table::{AnyRow, Row, TABLES};

/// Files of the predecessor whose names differ: (its name, ours), without `.csv`.
const OLD_NAMES: &[(&str, &str)] = &[("moe_expert_activations", "moe_expert_selection")];

/// What can be wrong with a session folder.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It holds none of the files of a session.
    #[error("`{0}` is not a session folder: it holds no metadata.json and no table")]
    NotASession(PathBuf),
    /// It holds session folders.
    #[error("`{folder}` is not a session folder: it holds {count} of them, the latest `{latest}`")]
    Several {
        /// The folder that was given.
        folder: PathBuf,
        /// How many.
        count: usize,
        /// The one with the latest name.
        latest: String,
    },
    /// A file or folder cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A table's header is not that of the table.
    #[error("`{path}` has no column `{column}`, which it had in every version")]
    Column {
        /// Which file.
        path: PathBuf,
        /// The missing column.
        column: &'static str,
    },
    /// More rows than can be explained by chance cannot be read.
    #[error(
        "`{path}`: line {line}: `{column}` cannot hold `{text}`, and {malformed} rows are like it"
    )]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Where the first one is.
        line: u64,
        /// Its column.
        column: String,
        /// What stands there.
        text: String,
        /// How many.
        malformed: u64,
    },
}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NotASession(_) => {
                "`profilemate trace` prints the session's folder as its last line".to_owned()
            }
            Self::Several { latest, .. } => format!("give that one: `{latest}`"),
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "the folder was written by root: use `sudo`, or change its owner".to_owned()
            }
            Self::Read { .. } => "is it there, and is it a plain file?".to_owned(),
            Self::Column { .. } | Self::Malformed { .. } => {
                "was the file changed? `profilemate replay` makes the tables again from events.pmrec"
                    .to_owned()
            }
        }
    }
}

/// A session folder.
#[derive(Clone, Debug)]
pub struct Session {
    /// Where it is.
    pub folder: PathBuf,
    /// Its `metadata.json`, as far as it says something.
    pub metadata: Metadata,
    /// What was odd about the folder, in plain words.
    pub notes: Vec<String>,
}

impl Session {
    /// Opens the folder `path`, or the folder of a file in it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let kind = std::fs::metadata(path).map_err(failed)?;
        let folder = match path.parent() {
            Some(parent) if !kind.is_dir() => parent,
            _ => path,
        };
        let described = folder.join("metadata.json");
        let (metadata, note) = metadata::read(&described)?;
        let session = Self {
            folder: folder.to_owned(),
            metadata,
            notes: note.into_iter().collect(),
        };
        let tables = (0..TABLES.len()).any(|table| session.path(table).is_some());
        if tables || described.is_file() {
            return Ok(session);
        }
        Err(not_a_session(folder)?)
    }

    /// The file of the table at `index` of [`TABLES`], if there is one.
    pub fn path(&self, index: usize) -> Option<PathBuf> {
        let name = TABLES.get(index)?.file;
        let old = OLD_NAMES.iter().filter(|(_, new)| *new == name);
        let mut names = std::iter::once(name).chain(old.map(|(old, _)| *old));
        names.find_map(|name| {
            let path = self.folder.join(format!("{name}.csv"));
            path.is_file().then_some(path)
        })
    }

    /// The rows of one table, typed. `None` if the folder has no such file.
    pub fn rows<R: Row>(&self) -> Result<Option<Sheet<R>>, Error> {
        let index = TABLES.iter().position(|table| table.file == R::FILE);
        let Some((index, path)) = index.and_then(|index| Some((index, self.path(index)?))) else {
            return Ok(None);
        };
        Sheet::open(&path, index, |_, text| R::read(text)).map(Some)
    }

    /// The rows of the table at `index` of [`TABLES`]. `None` if the folder has no such file.
    pub fn table(&self, index: usize) -> Result<Option<Sheet<AnyRow>>, Error> {
        let Some(path) = self.path(index) else {
            return Ok(None);
        };
        Sheet::open(&path, index, |table, text| {
            AnyRow::read(table, text).unwrap_or(Err(usize::MAX))
        })
        .map(Some)
    }

    /// Gives every row of every table to `each`, table by table, and tells what was odd.
    pub fn each(&self, each: &mut dyn FnMut(&AnyRow)) -> Result<Vec<String>, Error> {
        let mut notes = self.notes.clone();
        for index in 0..TABLES.len() {
            let Some(mut sheet) = self.table(index)? else {
                continue;
            };
            for row in &mut sheet {
                each(&row?);
            }
            notes.extend(sheet.note());
        }
        Ok(notes)
    }
}

/// What to say about a folder that is no session.
fn not_a_session(folder: &Path) -> Result<Error, Error> {
    let failed = |source| Error::Read {
        path: folder.to_owned(),
        source,
    };
    let mut inside = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.join("metadata.json").is_file() {
            inside.push(path.display().to_string());
        }
    }
    inside.sort();
    Ok(match inside.last() {
        Some(latest) => Error::Several {
            folder: folder.to_owned(),
            count: inside.len(),
            latest: latest.clone(),
        },
        None => Error::NotASession(folder.to_owned()),
    })
}

#[cfg(test)]
mod tests;
