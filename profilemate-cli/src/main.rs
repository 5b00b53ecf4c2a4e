//! The `profilemate` command.

fn main() -> std::process::ExitCode {
    profilemate::cli::main()
}
