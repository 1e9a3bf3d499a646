//! How DeepFace compares two representations (Taigman et al. 2014, section 4): inner product, weighted χ², and the Siamese
//! weighted L1 distance. The weights are learnt on pairs of their own, never on the pairs measured.

use std::fmt;

/// Feature-wise comparison whose weights are learnt from pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// a·b of unit vectors; nothing to learn.
    Inner,
    /// −Σ wᵢ (aᵢ − bᵢ)² / (aᵢ + bᵢ), wᵢ by a linear SVM; for features that are not negative.
    Chi2,
    /// −Σ αᵢ |aᵢ − bᵢ|, αᵢ by logistic regression: the last layer of the Siamese net, with the features fixed.
    SiameseL1,
}

impl Metric {
    /// In the order of the paper.
    pub const ALL: [Self; 3] = [Self::Inner, Self::Chi2, Self::SiameseL1];

    /// What each feature contributes before weighing: larger is less alike, except for the inner product.
    fn terms<'a>(self, a: &'a [f32], b: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
        a.iter().zip(b).map(move |(&a, &b)| match self {
            Self::Inner => a * b,
            Self::Chi2 if a + b > 0.0 => (a - b).powi(2) / (a + b),
            Self::Chi2 => 0.0,
            Self::SiameseL1 => (a - b).abs(),
        })
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Inner => "inner product",
            Self::Chi2 => "weighted chi-square",
            Self::SiameseL1 => "Siamese L1",
        })
    }
}

/// Two unit vectors and whether they show one person.
#[derive(Clone, Copy, Debug)]
pub struct Compared<'a> {
    /// The first.
    pub a: &'a [f32],
    /// The second.
    pub b: &'a [f32],
    /// One person.
    pub same: bool,
}

/// A metric with its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    metric: Metric,
    weights: Vec<f32>,
}

