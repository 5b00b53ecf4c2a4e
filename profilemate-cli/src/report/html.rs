//! What the page says in words: the session, the findings, the headings and summaries around the plots, the coverage.

use std::fmt::{Result, Write as _};

use super::page::{LIBRARY_LICENCE, LIBRARY_VERSION};
use super::plot::Plot;
use super::text::{count, html, thousands, words};
use super::{Report, Section};
use crate::explain::text::{BLIND, NOTHING, cost, when};
use crate::explain::{Evidence, Finding};
use crate::table::TABLES;

/// Processes that are listed, at most.
const PROCESSES: usize = 64;

/// Everything between the `body` tags, but the scripts.
pub(super) fn body(out: &mut String, report: &Report) -> Result {
    head(out, report)?;
    writeln!(out, "<main>")?;
    figures(out, report)?;
    findings(out, report)?;
    for part in &report.sections {
        section(out, report, part)?;
    }
    coverage(out, report)?;
    processes(out, report)?;
    writeln!(
        out,
        "<noscript><p class=\"note\">The plots need JavaScript; everything else on this page does not.</p></noscript>\n\
         </main>\n<footer><p>Made by ProfileMate {} with plotly.js {LIBRARY_VERSION}. The page needs no network and \
         calls nobody.</p>\n<details><summary>Licence of plotly.js</summary><pre>{}</pre></details></footer>",
        env!("CARGO_PKG_VERSION"),
        html(LIBRARY_LICENCE)
    )
}

fn head(out: &mut String, report: &Report) -> Result {
    let metadata = &report.metadata;
    let mut facts: Vec<String> = Vec::new();
    let versions = |of: fn(&crate::recorded::metadata::Process) -> Option<&String>| {
        let all: std::collections::BTreeSet<&String> =
            metadata.processes().iter().filter_map(of).collect();
        let all: Vec<&str> = all.into_iter().map(String::as_str).collect();
        all.join(", ")
    };
    let vllm = versions(|process| process.vllm.as_ref());
    let python = versions(|process| process.python.as_ref());
    if !vllm.is_empty() {
        facts.push(format!("vLLM {vllm}"));
    }
    if !python.is_empty() {
        facts.push(format!("Python {python}"));
    }
    facts.extend(metadata.host.as_ref().map(|host| format!("host {host}")));
    facts.extend(
        metadata
            .start_time
            .as_ref()
            .map(|start| format!("began {start}")),
    );
    if metadata.schema_version.is_some() && metadata.end_time.is_none() {
        facts.push("the tracer did not end it: it was killed, or still runs".to_owned());
    }
    let facts: Vec<String> = facts.iter().map(|fact| html(fact)).collect();
    writeln!(
        out,
        "<a class=\"skip\" href=\"#findings\">To the findings</a>\n<header>\n<div class=\"bar\"><h1>{}</h1>\
         <button id=\"theme\" type=\"button\" hidden>Dark</button></div>\n<p class=\"facts\">{}</p>\n<nav aria-label=\"Parts of the page\">\
         <a href=\"#findings\">Findings</a>",
        html(&report.name),
        facts.join(" · ")
    )?;
    for part in &report.sections {
        let class = if part.plots.is_empty() {
            " class=\"empty\""
        } else {
            ""
        };
        writeln!(
            out,
            "<a href=\"#{}\"{class}>{}</a>",
            part.id,
            html(part.title)
        )?;
    }
    writeln!(out, "<a href=\"#coverage\">Coverage</a></nav>\n</header>")
}

fn figures(out: &mut String, report: &Report) -> Result {
    writeln!(out, "<dl class=\"figures\">")?;
    for (name, value) in &report.figures {
        let lost = *name == "records lost" && value.as_deref().is_some_and(|value| value != "0");
        let class = match value {
            None => " class=\"unknown\"",
            Some(_) if lost => " class=\"bad\"",
            Some(_) => "",
        };
        let value = value.as_deref().unwrap_or("not observed");
        writeln!(
            out,
            "<div{class}><dt>{name}</dt><dd>{}</dd></div>",
            html(value)
        )?;
    }
    writeln!(out, "</dl>")
}

