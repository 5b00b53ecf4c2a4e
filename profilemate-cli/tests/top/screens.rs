//! Screens that were looked at and kept.

/// Compares a screen with the one that is kept under `name`. `PROFILEMATE_BLESS=1` keeps it instead.
pub(crate) fn assert_same(name: &str, screen: &str) {
    let path = format!(
        "{}/tests/top/screens/{name}.txt",
        env!("CARGO_MANIFEST_DIR")
    );
    if std::env::var_os("PROFILEMATE_BLESS").is_some() {
        std::fs::write(&path, screen).expect("the screen is kept");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        screen, kept,
        "screen `{name}` differs from {path}; it is now\n{screen}"
    );
}
