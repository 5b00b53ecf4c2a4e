//! One table of a session folder, row by row.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Take};
use std::path::{Path, PathBuf};

use csv::StringRecord;

use super::Error;
use super::limit::{Budget, Limited};
use crate::table::TABLES;

/// How a row is made of the table's index and the texts of its cells.
pub(super) type ReadRow<T> =
    for<'a> fn(usize, &mut dyn FnMut(usize) -> Option<&'a str>) -> Result<T, usize>;

/// Rows that may be unreadable before the file as a whole is.
const MALFORMED: u64 = 100;
/// Characters of an unreadable cell that are shown.
const SHOWN: usize = 40;

/// What was read of a table so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows read.
    pub rows: u64,
    /// Rows that could not be read and were left out.
    pub malformed: u64,
    /// The last row was torn and left out.
    pub torn: bool,
}

/// The rows of one file. Rows that cannot be read are left out and counted; many of them are an error.
pub struct Sheet<T> {
    path: PathBuf,
    table: usize,
    read: ReadRow<T>,
    reader: csv::Reader<Limited<Take<File>>>,
    budget: Budget,
    /// For each declared column its place in the file.
    places: Vec<Option<usize>>,
    record: StringRecord,
    /// The file does not end with a line's end: its last record is torn.
    unended: bool,
    len: u64,
    tally: Tally,
    first: Option<(u64, String, String)>,
    done: bool,
}

impl<T> Sheet<T> {
    pub(super) fn open(path: &Path, table: usize, read: ReadRow<T>) -> Result<Self, Error> {
        let failed = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let mut file = File::open(path).map_err(failed)?;
        // What is appended while it is read belongs to a later reading.
        let len = file.metadata().map_err(failed)?.len();
        let unended = len > 0 && last_byte(&mut file).map_err(failed)? != b'\n';
        let (limited, budget) = Limited::new(file.take(len));
        let reader = csv::ReaderBuilder::new()
            .flexible(true)
            .has_headers(false)
            .from_reader(limited);
        let mut sheet = Self {
            path: path.to_owned(),
            table,
            read,
            reader,
            budget,
            places: Vec::new(),
            record: StringRecord::new(),
            unended,
            len,
            tally: Tally::default(),
            first: None,
            done: false,
        };
        sheet.header()?;
        Ok(sheet)
    }

    fn header(&mut self) -> Result<(), Error> {
        let columns = TABLES[self.table].columns;
        if !self.advance()? {
            // Created, and nothing written yet.
            self.places = vec![None; columns.len()];
            return Ok(());
        }
        let names: Vec<&str> = self.record.iter().map(str::trim).collect();
        self.places = columns
            .iter()
            .map(|column| names.iter().position(|name| *name == column.name))
            .collect();
        // Every version wrote a table's first column; without it this is another table.
        if self.places.first().copied().flatten().is_none() {
            return Err(Error::Column {
                path: self.path.clone(),
                column: columns.first().map_or("", |column| column.name),
            });
        }
        Ok(())
    }

    /// Whether the file has this column.
    pub fn has(&self, column: &str) -> bool {
        let columns = TABLES[self.table].columns.iter();
        columns
            .zip(&self.places)
            .any(|(declared, place)| declared.name == column && place.is_some())
    }

    /// What was read so far.
    pub fn tally(&self) -> Tally {
        self.tally.clone()
    }

    /// What was odd, in plain words.
    pub fn note(&self) -> Option<String> {
        let file = TABLES[self.table].file;
        let torn = self
            .tally
            .torn
            .then(|| format!("{file}.csv: the last row is torn and was left out"));
        let malformed = self.first.as_ref().map(|(line, column, text)| {
            format!(
                "{file}.csv: {} rows were left out; the first in line {line}: `{column}` cannot hold `{text}`",
                self.tally.malformed
            )
        });
        match (torn, malformed) {
            (Some(torn), Some(malformed)) => Some(format!("{malformed}; {torn}")),
            (torn, malformed) => torn.or(malformed),
        }
    }

    /// Reads the next record; false at the end.
    fn advance(&mut self) -> Result<bool, Error> {
        self.budget.refill();
        let read = self.reader.read_record(&mut self.record);
        let more = match read {
            Ok(more) => more,
            Err(error) if matches!(error.kind(), csv::ErrorKind::Utf8 { .. }) => {
                self.record.clear();
                true
            }
            Err(error) => {
                let source = match error.into_kind() {
                    csv::ErrorKind::Io(source) => source,
                    other => io::Error::other(format!("{other:?}")),
                };
                return Err(Error::Read {
                    path: self.path.clone(),
                    source,
                });
            }
        };
        if more && self.unended && self.reader.position().byte() >= self.len {
            self.tally.torn = true;
            return Ok(false);
        }
        Ok(more)
    }

    fn next_row(&mut self) -> Result<Option<T>, Error> {
        while self.advance()? {
            if self.record.len() == 1 && self.record.get(0) == Some("") {
                continue;
            }
            let (record, places) = (&self.record, &self.places);
            let mut cell = |index: usize| {
                let place = places.get(index).copied().flatten()?;
                Some(record.get(place).unwrap_or(""))
            };
            match (self.read)(self.table, &mut cell) {
                Ok(row) => {
                    self.tally.rows += 1;
                    return Ok(Some(row));
                }
                Err(column) => self.malformed(column)?,
            }
        }
        Ok(None)
    }

    /// A row could not be read. Some are left out; when most are like it, the file is not what it says.
    fn malformed(&mut self, column: usize) -> Result<(), Error> {
        let place = self.places.get(column).copied().flatten();
        let text = place.and_then(|place| self.record.get(place)).unwrap_or("");
        let text: String = text.chars().take(SHOWN).collect();
        let name = TABLES[self.table].columns.get(column);
        let name = name.map_or("", |column| column.name).to_owned();
        let line = self.record.position().map_or(0, csv::Position::line);
        self.tally.malformed += 1;
        let first = self.first.get_or_insert((line, name, text));
        if self.tally.malformed > MALFORMED && self.tally.malformed > self.tally.rows {
            let (line, column, text) = first.clone();
            return Err(Error::Malformed {
                path: self.path.clone(),
                line,
                column,
                text,
                malformed: self.tally.malformed,
            });
        }
        Ok(())
    }
}

impl<T> Iterator for Sheet<T> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let row = self.next_row().transpose();
        self.done = !matches!(row, Some(Ok(_)));
        row
    }
}

fn last_byte(file: &mut File) -> io::Result<u8> {
    let mut byte = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(byte[0])
}
