//! One JSON object a row: `table`, and each cell that was observed, by its column's name.

use std::io::Write;

use serde_json::{Map, Value};

use super::Error;
use crate::recorded::Session;
use crate::table::TABLES;
use crate::table::read::Kind;

/// A cell's text as JSON; `None` for an empty one.
fn value(text: &str, kind: Kind) -> Option<Value> {
    match kind {
        _ if text.is_empty() => None,
        Kind::Integer => text
            .parse::<i64>()
            .map(Value::from)
            .or_else(|_| text.parse::<u64>().map(Value::from))
            .ok(),
        Kind::Real => serde_json::Number::from_f64(text.parse().ok()?).map(Value::Number),
        Kind::Truth => Some(Value::Bool(text == "True")),
        Kind::Text => Some(Value::from(text)),
    }
}

/// Writes every row of every table.
pub(super) fn write(session: &Session, out: &mut dyn Write) -> Result<Vec<String>, Error> {
    let mut notes = session.notes.clone();
    let mut text = String::new();
    for (index, table) in TABLES.iter().enumerate() {
        let Some(mut sheet) = session.table(index)? else {
            continue;
        };
        let there: Vec<bool> = table
            .columns
            .iter()
            .map(|column| sheet.has(column.name))
            .collect();
        for row in &mut sheet {
            let mut object = Map::new();
            object.insert("table".to_owned(), table.file.into());
            let mut columns = table.columns.iter().zip(&there);
            row?.cells(&mut |cell| {
                text.clear();
                cell.write(&mut text);
                if let Some((column, true)) = columns.next().map(|(column, there)| (column, *there))
                    && let Some(value) = value(&text, column.kind)
                {
                    object.insert(column.name.to_owned(), value);
                }
            });
            serde_json::to_writer(&mut *out, &Value::Object(object))
                .map_err(std::io::Error::from)?;
            out.write_all(b"\n")?;
        }
        notes.extend(sheet.note());
    }
    Ok(notes)
}
