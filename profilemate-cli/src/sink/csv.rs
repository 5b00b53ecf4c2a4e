//! The CSV files of a session folder.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::Error;
use crate::table::{AnyRow, TABLES};

/// Bytes of a table that wait for the next flush, at most.
const BUFFER: usize = 64 << 10;

/// One file.
struct Sheet {
    path: PathBuf,
    writer: csv::Writer<File>,
    rows: u64,
    dirty: bool,
}

impl Sheet {
    fn failed(&self, error: csv::Error) -> Error {
        let source = match error.into_kind() {
            csv::ErrorKind::Io(source) => source,
            other => io::Error::other(format!("{other:?}")),
        };
        Error::Write {
            path: self.path.clone(),
            source,
        }
    }

    fn record(&mut self, cells: &[String]) -> Result<(), Error> {
        self.dirty = true;
        match self.writer.write_record(cells) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn flush(&mut self) -> Result<(), Error> {
        if std::mem::take(&mut self.dirty) {
            self.writer.flush().map_err(|source| Error::Write {
                path: self.path.clone(),
                source,
            })?;
        }
        Ok(())
    }
}

/// All tables of a session, each a file with its header from the start.
pub struct CsvFolder {
    sheets: Vec<Sheet>,
    cells: Vec<String>,
}

impl CsvFolder {
    /// Creates the files in `folder`; none of them may exist.
    pub fn create(folder: &Path) -> Result<Self, Error> {
        let mut sheets = Vec::new();
        for table in TABLES {
            let path = folder.join(format!("{}.csv", table.file));
            let file = OpenOptions::new().write(true).create_new(true).open(&path);
            let file = file.map_err(|source| Error::Create {
                path: path.clone(),
                source,
            })?;
            let mut sheet = Sheet {
                path,
                writer: csv::WriterBuilder::new()
                    .buffer_capacity(BUFFER)
                    .from_writer(file),
                rows: 0,
                dirty: false,
            };
            let header: Vec<String> = table
                .columns
                .iter()
                .map(|column| column.name.to_owned())
                .collect();
            sheet.record(&header)?;
            sheet.flush()?;
            sheets.push(sheet);
        }
        Ok(Self {
            sheets,
            cells: Vec::new(),
        })
    }

    /// Appends a row to its table.
    pub fn row(&mut self, row: &AnyRow) -> Result<(), Error> {
        let (mut used, cells) = (0, &mut self.cells);
        row.cells(&mut |cell| {
            if used == cells.len() {
                cells.push(String::new());
            }
            cells[used].clear();
            cell.write(&mut cells[used]);
            used += 1;
        });
        let sheet = &mut self.sheets[row.table()];
        sheet.rows += 1;
        sheet.record(&self.cells[..used])
    }

    /// Writes a table of totals anew, in one step: a reader sees the old rows or these.
    pub fn replace(&mut self, table: usize, rows: &[AnyRow]) -> Result<(), Error> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let names = TABLES[table].columns.iter().map(|column| column.name);
        let sheet = &mut self.sheets[table];
        writer
            .write_record(names)
            .map_err(|error| sheet.failed(error))?;
        for row in rows {
            let mut record = Vec::new();
            row.cells(&mut |cell| {
                let mut text = String::new();
                cell.write(&mut text);
                record.push(text);
            });
            writer
                .write_record(&record)
                .map_err(|error| sheet.failed(error))?;
        }
        let content = writer
            .into_inner()
            .map_err(|error| sheet.failed(csv::Error::from(error.into_error())))?;
        super::replace(&sheet.path, &content)?;
        sheet.rows = rows.len() as u64;
        Ok(())
    }

    /// Hands every row to the kernel.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.sheets.iter_mut().try_for_each(Sheet::flush)
    }

    /// Rows of each table, in the order of [`TABLES`].
    pub fn rows(&self) -> Vec<u64> {
        self.sheets.iter().map(|sheet| sheet.rows).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::batch_utilization::BatchUse;
    use crate::table::cell::Stamp;
    use crate::table::preemption_events::PreemptionEvent;

    #[test]
    fn every_table_has_its_header_from_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let _csv = CsvFolder::create(folder.path()).unwrap();
        for table in TABLES {
            let text =
                std::fs::read_to_string(folder.path().join(format!("{}.csv", table.file))).unwrap();
            let names: Vec<_> = table.columns.iter().map(|column| column.name).collect();
            assert_eq!(text, format!("{}\n", names.join(",")));
        }
    }

    #[test]
    fn rows_of_different_widths_do_not_mix() {
        let folder = tempfile::tempdir().unwrap();
        let mut csv = CsvFolder::create(folder.path()).unwrap();
        csv.row(
            &BatchUse {
                timestamp_sec: Stamp(1_000),
                pid: 7,
                ..BatchUse::default()
            }
            .into(),
        )
        .unwrap();
        let id = "a,\"b\"\nc".to_owned();
        csv.row(
            &PreemptionEvent {
                request_id: id,
                event: "started",
                ..PreemptionEvent::default()
            }
            .into(),
        )
        .unwrap();
        csv.flush().unwrap();
        let read = |file: &str| std::fs::read_to_string(folder.path().join(file)).unwrap();
        assert_eq!(
            read("batch_utilization.csv").lines().nth(1),
            Some("0.000001,,,,,,,,,,0,,,,7,")
        );
        let preemptions = read("preemption_events.csv");
        assert!(
            preemptions.ends_with("\n0.000000,\"a,\"\"b\"\"\nc\",started,,,,,,,0,\n"),
            "{preemptions}"
        );
        assert_eq!(csv.rows().iter().sum::<u64>(), 2);
    }

    #[test]
    fn totals_are_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mut csv = CsvFolder::create(folder.path()).unwrap();
        let table = crate::table::index_of("cuda_graph_usage").unwrap();
        let row = |replay_count| {
            AnyRow::from(crate::table::cuda_graph_usage::CudaGraphUse {
                replay_count,
                ..Default::default()
            })
        };
        csv.replace(table, &[row(1), row(2)]).unwrap();
        csv.replace(table, &[row(7)]).unwrap();
        csv.flush().unwrap();
        let text = std::fs::read_to_string(folder.path().join("cuda_graph_usage.csv")).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(
            text.ends_with("\n,,,,,7,,,,,,,,0,,0,0,,0,,,,,,\n"),
            "{text}"
        );
        assert_eq!(csv.rows()[table], 1);
    }

    #[test]
    fn an_existing_file_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cuda_graph_captures.csv");
        std::fs::write(&path, "mine").unwrap();
        let error = CsvFolder::create(folder.path()).err().unwrap();
        assert!(
            error.to_string().contains("cuda_graph_captures.csv"),
            "{error}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }
}
