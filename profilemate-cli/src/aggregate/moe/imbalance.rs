//! `moe_load_imbalance.csv`: how unevenly the experts of a layer were used, second by second.

use std::collections::HashMap;

use super::{Routed, experts};
use crate::event::Session;
use crate::table::cell::{Real, Stamp};
use crate::table::moe_load_imbalance::MoeLoadImbalance;

/// Length of a window.
const WINDOW_NS: u64 = 1_000_000_000;

/// End of the window of the moment `now_ns`: windows begin with the session.
pub(super) fn end_of(now_ns: u64, started_ns: u64) -> u64 {
    let since = now_ns.saturating_sub(started_ns);
    started_ns.saturating_add((since / WINDOW_NS + 1).saturating_mul(WINDOW_NS))
}

/// Choices of one layer in the current window.
#[derive(Debug, Default)]
pub(super) struct Window {
    by_expert: HashMap<u64, u64>,
    latest_ns: u64,
}

impl Window {
    /// The router gave these ids.
    pub(super) fn add(&mut self, routed: &Routed, now_ns: u64) {
        self.latest_ns = now_ns;
        for expert in experts(&routed.ids) {
            *self.by_expert.entry(expert).or_default() += 1;
        }
    }

    /// An expert was chosen so often more.
    pub(super) fn add_choices(&mut self, expert: u64, more: u64, now_ns: u64) {
        if more > 0 {
            self.latest_ns = now_ns;
            *self.by_expert.entry(expert).or_default() += more;
        }
    }

    /// The row of the window, which is then empty; `None` if nothing was chosen.
    pub(super) fn take(
        &mut self,
        layer_idx: u64,
        experts: Option<u64>,
        session: &Session,
        pid: u32,
        rank: Option<u32>,
    ) -> Option<MoeLoadImbalance> {
        let counts = std::mem::take(&mut self.by_expert);
        let choices: u64 = counts.values().sum();
        if choices == 0 {
            return None;
        }
        let begin = end_of(self.latest_ns, session.started_ns).saturating_sub(WINDOW_NS);
        let experts = experts.filter(|&experts| counts.len() as u64 <= experts);
        let spread = experts.map(|experts| spread(&counts, choices, experts));
        let least = match experts {
            Some(experts) if (counts.len() as u64) < experts => None,
            Some(_) => counts.values().min().copied(),
            None => None,
        };
        let most = counts.values().max().copied();
        Some(MoeLoadImbalance {
            layer_idx,
            timestamp_sec: Stamp::new(begin, session.started_ns),
            std_dev: spread.map(Real),
            max_min_ratio: most
                .zip(least)
                .map(|(most, least)| Real(most as f64 / least as f64)),
            choices,
            pid,
            rank,
        })
    }
}

/// Standard deviation of the choices of all `experts`.
fn spread(counts: &HashMap<u64, u64>, choices: u64, experts: u64) -> f64 {
    let mean = choices as f64 / experts as f64;
    let never = (experts - counts.len() as u64) as f64 * mean * mean;
    let mut each: Vec<u64> = counts.values().copied().collect();
    // Always in the same order, so that the same stream gives the same digits.
    each.sort_unstable();
    let squares: f64 = each
        .iter()
        .map(|&count| (count as f64 - mean) * (count as f64 - mean))
        .sum();
    ((squares + never) / experts as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ids: &[i64], experts: Option<u64>) -> Option<MoeLoadImbalance> {
        let mut window = Window::default();
        let routed = Routed {
            entry_cycles: 0,
            return_cycles: 0,
            ids: ids.to_vec(),
            total: ids.len() as u32,
            columns: 2,
        };
        window.add(&routed, 2_500_000_000);
        window.take(3, experts, &Session::default(), 7, None)
    }

    #[test]
    fn spread_and_ratio_over_all_experts() {
        let row = row(&[0, 1, 0, 1, 0, 1, 0, 1], Some(2)).unwrap();
        assert_eq!(
            (row.std_dev, row.max_min_ratio),
            (Some(Real(0.0)), Some(Real(1.0)))
        );
        assert_eq!(row.timestamp_sec, Stamp(2_000_000_000));
    }

    #[test]
    fn an_expert_never_chosen_leaves_no_ratio() {
        let row = row(&[0, 0, 0, 0], Some(2)).unwrap();
        assert_eq!((row.std_dev, row.max_min_ratio), (Some(Real(2.0)), None));
    }

    #[test]
    fn without_the_number_of_experts_nothing_is_said_of_them() {
        let row = row(&[0, 1], None).unwrap();
        assert_eq!(
            (row.std_dev, row.max_min_ratio, row.choices),
            (None, None, 2)
        );
        assert_eq!(self::row(&[], Some(2)), None);
    }
}
