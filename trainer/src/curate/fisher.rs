//! Fisher vectors of faces (Simonyan et al. 2013, "Fisher Vector Faces in the Wild"): the descriptor that Parkhi et al. 2015 ranked with.
//!
//! Dense local descriptors, reduced by principal components and extended by their place, are held against a mixture of Gaussians with
//! diagonal covariances: how far their mean and spread under each Gaussian lie off the mixture's own is the picture's vector. Improved as by
//! Perronnin et al. 2010: signed square roots, then length one. Smaller than the paper's (512 Gaussians, 64 components, five scales).

use std::f32::consts::TAU;

use super::local::{Components, DIM, Raw, k_means, nearest};
use super::svm::dot;

/// Gaussians of the mixture.
const GAUSSIANS: usize = 64;
/// Numbers of a Fisher vector: means and spreads.
pub const FISHER_DIM: usize = 2 * GAUSSIANS * DIM;
/// Rounds of expectation and maximization.
const ROUNDS: usize = 25;
/// A Gaussian is no narrower than this share of the sample's own variance, so that few points cannot make it a spike.
const LEAST_VARIANCE: f32 = 0.01;
/// A Gaussian that less of a descriptor belongs to is passed over.
const LEAST_SHARE: f32 = 1e-4;

/// A mixture of Gaussians with diagonal covariances over reduced descriptors.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixture {
    components: Components,
    /// `[GAUSSIANS]`, summing to one.
    weights: Vec<f32>,
    /// `[GAUSSIANS, DIM]`
    means: Vec<f32>,
    /// `[GAUSSIANS, DIM]`, over zero.
    variances: Vec<f32>,
}

impl Mixture {
    /// Learns from descriptors by expectation maximization (Dempster et al. 1977), begun from k-means; the same for the same sample and
    /// seed. `None` where there are fewer than ten a Gaussian.
    #[must_use]
    pub fn learn(sample: &[Raw], seed: u64) -> Option<Self> {
        if sample.len() < 10 * GAUSSIANS {
            return None;
        }
        let components = Components::learn(sample, seed);
        let points: Vec<[f32; DIM]> = sample.iter().map(|raw| components.reduce(raw)).collect();
        let overall = spread(&points);
        let means = k_means(&points, GAUSSIANS, seed);
        // Before the first round every point belongs to its nearest word alone.
        let mut sums = Sums::default();
        for point in &points {
            sums.add(nearest(&means, point), 1.0, point);
        }
        let mut mixture = Self { components, weights: vec![], means, variances: vec![] };
        mixture.maximize(&sums, &overall);
        for _ in 0..ROUNDS {
            let mut sums = Sums::default();
            let offsets = mixture.offsets();
            for point in &points {
                for (at, share) in mixture.shares(&offsets, point).into_iter().enumerate() {
                    if share > LEAST_SHARE {
                        sums.add(at, share, point);
                    }
                }
            }
            mixture.maximize(&sums, &overall);
        }
        Some(mixture)
    }

    fn maximize(&mut self, sums: &Sums, overall: &[f32; DIM]) {
        let all: f32 = sums.shares.iter().sum();
        // A Gaussian that nothing belongs to keeps its place with a weight of next to nothing.
        self.weights = sums.shares.iter().map(|&share| (share / all).max(1e-6)).collect();
        self.variances.resize(GAUSSIANS * DIM, 0.0);
        for at in 0..GAUSSIANS {
            for (k, &all) in overall.iter().enumerate() {
                let (i, least) = (at * DIM + k, (all * LEAST_VARIANCE).max(1e-8));
                if sums.shares[at] > LEAST_SHARE {
                    self.means[i] = sums.first[i] / sums.shares[at];
                    self.variances[i] =
                        (sums.second[i] / sums.shares[at] - self.means[i] * self.means[i]).max(least);
                } else if self.variances[i] < least {
                    self.variances[i] = all.max(least);
                }
            }
        }
    }

    /// The part of each Gaussian's logarithm that no point changes.
    fn offsets(&self) -> Vec<f32> {
        let one = |(weight, variances): (&f32, &[f32])| {
            weight.ln() - 0.5 * variances.iter().map(|v| (TAU * v).ln()).sum::<f32>()
        };
        self.weights.iter().zip(self.variances.chunks_exact(DIM)).map(one).collect()
    }

