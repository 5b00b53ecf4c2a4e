//! The `profilemate` command.
fn main() {}
