//! Verification figures from sorted similarities.
//!
//! A pair is accepted when its similarity is at least the threshold. Nothing is interpolated except the equal error rate:
//! with n impostor pairs, a false-accept rate f allows ⌊f·n⌋ of them, and the threshold lies just above the next one. With
//! 500 impostor pairs a rate of 1e-3 therefore allows none.

/// Similarity of a pair, and whether it is of one person.
pub type Score = (f32, bool);

/// Similarities of pairs of one person and of two, each sorted downwards.
#[derive(Clone, Debug, PartialEq)]
pub struct Roc {
    genuine: Vec<f32>,
    impostor: Vec<f32>,
}

/// A share of genuine pairs accepted, and at what cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OperatingPoint {
    /// Genuine pairs accepted, 0 to 1.
    pub tar: f64,
    /// Impostor pairs accepted, 0 to 1; at most the rate asked for.
    pub far: f64,
    /// The least similarity accepted.
    pub threshold: f32,
}

impl Roc {
    /// Sorts `scores`, pairs of similarity and whether it is of one person. `None` without at least one of each sort, or
    /// with a similarity that is not a number.
    #[must_use]
    pub fn new(scores: &[Score]) -> Option<Self> {
        let sorted = |same: bool| {
            let mut values: Vec<f32> = scores.iter().filter(|s| s.1 == same).map(|s| s.0).collect();
            values.sort_unstable_by(|a, b| b.total_cmp(a));
            values
        };
        let roc = Self { genuine: sorted(true), impostor: sorted(false) };
        let usable = !roc.genuine.is_empty() && !roc.impostor.is_empty();
        (usable && scores.iter().all(|s| !s.0.is_nan())).then_some(roc)
    }

    /// The most genuine pairs accepted at a false-accept rate of at most `far`.
    #[must_use]
    pub fn at_far(&self, far: f64) -> OperatingPoint {
        let allowed = (far * self.impostor.len() as f64).floor() as usize;
        // Everything may pass at a rate of one.
        let threshold = self.impostor.get(allowed).map_or(f32::NEG_INFINITY, |next| next.next_up());
        OperatingPoint {
            tar: share_from(&self.genuine, threshold),
            far: share_from(&self.impostor, threshold),
            threshold,
        }
    }

    /// The rate at which as many genuine pairs are refused as impostor pairs accepted, linear between the two neighbouring
    /// thresholds.
    #[must_use]
    pub fn equal_error_rate(&self) -> f64 {
        let mut before = (0.0, 1.0);
        for threshold in merged(&self.genuine, &self.impostor) {
            let accepted = share_from(&self.impostor, threshold);
            let refused = 1.0 - share_from(&self.genuine, threshold);
            if accepted >= refused {
                let (accepted_before, refused_before): (f64, f64) = before;
                let gap_before = refused_before - accepted_before;
                let gap = refused - accepted;
                let part = if gap_before > gap { gap_before / (gap_before - gap) } else { 1.0 };
                return accepted_before + part * (accepted - accepted_before);
            }
            before = (accepted, refused);
        }
        // The lowest threshold accepts everything, so that the loop has returned.
        0.5
    }

    /// Errors at `threshold`: genuine pairs refused and impostor pairs accepted, as counts.
    #[must_use]
    pub fn errors_at(&self, threshold: f32) -> Errors {
        Errors {
            refused: self.genuine.len() - count_from(&self.genuine, threshold),
            genuine: self.genuine.len(),
            accepted: count_from(&self.impostor, threshold),
            impostor: self.impostor.len(),
        }
    }

    /// The threshold with the best accuracy, halfway between neighbouring similarities; of equally good ones the lowest.
    #[must_use]
    pub fn best_threshold(&self) -> f32 {
        let order = merged(&self.genuine, &self.impostor);
        let edges = [order[0] + 1e-3, order[order.len() - 1] - 1e-3];
        let between = order.windows(2).map(|pair| pair[0] / 2.0 + pair[1] / 2.0);
        let candidates = std::iter::once(edges[0]).chain(between).chain(std::iter::once(edges[1]));
        let mut best = (usize::MAX, edges[0]);
        for threshold in candidates {
            let wrong = self.genuine.len() - count_from(&self.genuine, threshold)
                + count_from(&self.impostor, threshold);
            // Candidates fall, so that an equal one is lower.
            if wrong <= best.0 {
                best = (wrong, threshold);
            }
        }
        best.1
    }
}