fn findings(out: &mut String, report: &Report) -> Result {
    let explanation = &report.explanation;
    writeln!(out, "<section id=\"findings\"><h2>Findings</h2>")?;
    if explanation.findings.is_empty() {
        let blind = explanation.nothing_wrong.is_empty();
        writeln!(out, "<p>{}.</p>", if blind { BLIND } else { NOTHING })?;
    }
    for one in &explanation.findings {
        finding(out, one)?;
    }
    if !explanation.nothing_wrong.is_empty() {
        let rules = explanation.nothing_wrong.join(", ");
        writeln!(
            out,
            "<p class=\"note\">Looked for and not seen: {}.</p>",
            html(&rules)
        )?;
    }
    if !explanation.not_judged.is_empty() {
        let rules = count(explanation.not_judged.len() as u64, "rule", "rules");
        writeln!(out, "<details><summary>Not judged: {rules}</summary><ul>")?;
        for one in &explanation.not_judged {
            writeln!(
                out,
                "<li><b>{}</b>: {}</li>",
                html(one.rule),
                words(&one.reason)
            )?;
        }
        writeln!(out, "</ul></details>")?;
    }
    for note in &explanation.notes {
        writeln!(out, "<p class=\"warn\">{}</p>", html(note))?;
    }
    writeln!(out, "</section>")
}

fn finding(out: &mut String, one: &Finding) -> Result {
    writeln!(
        out,
        "<article class=\"finding\"><h3>{}</h3>",
        words(&one.title)
    )?;
    writeln!(out, "<p><b>Costs</b> {}</p>\n<ul>", words(&cost(&one.cost)))?;
    for evidence in &one.evidence {
        writeln!(
            out,
            "<li>{} <span class=\"note\">({})</span></li>",
            words(&evidence.text),
            source(evidence)
        )?;
    }
    writeln!(out, "</ul>")?;
    for change in &one.changes {
        let value = change
            .value
            .as_ref()
            .map(|value| format!(" {value}"))
            .unwrap_or_default();
        writeln!(
            out,
            "<p class=\"change\"><code>{}{}</code> {}</p>",
            html(change.option),
            html(&value),
            words(&change.why)
        )?;
    }
    writeln!(out, "</article>")
}

fn source(evidence: &Evidence) -> String {
    let rows = count(evidence.rows, "row", "rows");
    html(&format!("{}.csv, {rows}{}", evidence.table, when(evidence)))
}

fn section(out: &mut String, report: &Report, section: &Section) -> Result {
    writeln!(
        out,
        "<section id=\"{}\"><div class=\"keep\"><h2>{}</h2>\n<p class=\"lead\">{}</p>",
        section.id,
        html(section.title),
        html(section.lead)
    )?;
    sources(out, report, section)?;
    // On paper a heading stays with its first plot.
    let mut plots = section.plots.iter();
    if let Some(first) = plots.next() {
        plot(out, first)?;
    }
    writeln!(out, "</div>")?;
    for one in plots {
        plot(out, one)?;
    }
    writeln!(out, "</section>")
}

/// What limits the section's tables: why one has no rows, or tells a part. Tables with the same reason stand together.
fn sources(out: &mut String, report: &Report, section: &Section) -> Result {
    let mut empty: Vec<(String, Vec<&str>)> = Vec::new();
    for table in section.tables {
        let rows = report.rows.get(table).copied().flatten().unwrap_or(0);
        if rows == 0 {
            let why = why_empty(report, table);
            match empty.iter_mut().find(|one| one.0 == why) {
                Some(one) => one.1.push(table),
                None => empty.push((why, vec![table])),
            }
            continue;
        }
        let coverage = report.metadata.coverage(table);
        if let Some(partial) = coverage.filter(|coverage| coverage.status == "partial") {
            let reason = words(&partial.reason);
            writeln!(
                out,
                "<p class=\"note\"><b>{table}</b> tells a part: {reason}</p>"
            )?;
        }
    }
    let class = if section.plots.is_empty() {
        "missing"
    } else {
        "note"
    };
    for (why, tables) in empty {
        let tables = tables.join(", ");
        writeln!(
            out,
            "<p class=\"{class}\"><b>{tables}</b>: {}</p>",
            words(&why)
        )?;
    }
    Ok(())
}

/// Why a table has no rows, as far as the session says.
fn why_empty(report: &Report, table: &str) -> String {
    let known = report.rows.get(table).copied().flatten();
    let coverage = report.metadata.coverage(table);
    let said = coverage.map(|coverage| (coverage.status.as_str(), coverage.reason.as_str()));
    match (known, said) {
        (None, _) => "the session has no such file.".to_owned(),
        (Some(_), Some(("observed", ""))) => "observed, and nothing happened.".to_owned(),
        (Some(_), Some((status, ""))) => {
            format!("{} (no reason is given).", status.replace('_', " "))
        }
        (Some(_), Some((status, reason))) => format!("{}: {reason}.", status.replace('_', " ")),
        (Some(_), None) => "no rows, and metadata.json does not say why.".to_owned(),
    }
}

