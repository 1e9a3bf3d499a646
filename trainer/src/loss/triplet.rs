//! The triplet loss with online mining (FaceNet, Schroff et al. 2015, sections 3.1 and 3.2), on whole-batch tensors.
//!
//! Mining looks at the n×n squared distances of one batch. Every step of it is a tensor operation of fixed shape on the device that
//! holds the batch: nothing is read back, no triplet is listed. What is not chosen has weight zero instead of being left out, since a list
//! would need its length on the host. Negatives are found by sorting each row once and searching in it, so that
//! time is n² log n and memory a few n×n matrices: 13 MB each for the paper's 1,800 faces.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Which negative an anchor and a positive are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Mining {
    /// All pairs of anchor and positive, each with a negative drawn evenly from those farther than the positive but inside the margin:
    /// ‖a−p‖² < ‖a−n‖² < ‖a−p‖² + α. A pair without one contributes nothing.
    SemiHard,
    /// All pairs, each with the negative nearest to its anchor.
    Hardest,
    /// One triplet an anchor: the farthest positive and the nearest negative (Hermans et al. 2017, section 2).
    BatchHard,
    /// All pairs, each with a negative drawn evenly from all: what mining is compared with.
    Random,
}

/// The triplets of one batch.
#[derive(Debug)]
pub struct Mined {
    /// `[n, n]`: for anchor i and positive j the number of the negative; any number where `chosen` is false.
    pub negative: Tensor,
    /// `[n, n]` bool: whether (i, j, negative) is a triplet.
    pub chosen: Tensor,
}

/// The loss of one batch and what it was made of, all scalars on the batch's device.
#[derive(Debug)]
pub struct TripletLoss {
    /// Mean over the chosen triplets of max(0, ‖a−p‖² − ‖a−n‖² + α); zero, with gradients of zero, when none was chosen.
    pub loss: Tensor,
    /// Triplets chosen.
    pub triplets: Tensor,
    /// Those of them that cost something.
    pub active: Tensor,
    /// Pairs of anchor and positive in the batch.
    pub pairs: Tensor,
}

/// The paper's margin α.
pub const MARGIN: f64 = 0.2;

/// Squared distances between the rows of `x` `[n, dim]` of length one: `[n, n]`, 0 to 4, 2 − 2·cos. Rounding may leave
/// −1e-6 to 1e-6 where 0 is due.
pub fn squared_distances(x: &Tensor) -> Tensor {
    x.matmul(&x.tr()) * -2.0 + 2.0
}

/// Chooses triplets. `distances` is `[n, n]`, `labels` `[n]` int64 on the same device; faces with a label of their own are nobody's
/// positive and everybody's negative. `draw` selects the random numbers: the same value gives the same triplets.
///
/// A batch in which a pair has no negative of the kind asked for leaves that pair out; one person alone in the batch leaves all out.
pub fn mine(distances: &Tensor, labels: &Tensor, mining: Mining, margin: f64, draw: u64) -> Mined {
    let _no_grad = tch::no_grad_guard();
    let distances = distances.detach();
    let same = labels.unsqueeze(0).eq_tensor(&labels.unsqueeze(1));
    let positive = same.logical_and(&same.logical_not().fill_diagonal_(1, false).logical_not());
    // Each row: its negatives from near to far, then infinity for the rest.
    let (far_last, order) = distances.masked_fill(&same, f64::INFINITY).sort(1, false);
    let negatives = same.logical_not().sum_dim_intlist(1, true, Kind::Int64);
    let some = negatives.gt(0);
    let (place, chosen) = match mining {
        Mining::SemiHard => {
            let from = distances.searchsorted(&far_last, false, true, "right", None::<Tensor>);
            let to = (&distances + margin).searchsorted(&far_last, false, false, "left", None::<Tensor>);
            let count = (to - &from).clamp_min(0);
            (from + drawn(&count, draw), positive.logical_and(&count.gt(0)))
        }
        Mining::Hardest => (Tensor::zeros_like(&order), positive.logical_and(&some)),
        Mining::BatchHard => {
            let farthest = distances.masked_fill(&positive.logical_not(), f64::NEG_INFINITY).argmax(1, true);
            let one = Tensor::zeros_like(&positive).scatter_value(1, &farthest, 1);
            (Tensor::zeros_like(&order), positive.logical_and(&one).logical_and(&some))
        }
        Mining::Random => {
            let count = negatives.expand_as(&order);
            (drawn(&count, draw), positive.logical_and(&some))
        }
    };
    let last = distances.size()[0] - 1;
    Mined { negative: order.gather(1, &place.clamp(0, last), false), chosen }
}

