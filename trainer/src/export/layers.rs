//! A folded net as a graph in any form, with its layers as extra outputs where a comparison wants to look inside.
//!
//! The integer form is the one that tract runs without extra passes: `QLinearConv` with s8 values, one scale for a whole weight
//! tensor, int32 bias. After a ReLU the zero point is −128, so that saturation is the ReLU. An addition is DQ, DQ, Add, Q.
//! Depthwise and last layers stay float, with int8 weights.

use tract_onnx::pb::tensor_proto::DataType;

use super::onnx::{Form, Geometry, Graph, int, ints};
use super::weights::Dense;
use super::{CHIP_PX, ExportError};
use crate::quantize::Quantized;
use crate::quantize::net::{Layer, Net, SHIFT};
use crate::quantize::observer::Range;
use crate::quantize::simulate::code;

/// How a folded net is written.
#[derive(Debug, Clone, Copy)]
pub enum LayerForm<'a> {
    /// Float arithmetic.
    Float(&'a Net, Form),
    /// Integer arithmetic where the plan says so, the rest float with int8 weights.
    Integer(&'a Quantized),
}

/// Writes the graph: input `chip` `[1, 3, 112, 112]` RGB 0–255, output `embedding` `[1, 128]`, not normalised; with `taps` every
/// layer's value as a float output named as the layer, in order.
///
/// # Errors
/// [`ExportError::Missing`] for a net without layers.
pub fn write(form: LayerForm<'_>, taps: bool) -> Result<Vec<u8>, ExportError> {
    let (net, storage, quantized) = match form {
        LayerForm::Float(net, form) => (net, form, None),
        LayerForm::Integer(quantized) => (&quantized.net, Form::W8, Some(quantized)),
    };
    let (last, convolutions) =
        net.layers.split_last().ok_or_else(|| ExportError::Missing { name: "layers".into() })?;
    let mut writer = Writer { graph: Graph::new(storage), net, quantized, values: Vec::new() };
    let shifted = writer.graph.shift("chip", -SHIFT);
    writer.values.push(Value { float: Some(shifted), codes: None, side: CHIP_PX });
    for index in 0..convolutions.len() {
        let value = writer.layer(index);
        writer.values.push(value);
    }
    let mut outputs = Vec::new();
    if taps {
        for (index, layer) in convolutions.iter().enumerate() {
            let side = writer.values[index + 1].side;
            let float = writer.float(index + 1);
            outputs.push((layer.name.clone(), float, vec![1, layer.dense.dims[0], side, side]));
        }
    }
    let x = writer.float(last.from);
    let mut graph = writer.graph;
    let x = graph.flatten(&x);
    let dims = last.dense.dims[..2].to_vec();
    let (out, inputs) = (dims[0], dims[1]);
    debug_assert_eq!(inputs as usize * out as usize, last.dense.values.len());
    let embedding = graph.linear(&x, &Dense { dims, ..last.dense.clone() });
    let outputs: Vec<(String, Vec<i64>)> = outputs
        .into_iter()
        .map(|(name, value, dims)| {
            let name = format!("layer.{name}");
            graph.named("Identity", &[&value], &name);
            (name, dims)
        })
        .collect();
    Ok(graph.finish_with(&embedding, CHIP_PX, out, &outputs))
}

/// A value in the forms written so far.
struct Value {
    float: Option<String>,
    codes: Option<String>,
    side: i64,
}

struct Writer<'a> {
    graph: Graph,
    net: &'a Net,
    quantized: Option<&'a Quantized>,
    values: Vec<Value>,
}

