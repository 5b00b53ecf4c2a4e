//! The report in words and as JSON.

use std::fmt::Write as _;

use serde_json::json;

use super::{Line, Mark, Report};

/// Columns of the names.
const NAME: usize = 20;

pub(super) fn text(report: &Report, colour: bool) -> String {
    let mut out = String::new();
    for section in report
        .sections
        .iter()
        .filter(|section| !section.lines.is_empty())
    {
        let _ = writeln!(out, "{}", section.title);
        for line in &section.lines {
            line_text(&mut out, line, colour);
        }
        out.push('\n');
    }
    out.push_str(&report.verdict());
    out
}

fn line_text(out: &mut String, line: &Line, colour: bool) {
    let word = format!("{:<4}", line.mark.word());
    let mark = if colour {
        let code = match line.mark {
            Mark::Good => "32",
            Mark::Fact => "2",
            Mark::Warn => "33",
            Mark::Bad(_) => "31;1",
        };
        format!("\x1b[{code}m{word}\x1b[0m")
    } else {
        word
    };
    let needed = if line.needed.is_empty() {
        String::new()
    } else {
        format!("  (needed: {})", line.needed)
    };
    let _ = writeln!(out, "  {mark}  {:<NAME$} {}{needed}", line.name, line.found);
    if let Some(todo) = &line.todo {
        let _ = writeln!(out, "        {:NAME$} -> {todo}", "");
    }
}

pub(super) fn json(report: &Report) -> serde_json::Value {
    let sections: Vec<_> = report
        .sections
        .iter()
        .map(|section| {
            let lines: Vec<_> = section
                .lines
                .iter()
                .map(|line| {
                    json!({
                        "name": line.name, "mark": line.mark.word(), "found": line.found,
                        "needed": (!line.needed.is_empty()).then_some(&line.needed), "todo": line.todo,
                    })
                })
                .collect();
            json!({ "title": section.title, "pid": section.pid, "traced": section.traced, "lines": lines })
        })
        .collect();
    json!({
        "tool_version": env!("CARGO_PKG_VERSION"),
        "verdict": report.verdict(),
        "exit_code": report.exit().code(),
        "sections": sections,
        "plan": report.plan.as_ref().map(crate::plan::Plan::json),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Exit;
    use crate::doctor::Section;

    fn report() -> Report {
        Report {
            sections: vec![Section {
                title: "host".into(),
                pid: None,
                traced: None,
                lines: vec![
                    Line::new("kernel", Mark::Good, "Linux 6.18").needs("5.15 or newer"),
                    Line::new("CAP_BPF", Mark::Bad(Exit::Forbidden), "no").todo("run with `sudo`"),
                ],
            }],
            plan: None,
        }
    }

    #[test]
    fn each_line_has_its_mark_what_was_found_what_is_needed_and_what_to_do() {
        let text = text(&report(), false);
        assert_eq!(
            text,
            "host\n  ok    kernel               Linux 6.18  (needed: 5.15 or newer)\n  fail  CAP_BPF              no\n\
             \x20                            -> run with `sudo`\n\na trace would not work (exit code 6)"
        );
    }

    #[test]
    fn colour_only_adds_escapes() {
        let coloured = text(&report(), true);
        assert!(coloured.contains("\x1b[31;1mfail\x1b[0m"));
        let plain = text(&report(), false);
        assert!(!plain.contains('\x1b'));
    }

    #[test]
    fn json_says_the_same() {
        let document = json(&report());
        assert_eq!(document["exit_code"], 6);
        assert_eq!(document["sections"][0]["lines"][1]["mark"], "fail");
        assert_eq!(
            document["sections"][0]["lines"][0]["needed"],
            "5.15 or newer"
        );
    }
}
