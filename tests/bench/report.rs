//! How results are printed.

use crate::stats::Summary;

/// A figure to reach.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// At most so much.
    AtMost(f64),
    /// At least so much.
    AtLeast(f64),
}

impl Goal {
    /// In words: the figure, and whether `value` reaches it.
    fn verdict(self, value: f64, unit: &str) -> String {
        let (sign, limit, reached) = match self {
            Self::AtMost(limit) => ("<=", limit, value <= limit),
            Self::AtLeast(limit) => (">=", limit, value >= limit),
        };
        let how = if reached {
            "reached".to_owned()
        } else if limit == 0.0 {
            format!("missed by {} {unit}", short(value.abs()))
        } else {
            format!(
                "missed by {} {unit} ({:.0} %)",
                short((value - limit).abs()),
                (value / limit - 1.0).abs() * 100.0
            )
        };
        format!("figure {sign} {} {unit}: {how}", short(limit))
    }
}

/// A number with as many digits as matter.
pub(crate) fn short(value: f64) -> String {
    let size = value.abs();
    if size >= 10_000.0 {
        let digits = format!("{size:.0}");
        let mut text = if value < 0.0 {
            "-".to_owned()
        } else {
            String::new()
        };
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at) % 3 == 0 {
                text.push(',');
            }
            text.push(digit);
        }
        text
    } else if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// Says on what it runs.
pub(crate) fn machine() {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("", |pair| pair.1);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let virtual_machine = if info.contains(" hypervisor ") {
        ", a virtual machine"
    } else {
        ""
    };
    println!(
        "machine: {cores} cores ({model}){virtual_machine}, Linux {}",
        read("/proc/sys/kernel/osrelease").trim()
    );
    println!("load before: {}", read("/proc/loadavg").trim());
    println!(
        "median [10th to 90th percentile], repetitions interleaved in random order; other work on the machine counts"
    );
}

/// Begins a part.
pub(crate) fn title(name: &str) {
    println!("\n{name}");
}

/// One line of many repetitions.
pub(crate) fn line(what: &str, summary: Summary, unit: &str, goal: Option<Goal>) {
    let Summary {
        median,
        p10,
        p90,
        count,
    } = summary;
    let spread = format!("[{} to {}] n={count}", short(p10), short(p90));
    let verdict = goal
        .map(|goal| goal.verdict(median, unit))
        .unwrap_or_default();
    println!(
        "  {what:<52} {:>9} {unit:<9} {spread:<28} {verdict}",
        short(median)
    );
}

/// One line of one number.
pub(crate) fn number(what: &str, value: f64, unit: &str, goal: Option<Goal>) {
    let verdict = goal
        .map(|goal| goal.verdict(value, unit))
        .unwrap_or_default();
    println!(
        "  {what:<52} {:>9} {unit:<9} {:<28} {verdict}",
        short(value),
        ""
    );
}

/// A remark.
pub(crate) fn remark(text: &str) {
    println!("  {text}");
}
