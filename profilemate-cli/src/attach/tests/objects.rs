//! Paths to scalars and attributes of the objects of `objects.py`, and what they must give.

#![expect(clippy::too_many_lines, reason = "tables of cases")]

use super::cases::{BLANK, Case, Expect, Names, bits, collect, leaf, words};
use super::containers;
use profilemate_common::path::{
    CODE_ARGUMENT, CODE_CONSTANT, CODE_LOAD, CODE_RESULT, LEAF_ADDRESS, LEAF_BOOL, LEAF_BYTES,
    LEAF_FLOAT, LEAF_INT, LEAF_IS_NONE, LEAF_KEY_INT, LEAF_LEN, LEAF_STR, NO_INDEX, Op,
};
use profilemate_common::record::{
    STATUS_BAD_PROGRAM, STATUS_FAULT, STATUS_NONE, STATUS_NOT_PASSED, STATUS_TOO_BIG, STATUS_UNSET,
    STATUS_WRONG_TYPE,
};

/// All cases. The call has `args` of `objects.py`: two positional and two by keyword; its result is `args[3]`.
pub(super) fn cases(names: &Names) -> Vec<Case> {
    let mut cases = scalars(names);
    cases.extend(objects(names));
    cases.extend(containers::items(names));
    cases.extend(containers::collections(names));
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
