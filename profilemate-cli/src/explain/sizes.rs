//! The capture size list with the least padding for the batch sizes that were seen.

use std::collections::{BTreeMap, BTreeSet};

/// Different batch sizes that are weighed one by one; more are taken together in equal steps.
const DISTINCT: usize = 512;
/// Captured sizes of a list, at most: vLLM's own default list has about as many.
const MOST: usize = 128;

/// Tokens of padding if each batch runs with the smallest of `sizes` that holds it. Batches above the largest run
/// without a graph, and are not padded.
pub fn padding(batches: &BTreeMap<u64, u64>, sizes: &BTreeSet<u64>) -> u64 {
    batches
        .iter()
        .filter_map(|(&tokens, &count)| {
            let size = *sizes.range(tokens..).next()?;
            Some((size - tokens).saturating_mul(count))
        })
        .fold(0, u64::saturating_add)
}

/// The `count` sizes with the least padding for `batches`; the largest batch is among them. Fewer if fewer are needed.
pub fn best(batches: &BTreeMap<u64, u64>, count: usize) -> BTreeSet<u64> {
    let batches = coarse(batches);
    let sizes: Vec<u64> = batches.iter().map(|one| one.0).collect();
    let (n, count) = (sizes.len(), count.clamp(1, MOST));
    if n <= count {
        return sizes.into_iter().collect();
    }
    // Sums over the first i batches of their count and of their tokens.
    let mut counts = vec![0.0];
    let mut tokens = vec![0.0];
    for (index, &(size, seen)) in batches.iter().enumerate() {
        counts.push(counts[index] + seen as f64);
        tokens.push(tokens[index] + seen as f64 * size as f64);
    }
    // Padding of the batches from..=to, all run with the size of the last.
    let cost = |from: usize, to: usize| {
        sizes[to] as f64 * (counts[to + 1] - counts[from]) - (tokens[to + 1] - tokens[from])
    };
    // least[to]: least padding of the batches 0..=to with the sizes used so far, the last of them sizes[to].
    let mut least: Vec<f64> = (0..n).map(|to| cost(0, to)).collect();
    let mut chosen: Vec<Vec<usize>> = Vec::new();
    for _ in 1..count {
        let mut next = least.clone();
        let mut before = vec![usize::MAX; n];
        for to in 1..n {
            for from in 1..=to {
                let all = least[from - 1] + cost(from, to);
                if all < next[to] {
                    (next[to], before[to]) = (all, from - 1);
                }
            }
        }
        least = next;
        chosen.push(before);
    }
    let mut list = BTreeSet::from([sizes[n - 1]]);
    let mut at = n - 1;
    for before in chosen.iter().rev() {
        if before[at] != usize::MAX {
            at = before[at];
            list.insert(sizes[at]);
        }
    }
    list
}

/// At most [`DISTINCT`] different sizes: neighbours are taken as the largest of them.
fn coarse(batches: &BTreeMap<u64, u64>) -> Vec<(u64, u64)> {
    let all: Vec<(u64, u64)> = batches
        .iter()
        .map(|(&size, &count)| (size, count))
        .collect();
    let group = all.len().div_ceil(DISTINCT).max(1);
    all.chunks(group)
        .filter_map(|chunk| {
            let count = chunk.iter().map(|one| one.1).fold(0, u64::saturating_add);
            chunk.last().map(|last| (last.0, count))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(list: &[(u64, u64)]) -> BTreeMap<u64, u64> {
        list.iter().copied().collect()
    }

    #[test]
    fn padding_is_to_the_next_size_and_nothing_above_the_largest() {
        let seen = batches(&[(3, 10), (4, 1), (9, 5)]);
        assert_eq!(padding(&seen, &BTreeSet::from([4, 8])), 10);
        assert_eq!(padding(&seen, &BTreeSet::new()), 0);
    }

    #[test]
    fn the_list_is_as_good_as_trying_all() {
        let seen = batches(&[(1, 5), (3, 40), (5, 1), (6, 30), (11, 2), (12, 9), (17, 3)]);
        let all: Vec<u64> = seen.keys().copied().collect();
        for count in 1..=all.len() {
            let list = best(&seen, count);
            assert!(
                list.len() <= count && list.contains(&17),
                "{count}: {list:?}"
            );
            let tried = (0_u32..1 << all.len())
                .filter(|bits| bits.count_ones() as usize <= count && bits >> (all.len() - 1) == 1)
                .map(|bits| {
                    let picked = all.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
                    padding(&seen, &picked.map(|(_, &size)| size).collect())
                })
                .min();
            assert_eq!(Some(padding(&seen, &list)), tried, "{count}: {list:?}");
        }
    }

    #[test]
    fn thousands_of_sizes_are_no_harm() {
        let seen: BTreeMap<u64, u64> = (1..10_000).map(|size| (size, 1)).collect();
        let list = best(&seen, 1_000);
        assert!(list.len() <= MOST && list.contains(&9_999));
        assert_eq!(best(&BTreeMap::new(), 4), BTreeSet::new());
    }
}
