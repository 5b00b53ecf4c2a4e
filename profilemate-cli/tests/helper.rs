//! The Python helper with the real page: its own tests, run on the code that the tracer would give it.

mod python_target;

use std::path::Path;
use std::process::Command;

use profilemate::touch;

#[test]
fn the_helpers_tests_pass_on_the_tracers_page() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.bin");
    std::fs::write(&page, touch::page_code().unwrap()).unwrap();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../python/tests");
    let mut ran = 0;
    let minors = ["3.11", "3.12", "3.14"];
    let pythons = python_target::pythons().into_iter().filter(|python| {
        let path = python.to_string_lossy();
        let is_of = |minor| {
            path.contains(&format!("/{minor}.")) || path.ends_with(&format!("python{minor}"))
        };
        minors.into_iter().any(is_of)
    });
    for python in pythons {
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
        println!("skipped: no Python 3.11, 3.12 or 3.14 on this machine");
    }
}