    /// How much of `point` belongs to each Gaussian; sums to one.
    fn shares(&self, offsets: &[f32], point: &[f32; DIM]) -> Vec<f32> {
        let mut shares: Vec<f32> = offsets.to_vec();
        for (at, share) in shares.iter_mut().enumerate() {
            let own = at * DIM..(at + 1) * DIM;
            let apart = self.means[own.clone()].iter().zip(&self.variances[own]).zip(point);
            *share -= 0.5 * apart.map(|((m, v), p)| (p - m) * (p - m) / v).sum::<f32>();
        }
        let most = shares.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        shares.iter_mut().for_each(|share| *share = (*share - most).exp());
        let all: f32 = shares.iter().sum();
        shares.iter_mut().for_each(|share| *share /= all);
        shares
    }

    /// The improved Fisher vector of a picture's descriptors, `[FISHER_DIM]`, of length one; zeros where there are none.
    #[must_use]
    pub fn vector(&self, raw: &[Raw]) -> Vec<f32> {
        let mut vector = vec![0.0_f32; FISHER_DIM];
        let (firsts, seconds) = vector.split_at_mut(GAUSSIANS * DIM);
        let offsets = self.offsets();
        for raw in raw {
            let point = self.components.reduce(raw);
            for (at, share) in self.shares(&offsets, &point).into_iter().enumerate() {
                if share <= LEAST_SHARE {
                    continue;
                }
                for (k, value) in point.iter().enumerate() {
                    let i = at * DIM + k;
                    let off = (value - self.means[i]) / self.variances[i].sqrt();
                    firsts[i] += share * off;
                    seconds[i] += share * (off * off - 1.0);
                }
            }
        }
        // What all would be divided by, the number of descriptors, falls out with the length; the square roots of the weights do not.
        for (at, weight) in self.weights.iter().enumerate() {
            let own = at * DIM..(at + 1) * DIM;
            firsts[own.clone()].iter_mut().for_each(|v| *v /= weight.sqrt());
            seconds[own].iter_mut().for_each(|v| *v /= (2.0 * weight).sqrt());
        }
        vector.iter_mut().for_each(|v| *v = v.signum() * v.abs().sqrt());
        let length = dot(&vector, &vector).sqrt();
        if length > 1e-6 {
            vector.iter_mut().for_each(|v| *v /= length);
        }
        vector
    }

    /// As bytes, for the store.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let own = self.weights.iter().chain(&self.means).chain(&self.variances).copied();
        self.components.values().chain(own).flat_map(f32::to_le_bytes).collect()
    }

    /// From the store's bytes; `None` for another length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        if values.len() != Components::VALUES + GAUSSIANS * (1 + 2 * DIM) || bytes.len() != values.len() * 4 {
            return None;
        }
        let (weights, rest) = values[Components::VALUES..].split_at(GAUSSIANS);
        let (means, variances) = rest.split_at(GAUSSIANS * DIM);
        Some(Self {
            components: Components::from_values(&values),
            weights: weights.to_vec(),
            means: means.to_vec(),
            variances: variances.to_vec(),
        })
    }
}

/// What maximization needs of all points.
struct Sums {
    shares: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Default for Sums {
    fn default() -> Self {
        let sums = vec![0.0; GAUSSIANS * DIM];
        Self { shares: vec![0.0; GAUSSIANS], first: sums.clone(), second: sums }
    }
}

impl Sums {
    fn add(&mut self, at: usize, share: f32, point: &[f32; DIM]) {
        self.shares[at] += share;
        for (k, value) in point.iter().enumerate() {
            self.first[at * DIM + k] += share * value;
            self.second[at * DIM + k] += share * value * value;
        }
    }
}

/// Variance of each number over all points.
fn spread(points: &[[f32; DIM]]) -> [f32; DIM] {
    let count = points.len() as f32;
    std::array::from_fn(|k| {
        let mean = points.iter().map(|p| p[k]).sum::<f32>() / count;
        points.iter().map(|p| (p[k] - mean).powi(2)).sum::<f32>() / count
    })
}

#[cfg(test)]
mod tests {
    use super::super::local::describe;
    use super::super::local::tests::picture;
    use super::*;

