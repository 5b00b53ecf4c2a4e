//! Whether the catalogue fits a vLLM, told from its sources and without running any of it.
//!
//! Three answers are kept apart: it is there, it is not there, and it cannot be told by looking at the sources. What
//! is looked at is untrusted: sizes, depths and times are bounded, and nothing is imported.

mod assigned;
mod expression;
mod model;
mod names;
mod python;
#[cfg(test)]
mod tests;
mod text;
mod tree;
mod types;
mod way;

use std::path::Path;

use semver::Version;
use serde::Serialize;

pub use text::text;
pub use tree::Error;

use super::{Catalog, Method, release};
use crate::target::python::path;
use names::{ClassAt, Item, Names};
use tree::Tree;
use types::Types;
use way::Follower;

/// Whether something is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is there.
    Found,
    /// The sources alone do not tell.
    CannotBeTold,
    /// It is not there.
    NotFound,
}

/// An answer, and why or how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Whether it is there.
    pub answer: Answer,
    /// In words; may be empty if it is there.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Told {
    fn found() -> Self {
        Self::found_with("")
    }

    fn found_with(detail: impl Into<String>) -> Self {
        Self {
            answer: Answer::Found,
            detail: detail.into(),
        }
    }

    fn absent(detail: impl Into<String>) -> Self {
        Self {
            answer: Answer::NotFound,
            detail: detail.into(),
        }
    }

    fn unclear(detail: impl Into<String>) -> Self {
        Self {
            answer: Answer::CannotBeTold,
            detail: detail.into(),
        }
    }

    /// Whether it is there.
    pub fn is_found(&self) -> bool {
        self.answer == Answer::Found
    }

    /// Both: the worse answer counts, of equal ones the first.
    fn and(self, other: Self) -> Self {
        let later =
            other.answer > self.answer || (self.detail.is_empty() && other.answer == self.answer);
        if later { other } else { self }
    }
}

/// What was found of a whole catalogue.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// vLLM's version, as it states it.
    pub vllm: String,
    /// The release that is meant by it: which version ranges hold.
    #[serde(serialize_with = "as_text")]
    pub release: Version,
    /// Whether the catalogue was written for this release.
    pub in_range: bool,
    /// `folder` or `wheel`.
    pub source: &'static str,
    /// Methods of this release.
    pub methods: Vec<MethodReport>,
    /// Methods that are there although their version range leaves this release out.
    pub beyond_range: Vec<MethodReport>,
    /// Numbers of answers over all methods, classes and fields.
    pub totals: Totals,
}

/// Numbers of answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// There.
    pub found: usize,
    /// Not there.
    pub not_found: usize,
    /// Not told by the sources.
    pub cannot_be_told: usize,
}

/// What was found of one method.
#[derive(Clone, Debug, Serialize)]
pub struct MethodReport {
    /// Catalogue id.
    pub id: String,
    /// Python module.
    pub module: String,
    /// Qualified name in it.
    pub qualname: String,
    /// Its version range.
    pub versions: String,
    /// Whether it is there.
    #[serde(flatten)]
    pub told: Told,
    /// Its decorators.
    pub decorators: Vec<String>,
    /// Classes that the catalogue names for objects along its paths.
    pub classes: Vec<Part>,
    /// Its fields of this release.
    pub fields: Vec<Part>,
}

/// A class or a field of a method.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// Field name, or path prefix of a class.
    pub name: String,
    /// Field path, or class.
    pub path: String,
    /// Whether it is there.
    #[serde(flatten)]
    pub told: Told,
}

impl MethodReport {
    /// Every answer of it.
    pub fn answers(&self) -> impl Iterator<Item = &Told> {
        let parts = self.classes.iter().chain(&self.fields);
        std::iter::once(&self.told).chain(parts.map(|part| &part.told))
    }
}

fn as_text<S: serde::Serializer>(version: &Version, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(version)
}

/// Why a check cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The sources cannot be read.
    #[error(transparent)]
    Tree(#[from] Error),
    /// They do not say which version they are.
    #[error("the vllm package there does not state its version")]
    NoVersion,
    /// They say something that is no version.
    #[error("the vllm package there states the version `{0}`, which names no release")]
    OddVersion(String),
}

