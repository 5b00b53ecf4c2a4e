//! Ids of tracks and of lines between slices: the same for the same thing, in every export.

use std::hash::{DefaultHasher, Hash, Hasher as _};

/// The id of a thing of some kind.
pub(super) fn id(kind: &str, of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    kind.hash(&mut hasher);
    of.hash(&mut hasher);
    // 0 is no id, and JSON's numbers are exact up to 53 bits only.
    (hasher.finish() >> 11).max(1)
}
