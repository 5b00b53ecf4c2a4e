//! The readers over made-up memory: recorded dictionaries and strings byte by byte, and bytes that mean nothing.

use std::collections::BTreeMap;

use bytemuck::Pod;
use profilemate_common::memory::Memory;
use profilemate_common::python::{FLAG_DICT, FLAG_STR, FLAG_TUPLE, TYPE_FLAGS};
use proptest::prelude::*;

use super::Objects;
use crate::target::python::identify::{Interpreter, Version};
use crate::target::python::layout::{Layout, offsets, validate};
use crate::target::python::memory::{ReadBytes, Snapshot, plausible};
use crate::target::python::resolve::Resolver;
use crate::target::python::symbols::Symbols;
use crate::target::python::{Compiler, Function, Interned};

/// Memory made of a few blocks.
#[derive(Default)]
struct Blocks(BTreeMap<u64, Vec<u8>>);

impl Blocks {
    fn words(&mut self, address: u64, words: &[u64]) {
        self.0.insert(address, bytemuck::cast_slice(words).to_vec());
    }
}

impl ReadBytes for Blocks {
    fn read_bytes(&self, address: u64, into: &mut [u8]) -> bool {
        let Some((start, bytes)) = self.0.range(..=address).next_back() else {
            return false;
        };
        let from = (address - start) as usize;
        let Some(found) = bytes.get(from..from.saturating_add(into.len())) else {
            return false;
        };
        into.copy_from_slice(found);
        true
    }
}

impl Memory for Blocks {
    fn read<T: Pod>(&self, address: u64) -> Option<T> {
        let mut value = T::zeroed();
        self.read_bytes(address, bytemuck::bytes_of_mut(&mut value))
            .then_some(value)
    }
}

const STR: u64 = 0x1_0000;
const DICT: u64 = 0x1_1000;
const TUPLE: u64 = 0x1_2000;

fn symbols() -> Symbols {
    Symbols {
        type_str: STR,
        type_dict: DICT,
        type_tuple: TUPLE,
        type_type: 0x1_3000,
        runtime: 0x2_0000,
        ..Symbols::default()
    }
}

fn layout(minor: u8) -> Layout {
    Layout::unchecked(
        offsets(minor).unwrap(),
        Version {
            minor,
            patch: Some(0),
        },
        symbols(),
    )
}

fn types(memory: &mut Blocks) {
    for (class, flags) in [(STR, FLAG_STR), (DICT, FLAG_DICT), (TUPLE, FLAG_TUPLE)] {
        let mut words = [0u64; 44];
        words[21] = flags;
        memory.words(class, &words);
    }
}

/// An interned ASCII string as 3.12 keeps it.
fn string(memory: &mut Blocks, address: u64, text: &str) {
    let mut words = vec![1, STR, text.len() as u64, u64::MAX, 0b110_0101];
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(text.len() / 8 * 8 + 8, 0);
    words.extend(
        bytes
            .chunks(8)
            .map(|word| u64::from_ne_bytes(word.try_into().unwrap())),
    );
    memory.words(address, &words);
}

/// A dictionary of 3.12 with the keys at the given address and kind, eight slots and three entries.
fn dict(kind: u8, values: u64) -> Blocks {
    let mut memory = Blocks::default();
    types(&mut memory);
    for (index, text) in ["alpha", "beta", "gamma"].into_iter().enumerate() {
        string(&mut memory, 0x3_0000 + 0x100 * index as u64, text);
    }
    memory.words(0x4_0000, &[1, DICT, 3, 0, 0x5_0000, values]);
    let head = u64::from_ne_bytes([3, 3, kind, 0, 0, 0, 0, 0]);
    let mut keys = vec![1, head, 2, 3, u64::MAX];
    for index in 0..3 {
        if kind == 0 {
            keys.push(0x77);
        }
        keys.push(0x3_0000 + 0x100 * index);
        keys.push(if values == 0 { 0x9_0000 + index } else { 0 });
    }
    memory.words(0x5_0000, &keys);
    memory
}

