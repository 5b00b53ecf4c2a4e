//! What a session is asked to do.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use semver::Version;

use crate::catalog;
use crate::cli::args::Touch;
use crate::recorder;

/// What a session is asked to do.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
pub struct Options {
    /// Root processes of the target.
    pub roots: BTreeSet<u32>,
    /// How the target may be touched.
    pub touch: Touch,
    /// The helper may be started in processes that run already: the user has named them.
    pub late: bool,
    /// Which tables are wanted.
    pub wanted: Wanted,
    /// The user's own methods.
    pub methods: Vec<catalog::Method>,
    /// Version to take where vLLM's own is not in the catalogue.
    pub assume: Option<Version>,
    /// Bytes of the kernel ring buffer.
    pub ring_bytes: u32,
    /// Folder in which the session's folder is made.
    pub output: PathBuf,
    /// Longest duration.
    pub duration: Option<Duration>,
    /// A row for each replay of a CUDA graph.
    pub graph_timeline: bool,
    /// Calls of user methods as JSON lines on stdout.
    pub json: bool,
    /// No status line, no summary.
    pub quiet: bool,
    /// Loss and missing processes are told by the exit code.
    pub strict: bool,
    /// Only the latest part is kept, and written when something happens.
    pub recorder: Option<recorder::Options>,
    /// What tracing may cost each process, in percent of its steps.
    pub budget: Option<f64>,
    /// Routers that the Python helper samples.
    pub moe_sample: Option<MoeSample>,
}

/// Which calls of routers are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoeSample {
    /// Every so many calls of each layer, the first one too.
    pub every: u32,
    /// The target was started with the helper, which binds its methods by itself.
    pub started: bool,
}

/// Which tables are wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only these, if any.
    pub only: Vec<String>,
    /// Not these.
    pub without: Vec<String>,
    /// Launches of kernels are not counted.
    pub no_kernel_counts: bool,
}

impl Wanted {
    /// Whether `table` is wanted. A user's own methods are not chosen by table.
    pub fn table(&self, table: &str) -> bool {
        let chosen = self.only.is_empty() || self.only.iter().any(|name| name == table);
        chosen && !self.without.iter().any(|name| name == table)
    }
}

/// Tables that are made of calls of CUDA driver functions.
pub const DRIVER_TABLES: [&str; 4] = [
    "cuda_graph_captures",
    "cuda_graph_usage",
    "cuda_graph_timeline",
    "forward_pass_timing",
];

impl Wanted {
    /// Whether a table is wanted that needs driver functions to be probed.
    pub fn driver(&self) -> bool {
        DRIVER_TABLES.iter().any(|table| self.table(table))
    }

    /// Whether launches of kernels are to be counted: a table has a column for them, and where stacks are walked they
    /// show steps without graphs.
    pub fn kernel_counts(&self) -> bool {
        let tables = ["forward_pass_timing", "cuda_graph_usage"];
        !self.no_kernel_counts && tables.iter().any(|table| self.table(table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_chosen_by_only_and_without() {
        let all = Wanted::default();
        assert!(all.table("batch_utilization"));
        let only = Wanted {
            only: vec!["kv_cache_usage".into()],
            ..Wanted::default()
        };
        assert!(only.table("kv_cache_usage") && !only.table("batch_utilization"));
        let without = Wanted {
            without: vec!["kv_cache_usage".into()],
            ..Wanted::default()
        };
        assert!(!without.table("kv_cache_usage") && without.table("batch_utilization"));
        assert!(without.kernel_counts() && !only.kernel_counts());
    }
}
