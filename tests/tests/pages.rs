//! Completions, manual pages and help, as the programs that read them see them.

use std::process::{Command, Stdio};

use profilemate_tests::binary;

fn profilemate(arguments: &[&str]) -> String {
    let output = Command::new(binary())
        .args(arguments)
        .output()
        .expect("profilemate runs");
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Runs a program with `input`; `None`, with a printed line, if it is not installed.
fn through(program: &str, arguments: &[&str], input: &str) -> Option<String> {
    use std::io::Write as _;
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        println!("skipped: no {program} on this machine");
        return None;
    };
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("input is taken");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && complaint.is_empty(),
        "{program}: {complaint}"
    );
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn bash_completes_commands_options_and_tables_of_choices() {
    let script = profilemate(&["completions", "bash"]);
    let ask = |words: &str, count: usize| {
        let line = format!(
            "{script}\nCOMP_WORDS=({words}); COMP_CWORD={count}; \
             _profilemate profilemate \"${{COMP_WORDS[$COMP_CWORD]}}\" \"${{COMP_WORDS[$((COMP_CWORD-1))]}}\"; \
             echo \"${{COMPREPLY[@]}}\"\n"
        );
        through("bash", &["--norc"], &line)
    };
    let Some(commands) = ask("profilemate d", 1) else {
        return;
    };
    for command in ["demo", "detach", "doctor"] {
        assert!(commands.contains(command), "{commands}");
    }
    let options = ask("profilemate doctor --", 2).unwrap();
    assert!(
        options.contains("--pid") && options.contains("--json"),
        "{options}"
    );
    let touch = ask("profilemate trace --touch p", 3).unwrap();
    assert_eq!(touch.trim(), "probes");
}

#[test]
fn zsh_and_fish_read_their_scripts() {
    through("zsh", &["-n"], &profilemate(&["completions", "zsh"]));
    through(
        "fish",
        &["--no-execute"],
        &profilemate(&["completions", "fish"]),
    );
    assert!(profilemate(&["completions", "zsh"]).starts_with("#compdef profilemate"));
    assert!(profilemate(&["completions", "fish"]).contains("__fish_profilemate"));
}

#[test]
fn the_manual_pages_are_set_without_a_warning_and_have_the_examples() {
    for arguments in [&["man"][..], &["man", "trace"], &["man", "doctor"]] {
        let page = profilemate(arguments);
        let Some(text) = through("groff", &["-man", "-Tascii", "-ww", "-P-cbou"], &page) else {
            assert!(page.contains(".SH NAME"));
            continue;
        };
        assert!(
            text.contains("NAME") && text.contains("sudo profilemate"),
            "{text}"
        );
    }
}

#[test]
fn no_colour_is_written_where_it_is_not_wanted() {
    // clap colours its help, and `doctor` its marks, only on a terminal; `script` makes one.
    let shown = |environment: &str| {
        let command = format!("{environment} {} --help", binary().display());
        let output = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .output();
        if output.is_err() {
            println!("skipped: no script(1) on this machine");
        }
        Some(String::from_utf8_lossy(&output.ok()?.stdout).into_owned())
    };
    let Some(coloured) = shown("TERM=xterm-256color") else {
        return;
    };
    assert!(coloured.contains('\x1b'), "{coloured}");
    let plain = shown("TERM=xterm-256color NO_COLOR=1").unwrap();
    assert!(!plain.contains("\x1b[3"), "{plain}");
    assert!(plain.contains("Examples:"), "{plain}");
}
