//! What a quantized net computes, in libtorch: weights and values rounded to their codes, sums in f32.
//!
//! Rounding is a step function without a slope; its gradient is taken as one inside the range and zero outside (straight-through, Bengio
//! et al. 2013), so that the same forward pass serves measuring and fine-tuning.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::net::{Layer, Net};
use super::observer::{Histogram, Observer, Range};

/// How the values of a net are quantized, and which layers compute on codes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// For each layer whether it is integer.
    pub integer: Vec<bool>,
    /// For each layer the range of what it gives, after addition and ReLU; used when an integer layer reads it.
    pub after: Vec<Range>,
    /// For each layer the range between convolution and addition; used when it is integer and has an addition.
    pub before: Vec<Range>,
}

impl Plan {
    /// Whether value `value` (0 is the picture) is kept as codes: an integer layer reads it, or makes it without an addition after.
    #[must_use]
    pub fn coded(&self, net: &Net, value: usize) -> bool {
        let mut layers = net.layers.iter().zip(&self.integer).enumerate();
        value > 0
            && layers.any(|(index, (layer, &integer))| {
                integer && (layer.from == value || (index + 1 == value && layer.skip.is_none()))
            })
    }

    /// How many layers are integer.
    #[must_use]
    pub fn integers(&self) -> usize {
        self.integer.iter().filter(|i| **i).count()
    }
}

/// The scale of a weight tensor: of 51 between half and the whole of its peak / 127, the one with the least squared error.
#[must_use]
pub fn weight_scale(values: &[f32]) -> f32 {
    let peak = values.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    let full = if peak > 0.0 { peak / 127.0 } else { 1.0 };
    let error = |scale: f32| -> f64 {
        values.iter().map(|&v| f64::from(v - f32::from(code(v, scale)) * scale).powi(2)).sum()
    };
    (0..=50)
        .map(|step| full * (1.0 - 0.01 * step as f32))
        .map(|scale| (error(scale), scale))
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map_or(full, |(_, scale)| scale)
}

/// The int8 code of a weight, −127 to 127.
#[must_use]
pub fn code(value: f32, scale: f32) -> i8 {
    (value / scale).round_ties_even().clamp(-127.0, 127.0) as i8
}

/// Rounds `x` to the codes of `range`.
pub fn rounded(x: &Tensor, range: Range) -> Tensor {
    x.fake_quantize_per_tensor_affine(f64::from(range.scale), i64::from(range.zero), -128, 127)
}

/// Every layer's value with the layers of `plan` quantized; `scales` are the weights' ([`weight_scale`]), one a layer. As
/// [`Net::values`].
#[must_use]
pub fn values(
    net: &Net,
    plan: &Plan,
    scales: &[f32],
    tensors: &[(Tensor, Tensor)],
    chips: &Tensor,
) -> Vec<Tensor> {
    let mut values = vec![chips.to_kind(Kind::Float) - f64::from(super::net::SHIFT)];
    for (index, (layer, (weight, bias))) in net.layers.iter().zip(tensors).enumerate() {
        let x = &values[layer.from];
        let mut y = if plan.integer[index] {
            let weight = weight.fake_quantize_per_tensor_affine(f64::from(scales[index]), 0, -127, 127);
            let y = layer.convolve(x, &weight, bias);
            if layer.skip.is_some() { rounded(&y, plan.before[index]) } else { y }
        } else {
            layer.convolve(x, weight, bias)
        };
        if let Some(skip) = layer.skip {
            y += &values[skip];
        }
        let y = if layer.relu { y.relu() } else { y };
        values.push(if plan.coded(net, index + 1) { rounded(&y, plan.after[index]) } else { y });
    }
    values
}

/// The embeddings alone, `[n, 128]`.
pub fn embed(net: &Net, plan: &Plan, scales: &[f32], tensors: &[(Tensor, Tensor)], chips: &Tensor) -> Tensor {
    let last = values(net, plan, scales, tensors, chips).pop();
    // There is one value more than there are layers.
    last.map_or_else(Tensor::new, |v| v.flatten(1, -1))
}

/// The weights' scales of every layer.
#[must_use]
pub fn scales(net: &Net) -> Vec<f32> {
    net.layers.iter().map(|layer| weight_scale(&layer.dense.values)).collect()
}

