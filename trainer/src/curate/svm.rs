//! A linear support vector machine for two classes.

/// A hyperplane: positive on the side of the positives.
#[derive(Clone, Debug, PartialEq)]
pub struct Svm {
    /// One weight a dimension.
    pub weights: Vec<f32>,
    /// Added to the product.
    pub bias: f32,
}

/// How hard examples pull.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Cost of a violated margin, of a negative. Positives cost `c` × negatives ÷ positives, so that both classes weigh the same.
    pub c: f32,
    /// Rounds over all examples at most.
    pub rounds: usize,
    /// Ends when no example's gradient is off by more than this.
    pub tolerance: f32,
}

impl Default for Options {
    fn default() -> Self {
        Self { c: 0.001, rounds: 200, tolerance: 0.01 }
    }
}

impl Svm {
    /// Fits by dual coordinate descent with the hinge loss (Hsieh et al. 2008, "A dual coordinate descent method for large-scale linear SVM",
    /// algorithm 1); the bias is a dimension that is always one. Examples are visited in an order drawn from `seed`; the same input gives
    /// the same plane. `None` when a class is empty.
    #[must_use]
    pub fn fit(positives: &[&[f32]], negatives: &[&[f32]], options: Options, seed: u64) -> Option<Self> {
        let dim = positives.first()?.len();
        negatives.first()?;
        let heavier = negatives.len() as f32 / positives.len() as f32;
        let example = |i: usize| -> (&[f32], f32, f32) {
            match i.checked_sub(positives.len()) {
                None => (positives[i], 1.0, options.c * heavier),
                Some(at) => (negatives[at], -1.0, options.c),
            }
        };
        let count = positives.len() + negatives.len();
        let lengths: Vec<f32> = (0..count).map(|i| dot(example(i).0, example(i).0) + 1.0).collect();
        let (mut alpha, mut order) = (vec![0.0_f32; count], (0..count).collect::<Vec<_>>());
        let mut plane = Self { weights: vec![0.0; dim], bias: 0.0 };
        let mut state = seed;
        for _ in 0..options.rounds {
            for i in (1..count).rev() {
                order.swap(i, below(&mut state, i + 1));
            }
            let mut worst = 0.0_f32;
            for &i in &order {
                let (x, y, most) = example(i);
                let gradient = y * plane.score(x) - 1.0;
                // What of the gradient may still be followed inside 0..=most.
                let open = if alpha[i] <= 0.0 {
                    gradient.min(0.0)
                } else if alpha[i] >= most {
                    gradient.max(0.0)
                } else {
                    gradient
                };
                worst = worst.max(open.abs());
                if open != 0.0 {
                    let next = (alpha[i] - gradient / lengths[i]).clamp(0.0, most);
                    let step = (next - alpha[i]) * y;
                    alpha[i] = next;
                    plane.weights.iter_mut().zip(x).for_each(|(w, v)| *w += step * v);
                    plane.bias += step;
                }
            }
            if worst <= options.tolerance {
                break;
            }
        }
        Some(plane)
    }

    /// Signed distance in units of the margin.
    #[must_use]
    pub fn score(&self, x: &[f32]) -> f32 {
        dot(&self.weights, x) + self.bias
    }
}

/// Inner product, in eight sums that the compiler vectorizes.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a8.remainder().iter().zip(b8.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a8.zip(b8) {
        for k in 0..8 {
            sums[k] += x[k] * y[k];
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// Even over 0..n by SplitMix64 (Steele, Lea, Flood 2014).
pub(super) fn below(state: &mut u64, n: usize) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((u128::from(z ^ (z >> 31)) * n as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cloud(seed: u64, count: usize, dim: usize, shift: f32) -> Vec<Vec<f32>> {
        let mut state = seed;
        let mut unit = || below(&mut state, 20_001) as f32 / 10_000.0 - 1.0;
        (0..count).map(|_| (0..dim).map(|k| unit() + if k == 0 { shift } else { 0.0 }).collect()).collect()
    }

    fn refs(cloud: &[Vec<f32>]) -> Vec<&[f32]> {
        cloud.iter().map(Vec::as_slice).collect()
    }

    /// The primal problem: half the squared length of (weights, bias) and the cost of all violations.
    fn primal(svm: &Svm, positives: &[&[f32]], negatives: &[&[f32]], c: f32) -> f32 {
        let heavier = negatives.len() as f32 / positives.len() as f32;
        let hinge = |x: &[f32], y: f32| (1.0 - y * svm.score(x)).max(0.0);
        0.5 * (dot(&svm.weights, &svm.weights) + svm.bias * svm.bias)
            + c * heavier * positives.iter().map(|x| hinge(x, 1.0)).sum::<f32>()
            + c * negatives.iter().map(|x| hinge(x, -1.0)).sum::<f32>()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn nothing_near_the_solution_is_better(
            seed in 0_u64..1000, p in 2_usize..20, n in 2_usize..30, dim in 1_usize..6, shift in -1.0_f32..3.0, c in 0.01_f32..2.0,
        ) {
            let (a, b) = (cloud(seed, p, dim, shift), cloud(seed + 5000, n, dim, 0.0));
            let (positives, negatives) = (refs(&a), refs(&b));
            let options = Options { c, rounds: 3000, tolerance: 1e-4 };
            let svm = Svm::fit(&positives, &negatives, options, seed).unwrap();
            let best = primal(&svm, &positives, &negatives, c);
            for k in 0..=dim {
                for step in [-0.05_f32, 0.05] {
                    let mut other = svm.clone();
                    if k == dim { other.bias += step } else { other.weights[k] += step }
                    prop_assert!(primal(&other, &positives, &negatives, c) >= best - 1e-3 * best.max(1.0));
                }
            }
        }

        #[test]
        fn what_can_be_separated_is(seed in 0_u64..1000, dim in 1_usize..40) {
            let (a, b) = (cloud(seed, 15, dim, 4.0), cloud(seed + 1, 60, dim, -4.0));
            let svm = Svm::fit(&refs(&a), &refs(&b), Options { c: 10.0, ..Options::default() }, 1).unwrap();
            prop_assert!(a.iter().all(|x| svm.score(x) > 0.0) && b.iter().all(|x| svm.score(x) < 0.0));
            prop_assert_eq!(&svm, &Svm::fit(&refs(&a), &refs(&b), Options { c: 10.0, ..Options::default() }, 1).unwrap());
        }
    }

    #[test]
    fn a_class_without_examples_gives_no_plane() {
        let a = cloud(1, 3, 2, 0.0);
        assert!(Svm::fit(&refs(&a), &[], Options::default(), 1).is_none());
        assert!(Svm::fit(&[], &refs(&a), Options::default(), 1).is_none());
    }
}