/// Errors at one threshold, as counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errors {
    /// Genuine pairs below it.
    pub refused: usize,
    /// Genuine pairs.
    pub genuine: usize,
    /// Impostor pairs at or above it.
    pub accepted: usize,
    /// Impostor pairs.
    pub impostor: usize,
}

/// True-accept rate at a false-accept rate of at most `far` when each score counts `weights` times. `scores` are sorted downwards. `None`
/// when one sort weighs nothing.
#[must_use]
pub fn weighted_tar(scores: &[Score], weights: &[f64], far: f64) -> Option<f64> {
    let total =
        |same| -> f64 { scores.iter().zip(weights).filter(|(s, _)| s.1 == same).map(|(_, w)| w).sum() };
    let (genuine, impostor) = (total(true), total(false));
    if genuine <= 0.0 || impostor <= 0.0 {
        return None;
    }
    // Rounding of the sum of weights must not refuse the last pair that a rate of 1 allows.
    let allowed = far * impostor * (1.0 + 1e-12);
    let (mut accepted, mut hit, mut at) = (0.0, 0.0, 0);
    while at < scores.len() {
        // Equal similarities pass or fail together.
        let end = at + scores[at..].iter().take_while(|s| s.0 == scores[at].0).count();
        for (score, weight) in scores[at..end].iter().zip(&weights[at..end]) {
            if score.1 { hit += weight } else { accepted += weight }
        }
        if accepted > allowed {
            let tied = scores[at..end].iter().zip(&weights[at..end]).filter(|(s, _)| s.1);
            hit -= tied.map(|(_, w)| w).sum::<f64>();
            break;
        }
        at = end;
    }
    Some(hit / genuine)
}

/// Validation rate at a false-accept rate, over folds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FoldRate {
    /// Mean over the folds of the share of genuine pairs accepted, 0 to 1.
    pub mean: f64,
    /// Standard error of that mean: the folds' standard deviation (n − 1) by the root of their number.
    pub std_error: f64,
    /// Mean over the folds of the share of impostor pairs accepted.
    pub far: f64,
}

/// VAL at `far` (FaceNet, section 4): for each fold the threshold that keeps the false-accept rate on the *other* folds at most `far`, and the
/// share of the fold's own genuine pairs that it accepts. `None` as [`fold_accuracy`], or with fewer than two folds.
#[must_use]
pub fn fold_val(scores: &[Score], folds: &[usize], count: usize, far: f64) -> Option<FoldRate> {
    if count < 2 {
        return None;
    }
    let (mut rates, mut fars) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for fold in 0..count {
        let part = |inside: bool| -> Vec<Score> {
            scores.iter().zip(folds).filter(|(_, f)| (**f == fold) == inside).map(|(s, _)| *s).collect()
        };
        let threshold = Roc::new(&part(false))?.at_far(far).threshold;
        let errors = Roc::new(&part(true))?.errors_at(threshold);
        rates.push(1.0 - errors.refused as f64 / errors.genuine as f64);
        fars.push(errors.accepted as f64 / errors.impostor as f64);
    }
    let (mean, std_error) = mean_and_error(&rates);
    Some(FoldRate { mean, std_error, far: mean_and_error(&fars).0 })
}

/// Mean of at least two values, and its standard error.
fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean, (variance / n).sqrt())
}

/// The share of `scores` decided rightly at `threshold`.
#[must_use]
pub fn accuracy(scores: &[Score], threshold: f32) -> f64 {
    let right = scores.iter().filter(|(score, same)| (*score >= threshold) == *same).count();
    right as f64 / scores.len() as f64
}

