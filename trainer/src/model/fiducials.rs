//! The fiducials net: 68 points of one face, each with whether it can be seen and how far it may be off.
//!
//! A small residual net like [`super::compact`], on a crop of 96×96 px round the detected face, and a linear layer that
//! reads all points at once: a hidden point is placed by the others.
//!
//! | stage | output | MMAC |
//! |---|---|---|
//! | stem 3×3/2, 24 | 48×48 | 1.5 |
//! | 3×3/2, 40, one residual block | 24×24 | 5.0 + 16.6 |
//! | 3×3/2, 64, one residual block | 12×12 | 3.3 + 10.6 |
//! | 3×3/2, 80, one residual block | 6×6 | 1.7 + 4.1 |
//! | 1×1, 128; global depthwise 6×6; linear | 272 | 0.4 |

use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

use super::layers::{ConvBn, Mode, Residual};

/// Channels of the stem.
pub const STEM: i64 = 24;
/// Channels of the three stages.
pub const STAGES: [i64; 3] = [40, 64, 80];
/// Channels before the global layer.
pub const HEAD: i64 = 128;
/// Points.
pub const POINTS: i64 = 68;
/// Numbers a point: x, y, logit of its visibility, natural logarithm of its spread.
pub const NUMBERS: i64 = 4;

/// The net. Input `[batch, 3, 96, 96]` RGB 0–255, output `[batch, 68, 4]`: x and y from −1 to 1 over the crop's centres of
/// the first and last pixel (and beyond), logit of the visibility, ln of the spread in the same unit as x and y.
#[derive(Debug)]
pub struct Fiducials {
    stem: ConvBn,
    stages: Vec<(ConvBn, Residual)>,
    head: ConvBn,
    global: ConvBn,
    linear: Tensor,
    bias: Tensor,
}

impl Fiducials {
    /// Fresh weights under `path`; seed libtorch first.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let mut from = STEM;
        let stages = STAGES
            .iter()
            .zip(0..)
            .map(|(&to, i): (&i64, i32)| {
                let path = path / format!("stage{i}");
                let down = ConvBn::three(&(&path / "down"), from, to, 2);
                from = to;
                (down, Residual::new(&(&path / "block"), to))
            })
            .collect();
        let stdev = 0.3 * (1.0 / HEAD as f64).sqrt();
        Self {
            stem: ConvBn::three(&(path / "stem"), 3, STEM, 2),
            stages,
            head: ConvBn::new(&(path / "head"), from, HEAD, 1, 1, 0, 1),
            global: ConvBn::global(&(path / "global"), HEAD, 6),
            linear: path.var("linear", &[POINTS * NUMBERS, HEAD], Init::Randn { mean: 0.0, stdev }),
            bias: path.var("bias", &[POINTS * NUMBERS], Init::Const(0.0)),
        }
    }

    /// Starts every point at its mean over the training faces, `[68, 2]`.
    pub fn centre(&self, mean: &Tensor) {
        let _no_grad = tch::no_grad_guard();
        let bias = self.bias.reshape([POINTS, NUMBERS]);
        bias.narrow(1, 0, 2).copy_(mean);
        let _ = bias.narrow(1, 3, 1).fill_(-3.0);
    }

    /// `[batch, 68, 4]`.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let x = (x.to_kind(Kind::Float) - 127.5) * (1.0 / 128.0);
        let x = if mode.bf16 { x.to_kind(Kind::BFloat16) } else { x };
        let mut x = self.stem.forward(&x, mode).relu();
        for (down, block) in &self.stages {
            x = block.forward(&down.forward(&x, mode).relu(), mode);
        }
        let x = self.head.forward(&x, mode).relu();
        let x = self.global.forward(&x, mode).flatten(1, -1).to_kind(Kind::Float);
        x.linear(&self.linear, Some(&self.bias)).reshape([-1, POINTS, NUMBERS])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, nn::VarStore};

    #[test]
    fn it_fits_its_file_and_starts_at_the_mean_face() {
        tch::manual_seed(1);
        let store = VarStore::new(Device::Cpu);
        let net = Fiducials::new(&store.root());
        let parameters: i64 = store.trainable_variables().iter().map(|t| t.numel() as i64).sum();
        assert!((300_000..380_000).contains(&parameters), "{parameters}");
        let mean = Tensor::full([68, 2], 0.25, (Kind::Float, Device::Cpu));
        net.centre(&mean);
        let x = Tensor::zeros([1, 3, 96, 96], (Kind::Float, Device::Cpu)) + 127.5;
        let out = net.forward(&x, Mode::EVAL);
        assert_eq!(out.size(), [1, 68, 4]);
        assert!((out.narrow(2, 0, 2) - 0.25).abs().max().double_value(&[]) < 0.05);
    }
}
