//! Tests that need root.

/// Whether the test can run here. Prints why not, and fails if it was required.
pub(crate) fn is_root() -> bool {
    // SAFETY: the call takes nothing and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        assert!(
            std::env::var_os("PROFILEMATE_REQUIRE_ROOT").is_none(),
            "root is required"
        );
        println!("skipped: needs root");
    }
    root
}
