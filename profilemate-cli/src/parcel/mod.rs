//! A session folder on its way to another machine: a tar archive of known files.
//!
//! [`pack`] makes it of a folder that this process wrote; [`unpack`] takes it from somebody who may lie; [`pipe`] lies
//! between them and the network, so that no archive is ever held in memory.

pub mod pack;
pub mod pipe;
pub mod unpack;

#[cfg(test)]
mod tests;

use crate::capture::pipeline::CAPTURE_FILE;
use crate::table::TABLES;

/// The file that makes a folder a session. It is the last one of an archive: an archive with it is whole.
const LAST: &str = "metadata.json";
/// Files of a session that are no table.
const OTHERS: [&str; 2] = [CAPTURE_FILE, "summary.json"];

/// The names of all files that a session may have, in the order of an archive.
fn names() -> impl Iterator<Item = String> {
    let tables = TABLES.iter().map(|table| format!("{}.csv", table.file));
    tables
        .chain(OTHERS.map(str::to_owned))
        .chain([LAST.to_owned()])
}
