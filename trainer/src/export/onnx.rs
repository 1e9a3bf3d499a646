//! A writer of ONNX graphs (opset 13) for the nets trained here: convolutions, pooling, fully connected layers and what joins them.

use prost::Message as _;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension::Value as DimValue};
use tract_onnx::pb::type_proto::{Tensor as TensorType, Value as TypeValue};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto,
};

use super::weights::{Codes, Dense};

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// 32-bit floats.
    F32,
    /// int8 with one scale for each output channel, made floats when the model is loaded: a quarter of the size, the same speed.
    W8,
}

/// A graph under construction. Names of values are handed from one call to the next.
#[derive(Debug)]
pub struct Graph {
    form: Form,
    /// Tensors with fewer weights stay exact.
    exact_below: usize,
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    count: usize,
}

/// Geometry of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Step on both axes.
    pub stride: i64,
    /// Zeros on every side.
    pub padding: i64,
    /// 1, or the number of channels for a depthwise layer.
    pub groups: i64,
}

impl Graph {
    /// An empty graph.
    #[must_use]
    pub const fn new(form: Form) -> Self {
        Self { form, exact_below: 4096, nodes: Vec::new(), constants: Vec::new(), count: 0 }
    }

    /// Leaves only tensors of fewer than `exact_below` weights exact: for nets whose every layer is small.
    #[must_use]
    pub const fn exact_below(mut self, exact_below: usize) -> Self {
        self.exact_below = exact_below;
        self
    }

    /// `x` plus one number.
    pub fn shift(&mut self, x: &str, by: f32) -> String {
        let name = self.float("shift", vec![1], &[by]);
        self.node("Add", &[x, &name], vec![])
    }

    /// Convolution with bias; weights `[out, in / groups, k, k]`.
    pub fn conv(&mut self, x: &str, weights: &Dense, geometry: Geometry) -> String {
        let kernel = weights.dims[2];
        let (weight, bias) = self.weights(weights);
        let attributes = vec![
            ints("dilations", &[1, 1]),
            int("group", geometry.groups),
            ints("kernel_shape", &[kernel, kernel]),
            ints("pads", &[geometry.padding; 4]),
            ints("strides", &[geometry.stride; 2]),
        ];
        self.node("Conv", &[x, &weight, &bias], attributes)
    }

    /// Fully connected layer; weights `[out, in]`, input `[1, in]`.
    pub fn linear(&mut self, x: &str, weights: &Dense) -> String {
        let (weight, bias) = self.weights(weights);
        self.node("Gemm", &[x, &weight, &bias], vec![int("transB", 1)])
    }

    /// max(x, 0).
    pub fn relu(&mut self, x: &str) -> String {
        self.node("Relu", &[x], vec![])
    }

    /// Elementwise sum of two values of one shape.
    pub fn add(&mut self, a: &str, b: &str) -> String {
        self.node("Add", &[a, b], vec![])
    }

    /// 3×3 maximum, one beyond the edge left out.
    pub fn max_pool(&mut self, x: &str, stride: i64) -> String {
        self.node("MaxPool", &[x], pool(stride))
    }

    /// Root of the mean square over 3×3, zeros beyond the edge; `epsilon` is added under the root.
    pub fn l2_pool(&mut self, x: &str, epsilon: f32) -> String {
        let square = self.node("Mul", &[x, x], vec![]);
        let attributes = pool(1).into_iter().chain([int("count_include_pad", 1)]).collect();
        let mean = self.node("AveragePool", &[&square], attributes);
        let shifted = self.shift(&mean, epsilon);
        self.node("Sqrt", &[&shifted], vec![])
    }

    /// Maps of one size joined along the channels.
    pub fn concat(&mut self, parts: &[String]) -> String {
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        self.node("Concat", &parts, vec![int("axis", 1)])
    }

    /// Mean over each map, `[1, c, h, w]` to `[1, c]`.
    pub fn mean(&mut self, x: &str) -> String {
        let mean = self.node("GlobalAveragePool", &[x], vec![]);
        self.flatten(&mean)
    }

    /// Square maps resampled by the matrix `[to, from]` on both axes.
    pub fn resample(&mut self, x: &str, matrix: &[f32], from: i64, to: i64) -> String {
        let transposed: Vec<f32> = (0..from as usize)
            .flat_map(|j| (0..to as usize).map(move |i| matrix[i * from as usize + j]))
            .collect();
        let (rows, columns) =
            (self.float("rows", vec![to, from], matrix), self.float("columns", vec![from, to], &transposed));
        let wide = self.node("MatMul", &[x, &columns], vec![]);
        self.node("MatMul", &[&rows, &wide], vec![])
    }

    /// `[1, c, h, w]` to `[1, c·h·w]`.
    pub fn flatten(&mut self, x: &str) -> String {
        self.node("Flatten", &[x], vec![int("axis", 1)])
    }

