//! A check's report in words.

use std::fmt::Write as _;

use super::{Answer, MethodReport, Report};

/// The report in words: what is missing, what cannot be told, and the numbers; with `all` also what was found.
pub fn text(report: &Report, all: bool) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "vLLM {} ({})", report.vllm, report.source);
    if !report.in_range {
        let _ = writeln!(
            out,
            "  the catalogue was not written for {}",
            report.release
        );
    }
    let answers = [
        (Answer::NotFound, "not found"),
        (Answer::CannotBeTold, "cannot be told from the sources"),
        (Answer::Found, "found"),
    ];
    for (answer, title) in answers {
        if answer == Answer::Found && !all {
            continue;
        }
        let mut lines = String::new();
        for method in &report.methods {
            method_text(&mut lines, method, answer);
        }
        if !lines.is_empty() {
            let _ = writeln!(out, "\n{title}:\n{}", lines.trim_end());
        }
    }
    if !report.beyond_range.is_empty() {
        let _ = writeln!(
            out,
            "\nthere, though the catalogue's version range leaves it out:"
        );
        for method in &report.beyond_range {
            let _ = writeln!(
                out,
                "  {}:{} ({})",
                method.module, method.qualname, method.versions
            );
        }
    }
    let totals = report.totals;
    let _ = writeln!(
        out,
        "\n{} methods: of these, their classes and fields {} found, {} not found, {} cannot be told from the sources",
        report.methods.len(),
        totals.found,
        totals.not_found,
        totals.cannot_be_told
    );
    out
}

fn method_text(out: &mut String, method: &MethodReport, answer: Answer) {
    let parts: Vec<_> = method
        .classes
        .iter()
        .chain(&method.fields)
        .filter(|part| part.told.answer == answer)
        .collect();
    let own = method.told.answer == answer;
    if parts.is_empty() && !own {
        return;
    }
    let _ = write!(out, "  {} {}:{}", method.id, method.module, method.qualname);
    if own && !method.told.detail.is_empty() {
        let _ = write!(out, ": {}", method.told.detail);
    }
    if own && !method.decorators.is_empty() {
        let _ = write!(out, " (decorated: {})", method.decorators.join(", "));
    }
    let _ = writeln!(out);
    for part in parts {
        let _ = write!(out, "      {} = {}", part.name, part.path);
        if !part.told.detail.is_empty() {
            let _ = write!(out, ": {}", part.told.detail);
        }
        let _ = writeln!(out);
    }
}
