//! Routers of mixture of experts layers that the Python helper samples.

use std::collections::BTreeMap;

use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

use super::{Events, Method};

/// The list's source.
const ROUTERS: &str = include_str!("routers.toml");

/// A function that chooses experts, or through which their ids go.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Router {
    /// Python module.
    pub module: String,
    /// Qualified name in the module.
    pub qualname: String,
    /// Versions in which it exists.
    #[serde(skip_serializing)]
    pub versions: VersionReq,
    /// Where the ids are.
    pub ids: Ids,
}

/// Where a router's ids are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ids {
    /// Logical ones go in, physical ones come out.
    Mapped,
    /// In its result.
    Result,
}

/// What is needed to sample routers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// The helper's function that tells the sums.
    pub tell: Method,
    /// The routers.
    #[serde(rename = "router")]
    pub routers: Vec<Router>,
}

/// How routers of vLLM's `version` (`None`: of any) are sampled.
///
/// # Panics
/// If the embedded file does not parse, which a test holds.
pub fn sampling(version: Option<&Version>) -> Sampling {
    let mut sampling: Sampling =
        toml::from_str(ROUTERS).expect("the embedded routers parse; `the_routers_parse` holds it");
    sampling
        .routers
        .retain(|router| version.is_none_or(|version| router.versions.matches(version)));
    sampling
}

/// All routers that are sampled, as methods of which nothing is read, to be looked for in sources.
pub fn sampled_routers() -> Vec<Method> {
    let Sampling { tell, routers } = sampling(None);
    let method = |router: Router| Method {
        id: "moe.router".to_owned(),
        module: router.module,
        qualname: router.qualname,
        versions: router.versions,
        events: Events::Count,
        operation: None,
        tables: tell.tables.clone(),
        required: false,
        api_server: false,
        classes: BTreeMap::new(),
        fields: Vec::new(),
    };
    routers.into_iter().map(method).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(minor: u64) -> Vec<String> {
        sampling(Some(&Version::new(0, minor, 0)))
            .routers
            .into_iter()
            .map(|router| router.qualname)
            .collect()
    }

    #[test]
    fn the_routers_parse() {
        let all = sampling(None);
        assert_eq!(all.tell.id, "moe.sample");
        for field in &all.tell.fields {
            assert!(crate::target::python::path::parse(&field.path).is_ok());
        }
        for table in &all.tell.tables {
            assert!(crate::table::index_of(table).is_some(), "{table}");
        }
    }

    #[test]
    fn a_version_selects_its_routers() {
        assert_eq!(names(32), ["BaseRouter._apply_eplb_mapping"]);
        assert_eq!(names(17).len(), 2, "{:?}", names(17));
        assert_eq!(names(13), ["FusedMoE.select_experts", "select_experts"]);
    }
}