impl Fitted {
    /// Learns the weights on `pairs` of vectors of one length; there must be at least one pair.
    #[must_use]
    pub fn fit(metric: Metric, pairs: &[Compared<'_>]) -> Self {
        let dim = pairs.first().map_or(0, |pair| pair.a.len());
        if metric == Metric::Inner {
            return Self { metric, weights: vec![1.0; dim] };
        }
        // Terms of unit vectors in hundreds of dimensions are tiny and of very different size: each gets the mean one, so that
        // one regularisation suits all.
        let mut mean = vec![0.0_f32; dim];
        for pair in pairs {
            mean.iter_mut().zip(metric.terms(pair.a, pair.b)).for_each(|(m, t)| *m += t / pairs.len() as f32);
        }
        let gain: Vec<f32> = mean.iter().map(|&m| if m > 1e-9 { 1.0 / m } else { 0.0 }).collect();
        let rows: Vec<(Vec<f32>, f32)> = pairs
            .iter()
            .map(|pair| {
                let terms = metric.terms(pair.a, pair.b).zip(&gain).map(|(t, g)| t * g).collect();
                (terms, if pair.same { -1.0 } else { 1.0 })
            })
            .collect();
        let weights = match metric {
            Metric::Chi2 => linear_svm(&rows, 1.0 / dim.max(1) as f64, 40),
            Metric::Inner | Metric::SiameseL1 => logistic(&rows, 40),
        };
        Self { metric, weights: weights.iter().zip(&gain).map(|(w, g)| w * g).collect() }
    }

    /// How alike two vectors are: larger is closer.
    #[must_use]
    pub fn similarity(&self, a: &[f32], b: &[f32]) -> f32 {
        let sum: f32 = self.metric.terms(a, b).zip(&self.weights).map(|(t, w)| t * w).sum();
        if self.metric == Metric::Inner { sum } else { -sum }
    }
}

/// A linear support vector machine with bias, by dual coordinate descent (Hsieh et al. 2008, algorithm 1, hinge loss):
/// min ½‖w‖² + C Σ max(0, 1 − y(w·x + b)). The order of the rows is the same in every pass, shifted.
fn linear_svm(rows: &[(Vec<f32>, f32)], c: f64, passes: usize) -> Vec<f32> {
    let dim = rows.first().map_or(0, |row| row.0.len());
    let mut weights = vec![0.0_f64; dim + 1];
    let mut alphas = vec![0.0_f64; rows.len()];
    let norms: Vec<f64> =
        rows.iter().map(|(x, _)| 1.0 + x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>()).collect();
    for pass in 0..passes {
        for step in 0..rows.len() {
            // A stride that shares no factor with the length visits every row once.
            let i = (step * coprime(rows.len()) + pass * 7) % rows.len();
            let (x, y) = (&rows[i].0, f64::from(rows[i].1));
            let inner: f64 =
                weights[dim] + x.iter().zip(&weights).map(|(v, w)| f64::from(*v) * w).sum::<f64>();
            let next = (alphas[i] - (y * inner - 1.0) / norms[i]).clamp(0.0, c);
            let change = (next - alphas[i]) * y;
            alphas[i] = next;
            if change != 0.0 {
                x.iter().zip(&mut weights).for_each(|(v, w)| *w += change * f64::from(*v));
                weights[dim] += change;
            }
        }
    }
    weights[..dim].iter().map(|&w| w as f32).collect()
}

/// Logistic regression with weights that are not negative (a distance may not shrink when features part), by gradient descent
/// with momentum and a little decay.
fn logistic(rows: &[(Vec<f32>, f32)], passes: usize) -> Vec<f32> {
    let dim = rows.first().map_or(0, |row| row.0.len());
    let (mut weights, mut bias) = (vec![1.0 / dim.max(1) as f64; dim], -1.0_f64);
    let (mut velocity, mut bias_velocity) = (vec![0.0_f64; dim], 0.0);
    for _ in 0..passes * 5 {
        let (mut gradient, mut bias_gradient) = (vec![0.0_f64; dim], 0.0);
        for (x, y) in rows {
            let inner: f64 = bias + x.iter().zip(&weights).map(|(v, w)| f64::from(*v) * w).sum::<f64>();
            let y = f64::from(*y);
            let slope = -y / (1.0 + (y * inner).exp()) / rows.len() as f64;
            x.iter().zip(&mut gradient).for_each(|(v, g)| *g += slope * f64::from(*v));
            bias_gradient += slope;
        }
        let rate = 2.0 / dim.max(1) as f64;
        for ((w, v), g) in weights.iter_mut().zip(&mut velocity).zip(&gradient) {
            *v = 0.9 * *v - rate * (g + 1e-4 * *w);
            *w = (*w + *v).max(0.0);
        }
        bias_velocity = 0.9 * bias_velocity - 0.5 * bias_gradient;
        bias += bias_velocity;
    }
    weights.iter().map(|&w| w as f32).collect()
}

/// A number near 0.618 n without a common factor with n.
fn coprime(n: usize) -> usize {
    let gcd = |mut a: usize, mut b: usize| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    (1..=n).map(|k| (n * 618 / 1000 + k) % n.max(1)).find(|&k| k > 0 && gcd(k, n) == 1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(i: usize) -> f32 {
        (i.wrapping_mul(2_654_435_761) >> 7) as f32 % 1000.0 / 1000.0
    }

    /// Six features of which the first two tell people apart and the others are noise.
    fn data() -> Vec<(Vec<f32>, Vec<f32>, bool)> {
        (0..200)
            .map(|i| {
                let same = i % 2 == 0;
                let person = noise(i * 31);
                let other = if same { person } else { noise(i * 17 + 5) };
                let face = |p: f32, k: usize| -> Vec<f32> {
                    let more = (0..4).map(|f| noise(i * 13 + k * 101 + f * 7));
                    let jitter = 0.02 * noise(i * 3 + k);
                    [p + jitter, 1.0 - p + jitter].into_iter().chain(more).collect()
                };
                (face(person, 1), face(other, 2), same)
            })
            .collect()
    }

    /// Share of pairs on the right side of the best threshold.
    fn accuracy(fitted: &Fitted, pairs: &[Compared<'_>]) -> f64 {
        let scores: Vec<(f32, bool)> = pairs.iter().map(|p| (fitted.similarity(p.a, p.b), p.same)).collect();
        let at = |t: f32| scores.iter().filter(|(s, same)| (*s >= t) == *same).count();
        scores.iter().map(|s| at(s.0)).max().unwrap_or(0) as f64 / scores.len() as f64
    }

    #[test]
    fn learnt_weights_find_the_features_that_matter() {
        let data = data();
        let pairs: Vec<Compared<'_>> =
            data.iter().map(|(a, b, same)| Compared { a, b, same: *same }).collect();
        let (learn, measure) = pairs.split_at(100);
        for metric in [Metric::Chi2, Metric::SiameseL1] {
            let even = Fitted { metric, weights: vec![1.0; 6] };
            let fitted = Fitted::fit(metric, learn);
            let (before, after) = (accuracy(&even, measure), accuracy(&fitted, measure));
            assert!(after > 0.85 && after > before, "{metric}: {before} {after}, {:?}", fitted.weights);
        }
    }

    #[test]
    fn formulas_on_small_vectors() {
        let (a, b) = ([0.6_f32, 0.8, 0.0], [0.8_f32, 0.6, 0.0]);
        let with = |metric| Fitted { metric, weights: vec![1.0, 2.0, 5.0] }.similarity(&a, &b);
        assert!((with(Metric::Inner) - (0.48 + 0.96)).abs() < 1e-6);
        assert!((with(Metric::Chi2) + 3.0 * 0.04 / 1.4).abs() < 1e-6);
        assert!((with(Metric::SiameseL1) + 0.2 + 0.4).abs() < 1e-6);
        assert_eq!(Fitted::fit(Metric::Inner, &[Compared { a: &a, b: &b, same: true }]).weights, [1.0; 3]);
    }

    #[test]
    fn the_svm_separates_with_the_widest_margin() {
        // Points at ±1 and ±3 on the first axis: the margin is set by ±1, so w = 1 and nothing of the second axis.
        let rows = [
            (vec![1.0, 0.5], 1.0),
            (vec![3.0, -0.5], 1.0),
            (vec![-1.0, 0.5], -1.0),
            (vec![-3.0, -0.5], -1.0),
        ];
        let weights = linear_svm(&rows, 100.0, 2000);
        assert!((weights[0] - 1.0).abs() < 0.02 && weights[1].abs() < 0.02, "{weights:?}");
        for n in [1, 2, 7, 10, 1000] {
            let k = coprime(n);
            let visited: std::collections::BTreeSet<usize> = (0..n).map(|s| s * k % n).collect();
            assert_eq!(visited.len(), n);
        }
    }
}
