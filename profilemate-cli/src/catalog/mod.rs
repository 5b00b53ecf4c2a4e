//! The catalogue: which Python methods are probed in which vLLM version, and what is read at their calls. Data only.

pub mod check;
mod frame;
mod router;
mod user;

use std::collections::BTreeMap;

use profilemate_common::page;
use semver::{Version, VersionReq};
use serde::Deserialize;

pub use frame::{Frame, frames};
pub use router::{Ids, Router, Sampling, sampled_routers, sampling};
pub use user::{Error as UserError, user_methods};

/// The built-in catalogue's source.
const VLLM: &str = include_str!("vllm.toml");
/// More methods of it, each file a subject.
const MORE: [&str; 2] = [include_str!("graphs.toml"), include_str!("layers.toml")];

/// All methods of one framework.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    /// Versions for which the catalogue was written.
    pub range: VersionReq,
    /// The methods.
    #[serde(rename = "method")]
    pub methods: Vec<Method>,
}

/// A file of methods beside the catalogue's first one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Methods {
    #[serde(rename = "method")]
    methods: Vec<Method>,
}

/// One probed method.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Method {
    /// Name the aggregator knows it by.
    pub id: String,
    /// Python module.
    pub module: String,
    /// Qualified name in the module.
    pub qualname: String,
    /// Versions in which it exists.
    #[serde(default)]
    pub versions: VersionReq,
    /// Which events its calls make.
    pub events: Events,
    /// Operation name in `cpu_operations_timing.csv`.
    #[serde(default)]
    pub operation: Option<String>,
    /// Tables that it feeds.
    #[serde(default)]
    pub tables: Vec<String>,
    /// Whether a table is `not_observable` without it (else `partial`).
    #[serde(default)]
    pub required: bool,
    /// Whether it is bound in API servers too. Nothing else is.
    #[serde(default)]
    pub api_server: bool,
    /// Classes of objects along the paths: path prefix to `module:Class`.
    #[serde(default)]
    pub classes: BTreeMap<String, String>,
    /// What is read.
    #[serde(default)]
    pub fields: Vec<Field>,
}

/// One value read at a call.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// Name.
    pub name: String,
    /// Field path.
    pub path: String,
    /// Versions in which it exists.
    #[serde(default)]
    pub versions: VersionReq,
    /// Whether a server may rightly lack it: then another field tells the same, or there is nothing to tell.
    #[serde(default)]
    pub optional: bool,
}

/// Which events a method's calls make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Events {
    /// One when it returns or raises.
    Return,
    /// One before, one after.
    EntryAndReturn,
    /// One before.
    Entry,
    /// One when it returns anything but `False`.
    ReturnUnlessFalse,
    /// One when it returns or raises, while graphs can be captured; else as [`Events::Count`].
    ReturnWhileCapturing,
    /// As [`Events::Return`], by the page's log instead of the kernel: no field can be read.
    Logged,
    /// None: calls and durations are counted in the page.
    Count,
}

impl Events {
    /// The slot mode for it.
    pub fn mode(self) -> page::Mode {
        match self {
            Self::Return | Self::ReturnWhileCapturing => page::MODE_RETURN,
            Self::Entry => page::MODE_ENTRY,
            Self::EntryAndReturn => page::MODE_RETURN | page::MODE_ENTRY,
            Self::ReturnUnlessFalse => page::MODE_RETURN | page::MODE_SKIP,
            Self::Logged => page::MODE_LOG,
            Self::Count => page::MODE_COUNT,
        }
    }

    /// The same for a method of which so many fields are read, where the page has a log: what tells no field needs no
    /// trap.
    #[must_use]
    pub fn logged(self, fields: usize) -> Self {
        if self == Self::Return && fields == 0 {
            Self::Logged
        } else {
            self
        }
    }

    /// The same where the page has no log.
    #[must_use]
    pub fn trapped(self) -> Self {
        if self == Self::Logged {
            Self::Return
        } else {
            self
        }
    }

    /// In a word or two, for the plan.
    pub fn words(self) -> &'static str {
        match self {
            Self::Return => "event",
            Self::EntryAndReturn => "event, entry too",
            Self::Entry => "event at entry",
            Self::ReturnUnlessFalse => "event unless False",
            Self::ReturnWhileCapturing => "event, count once it serves",
            Self::Logged => "log",
            Self::Count => "count",
        }
    }

    /// The slot mode while no graph can be captured, where it is another.
    pub fn steady_mode(self) -> Option<page::Mode> {
        match self {
            Self::ReturnWhileCapturing => Some(page::MODE_COUNT),
            Self::Return
            | Self::EntryAndReturn
            | Self::Entry
            | Self::ReturnUnlessFalse
            | Self::Logged
            | Self::Count => None,
        }
    }
}