    fn sample() -> Vec<Raw> {
        (0..8).flat_map(|seed| describe(&picture(seed + 100))).collect()
    }

    /// Mean of the logarithm of the points' density.
    fn likelihood(mixture: &Mixture, sample: &[Raw]) -> f64 {
        let offsets = mixture.offsets();
        let one = |raw: &Raw| {
            let point = mixture.components.reduce(raw);
            let log = |at: usize| {
                let own = at * DIM..(at + 1) * DIM;
                let apart = mixture.means[own.clone()].iter().zip(&mixture.variances[own]).zip(&point);
                f64::from(offsets[at] - 0.5 * apart.map(|((m, v), p)| (p - m) * (p - m) / v).sum::<f32>())
            };
            (0..GAUSSIANS).map(|at| log(at).exp()).sum::<f64>().ln()
        };
        sample.iter().map(one).sum::<f64>() / sample.len() as f64
    }

    #[test]
    fn every_round_of_learning_fits_better_and_nothing_near_fits_better_still() {
        let sample = sample();
        let mixture = Mixture::learn(&sample, 1).unwrap();
        assert!((mixture.weights.iter().sum::<f32>() - 1.0).abs() < 1e-3);
        assert!(mixture.variances.iter().all(|v| *v > 0.0 && v.is_finite()));
        let learnt = likelihood(&mixture, &sample);
        // A maximum of the likelihood: means and spreads a little off are worse.
        for (means, variances) in [(0.05, 1.0), (-0.05, 1.0), (0.0, 1.3), (0.0, 0.7)] {
            let mut off = mixture.clone();
            let spreads = off.variances.clone();
            off.means.iter_mut().zip(&spreads).for_each(|(m, v)| *m += means * v.sqrt());
            off.variances.iter_mut().for_each(|v| *v *= variances);
            assert!(likelihood(&off, &sample) < learnt, "{means} {variances}");
        }
    }

    #[test]
    fn a_vector_is_the_gradient_of_the_likelihood() {
        // By a difference quotient: the gradient by a mean is what the vector holds before roots, up to one common factor.
        let sample = sample();
        let mixture = Mixture::learn(&sample, 1).unwrap();
        let raw = describe(&picture(1));
        let vector = mixture.vector(&raw);
        let squared = |i: usize| f64::from(vector[i].signum() * vector[i] * vector[i]);
        let mut ratios = Vec::new();
        for i in (0..GAUSSIANS * DIM).step_by(97).filter(|&i| squared(i).abs() > 1e-4) {
            let (mut up, mut down) = (mixture.clone(), mixture.clone());
            let deviation = mixture.variances[i].sqrt();
            let step = 0.02 * deviation;
            up.means[i] += step;
            down.means[i] -= step;
            let slope = (likelihood(&up, &raw) - likelihood(&down, &raw)) / f64::from(2.0 * step);
            let expected = slope * f64::from(deviation / mixture.weights[i / DIM].sqrt());
            ratios.push(squared(i) / expected);
        }
        assert!(ratios.len() > 5, "{ratios:?}");
        let middle = ratios.iter().sum::<f64>() / ratios.len() as f64;
        assert!(ratios.iter().all(|r| (r / middle - 1.0).abs() < 0.1), "{ratios:?}");
    }

    #[test]
    fn the_same_picture_in_other_light_is_near_and_another_is_not() {
        let mixture = Mixture::learn(&sample(), 1).unwrap();
        let vector = |picture: &[f32]| mixture.vector(&describe(picture));
        let one = picture(1);
        let light: Vec<f32> = one.iter().map(|v| v * 0.7 + 40.0).collect();
        let a = vector(&one);
        assert_eq!(a.len(), FISHER_DIM);
        assert!((dot(&a, &a) - 1.0).abs() < 1e-4);
        assert!(dot(&a, &vector(&light)) > 0.9, "{}", dot(&a, &vector(&light)));
        assert!(dot(&a, &vector(&picture(2))) < 0.6, "{}", dot(&a, &vector(&picture(2))));
        assert_eq!(mixture.vector(&[]), vec![0.0; FISHER_DIM]);
        assert_eq!(Mixture::from_bytes(&mixture.to_bytes()).unwrap(), mixture);
        assert!(Mixture::from_bytes(&[0; 8]).is_none() && Mixture::learn(&[], 1).is_none());
    }
}
