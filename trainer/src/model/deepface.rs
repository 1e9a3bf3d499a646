//! DeepFace (Taigman, Yang, Ranzato, Wolf 2014, section 3): two convolutions, three locally connected layers, two fully
//! connected ones.
//!
//! | layer | output at width 1 | parameters |
//! |---|---|---|
//! | C1 32@11×11 | 142×142 | 0.01 M |
//! | M2 3×3/2, rounded up | 71×71 | |
//! | C3 16@9×9 | 63×63 | 0.04 M |
//! | L4 16@9×9, locally connected | 55×55 | 62.8 M |
//! | L5 16@7×7/2, locally connected | 25×25 | 7.9 M |
//! | L6 16@5×5, locally connected | 21×21 | 2.8 M |
//! | F7, dropout | 4096 | 28.9 M |
//! | F8 | identities | 4097 each |

use serde::{Deserialize, Serialize};
use tch::nn::Path;
use tch::{Kind, Tensor};

use super::local::{Conv, Full, Local, Start, dropout_mask, out_side};

/// Side of the input.
pub const SIDE_PX: i64 = 152;

/// Widths and start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shape {
    /// Multiplies the channels of every layer, 1 for the paper's.
    pub width: f64,
    /// How weights start: the paper's N(0, 0.01) with biases 0.5 suits width 1 alone.
    pub start: Start,
    /// Share of F7 that dropout zeroes.
    pub dropout: f64,
}

impl Default for Shape {
    fn default() -> Self {
        Self { width: 1.0, start: Start::Gaussian { deviation: 0.01, bias: 0.5 }, dropout: 0.5 }
    }
}

impl Shape {
    /// Channels of the first convolution, of the other spatial layers, and units of F7.
    #[must_use]
    pub fn channels(&self) -> (i64, i64, i64) {
        let scaled = |n: f64, least: i64| ((n * self.width).round() as i64).max(least);
        (scaled(32.0, 4), scaled(16.0, 2), scaled(4096.0, 32))
    }
}

/// The net. Input `[batch, 3, 152, 152]` RGB 0–255.
#[derive(Debug)]
pub struct DeepFace {
    c1: Conv,
    c3: Conv,
    l4: Local,
    l5: Local,
    l6: Local,
    f7: Full,
    f8: Full,
    /// Largest value of each F7 unit on the training set; ones until [`Self::set_largest`].
    largest: Tensor,
    dropout: f64,
}

impl DeepFace {
    /// Fresh weights under `path` for `identities` classes; seed libtorch first.
    #[must_use]
    pub fn new(path: &Path<'_>, shape: &Shape, identities: i64) -> Self {
        let (first, rest, units) = shape.channels();
        let start = shape.start;
        let m2 = out_side(SIDE_PX, 11, 1).div_euclid(2);
        let c3 = out_side(m2, 9, 1);
        let l4 = out_side(c3, 9, 1);
        let l5 = out_side(l4, 7, 2);
        let l6 = out_side(l5, 5, 1);
        Self {
            c1: Conv::new(&(path / "c1"), 3, first, 11, 0, start),
            c3: Conv::new(&(path / "c3"), first, rest, 9, 0, start),
            l4: Local::new(&(path / "l4"), rest, rest, 9, 1, c3, start),
            l5: Local::new(&(path / "l5"), rest, rest, 7, 2, l4, start),
            l6: Local::new(&(path / "l6"), rest, rest, 5, 1, l5, start),
            f7: Full::new(&(path / "f7"), rest * l6 * l6, units, start),
            f8: Full::new(&(path / "f8"), units, identities, start),
            largest: path.ones_no_train("largest", &[units]),
            dropout: shape.dropout,
        }
    }

    /// F7 after ReLU, `[batch, units]`.
    pub fn f7(&self, x: &Tensor) -> Tensor {
        let x = (x.to_kind(Kind::Float) - 127.5) * (1.0 / 128.0);
        let x = self.c1.forward(&x).relu().max_pool2d([3, 3], [2, 2], [0, 0], [1, 1], true);
        let x = self.c3.forward(&x).relu();
        let x = self.l6.forward(&self.l5.forward(&self.l4.forward(&x).relu()).relu()).relu();
        self.f7.forward(&x.flatten(1, -1)).relu()
    }

    /// Scores of the identities, `[batch, identities]`, with F7 times `mask` when it is given.
    pub fn logits(&self, x: &Tensor, mask: Option<&Tensor>) -> Tensor {
        let f7 = self.f7(x);
        self.f8.forward(&mask.map_or_else(|| f7.shallow_clone(), |mask| &f7 * mask))
    }

    /// A dropout mask for a batch.
    pub fn mask(&self, batch: i64, device: tch::Device) -> Tensor {
        dropout_mask(batch, self.largest.size()[0], self.dropout, device)
    }

    /// The representation before its L2 normalisation: F7 over its largest values, `[batch, units]` (section 3.1).
    pub fn represent(&self, x: &Tensor) -> Tensor {
        self.f7(x) / &self.largest
    }

    /// Takes the largest value of each unit over the training set, `[units]`; units that never fire keep 1.
    pub fn set_largest(&self, largest: &Tensor) {
        let _no_grad = tch::no_grad_guard();
        let dead = largest.le(1e-6).to_kind(Kind::Float);
        let mut mine = self.largest.shallow_clone();
        mine.copy_(&(largest + dead));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, nn::VarStore};

    /// Parameters by arithmetic: the weights of full width are half a gigabyte, which a test need not allocate.
    fn count(shape: &Shape, identities: i64) -> i64 {
        let (first, rest, units) = shape.channels();
        let (c1, c3) = ((3 * 121 + 1) * first, (first * 81 + 1) * rest);
        let local = |side: i64, kernel: i64| side * side * rest * (rest * kernel * kernel + 1);
        c1 + c3
            + local(55, 9)
            + local(25, 7)
            + local(21, 5)
            + (rest * 441 + 1) * units
            + (units + 1) * identities
    }

    #[test]
    fn the_sizes_are_the_papers_and_a_scaled_net_has_as_many_parameters_as_the_sum_says() {
        let small = Shape { width: 0.125, start: Start::Scaled, ..Shape::default() };
        let store = VarStore::new(Device::Cpu);
        let net = DeepFace::new(&store.root(), &small, 10);
        let parameters: usize = store.trainable_variables().iter().map(Tensor::numel).sum();
        assert_eq!(parameters as i64, count(&small, 10));
        // The paper: more than 120 million, with 4,030 identities.
        assert!(count(&Shape::default(), 4030) > 118_000_000, "{}", count(&Shape::default(), 4030));
        let x = Tensor::rand([2, 3, SIDE_PX, SIDE_PX], (Kind::Float, Device::Cpu)) * 255.0;
        assert_eq!(net.logits(&x, Some(&net.mask(2, Device::Cpu))).size(), [2, 10]);
        assert_eq!(net.represent(&x).size(), [2, 512]);
    }

    #[test]
    fn the_representation_is_one_where_the_training_set_was_largest() {
        tch::manual_seed(5);
        let shape = Shape { width: 0.125, start: Start::Scaled, ..Shape::default() };
        let store = VarStore::new(Device::Cpu);
        let net = DeepFace::new(&store.root(), &shape, 4);
        let x = Tensor::rand([4, 3, SIDE_PX, SIDE_PX], (Kind::Float, Device::Cpu)) * 255.0;
        let (largest, _) = net.f7(&x).max_dim(0, false);
        net.set_largest(&largest);
        let most = net.represent(&x).max().double_value(&[]);
        assert!((most - 1.0).abs() < 1e-6, "{most}");
    }
}