    /// The finished model as bytes: input `chip` `[1, 3, side, side]`, output `embedding` `[1, dim]`.
    #[must_use]
    pub fn finish(self, last: &str, side: i64, dim: i64) -> Vec<u8> {
        self.finish_with(last, side, dim, &[])
    }

    /// The same with more float outputs, by name and shape, for looking inside.
    #[must_use]
    pub fn finish_with(mut self, last: &str, side: i64, dim: i64, more: &[(String, Vec<i64>)]) -> Vec<u8> {
        for name in self.nodes.iter_mut().flat_map(|node| &mut node.output).filter(|name| *name == last) {
            "embedding".clone_into(name);
        }
        let outputs: Vec<_> =
            std::iter::once(("embedding".to_owned(), vec![1, dim])).chain(more.iter().cloned()).collect();
        self.finish_as("chip", [side, side], &outputs)
    }

    /// The finished model as bytes: one input `[1, 3, height, width]`, and the outputs by name and shape, each the output of a node.
    #[must_use]
    pub fn finish_as(
        self,
        input: &str,
        [height, width]: [i64; 2],
        outputs: &[(String, Vec<i64>)],
    ) -> Vec<u8> {
        let graph = GraphProto {
            name: "facelatch".into(),
            node: self.nodes,
            initializer: self.constants,
            input: vec![value(input, &[1, 3, height, width])],
            output: outputs.iter().map(|(name, dims)| value(name, dims)).collect(),
            ..GraphProto::default()
        };
        let model = ModelProto {
            ir_version: 8,
            producer_name: "facelatch".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 13 }],
            graph: Some(graph),
            ..ModelProto::default()
        };
        model.encode_to_vec()
    }

    fn weights(&mut self, weights: &Dense) -> (String, String) {
        let bias = self.float("bias", vec![weights.bias.len() as i64], &weights.bias);
        // The stem is a thousandth of the weights and sees the picture first: it stays exact.
        if self.form == Form::F32 || weights.values.len() < self.exact_below {
            return (self.float("weight", weights.dims.clone(), &weights.values), bias);
        }
        let Codes { codes, scales } = weights.quantize();
        let channels = vec![scales.len() as i64];
        let raw = codes.iter().map(|&c| c as u8).collect();
        let code = self.constant("weight", weights.dims.clone(), DataType::Int8, raw);
        let scale = self.float("scale", channels.clone(), &scales);
        let zero = self.constant("zero", channels, DataType::Int8, vec![0; scales.len()]);
        (self.node("DequantizeLinear", &[&code, &scale, &zero], vec![int("axis", 0)]), bias)
    }

    pub(super) fn float(&mut self, kind: &str, dims: Vec<i64>, values: &[f32]) -> String {
        self.constant(kind, dims, DataType::Float, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    pub(super) fn constant(
        &mut self,
        kind: &str,
        dims: Vec<i64>,
        data: DataType,
        raw_data: Vec<u8>,
    ) -> String {
        let name = self.name(kind);
        let tensor = TensorProto {
            dims,
            data_type: data as i32,
            name: name.clone(),
            raw_data,
            ..TensorProto::default()
        };
        self.constants.push(tensor);
        name
    }

    pub(super) fn node(&mut self, op: &str, inputs: &[&str], attribute: Vec<AttributeProto>) -> String {
        let output = self.name(&op.to_lowercase());
        self.nodes.push(NodeProto {
            op_type: op.into(),
            name: output.clone(),
            input: inputs.iter().map(|&s| s.into()).collect(),
            output: vec![output.clone()],
            attribute,
            ..NodeProto::default()
        });
        output
    }

    /// A node whose output has a name of its own.
    pub(super) fn named(&mut self, op: &str, inputs: &[&str], output: &str) {
        self.nodes.push(NodeProto {
            op_type: op.into(),
            name: output.into(),
            input: inputs.iter().map(|&s| s.into()).collect(),
            output: vec![output.into()],
            ..NodeProto::default()
        });
    }

    fn name(&mut self, kind: &str) -> String {
        self.count += 1;
        format!("{kind}_{}", self.count)
    }
}

/// Attributes of 3×3 pooling with one pixel of padding.
fn pool(stride: i64) -> Vec<AttributeProto> {
    vec![ints("kernel_shape", &[3, 3]), ints("pads", &[1; 4]), ints("strides", &[stride; 2])]
}

pub(super) fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i, r#type: AttributeType::Int as i32, ..AttributeProto::default() }
}

pub(super) fn ints(name: &str, values: &[i64]) -> AttributeProto {
    let (name, ints) = (name.into(), values.to_vec());
    AttributeProto { name, ints, r#type: AttributeType::Ints as i32, ..AttributeProto::default() }
}

fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = dims
        .iter()
        .map(|&d| Dimension { value: Some(DimValue::DimValue(d)), ..Dimension::default() })
        .collect();
    let tensor = TensorType { elem_type: DataType::Float as i32, shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto { value: Some(TypeValue::TensorType(tensor)), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}
