//! Every version's image: the layout holds, and every path gives what the process said.

use std::collections::BTreeSet;

use super::case::Cases;
use super::images;
use crate::target::python::identify::Version;
use crate::target::python::layout::validate;

#[test]
fn every_version_has_an_image() {
    let minors: Vec<_> = images()
        .iter()
        .map(|image| image.head.interpreter.version.minor)
        .collect();
    assert_eq!(minors, [10, 11, 12, 13, 14]);
    let paths: BTreeSet<Vec<_>> = images()
        .iter()
        .map(|image| {
            let cases = image.head.facts["cases"].as_array().unwrap().iter();
            cases.map(|case| case["path"].as_str().unwrap()).collect()
        })
        .collect();
    assert_eq!(paths.len(), 1, "all images are of the same target.py");
    assert!(paths.first().is_some_and(|paths| paths.len() > 100));
}

#[test]
fn layouts_hold() {
    for image in images() {
        let layout = validate(&image.head.interpreter, image)
            .unwrap_or_else(|error| panic!("{}: {error}", image.version()));
        assert_eq!(layout.version.to_string(), image.version());
        assert_eq!(u64::from(layout.hexversion), image.fact("hexversion"));
        assert_eq!(layout.kernel.type_deque, image.fact("deque"));
        assert!(layout.hash.is_some() && layout.interned.is_some());
        assert_eq!(layout.honours_vectorcall(), layout.version.minor != 11);
    }
}

#[test]
fn paths_give_what_the_interpreter_says() {
    for image in images() {
        let layout = validate(&image.head.interpreter, image).unwrap();
        let cases = Cases::compile(image, &layout, &image.head.facts);
        for case in &cases.list {
            for got in case.run(&cases.call, image, &layout.kernel) {
                assert_eq!(got, case.expected, "{} {}", image.version(), case.path);
            }
        }
    }
}

/// The table of one version never passes for another.
#[test]
fn another_versions_layout_is_refused() {
    for image in images() {
        let own = image.head.interpreter.version.minor;
        for minor in (9..=15).filter(|minor| *minor != own) {
            let mut interpreter = image.head.interpreter.clone();
            interpreter.version = Version { minor, patch: None };
            assert!(
                validate(&interpreter, image).is_err(),
                "{} as 3.{minor}",
                image.version()
            );
        }
    }
}
