//! Who a row is of: the engines and workers of a session, told apart.

use std::collections::BTreeMap;

use crate::recorded::Metadata;

/// Engines or workers that are told apart, at most.
const MOST: usize = 32;

/// An engine or a worker. The predecessor's rows have neither rank nor pid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Member {
    /// Data parallel rank of an engine, or rank of a worker.
    pub(super) rank: Option<u32>,
    /// Process.
    pub(super) pid: u32,
}

impl Member {
    /// A row's member.
    pub(super) const fn new(rank: Option<u32>, pid: u32) -> Self {
        Self { rank, pid }
    }

    /// As a person calls it: `engine 1 (pid 4711)`.
    pub(super) fn name(&self, kind: &str, metadata: &Metadata) -> String {
        let process = metadata.process(self.pid);
        let engine = kind == "engine";
        let told = process.and_then(|process| if engine { process.engine } else { process.rank });
        let which = match (self.rank.or(told), engine) {
            (Some(rank), true) => format!("engine {rank}"),
            (Some(rank), false) => format!("{kind} rank {rank}"),
            (None, _) => kind.to_owned(),
        };
        if self.pid == 0 {
            return which;
        }
        format!("{which} (pid {})", self.pid)
    }
}

/// What is gathered for each member.
#[derive(Clone, Debug)]
pub(super) struct Members<T> {
    map: BTreeMap<Member, T>,
    left_out: u64,
}

impl<T> Default for Members<T> {
    fn default() -> Self {
        Self {
            map: BTreeMap::new(),
            left_out: 0,
        }
    }
}

impl<T: Default> Members<T> {
    /// What is gathered for that member; `None` if there are too many.
    pub(super) fn of(&mut self, member: Member) -> Option<&mut T> {
        if self.map.len() >= MOST && !self.map.contains_key(&member) {
            self.left_out += 1;
            return None;
        }
        Some(self.map.entry(member).or_default())
    }
}

impl<T> Members<T> {
    /// All of them, by rank and pid.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Member, &T)> {
        self.map.iter()
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// What is said about rows that are not drawn because there are too many members.
    pub(super) fn note(&self) -> Option<String> {
        (self.left_out > 0).then(|| {
            format!(
                "{} rows of further processes are not drawn: {MOST} are told apart.",
                self.left_out
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_named_by_what_is_known() {
        let metadata: Metadata = serde_json::from_str(
            r#"{"processes": [{"pid": 7, "role": "engine_core", "engine": 1}, {"pid": 8, "rank": 3}]}"#,
        )
        .unwrap();
        let name = |rank, pid, kind| Member::new(rank, pid).name(kind, &metadata);
        assert_eq!(name(None, 7, "engine"), "engine 1 (pid 7)");
        assert_eq!(name(Some(2), 9, "engine"), "engine 2 (pid 9)");
        assert_eq!(name(None, 8, "worker"), "worker rank 3 (pid 8)");
        assert_eq!(name(None, 0, "worker"), "worker");
    }

    #[test]
    fn too_many_members_are_told() {
        let mut members = Members::<u64>::default();
        for pid in 0..40 {
            if let Some(count) = members.of(Member::new(None, pid)) {
                *count += 1;
            }
        }
        assert_eq!(members.len(), MOST);
        assert!(members.note().unwrap().contains("8 rows"));
    }
}
