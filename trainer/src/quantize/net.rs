//! The compact net with normalization folded in, as a list of layers: what quantization measures, changes and writes.

use tch::{Kind, Tensor, nn::VarStore};

use crate::export::onnx::Geometry;
use crate::export::weights::{Dense, Norm};
use crate::export::{CHIP_PX, ExportError};
use crate::model::compact::{EMBEDDING, Shape};
use crate::model::layers::BN_EPS;

/// One convolution with what follows it: an optional addition, an optional ReLU.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Its path in the net, `stage0.block0.a`.
    pub name: String,
    /// Folded weights `[out, in / groups, k, k]` and bias.
    pub dense: Dense,
    /// Stride, padding, groups.
    pub geometry: Geometry,
    /// max(x, 0) at its end.
    pub relu: bool,
    /// The value it reads.
    pub from: usize,
    /// The value added before the ReLU.
    pub skip: Option<usize>,
}

/// Layers in the order of computation. Value 0 is the shifted picture, value i + 1 what layer i gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Net {
    /// The last one gives the embedding as `[n, 128, 1, 1]`.
    pub layers: Vec<Layer>,
}

/// Subtracted from the picture, RGB 0–255, before the first layer.
pub const SHIFT: f32 = 127.5;

impl Net {
    /// Folds the net of `shape` whose weights are in `store`.
    ///
    /// # Errors
    /// [`ExportError::Missing`] when the store is not this net's, [`ExportError::Side`] when it does not look at whole chips.
    pub fn fold(store: &VarStore, shape: &Shape) -> Result<Self, ExportError> {
        if shape.input_px != CHIP_PX {
            return Err(ExportError::Side { input_px: shape.input_px });
        }
        let reader = Reader(store);
        let mut layers: Vec<Layer> = Vec::new();
        let three = |stride| Geometry { stride, padding: 1, groups: 1 };
        let mut push = |name: String, dense: Dense, geometry, relu, from: Option<usize>, skip| {
            let from = from.unwrap_or(layers.len());
            layers.push(Layer { name, dense, geometry, relu, from, skip });
            layers.len()
        };
        push("stem".into(), reader.conv_bn("stem")?.scaled(1.0 / 128.0), three(2), true, None, None);
        for (stage, &blocks) in shape.blocks.iter().enumerate() {
            let name = format!("stage{stage}.down");
            let mut last = push(name.clone(), reader.conv_bn(&name)?, three(2), true, None, None);
            for block in 0..blocks {
                let path = format!("stage{stage}.block{block}");
                let (a, b) = (format!("{path}.a"), format!("{path}.b"));
                push(a.clone(), reader.conv_bn(&a)?, three(1), true, Some(last), None);
                last = push(b.clone(), reader.conv_bn(&b)?, three(1), true, None, Some(last));
            }
        }
        let one = |groups| Geometry { stride: 1, padding: 0, groups };
        push("head".into(), reader.conv_bn("head")?, one(1), true, None, None);
        push("global".into(), reader.conv_bn("global")?, one(shape.head), false, None, None);
        let (values, bias) = (reader.values("linear")?, reader.values("bias")?);
        let linear = Dense { dims: vec![EMBEDDING, shape.head, 1, 1], values, bias };
        push("linear".into(), linear, one(1), false, None, None);
        Ok(Self { layers })
    }

    /// Whether tract has a kernel that makes an integer form of layer `index` worth it: dense, neither the first (three channels,
    /// a thousandth of the work, and it sees the picture) nor the last.
    #[must_use]
    pub fn may_be_integer(&self, index: usize) -> bool {
        index > 0 && index + 1 < self.layers.len() && self.layers[index].geometry.groups == 1
    }

    /// Weights and biases as tensors, in the order of the layers.
    #[must_use]
    pub fn tensors(&self) -> Vec<(Tensor, Tensor)> {
        let tensor = |values: &[f32], dims: &[i64]| Tensor::from_slice(values).reshape(dims);
        self.layers
            .iter()
            .map(|l| (tensor(&l.dense.values, &l.dense.dims), tensor(&l.dense.bias, &[l.dense.dims[0]])))
            .collect()
    }

    /// Takes weights and biases back from tensors of the same shapes.
    pub fn set_tensors(&mut self, tensors: &[(Tensor, Tensor)]) {
        for (layer, (weight, bias)) in self.layers.iter_mut().zip(tensors) {
            let copy = |tensor: &Tensor, to: &mut Vec<f32>| {
                let flat = tensor.detach().to_kind(Kind::Float).contiguous().flatten(0, -1);
                flat.copy_data(to, flat.numel());
            };
            copy(weight, &mut layer.dense.values);
            copy(bias, &mut layer.dense.bias);
        }
    }

