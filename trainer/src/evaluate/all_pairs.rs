//! Every picture against every other. A pairs file of some hundred pairs says nothing about the rates a door needs; 3,000 pictures make
//! five million pairs.
//!
//! The pairs are not independent: a person with many pictures is in many of them. Intervals therefore come from a bootstrap over
//! people (Efron and Tibshirani 1993, chapter 6; Bolle et al. 2004 for subsets of biometric matches), not over pairs.

use std::collections::BTreeMap;

use facelatch_shared::embedding::Embedding;
use facelatch_shared::vision::thresholds::{ThresholdPoint, ThresholdTable};

/// Similarities of all pairs, as far as they decide anything.
#[derive(Clone, Debug)]
pub struct AllPairs {
    /// Pictures of each person.
    pictures: Vec<u32>,
    /// Similarity and person, falling.
    genuine: Vec<(f32, u32)>,
    /// Similarity and the two people, falling: the highest ones only.
    impostor: Vec<(f32, u32, u32)>,
    impostor_pairs: u64,
}

/// A rate with its interval.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Rate {
    /// What was seen.
    pub value: f64,
    /// Lower end, 95 %.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The loosest false-match rate that can be asked for: of the impostor pairs only this share is kept.
pub const LOOSEST_FMR: f64 = 0.1;

/// Draws of people for an interval.
pub const DRAWS: usize = 200;

impl AllPairs {
    /// Compares all `faces`, given with the person's name. `None` with fewer than two people or without a pair of one.
    #[must_use]
    pub fn of(faces: &[(&str, &Embedding)]) -> Option<Self> {
        let mut numbers = BTreeMap::new();
        let people: Vec<u32> = faces
            .iter()
            .map(|(name, _)| {
                let next = numbers.len() as u32;
                *numbers.entry(*name).or_insert(next)
            })
            .collect();
        let mut pictures = vec![0; numbers.len()];
        people.iter().for_each(|&p| pictures[p as usize] += 1);
        // Pass one counts, so that pass two keeps the highest impostors only.
        let mut counts = vec![0_u64; BINS];
        let mut genuine = Vec::new();
        let mut impostor_pairs = 0;
        each_pair(faces, &people, |similarity, a, b| {
            if a == b {
                genuine.push((similarity, a));
            } else {
                counts[bin(similarity)] += 1;
                impostor_pairs += 1;
            }
        });
        if genuine.is_empty() || impostor_pairs == 0 {
            return None;
        }
        let wanted = (impostor_pairs as f64 * LOOSEST_FMR) as u64 + 1;
        let mut kept = 0;
        let least = (0..BINS).rev().find(|&bin| {
            kept += counts[bin];
            kept > wanted
        });
        let mut impostor = Vec::with_capacity(kept as usize);
        each_pair(faces, &people, |similarity, a, b| {
            if a != b && bin(similarity) >= least.unwrap_or(0) {
                impostor.push((similarity, a, b));
            }
        });
        genuine.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        impostor.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        Some(Self { pictures, genuine, impostor, impostor_pairs })
    }

    /// Pairs of one person.
    #[must_use]
    pub fn genuine_pairs(&self) -> u64 {
        self.genuine.len() as u64
    }

    /// Pairs of two people.
    #[must_use]
    pub const fn impostor_pairs(&self) -> u64 {
        self.impostor_pairs
    }

    /// People.
    #[must_use]
    pub fn identities(&self) -> u32 {
        self.pictures.len() as u32
    }

    /// Pictures.
    #[must_use]
    pub fn pictures(&self) -> u32 {
        self.pictures.iter().sum()
    }

    /// The least threshold at which at most the share `fmr` (up to [`LOOSEST_FMR`]) of impostor pairs passes.
    #[must_use]
    pub fn threshold(&self, fmr: f64) -> f32 {
        self.drawn_threshold(fmr, None)
    }

    /// The share of genuine pairs that reach `threshold`.
    #[must_use]
    pub fn tmr(&self, threshold: f32) -> f64 {
        self.genuine.partition_point(|g| g.0 >= threshold) as f64 / self.genuine.len() as f64
    }

