//! Images with wrong bytes: a wrong layout is refused, and a path gives the right value or none. It gives another one
//! only where the value's own bytes, or a reference on the way to it, are others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use bytemuck::Pod;
use profilemate_common::memory::Memory;
use profilemate_common::python::{OB_TYPE, TYPE_FLAGS};
use proptest::prelude::*;
use proptest::sample::Index;

use super::case::{Cases, Got};
use super::{Image, Noted, images, value};
use crate::target::python::layout::{Layout, LayoutError, TYPE_NAME, validate};
use crate::target::python::memory::ReadBytes;

/// The flags that say of which built-in type a class is a subclass.
const FLAGS_KIND: u64 = 0xff << 24;

/// An image of which some bytes are changed: by address, the bits that differ.
struct Corrupt<'i> {
    image: &'i Image,
    changes: &'i BTreeMap<u64, u8>,
}

impl ReadBytes for Corrupt<'_> {
    fn read_bytes(&self, address: u64, into: &mut [u8]) -> bool {
        if !self.image.read_bytes(address, into) {
            return false;
        }
        for (at, bits) in self.changes.range(address..address + into.len() as u64) {
            into[(at - address) as usize] ^= bits;
        }
        true
    }
}

impl Memory for Corrupt<'_> {
    fn read<T: Pod>(&self, address: u64) -> Option<T> {
        value(self, address)
    }
}

/// An image, and what is read of it for what.
struct Known {
    image: &'static Image,
    layout: Layout,
    cases: Cases,
    /// Bytes that are recorded.
    bytes: Vec<u64>,
    /// Bytes that are read to check the layout.
    checked: Vec<u64>,
    /// Bytes that are read to compile the paths.
    compiled: BTreeSet<u64>,
    /// Bytes that are read to run each path.
    read: Vec<Vec<u64>>,
    /// Those of them that tell what something is: words that hold an object's type, a type's flags, a key's name.
    guards: Vec<BTreeSet<u64>>,
    /// Addresses of types.
    types: BTreeSet<u64>,
}

fn known() -> &'static [Known] {
    static KNOWN: OnceLock<Vec<Known>> = OnceLock::new();
    KNOWN.get_or_init(|| images().iter().map(Known::new).collect())
}

impl Known {
    fn new(image: &'static Image) -> Self {
        let noted = Noted::new(image);
        let layout = validate(&image.head.interpreter, &noted).unwrap();
        let checked = noted.seen.into_inner();
        let noted = Noted::new(image);
        let cases = Cases::compile(&noted, &layout, &image.head.facts);
        let compiled = noted.seen.into_inner();
        let mut types = image.facts("classes");
        types.extend(builtin(&layout).map(|(address, _)| address));
        let mut read = Vec::new();
        let mut guards = Vec::new();
        for case in &cases.list {
            let noted = Noted::new(image);
            case.run(&cases.call, &noted, &layout.kernel);
            let seen = noted.seen.into_inner();
            let keys: BTreeSet<u64> = case.program.ops.iter().map(|op| op.key).collect();
            let is_guard = |word: u64| {
                let holds = image.read::<u64>(word).unwrap_or(0);
                types.contains(&holds)
                    || (holds != 0 && keys.contains(&holds))
                    || types.contains(&word.wrapping_sub(TYPE_FLAGS))
            };
            let words: BTreeSet<u64> = seen.iter().map(|at| at & !7).collect();
            let words = words.into_iter().filter(|word| is_guard(*word));
            guards.push(words.flat_map(|word| word..word + 8).collect());
            read.push(seen.into_iter().collect());
        }
        Self {
            image,
            layout,
            cases,
            bytes: image.addresses().collect(),
            checked: checked
                .into_iter()
                .filter(|at| image.read::<u8>(*at).is_some())
                .collect(),
            compiled,
            read,
            guards,
            types,
        }
    }

