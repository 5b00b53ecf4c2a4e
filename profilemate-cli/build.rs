//! Takes the plotting library of `profilemate report` out of the crate that ships it, compressed as the page carries it.
//!
//! Only the build needs that crate: the binary holds the compressed script, and the digest by which the page's
//! Content-Security-Policy allows this script and the page's own, and no other.

use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

/// The page's own script.
const PAGE: &str = "src/report/page.js";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={PAGE}");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let tags = plotly::Plot::offline_js_sources();
    let script = plotly_js(&tags).ok_or("the crate `plotly` no longer begins with plotly.js")?;
    let packed = Vec::new();
    let mut encoder = flate2::write::GzEncoder::new(packed, flate2::Compression::best());
    encoder.write_all(script.as_bytes())?;
    std::fs::write(out.join("plotly.js.gz"), encoder.finish()?)?;
    std::fs::write(out.join("plotly.js.sha256"), digest(script.as_bytes()))?;
    std::fs::write(out.join("page.js.sha256"), digest(&std::fs::read(PAGE)?))?;
    let version = script
        .lines()
        .find_map(|line| line.split_once("plotly.js v"));
    let version = version.ok_or("plotly.js does not say its version")?.1;
    std::fs::write(out.join("plotly.js.version"), version)?;
    Ok(())
}

/// As a Content-Security-Policy names a script.
fn digest(script: &[u8]) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(script)))
}

/// The first of the scripts between the tags: plotly.js. The other one typesets formulas, of which there are none.
fn plotly_js(tags: &str) -> Option<&str> {
    let (_, rest) = tags.split_once('>')?;
    let (script, _) = rest.split_once("</script>")?;
    script.contains("* plotly.js v").then_some(script)
}
