//! Paths into the objects of `objects.py`, and what they must give.

use profilemate_common::path::{
    CODE_ATTRIBUTE, CODE_COLLECT, CODE_CONSTANT, CODE_LEAF, ELEMENT_SELF, NO_INDEX, Op,
};
use profilemate_common::record::STATUS_TRUNCATED;
use std::collections::HashMap;

/// What a field must be.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expect {
    /// A scalar's 64 bits.
    Bits(u64),
    /// Text or bytes.
    Text(Vec<u8>),
    /// Absent, with this status.
    Absent(u8),
    /// Words of a collection, in this order; and how many items it has.
    Words(Vec<u64>, u32),
    /// The same, in any order (sets).
    AnyOrder(Vec<u64>, u32),
    /// Texts of a collection.
    Texts(Vec<Vec<u8>>),
    /// So many words stored, of so many items, and status truncated.
    Truncated(u32, u32),
}

/// One path.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) ops: Vec<Op>,
    pub(super) expect: Expect,
}

/// Addresses in the process under test.
pub(super) struct Names {
    pub(super) addresses: HashMap<String, u64>,
    pub(super) names: HashMap<String, u64>,
}

pub(super) const BLANK: Op = Op {
    code: 0,
    leaf: 0,
    keep: 0,
    element: 0,
    index: NO_INDEX,
    hint: NO_INDEX,
    offset: 0,
    key: 0,
    expected: 0,
};

impl Names {
    pub(super) fn attribute(&self, name: &str) -> Op {
        Op {
            code: CODE_ATTRIBUTE,
            key: self.names[name],
            ..BLANK
        }
    }

    /// The object that `path` leads to from the root, by attributes.
    pub(super) fn walk(&self, path: &str) -> Vec<Op> {
        let root = Op {
            code: CODE_CONSTANT,
            key: self.addresses["root"],
            ..BLANK
        };
        let names = path.split('.').filter(|name| !name.is_empty());
        std::iter::once(root)
            .chain(names.map(|name| self.attribute(name)))
            .collect()
    }

    pub(super) fn case(&self, path: &str, last: Op, expect: Expect) -> Case {
        self.with(path, &[], last, expect)
    }

    pub(super) fn with(&self, path: &str, middle: &[Op], last: Op, expect: Expect) -> Case {
        let mut ops = self.walk(path);
        ops.extend_from_slice(middle);
        ops.push(last);
        Case {
            name: format!("{path} {middle:?} leaf {}", last.leaf),
            ops,
            expect,
        }
    }
}

pub(super) fn leaf(leaf: u8) -> Op {
    Op {
        code: CODE_LEAF,
        leaf,
        ..BLANK
    }
}

pub(super) fn collect(leaf: u8) -> Op {
    Op {
        code: CODE_COLLECT,
        leaf,
        element: ELEMENT_SELF,
        ..BLANK
    }
}

pub(super) fn bits(value: i64) -> Expect {
    Expect::Bits(value as u64)
}

pub(super) fn words(items: &[i64]) -> Expect {
    Expect::Words(
        items.iter().map(|item| *item as u64).collect(),
        items.len() as u32,
    )
}

/// What the record says in the place of `expect`.
pub(super) fn decode(expect: &Expect, status: u8, value: u64, blob: &[u8]) -> Expect {
    let text = |at: usize| blob[at + 1..=at + usize::from(blob[at])].to_vec();
    if status != 0 && status != STATUS_TRUNCATED {
        return Expect::Absent(status);
    }
    let at = value as usize;
    let word = |at: usize| {
        blob.get(at..at + 8).map_or(u64::MAX, |word| {
            u64::from_ne_bytes(word.try_into().unwrap())
        })
    };
    let head = || (word(at) as u32, (word(at) >> 32) as u32);
    if !matches!(
        expect,
        Expect::Bits(_) | Expect::Absent(_) | Expect::Text(_)
    ) && head().0 > 2048
    {
        return Expect::Truncated(head().0, head().1);
    }
    match expect {
        Expect::Bits(_) | Expect::Absent(_) => Expect::Bits(value),
        Expect::Text(_) => Expect::Text(text(at)),
        Expect::Texts(_) => Expect::Texts(
            (0..head().0 as usize)
                .map(|i| text(at + 8 + 64 * i))
                .collect(),
        ),
        Expect::Truncated(..) => Expect::Truncated(head().0, head().1),
        Expect::Words(words, _) => {
            let size = if words.len() == 2 * head().0 as usize {
                2
            } else {
                1
            };
            Expect::Words(
                (0..size * head().0 as usize)
                    .map(|i| word(at + 8 + 8 * i))
                    .collect(),
                head().1,
            )
        }
        Expect::AnyOrder(..) => {
            let mut words: Vec<u64> = (0..head().0 as usize)
                .map(|i| word(at + 8 + 8 * i))
                .collect();
            words.sort_unstable();
            Expect::AnyOrder(words, head().1)
        }
    }
}