    /// Whether a change is noticed when the layout is checked; or makes something an instance of another type: of one
    /// that exists, or of memory that has the flags of one in the right place, which nothing tells from a type.
    fn is_refused_or_another_type(&self, changes: &BTreeMap<u64, u8>) -> bool {
        if check(self.image, changes).is_err() {
            return true;
        }
        let corrupt = Corrupt {
            image: self.image,
            changes,
        };
        let built_in: BTreeSet<u64> = builtin(&self.layout).map(|(class, _)| class).collect();
        // The check of the layout looks at the kinds of built-in types only.
        let classes = self.types.difference(&built_in);
        let kinds: BTreeSet<u64> = classes.map(|class| class + TYPE_FLAGS + 3).collect();
        changes.keys().any(|at| {
            let word = at & !7;
            if kinds.contains(at) {
                return true;
            }
            corrupt.read::<u64>(word).is_some_and(|holds| {
                let flags = corrupt.read::<u64>(holds.wrapping_add(TYPE_FLAGS));
                self.types.contains(&holds) || flags.is_some_and(|flags| flags & FLAGS_KIND != 0)
            })
        })
    }
}

/// The built-in types that the layout knows, by name.
fn builtin(layout: &Layout) -> impl Iterator<Item = (u64, &'static str)> {
    let symbols = layout.symbols;
    [
        (symbols.type_type, "type"),
        (symbols.type_function, "function"),
        (symbols.type_code, "code"),
        (symbols.type_module, "module"),
        (symbols.type_int, "int"),
        (symbols.type_float, "float"),
        (symbols.type_str, "str"),
        (symbols.type_bytes, "bytes"),
        (symbols.type_tuple, "tuple"),
        (symbols.type_list, "list"),
        (symbols.type_dict, "dict"),
        (symbols.type_set, "set"),
        (symbols.type_frozenset, "frozenset"),
        (symbols.type_property, "property"),
        (symbols.type_member, "member"),
    ]
    .into_iter()
}

fn check(image: &Image, changes: &BTreeMap<u64, u8>) -> Result<Layout, LayoutError> {
    validate(&image.head.interpreter, &Corrupt { image, changes })
}

#[test]
fn a_flipped_type_is_refused() {
    for known in known() {
        for (address, name) in builtin(&known.layout) {
            for field in [OB_TYPE, TYPE_NAME] {
                for byte in 0..6 {
                    let changes = BTreeMap::from([(address + field + byte, 0x28)]);
                    let result = check(known.image, &changes);
                    assert!(result.is_err(), "{} {name} +{field}", known.image.version());
                }
            }
        }
        let symbols = &known.layout.symbols;
        for constant in [symbols.none, symbols.true_, symbols.false_] {
            let changes = BTreeMap::from([(constant + OB_TYPE + 1, 0x10)]);
            assert!(check(known.image, &changes).is_err());
        }
    }
}

#[test]
fn a_flipped_flag_is_refused() {
    for known in known() {
        // `Py_TPFLAGS_HEAPTYPE` of a class whose instances share their keys.
        let flags = known.image.fact("module_spec") + TYPE_FLAGS;
        assert!(check(known.image, &BTreeMap::from([(flags + 1, 0b10)])).is_err());
    }
}

#[test]
fn a_flipped_version_is_refused() {
    for known in known() {
        // The minor version in `sys.hexversion`, the second byte from above: one digit of 30 bits holds it.
        let digit = known.image.fact("hexversion_at") + profilemate_common::python::INT_DIGITS;
        for bits in 1..=15 {
            let changes = BTreeMap::from([(digit + 2, bits)]);
            assert!(check(known.image, &changes).is_err());
        }
        if known.layout.offsets.debug.is_empty() {
            continue;
        }
        // The interpreter's own words: cookie, version, and each offset that it states.
        let stated = known
            .layout
            .offsets
            .debug
            .iter()
            .map(|offset| 8 * offset.word);
        for at in [0, 8].into_iter().chain(stated) {
            // The lowest byte of the version says whether it is a release.
            for byte in 1..3 {
                let changes = BTreeMap::from([(known.layout.symbols.runtime + at + byte, 0xff)]);
                assert!(check(known.image, &changes).is_err(), "word at {at}");
            }
        }
    }
}

