//! VGG-Face (Parkhi, Vedaldi, Zisserman 2015, section 4): configurations A, B and D of stacked 3×3 convolutions (Simonyan and
//! Zisserman 2014, table 1), ReLU, no local contrast normalisation, three fully connected layers.
//!
//! | stage | A | B | D |
//! |---|---|---|---|
//! | 64, halved | 1 | 2 | 2 |
//! | 128, halved | 1 | 2 | 2 |
//! | 256, halved | 2 | 2 | 3 |
//! | 512, halved | 2 | 2 | 3 |
//! | 512, halved | 2 | 2 | 3 |
//! | fully connected | 4096, 4096, identities | | |

use serde::{Deserialize, Serialize};
use tch::nn::Path;
use tch::{Device, Kind, Tensor};

use super::local::{Conv, Full, Start, dropout_mask};

/// Which stack of convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Configuration {
    /// 8 convolutions.
    A,
    /// 10 convolutions.
    B,
    /// 13 convolutions.
    D,
}

impl Configuration {
    /// Convolutions of the five stages.
    #[must_use]
    pub const fn convolutions(self) -> [usize; 5] {
        match self {
            Self::A => [1, 1, 2, 2, 2],
            Self::B => [2, 2, 2, 2, 2],
            Self::D => [2, 2, 3, 3, 3],
        }
    }
}

/// Widths and start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shape {
    /// Which stack.
    pub configuration: Configuration,
    /// Multiplies the channels of every layer, 1 for the paper's.
    pub width: f64,
    /// Side of the input, a multiple of 32; the paper's is 224.
    pub side_px: i64,
    /// How weights start: the paper's N(0, 0.01) suits width 1 alone.
    pub start: Start,
    /// Share of the two hidden fully connected layers that dropout zeroes.
    pub dropout: f64,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            configuration: Configuration::A,
            width: 1.0,
            side_px: 224,
            start: Start::Gaussian { deviation: 0.01, bias: 0.0 },
            dropout: 0.5,
        }
    }
}

impl Shape {
    /// Channels of the five stages.
    #[must_use]
    pub fn stages(&self) -> [i64; 5] {
        [64.0, 128.0, 256.0, 512.0, 512.0].map(|n: f64| ((n * self.width).round() as i64).max(4))
    }

    /// Units of the hidden fully connected layers, which is the length of the descriptor.
    #[must_use]
    pub fn units(&self) -> i64 {
        ((4096.0 * self.width).round() as i64).max(32)
    }
}

/// The net. Input `[batch, 3, side, side]` RGB 0–255.
#[derive(Debug)]
pub struct VggFace {
    stages: Vec<Vec<Conv>>,
    fc6: Full,
    fc7: Full,
    fc8: Full,
    dropout: f64,
}

impl VggFace {
    /// Fresh weights under `path` for `identities` classes; seed libtorch first. Convolution `i` of stage `s` is
    /// `stage{s}.conv{i}`, whatever the configuration.
    #[must_use]
    pub fn new(path: &Path<'_>, shape: &Shape, identities: i64) -> Self {
        let mut from = 3;
        let stages = shape
            .stages()
            .iter()
            .zip(shape.configuration.convolutions())
            .enumerate()
            .map(|(stage, (&to, convolutions))| {
                (0..convolutions)
                    .map(|i| {
                        let conv = Conv::new(
                            &(path / format!("stage{stage}") / format!("conv{i}")),
                            from,
                            to,
                            3,
                            1,
                            shape.start,
                        );
                        from = to;
                        conv
                    })
                    .collect()
            })
            .collect();
        let (side, units) = (shape.side_px / 32, shape.units());
        Self {
            stages,
            fc6: Full::new(&(path / "fc6"), from * side * side, units, shape.start),
            fc7: Full::new(&(path / "fc7"), units, units, shape.start),
            fc8: Full::new(&(path / "fc8"), units, identities, shape.start),
            dropout: shape.dropout,
        }
    }

