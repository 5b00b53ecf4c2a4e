//! The page: one HTML file that needs nothing else.
//!
//! Its Content-Security-Policy allows two scripts by their digests, the page's own and the plotting library, and no
//! connection at all: what a session holds, such as a request id, can neither run nor call home. The library travels
//! compressed, as text that no browser runs; the page's script unpacks it into a script element, whose digest is checked
//! like that of any other.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Report, html, text};

/// plotly.js, compressed with gzip.
const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/plotly.js.gz"));
/// As the policy names it.
const LIBRARY_DIGEST: &str = include_str!(concat!(env!("OUT_DIR"), "/plotly.js.sha256"));
/// Its version.
pub(super) const LIBRARY_VERSION: &str =
    include_str!(concat!(env!("OUT_DIR"), "/plotly.js.version"));
/// The page's own script.
const SCRIPT: &str = include_str!("page.js");
/// As the policy names it.
const SCRIPT_DIGEST: &str = include_str!(concat!(env!("OUT_DIR"), "/page.js.sha256"));
/// How the page looks.
const STYLE: &str = include_str!("page.css");
/// The licence of plotly.js, as its project publishes it.
pub(super) const LIBRARY_LICENCE: &str = include_str!("plotly-licence.txt");

/// The first bytes of every page, by which `report` knows its own.
pub const HEAD: &str = "<!doctype html>\n<!-- made by profilemate report -->\n";
/// Bytes within which [`HEAD`] is found.
pub const MARK_WITHIN: u64 = HEAD.len() as u64;

/// Whether a file that begins so is a page of ours.
pub fn is_ours(begin: &[u8]) -> bool {
    begin.starts_with(HEAD.as_bytes())
}

/// The page.
pub fn page(report: &Report) -> String {
    let mut out = String::with_capacity(LIBRARY.len() * 3 / 2);
    // Writing to a `String` cannot fail.
    let _ = write_page(&mut out, report);
    out
}

fn write_page(out: &mut String, report: &Report) -> std::fmt::Result {
    let plots: Vec<_> = report
        .sections
        .iter()
        .flat_map(|section| &section.plots)
        .collect();
    // A plot holds text, finite numbers and lists of them, which are always JSON.
    let data = serde_json::to_string(&plots).unwrap_or_default();
    write!(
        out,
        "{HEAD}<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src '{SCRIPT_DIGEST}' \
         '{LIBRARY_DIGEST}'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"referrer\" content=\"no-referrer\">\n\
         <meta name=\"generator\" content=\"ProfileMate {}\">\n<title>ProfileMate: {}</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n<style>\n{STYLE}</style>\n</head>\n<body>\n",
        env!("CARGO_PKG_VERSION"),
        text::html(&report.name)
    )?;
    html::body(out, report)?;
    write!(
        out,
        "<script type=\"application/json\" id=\"plots\">{}</script>\n<script type=\"text/plain\" id=\"library\">",
        text::json(&data)
    )?;
    STANDARD.encode_string(LIBRARY, out);
    // The policy's digest is of exactly what stands between the tags.
    writeln!(
        out,
        "</script>\n<script>{SCRIPT}</script>\n</body>\n</html>"
    )
}
