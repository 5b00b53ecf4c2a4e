//! A session folder, read back.

use std::collections::BTreeMap;

use profilemate::capture::Outcome;

/// A finished session folder.
pub(crate) struct Tables {
    pub(crate) outcome: Outcome,
    pub(crate) folder: tempfile::TempDir,
}

impl Tables {
    /// The text of a file.
    pub(crate) fn text(&self, file: &str) -> String {
        std::fs::read_to_string(self.outcome.folder.join(file)).unwrap()
    }

    /// The rows of a table, by column.
    pub(crate) fn rows(&self, table: &str) -> Vec<BTreeMap<String, String>> {
        let mut reader =
            csv::Reader::from_path(self.outcome.folder.join(format!("{table}.csv"))).unwrap();
        reader.deserialize().map(|row| row.unwrap()).collect()
    }

    /// Some columns of a table, one line a row, cells separated by `|`.
    pub(crate) fn columns(&self, table: &str, columns: &[&str]) -> Vec<String> {
        let line = |row: &BTreeMap<String, String>| {
            columns
                .iter()
                .map(|&column| row[column].as_str())
                .collect::<Vec<_>>()
                .join("|")
        };
        self.rows(table).iter().map(line).collect()
    }

    /// A JSON file.
    pub(crate) fn json(&self, file: &str) -> serde_json::Value {
        serde_json::from_str(&self.text(file)).unwrap()
    }

    /// Status and reason of a table's coverage.
    pub(crate) fn coverage(&self, table: &str) -> (String, String) {
        let coverage = &self.json("metadata.json")["tables"][table]["coverage"];
        let text = |key: &str| coverage[key].as_str().unwrap().to_owned();
        (text("status"), text("reason"))
    }
}
