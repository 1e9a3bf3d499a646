//! FaceNet's Inception nets (Schroff et al. 2015, section 3.3 and table 2): NN2, and a small one in the manner of NNS2.
//!
//! Three things differ from the paper. Batch normalization follows every convolution, where the paper has two local response
//! normalizations; the nets predate it and train poorly without on small batches. L2 pooling is the root of the mean square, the
//! paper's times a constant that the next normalization removes. And the paper publishes NNS2 only as "4.3 M parameters, 20 M FLOPS":
//! [`Net::Nns2`] is a net of about that size of our own, which like the paper's small nets has no 5×5 convolutions in the higher layers.
//!
//! The description of a net is data ([`Shape::plan`]), which the net here, the ONNX export and the count of its work all walk along.

use serde::{Deserialize, Serialize};
use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

use super::layers::{ConvBn, Mode};
use super::resample;

/// Which net.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Net {
    /// Table 2: 7.5 million parameters at width 1 with an embedding of 128.
    Nn2,
    /// A tiny Inception: 3.9 million parameters, mostly where maps are smallest.
    Nns2,
}

/// What a net is made with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shape {
    /// Which net.
    pub net: Net,
    /// Factor on all channels, 0.1 to 2; each is rounded to a multiple of 8.
    pub width: f64,
    /// Numbers in the embedding. The door takes 128 (FaceNet, section 5.4: more gains nothing).
    pub embedding: i64,
    /// Side in pixels that pictures are resampled to before the first convolution, 32 to 224.
    pub input_px: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self { net: Net::Nns2, width: 1.0, embedding: 128, input_px: 96 }
    }
}

/// One step of a net.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Convolution, normalization, ReLU.
    Conv {
        /// Name of its weights.
        name: &'static str,
        /// Channels out.
        to: i64,
        /// Side of the kernel.
        kernel: i64,
        /// Step on both axes.
        stride: i64,
    },
    /// 3×3 maximum with stride 2.
    MaxPool,
    /// An Inception module.
    Inception(Module),
}

/// An Inception module: up to four branches beside each other, joined along the channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Module {
    /// Name of its weights.
    pub name: &'static str,
    /// Channels of the 1×1 branch; 0 leaves it out.
    pub one: i64,
    /// Reduction and output of the 3×3 branch.
    pub three: [i64; 2],
    /// Reduction and output of the 5×5 branch; zeros leave it out.
    pub five: [i64; 2],
    /// What the fourth branch pools by, 3×3.
    pub pool: Pool,
    /// Channels that it is projected to; 0 hands the pooled map on as it is.
    pub project: i64,
    /// Stride of the last layer of each branch.
    pub stride: i64,
}

/// 3×3 pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// Maximum.
    Max,
    /// Root of the mean square.
    L2,
}

/// Added under the root of L2 pooling, whose gradient at zero would be infinite.
pub const L2_EPS: f64 = 1e-6;

