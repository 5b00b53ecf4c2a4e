//! The Python helper with the real page: its own tests, run on the code that the tracer would give it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use profilemate::touch;

/// Pythons of one minor version that are on this machine.
fn pythons(minor: &str) -> Vec<PathBuf> {
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    let versions = std::fs::read_dir(home.join(".pyenv/versions"))
        .into_iter()
        .flatten()
        .flatten();
    let mut found: Vec<PathBuf> = versions
        .filter(|version| {
            version
                .file_name()
                .to_string_lossy()
                .starts_with(&format!("{minor}."))
        })
        .map(|version| version.path().join("bin/python3"))
        .collect();
    found.push(format!("/usr/bin/python{minor}").into());
    found.retain(|path| path.exists());
    found
}

#[test]
fn the_helpers_tests_pass_on_the_tracers_page() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.bin");
    std::fs::write(&page, touch::page_code().unwrap()).unwrap();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../python/tests");
    let mut ran = 0;
    for python in ["3.11", "3.12"].into_iter().flat_map(pythons) {
        let output = Command::new(&python)
            .args([
                "-B",
                "-m",
                "unittest",
                "test_helper_calls",
                "test_helper_import",
            ])
            .current_dir(&tests)
            .env("PROFILEMATE_TEST_PAGE", &page)
            .env("PROFILEMATE_TEST_STUBS", touch::method_stub(0).to_string())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}:\n{said}", python.display());
        assert!(!said.contains("skipped="), "{}:\n{said}", python.display());
        ran += 1;
    }
    if ran == 0 {
        println!("skipped: no Python 3.11 or 3.12 on this machine");
    }
}