/// Mines and computes the loss of `embeddings` `[n, dim]`, rows of length one, with `labels` `[n]`.
pub fn loss(embeddings: &Tensor, labels: &Tensor, mining: Mining, margin: f64, draw: u64) -> TripletLoss {
    let distances = squared_distances(embeddings);
    let mined = mine(&distances, labels, mining, margin, draw);
    loss_of(&distances, labels, &mined, margin)
}

/// The loss of triplets already mined.
pub fn loss_of(distances: &Tensor, labels: &Tensor, mined: &Mined, margin: f64) -> TripletLoss {
    let weight = mined.chosen.to_kind(distances.kind());
    let hinge = (distances - distances.gather(1, &mined.negative, false) + margin).relu() * &weight;
    let triplets = weight.sum(Kind::Float);
    let same = labels.unsqueeze(0).eq_tensor(&labels.unsqueeze(1));
    TripletLoss {
        loss: hinge.sum(Kind::Float) / triplets.clamp_min(1.0),
        active: hinge.detach().gt(0.0).sum(Kind::Float),
        pairs: same.sum(Kind::Float) - labels.size()[0],
        triplets,
    }
}

/// For each entry of `count` `[n, n]` an even draw from 0..count (0 where it is 0), a function of `draw` and the entry's place.
///
/// A hash of 31-bit numbers rather than libtorch's generator: no state to save, and the numbers are made where they are used.
fn drawn(count: &Tensor, draw: u64) -> Tensor {
    const MASK: i64 = 0x7fff_ffff;
    let size = count.size();
    // Any 31 bits of a well mixed seed; the multiplier is SplitMix64's.
    let start = (draw.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as i64;
    let mut h = Tensor::arange(size.iter().product::<i64>(), (Kind::Int64, count.device())) + start;
    for (shift, factor) in [(16, 0x2c1b_3c6d), (15, 0x297a_2d39), (13, 0x1b56_c4e9)] {
        h = h.bitwise_xor_tensor(&h.bitwise_right_shift_tensor_scalar(shift));
        // Below 2³¹ · 2³⁰: no overflow.
        h = (h.bitwise_and(MASK) * factor).bitwise_and(MASK);
    }
    h = h.bitwise_xor_tensor(&h.bitwise_right_shift_tensor_scalar(15));
    let unit = h.bitwise_right_shift_tensor_scalar(7).to_kind(Kind::Double) * (1.0 / f64::from(1 << 24));
    let place = (unit.reshape(&size) * count).floor().to_kind(Kind::Int64);
    place.minimum(&(count - 1)).clamp_min(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::distill::unit;
    use proptest::prelude::*;
    use tch::Device;

    /// Distances and labels on the host, the plain way round.
    struct Batch {
        distances: Tensor,
        labels: Tensor,
        d: Vec<Vec<f32>>,
        l: Vec<i64>,
    }

    fn batch(l: &[i64], seed: i64, spread: f64) -> Batch {
        tch::manual_seed(seed);
        let n = l.len() as i64;
        // A common direction makes faces as close as an early net does; copies make ties.
        let mut x = Tensor::randn([n, 8], (Kind::Float, Device::Cpu)) * spread + 1.0;
        if n > 3 {
            x.get(0).copy_(&x.get(2));
        }
        x = unit(&x);
        let distances = squared_distances(&x);
        let d = Vec::<Vec<f32>>::try_from(&distances).unwrap();
        Batch { distances, labels: Tensor::from_slice(l), d, l: l.to_vec() }
    }

    impl Batch {
        fn mined(&self, mining: Mining, draw: u64) -> (Vec<Vec<i64>>, Vec<Vec<bool>>) {
            let mined = mine(&self.distances, &self.labels, mining, MARGIN, draw);
            let chosen = Vec::<Vec<i64>>::try_from(mined.chosen.to_kind(Kind::Int64)).unwrap();
            let negative = Vec::<Vec<i64>>::try_from(mined.negative).unwrap();
            (negative, chosen.into_iter().map(|row| row.into_iter().map(|c| c == 1).collect()).collect())
        }

        fn positive(&self, a: usize, p: usize) -> bool {
            a != p && self.l[a] == self.l[p]
        }

        fn negatives(&self, a: usize) -> Vec<usize> {
            (0..self.l.len()).filter(|&n| self.l[n] != self.l[a]).collect()
        }

        /// The negatives that the rule allows, by definition.
        fn allowed(&self, mining: Mining, a: usize, p: usize) -> Vec<usize> {
            if !self.positive(a, p) {
                return vec![];
            }
            let (d, all) = (&self.d[a], self.negatives(a));
            let nearest = all.iter().map(|&n| d[n]).fold(f32::INFINITY, f32::min);
            // The same sum in the same precision as the tensor's.
            let beyond = d[p] + MARGIN as f32;
            let farthest = (0..d.len()).filter(|&q| self.positive(a, q)).map(|q| d[q]).fold(-9.0, f32::max);
            match mining {
                Mining::SemiHard => all.into_iter().filter(|&n| d[p] < d[n] && d[n] < beyond).collect(),
                Mining::Hardest => all.into_iter().filter(|&n| d[n] == nearest).collect(),
                Mining::BatchHard if d[p] < farthest => vec![],
                Mining::BatchHard => all.into_iter().filter(|&n| d[n] == nearest).collect(),
                Mining::Random => all,
            }
        }
    }

    const ALL: [Mining; 4] = [Mining::SemiHard, Mining::Hardest, Mining::BatchHard, Mining::Random];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn each_rule_chooses_what_its_definition_allows(
            labels in prop::collection::vec(0_i64..6, 2..24), seed in 0_i64..1000, spread in 0.02_f64..3.0, draw in 0_u64..9,
        ) {
            let batch = batch(&labels, seed, spread);
            for mining in ALL {
                let (negative, chosen) = batch.mined(mining, draw);
                for a in 0..labels.len() {
                    let mut of_anchor = 0;
                    for p in 0..labels.len() {
                        let allowed = batch.allowed(mining, a, p);
                        // Of equally far positives batch-hard takes one: counted below.
                        if mining != Mining::BatchHard {
                            prop_assert_eq!(chosen[a][p], !allowed.is_empty(), "{:?} {} {}", mining, a, p);
                        }
                        if chosen[a][p] {
                            of_anchor += 1;
                            prop_assert!(allowed.contains(&(negative[a][p] as usize)), "{:?} {} {}", mining, a, p);
                        }
                    }
                    let any = (0..labels.len()).any(|p| !batch.allowed(mining, a, p).is_empty());
                    if mining == Mining::BatchHard {
                        prop_assert_eq!(of_anchor, usize::from(any));
                    }
                }
            }
        }

        #[test]
        fn the_loss_is_the_mean_over_the_chosen_triplets(
            labels in prop::collection::vec(0_i64..5, 2..16), seed in 0_i64..1000, spread in 0.05_f64..2.0,
        ) {
            let batch = batch(&labels, seed, spread);
            for mining in ALL {
                let (negative, chosen) = batch.mined(mining, 4);
                let mined = mine(&batch.distances, &batch.labels, mining, MARGIN, 4);
                let loss = loss_of(&batch.distances, &batch.labels, &mined, MARGIN);
                let (mut sum, mut count, mut active, mut pairs) = (0.0, 0, 0, 0);
                for a in 0..labels.len() {
                    for p in 0..labels.len() {
                        pairs += usize::from(batch.positive(a, p));
                        if chosen[a][p] {
                            let hinge = batch.d[a][p] - batch.d[a][negative[a][p] as usize] + MARGIN as f32;
                            count += 1;
                            active += usize::from(hinge > 0.0);
                            sum += f64::from(hinge.max(0.0));
                        }
                    }
                }
                prop_assert!((loss.loss.double_value(&[]) - sum / f64::from(count.max(1))).abs() < 1e-5);
                prop_assert_eq!(loss.triplets.double_value(&[]) as i32, count);
                prop_assert_eq!(loss.active.double_value(&[]) as usize, active);
                prop_assert_eq!(loss.pairs.double_value(&[]) as usize, pairs);
            }
        }
    }

    #[test]
    fn without_a_semi_hard_negative_a_pair_is_left_out_and_the_loss_is_zero_with_finite_gradients() {
        // Two people far apart: every negative is beyond the margin.
        let x = Tensor::from_slice2(&[[1.0_f32, 0.0], [1.0, 0.01], [-1.0, 0.0], [-1.0, 0.01]]);
        let x = x.set_requires_grad(true);
        let labels = Tensor::from_slice(&[0_i64, 0, 1, 1]);
        let of = |mining| loss(&unit(&x), &labels, mining, MARGIN, 0);
        let semi = of(Mining::SemiHard);
        assert_eq!((semi.triplets.double_value(&[]), semi.pairs.double_value(&[])), (0.0, 4.0));
        assert_eq!(semi.loss.double_value(&[]), 0.0);
        semi.loss.backward();
        assert_eq!(x.grad().abs().sum(Kind::Float).double_value(&[]), 0.0);
        // The other rules keep the pairs; none costs anything.
        let hardest = of(Mining::Hardest);
        assert_eq!((hardest.triplets.double_value(&[]), hardest.active.double_value(&[])), (4.0, 0.0));
        // A collapsed net: no negative is farther than the positive, so nothing is semi-hard.
        let same = Tensor::ones([4, 2], (Kind::Float, Device::Cpu));
        assert_eq!(loss(&unit(&same), &labels, Mining::SemiHard, MARGIN, 0).triplets.double_value(&[]), 0.0);
        // One person alone: no negative at all.
        let alone = Tensor::zeros([4], (Kind::Int64, Device::Cpu));
        for mining in ALL {
            let loss = loss(&unit(&x), &alone, mining, MARGIN, 0);
            assert_eq!((loss.triplets.double_value(&[]), loss.loss.double_value(&[])), (0.0, 0.0));
        }
    }

    #[test]
    fn draws_are_even_repeatable_and_differ_between_steps() {
        let count = Tensor::full([200, 200], 7, (Kind::Int64, Device::Cpu));
        let draw = |at| Vec::<i64>::try_from(drawn(&count, at).flatten(0, -1)).unwrap();
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
        let mut seen = [0_u32; 7];
        draw(3).iter().for_each(|&i| seen[i as usize] += 1);
        // 40,000 / 7 = 5,714 each with a deviation of 70.
        assert!(seen.iter().all(|n| (5300..6130).contains(n)), "{seen:?}");
    }

    #[test]
    fn descending_the_loss_parts_two_people() {
        tch::manual_seed(9);
        let mut x = Tensor::randn([8, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let labels = Tensor::from_slice(&[0_i64, 0, 0, 0, 1, 1, 1, 1]);
        for step in 0..300 {
            let loss = loss(&unit(&x), &labels, Mining::Random, MARGIN, step);
            loss.loss.backward();
            let mut grad = x.grad();
            let _ = tch::no_grad(|| x.g_add_(&(&grad * -0.5)));
            let _ = grad.zero_();
        }
        let d = squared_distances(&unit(&x));
        let same = labels.unsqueeze(0).eq_tensor(&labels.unsqueeze(1)).to_kind(Kind::Float);
        let mean = |mask: &Tensor, pairs: f64| (&d * mask).sum(Kind::Float).double_value(&[]) / pairs;
        // 12 + 12 ordered pairs of one person, 32 of two.
        let (within, between) = (mean(&same, 24.0), mean(&(1.0 - &same), 32.0));
        assert!(within + MARGIN < between, "{within} {between}");
    }
}
