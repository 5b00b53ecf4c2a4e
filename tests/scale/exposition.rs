//! One node's exposition: series, bytes, time.

use std::io::Write as _;
use std::time::Instant;

use anyhow::{Context as _, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use profilemate::metrics::exposition::{Format, expose};
use profilemate_tests::scale::crowd::Crowd;
use profilemate_tests::scale::shape::Shape;

use crate::Options;

/// How often each form is written.
const TIMES: usize = 50;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// What `work` gave last, and its median time in milliseconds.
fn timed<T>(mut work: impl FnMut() -> Result<T>) -> Result<(T, f64)> {
    let mut times = Vec::new();
    let mut last = None;
    for _ in 0..TIMES {
        let began = Instant::now();
        last = Some(work()?);
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok((last.context("nothing was done")?, median(times)))
}

/// Measures a node that has played for a while, and prints.
pub(crate) fn measure(crowd: &Crowd, options: &Options) -> Result<()> {
    let registry = crowd.registry(0).context("no node")?;
    // Until it has been through the whole recording, and told all that it will.
    let mut shape = Shape::default();
    for _ in 0..60 {
        let now = Shape::of(&registry)?;
        if now == shape && now.ranks > 0 {
            break;
        }
        shape = now;
        std::thread::sleep(std::time::Duration::from_secs(2));
    }
    let servers = options.servers as usize;
    println!(
        "series of a node: {} = {} of the agent + {} servers x {} + {} engines x {} + {} ranks x {}; Prometheus adds 5",
        shape.total(),
        shape.agent,
        servers,
        shape.servers / servers,
        servers,
        shape.engines / servers,
        shape.rank_count,
        shape.ranks / shape.rank_count.max(1),
    );
    for (name, format) in [
        ("text", Format::Text),
        ("OpenMetrics", Format::OpenMetrics),
        ("protobuf", Format::Protobuf),
    ] {
        let (body, expose_ms) = timed(|| Ok(expose(&registry, format)?))?;
        let (packed, pack_ms) = timed(|| {
            let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
            packer.write_all(&body)?;
            Ok(packer.finish()?)
        })?;
        println!(
            "exposition as {name:<11} {:>8} bytes in {expose_ms:.2} ms; gzip {:>7} bytes in {pack_ms:.2} ms more",
            body.len(),
            packed.len(),
        );
    }
    Ok(())
}
