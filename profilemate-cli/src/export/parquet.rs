//! A Parquet file for each table. The schema is the table's declaration: whole numbers are INT64, numbers with decimals
//! DOUBLE, `True` and `False` BOOLEAN, text UTF8; every column may be null, and null means not observed. Units stand in
//! the file's key-value metadata.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::sync::Arc;

use ::parquet::basic::Compression;
use ::parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::KeyValue;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use ::parquet::schema::parser::parse_message_type;
use tempfile::NamedTempFile;

use super::Error;
use crate::recorded::{Session, Sheet};
use crate::table::read::Kind;
use crate::table::{AnyRow, TABLES, Table};

/// Rows of a row group, which are held in memory.
const GROUP: usize = 65_536;

/// The values of one column of a row group.
enum Values {
    Integer(Vec<i64>),
    Real(Vec<f64>),
    Truth(Vec<bool>),
    Text(Vec<ByteArray>),
}

/// One column of a row group.
struct Cells {
    values: Values,
    /// 1 for each row that has a value, 0 for one that has none.
    levels: Vec<i16>,
}

impl Cells {
    fn new(kind: Kind) -> Self {
        Self {
            values: match kind {
                Kind::Integer => Values::Integer(Vec::new()),
                Kind::Real => Values::Real(Vec::new()),
                Kind::Truth => Values::Truth(Vec::new()),
                Kind::Text => Values::Text(Vec::new()),
            },
            levels: Vec::new(),
        }
    }

    fn push(&mut self, text: &str, there: bool) {
        let some = there && !text.is_empty();
        let taken = some
            && match &mut self.values {
                Values::Integer(values) => text.parse().map(|value| values.push(value)).is_ok(),
                Values::Real(values) => text.parse().map(|value| values.push(value)).is_ok(),
                Values::Truth(values) => {
                    values.push(text == "True");
                    true
                }
                Values::Text(values) => {
                    values.push(ByteArray::from(text));
                    true
                }
            };
        self.levels.push(i16::from(taken));
    }

    fn write(&mut self, mut column: SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        fn one<T: DataType>(
            column: &mut SerializedColumnWriter<'_>,
            values: &mut Vec<T::T>,
            levels: &[i16],
        ) -> Result<(), ParquetError> {
            column
                .typed::<T>()
                .write_batch(values, Some(levels), None)?;
            values.clear();
            Ok(())
        }
        match &mut self.values {
            Values::Integer(values) => one::<Int64Type>(&mut column, values, &self.levels)?,
            Values::Real(values) => one::<DoubleType>(&mut column, values, &self.levels)?,
            Values::Truth(values) => one::<BoolType>(&mut column, values, &self.levels)?,
            Values::Text(values) => one::<ByteArrayType>(&mut column, values, &self.levels)?,
        }
        self.levels.clear();
        column.close()
    }
}

/// The schema in Parquet's own words.
fn schema(table: &Table) -> String {
    let mut words = format!("message {} {{", table.file);
    for column in table.columns {
        let (kind, more) = match column.kind {
            Kind::Integer => ("INT64", ""),
            Kind::Real => ("DOUBLE", ""),
            Kind::Truth => ("BOOLEAN", ""),
            Kind::Text => ("BYTE_ARRAY", " (UTF8)"),
        };
        // Writing to a `String` cannot fail.
        let _ = write!(words, " OPTIONAL {kind} {}{more};", column.name);
    }
    words.push_str(" }");
    words
}

fn properties(table: &Table, session: &Session) -> WriterProperties {
    let mut pairs: Vec<KeyValue> = table
        .columns
        .iter()
        .map(|column| {
            KeyValue::new(
                format!("profilemate.unit.{}", column.name),
                column.unit.words().to_owned(),
            )
        })
        .collect();
    if let Some(start) = &session.metadata.start_time {
        pairs.push(KeyValue::new(
            "profilemate.start_time".to_owned(),
            start.clone(),
        ));
    }
    if let Some(coverage) = session.metadata.coverage(table.file) {
        pairs.push(KeyValue::new(
            "profilemate.coverage".to_owned(),
            coverage.status.clone(),
        ));
        pairs.push(KeyValue::new(
            "profilemate.coverage_reason".to_owned(),
            coverage.reason.clone(),
        ));
    }
    WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_key_value_metadata(Some(pairs))
        .build()
}

/// Writes one file a table into `folder`.
pub(super) fn write(session: &Session, folder: &Path) -> Result<Vec<String>, Error> {
    let mut notes = session.notes.clone();
    for (index, table) in TABLES.iter().enumerate() {
        let Some(mut sheet) = session.table(index)? else {
            continue;
        };
        let path = folder.join(format!("{}.parquet", table.file));
        let failed = |source: io::Error| Error::Write {
            path: path.clone(),
            source,
        };
        let mut builder = tempfile::Builder::new();
        builder
            .prefix(".profilemate-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
        let file = builder.tempfile_in(folder).map_err(failed)?;
        let properties = properties(table, session);
        let file = one(table, &mut sheet, file, properties).map_err(|error| match error {
            Failed::Session(error) => Error::Session(error),
            Failed::Parquet(error) => failed(io::Error::other(error)),
        })?;
        file.persist(&path).map_err(|error| failed(error.error))?;
        notes.extend(sheet.note());
    }
    Ok(notes)
}

/// What can go wrong with one file.
enum Failed {
    Session(crate::recorded::Error),
    Parquet(ParquetError),
}

impl From<ParquetError> for Failed {
    fn from(error: ParquetError) -> Self {
        Self::Parquet(error)
    }
}

fn one(
    table: &Table,
    sheet: &mut Sheet<AnyRow>,
    file: NamedTempFile,
    properties: WriterProperties,
) -> Result<NamedTempFile, Failed> {
    let schema = Arc::new(parse_message_type(&schema(table))?);
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties))?;
    let there: Vec<bool> = table
        .columns
        .iter()
        .map(|column| sheet.has(column.name))
        .collect();
    let mut cells: Vec<Cells> = table
        .columns
        .iter()
        .map(|column| Cells::new(column.kind))
        .collect();
    let (mut rows, mut text) = (0, String::new());
    for row in sheet {
        let mut column = 0;
        row.map_err(Failed::Session)?.cells(&mut |cell| {
            text.clear();
            cell.write(&mut text);
            cells[column].push(&text, there[column]);
            column += 1;
        });
        rows += 1;
        if rows == GROUP {
            group(&mut writer, &mut cells)?;
            rows = 0;
        }
    }
    if rows > 0 {
        group(&mut writer, &mut cells)?;
    }
    Ok(writer.into_inner()?)
}

fn group(
    writer: &mut SerializedFileWriter<NamedTempFile>,
    cells: &mut [Cells],
) -> Result<(), ParquetError> {
    let mut group = writer.next_row_group()?;
    for cells in cells {
        let Some(column) = group.next_column()? else {
            break;
        };
        cells.write(column)?;
    }
    group.close()?;
    Ok(())
}
