//! Locally connected layers: convolutions whose filters differ at every position (Taigman et al. 2014, section 3).

use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

/// A layer of `[positions, out, in·k·k]` weights and `[out, height, width]` biases. Aligned faces have other statistics at the
/// eyes than at the mouth; shared filters would assume they do not.
#[derive(Debug)]
pub struct Local {
    weight: Tensor,
    bias: Tensor,
    kernel: i64,
    stride: i64,
}

impl Local {
    /// For inputs `[batch, from, side, side]`, without padding.
    #[must_use]
    pub fn new(
        path: &Path<'_>,
        from: i64,
        to: i64,
        kernel: i64,
        stride: i64,
        side: i64,
        start: Start,
    ) -> Self {
        let out = out_side(side, kernel, stride);
        let fan_in = from * kernel * kernel;
        Self {
            weight: path.var("weight", &[out * out, to, fan_in], start.weights(fan_in)),
            bias: path.var("bias", &[to, out, out], start.biases()),
            kernel,
            stride,
        }
    }

    /// `[batch, from, side, side]` → `[batch, to, out, out]`. One matrix product for each position, all in one batched call.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let (batch, out) = (x.size()[0], self.bias.size()[1]);
        let (k, s) = (self.kernel, self.stride);
        // The batch innermost, so that patches are copied in runs of it: im2col has the positions there, and its transposition was
        // most of a training step. [from, row, column, batch, k, k] → [positions, from·k·k, batch]
        let patches = x.permute([1, 2, 3, 0]).contiguous().unfold(1, k, s).unfold(2, k, s);
        let patches = patches.permute([1, 2, 0, 4, 5, 3]).reshape([out * out, -1, batch]);
        let y = self.weight.bmm(&patches).permute([2, 1, 0]);
        y.reshape([batch, -1, out, out]) + &self.bias
    }
}

/// Side of what a kernel without padding gives.
#[must_use]
pub const fn out_side(side: i64, kernel: i64, stride: i64) -> i64 {
    (side - kernel) / stride + 1
}

/// How weights and biases start.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Start {
    /// Weights N(0, `deviation`), biases one number, the same in every layer: as the papers do at full width.
    Gaussian {
        /// Standard deviation.
        deviation: f64,
        /// Biases.
        bias: f64,
    },
    /// Weights N(0, √(2 / fan in)), biases 0 (He et al. 2015): keeps the signal's size whatever the width.
    Scaled,
}

impl Start {
    /// For weights with this many inputs to each output.
    #[must_use]
    pub fn weights(self, fan_in: i64) -> Init {
        let stdev = match self {
            Self::Gaussian { deviation, .. } => deviation,
            Self::Scaled => (2.0 / fan_in as f64).sqrt(),
        };
        Init::Randn { mean: 0.0, stdev }
    }

    /// For biases.
    #[must_use]
    pub const fn biases(self) -> Init {
        match self {
            Self::Gaussian { bias, .. } => Init::Const(bias),
            Self::Scaled => Init::Const(0.0),
        }
    }
}

/// What a locally connected layer is by definition, one number at a time: the reference of tests.
#[must_use]
pub fn naive(x: &[f32], weight: &[f32], bias: &[f32], shape: NaiveShape) -> Vec<f32> {
    let NaiveShape { batch, from, to, side, kernel, stride } = shape;
    let out = (side - kernel) / stride + 1;
    let mut y = vec![0.0; batch * to * out * out];
    for n in 0..batch {
        for o in 0..to {
            for row in 0..out {
                for column in 0..out {
                    let mut sum = bias[(o * out + row) * out + column];
                    for i in 0..from {
                        for dy in 0..kernel {
                            for dx in 0..kernel {
                                let (sy, sx) = (row * stride + dy, column * stride + dx);
                                let value = x[((n * from + i) * side + sy) * side + sx];
                                let filter = (row * out + column) * to + o;
                                sum += value
                                    * weight
                                        [filter * from * kernel * kernel + (i * kernel + dy) * kernel + dx];
                            }
                        }
                    }
                    y[((n * to + o) * out + row) * out + column] = sum;
                }
            }
        }
    }
    y
}

/// Sizes for [`naive`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NaiveShape {
    /// Pictures.
    pub batch: usize,
    /// Channels in.
    pub from: usize,
    /// Channels out.
    pub to: usize,
    /// Side in.
    pub side: usize,
    /// Side of the kernel.
    pub kernel: usize,
    /// Step.
    pub stride: usize,
}

/// Fully connected layer, `[batch, from]` → `[batch, to]`.
#[derive(Debug)]
pub struct Full {
    /// `[to, from]`.
    pub weight: Tensor,
    /// `[to]`.
    pub bias: Tensor,
}

