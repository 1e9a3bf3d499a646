//! How sure a measured rate is.

use std::collections::HashMap;

use super::roc::{Score, weighted_tar};

/// Both ends of a 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Wilson's score interval for `hits` of `of` independent trials (Wilson 1927), which stays between 0 and 1 and is not empty at either.
/// 0 to 1 when nothing was tried.
#[must_use]
pub fn wilson(hits: usize, of: usize) -> Interval {
    if of == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let (n, p) = (of as f64, hits as f64 / of as f64);
    let z2 = Z95 * Z95;
    let middle = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z95 / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    // The ends are 0 and 1 exactly when nothing and everything hit; rounding would leave them a hair off.
    Interval {
        low: if hits == 0 { 0.0 } else { (middle - half).max(0.0) },
        high: if hits == of { 1.0 } else { (middle + half).min(1.0) },
    }
}

/// For each rate of `fars` the 2.5th and 97.5th percentile of the true-accept rate when people are drawn with replacement.
///
/// Pairs that share a person are not independent, so people are drawn, not pairs: a pair of one person counts as often as the person was
/// drawn, a pair of two as often as both together. `people` names the two people of each score. `None` for a rate where fewer than half of
/// the draws had both kinds of pairs.
#[must_use]
pub fn bootstrap_by_person(
    scores: &[Score],
    people: &[(u32, u32)],
    fars: &[f64],
    draws: usize,
    seed: u64,
) -> Vec<Option<Interval>> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|&a, &b| scores[b].0.total_cmp(&scores[a].0));
    let mut index = HashMap::new();
    let pairs: Vec<(usize, usize)> = order
        .iter()
        .map(|&i| {
            let mut number = |person| {
                let next = index.len();
                *index.entry(person).or_insert(next)
            };
            (number(people[i].0), number(people[i].1))
        })
        .collect();
    let sorted: Vec<Score> = order.iter().map(|&i| scores[i]).collect();
    let mut state = seed;
    let mut tars = vec![Vec::with_capacity(draws); fars.len()];
    for _ in 0..draws {
        let mut times = vec![0_u32; index.len()];
        for _ in 0..index.len() {
            times[below(&mut state, index.len())] += 1;
        }
        let weights: Vec<f64> = pairs
            .iter()
            .map(|&(a, b)| f64::from(if a == b { times[a] } else { times[a] * times[b] }))
            .collect();
        for (tars, &far) in tars.iter_mut().zip(fars) {
            tars.extend(weighted_tar(&sorted, &weights, far));
        }
    }
    tars.into_iter()
        .map(|mut tars| {
            if tars.len() * 2 < draws.max(1) {
                return None;
            }
            tars.sort_unstable_by(f64::total_cmp);
            let at = |share: f64| tars[((tars.len() - 1) as f64 * share).round() as usize];
            Some(Interval { low: at(0.025), high: at(0.975) })
        })
        .collect()
}

/// Even over 0..n by SplitMix64 (Steele, Lea, Flood 2014).
pub(super) fn below(state: &mut u64, n: usize) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((u128::from(z ^ (z >> 31)) * n as u128) >> 64) as usize
}

const Z95: f64 = 1.959_964;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_agrees_with_published_figures() {
        // Newcombe 1998, table I: 81/263, 15/148, 0/20, 1/29.
        for (hits, of, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let interval = wilson(hits, of);
            assert!((interval.low - low).abs() < 6e-5 && (interval.high - high).abs() < 6e-5, "{interval:?}");
        }
        assert_eq!(wilson(5, 5).high, 1.0);
        assert_eq!(wilson(0, 0), Interval { low: 0.0, high: 1.0 });
    }

    #[test]
    fn people_not_pairs_are_drawn() {
        // One of ten people is never accepted and has most of the genuine pairs: whether that person is drawn decides the rate.
        let mut scores = vec![];
        let mut people = vec![];
        for person in 0..10_u32 {
            for _ in 0..if person == 0 { 90 } else { 10 } {
                scores.push((if person == 0 { 0.1 } else { 0.9 }, true));
                people.push((person, person));
            }
            for other in 0..person {
                scores.push((0.5, false));
                people.push((person, other));
            }
        }
        let band = bootstrap_by_person(&scores, &people, &[0.01, 1.0], 300, 7);
        let strict = band[0].unwrap();
        assert!(strict.low < 0.35 && strict.high == 1.0, "{strict:?}");
        assert_eq!(band[1].unwrap(), Interval { low: 1.0, high: 1.0 });
        assert_eq!(band, bootstrap_by_person(&scores, &people, &[0.01, 1.0], 300, 7));
        // Pairs drawn one by one would give 0.5 ± 0.07.
        let pairs = wilson(90, 180);
        assert!(pairs.high - pairs.low < 0.15);
    }
}