#[test]
fn dictionaries_of_every_kind() {
    for (kind, values) in [(0, 0), (1, 0), (2, 0x6_0000)] {
        let mut memory = dict(kind, values);
        memory.words(0x6_0000, &[0x9_0000, 0x9_0001, 0]);
        let layout = layout(12);
        let objects = Objects::new(&memory, &layout);
        let count = if kind == 2 { 2 } else { 3 };
        assert_eq!(
            objects.dict_entries(0x4_0000).map(|entries| entries.len()),
            Some(count),
            "kind {kind}"
        );
        assert_eq!(objects.dict_value(0x4_0000, "beta"), Some(0x9_0001));
        assert_eq!(
            objects
                .dict_lookup(0x4_0000, "gamma")
                .map(|found| found.is_some()),
            Some(kind != 2),
            "unset values are no items"
        );
        assert_eq!(objects.dict_lookup(0x4_0000, "delta"), Some(None));
    }
}

#[test]
fn old_dictionaries() {
    let mut memory = dict(0, 0);
    // 3.10: size, lookup function, usable, entries, indices.
    let mut keys = vec![1, 8, 0x1234_5678, 2, 3, u64::MAX];
    for index in 0..3 {
        keys.extend([0x77, 0x3_0000 + 0x100 * index, 0x9_0000 + index]);
    }
    memory.words(0x5_0000, &keys);
    for index in 0..3u64 {
        // Strings of 3.10 begin their characters eight bytes later.
        let words = memory.read::<[u64; 6]>(0x3_0000 + 0x100 * index).unwrap();
        memory.words(
            0x3_0000 + 0x100 * index,
            &[
                words[0],
                words[1],
                words[2],
                words[3],
                0b1110_0101,
                0,
                words[5],
            ],
        );
    }
    let layout = layout(10);
    let objects = Objects::new(&memory, &layout);
    assert_eq!(
        objects.dict_entries(0x4_0000).map(|entries| entries.len()),
        Some(3)
    );
    assert_eq!(objects.dict_value(0x4_0000, "gamma"), Some(0x9_0002));
}

#[test]
fn lies_about_sizes_are_not_believed() {
    for (word, value) in [
        (3, u64::MAX),
        (3, 1 << 40),
        (3, 9),
        (1, 0x00ff_ffff),
        (1, 0x0001_0403),
    ] {
        let mut memory = dict(1, 0);
        let mut keys = memory.read::<[u64; 11]>(0x5_0000).unwrap();
        keys[word] = value;
        memory.words(0x5_0000, &keys);
        let layout = layout(12);
        let objects = Objects::new(&memory, &layout);
        assert_eq!(
            objects.dict_entries(0x4_0000),
            None,
            "word {word} {value:#x}"
        );
    }
    let mut memory = Blocks::default();
    types(&mut memory);
    for length in [u64::MAX, 1 << 62, 5000] {
        memory.words(0x7_0000, &[1, STR, length, 0, 0b110_0101, 0x41]);
        memory.words(0x8_0000, &[1, TUPLE, length, 0x41]);
        let layout = layout(12);
        let objects = Objects::new(&memory, &layout);
        assert_eq!(objects.text(0x7_0000), None);
        assert!(!objects.is_text(0x7_0000, "A"));
        assert_eq!(objects.tuple(0x8_0000, 100), None);
    }
}

/// Memory in which every address holds something, and many words are pointers to such memory.
struct Noise {
    seed: u64,
    /// One word in so many is a small number instead of a pointer.
    numbers: u64,
}

