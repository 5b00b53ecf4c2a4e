//! Whether a unit differs from its like by more than noise. Pure, and robust: medians, and median absolute deviations.
//!
//! For each piece of the window, the unit's value minus the median of its peers is one difference. Two kinds of noise
//! are held against the median of those: how much they vary over time, and how much the peers differ among themselves.

use serde::Serialize;

use super::without::{Deviations, Sorted};

/// Pieces of the window that a comparison needs.
pub const LEAST_PIECES: usize = 5;
/// Part of the pieces that must lie on the same side.
const SAME_SIDE: f64 = 0.8;
/// Standard deviations by which a unit must differ.
const SIGMAS: f64 = 4.0;
/// The expected range of two and more normal values, in standard deviations. Of so few the range tells the spread better
/// than a median does, and one that lies far out makes it large, so that its peers are not named in its place.
const RANGES: [f64; 4] = [1.128, 1.693, 2.059, 2.326];
/// A normal distribution's standard deviation, by its median absolute deviation.
pub(super) const NORMAL: f64 = 1.4826;

/// Values of a unit, one for each piece of the window; `None` where nothing was told.
pub type Values = Vec<Option<f64>>;

/// How a unit differs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Its own median over the window.
    pub value: f64,
    /// What its peers have: the median over time of their median.
    pub peers_value: f64,
    /// The median difference.
    pub difference: f64,
    /// Standard error of that over time.
    pub noise_over_time: f64,
    /// How much peers differ among themselves, as a standard deviation; `None` where they are too few to tell.
    pub spread_of_peers: Option<f64>,
    /// Number of peers.
    pub peers: usize,
    /// Pieces of the window that were compared.
    pub pieces: usize,
    /// Part of them on the same side.
    pub same_side: f64,
    /// Whether that is more than noise.
    pub named: bool,
}

/// How small a difference does not matter.
#[derive(Clone, Copy, Debug)]
pub struct Matters {
    /// Part of what the peers have.
    pub part: f64,
    /// In the values' unit.
    pub least: f64,
}

/// The median; sorts. `None` of nothing.
pub fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let half = values.len() / 2;
    let upper = *values.get(half)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(upper, values[half - 1]))
}

/// The median of what is there.
pub fn middle(values: &[Option<f64>]) -> Option<f64> {
    median(&mut values.iter().copied().flatten().collect::<Vec<_>>())
}

/// The standard deviation that the median absolute deviation lets expect.
pub fn deviation(values: &[f64]) -> Option<f64> {
    let centre = median(&mut values.to_vec())?;
    let mut away: Vec<f64> = values.iter().map(|value| (value - centre).abs()).collect();
    Some(NORMAL * median(&mut away)?)
}

/// How much peers differ among themselves, as a standard deviation; `None` with one peer. The peers are the others of
/// a list of levels, of which `own` is one.
fn spread(levels: &Sorted, deviations: &mut Deviations<'_>, own: f64) -> Option<f64> {
    let peers = levels.len().saturating_sub(1);
    let Some(range) = peers.checked_sub(2).and_then(|at| RANGES.get(at)) else {
        return (peers > 1).then(|| deviations.without(own)).flatten();
    };
    let (least, most) = levels.ends_without(own)?;
    Some((most - least) / range)
}

/// How many standard deviations of the peers are asked for: more where many units are looked at (one of a thousand lies
/// far out by chance), and where few peers tell the spread badly.
fn sigmas(peers: usize) -> f64 {
    let many = 2.0 + (2.0 * (peers.max(1) as f64).ln()).sqrt();
    let few = match peers {
        ..=3 => 3.0,
        4..=5 => 2.0,
        // From here on the spread is told by deviations, whose median varies much where they are few.
        6..=9 => 4.0,
        10..=19 => 1.0,
        _ => 0.0,
    };
    SIGMAS.max(many) + few
}