    /// The share of genuine pairs that pass at each false-match rate, with its interval: threshold and share are both drawn anew.
    #[must_use]
    pub fn tmr_at(&self, rates: &[f64], seed: u64) -> Vec<Rate> {
        let mut drawn = vec![Vec::with_capacity(DRAWS); rates.len()];
        self.draws(seed, |weights| {
            for (fmr, out) in rates.iter().zip(&mut drawn) {
                let threshold = self.drawn_threshold(*fmr, Some(weights));
                out.push(self.drawn_tmr(threshold, weights));
            }
        });
        let interval = |(fmr, mut drawn): (&f64, Vec<f64>)| {
            let (low, high) = ends(&mut drawn);
            Rate { value: self.tmr(self.threshold(*fmr)), low, high }
        };
        rates.iter().zip(drawn).map(interval).collect()
    }

    /// The table for `rates`, which fall. Rates that fewer than [`LEAST_IMPOSTORS`] pairs stand for are left out.
    #[must_use]
    pub fn table(&self, split: &str, rates: &[f64], seed: u64) -> ThresholdTable {
        let rates: Vec<f64> = rates
            .iter()
            .copied()
            .filter(|fmr| fmr * self.impostor_pairs as f64 >= LEAST_IMPOSTORS as f64)
            .collect();
        let mut drawn = vec![Vec::with_capacity(DRAWS); rates.len()];
        self.draws(seed, |weights| {
            for (fmr, out) in rates.iter().zip(&mut drawn) {
                out.push(f64::from(self.drawn_threshold(*fmr, Some(weights))));
            }
        });
        let mut points: Vec<ThresholdPoint> = rates
            .iter()
            .zip(drawn)
            .map(|(&fmr, mut drawn)| {
                let threshold = self.threshold(fmr);
                let (low, high) = ends(&mut drawn);
                ThresholdPoint {
                    fmr,
                    threshold,
                    low: (low as f32).min(threshold),
                    high: (high as f32).max(threshold),
                    tmr: self.tmr(threshold),
                }
            })
            .collect();
        // With few pairs the upper ends can cross; a stricter rate never has the lower one.
        for i in 1..points.len() {
            points[i].high = points[i].high.max(points[i - 1].high);
        }
        ThresholdTable {
            split: split.into(),
            identities: self.identities(),
            pictures: self.pictures(),
            impostor_pairs: self.impostor_pairs,
            genuine_pairs: self.genuine_pairs(),
            points,
        }
    }

    /// The threshold with each person counted as often as `weights` says.
    fn drawn_threshold(&self, fmr: f64, weights: Option<&[u32]>) -> f32 {
        let weight = |p: u32| weights.map_or(1.0, |w| f64::from(w[p as usize]));
        let (mut sum, mut squares) = (0.0, 0.0);
        for (person, &n) in self.pictures.iter().enumerate() {
            let n = f64::from(n) * weight(person as u32);
            sum += n;
            squares += n * n;
        }
        let allowed = (fmr * (sum * sum - squares) / 2.0).floor();
        let mut passed = 0.0;
        for &(similarity, a, b) in &self.impostor {
            passed += weight(a) * weight(b);
            if passed > allowed {
                return similarity.next_up();
            }
        }
        // As loose as what was kept.
        self.impostor.last().map_or(-1.0, |i| i.0)
    }

    fn drawn_tmr(&self, threshold: f32, weights: &[u32]) -> f64 {
        let weight = |g: &(f32, u32)| f64::from(weights[g.1 as usize]);
        let passed = self.genuine.partition_point(|g| g.0 >= threshold);
        let (passed, all): (f64, f64) =
            (self.genuine[..passed].iter().map(weight).sum(), self.genuine.iter().map(weight).sum());
        passed / all.max(1e-9)
    }

    /// Calls `see` with how often each person is drawn, [`DRAWS`] times.
    fn draws(&self, seed: u64, mut see: impl FnMut(&[u32])) {
        let (mut state, people) = (seed, self.pictures.len());
        let mut weights = vec![0; people];
        for _ in 0..DRAWS {
            weights.fill(0);
            for _ in 0..people {
                weights[(splitmix(&mut state) % people as u64) as usize] += 1;
            }
            see(&weights);
        }
    }
}