/// What every value does on calibration faces: two passes, extremes first, then counts.
#[derive(Debug, Clone)]
pub struct Observed {
    after: Vec<Histogram>,
    before: Vec<Histogram>,
}

/// Faces in one forward pass.
pub const CHUNK: i64 = 32;

impl Observed {
    /// Runs the float net over `chips`.
    #[must_use]
    pub fn over(net: &Net, tensors: &[(Tensor, Tensor)], chips: &Tensor) -> Self {
        let _no_grad = tch::no_grad_guard();
        let count = net.layers.len();
        let mut extremes = vec![[(f32::MAX, f32::MIN); 2]; count];
        each(net, tensors, chips, |index, which, tensor| {
            let (low, high) = (tensor.min().double_value(&[]), tensor.max().double_value(&[]));
            let (l, h) = &mut extremes[index][which];
            (*l, *h) = (l.min(low as f32), h.max(high as f32));
        });
        let mut histograms: Vec<[Histogram; 2]> =
            extremes.iter().map(|e| e.map(|(low, high)| Histogram::new(low, high))).collect();
        let mut numbers = Vec::new();
        each(net, tensors, chips, |index, which, tensor| {
            let flat = tensor.contiguous().flatten(0, -1);
            numbers.resize(flat.numel(), 0.0_f32);
            flat.copy_data(&mut numbers, flat.numel());
            histograms[index][which].add(&numbers);
        });
        let (after, before) = histograms.into_iter().map(|[a, b]| (a, b)).unzip();
        Self { after, before }
    }

    /// The plan with `observer`'s ranges and these integer layers.
    #[must_use]
    pub fn plan(&self, observer: Observer, integer: Vec<bool>) -> Plan {
        let ranges = |histograms: &[Histogram]| histograms.iter().map(|h| h.range(observer)).collect();
        Plan { integer, after: ranges(&self.after), before: ranges(&self.before) }
    }
}

/// Calls `see(layer, 0, value)` for each layer's value and `see(layer, 1, sum before addition)` where there is an addition.
fn each(net: &Net, tensors: &[(Tensor, Tensor)], chips: &Tensor, mut see: impl FnMut(usize, usize, &Tensor)) {
    for start in (0..chips.size()[0]).step_by(CHUNK as usize) {
        let part = chips.narrow(0, start, (chips.size()[0] - start).min(CHUNK));
        let values = net.values(tensors, &part);
        for (index, layer) in net.layers.iter().enumerate() {
            see(index, 0, &values[index + 1]);
            let before = if layer.skip.is_some() {
                let (weight, bias) = &tensors[index];
                layer.convolve(&values[layer.from], weight, bias)
            } else {
                values[index + 1].shallow_clone()
            };
            see(index, 1, &before);
        }
    }
}

/// Bias correction (Nagel et al. 2019, section 4.2, from data): rounding shifts the mean of a layer's sums; the shift on calibration
/// faces is taken out of the bias, layer by layer with the layers before it already rounded and corrected.
pub fn correct_biases(net: &mut Net, plan: &Plan, scales: &[f32], chips: &Tensor) {
    let _no_grad = tch::no_grad_guard();
    let exact = net.tensors();
    let mut tensors = net.tensors();
    for index in (0..net.layers.len()).filter(|&i| plan.integer[i]) {
        let layer = net.layers[index].clone();
        let mean = |y: &Tensor| y.mean_dim(&[0_i64, 2, 3][..], false, Kind::Float);
        let (mut shift, mut faces) = (exact[index].1.zeros_like(), 0.0);
        for start in (0..chips.size()[0]).step_by(CHUNK as usize) {
            let part = chips.narrow(0, start, (chips.size()[0] - start).min(CHUNK));
            let wanted = sum(&layer, &net.values(&exact, &part), &exact[index]);
            let seen = values(net, plan, scales, &tensors, &part);
            let weight =
                tensors[index].0.fake_quantize_per_tensor_affine(f64::from(scales[index]), 0, -127, 127);
            let actual = sum(&layer, &seen, &(weight, tensors[index].1.shallow_clone()));
            let n = part.size()[0] as f64;
            shift += (mean(&actual) - mean(&wanted)) * n;
            faces += n;
        }
        let corrected = &tensors[index].1 - shift / faces;
        tensors[index].1 = corrected;
    }
    net.set_tensors(&tensors);
}