/// Compares each of a set of units with the others, its peers; `None` where too little was told of either.
pub fn compare(units: &[Option<&Values>], matters: Matters) -> Vec<Option<Difference>> {
    let told = || units.iter().copied().flatten();
    let pieces = told().map(Vec::len).max().unwrap_or(0);
    let in_piece = |piece: usize| told().filter_map(move |values| *values.get(piece)?);
    let pieces: Vec<Sorted> = (0..pieces).map(|piece| in_piece(piece).collect()).collect();
    let levels: Sorted = told().filter_map(|values| middle(values)).collect();
    let mut deviations = Deviations::of(&levels);
    let one = |own: Option<&Values>| {
        let own = own?;
        let level = middle(own)?;
        let spread_of_peers = spread(&levels, &mut deviations, level);
        difference(
            own,
            level,
            &pieces,
            matters,
            levels.len() - 1,
            spread_of_peers,
        )
    };
    units.iter().copied().map(one).collect()
}

fn difference(
    own: &[Option<f64>],
    value: f64,
    all: &[Sorted],
    matters: Matters,
    peers: usize,
    spread_of_peers: Option<f64>,
) -> Option<Difference> {
    let mut differences = Vec::new();
    let mut centres = Vec::new();
    for (value, all) in own.iter().zip(all) {
        let centre = value.and_then(|value| all.median_without(value));
        if let (Some(value), Some(centre)) = (value, centre) {
            differences.push(value - centre);
            centres.push(centre);
        }
    }
    let pieces = differences.len();
    if pieces < LEAST_PIECES {
        return None;
    }
    let difference = median(&mut differences.clone())?;
    let same = differences
        .iter()
        .filter(|one| one.total_cmp(&0.0) == difference.total_cmp(&0.0) && **one != 0.0);
    let same_side = same.count() as f64 / pieces as f64;
    // The standard error of a median of normal values is 1.2533 times that of their mean.
    let noise_over_time = 1.2533 * deviation(&differences)? / (pieces as f64).sqrt();
    let peers_value = median(&mut centres)?;
    let size = difference.abs();
    let named = size > 0.0
        && size >= (matters.part * peers_value.abs()).max(matters.least)
        && size >= SIGMAS * noise_over_time
        && size >= sigmas(peers) * spread_of_peers.unwrap_or(0.0)
        && same_side >= SAME_SIDE;
    Some(Difference {
        value,
        peers_value,
        difference,
        noise_over_time,
        spread_of_peers,
        peers,
        pieces,
        same_side,
        named,
    })
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "what is computed is exact")]
mod tests {
    use super::*;

    const FIVE_PERCENT: Matters = Matters {
        part: 0.05,
        least: 0.0,
    };

    /// A fleet of units around 10, whose levels differ by `between` and whose values vary by `over_time`.
    fn fleet(
        random: &mut fastrand::Rng,
        units: usize,
        between: f64,
        over_time: f64,
    ) -> Vec<Values> {
        let mut normal = || {
            let sum: f64 = (0..12).map(|_| random.f64()).sum();
            sum - 6.0
        };
        (0..units)
            .map(|_| {
                let level = 10.0 + between * normal();
                (0..15)
                    .map(|_| Some(level + over_time * normal()))
                    .collect()
            })
            .collect()
    }

    fn named(fleet: &[Values]) -> Vec<usize> {
        let units: Vec<Option<&Values>> = fleet.iter().map(Some).collect();
        let all = compare(&units, FIVE_PERCENT).into_iter().enumerate();
        all.filter(|(_, one)| one.is_some_and(|one| one.named))
            .map(|(unit, _)| unit)
            .collect()
    }

    /// One unit and its peers.
    fn one(own: &Values, peers: &[Values]) -> Option<Difference> {
        let units: Vec<Option<&Values>> = [own].into_iter().chain(peers).map(Some).collect();
        compare(&units, FIVE_PERCENT)[0]
    }

    /// What [`compare`] says of a unit's peers, computed from these alone.
    fn plainly(own: &Values, peers: &[&Values]) -> (Vec<Option<f64>>, Option<f64>) {
        let centre = |piece: usize| {
            let mut told: Vec<f64> = peers.iter().filter_map(|peer| peer[piece]).collect();
            own[piece].and_then(|_| median(&mut told))
        };
        let mut levels: Vec<f64> = peers.iter().filter_map(|peer| middle(peer)).collect();
        levels.sort_unstable_by(f64::total_cmp);
        let spread = match levels.len() {
            0 | 1 => None,
            few @ 2..=5 => Some((levels[few - 1] - levels[0]) / RANGES[few - 2]),
            _ => deviation(&levels),
        };
        ((0..own.len()).map(centre).collect(), spread)
    }

