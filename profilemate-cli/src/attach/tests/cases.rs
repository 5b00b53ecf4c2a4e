//! Paths into the objects of `objects.py`, and what they must give.

use profilemate_common::path::{
    CODE_ARGUMENT, CODE_ATTRIBUTE, CODE_COLLECT, CODE_CONSTANT, CODE_DICT_VALUE, CODE_LEAF,
    CODE_LIST_ITEM, CODE_LOAD, CODE_RESULT, CODE_TUPLE_ITEM, ELEMENT_ATTRIBUTE, ELEMENT_SELF,
    LEAF_ADDRESS, LEAF_BOOL, LEAF_BYTES, LEAF_FLOAT, LEAF_INT, LEAF_IS_NONE, LEAF_KEY_INT,
    LEAF_LEN, LEAF_STR, NO_INDEX, Op,
};
use profilemate_common::record::{
    STATUS_BAD_PROGRAM, STATUS_FAULT, STATUS_NONE, STATUS_NOT_PASSED, STATUS_OUT_OF_RANGE,
    STATUS_TOO_BIG, STATUS_TRUNCATED, STATUS_UNSET, STATUS_WRONG_TYPE,
};
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

const BLANK: Op = Op {
    code: 0,
    leaf: 0,
    reserved: 0,
    element: 0,
    index: NO_INDEX,
    hint: NO_INDEX,
    offset: 0,
    key: 0,
    expected: 0,
};

impl Names {
    fn attribute(&self, name: &str) -> Op {
        Op {
            code: CODE_ATTRIBUTE,
            key: self.names[name],
            ..BLANK
        }
    }