    fn hidden(&self, x: &Tensor, masks: &[Tensor]) -> Tensor {
        let mut x = (x.to_kind(Kind::Float) - 127.5) * (1.0 / 128.0);
        for stage in &self.stages {
            for conv in stage {
                x = conv.forward(&x).relu();
            }
            x = x.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false);
        }
        let masked = |x: Tensor, i: usize| masks.get(i).map_or_else(|| x.shallow_clone(), |mask| &x * mask);
        let x = masked(self.fc6.forward(&x.flatten(1, -1)).relu(), 0);
        masked(self.fc7.forward(&x).relu(), 1)
    }

    /// Scores of the identities, `[batch, identities]`, with the hidden layers times `masks` when there are two.
    pub fn logits(&self, x: &Tensor, masks: &[Tensor]) -> Tensor {
        self.fc8.forward(&self.hidden(x, masks))
    }

    /// Dropout masks for a batch.
    pub fn masks(&self, batch: i64, device: Device) -> Vec<Tensor> {
        let units = self.fc7.bias.size()[0];
        (0..2).map(|_| dropout_mask(batch, units, self.dropout, device)).collect()
    }

    /// The descriptor before normalisation: the second hidden layer, `[batch, units]`.
    pub fn represent(&self, x: &Tensor) -> Tensor {
        self.hidden(x, &[])
    }
}

/// Whether a parameter of configuration B or D is not in A: what growing a net trains first.
#[must_use]
pub fn is_new(name: &str, old: Configuration) -> bool {
    let place = name.strip_prefix("stage").and_then(|rest| {
        let (stage, rest) = rest.split_once(".conv")?;
        let (conv, _) = rest.split_once('.')?;
        Some((stage.parse::<usize>().ok()?, conv.parse::<usize>().ok()?))
    });
    match place {
        Some((stage, conv)) => old.convolutions().get(stage).is_none_or(|&n| conv >= n),
        None => true, // the fully connected layers are trained anew
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::nn::VarStore;

    fn count(configuration: Configuration) -> i64 {
        let shape = Shape { configuration, ..Shape::default() };
        let (mut from, mut sum) = (3, 0);
        for (&to, convolutions) in shape.stages().iter().zip(configuration.convolutions()) {
            for _ in 0..convolutions {
                sum += (from * 9 + 1) * to;
                from = to;
            }
        }
        sum + (from * 49 + 1) * 4096 + 4097 * 4096 + 4097 * 2622
    }

    #[test]
    fn parameters_are_those_of_the_published_stacks() {
        // Simonyan and Zisserman, table 2: 133, 133 and 138 million with 1,000 classes; VGG-Face has 2,622.
        let million = |c| (count(c) - 4097 * 1622 + 500_000) / 1_000_000;
        assert_eq!([Configuration::A, Configuration::B, Configuration::D].map(million), [133, 133, 138]);
    }

    #[test]
    fn every_configuration_runs_and_a_scaled_one_keeps_its_signal() {
        for configuration in [Configuration::A, Configuration::B, Configuration::D] {
            tch::manual_seed(6);
            let shape =
                Shape { configuration, width: 0.125, side_px: 64, start: Start::Scaled, ..Shape::default() };
            let store = VarStore::new(Device::Cpu);
            let net = VggFace::new(&store.root(), &shape, 7);
            let x = Tensor::rand([2, 3, 64, 64], (Kind::Float, Device::Cpu)) * 255.0;
            assert_eq!(net.logits(&x, &net.masks(2, Device::Cpu)).size(), [2, 7]);
            let descriptor = net.represent(&x);
            assert_eq!(descriptor.size(), [2, 512]);
            let mean = descriptor.mean(Kind::Float).double_value(&[]);
            assert!(mean > 1e-3, "{mean}");
        }
    }

    #[test]
    fn growing_trains_added_convolutions_and_all_fully_connected_layers() {
        let new = |name| is_new(name, Configuration::A);
        assert!(new("stage0.conv1.weight") && new("stage3.conv2.bias") && new("fc6.weight"));
        assert!(!new("stage0.conv0.weight") && !new("stage3.conv1.bias"));
    }
}
