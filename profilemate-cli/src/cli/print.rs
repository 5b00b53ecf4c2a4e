//! What is shown: on stdout only what was asked for, everything else on stderr.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is the room that prints"
)]

use std::io::Write as _;

use super::Failure;

/// Starts the log on stderr: warnings; with `-v` what is done; with `-vv` every decision.
pub(super) fn start_log(verbose: u8) {
    let level = match verbose {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Info,
        _ => log::LevelFilter::Debug,
    };
    env_logger::Builder::new()
        .filter_module("profilemate", level)
        .format(|buffer, record| {
            writeln!(
                buffer,
                "{}: {}",
                record.level().as_str().to_ascii_lowercase(),
                record.args()
            )
        })
        .init();
}

/// Whether to use colours where `terminal` says that one is written to: <https://no-color.org>.
pub(super) fn colour(terminal: bool) -> bool {
    let asked_not = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    terminal && !asked_not && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// The version; `long` also names the embedded eBPF object.
pub(super) fn version(long: bool) {
    println!("profilemate {}", env!("CARGO_PKG_VERSION"));
    if long {
        let object = format!("profilemate.{}.o", std::env::consts::ARCH);
        let hash = profilemate_ebpf::OBJECT_SHA256
            .lines()
            .find(|line| line.ends_with(&object))
            .unwrap_or("unknown");
        println!(
            "ebpf object: sha256 {hash} ({} bytes)",
            profilemate_ebpf::OBJECT.len()
        );
        for line in profilemate_ebpf::TOOLCHAIN.lines() {
            println!("built with: {line}");
        }
    }
}

/// A failure, on stderr.
pub(super) fn failure(failure: &Failure) {
    eprintln!("{failure}");
}

/// Data, on stdout. A closed pipe is no error.
pub(super) fn data(text: &str) {
    let _closed = writeln!(std::io::stdout(), "{text}");
}

/// A line for the person at the terminal.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}