impl Shape {
    /// The steps from the picture to the last map; their mean over the map and one linear layer follow.
    #[must_use]
    pub fn plan(&self) -> Vec<Step> {
        let w = |channels: i64| {
            if channels == 0 { 0 } else { ((channels as f64 * self.width / 8.0).round() as i64).max(1) * 8 }
        };
        let conv = |name, to, kernel, stride| Step::Conv { name, to: w(to), kernel, stride };
        let module = |name, one, three: [i64; 2], five: [i64; 2], pool, project, stride| {
            Step::Inception(Module {
                name,
                one: w(one),
                three: three.map(w),
                five: five.map(w),
                pool,
                project: w(project),
                stride,
            })
        };
        match self.net {
            Net::Nn2 => vec![
                conv("conv1", 64, 7, 2),
                Step::MaxPool,
                conv("reduce2", 64, 1, 1),
                conv("conv2", 192, 3, 1),
                Step::MaxPool,
                module("3a", 64, [96, 128], [16, 32], Pool::Max, 32, 1),
                module("3b", 64, [96, 128], [32, 64], Pool::L2, 64, 1),
                module("3c", 0, [128, 256], [32, 64], Pool::Max, 0, 2),
                module("4a", 256, [96, 192], [32, 64], Pool::L2, 128, 1),
                module("4b", 224, [112, 224], [32, 64], Pool::L2, 128, 1),
                module("4c", 192, [128, 256], [32, 64], Pool::L2, 128, 1),
                module("4d", 160, [144, 288], [32, 64], Pool::L2, 128, 1),
                module("4e", 0, [160, 256], [64, 128], Pool::Max, 0, 2),
                module("5a", 384, [192, 384], [48, 128], Pool::L2, 128, 1),
                module("5b", 384, [192, 384], [48, 128], Pool::Max, 128, 1),
            ],
            Net::Nns2 => vec![
                conv("conv1", 32, 7, 2),
                Step::MaxPool,
                conv("reduce2", 32, 1, 1),
                conv("conv2", 96, 3, 1),
                Step::MaxPool,
                module("3a", 32, [48, 64], [8, 16], Pool::Max, 16, 1),
                module("3c", 0, [64, 128], [16, 32], Pool::Max, 0, 2),
                module("4a", 128, [64, 128], [0, 0], Pool::L2, 64, 1),
                module("4b", 128, [64, 128], [0, 0], Pool::L2, 64, 1),
                module("4e", 0, [96, 192], [0, 0], Pool::Max, 0, 2),
                module("5a", 448, [224, 448], [0, 0], Pool::L2, 128, 1),
                module("5b", 448, [224, 448], [0, 0], Pool::Max, 128, 1),
            ],
        }
    }

    /// Multiply-adds of all convolutions and the linear layer for one picture.
    #[must_use]
    pub fn multiply_adds(&self) -> u64 {
        let (mut side, mut from, mut sum) = (self.input_px as i64, 3, 0);
        for step in self.plan() {
            match step {
                Step::Conv { to, kernel, stride, .. } => {
                    side = (side + stride - 1) / stride;
                    sum += side * side * from * to * kernel * kernel;
                    from = to;
                }
                Step::MaxPool => side = (side + 1) / 2,
                Step::Inception(m) => {
                    let out = (side + m.stride - 1) / m.stride;
                    sum += side * side * from * (m.one + m.three[0] + m.five[0] + m.project);
                    sum += out * out * (9 * m.three[0] * m.three[1] + 25 * m.five[0] * m.five[1]);
                    (side, from) = (out, m.channels(from));
                }
            }
        }
        (sum + from * self.embedding).max(0) as u64
    }

    /// Refuses what no net can be made of.
    ///
    /// # Errors
    /// The key and the rule it breaks.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        if !(0.1..=2.0).contains(&self.width) {
            return Err(("shape.width", "must be 0.1 to 2"));
        }
        if !(8..=4096).contains(&self.embedding) {
            return Err(("shape.embedding", "must be 8 to 4096; the door takes 128"));
        }
        if !(32..=224).contains(&self.input_px) {
            return Err(("shape.input_px", "must be 32 to 224"));
        }
        Ok(())
    }
}

impl Module {
    /// Channels out, for `from` in.
    #[must_use]
    pub const fn channels(&self, from: i64) -> i64 {
        self.one + self.three[1] + self.five[1] + if self.project > 0 { self.project } else { from }
    }
}

/// The net. Input `[batch, 3, side, side]` RGB 0–255, output `[batch, embedding]`, not normalised: the door normalises what a model
/// gives, and so does [`Facenet::embed`].
#[derive(Debug)]
pub struct Facenet {
    input_px: usize,
    steps: Vec<Layer>,
    linear: Tensor,
    bias: Tensor,
}

#[derive(Debug)]
enum Layer {
    Conv(ConvBn),
    MaxPool,
    Inception(Box<Branches>),
}