/// Accuracy over folds.
#[derive(Clone, Debug, PartialEq)]
pub struct FoldAccuracy {
    /// Mean over the folds, 0 to 1.
    pub mean: f64,
    /// Standard deviation over the folds (divided by their number).
    pub std: f64,
    /// Standard error of the mean, as papers report it for LFW: the folds' deviation (n − 1) by the root of their number.
    pub std_error: f64,
    /// Mean of the thresholds used.
    pub threshold: f32,
}

/// Accuracy of each fold at the threshold that is best on the other folds, or at `fixed` if given. `folds[i]` is the fold of
/// `scores[i]`, below `count`. `None` when a fold is empty, or what is left for choosing a threshold lacks one of the sorts.
#[must_use]
pub fn fold_accuracy(
    scores: &[Score],
    folds: &[usize],
    count: usize,
    fixed: Option<f32>,
) -> Option<FoldAccuracy> {
    let mut accuracies = Vec::with_capacity(count);
    let mut thresholds = Vec::with_capacity(count);
    for fold in 0..count {
        let part = |inside: bool| -> Vec<(f32, bool)> {
            scores.iter().zip(folds).filter(|(_, f)| (**f == fold) == inside).map(|(s, _)| *s).collect()
        };
        let tested = part(true);
        let threshold = match fixed {
            Some(threshold) => threshold,
            None => Roc::new(&part(false))?.best_threshold(),
        };
        if tested.is_empty() {
            return None;
        }
        accuracies.push(accuracy(&tested, threshold));
        thresholds.push(f64::from(threshold));
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let average = mean(&accuracies);
    let squares: Vec<f64> = accuracies.iter().map(|a| (a - average).powi(2)).collect();
    Some(FoldAccuracy {
        mean: average,
        std: mean(&squares).sqrt(),
        std_error: mean_and_error(&accuracies).1,
        threshold: mean(&thresholds) as f32,
    })
}

/// How many of `scores`, sorted downwards, reach `threshold`.
fn count_from(scores: &[f32], threshold: f32) -> usize {
    scores.partition_point(|&score| score >= threshold)
}

fn share_from(scores: &[f32], threshold: f32) -> f64 {
    count_from(scores, threshold) as f64 / scores.len() as f64
}

/// All distinct similarities, downwards.
fn merged(a: &[f32], b: &[f32]) -> Vec<f32> {
    let mut all: Vec<f32> = a.iter().chain(b).copied().collect();
    all.sort_unstable_by(|x, y| y.total_cmp(x));
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scores(genuine: &[f32], impostor: &[f32]) -> Vec<(f32, bool)> {
        genuine.iter().map(|&s| (s, true)).chain(impostor.iter().map(|&s| (s, false))).collect()
    }

    #[test]
    fn perfect_separation() {
        let roc = Roc::new(&scores(&[0.9, 0.8], &[0.2, 0.1])).unwrap();
        assert_eq!(roc.best_threshold(), 0.5);
        assert_eq!(roc.equal_error_rate(), 0.0);
        let strict = roc.at_far(1e-3);
        assert_eq!((strict.tar, strict.far), (1.0, 0.0));
        assert!(strict.threshold > 0.2 && strict.threshold < 0.200_001);
    }

    #[test]
    fn a_rate_allows_whole_impostors_only() {
        let impostor: Vec<f32> = (0..100).map(|i| i as f32 / 100.0).collect();
        let roc = Roc::new(&scores(&[0.995, 0.985, 0.975, 0.5], &impostor)).unwrap();
        // 0.99 is the best impostor: none allowed, then one, then two.
        assert_eq!(roc.at_far(0.009).tar, 0.25);
        assert_eq!(roc.at_far(0.01).tar, 0.5);
        assert_eq!(roc.at_far(0.02), OperatingPoint { tar: 0.75, far: 0.02, threshold: 0.97_f32.next_up() });
        assert_eq!(roc.at_far(1.0).tar, 1.0);
    }

    #[test]
    fn a_tie_between_impostors_does_not_slip_through() {
        let roc = Roc::new(&scores(&[0.6, 0.4], &[0.5, 0.5, 0.5, 0.1])).unwrap();
        assert_eq!(roc.at_far(0.25), OperatingPoint { tar: 0.5, far: 0.0, threshold: 0.5_f32.next_up() });
    }

    #[test]
    fn equal_error_of_known_overlap() {
        // At a threshold of 0.5 one of four is wrong on either side.
        let roc = Roc::new(&scores(&[0.9, 0.8, 0.7, 0.3], &[0.6, 0.2, 0.1, 0.0])).unwrap();
        assert!((roc.equal_error_rate() - 0.25).abs() < 1e-9);
        let hopeless = Roc::new(&scores(&[0.0, 0.1], &[0.9, 0.8])).unwrap();
        assert!((hopeless.equal_error_rate() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_threshold_never_sees_the_fold_it_is_tested_on() {
        // Fold 1 separates at another place: a threshold chosen on fold 0 gets half of it wrong.
        let all = [(0.9, true), (0.1, false), (0.3, true), (0.2, false)];
        let folds = [0, 0, 1, 1];
        let cross = fold_accuracy(&all, &folds, 2, None).unwrap();
        assert_eq!((cross.mean, cross.std), (0.75, 0.25));
        let fixed = fold_accuracy(&all, &folds, 2, Some(0.25)).unwrap();
        assert_eq!((fixed.mean, fixed.std, fixed.threshold), (1.0, 0.0, 0.25));
        assert!(fold_accuracy(&all, &folds, 3, Some(0.25)).is_none(), "an empty fold");
    }

    #[test]
    fn one_sort_alone_or_nan_gives_nothing() {
        assert!(Roc::new(&scores(&[0.5], &[])).is_none());
        assert!(Roc::new(&scores(&[], &[0.5])).is_none());
        assert!(Roc::new(&scores(&[f32::NAN], &[0.5])).is_none());
    }

    #[test]
    fn val_is_measured_with_thresholds_from_other_folds() {
        // Fold 0's worst impostor is at 0.5, fold 1's at 0.2.
        let all = [(0.6, true), (0.3, true), (0.5, false), (0.6, true), (0.3, true), (0.2, false)];
        let folds = [0, 0, 0, 1, 1, 1];
        let val = fold_val(&all, &folds, 2, 0.01).unwrap();
        // Fold 0 at just above 0.2: both, with its impostor; fold 1 at just above 0.5: one of two.
        assert_eq!((val.mean, val.far), (0.75, 0.5));
        assert!((val.std_error - 0.25).abs() < 1e-12);
        assert!(fold_val(&all, &[0; 6], 1, 0.01).is_none());
    }

    proptest! {
        #[test]
        fn equal_weights_change_nothing(
            genuine in prop::collection::vec(0_u8..20, 1..30),
            impostor in prop::collection::vec(0_u8..20, 1..30),
            far in 0.0_f64..1.0,
        ) {
            let as_scores = |v: &[u8]| v.iter().map(|&s| f32::from(s) / 20.0).collect::<Vec<_>>();
            let mut all = scores(&as_scores(&genuine), &as_scores(&impostor));
            all.sort_by(|a, b| b.0.total_cmp(&a.0));
            let expected = Roc::new(&all).unwrap().at_far(far).tar;
            let weighted = weighted_tar(&all, &vec![2.0; all.len()], far).unwrap();
            prop_assert!((weighted - expected).abs() < 1e-9, "{} {}", weighted, expected);
        }

        #[test]
        fn the_best_threshold_is_best(
            genuine in prop::collection::vec(-1.0_f32..1.0, 1..30),
            impostor in prop::collection::vec(-1.0_f32..1.0, 1..30),
            rival in -1.0_f32..1.0,
        ) {
            let all = scores(&genuine, &impostor);
            let roc = Roc::new(&all).unwrap();
            prop_assert!(accuracy(&all, roc.best_threshold()) >= accuracy(&all, rival));
            let point = roc.at_far(0.1);
            prop_assert!(point.far <= 0.1);
            prop_assert!(point.tar >= roc.at_far(0.05).tar);
            let eer = roc.equal_error_rate();
            prop_assert!((0.0..=1.0).contains(&eer));
        }
    }
}