impl Method {
    /// Whether the user gave it, and not the catalogue.
    pub fn is_users(&self) -> bool {
        self.id.starts_with("user.")
    }

    /// Whether a server may rightly lack what `path` leads to.
    pub fn may_lack(&self, path: &str) -> bool {
        let mut fields = self.fields.iter();
        fields.any(|field| field.optional && field.path == path)
    }
}

impl Catalog {
    /// The built-in catalogue of vLLM.
    ///
    /// # Panics
    /// If an embedded file does not parse, which a test holds.
    pub fn vllm() -> Self {
        let parses = "the embedded catalogue parses; `the_catalogue_parses` holds it";
        let mut catalog: Self = toml::from_str(VLLM).expect(parses);
        for text in MORE {
            let more: Methods = toml::from_str(text).expect(parses);
            catalog.methods.extend(more.methods);
        }
        catalog
    }

    /// Whether `version` came after those that the catalogue was written for.
    pub fn is_newer(&self, version: &Version) -> bool {
        let above = |bound: &semver::Comparator| {
            let first = Version::new(
                bound.major,
                bound.minor.unwrap_or(0),
                bound.patch.unwrap_or(0),
            );
            bound.op == semver::Op::Less && *version >= first
        };
        self.range.comparators.iter().any(above)
    }

    /// The methods of `version` that feed one of `tables` (`None`: all).
    pub fn select<'a>(
        &'a self,
        version: &Version,
        wanted: impl Fn(&str) -> bool,
    ) -> Vec<&'a Method> {
        self.methods
            .iter()
            .filter(|method| method.versions.matches(version))
            .filter(|method| {
                method.tables.is_empty() || method.tables.iter().any(|table| wanted(table))
            })
            .collect()
    }
}

/// The release that a Python version string names: `0.32.0+cpu`, `0.33.0rc1.dev5` and `0.17.1.post2` are `0.32.0`,
/// `0.33.0` and `0.17.1`. `None` if it does not begin with two numbers (`dev`).
pub fn release(text: &str) -> Option<Version> {
    let mut numbers = text.split(['.', '+', '-']).map_while(|part| {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u64>().ok()
    });
    Some(Version::new(
        numbers.next()?,
        numbers.next()?,
        numbers.next().unwrap_or(0),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_parses() {
        let catalog = Catalog::vllm();
        assert!(catalog.methods.len() > 20);
        for method in &catalog.methods {
            for table in &method.tables {
                assert!(
                    crate::table::index_of(table).is_some(),
                    "{}: no table `{table}`",
                    method.id
                );
            }
            for version in (8..=33).flat_map(|minor| [(minor, 0), (minor, 2), (minor, 5)]) {
                let version = Version::new(0, version.0, version.1);
                let there = |field: &&Field| field.versions.matches(&version);
                let fields = method.fields.iter().filter(there).count();
                assert!(
                    fields <= profilemate_common::record::FIELDS,
                    "{} of {version}: {fields} fields",
                    method.id
                );
            }
        }
    }

    #[test]
    fn releases_are_told_from_python_version_strings() {
        let of = |text| release(text).map(|version| version.to_string());
        assert_eq!(of("0.32.0+demo").as_deref(), Some("0.32.0"));
        assert_eq!(of("0.33.0rc1.dev5+g1a2b").as_deref(), Some("0.33.0"));
        assert_eq!(of("0.17.1.post2").as_deref(), Some("0.17.1"));
        assert_eq!(of("0.12").as_deref(), Some("0.12.0"));
        assert_eq!(of("dev"), None);
    }

    #[test]
    fn only_what_came_after_the_range_is_newer() {
        let catalog = Catalog::vllm();
        let newer = |version: &str| catalog.is_newer(&release(version).unwrap());
        assert!(newer("0.99.0") && newer("1.0.0.dev3") && newer("0.34.0"));
        assert!(!newer("0.33.0") && !newer("0.8.5") && !newer("0.8.4") && !newer("0.1"));
    }

    #[test]
    fn a_version_selects_its_methods_and_the_tables_asked_for() {
        let catalog = Catalog::vllm();
        let ids = |version: &str, table: &str| -> Vec<String> {
            let version = release(version).unwrap();
            catalog
                .select(&version, |name| name == table)
                .iter()
                .map(|m| m.qualname.clone())
                .collect()
        };
        let new = ids("0.32.0", "kv_cache_evictions");
        assert!(new.contains(&"BlockPool._maybe_evict_cached_block".to_owned()));
        assert!(!new.contains(&"Scheduler.schedule".to_owned()));
        assert!(
            ids("0.17.1", "cpu_operations_timing")
                .contains(&"GPUModelRunner.postprocess".to_owned())
        );
        assert!(
            !ids("0.32.0", "cpu_operations_timing")
                .contains(&"GPUModelRunner.postprocess".to_owned())
        );
    }
}
