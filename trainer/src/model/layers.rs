//! Building blocks shared by the nets: convolution with batch normalization, and the precision it computes in.

use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

/// How a forward pass computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    /// Batch statistics (and their running means) instead of stored ones.
    pub train: bool,
    /// Convolutions in bfloat16; weights, statistics and gradients of weights stay in f32.
    pub bf16: bool,
}

impl Mode {
    /// Stored statistics, f32.
    pub const EVAL: Self = Self { train: false, bf16: false };
}

/// Batch normalization (Ioffe and Szegedy 2015) over the channels of `[batch, channels, …]`.
#[derive(Debug)]
pub struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
}

/// Added to the variance.
pub const BN_EPS: f64 = 1e-5;

impl BatchNorm {
    /// Scale `gain`, shift 0, statistics of a standard normal.
    #[must_use]
    pub fn new(path: &Path, channels: i64, gain: f64) -> Self {
        Self {
            weight: path.var("weight", &[channels], Init::Const(gain)),
            bias: path.var("bias", &[channels], Init::Const(0.0)),
            mean: path.zeros_no_train("mean", &[channels]),
            var: path.ones_no_train("var", &[channels]),
        }
    }

    /// Shape kept.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        x.batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            Some(&self.mean),
            Some(&self.var),
            mode.train,
            0.1,
            BN_EPS,
            true,
        )
    }
}

/// Convolution without bias, then batch normalization.
#[derive(Debug)]
pub struct ConvBn {
    weight: Tensor,
    norm: BatchNorm,
    stride: i64,
    padding: i64,
    groups: i64,
}

impl ConvBn {
    /// `from` → `to` channels with a square kernel; He-normal initialisation (He et al. 2015). `groups == from` is depthwise.
    #[must_use]
    pub fn new(path: &Path, from: i64, to: i64, kernel: i64, stride: i64, padding: i64, groups: i64) -> Self {
        let fan_in = (from / groups * kernel * kernel) as f64;
        let weight = path.var(
            "weight",
            &[to, from / groups, kernel, kernel],
            Init::Randn { mean: 0.0, stdev: (2.0 / fan_in).sqrt() },
        );
        Self { weight, norm: BatchNorm::new(&(path / "bn"), to, 1.0), stride, padding, groups }
    }

    /// 3×3, padding 1.
    #[must_use]
    pub fn three(path: &Path, from: i64, to: i64, stride: i64) -> Self {
        Self::new(path, from, to, 3, stride, 1, 1)
    }

    /// The same with the scale of the normalization at zero, so that a residual branch starts as nothing (Goyal et al. 2017).
    #[must_use]
    pub fn three_silent(path: &Path, channels: i64) -> Self {
        let mut conv = Self::three(path, channels, channels, 1);
        let _no_grad = tch::no_grad_guard();
        let _ = conv.norm.weight.zero_();
        conv
    }

    /// Depthwise over a whole `kernel`×`kernel` map, starting as its mean. A random start would leave fine structure that
    /// training at lower resolutions, where the kernel is resampled, neither sees nor removes.
    #[must_use]
    pub fn global(path: &Path, channels: i64, kernel: i64) -> Self {
        let mut conv = Self::new(path, channels, channels, kernel, 1, 0, channels);
        let _no_grad = tch::no_grad_guard();
        let _ = conv.weight.fill_(1.0 / kernel as f64);
        conv
    }

    /// `[batch, from, h, w]` → `[batch, to, h/stride, w/stride]`.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        self.with_weight(x, &self.weight, mode)
    }

    /// A depthwise layer that covers its whole input, whose kernel is resampled when the input is smaller than the kernel
    /// (progressive resolution): area means, scaled so that the sum over the window keeps its size.
    pub fn forward_global(&self, x: &Tensor, mode: Mode) -> Tensor {
        let (kernel, side) = (self.weight.size()[2], x.size()[2]);
        if kernel == side {
            return self.forward(x, mode);
        }
        let ratio = (kernel as f64 / side as f64).powi(2);
        let weight = self.weight.adaptive_avg_pool2d([side, side]) * ratio;
        self.with_weight(x, &weight, mode)
    }

    fn with_weight(&self, x: &Tensor, weight: &Tensor, mode: Mode) -> Tensor {
        let weight = if mode.bf16 { weight.to_kind(Kind::BFloat16) } else { weight.shallow_clone() };
        let y = x.conv2d(
            &weight,
            None::<&Tensor>,
            [self.stride, self.stride],
            [self.padding, self.padding],
            [1, 1],
            self.groups,
        );
        self.norm.forward(&y, mode)
    }
}

/// Two 3×3 convolutions beside the identity (He et al. 2015, figure 2), ReLU after each sum.
#[derive(Debug)]
pub struct Residual {
    first: ConvBn,
    second: ConvBn,
}

impl Residual {
    /// Keeps the number of channels and the size.
    #[must_use]
    pub fn new(path: &Path, channels: i64) -> Self {
        Self {
            first: ConvBn::three(&(path / "a"), channels, channels, 1),
            second: ConvBn::three_silent(&(path / "b"), channels),
        }
    }

    /// Shape kept.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        (self.second.forward(&self.first.forward(x, mode).relu(), mode) + x).relu()
    }
}
