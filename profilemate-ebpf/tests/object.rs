//! The committed objects: fresh, complete, and nothing more. Needs no privileges and no eBPF toolchain.
#![expect(clippy::unwrap_used, reason = "this is a test")]

use aya_obj::Object;
use profilemate_ebpf::{MAPS, OBJECT, PROGRAM_NAMES};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

const ADVICE: &str = "run `cargo xtask bpf build` and commit profilemate-ebpf/object";

/// The repository; nothing if this is the published crate.
fn root() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    if !root.join("profilemate-common/src").is_dir() {
        println!("skipped: the sources are not here");
        return None;
    }
    Some(root.to_owned())
}

fn files(root: &Path, folder: &str, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(root.join(folder)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name == "tests" || name == "tests.rs" {
            continue;
        }
        let path = format!("{folder}/{name}");
        if entry.file_type().unwrap().is_dir() {
            files(root, &path, found);
        } else {
            found.insert(path);
        }
    }
}

#[test]
fn the_objects_are_as_new_as_their_sources() {
    let Some(root) = root() else {
        return;
    };
    let mut listed = BTreeSet::new();
    for line in profilemate_ebpf::OBJECT_SHA256.lines() {
        let (sum, file) = line.split_once("  ").unwrap();
        let bytes =
            fs::read(root.join(file)).unwrap_or_else(|_| panic!("`{file}` is gone; {ADVICE}"));
        let mut now = String::new();
        for byte in Sha256::digest(bytes) {
            write!(now, "{byte:02x}").unwrap();
        }
        assert_eq!(
            now, sum,
            "`{file}` changed after the object was built; {ADVICE}"
        );
        listed.insert(file.to_owned());
    }
    let mut present = BTreeSet::new();
    for folder in ["profilemate-common/src", "profilemate-ebpf/src"] {
        files(&root, folder, &mut present);
    }
    let new: Vec<&String> = present.difference(&listed).collect();
    assert!(
        new.is_empty(),
        "{new:?} came after the object was built; {ADVICE}"
    );
}

#[test]
fn the_locked_dependencies_are_those_of_the_objects() {
    let Some(root) = root() else {
        return;
    };
    let lock = fs::read_to_string(root.join("Cargo.lock")).unwrap();
    let dependencies =
        fs::read_to_string(root.join("profilemate-ebpf/object/DEPENDENCIES")).unwrap();
    assert!(dependencies.lines().count() > 3);
    for line in dependencies.lines() {
        let (name, version) = line.split_once(' ').unwrap();
        let entry = format!("name = \"{name}\"\nversion = \"{version}\"\n");
        assert!(
            lock.contains(&entry),
            "`{line}` is not in Cargo.lock; {ADVICE}"
        );
    }
}

#[test]
fn every_program_and_map_is_there() {
    let object = Object::parse(OBJECT).unwrap();
    let programs: BTreeSet<&str> = object.programs.keys().map(String::as_str).collect();
    assert_eq!(programs, BTreeSet::from(PROGRAM_NAMES));
    let maps: BTreeSet<&str> = object.maps.keys().map(String::as_str).collect();
    assert_eq!(maps, BTreeSet::from(MAPS));
    assert_eq!(object.license.to_str().unwrap(), "Dual MIT/GPL");
}

#[test]
fn an_object_carries_no_paths_and_no_panics() {
    let Some(root) = root() else {
        return;
    };
    for arch in ["x86_64", "aarch64"] {
        let bytes =
            fs::read(root.join(format!("profilemate-ebpf/object/profilemate.{arch}.o"))).unwrap();
        assert!(Object::parse(&bytes).is_ok());
        for word in ["/src/", ".rs", "panicked", ".debug", ".BTF"] {
            let found = bytes
                .windows(word.len())
                .any(|window| window == word.as_bytes());
            assert!(!found, "the object for {arch} contains `{word}`");
        }
    }
}
