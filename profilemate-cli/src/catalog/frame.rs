//! Frames that walks of the Python stack look for.

use std::collections::BTreeMap;

use semver::{Version, VersionReq};
use serde::Deserialize;

use super::Field;

/// The built-in list's source.
const FRAMES: &str = include_str!("frames.toml");

/// A function whose frames are looked for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frame {
    /// Name the aggregator knows it by.
    pub id: String,
    /// Python module.
    pub module: String,
    /// Qualified name in the module.
    pub qualname: String,
    /// Versions in which it exists.
    #[serde(default)]
    pub versions: VersionReq,
    /// Whether nothing further out is wanted.
    #[serde(default)]
    pub last: bool,
    /// Classes of objects along the paths: path prefix to `module:Class`.
    #[serde(default)]
    pub classes: BTreeMap<String, String>,
    /// What is read of its variables.
    #[serde(default)]
    pub fields: Vec<Field>,
}

impl Frame {
    /// The tables that its variables feed.
    pub fn tables(&self) -> Vec<String> {
        let tables: &[&str] = match self.id.as_str() {
            "frame.execute_model" => &["forward_pass_timing"],
            _ => &[
                "cuda_graph_captures",
                "cuda_graph_usage",
                "cuda_graph_timeline",
                "forward_pass_timing",
            ],
        };
        tables.iter().map(|&table| table.to_owned()).collect()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(rename = "frame")]
    frames: Vec<Frame>,
}

/// The built-in frames of vLLM's `version`, each with the fields that exist there.
///
/// # Panics
/// If the embedded file does not parse, which a test holds.
pub fn frames(version: &Version) -> Vec<Frame> {
    let list: List =
        toml::from_str(FRAMES).expect("the embedded frames parse; `the_frames_parse` holds it");
    let mut frames = list.frames;
    frames.retain(|frame| frame.versions.matches(version));
    for frame in &mut frames {
        frame.fields.retain(|field| field.versions.matches(version));
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;
    use profilemate_common::record::FIELDS;

    #[test]
    fn the_frames_parse() {
        let all = frames(&Version::new(0, 32, 0));
        assert!(
            all.iter()
                .any(|frame| frame.id == "frame.execute_model" && frame.last)
        );
        for minor in 12..34 {
            for frame in frames(&Version::new(0, minor, 0)) {
                assert!(frame.fields.len() <= FIELDS, "{}", frame.id);
                let names: std::collections::BTreeSet<_> =
                    frame.fields.iter().map(|field| &field.name).collect();
                assert_eq!(
                    names.len(),
                    frame.fields.len(),
                    "0.{minor} {}",
                    frame.qualname
                );
                for field in &frame.fields {
                    let path = crate::target::python::path::parse(&field.path);
                    assert!(path.is_ok(), "{}", field.path);
                }
            }
        }
    }

    #[test]
    fn a_version_selects_the_descriptor_s_form() {
        let tokens = |minor| {
            let all = frames(&Version::new(0, minor, 0));
            let graph = all
                .iter()
                .find(|frame| frame.qualname == "CUDAGraphWrapper.__call__");
            let field = graph
                .unwrap()
                .fields
                .iter()
                .find(|field| field.name == "d_tokens");
            field.unwrap().path.clone()
        };
        assert_eq!(tokens(13), "local.batch_descriptor[0]");
        assert_eq!(tokens(32), "local.batch_descriptor.num_tokens");
    }
}