fn plot(out: &mut String, plot: &Plot) -> Result {
    let id = &plot.id;
    writeln!(
        out,
        "<figure id=\"figure-{id}\"><div class=\"bar\"><h3>{}</h3>",
        html(&plot.title)
    )?;
    match plot.views.as_slice() {
        [only] => writeln!(
            out,
            "<span class=\"whose\">{}</span></div>",
            html(&only.name)
        )?,
        views => {
            writeln!(out, "<label class=\"whose\">of <select data-plot=\"{id}\">")?;
            for (index, view) in views.iter().enumerate() {
                writeln!(
                    out,
                    "<option value=\"{index}\">{}</option>",
                    html(&view.name)
                )?;
            }
            writeln!(out, "</select></label></div>")?;
        }
    }
    writeln!(out, "<figcaption>")?;
    for (index, view) in plot.views.iter().enumerate() {
        let hidden = if index > 0 { " hidden" } else { "" };
        writeln!(
            out,
            "<div data-view=\"{index}\"{hidden}><p class=\"summary\">{}</p>",
            html(&view.summary)
        )?;
        for note in &view.notes {
            writeln!(out, "<p class=\"note\">{}</p>", html(note))?;
        }
        writeln!(out, "</div>")?;
    }
    let height = plot
        .views
        .first()
        .and_then(|view| view.layout["height"].as_u64())
        .unwrap_or(320);
    writeln!(
        out,
        "</figcaption>\n<div class=\"plot\" id=\"plot-{id}\" role=\"img\" style=\"min-height:{height}px\" \
         aria-label=\"Plot: {}. {}\"></div></figure>",
        html(&plot.title),
        plot.views
            .first()
            .map(|view| html(&view.summary))
            .unwrap_or_default()
    )
}

fn coverage(out: &mut String, report: &Report) -> Result {
    writeln!(
        out,
        "<section id=\"coverage\"><h2>Coverage</h2>\n<p class=\"lead\">How far each table tells what happened. What was \
         not observed is nowhere counted as zero.</p>\n<div class=\"scroll\"><table><thead><tr><th>table</th><th>rows</th>\
         <th>status</th><th>reason</th></tr></thead><tbody>"
    )?;
    for table in TABLES {
        let rows = report.rows.get(table.file).copied().flatten();
        let rows = rows.map_or_else(|| "no file".to_owned(), |rows| thousands(rows as f64));
        let coverage = report
            .metadata
            .coverage(table.file)
            .cloned()
            .unwrap_or_default();
        let status = if coverage.status.is_empty() {
            "not said"
        } else {
            &coverage.status
        };
        writeln!(
            out,
            "<tr class=\"{}\"><td>{}</td><td class=\"n\">{rows}</td><td>{}</td><td>{}</td></tr>",
            if status == "observed" { "" } else { "less" },
            table.file,
            html(&status.replace('_', " ")),
            words(&coverage.reason)
        )?;
    }
    writeln!(out, "</tbody></table></div>")?;
    let events = report.metadata.events.clone().unwrap_or_default();
    let number = |value: Option<u64>| {
        value.map_or_else(|| "not known".to_owned(), |value| thousands(value as f64))
    };
    writeln!(
        out,
        "<p>Records received: {}. Lost in the kernel: {}; in user space: {}.</p></section>",
        number(events.received),
        number(events.lost_kernel),
        number(events.lost_userspace)
    )
}

fn processes(out: &mut String, report: &Report) -> Result {
    let all = report.metadata.processes();
    if all.is_empty() {
        return Ok(());
    }
    let number = count(all.len() as u64, "process", "processes");
    writeln!(
        out,
        "<details><summary>{number}</summary><div class=\"scroll\"><table><thead><tr><th>pid</th><th>role</th><th>engine</th>\
         <th>rank</th><th>Python</th><th>vLLM</th><th>title</th></tr></thead><tbody>"
    )?;
    for process in all.iter().take(PROCESSES) {
        let number = |value: Option<u32>| value.map(|value| value.to_string()).unwrap_or_default();
        let word = |value: &Option<String>| html(value.as_deref().unwrap_or_default());
        writeln!(
            out,
            "<tr><td class=\"n\">{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            process.pid,
            word(&process.role),
            number(process.engine),
            number(process.rank),
            word(&process.python),
            word(&process.vllm),
            word(&process.title)
        )?;
    }
    writeln!(out, "</tbody></table></div></details>")
}
