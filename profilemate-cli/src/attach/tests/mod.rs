//! Tests on the running kernel and on real interpreters.

mod cases;
mod containers;
mod kernel;
mod layouts;
mod mark;
mod objects;
mod python;

/// Whether this is root; if not, says that the test is skipped, or fails if the environment demands root.
fn root() -> bool {
    // SAFETY: no preconditions.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        assert!(
            std::env::var_os("PROFILEMATE_REQUIRE_ROOT").is_none(),
            "this test needs root, which is required"
        );
        println!("skipped: needs root");
    }
    root
}