/// Every type, flag and key on the way of every path, with single bits and whole bytes changed.
#[test]
fn a_value_behind_a_flipped_guard_is_right_or_absent() {
    let mut tried = 0;
    for known in known() {
        for (case, guards) in known.cases.list.iter().zip(&known.guards) {
            for at in guards {
                for bits in [1 << (at % 8), 0x10, 0xff] {
                    let changes = BTreeMap::from([(*at, bits)]);
                    let memory = Corrupt {
                        image: known.image,
                        changes: &changes,
                    };
                    tried += 1;
                    for got in case.run(&known.cases.call, &memory, &known.layout.kernel) {
                        assert!(
                            got == case.expected
                                || matches!(got, Got::Absent(_))
                                || known.is_refused_or_another_type(&changes),
                            "{} {}: {got:?} with {changes:x?}",
                            known.image.version(),
                            case.path
                        );
                    }
                }
            }
        }
    }
    assert!(tried > 50_000, "{tried}");
}

/// Up to six bytes, taken from those at hand in one way or another.
fn changes() -> impl Strategy<Value = Vec<(bool, Index, u8)>> {
    proptest::collection::vec((any::<bool>(), any::<Index>(), 1..=255u8), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_path_over_wrong_bytes_gives_the_value_or_none(image: Index, case: Index, changes in changes()) {
        let known = image.get(known());
        let number = case.index(known.cases.list.len());
        let case = &known.cases.list[number];
        let changes: BTreeMap<u64, u8> = changes
            .into_iter()
            .map(|(near, at, bits)| {
                let near = near && !known.read[number].is_empty();
                (*at.get(if near { &known.read[number] } else { &known.bytes }), bits)
            })
            .collect();
        let memory = Corrupt { image: known.image, changes: &changes };
        let touched = |at: &u64| known.read[number].binary_search(at).is_ok();
        let own = |at: &u64| touched(at) && !known.guards[number].contains(at);
        for got in case.run(&known.cases.call, &memory, &known.layout.kernel) {
            if got == case.expected || known.is_refused_or_another_type(&changes) {
                continue;
            }
            prop_assert!(changes.keys().any(touched), "{}: {got:?}, and nothing that is read was changed", case.path);
            prop_assert!(matches!(got, Got::Absent(_)) || changes.keys().any(own), "{}: {got:?}", case.path);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn a_layout_over_wrong_bytes_is_refused_or_the_same(image: Index, changes in changes()) {
        let known = image.get(known());
        let changes: BTreeMap<u64, u8> =
            changes.into_iter().map(|(_, at, bits)| (*at.get(&known.checked), bits)).collect();
        if let Ok(layout) = check(known.image, &changes) {
            let mut kernel = layout.kernel;
            // Without it lengths of deques are absent.
            if kernel.type_deque == 0 {
                kernel.type_deque = known.layout.kernel.type_deque;
            }
            prop_assert_eq!(kernel, known.layout.kernel);
            prop_assert_eq!(layout.interpreter, known.layout.interpreter);
            prop_assert_eq!(layout.default_vectorcall, known.layout.default_vectorcall);
            prop_assert_eq!(layout.version.minor, known.layout.version.minor);
        }
    }

    /// From the check of the layout to the values.
    #[test]
    fn whole_passes_over_wrong_bytes_end(image: Index, changes in changes()) {
        let known = image.get(known());
        let changes: BTreeMap<u64, u8> = changes
            .into_iter()
            .map(|(near, at, bits)| (*at.get(if near { &known.checked } else { &known.bytes }), bits))
            .collect();
        let memory = Corrupt { image: known.image, changes: &changes };
        let Ok(layout) = check(known.image, &changes) else { return Ok(()) };
        let Ok(cases) = Cases::attempt(&memory, &layout, &known.image.head.facts) else { return Ok(()) };
        let led = changes.keys().any(|at| known.compiled.contains(at));
        for case in &cases.list {
            for got in case.run(&cases.call, &memory, &layout.kernel) {
                let number = known.cases.list.iter().position(|own| own.path == case.path).unwrap();
                let read = changes.keys().any(|at| known.read[number].binary_search(at).is_ok());
                prop_assert!(got == case.expected || matches!(got, Got::Absent(_)) || read || led, "{}: {got:?}", case.path);
            }
        }
    }
}