    #[test]
    fn each_unit_is_held_against_the_others_only() {
        let mut random = fastrand::Rng::with_seed(5);
        for units in 1..=12 {
            let mut all = fleet(&mut random, units, 0.3, 0.5);
            for values in all.iter_mut().flatten() {
                // Equal values and gaps are what goes wrong first.
                *values = values
                    .map(|value| (value * 4.0).round() / 4.0)
                    .filter(|_| random.u8(..6) > 0);
            }
            let units: Vec<Option<&Values>> = all.iter().map(Some).collect();
            for (unit, told) in compare(&units, FIVE_PERCENT).into_iter().enumerate() {
                let peers: Vec<&Values> = (0..all.len())
                    .filter(|&other| other != unit)
                    .map(|other| &all[other])
                    .collect();
                let (centres, spread) = plainly(&all[unit], &peers);
                let pieces = centres.iter().flatten().count();
                assert_eq!(told.is_some(), pieces >= LEAST_PIECES);
                let Some(told) = told else { continue };
                assert_eq!(told.peers_value, middle(&centres).unwrap());
                assert_eq!(told.spread_of_peers, spread, "{} units", all.len());
                assert_eq!((told.pieces, told.peers), (pieces, peers.len()));
            }
        }
    }

    #[test]
    fn the_one_that_is_slower_is_named_and_no_other() {
        let mut random = fastrand::Rng::with_seed(1);
        for units in [4, 8, 40] {
            let mut all = fleet(&mut random, units, 0.05, 0.2);
            all[1].iter_mut().flatten().for_each(|value| *value *= 1.3);
            assert_eq!(named(&all), [1], "{units} units");
        }
    }

    #[test]
    fn of_three_the_one_that_differs_from_both_others_is_named() {
        let mut random = fastrand::Rng::with_seed(6);
        let mut all = fleet(&mut random, 3, 0.05, 0.2);
        all[1].iter_mut().flatten().for_each(|value| *value *= 1.3);
        assert_eq!(named(&all), [1]);
    }

    #[test]
    fn of_two_both_differ_from_each_other() {
        let mut random = fastrand::Rng::with_seed(2);
        let mut all = fleet(&mut random, 2, 0.0, 0.2);
        all[0].iter_mut().flatten().for_each(|value| *value *= 1.3);
        assert_eq!(named(&all), [0, 1]);
    }

    #[test]
    fn noise_is_named_for_less_than_one_fleet_in_fifty() {
        let mut random = fastrand::Rng::with_seed(3);
        // Two peers hardly tell how much units differ by nature: there, that must be small beside what matters.
        for (units, between) in [(3, 0.2), (5, 0.4), (8, 0.6), (20, 0.6), (100, 0.6)] {
            let wrong = (0..200)
                .filter(|_| !named(&fleet(&mut random, units, between, 1.0)).is_empty())
                .count();
            assert!(wrong <= 4, "{wrong} of 200 fleets of {units}");
        }
    }

    #[test]
    fn small_differences_do_not_matter_even_without_noise() {
        let peers = vec![vec![Some(10.0); 15]; 5];
        let close = one(&vec![Some(10.2); 15], &peers).unwrap();
        assert!(!close.named && close.difference > 0.1);
        let far = one(&vec![Some(11.0); 15], &peers).unwrap();
        assert!(far.named && far.same_side == 1.0 && far.peers == 5);
    }

    #[test]
    fn gaps_are_left_out_and_too_little_is_not_compared() {
        let mut own: Values = vec![None; 15];
        own[..4].fill(Some(20.0));
        let peers = vec![vec![Some(10.0); 15]; 4];
        assert_eq!(one(&own, &peers), None);
        own[9] = Some(20.0);
        let difference = one(&own, &peers).unwrap();
        assert_eq!((difference.pieces, difference.named), (5, true));
        assert_eq!(one(&own, &[]), None);
    }

    #[test]
    fn one_spike_is_no_difference() {
        let mut random = fastrand::Rng::with_seed(4);
        let mut all = fleet(&mut random, 6, 0.02, 0.1);
        all[2][7] = Some(500.0);
        assert_eq!(named(&all), [0_usize; 0]);
    }
}
