//! The detector: one pass, no anchors, faces from about 10 px to the whole picture on strides 8, 16 and 32.
//!
//! Dense 3×3 convolutions bring the picture down to stride 8, where they are cheap in parameters and tract runs them fastest;
//! from there on 3×3 depthwise and 1×1 convolutions alternate (Howard et al. 2017), and coarse features are added to finer ones
//! on the way to the heads (Lin et al. 2017, "Feature pyramid networks"). Outputs are those of YuNet (Wu et al. 2023), so that
//! one decoder serves both.
//!
//! | part | at 320×256 | parameters |
//! |---|---|---|
//! | stem 3×3/2 16, 3×3/2 24, 3×3/2 48 | 40×32 | 15 k |
//! | stride 8: 2 blocks of 48 | 40×32 | 6 k |
//! | stride 16: down to 64, 3 blocks | 20×16 | 19 k |
//! | stride 32: down to 80, 3 blocks | 10×8 | 30 k |
//! | pyramid 80 → 64 → 48, one block and a head each | | 20 k |

use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

use super::layers::{ConvBn, Mode};

/// Strides of the three outputs.
pub const STRIDES: [i64; 3] = [8, 16, 32];
/// Numbers a cell gives: score logit, box (4), landmarks (10).
pub const CELL: i64 = 15;
/// Channels at the three strides.
pub const WIDTHS: [i64; 3] = [48, 64, 80];
/// Channels of the stem's first two layers.
pub const STEM: [i64; 2] = [16, 24];
/// Blocks at the three strides.
pub const BLOCKS: [usize; 3] = [2, 3, 3];

/// The net. Input `[batch, 3, height, width]` RGB 0–255, sides multiples of 32; output for each stride `[batch, 15, rows, columns]`.
#[derive(Debug)]
pub struct Detector {
    stem: [ConvBn; 3],
    stages: Vec<Stage>,
    laterals: Vec<ConvBn>,
    heads: Vec<Head>,
}

#[derive(Debug)]
struct Stage {
    down: Option<Separable>,
    blocks: Vec<Separable>,
}

#[derive(Debug)]
struct Head {
    block: Separable,
    weight: Tensor,
    bias: Tensor,
}

/// Depthwise 3×3, then 1×1, each with normalization; ReLU after the second only.
#[derive(Debug)]
struct Separable {
    depthwise: ConvBn,
    pointwise: ConvBn,
}

impl Separable {
    fn new(path: &Path, from: i64, to: i64, stride: i64) -> Self {
        Self {
            depthwise: ConvBn::new(&(path / "dw"), from, from, 3, stride, 1, from),
            pointwise: ConvBn::new(&(path / "pw"), from, to, 1, 1, 0, 1),
        }
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        self.pointwise.forward(&self.depthwise.forward(x, mode), mode)
    }
}

impl Detector {
    /// Fresh weights under `path`; seed libtorch first.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let stage = |i: usize| {
            let path = path / format!("stage{i}");
            let down = (i > 0).then(|| Separable::new(&(&path / "down"), WIDTHS[i - 1], WIDTHS[i], 2));
            let blocks = (0..BLOCKS[i])
                .map(|b| Separable::new(&(&path / format!("block{b}")), WIDTHS[i], WIDTHS[i], 1))
                .collect();
            Stage { down, blocks }
        };
        let head = |i: usize| {
            let path = path / format!("head{i}");
            let stdev = (1.0 / WIDTHS[i] as f64).sqrt() * 0.3;
            let bias = path.var("bias", &[CELL], Init::Const(0.0));
            {
                // Faces are rare: start with a score of about 0.01, so that the first steps are not spent on unlearning it.
                let _no_grad = tch::no_grad_guard();
                let _ = bias.narrow(0, 0, 1).fill_(-4.6);
            }
            Head {
                block: Separable::new(&(&path / "block"), WIDTHS[i], WIDTHS[i], 1),
                weight: path.var("weight", &[CELL, WIDTHS[i], 1, 1], Init::Randn { mean: 0.0, stdev }),
                bias,
            }
        };
        let stem = path / "stem";
        Self {
            stem: [
                ConvBn::three(&(&stem / "a"), 3, STEM[0], 2),
                ConvBn::three(&(&stem / "b"), STEM[0], STEM[1], 2),
                ConvBn::three(&(&stem / "c"), STEM[1], WIDTHS[0], 2),
            ],
            stages: (0..3).map(stage).collect(),
            laterals: (0..2)
                .map(|i| ConvBn::new(&(path / format!("lateral{i}")), WIDTHS[i + 1], WIDTHS[i], 1, 1, 0, 1))
                .collect(),
            heads: (0..3).map(head).collect(),
        }
    }

    /// `[batch, 15, rows, columns]` f32 for each stride.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> [Tensor; 3] {
        let x = (x.to_kind(Kind::Float) - 127.5) * (1.0 / 128.0);
        let mut x = if mode.bf16 { x.to_kind(Kind::BFloat16) } else { x };
        for layer in &self.stem {
            x = layer.forward(&x, mode).relu();
        }
        let mut features = Vec::with_capacity(3);
        for stage in &self.stages {
            if let Some(down) = &stage.down {
                x = down.forward(&x, mode).relu();
            }
            for block in &stage.blocks {
                x = (block.forward(&x, mode) + &x).relu();
            }
            features.push(x.shallow_clone());
        }
        for i in (0..2).rev() {
            let coarse = self.laterals[i].forward(&features[i + 1], mode);
            let size = features[i].size();
            let coarse = coarse.upsample_nearest2d([size[2], size[3]], None, None);
            features[i] = (&features[i] + coarse).relu();
        }
        std::array::from_fn(|i| {
            let head = &self.heads[i];
            let x = (head.block.forward(&features[i], mode) + &features[i]).relu().to_kind(Kind::Float);
            x.conv2d(&head.weight, Some(&head.bias), [1, 1], [0, 0], [1, 1], 1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, nn::VarStore};

    #[test]
    fn it_is_small_and_gives_every_stride_its_cells() {
        tch::manual_seed(1);
        let store = VarStore::new(Device::Cpu);
        let net = Detector::new(&store.root());
        let parameters: i64 = store.trainable_variables().iter().map(|t| t.numel() as i64).sum();
        assert!((60_000..100_000).contains(&parameters), "{parameters}");
        let x = Tensor::rand([2, 3, 96, 160], (Kind::Float, Device::Cpu)) * 255.0;
        let outputs = net.forward(&x, Mode::EVAL);
        for (output, stride) in outputs.iter().zip(STRIDES) {
            assert_eq!(output.size(), [2, CELL, 96 / stride, 160 / stride]);
        }
        let score = outputs[0].narrow(1, 0, 1).sigmoid().mean(Kind::Float).double_value(&[]);
        assert!(score < 0.1, "{score}");
    }
}
