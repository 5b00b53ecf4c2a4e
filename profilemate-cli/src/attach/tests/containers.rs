//! Paths to containers and their items, and what they must give.

#![expect(clippy::too_many_lines, reason = "tables of cases")]

use super::cases::{BLANK, Case, Expect, Names, bits, collect, leaf, words};
use profilemate_common::path::{
    CODE_DICT_VALUE, CODE_LIST_ITEM, CODE_TUPLE_ITEM, ELEMENT_ATTRIBUTE, LEAF_BOOL, LEAF_FLOAT,
    LEAF_INT, LEAF_IS_NONE, LEAF_KEY_INT, LEAF_LEN, LEAF_STR, Op,
};
use profilemate_common::record::{
    STATUS_NONE, STATUS_OUT_OF_RANGE, STATUS_UNSET, STATUS_WRONG_TYPE,
};

/// Single items.
pub(super) fn items(n: &Names) -> Vec<Case> {
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

/// Whole collections.
pub(super) fn collections(n: &Names) -> Vec<Case> {
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