#[derive(Debug)]
struct Branches {
    one: Option<ConvBn>,
    three: [ConvBn; 2],
    five: Option<[ConvBn; 2]>,
    pool: Pool,
    stride: i64,
    project: Option<ConvBn>,
}

impl Facenet {
    /// Fresh weights under `path`; seed libtorch first.
    #[must_use]
    pub fn new(path: &Path, shape: &Shape) -> Self {
        let mut from = 3;
        let steps = shape
            .plan()
            .into_iter()
            .map(|step| match step {
                Step::Conv { name, to, kernel, stride } => {
                    let conv = ConvBn::new(&(path / name), from, to, kernel, stride, kernel / 2, 1);
                    from = to;
                    Layer::Conv(conv)
                }
                Step::MaxPool => Layer::MaxPool,
                Step::Inception(module) => {
                    let branches = Branches::new(&(path / module.name), from, &module);
                    from = module.channels(from);
                    Layer::Inception(Box::new(branches))
                }
            })
            .collect();
        let stdev = (1.0 / from as f64).sqrt();
        Self {
            input_px: shape.input_px,
            steps,
            linear: path.var("linear", &[shape.embedding, from], Init::Randn { mean: 0.0, stdev }),
            bias: path.var("bias", &[shape.embedding], Init::Const(0.0)),
        }
    }

    /// Whether a variable of this name belongs to the embedding layer.
    #[must_use]
    pub fn is_embedding(name: &str) -> bool {
        matches!(name, "linear" | "bias")
    }

    /// Begins the embedding layer afresh; seed libtorch first.
    pub fn forget_embedding(&self) {
        let _no_grad = tch::no_grad_guard();
        let stdev = (1.0 / self.linear.size()[1] as f64).sqrt();
        self.linear.shallow_clone().copy_(&(self.linear.randn_like() * stdev));
        let _ = self.bias.shallow_clone().zero_();
    }

    /// Embeddings before normalisation.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let x = resample::square(&x.to_kind(Kind::Float), self.input_px as i64);
        let x = (x - 127.5) * (1.0 / 128.0);
        let mut x = if mode.bf16 { x.to_kind(Kind::BFloat16) } else { x };
        for step in &self.steps {
            x = match step {
                Layer::Conv(conv) => conv.forward(&x, mode).relu(),
                Layer::MaxPool => max_pool(&x, 2),
                Layer::Inception(branches) => branches.forward(&x, mode),
            };
        }
        let x = x.to_kind(Kind::Float).mean_dim([2_i64, 3].as_slice(), false, Kind::Float);
        x.linear(&self.linear, Some(&self.bias))
    }

    /// Embeddings of length one, `[batch, embedding]`.
    pub fn embed(&self, x: &Tensor, mode: Mode) -> Tensor {
        crate::loss::distill::unit(&self.forward(x, mode))
    }
}

impl Branches {
    fn new(path: &Path, from: i64, module: &Module) -> Self {
        let conv = |name: &str, from, to, kernel, stride| {
            ConvBn::new(&(path / name), from, to, kernel, stride, kernel / 2, 1)
        };
        let ([reduce3, three], [reduce5, five]) = (module.three, module.five);
        Self {
            one: (module.one > 0).then(|| conv("one", from, module.one, 1, module.stride)),
            three: [
                conv("three_reduce", from, reduce3, 1, 1),
                conv("three", reduce3, three, 3, module.stride),
            ],
            five: (five > 0).then(|| {
                [conv("five_reduce", from, reduce5, 1, 1), conv("five", reduce5, five, 5, module.stride)]
            }),
            pool: module.pool,
            stride: module.stride,
            project: (module.project > 0).then(|| conv("project", from, module.project, 1, 1)),
        }
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let through = |x: &Tensor, conv: &ConvBn| conv.forward(x, mode).relu();
        let mut parts = Vec::with_capacity(4);
        if let Some(one) = &self.one {
            parts.push(through(x, one));
        }
        parts.push(through(&through(x, &self.three[0]), &self.three[1]));
        if let Some([reduce, five]) = &self.five {
            parts.push(through(&through(x, reduce), five));
        }
        let pooled = match self.pool {
            Pool::Max => max_pool(x, self.stride),
            Pool::L2 => l2_pool(x),
        };
        parts.push(match &self.project {
            Some(project) => through(&pooled, project),
            None => pooled,
        });
        Tensor::cat(&parts, 1)
    }
}