/// Fewest impostor pairs that a rate of the table may allow.
pub const LEAST_IMPOSTORS: u64 = 10;

fn each_pair(faces: &[(&str, &Embedding)], people: &[u32], mut see: impl FnMut(f32, u32, u32)) {
    for (i, (_, a)) in faces.iter().enumerate() {
        for (j, (_, b)) in faces.iter().enumerate().skip(i + 1) {
            see(a.similarity(b).0, people[i], people[j]);
        }
    }
}

fn bin(similarity: f32) -> usize {
    (((similarity + 1.0) / 2.0 * BINS as f32) as usize).min(BINS - 1)
}

fn ends(drawn: &mut [f64]) -> (f64, f64) {
    drawn.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| drawn[((drawn.len() - 1) as f64 * share).round() as usize];
    (at(0.025), at(0.975))
}

/// SplitMix64 (Steele et al. 2014).
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const BINS: usize = 1 << 14;

#[cfg(test)]
mod tests {
    use super::*;

    /// People on a circle; pictures of one person lie close together.
    fn faces(people: usize, each: usize) -> Vec<(String, Embedding)> {
        let mut state = 7;
        let mut noise = || (splitmix(&mut state) >> 40) as f32 / (1 << 24) as f32 - 0.5;
        (0..people)
            .flat_map(|p| std::iter::repeat_n(p, each))
            .map(|p| {
                let mut state = p as u64;
                let mut raw = [0.0_f32; 128];
                for v in &mut raw {
                    *v = (splitmix(&mut state) >> 40) as f32 / (1 << 24) as f32 - 0.5 + 0.8 * noise();
                }
                (format!("p{p}"), Embedding::from_raw(&raw).unwrap())
            })
            .collect()
    }

    fn borrowed(faces: &[(String, Embedding)]) -> Vec<(&str, &Embedding)> {
        faces.iter().map(|(name, e)| (name.as_str(), e)).collect()
    }

    #[test]
    fn pairs_are_counted_and_rates_are_those_of_a_plain_count() {
        let faces = faces(40, 4);
        let faces = borrowed(&faces);
        let all = AllPairs::of(&faces).unwrap();
        assert_eq!((all.identities(), all.pictures(), all.genuine_pairs()), (40, 160, 240));
        assert_eq!(all.impostor_pairs(), 160 * 159 / 2 - 240);
        for fmr in [1e-1, 1e-2, 1e-3] {
            let threshold = all.threshold(fmr);
            let mut passed = 0;
            for (i, a) in faces.iter().enumerate() {
                for b in &faces[i + 1..] {
                    passed += u64::from(a.0 != b.0 && a.1.similarity(b.1).0 >= threshold);
                }
            }
            let allowed = (fmr * all.impostor_pairs() as f64).floor() as u64;
            assert_eq!(passed, allowed, "{fmr}");
        }
    }

    #[test]
    fn the_table_is_one_that_loads_and_its_intervals_hold_its_thresholds() {
        let faces = faces(40, 4);
        let all = AllPairs::of(&borrowed(&faces)).unwrap();
        let table = all.table("made up", &[1e-1, 1e-2, 1e-3, 1e-5], 1);
        // 12,480 impostor pairs cannot speak about 1e-5.
        assert_eq!(table.points.len(), 3);
        for pair in table.points.windows(2) {
            assert!(pair[1].threshold >= pair[0].threshold && pair[1].tmr <= pair[0].tmr);
        }
        for point in &table.points {
            assert!(point.low <= point.threshold && point.threshold <= point.high && point.high > point.low);
        }
        let rates = all.tmr_at(&[1e-2, 1e-3], 1);
        for rate in rates {
            assert!(rate.low <= rate.value && rate.value <= rate.high, "{rate:?}");
        }
        assert_eq!(all.table("made up", &[1e-2, 1e-3], 1), all.table("made up", &[1e-2, 1e-3], 1));
    }

    #[test]
    fn one_person_or_no_second_picture_gives_nothing() {
        assert!(AllPairs::of(&borrowed(&faces(1, 4))).is_none());
        assert!(AllPairs::of(&borrowed(&faces(4, 1))).is_none());
    }
}