    /// The object that `path` leads to from the root, by attributes.
    fn walk(&self, path: &str) -> Vec<Op> {
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

    fn case(&self, path: &str, last: Op, expect: Expect) -> Case {
        self.with(path, &[], last, expect)
    }

    fn with(&self, path: &str, middle: &[Op], last: Op, expect: Expect) -> Case {
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

fn leaf(leaf: u8) -> Op {
    Op {
        code: CODE_LEAF,
        leaf,
        ..BLANK
    }
}

fn collect(leaf: u8) -> Op {
    Op {
        code: CODE_COLLECT,
        leaf,
        element: ELEMENT_SELF,
        ..BLANK
    }
}

fn bits(value: i64) -> Expect {
    Expect::Bits(value as u64)
}

fn words(items: &[i64]) -> Expect {
    Expect::Words(
        items.iter().map(|item| *item as u64).collect(),
        items.len() as u32,
    )
}

/// All cases. The call has `args` of `objects.py`: two positional and two by keyword; its result is `args[3]`.
pub(super) fn cases(names: &Names) -> Vec<Case> {
    let mut cases = scalars(names);
    cases.extend(objects(names));
    cases.extend(items(names));
    cases.extend(collections(names));
    cases.extend(call(names));
    cases
}

fn scalars(n: &Names) -> Vec<Case> {
    let int = leaf(LEAF_INT);
    let mut cases: Vec<Case> = [
        ("zero", 0),
        ("one", 1),
        ("negative", -5),
        ("two30", 1 << 30),
        ("negative31", -(1 << 31)),
        ("large", 123_456_789_012_345_678),
        ("max63", i64::MAX),
        ("min63", i64::MIN),
        ("yes", 1),
        ("no", 0),
        ("color", 7),
    ]
    .into_iter()
    .map(|(path, value)| n.case(path, int, bits(value)))
    .collect();
    for path in ["over", "under", "huge"] {
        cases.push(n.case(path, int, Expect::Absent(STATUS_TOO_BIG)));
    }
    for kind in [
        LEAF_INT, LEAF_BOOL, LEAF_FLOAT, LEAF_LEN, LEAF_STR, LEAF_BYTES,
    ] {
        cases.push(n.case("nothing", leaf(kind), Expect::Absent(STATUS_NONE)));
        cases.push(n.case("type", leaf(kind), Expect::Absent(STATUS_WRONG_TYPE)));
    }
    cases.extend([
        n.case("nothing", leaf(LEAF_IS_NONE), bits(1)),
        n.case("one", leaf(LEAF_IS_NONE), bits(0)),
        n.case(
            "nothing",
            leaf(LEAF_ADDRESS),
            Expect::Bits(n.addresses["None"]),
        ),
        n.case(
            "plain",
            leaf(LEAF_ADDRESS),
            Expect::Bits(n.addresses["plain_object"]),
        ),
        n.case("yes", leaf(LEAF_BOOL), bits(1)),
        n.case("no", leaf(LEAF_BOOL), bits(0)),
        n.case("one", leaf(LEAF_BOOL), Expect::Absent(STATUS_WRONG_TYPE)),
        n.case("text", int, Expect::Absent(STATUS_WRONG_TYPE)),
        n.case("pi", leaf(LEAF_FLOAT), Expect::Bits(3.25_f64.to_bits())),
        n.case("text", leaf(LEAF_STR), Expect::Text(b"hello".to_vec())),
        n.case("empty_text", leaf(LEAF_STR), Expect::Text(Vec::new())),
        n.case("long_text", leaf(LEAF_STR), Expect::Text(vec![b'x'; 63])),
        n.case(
            "sub_text",
            leaf(LEAF_STR),
            Expect::Text(b"subclass".to_vec()),
        ),
        n.case("accents", leaf(LEAF_STR), Expect::Absent(STATUS_WRONG_TYPE)),
        n.case("wide", leaf(LEAF_STR), Expect::Absent(STATUS_WRONG_TYPE)),
        n.case("data", leaf(LEAF_BYTES), Expect::Text(b"abc\0d".to_vec())),
        n.case("long_data", leaf(LEAF_BYTES), Expect::Text(vec![b'z'; 63])),
        n.case("text", leaf(LEAF_BYTES), Expect::Absent(STATUS_WRONG_TYPE)),
        n.case(
            "one",
            leaf(LEAF_KEY_INT),
            Expect::Absent(STATUS_BAD_PROGRAM),
        ),
        n.case("one", leaf(99), Expect::Absent(STATUS_BAD_PROGRAM)),
    ]);
    let lengths = [
        ("list", 3),
        ("empty_list", 0),
        ("my_list", 1),
        ("tuple", 3),
        ("dict", 2),
        ("empty_dict", 0),
        ("my_dict", 1),
        ("ordered", 2),
        ("set", 3),
        ("frozen", 1),
        ("empty_set", 0),
        ("deque", 2),
        ("deque2", 3),
        ("text", 5),
        ("long_text", 200),
        ("data", 5),
        ("gappy", 16),
        ("big_dict", 1000),
    ];
    cases.extend(
        lengths
            .into_iter()
            .map(|(path, length)| n.case(path, leaf(LEAF_LEN), bits(length))),
    );
    cases
}

fn objects(n: &Names) -> Vec<Case> {
    let int = leaf(LEAF_INT);
    let plain = n.addresses["Plain"];
    let fast = |index, expected| Op {
        index,
        expected,
        ..n.attribute("n")
    };
    let load = |offset, expected| Op {
        code: CODE_LOAD,
        offset,
        expected,
        ..BLANK
    };
    vec![
        n.case("plain.n", int, bits(42)),
        n.case("plain.child.n", int, bits(43)),
        n.case(
            "plain.child.child.child.name",
            leaf(LEAF_STR),
            Expect::Text(b"sub".to_vec()),
        ),
        n.with("plain", &[fast(0, plain)], int, bits(42)),
        n.with("sub", &[fast(0, plain)], int, bits(43)),
        n.with(
            "plain",
            &[Op {
                hint: 0,
                ..n.attribute("n")
            }],
            int,
            bits(42),
        ),
        n.with(
            "plain",
            &[Op {
                hint: 7,
                ..n.attribute("n")
            }],
            int,
            bits(42),
        ),
        n.case("many.a0", int, bits(0)),
        n.case("many.a35", int, bits(350)),
        n.case("many.a59", int, bits(590)),
        n.case("fields.first", int, bits(5)),
        n.case(
            "fields.second",
            leaf(LEAF_STR),
            Expect::Text(b"five".to_vec()),
        ),
        n.case("opened.first", int, bits(6)),
        n.case(
            "opened.second",
            leaf(LEAF_STR),
            Expect::Text(b"six".to_vec()),
        ),
        n.case("shape._value_", int, bits(11)),
        n.case("missing", int, Expect::Absent(STATUS_UNSET)),
        n.case("plain.missing", int, Expect::Absent(STATUS_UNSET)),
        n.case("many.missing", int, Expect::Absent(STATUS_UNSET)),
        n.case("gone.n", int, Expect::Absent(STATUS_UNSET)),
        n.case("gone.name", leaf(LEAF_STR), Expect::Text(b"gone".to_vec())),
        n.case("slots.x", int, Expect::Absent(STATUS_WRONG_TYPE)),
        n.case("one.x", int, Expect::Absent(STATUS_WRONG_TYPE)),
        n.with("slots", &[load(16, n.addresses["Slots"])], int, bits(77)),
        n.with("slots", &[load(16, 0)], int, bits(77)),
        n.with(
            "slots",
            &[load(24, n.addresses["Slots"])],
            int,
            Expect::Absent(STATUS_UNSET),
        ),
        n.with(
            "plain",
            &[load(16, n.addresses["Slots"])],
            int,
            Expect::Absent(STATUS_WRONG_TYPE),
        ),
        Case {
            name: "a wild pointer".into(),
            ops: vec![
                Op {
                    code: CODE_CONSTANT,
                    key: 0x1000,
                    ..BLANK
                },
                n.attribute("n"),
                int,
            ],
            expect: Expect::Absent(STATUS_FAULT),
        },
        Case {
            name: "an unknown operation".into(),
            ops: vec![Op { code: 77, ..BLANK }, int],
            expect: Expect::Absent(STATUS_BAD_PROGRAM),
        },
    ]
}

fn items(n: &Names) -> Vec<Case> {
    let int = leaf(LEAF_INT);
    let item = |code, offset| Op {
        code,
        offset,
        ..BLANK
    };
    let value = |name: &str| Op {
        code: CODE_DICT_VALUE,
        key: n.names[name],
        ..BLANK
    };
    vec![
        n.with("tuple", &[item(CODE_TUPLE_ITEM, 2)], int, bits(6)),
        n.with(
            "tuple",
            &[item(CODE_TUPLE_ITEM, 3)],
            int,
            Expect::Absent(STATUS_OUT_OF_RANGE),
        ),
        n.with(
            "tuple",
            &[item(CODE_TUPLE_ITEM, -1)],
            int,
            Expect::Absent(STATUS_OUT_OF_RANGE),
        ),
        n.with(
            "tuple",
            &[item(CODE_LIST_ITEM, 0)],
            int,
            Expect::Absent(STATUS_WRONG_TYPE),
        ),
        n.with("list", &[item(CODE_LIST_ITEM, 1)], int, bits(-2)),
        n.with("my_list", &[item(CODE_LIST_ITEM, 0)], int, bits(5)),
        n.with(
            "empty_list",
            &[item(CODE_LIST_ITEM, 0)],
            int,
            Expect::Absent(STATUS_OUT_OF_RANGE),
        ),
        n.with("dict", &[value("b")], int, bits(2)),
        n.with(
            "dict",
            &[Op {
                hint: 1,
                ..value("b")
            }],
            int,
            bits(2),
        ),
        n.with(
            "dict",
            &[Op {
                hint: 0,
                ..value("b")
            }],
            int,
            bits(2),
        ),
        n.with("my_dict", &[value("a")], int, bits(9)),
        n.with("ordered", &[value("b")], int, bits(2)),
        n.with("general", &[value("k")], int, bits(7)),
        n.with("big_dict", &[value("key777")], int, bits(777)),
        n.with("gappy", &[value("r5")], int, bits(5000)),
        n.with(
            "dict",
            &[value("missing")],
            int,
            Expect::Absent(STATUS_UNSET),
        ),
        n.with(
            "empty_dict",
            &[value("a")],
            int,
            Expect::Absent(STATUS_UNSET),
        ),
        n.with(
            "list",
            &[value("a")],
            int,
            Expect::Absent(STATUS_WRONG_TYPE),
        ),
    ]
}

fn collections(n: &Names) -> Vec<Case> {
    let ints = collect(LEAF_INT);
    let of = |name: &str, leaf| Op {
        element: ELEMENT_ATTRIBUTE,
        ..Op {
            key: n.names[name],
            ..collect(leaf)
        }
    };
    let gappy = |i: u64| [n.addresses[&format!("gappy:r{i}")], i * 1000];
    let pairs: Vec<u64> = (0..20)
        .filter(|i| ![0, 3, 4, 19].contains(i))
        .flat_map(gappy)
        .collect();
    let texts =
        |items: &[&str]| Expect::Texts(items.iter().map(|item| item.as_bytes().to_vec()).collect());
    vec![
        n.case("list", ints, words(&[1, -2, 300_000_000_000])),
        n.case("empty_list", ints, words(&[])),
        n.case("tuple", ints, words(&[4, 5, 6])),
        n.case("bools", collect(LEAF_BOOL), words(&[1, 0])),
        n.case("colors", ints, words(&[7, 3])),
        n.case(
            "floats",
            collect(LEAF_FLOAT),
            Expect::Words(vec![0.5_f64.to_bits(), (-1.5_f64).to_bits()], 2),
        ),
        n.case("set", ints, Expect::AnyOrder(vec![10, 30, 40], 3)),
        n.case("frozen", ints, words(&[7])),
        n.case("empty_set", ints, words(&[])),
        n.case(
            "texts",
            collect(LEAF_STR),
            texts(&["alpha", "beta", &"x".repeat(63)]),
        ),
        n.case("dict", collect(LEAF_STR), texts(&["a", "b"])),
        n.case("empty_dict", collect(LEAF_STR), Expect::Texts(Vec::new())),
        n.case("lists", collect(LEAF_LEN), words(&[2, 0, 1])),
        n.case("nones", collect(LEAF_IS_NONE), words(&[1])),
        n.case("nones", ints, Expect::Absent(STATUS_WRONG_TYPE)),
        n.case("mixed", ints, Expect::Absent(STATUS_WRONG_TYPE)),
        n.case("nothing", ints, Expect::Absent(STATUS_NONE)),
        n.case("deque", ints, Expect::Absent(STATUS_WRONG_TYPE)),
        n.case("one", ints, Expect::Absent(STATUS_WRONG_TYPE)),
        n.case("gappy", collect(LEAF_KEY_INT), Expect::Words(pairs, 16)),
        n.case(
            "list",
            collect(LEAF_KEY_INT),
            Expect::Absent(STATUS_WRONG_TYPE),
        ),
        n.case("requests", of("n", LEAF_INT), words(&[1, 2, -3])),
        n.case(
            "requests",
            Op {
                index: 0,
                expected: n.addresses["Plain"],
                ..of("n", LEAF_INT)
            },
            words(&[1, 2, -3]),
        ),
        n.case(
            "requests",
            of("name", LEAF_STR),
            texts(&["r1", "sub", "r3"]),
        ),
        n.case(
            "requests",
            of("missing", LEAF_INT),
            Expect::Absent(STATUS_UNSET),
        ),
        n.case("list", of("n", LEAF_INT), Expect::Absent(STATUS_WRONG_TYPE)),
        n.case("big_list", ints, Expect::Truncated(1024, 3000)),
        // After a large one, and with a budget of its own.
        n.case("tuple", ints, words(&[4, 5, 6])),
        n.case("one", leaf(LEAF_INT), bits(1)),
    ]
}

fn call(n: &Names) -> Vec<Case> {
    let argument = |index, key| Op {
        code: CODE_ARGUMENT,
        index,
        key,
        ..BLANK
    };
    let result = Op {
        code: CODE_RESULT,
        ..BLANK
    };
    let case = |name: &str, ops: Vec<Op>, expect| Case {
        name: name.into(),
        ops,
        expect,
    };
    let absent = Expect::Absent(STATUS_NOT_PASSED);
    vec![
        case(
            "self.n",
            vec![argument(0, 0), n.attribute("n"), leaf(LEAF_INT)],
            bits(42),
        ),
        case("position 1", vec![argument(1, 0), leaf(LEAF_INT)], bits(1)),
        case(
            "position 2",
            vec![argument(2, 0), leaf(LEAF_INT)],
            absent.clone(),
        ),
        case(
            "keyword 1",
            vec![argument(NO_INDEX, n.names["kw1"]), leaf(LEAF_STR)],
            Expect::Text(b"hello".to_vec()),
        ),
        case(
            "keyword 2",
            vec![argument(2, n.names["kw2"]), leaf(LEAF_LEN)],
            bits(3),
        ),
        case(
            "no keyword",
            vec![argument(2, n.names["missing"]), leaf(LEAF_LEN)],
            absent,
        ),
        case(
            "result",
            vec![result, leaf(LEAF_ADDRESS)],
            Expect::Bits(n.addresses["list_object"]),
        ),
        case(
            "items of the result",
            vec![result, collect(LEAF_INT)],
            words(&[1, -2, 300_000_000_000]),
        ),
    ]
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
