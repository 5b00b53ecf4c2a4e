//! From counted hits to time in the target. Pure.
//!
//! A hit costs the trap, whose price was measured in a child of the tracer's own, and the run of the probe program,
//! which the kernel counts for all processes together. The latter is shared out by what the programs read.

use super::ladder::LADDER;

/// Price of a run without reads, and of a read, relative to one another.
const RUN: f64 = 2.0;
const READ: f64 = 1.0;

/// Hits of one slot over a while.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Hits {
    /// Process.
    pub pid: u32,
    /// Rung of the ladder that its method is on.
    pub rung: Option<usize>,
    /// Passes through the probed instruction.
    pub hits: u64,
    /// Reads of its program.
    pub reads: u32,
}

/// What tracing cost one process over a while.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bill {
    /// Hits.
    pub hits: u64,
    /// All, in nanoseconds.
    pub total_ns: f64,
    /// Of that, the part of each rung.
    pub rungs_ns: Vec<f64>,
}

/// The bill of process `pid`: of `hits` of all processes, with `trap_ns` for each hit and `run_ns` for all runs.
pub fn bill(pid: u32, hits: &[Hits], trap_ns: f64, run_ns: f64) -> Bill {
    let weight = |hits: &Hits| hits.hits as f64 * (RUN + READ * f64::from(hits.reads));
    let all: f64 = hits.iter().map(weight).sum();
    let mut bill = Bill {
        rungs_ns: vec![0.0; LADDER.len()],
        ..Bill::default()
    };
    for own in hits.iter().filter(|hits| hits.pid == pid) {
        let run = if all > 0.0 {
            run_ns * weight(own) / all
        } else {
            0.0
        };
        let cost = own.hits as f64 * trap_ns + run;
        bill.hits += own.hits;
        bill.total_ns += cost;
        if let Some(rung) = own.rung.and_then(|rung| bill.rungs_ns.get_mut(rung)) {
            *rung += cost;
        }
    }
    bill
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traps_are_paid_by_who_makes_them_and_runs_by_what_they_read() {
        let hits = [
            Hits {
                pid: 1,
                rung: Some(2),
                hits: 100,
                reads: 0,
            },
            Hits {
                pid: 1,
                rung: Some(8),
                hits: 10,
                reads: 18,
            },
            Hits {
                pid: 2,
                rung: None,
                hits: 100,
                reads: 2,
            },
        ];
        let one = bill(1, &hits, 500.0, 80_000.0);
        let two = bill(2, &hits, 500.0, 80_000.0);
        assert_eq!((one.hits, two.hits), (110, 100));
        assert!((one.total_ns + two.total_ns - (210.0 * 500.0 + 80_000.0)).abs() < 1e-6);
        assert!((one.rungs_ns[2] - (50_000.0 + 20_000.0)).abs() < 1e-6);
        assert!((one.rungs_ns[8] - (5_000.0 + 20_000.0)).abs() < 1e-6);
        assert!(two.rungs_ns.iter().all(|cost| *cost == 0.0));
        assert!(bill(3, &hits, 500.0, 80_000.0).total_ns == 0.0);
    }
}
