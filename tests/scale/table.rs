//! What larger fleets need, by the largest that was measured.

use crate::Options;
use crate::phase::{Disk, Phase};

/// Seconds between scrapes of the fleets that are sized.
const INTERVAL_SEC: f64 = 15.0;
/// Fleets that are sized, in nodes.
const FLEETS: [u32; 4] = [100, 1_000, 10_000, 12_500];
/// Blocks that Prometheus writes in a day, before it joins them.
const BLOCKS: f64 = 12.0;

/// The line through the phases, least squares: at 0 nodes, and for each node. With one phase it goes through 0.
fn line(phases: &[Phase], of: impl Fn(&Phase) -> f64) -> (f64, f64) {
    let points: Vec<(f64, f64)> = phases
        .iter()
        .map(|phase| (f64::from(phase.nodes), of(phase)))
        .collect();
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    if spread == 0.0 {
        return (0.0, y / x);
    }
    let together: f64 = points
        .iter()
        .map(|point| (point.0 - x) * (point.1 - y))
        .sum();
    let slope = together / spread;
    (y - slope * x, slope)
}

/// Prints it.
pub(crate) fn print(phases: &[Phase], disk: &Disk, options: &Options) {
    let Some(last) = phases.last() else { return };
    let series = last.series / f64::from(last.nodes);
    let memory = line(phases, |phase| phase.resident_mib);
    let status = line(phases, |phase| phase.status.wall_sec);
    let diagnose = line(phases, |phase| phase.diagnose.wall_sec);
    let fleet = line(phases, |phase| phase.diagnose.peak_mib);
    println!(
        "\nextrapolated in a line from {} to {} nodes, scraped every {INTERVAL_SEC} s; windows of {} samples:",
        phases[0].nodes, last.nodes, options.samples
    );
    println!(
        "| nodes | GPUs | series | samples/s | Prometheus GiB | CPU cores | GiB a day | status s | diagnose s | fleet MiB |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for nodes in FLEETS {
        let count = f64::from(nodes);
        let at = |line: (f64, f64)| line.0 + line.1 * count;
        let all = series * count;
        let rate = all / INTERVAL_SEC;
        let day =
            rate * 86_400.0 * disk.bytes_per_sample + BLOCKS * all * disk.index_bytes_per_series;
        println!(
            "| {nodes} | {} | {all:.0} | {rate:.0} | {:.1} | {:.2} | {:.1} | {:.1} | {:.1} | {:.0} |",
            nodes * options.servers * options.ranks,
            at(memory) / 1024.0,
            rate * last.cpu_sec_per_million / 1e6,
            day / f64::from(1_u32 << 30),
            at(status),
            at(diagnose),
            at(fleet),
        );
    }
}