fn sum(layer: &Layer, values: &[Tensor], (weight, bias): &(Tensor, Tensor)) -> Tensor {
    layer.convolve(&values[layer.from], weight, bias)
}

#[cfg(test)]
mod tests {
    use super::super::equalize::equalize;
    use super::super::net::tests::{chips, small};
    use super::*;

    fn cosine(a: &Tensor, b: &Tensor) -> f64 {
        Tensor::cosine_similarity(&a.flatten(1, -1), &b.flatten(1, -1), 1, 1e-8)
            .mean(Kind::Float)
            .double_value(&[])
    }

    fn all(net: &Net) -> Vec<bool> {
        (0..net.layers.len()).map(|i| net.may_be_integer(i)).collect()
    }

    #[test]
    fn a_quantized_net_is_near_the_float_one_and_nothing_quantized_is_the_float_one() {
        let (store, _, shape) = small();
        let net = Net::fold(&store, &shape).unwrap();
        let (tensors, chips) = (net.tensors(), chips(8));
        let exact = net.values(&tensors, &chips).pop().unwrap();
        let observed = Observed::over(&net, &tensors, &chips);
        let scales = scales(&net);
        for observer in Observer::ALL {
            let plan = observed.plan(observer, all(&net));
            let near = cosine(&embed(&net, &plan, &scales, &tensors, &chips), &exact);
            assert!(near > 0.95, "{observer:?}: {near}");
        }
        let none = observed.plan(Observer::MinMax, vec![false; net.layers.len()]);
        let same = embed(&net, &none, &scales, &tensors, &chips);
        assert!((same - exact.flatten(1, -1)).abs().max().double_value(&[]) < 1e-6);
    }

    #[test]
    fn equalization_and_bias_correction_bring_a_lopsided_net_back() {
        let (store, _, shape) = small();
        let mut net = Net::fold(&store, &shape).unwrap();
        let chips = chips(8);
        let exact = net.values(&net.tensors(), &chips).pop().unwrap();
        // One channel a hundred times as large where it is made, as small where it is read: the same net, hard to quantize.
        let down = net.layers.iter().position(|l| l.name == "stage1.down").unwrap();
        let row = net.layers[down].dense.values.len() / 16;
        net.layers[down].dense.values[..row].iter_mut().for_each(|v| *v *= 100.0);
        net.layers[down].dense.bias[0] *= 100.0;
        let next = down + 1;
        for out in 0..net.layers[next].dense.dims[0] as usize {
            let per = 16 * 9;
            net.layers[next].dense.values[out * per..out * per + 9].iter_mut().for_each(|v| *v /= 100.0);
        }
        let quality = |net: &Net| {
            let tensors = net.tensors();
            let plan = Observed::over(net, &tensors, &chips).plan(Observer::MinMax, all(net));
            cosine(&embed(net, &plan, &scales(net), &tensors, &chips), &exact)
        };
        let lopsided = quality(&net);
        equalize(&mut net, 2);
        let equalized = quality(&net);
        assert!(1.0 - equalized < (1.0 - lopsided) / 4.0, "{lopsided} {equalized}");

        let tensors = net.tensors();
        let plan = Observed::over(&net, &tensors, &chips).plan(Observer::MinMax, all(&net));
        let scales = scales(&net);
        let mut corrected = net.clone();
        correct_biases(&mut corrected, &plan, &scales, &chips);
        let shift = |n: &Net| {
            let y = values(n, &plan, &scales, &n.tensors(), &chips);
            let x = net.values(&tensors, &chips);
            let mean = |t: &Tensor| t.mean_dim(&[0_i64, 2, 3][..], false, Kind::Float);
            let last = x.len() - 3;
            (mean(&y[last]) - mean(&x[last])).abs().mean(Kind::Float).double_value(&[])
        };
        assert!(shift(&corrected) <= shift(&net) * 1.05, "{} {}", shift(&corrected), shift(&net));
    }

    #[test]
    fn the_gradient_passes_straight_through_inside_the_range() {
        let x = Tensor::from_slice(&[-3.0_f32, 0.3, 0.6, 9.0]).set_requires_grad(true);
        let range = Range::spanning(-1.0, 1.0);
        rounded(&x, range).sum(Kind::Float).backward();
        assert_eq!(Vec::<f32>::try_from(x.grad()).unwrap(), [0.0, 1.0, 1.0, 0.0]);
    }
}