impl Writer<'_> {
    fn layer(&mut self, index: usize) -> Value {
        let layer = &self.net.layers[index];
        let Geometry { stride, padding, .. } = layer.geometry;
        let side = (self.values[layer.from].side + 2 * padding - layer.dense.dims[2]) / stride + 1;
        let integer = self.quantized.filter(|q| q.plan.integer[index]);
        let coded = self.quantized.is_some_and(|q| q.plan.coded(self.net, index + 1));
        let mut y = match integer {
            Some(quantized) => {
                let range = if layer.skip.is_some() {
                    quantized.plan.before[index]
                } else {
                    quantized.plan.after[index]
                };
                let codes = self.integer_conv(quantized, index, layer, range);
                if layer.skip.is_none() {
                    return Value { float: None, codes: Some(codes), side };
                }
                self.decode(&codes, range)
            }
            None => {
                let x = self.float(layer.from);
                self.graph.conv(&x, &layer.dense, layer.geometry)
            }
        };
        if let Some(skip) = layer.skip {
            let skip = self.float(skip);
            y = self.graph.add(&y, &skip);
        }
        match self.quantized.filter(|_| coded) {
            Some(quantized) => {
                let range = quantized.plan.after[index];
                // A zero point of −128 cuts below zero by itself.
                let y = if layer.relu && range.zero != i8::MIN { self.graph.relu(&y) } else { y };
                Value { float: None, codes: Some(self.encode(&y, range)), side }
            }
            None => {
                Value { float: Some(if layer.relu { self.graph.relu(&y) } else { y }), codes: None, side }
            }
        }
    }

    /// The value as floats, decoded once.
    fn float(&mut self, value: usize) -> String {
        if let Some(name) = &self.values[value].float {
            return name.clone();
        }
        let codes = self.values[value].codes.clone().unwrap_or_default();
        // Only a plan makes codes, and value 0 is a float.
        let range = self.quantized.map_or(Range::spanning(0.0, 1.0), |q| q.plan.after[value - 1]);
        let name = self.decode(&codes, range);
        self.values[value].float = Some(name.clone());
        name
    }

    fn integer_conv(&mut self, quantized: &Quantized, index: usize, layer: &Layer, to: Range) -> String {
        let from = quantized.plan.after[layer.from - 1];
        let scale = quantized.scales[index];
        // Coded: an integer layer reads it.
        let x = self.values[layer.from].codes.clone().unwrap_or_default();
        let raw: Vec<u8> = layer.dense.values.iter().map(|&v| code(v, scale) as u8).collect();
        let weight = self.graph.constant("weight", layer.dense.dims.clone(), DataType::Int8, raw);
        let step = f64::from(from.scale) * f64::from(scale);
        let biases = layer.dense.bias.iter().flat_map(|&b| {
            let code = (f64::from(b) / step).round_ties_even();
            (code.clamp(f64::from(i32::MIN), f64::from(i32::MAX)) as i32).to_le_bytes()
        });
        let bias = self.graph.constant(
            "bias",
            vec![layer.dense.bias.len() as i64],
            DataType::Int32,
            biases.collect(),
        );
        let [from_scale, from_zero] = self.range(from);
        let [to_scale, to_zero] = self.range(to);
        let [weight_scale, weight_zero] = self.range(Range { scale, zero: 0 });
        let Geometry { stride, padding, groups } = layer.geometry;
        let kernel = layer.dense.dims[2];
        self.graph.node(
            "QLinearConv",
            &[&x, &from_scale, &from_zero, &weight, &weight_scale, &weight_zero, &to_scale, &to_zero, &bias],
            vec![
                ints("dilations", &[1, 1]),
                int("group", groups),
                ints("kernel_shape", &[kernel, kernel]),
                ints("pads", &[padding; 4]),
                ints("strides", &[stride; 2]),
            ],
        )
    }

    fn encode(&mut self, x: &str, range: Range) -> String {
        let [scale, zero] = self.range(range);
        self.graph.node("QuantizeLinear", &[x, &scale, &zero], vec![])
    }

    fn decode(&mut self, x: &str, range: Range) -> String {
        let [scale, zero] = self.range(range);
        self.graph.node("DequantizeLinear", &[x, &scale, &zero], vec![])
    }

    /// Scalars for a scale and a zero point.
    fn range(&mut self, Range { scale, zero }: Range) -> [String; 2] {
        [
            self.graph.float("scale", vec![], &[scale]),
            self.graph.constant("zero", vec![], DataType::Int8, vec![zero as u8]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use facelatch_shared::vision::runtime::Network;

    use super::*;
    use crate::quantize::net::tests::{chips, small};
    use crate::quantize::{Settings, quantize};

    fn run(bytes: &[u8], chip: &tch::Tensor) -> Vec<Vec<f32>> {
        let mut network = Network::from_bytes(Path::new("test.onnx"), bytes, 112, 112).unwrap();
        let input = network.input_mut().unwrap();
        chip.contiguous().flatten(0, -1).copy_data(input, 3 * 112 * 112);
        let outputs = network.run().unwrap();
        outputs.iter().map(|o| o.to_plain_array_view::<f32>().unwrap().iter().copied().collect()).collect()
    }

    fn cosine(a: &[f32], b: &[f32]) -> f64 {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    }

    #[test]
    fn the_integer_form_computes_in_tract_what_was_simulated() {
        let (store, _, shape) = small();
        let net = Net::fold(&store, &shape).unwrap();
        let faces = chips(8);
        // Once all integer, once with a float layer in the middle of the residual blocks.
        for float_layers in [vec![], vec!["stage0.block0.b".to_owned()], vec!["stage1.down".to_owned()]] {
            let settings = Settings { float_layers, ..Settings::default() };
            let (quantized, _) = quantize(&net, &faces, &faces, &settings).unwrap();
            let bytes = write(LayerForm::Integer(&quantized), false).unwrap();
            let chip = faces.narrow(0, 0, 1);
            let simulated: Vec<f32> = Vec::try_from(quantized.embed(&chip).flatten(0, -1)).unwrap();
            let actual = run(&bytes, &chip);
            let near = cosine(&actual[0], &simulated);
            assert!(near > 0.9995, "{:?}: {near}", settings.float_layers);
        }
    }

    #[test]
    fn taps_show_every_layer_and_change_nothing() {
        let (store, _, shape) = small();
        let net = Net::fold(&store, &shape).unwrap();
        let chip = chips(1);
        let plain = run(&write(LayerForm::Float(&net, Form::F32), false).unwrap(), &chip);
        let tapped = run(&write(LayerForm::Float(&net, Form::F32), true).unwrap(), &chip);
        assert_eq!(tapped.len(), net.layers.len());
        assert!(cosine(&plain[0], &tapped[0]) > 1.0 - 1e-9);
        let values = net.values(&net.tensors(), &chip);
        for (index, tap) in tapped[1..].iter().enumerate() {
            let expected: Vec<f32> = Vec::try_from(values[index + 1].contiguous().flatten(0, -1)).unwrap();
            assert!(cosine(tap, &expected) > 1.0 - 1e-6, "{}", net.layers[index].name);
        }
    }
}
