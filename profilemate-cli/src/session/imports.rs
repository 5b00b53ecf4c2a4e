//! Modules in the middle of their import: in `sys.modules` already, and without what they will define.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A module that lacks something for so long will not define it.
const LONGEST: Duration = Duration::from_mins(2);

/// Modules that lack what was looked for in them, and since when.
#[derive(Debug, Default)]
pub(super) struct Imports(BTreeMap<String, Instant>);

impl Imports {
    /// Whether `module`, which lacks something, may yet define it.
    pub(super) fn may_define(&mut self, module: &str, now: Instant) -> bool {
        let since = *self.0.entry(module.to_owned()).or_insert(now);
        now.duration_since(since) < LONGEST
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_has_its_own_time_whenever_its_import_begins() {
        let mut imports = Imports::default();
        let began = Instant::now();
        let late = began + 3 * LONGEST;
        assert!(imports.may_define("first", began));
        assert!(imports.may_define("scheduler", late));
        assert!(imports.may_define("scheduler", late + LONGEST / 2));
        assert!(!imports.may_define("first", late));
        assert!(!imports.may_define("scheduler", late + LONGEST));
        imports.clear();
        assert!(imports.may_define("first", late));
    }
}