    /// Every layer's value for chips `[n, 3, 112, 112]` RGB 0–255; value 0 is the shifted picture, the last is
    /// `[n, 128, 1, 1]`.
    #[must_use]
    pub fn values(&self, tensors: &[(Tensor, Tensor)], chips: &Tensor) -> Vec<Tensor> {
        let mut values = vec![chips.to_kind(Kind::Float) - f64::from(SHIFT)];
        for (layer, (weight, bias)) in self.layers.iter().zip(tensors) {
            let mut y = layer.convolve(&values[layer.from], weight, bias);
            if let Some(skip) = layer.skip {
                y += &values[skip];
            }
            values.push(if layer.relu { y.relu() } else { y });
        }
        values
    }
}

impl Layer {
    /// The convolution alone.
    pub fn convolve(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
        let Geometry { stride, padding, groups } = self.geometry;
        x.conv2d(weight, Some(bias), [stride; 2], [padding; 2], [1, 1], groups)
    }

    /// Multiply-adds for an input of 112×112, given the side of what it gives.
    #[must_use]
    pub fn multiplications(&self, side: i64) -> i64 {
        self.dense.values.len() as i64 * side * side
    }
}

struct Reader<'a>(&'a VarStore);

impl Reader<'_> {
    fn tensor(&self, name: &str) -> Result<Tensor, ExportError> {
        let found = self.0.variables().remove(name);
        found.ok_or_else(|| ExportError::Missing { name: name.to_owned() })
    }

    fn values(&self, name: &str) -> Result<Vec<f32>, ExportError> {
        let flat = self.tensor(name)?.to_kind(Kind::Float).flatten(0, -1);
        Vec::try_from(flat).map_err(|_| ExportError::Missing { name: name.to_owned() })
    }

    fn conv_bn(&self, path: &str) -> Result<Dense, ExportError> {
        let name = format!("{path}.weight");
        let dims = self.tensor(&name)?.size();
        let part = |part: &str| self.values(&format!("{path}.bn.{part}"));
        let norm =
            Norm { weight: part("weight")?, bias: part("bias")?, mean: part("mean")?, var: part("var")? };
        let layer = Dense { bias: vec![0.0; dims[0] as usize], dims, values: self.values(&name)? };
        Ok(layer.fold(&norm, BN_EPS))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::compact::Compact;
    use crate::model::layers::Mode;
    use tch::Device;

    /// A narrow net with statistics as after some training.
    pub(crate) fn small() -> (VarStore, Compact, Shape) {
        let shape = Shape { stem: 8, stages: [16, 16, 32], blocks: [1, 0, 1], head: 32, input_px: 112 };
        tch::manual_seed(11);
        let store = VarStore::new(Device::Cpu);
        let net = Compact::new(&store.root(), &shape);
        let _no_grad = tch::no_grad_guard();
        // By name: a map's own order would draw other numbers at every run.
        for (name, mut tensor) in store.variables().into_iter().collect::<std::collections::BTreeMap<_, _>>()
        {
            if name.contains(".bn.") {
                tensor.copy_(&(Tensor::rand_like(&tensor) * 0.5 + 0.5));
            }
        }
        (store, net, shape)
    }

    /// Blurred noise: smooth enough to look like pictures to a net with random weights.
    pub(crate) fn chips(n: i64) -> Tensor {
        tch::manual_seed(12);
        let coarse = Tensor::rand([n, 3, 14, 14], (Kind::Float, Device::Cpu)) * 255.0;
        coarse.upsample_bilinear2d([112, 112], false, None, None)
    }

    #[test]
    fn the_folded_net_answers_as_the_net() {
        let (store, net, shape) = small();
        let folded = Net::fold(&store, &shape).unwrap();
        let chips = chips(3);
        let expected = tch::no_grad(|| net.forward(&chips, Mode::EVAL));
        let values = folded.values(&folded.tensors(), &chips);
        let actual = values[values.len() - 1].flatten(1, -1);
        let difference = (&actual - &expected).abs().max().double_value(&[]);
        assert!(difference < 1e-4 * expected.abs().max().double_value(&[]), "{difference}");
        assert!(!folded.may_be_integer(0) && folded.may_be_integer(1));
        let error = Net::fold(&store, &Shape { input_px: 96, ..shape }).unwrap_err();
        assert!(error.to_string().contains("96 px"), "{error}");
        let last = folded.layers.len() - 1;
        assert!(!folded.may_be_integer(last) && !folded.may_be_integer(last - 1));
    }
}
