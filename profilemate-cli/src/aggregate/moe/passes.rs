//! Forward passes in which no layer of experts ran in Python: they ran as CUDA graphs or as compiled code.

use std::collections::HashMap;

/// Processes, at most.
const PROCESSES: usize = 4_096;

/// Passes of all processes.
#[derive(Debug, Default)]
pub(super) struct Passes(HashMap<u32, Count>);

/// Passes of one process.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// The first one may have begun before it was traced.
    begun: bool,
    /// A layer was called since the last pass.
    layer: bool,
    /// A layer was called ever.
    ever: bool,
    all: u64,
    without: u64,
}

impl Passes {
    /// A layer was called.
    pub(super) fn layer(&mut self, pid: u32) {
        if self.0.len() < PROCESSES || self.0.contains_key(&pid) {
            let count = self.0.entry(pid).or_default();
            (count.layer, count.ever) = (true, true);
        }
    }

    /// A pass is over.
    pub(super) fn over(&mut self, pid: u32) {
        if self.0.len() >= PROCESSES && !self.0.contains_key(&pid) {
            return;
        }
        let count = self.0.entry(pid).or_default();
        if std::mem::replace(&mut count.begun, true) {
            count.all += 1;
            count.without += u64::from(!count.layer);
        }
        count.layer = false;
    }

    /// Passes without a layer, and all, of the processes in which layers were called.
    pub(super) fn without(&self) -> (u64, u64) {
        let with_layers = self.0.values().filter(|count| count.ever);
        with_layers.fold((0, 0), |(without, all), count| {
            (without + count.without, all + count.all)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_without_layers_are_counted_where_there_are_layers() {
        let mut passes = Passes::default();
        for layers in [0, 2, 0, 1, 0] {
            (0..layers).for_each(|_| passes.layer(1));
            passes.over(1);
            passes.over(2);
        }
        assert_eq!(
            passes.without(),
            (2, 4),
            "not the first, and not of process 2"
        );
    }
}
