//! A session as one page that a person would rather look at than read: rows to plots as data, plots to HTML.
//!
//! Rows are streamed and gathered in bounded memory ([`thin`], [`count`]); what is drawn of very many rows are rows too,
//! and the page says which. The page needs no network: [`page`] carries the plotting library, and a
//! Content-Security-Policy that allows its two scripts and nothing else.

mod chapter;
mod count;
mod html;
mod member;
pub mod page;
mod plot;
mod text;
mod thin;

use std::collections::BTreeMap;

use crate::explain::Explanation;
use crate::recorded::{self, Metadata, Session};
use crate::table::TABLES;

use chapter::Chapters;
use plot::Plot;

/// A part of the page: what was asked, and the plots that answer it or why there are none.
#[derive(Clone, Debug)]
struct Section {
    /// Name in the page.
    id: &'static str,
    /// Heading.
    title: &'static str,
    /// What it shows, for one who does not know vLLM's insides.
    lead: &'static str,
    /// The tables that it is made of; the first one's reason stands where there is no plot.
    tables: &'static [&'static str],
    /// The plots.
    plots: Vec<Plot>,
}

/// What the page tells in a few numbers: a name and a value, with `None` for one that was not observed.
type Figure = (&'static str, Option<String>);

/// A session, ready to be shown.
#[derive(Debug)]
pub struct Report {
    metadata: Metadata,
    name: String,
    explanation: Explanation,
    figures: Vec<Figure>,
    sections: Vec<Section>,
    /// Rows read of each table; `None` if there is no such file.
    rows: BTreeMap<&'static str, Option<u64>>,
}

impl Report {
    /// Reads a session folder.
    pub fn of_session(session: &Session) -> Result<Self, recorded::Error> {
        let mut chapters = Chapters::default();
        let mut rows: BTreeMap<&'static str, Option<u64>> = TABLES
            .iter()
            .enumerate()
            .map(|(index, table)| (table.file, session.path(index).map(|_| 0)))
            .collect();
        let explanation = Explanation::watching(session, &mut |row| {
            if let Some(count) = rows.get_mut(TABLES[row.table()].file) {
                *count.get_or_insert(0) += 1;
            }
            chapters.row(row);
        })?;
        let folder = session.folder.file_name();
        let folder = folder.map(|name| name.to_string_lossy().into_owned());
        let name = session.metadata.session_id.clone().or(folder);
        Ok(Self {
            name: name.unwrap_or_else(|| "session".to_owned()),
            figures: chapters.figures(&session.metadata),
            sections: chapters.sections(&session.metadata),
            metadata: session.metadata.clone(),
            explanation,
            rows,
        })
    }
}

#[cfg(test)]
mod tests;
