//! What a process needs: processor time and memory, as the kernel counts them.

use anyhow::{Context as _, Result};

/// CPU time that all threads of a process have used so far, in nanoseconds. Not rounded to ticks.
pub fn cpu_ns(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).context("the process has ended")? {
        let text = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        sum += text
            .split_whitespace()
            .next()
            .and_then(|word| word.parse::<u64>().ok())
            .unwrap_or(0);
    }
    Ok(sum)
}

/// Resident memory of a process in MiB: now (`VmRSS`) or at its highest (`VmHWM`).
pub fn resident_mib(pid: u32, which: &str) -> Result<f64> {
    let text =
        std::fs::read_to_string(format!("/proc/{pid}/status")).context("the process has ended")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(which))
        .context("no such line in status")?;
    let number = line
        .trim_start_matches(':')
        .split_whitespace()
        .next()
        .unwrap_or_default();
    Ok(number.parse::<f64>().context("a number in status")? / 1024.0)
}