impl Full {
    /// Fresh weights.
    #[must_use]
    pub fn new(path: &Path<'_>, from: i64, to: i64, start: Start) -> Self {
        Self {
            weight: path.var("weight", &[to, from], start.weights(from)),
            bias: path.var("bias", &[to], start.biases()),
        }
    }

    /// `x·Wᵀ + b`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, Some(&self.bias))
    }
}

/// Convolution with bias and without normalization.
#[derive(Debug)]
pub struct Conv {
    weight: Tensor,
    bias: Tensor,
    padding: i64,
}

impl Conv {
    /// Stride 1.
    #[must_use]
    pub fn new(path: &Path<'_>, from: i64, to: i64, kernel: i64, padding: i64, start: Start) -> Self {
        let fan_in = from * kernel * kernel;
        Self {
            weight: path.var("weight", &[to, from, kernel, kernel], start.weights(fan_in)),
            bias: path.var("bias", &[to], start.biases()),
            padding,
        }
    }

    /// `[batch, from, h, w]` → `[batch, to, …]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.conv2d(&self.weight, Some(&self.bias), [1, 1], [self.padding; 2], [1, 1], 1)
    }
}

/// Zeroes of a dropout layer and the scale that makes up for them, `[batch, units]` (Srivastava et al. 2014): drawn in one
/// place, so that copies of a net on several threads do not race for libtorch's generator.
pub fn dropout_mask(batch: i64, units: i64, drop: f64, device: tch::Device) -> Tensor {
    let keep = 1.0 - drop;
    Tensor::rand([batch, units], (Kind::Float, device)).lt(keep).to_kind(Kind::Float) * (1.0 / keep)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tch::{Device, nn::VarStore};

    fn numbers(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.to_kind(Kind::Float).flatten(0, -1)).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_batched_layer_is_the_naive_one(
            batch in 1_usize..4, from in 1_usize..4, to in 1_usize..4, kernel in 1_usize..5,
            stride in 1_usize..3, more in 0_usize..6, seed in 0_i64..1000,
        ) {
            let side = kernel + more;
            tch::manual_seed(seed);
            let store = VarStore::new(Device::Cpu);
            let start = Start::Gaussian { deviation: 0.5, bias: 0.25 };
            let [k, s, f, t, d] = [kernel, stride, from, to, side].map(|v| v as i64);
            let layer = Local::new(&store.root(), f, t, k, s, d, start);
            let _no_grad = tch::no_grad_guard();
            let mut bias = layer.bias.shallow_clone();
            bias.copy_(&Tensor::randn_like(&layer.bias));
            let x = Tensor::randn([batch as i64, f, d, d], (Kind::Float, Device::Cpu));
            let y = layer.forward(&x);
            let shape = NaiveShape { batch, from, to, side, kernel, stride };
            let expected = naive(&numbers(&x), &numbers(&layer.weight), &numbers(&layer.bias), shape);
            for (a, e) in numbers(&y).iter().zip(&expected) {
                // Sums of at most 3·4·4 products of order one, in another order.
                prop_assert!((a - e).abs() < 1e-4, "{a} {e}");
            }
            prop_assert_eq!(numbers(&y).len(), expected.len());
        }
    }

    #[test]
    fn equal_filters_everywhere_are_a_convolution() {
        tch::manual_seed(3);
        let store = VarStore::new(Device::Cpu);
        let start = Start::Gaussian { deviation: 0.3, bias: 0.0 };
        let layer = Local::new(&store.root(), 2, 3, 3, 2, 9, start);
        let _no_grad = tch::no_grad_guard();
        let one = layer.weight.narrow(0, 0, 1);
        let mut all = layer.weight.shallow_clone();
        all.copy_(&one.expand_as(&layer.weight).copy());
        let x = Tensor::randn([2, 2, 9, 9], (Kind::Float, Device::Cpu));
        let expected = x.conv2d(&one.reshape([3, 2, 3, 3]), None::<&Tensor>, [2, 2], [0, 0], [1, 1], 1);
        assert!((layer.forward(&x) - expected).abs().max().double_value(&[]) < 1e-5);
    }

    #[test]
    fn a_mask_keeps_the_mean() {
        tch::manual_seed(4);
        let mask = dropout_mask(200, 100, 0.5, Device::Cpu);
        assert!((mask.mean(Kind::Float).double_value(&[]) - 1.0).abs() < 0.03);
        assert!(numbers(&mask).iter().all(|&v| v == 0.0 || v == 2.0));
    }
}
