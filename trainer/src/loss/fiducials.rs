//! What it costs to misplace fiducials, and to misjudge how far they are off.

use tch::{Kind, Tensor};

/// The three parts of the loss.
#[derive(Debug)]
pub struct Parts {
    /// Mean absolute error, smoothed near zero; hidden points count a third.
    pub place: Tensor,
    /// Cross-entropy of the visibility, where it is known.
    pub visible: Tensor,
    /// Negative log-likelihood of the error under a Laplace distribution of the predicted spread; moves the spread alone.
    pub spread: Tensor,
}

/// Loss of `[n, 68, 4]` outputs against points `[n, 68, 2]`, visibility and whether it is known `[n, 68]`.
#[must_use]
pub fn loss(out: &Tensor, points: &Tensor, visible: &Tensor, known: &Tensor) -> Parts {
    let off = out.narrow(2, 0, 2) - points;
    // Below a tenth of a crop pixel the teacher itself is not sure.
    let smooth = off.smooth_l1_loss(&off.zeros_like(), tch::Reduction::None, 0.01);
    let weight = visible * (2.0 / 3.0) + 1.0 / 3.0;
    let place = (smooth.mean_dim(&[2_i64][..], false, Kind::Float) * &weight).sum(Kind::Float)
        / weight.sum(Kind::Float).clamp_min(1.0);
    let logit = out.select(2, 2);
    let cross = logit.binary_cross_entropy_with_logits::<Tensor>(visible, None, None, tch::Reduction::None);
    let seen = (cross * known).sum(Kind::Float) / known.sum(Kind::Float).clamp_min(1.0);
    let distance = off.square().sum_dim_intlist(2, false, Kind::Float).sqrt().detach();
    let spread = out.select(2, 3).clamp(-6.0, 1.0);
    let likelihood = (&distance * (-&spread).exp() + spread).mean(Kind::Float);
    Parts { place, visible: seen, spread: likelihood }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn ones() -> Tensor {
        Tensor::ones([2, 68], (Kind::Float, Device::Cpu))
    }

    #[test]
    fn the_spread_that_costs_least_is_the_mean_error() {
        tch::manual_seed(2);
        let points = Tensor::randn([2, 68, 2], (Kind::Float, Device::Cpu)) * 0.1;
        let out = Tensor::zeros([2, 68, 4], (Kind::Float, Device::Cpu));
        let error = points.square().sum_dim_intlist(2, false, Kind::Float).sqrt().mean(Kind::Float);
        let cost = |ln: f64| {
            let out = out.copy();
            let _ = out.select(2, 3).fill_(ln);
            loss(&out, &points, &ones(), &ones()).spread.double_value(&[])
        };
        let best = error.double_value(&[]).ln();
        assert!(cost(best) < cost(best + 0.3) && cost(best) < cost(best - 0.3));
    }

    #[test]
    fn hidden_points_count_less_and_unknown_visibility_not_at_all() {
        let points = Tensor::ones([2, 68, 2], (Kind::Float, Device::Cpu));
        let out = Tensor::zeros([2, 68, 4], (Kind::Float, Device::Cpu));
        let half = Tensor::cat(&[ones().narrow(1, 0, 34), ones().narrow(1, 0, 34) * 0.0], 1);
        let exact = out.copy();
        exact.narrow(2, 0, 2).narrow(1, 0, 34).copy_(&points.narrow(1, 0, 34));
        let hidden_off = loss(&exact, &points, &half, &ones()).place.double_value(&[]);
        let all_off = loss(&out, &points, &half, &ones()).place.double_value(&[]);
        assert!((hidden_off / all_off - 0.25).abs() < 1e-3, "{hidden_off} {all_off}");
        let none = ones() * 0.0;
        assert_eq!(loss(&out, &points, &half, &none).visible.double_value(&[]), 0.0);
    }
}
