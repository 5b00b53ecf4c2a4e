//! Where an agent is, by the labels of its server. Pure.

use reqwest::Url;

use crate::fleet::api::{Labels, http};

/// Why there is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The template is none.
    #[error(
        "`{template}` is not a template such as `https://{{instance}}` or `https://{{pod_ip}}:9464`"
    )]
    Template {
        /// As given.
        template: String,
    },
    /// The server lacks a label.
    #[error("the server has no label `{label}`, which the agent's address needs")]
    Missing {
        /// Which.
        label: String,
    },
    /// A label holds what cannot stand in an address.
    #[error("the label `{label}` cannot be a part of an address")]
    Unfit {
        /// Which.
        label: String,
    },
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Label(String),
}

/// An address in which labels stand in braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

impl Template {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Template {
            template: text.to_owned(),
        };
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (label, after) = after.split_once('}').ok_or_else(wrong)?;
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if before.contains('}') || label.is_empty() || !label.chars().all(fits) {
                return Err(wrong());
            }
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(Piece::Label(label.to_owned()));
            rest = after;
        }
        if rest.contains('}') {
            return Err(wrong());
        }
        pieces.push(Piece::Text(rest.to_owned()));
        let template = Self { pieces };
        // With any value it must be an address with a scheme.
        let example = template.with(|_label| Ok("a".to_owned()))?;
        if !example.contains("://") || http::address(&example).is_err() {
            return Err(wrong());
        }
        Ok(template)
    }

    fn with(&self, value: impl Fn(&str) -> Result<String, Error>) -> Result<String, Error> {
        let pieces = self.pieces.iter().map(|piece| match piece {
            Piece::Text(text) => Ok(text.clone()),
            Piece::Label(label) => value(label),
        });
        pieces.collect()
    }

    /// The address for a server with these labels. A label's value cannot change scheme, path or user of it.
    pub fn fill(&self, labels: &Labels) -> Result<Url, Error> {
        let unfit = |label: &str| Error::Unfit {
            label: label.to_owned(),
        };
        let text = self.with(|label| {
            let value = labels.get(label).filter(|value| !value.is_empty());
            let value = value.ok_or_else(|| Error::Missing {
                label: label.to_owned(),
            })?;
            let fits = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
            if !value.chars().all(fits) {
                return Err(unfit(label));
            }
            Ok(value.clone())
        })?;
        http::address(&text).map_err(|_error| {
            let label = self.pieces.iter().find_map(|piece| match piece {
                Piece::Label(label) => Some(label.as_str()),
                Piece::Text(_) => None,
            });
            unfit(label.unwrap_or_default())
        })
    }
}
