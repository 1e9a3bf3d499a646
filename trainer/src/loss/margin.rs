//! Softmax over identities with a margin between them, on the sphere: CosFace (Wang et al. 2018, equation 4) and ArcFace (Deng et
//! al. 2019, equation 3).

use serde::{Deserialize, Serialize};
use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

use super::distill::unit;

/// Where the margin is taken.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Margin {
    /// s·(cos θ − m) for the right identity.
    Cosface {
        /// m; the paper's is 0.35.
        margin: f64,
        /// s; 64 in the paper.
        scale: f64,
    },
    /// s·cos(θ + m) for the right identity.
    Arcface {
        /// m in radians; the paper's is 0.5.
        margin: f64,
        /// s; 64 in the paper.
        scale: f64,
    },
}

/// One unit vector for each identity.
#[derive(Debug)]
pub struct MarginHead {
    centres: Tensor,
    margin: Margin,
}

impl MarginHead {
    /// Fresh centres under `path`, `[identities, dim]`.
    #[must_use]
    pub fn new(path: &Path<'_>, identities: i64, dim: i64, margin: Margin) -> Self {
        let centres = path.var("centres", &[identities, dim], Init::Randn { mean: 0.0, stdev: 0.05 });
        Self { centres, margin }
    }

    /// Mean cross-entropy of `[batch, dim]` embeddings of any length whose identities are `labels` `[batch]`. Rows with a label
    /// below zero have no identity and do not count; without any other row the loss is zero.
    #[must_use = "the only effect"]
    pub fn loss(&self, embeddings: &Tensor, labels: &Tensor) -> Tensor {
        let known = labels.ge(0).nonzero().squeeze_dim(1);
        if known.numel() == 0 {
            return embeddings.sum(Kind::Float) * 0.0;
        }
        let (embeddings, labels) = (embeddings.index_select(0, &known), labels.index_select(0, &known));
        let cosines = unit(&embeddings).matmul(&unit(&self.centres).tr());
        let right = labels.unsqueeze(1);
        let cosine = cosines.gather(1, &right, false);
        let (moved, scale) = match self.margin {
            Margin::Cosface { margin, scale } => (&cosine - margin, scale),
            Margin::Arcface { margin, scale } => (arcface(&cosine, margin), scale),
        };
        let logits = cosines.scatter(1, &right, &moved) * scale;
        logits.cross_entropy_for_logits(&labels)
    }
}

/// cos(θ + m), and past θ = π − m, where that would rise again, the straight line cos θ − m·sin m.
fn arcface(cosine: &Tensor, margin: f64) -> Tensor {
    // The root has no slope at 0.
    let sine = (-cosine.square() + 1.0).clamp_min(1e-9).sqrt();
    let moved = cosine * margin.cos() - sine * margin.sin();
    let beyond = cosine - margin * margin.sin();
    moved.where_self(&cosine.gt(-margin.cos()), &beyond)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, nn::VarStore};

    fn head(margin: Margin) -> (VarStore, MarginHead) {
        let store = VarStore::new(Device::Cpu);
        let head = MarginHead::new(&store.root(), 3, 2, margin);
        tch::no_grad(|| {
            let mut centres = head.centres.shallow_clone();
            centres.copy_(&Tensor::from_slice(&[2.0_f32, 0.0, 0.0, 1.0, -3.0, 0.0]).reshape([3, 2]));
        });
        (store, head)
    }

    #[test]
    fn losses_are_those_of_the_formulas() {
        let theta = 0.4_f64;
        let x = Tensor::from_slice(&[5.0 * theta.cos() as f32, 5.0 * theta.sin() as f32]).reshape([1, 2]);
        let label = Tensor::from_slice(&[0_i64]);
        let cosines = [theta.cos(), theta.sin(), -theta.cos()];
        let expected = |right: f64, scale: f64| {
            let others: f64 = cosines[1..].iter().map(|c| (scale * c).exp()).sum();
            -((scale * right).exp() / ((scale * right).exp() + others)).ln()
        };
        let cosface = head(Margin::Cosface { margin: 0.35, scale: 8.0 }).1.loss(&x, &label).double_value(&[]);
        assert!((cosface - expected(theta.cos() - 0.35, 8.0)).abs() < 1e-4, "{cosface}");
        let arcface = head(Margin::Arcface { margin: 0.5, scale: 8.0 }).1.loss(&x, &label).double_value(&[]);
        assert!((arcface - expected((theta + 0.5).cos(), 8.0)).abs() < 1e-4, "{arcface}");
    }

    #[test]
    fn the_right_cosine_always_pays_more_and_gradients_stay_finite_at_the_poles() {
        let cosines = Tensor::linspace(-1.0, 1.0, 201, (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let moved = arcface(&cosines, 0.5);
        let values: Vec<f32> = Vec::try_from(&moved).unwrap();
        let plain: Vec<f32> = Vec::try_from(&cosines).unwrap();
        assert!(values.iter().zip(&plain).all(|(m, c)| m < c));
        assert!(values.windows(2).all(|w| w[1] > w[0] - 0.05), "no fold");
        moved.sum(Kind::Float).backward();
        assert!(cosines.grad().isfinite().all().int64_value(&[]) == 1);
    }

    #[test]
    fn faces_without_an_identity_do_not_count() {
        let (_store, head) = head(Margin::Cosface { margin: 0.35, scale: 16.0 });
        let x = Tensor::from_slice(&[1.0_f32, 0.2, -4.0, 1.0]).reshape([2, 2]);
        let with = head.loss(&x, &Tensor::from_slice(&[0_i64, -1])).double_value(&[]);
        let alone = head.loss(&x.narrow(0, 0, 1), &Tensor::from_slice(&[0_i64])).double_value(&[]);
        assert!((with - alone).abs() < 1e-6);
        assert_eq!(head.loss(&x, &Tensor::from_slice(&[-1_i64, -1])).double_value(&[]), 0.0);
    }

    #[test]
    fn minimising_it_turns_embeddings_to_their_centres() {
        let (_store, head) = head(Margin::Arcface { margin: 0.5, scale: 16.0 });
        let x = Tensor::from_slice(&[0.1_f32, 1.0, 1.0, 0.1]).reshape([2, 2]).set_requires_grad(true);
        let labels = Tensor::from_slice(&[0_i64, 1]);
        let cosine = || {
            tch::no_grad(|| {
                unit(&x).matmul(&unit(&head.centres).tr()).diagonal(0, 0, 1).min().double_value(&[])
            })
        };
        let before = cosine();
        for _ in 0..200 {
            head.loss(&x, &labels).backward();
            tch::no_grad(|| {
                let mut grad = x.grad();
                let _ = x.shallow_clone().g_add_(&(&grad * -0.02));
                let _ = grad.zero_();
            });
        }
        assert!(before < 0.2 && cosine() > 0.95, "{before} {}", cosine());
    }
}