fn max_pool(x: &Tensor, stride: i64) -> Tensor {
    x.max_pool2d([3, 3], [stride, stride], [1, 1], [1, 1], false)
}

/// Root of the mean square over 3×3, zeros beyond the edge.
fn l2_pool(x: &Tensor) -> Tensor {
    (x.square().avg_pool2d([3, 3], [1, 1], [1, 1], false, true, None) + L2_EPS).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, nn::VarStore};

    fn parameters(shape: &Shape) -> i64 {
        let store = VarStore::new(Device::Cpu);
        let _net = Facenet::new(&store.root(), shape);
        store.trainable_variables().iter().map(|t| t.numel() as i64).sum()
    }

    #[test]
    fn nn2_is_as_large_and_as_much_work_as_table_2_says() {
        let nn2 = Shape { net: Net::Nn2, input_px: 224, ..Shape::default() };
        let count = parameters(&nn2);
        // Table 2: 7.5 M in all; its rows, added up, give 7.47 M, to which normalization adds two numbers a channel.
        assert!((7_400_000..7_600_000).contains(&count), "{count}");
        let work = nn2.multiply_adds();
        // Table 2: 1.6 B.
        assert!((1_500_000_000..1_700_000_000).contains(&work), "{work}");
    }

    #[test]
    fn nns2_is_tiny() {
        let nns2 = Shape { input_px: 56, ..Shape::default() };
        let (count, work) = (parameters(&nns2), nns2.multiply_adds());
        assert!((3_800_000..4_300_000).contains(&count), "{count}");
        assert!((20_000_000..40_000_000).contains(&work), "{work}");
    }

    #[test]
    fn every_net_size_and_embedding_gives_unit_vectors() {
        tch::manual_seed(1);
        for (net, width, embedding, input_px) in
            [(Net::Nn2, 0.25, 64, 64), (Net::Nns2, 0.25, 512, 33), (Net::Nns2, 0.5, 128, 112)]
        {
            let store = VarStore::new(Device::Cpu);
            let net = Facenet::new(&store.root(), &Shape { net, width, embedding, input_px });
            let x = Tensor::rand([3, 3, 112, 112], (Kind::Float, Device::Cpu)) * 255.0;
            for mode in [Mode::EVAL, Mode { train: true, bf16: false }, Mode { train: false, bf16: true }] {
                let out = net.embed(&x, mode);
                assert_eq!(out.size(), [3, embedding]);
                let lengths = out.square().sum_dim_intlist(1, false, Kind::Float);
                assert!((lengths - 1.0).abs().max().double_value(&[]) < 1e-5);
            }
        }
    }

    #[test]
    fn gradients_reach_every_weight_and_are_finite_even_on_black() {
        tch::manual_seed(2);
        let store = VarStore::new(Device::Cpu);
        let net = Facenet::new(&store.root(), &Shape { width: 0.25, input_px: 48, ..Shape::default() });
        let x = Tensor::cat(
            &[
                Tensor::zeros([1, 3, 48, 48], (Kind::Float, Device::Cpu)),
                Tensor::rand([3, 3, 48, 48], (Kind::Float, Device::Cpu)) * 255.0,
            ],
            0,
        );
        net.embed(&x, Mode { train: true, bf16: false }).select(1, 0).sum(Kind::Float).backward();
        for (name, variable) in store.variables() {
            if variable.requires_grad() {
                let grad = variable.grad();
                assert!(grad.defined() && grad.isfinite().all().int64_value(&[]) == 1, "{name}");
            }
        }
    }
}