impl Noise {
    fn word(&self, address: u64) -> u64 {
        // The types say that they are everything at once, or hardly any reader would get further.
        if (STR..STR + 0x4000).contains(&address) && address & 0xfff == TYPE_FLAGS {
            return u64::MAX;
        }
        let mut x = (address ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x ^= x >> 29;
        x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x ^= x >> 32;
        match x % self.numbers {
            0 => x >> 60,
            1 => x,
            // Now and then one of the built-in types.
            2..=4 => STR + 0x1000 * (x >> 62),
            _ => 0x10_0000 + (x >> 44) * 8,
        }
    }
}

impl ReadBytes for Noise {
    fn read_bytes(&self, address: u64, into: &mut [u8]) -> bool {
        if !plausible(address, into.len()) {
            return false;
        }
        for (byte, at) in into.iter_mut().zip(address..) {
            *byte = self.word(at & !7).to_ne_bytes()[(at & 7) as usize];
        }
        true
    }
}

impl Memory for Noise {
    fn read<T: Pod>(&self, address: u64) -> Option<T> {
        let mut value = T::zeroed();
        self.read_bytes(address, bytemuck::bytes_of_mut(&mut value))
            .then_some(value)
    }
}

fn function() -> Function {
    let resolver_needs = (0x10_0000, 0x10_0008);
    Function {
        module: "a.b".into(),
        qualname: "C.m".into(),
        address: resolver_needs.0,
        code: resolver_needs.1,
        vectorcall_address: 0,
        vectorcall_value: 0,
        version_address: None,
        version_value: 0,
        version_cache_slot: None,
        arguments: vec![("self".into(), 0x10_0000)],
        argcount: 1,
        varargs: true,
        flags: 0,
        filename: String::new(),
        firstlineno: 0,
        is_generator: false,
        binding: crate::target::python::Binding::Method,
        class: Some(0x10_0040),
        owner: None,
        globals: 0x10_0080,
        closure: Some(0x10_00c0),
        wrapped: false,
        wrapped_arguments: Vec::new(),
        wrapped_argcount: 9,
        innermost: 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever the bytes, every reader ends, within the bound on reads, and does not panic.
    #[test]
    fn noise_is_harmless(seed: u64, numbers in 3u64..12, minor in 10u8..=14, address in 0x10_0000u64..0x90_0000, anywhere: u64) {
        let noise = Noise { seed, numbers };
        let snapshot = Snapshot::with_reads(&noise, 50_000);
        let layout = layout(minor);
        let objects = Objects::new(&snapshot, &layout);
        for object in [address & !7, address, anywhere, 0, u64::MAX] {
            let _ = (objects.text(object), objects.is_text(object, "abc"), objects.int(object), objects.is_interned(object));
            let _ = (objects.dict_entries(object), objects.dict_value(object, "abc"), objects.tuple(object, 1000), objects.list(object, 1000));
            let _ = (objects.mro(object), objects.class_attribute(object, "abc"), objects.shared_key_index(object, "abc"));
            let _ = (objects.function(object), objects.code(object), objects.code_names(object), objects.inner_code(object));
            let _ = (objects.free_variables(object), objects.member_offset(object, object, "abc"), objects.module_dict(object));
            let _ = (objects.keys(object).map(|keys| objects.key_entries(&keys)), objects.type_name_of(object), objects.c_string(object));
        }
    }

    /// The same for whole passes: check, resolve, harvest, compile.
    #[test]
    fn noise_is_never_taken_for_an_interpreter(seed: u64, numbers in 3u64..12, minor in 10u8..=14) {
        let noise = Noise { seed, numbers };
        let version = Version { minor, patch: Some(0) };
        let interpreter = Interpreter { pid: 1, version, path: String::new(), build_id: None, text: Vec::new(), data: vec![0x20_0000..0x21_0000, 0x22_0000..0x30_0000], symbols: symbols() };
        prop_assert!(validate(&interpreter, &noise).is_err());
        let resolver = Resolver::new(&noise, &layout(minor));
        prop_assert!(resolver.resolve("vllm.v1.core.sched.scheduler", "Scheduler.schedule").is_err());
        let _ = (resolver.imported(&["os", "sys"]), resolver.package_version("vllm"), resolver.module_names());
        let interned = Interned::new(&resolver);
        let _ = interned.find("abc", "os");
        let function = function();
        let compiler = Compiler::new(&interned, &function).class_of("ret", "os:path");
        for path in ["self.abc", "ret.abc[*].d:strs", "global.x", "closure.y", "os::z", "arg.7['k']"] {
            let _ = compiler.compile(path);
        }
    }
}
