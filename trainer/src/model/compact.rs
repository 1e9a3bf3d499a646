//! The net for the door: dense 3×3 and 1×1 convolutions, ReLU, channels ≥ 64 and a multiple of 8 after the stem.
//!
//! tract runs dense convolutions at one and a half times the MAC rate of depthwise ones, on every CPU it has kernels for, and
//! fuses ReLU into them; PReLU would cost it 2.3 times the whole net. So this is a small residual net with the one
//! depthwise layer that is worth it, a global one (MobileFaceNet, Chen et al. 2018, section 3.1), in place of average pooling.
//!
//! | stage | output at 112×112 | MMAC |
//! |---|---|---|
//! | stem 3×3/2, 32 | 56×56 | 2.7 |
//! | 3×3/2, 64, then residual blocks | 28×28 | 14.5 + 57.8 each |
//! | 3×3/2, 128, then residual blocks | 14×14 | 14.5 + 57.8 each |
//! | 3×3/2, 256, then residual blocks | 7×7 | 14.5 + 57.8 each |
//! | 1×1, 512 | 7×7 | 6.4 |
//! | global depthwise 7×7, linear | 128 | 0.1 |

use serde::{Deserialize, Serialize};
use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

use super::layers::{ConvBn, Mode, Residual};
use super::resample;

/// Numbers the net gives for a face.
pub const EMBEDDING: i64 = 128;

/// Widths and depths; the default is 226 million multiply-adds and 2.16 million parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shape {
    /// Channels of the stem.
    pub stem: i64,
    /// Channels of the three stages, each a multiple of 8.
    pub stages: [i64; 3],
    /// Residual blocks of the three stages.
    pub blocks: [usize; 3],
    /// Channels before the global depthwise layer.
    pub head: i64,
    /// Side of what the net looks at, a multiple of 16; exported, it takes chips of 112 all the same and resamples them.
    pub input_px: i64,
}

impl Default for Shape {
    fn default() -> Self {
        Self { stem: 32, stages: [64, 128, 256], blocks: [1, 1, 1], head: 512, input_px: 112 }
    }
}

/// The net. Input `[batch, 3, side, side]` RGB 0–255 with side a multiple of 16 (less than [`Shape::input_px`] early in training; what is
/// more is resampled), output `[batch, 128]`, not normalised.
#[derive(Debug)]
pub struct Compact {
    stem: ConvBn,
    stages: Vec<(ConvBn, Vec<Residual>)>,
    head: ConvBn,
    global: ConvBn,
    linear: Tensor,
    bias: Tensor,
    input_px: i64,
}

impl Compact {
    /// Fresh weights under `path`; seed libtorch first.
    #[must_use]
    pub fn new(path: &Path, shape: &Shape) -> Self {
        let mut from = shape.stem;
        let stages = (0..3)
            .map(|i| {
                let (path, to) = (path / format!("stage{i}"), shape.stages[i]);
                let down = ConvBn::three(&(&path / "down"), from, to, 2);
                let blocks =
                    (0..shape.blocks[i]).map(|b| Residual::new(&(&path / format!("block{b}")), to)).collect();
                from = to;
                (down, blocks)
            })
            .collect();
        Self {
            stem: ConvBn::three(&(path / "stem"), 3, shape.stem, 2),
            stages,
            head: ConvBn::new(&(path / "head"), from, shape.head, 1, 1, 0, 1),
            global: ConvBn::global(&(path / "global"), shape.head, shape.input_px / 16),
            linear: path.var(
                "linear",
                &[EMBEDDING, shape.head],
                Init::Randn { mean: 0.0, stdev: (1.0 / shape.head as f64).sqrt() },
            ),
            bias: path.var("bias", &[EMBEDDING], Init::Const(0.0)),
            input_px: shape.input_px,
        }
    }

    /// Embeddings before normalisation.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let x = x.to_kind(Kind::Float);
        let x = if x.size()[2] > self.input_px { resample::square(&x, self.input_px) } else { x };
        let x = (x - 127.5) * (1.0 / 128.0);
        let x = if mode.bf16 { x.to_kind(Kind::BFloat16) } else { x };
        let mut x = self.stem.forward(&x, mode).relu();
        for (down, blocks) in &self.stages {
            x = down.forward(&x, mode).relu();
            for block in blocks {
                x = block.forward(&x, mode);
            }
        }
        let x = self.head.forward(&x, mode).relu();
        let x = self.global.forward_global(&x, mode).flatten(1, -1).to_kind(Kind::Float);
        x.linear(&self.linear, Some(&self.bias))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, nn::VarStore};

    #[test]
    fn it_has_the_parameters_the_table_says() {
        let store = VarStore::new(Device::Cpu);
        let _net = Compact::new(&store.root(), &Shape::default());
        let parameters: i64 = store.trainable_variables().iter().map(|t| t.numel() as i64).sum();
        assert!((2_100_000..2_300_000).contains(&parameters), "{parameters}");
    }

    #[test]
    fn it_takes_every_training_resolution_and_bf16_stays_close() {
        tch::manual_seed(1);
        let store = VarStore::new(Device::Cpu);
        let net = Compact::new(&store.root(), &Shape::default());
        for side in [64, 96, 112] {
            let x = Tensor::rand([2, 3, side, side], (Kind::Float, Device::Cpu)) * 255.0;
            let exact = net.forward(&x, Mode::EVAL);
            assert_eq!(exact.size(), [2, 128]);
            let rough = net.forward(&x, Mode { train: false, bf16: true });
            let cosine = Tensor::cosine_similarity(&exact, &rough, 1, 1e-8).min().double_value(&[]);
            assert!(cosine > 0.999, "{side}: {cosine}");
        }
    }
}