/// Checks the catalogue against the vLLM at `at`: a folder that is or holds the package, or a wheel. `version` is
/// taken in place of the one that it states.
pub fn check(catalog: &Catalog, at: &Path, version: Option<&str>) -> Result<Report, CheckError> {
    let tree = Tree::open(at)?;
    let stated = match version {
        Some(version) => version.to_owned(),
        None => tree.version().ok_or(CheckError::NoVersion)?,
    };
    let release = release(&stated).ok_or_else(|| CheckError::OddVersion(stated.clone()))?;
    let names = Names::new(&tree);
    let (inside, outside): (Vec<&Method>, Vec<&Method>) = catalog
        .methods
        .iter()
        .partition(|method| method.versions.matches(&release));
    let methods: Vec<MethodReport> = inside
        .into_iter()
        .map(|method| check_method(&names, method, &release))
        .collect();
    let is_inside = |method: &Method| {
        methods
            .iter()
            .any(|report| report.module == method.module && report.qualname == method.qualname)
    };
    let beyond_range = outside
        .into_iter()
        .filter(|method| !is_inside(method))
        .map(|method| check_method(&names, method, &release))
        .filter(|report| report.told.is_found())
        .collect();
    let mut totals = Totals::default();
    for told in methods.iter().flat_map(MethodReport::answers) {
        match told.answer {
            Answer::Found => totals.found += 1,
            Answer::NotFound => totals.not_found += 1,
            Answer::CannotBeTold => totals.cannot_be_told += 1,
        }
    }
    Ok(Report {
        vllm: stated,
        in_range: catalog.range.matches(&release),
        release,
        source: tree.kind(),
        methods,
        beyond_range,
        totals,
    })
}

fn check_method(names: &Names<'_>, method: &Method, release: &Version) -> MethodReport {
    let mut report = MethodReport {
        id: method.id.clone(),
        module: method.module.clone(),
        qualname: method.qualname.clone(),
        versions: method.versions.to_string(),
        told: Told::found(),
        decorators: Vec::new(),
        classes: Vec::new(),
        fields: Vec::new(),
    };
    let (defined_in, function) = match names.find(&method.module, &method.qualname) {
        Item::Function(module, function) => (module, function),
        Item::Absent(why) => {
            report.told = Told::absent(why);
            return report;
        }
        Item::Unclear(why) => {
            report.told = Told::unclear(why);
            return report;
        }
        Item::Outside(what) => {
            report.told = Told::unclear(format!("it is `{what}`, which is not in the sources"));
            return report;
        }
        Item::Class(_) | Item::Module(_) | Item::Value(..) => {
            report.told = Told::absent("it is no function");
            return report;
        }
    };
    report.decorators.clone_from(&function.decorators);
    let fields: Vec<_> = method
        .fields
        .iter()
        .filter(|field| field.versions.matches(release))
        .collect();
    // A class is asked for only by the fields whose paths pass it.
    let passed = |prefix: &str| fields.iter().any(|field| field.path.starts_with(prefix));
    report.classes = method
        .classes
        .iter()
        .filter(|(prefix, _)| passed(prefix))
        .map(|(prefix, class)| Part {
            name: prefix.clone(),
            path: class.clone(),
            told: check_class(names, class),
        })
        .collect();
    let follower = Follower {
        types: Types { names },
        module: method.module.clone(),
        class: class_of(names, method),
        defined_in,
        function: &function,
        classes: &method.classes,
    };
    for field in fields {
        let told = match path::parse(&field.path) {
            Ok(path) => follower.follow(&path),
            Err(error) => Told::absent(error.to_string()),
        };
        report.fields.push(Part {
            name: field.name.clone(),
            path: field.path.clone(),
            told,
        });
    }
    report
}

/// The class that a method is looked up in.
fn class_of(names: &Names<'_>, method: &Method) -> Option<ClassAt> {
    let (class, _) = method.qualname.rsplit_once('.')?;
    match names.find(&method.module, class) {
        Item::Class(class) => Some(class),
        _ => None,
    }
}

fn check_class(names: &Names<'_>, class: &str) -> Told {
    let (module, name) = class.split_once(':').unwrap_or((class, ""));
    match names.find(module, name) {
        Item::Class(_) => Told::found(),
        Item::Absent(why) => Told::absent(why),
        Item::Unclear(why) => Told::unclear(why),
        Item::Outside(what) => {
            Told::unclear(format!("it is `{what}`, which is not in the sources"))
        }
        Item::Function(..) | Item::Module(_) | Item::Value(..) => {
            Told::absent(format!("{class} is no class"))
        }
    }
}
