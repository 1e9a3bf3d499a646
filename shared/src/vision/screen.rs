//! What a model file must be before anything is built from it: a hostile or damaged one is refused by name, in bounded time and memory.
//!
//! The hash in the manifest says that a file is the one that was signed or imported; this says that loading it is safe even where that
//! was a mistake. Checked in this order: how many pieces the file has (before it is decoded), operators, order, constants, input, and,
//! once shapes are known, memory and arithmetic.

use std::collections::HashSet;

use thiserror::Error;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension::Value;
use tract_onnx::pb::type_proto::Value as TypeValue;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};

/// Why a file is no model for the door.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Unfit {
    /// More pieces than any sane graph has.
    #[error("it has more than {limit} nodes, tensors and attributes")]
    TooManyPieces {
        /// The bound.
        limit: usize,
    },
    /// The bytes are no protobuf, or hold no graph.
    #[error("it is no ONNX file, or is cut short")]
    NoGraph,
    /// An operator that the door does not run: unknown, or one that loops, branches or makes data of any size.
    #[error("node \"{node}\" is the operator \"{operator}\", which the door does not run")]
    Operator {
        /// The node.
        node: String,
        /// Its operator, with its domain where it has one.
        operator: String,
    },
    /// A node reads what no node before it gives: a loop, a gap, or a wrong order.
    #[error(
        "node \"{node}\" reads \"{value}\", which nothing before it gives: the graph has a loop or a gap"
    )]
    Loop {
        /// The node.
        node: String,
        /// What it reads.
        value: String,
    },
    /// Two nodes or constants give the same value.
    #[error("\"{value}\" is given twice")]
    Twice {
        /// The value.
        value: String,
    },
    /// A node that computes on constants alone and could make them any size.
    #[error("node \"{node}\" computes on constants alone: fold it into a constant first")]
    ConstantArithmetic {
        /// The node.
        node: String,
    },
    /// Weights outside the hashed file.
    #[error("tensor \"{tensor}\" lies outside the file (external data), where no hash covers it")]
    External {
        /// The tensor.
        tensor: String,
    },
    /// A tensor whose shape is not that of its data.
    #[error("tensor \"{tensor}\" claims {claimed} elements and holds {present}")]
    Claim {
        /// The tensor.
        tensor: String,
        /// Elements by its shape; the largest number when they cannot be counted.
        claimed: u64,
        /// Elements in the file.
        present: u64,
    },
    /// A type of numbers that the door does not read.
    #[error("tensor \"{tensor}\" has the element type {data_type}, which the door does not read")]
    ElementType {
        /// The tensor.
        tensor: String,
        /// ONNX's number for it.
        data_type: i32,
    },
    /// A weight that is infinite or no number.
    #[error("tensor \"{tensor}\" holds numbers that are not finite")]
    NotFinite {
        /// The tensor.
        tensor: String,
    },
    /// The input is no picture.
    #[error("its input is {declared}, not one picture [1, 3, height, width] of float32")]
    Input {
        /// What it says.
        declared: String,
    },
    /// A value too large for a board.
    #[error("node \"{node}\" makes {elements} numbers, {limit} are allowed")]
    Memory {
        /// The node.
        node: String,
        /// Numbers; the largest when they cannot be counted.
        elements: u64,
        /// The bound.
        limit: u64,
    },
    /// More arithmetic than a board does in seconds.
    #[error("one run takes {multiplications} multiply-adds, {limit} are allowed")]
    Arithmetic {
        /// Multiply-adds.
        multiplications: u64,
        /// The bound.
        limit: u64,
    },
}

/// Most nodes, tensors, attributes and their fields.
pub const MAX_PIECES: usize = 200_000;
/// Most numbers of one value.
pub const MAX_ELEMENTS: u64 = 1 << 26;
/// Most multiply-adds of one run: VGG-16 at 224×224 takes 15.5 billion.
pub const MAX_MULTIPLICATIONS: u64 = 32_000_000_000;

/// Counts the pieces of an encoded model. Decoding makes a structure of some hundred bytes from two; this bounds them first.
pub(super) fn count_pieces(bytes: &[u8]) -> Result<(), Unfit> {
    let mut pieces = 0;
    let mut count = |bytes: &[u8]| -> Result<Vec<(u64, std::ops::Range<usize>)>, Unfit> {
        let found = fields(bytes, MAX_PIECES).ok_or(Unfit::NoGraph)?;
        pieces += found.0;
        if pieces > MAX_PIECES { Err(Unfit::TooManyPieces { limit: MAX_PIECES }) } else { Ok(found.1) }
    };
    // ModelProto.graph = 7; GraphProto.node = 1, .initializer = 5, .input = 11, .output = 12, .value_info = 13; NodeProto.attribute = 5; AttributeProto.t = 5, .tensors = 10.
    for (tag, graph) in count(bytes)? {
        if tag != 7 {
            continue;
        }
        let graph = &bytes[graph];
        // Names and texts are strings, not messages: nodes, initializers and descriptions of values are.
        for (tag, piece) in count(graph)?.into_iter().filter(|(tag, _)| matches!(tag, 1 | 5 | 11..=13)) {
            let piece = &graph[piece];
            let parts = count(piece)?;
            for (part, attribute) in parts.into_iter().filter(|_| tag == 1) {
                if part == 5 {
                    count(&piece[attribute])?;
                }
            }
        }
    }
    Ok(())
}

type Fields = (usize, Vec<(u64, std::ops::Range<usize>)>);

/// The number of fields of one protobuf message, and its length-delimited ones with where they lie; `None` when it is damaged. Stops
/// collecting after `most`.
fn fields(bytes: &[u8], most: usize) -> Option<Fields> {
    let (mut at, mut count, mut delimited) = (0, 0, Vec::new());
    while at < bytes.len() {
        let key = varint(bytes, &mut at)?;
        match key & 7 {
            0 => drop(varint(bytes, &mut at)?),
            1 => at += 8,
            5 => at += 4,
            2 => {
                let length = usize::try_from(varint(bytes, &mut at)?).ok()?;
                let end = at.checked_add(length).filter(|end| *end <= bytes.len())?;
                delimited.push((key >> 3, at..end));
                at = end;
            }
            _ => return None,
        }
        count += 1;
        if at > bytes.len() {
            return None;
        }
        if count > most {
            break;
        }
    }
    Some((count, delimited))
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Checks a decoded model before tract sees it.
pub(super) fn check(model: &ModelProto) -> Result<(), Unfit> {
    let graph = model.graph.as_ref().ok_or(Unfit::NoGraph)?;
    if graph.node.is_empty() {
        return Err(Unfit::NoGraph);
    }
    if let Some(function) = model.functions.first() {
        return Err(Unfit::Operator {
            node: function.name.clone().unwrap_or_default(),
            operator: "a function of its own".into(),
        });
    }
    for node in &graph.node {
        check_operator(node)?;
    }
    for tensor in graph.initializer.iter().chain(graph.node.iter().flat_map(attribute_tensors)) {
        check_tensor(tensor)?;
    }
    if let Some(sparse) = graph.sparse_initializer.first() {
        let tensor = sparse.values.as_ref().map(|v| v.name.clone()).unwrap_or_default();
        return Err(Unfit::ElementType { tensor, data_type: 0 });
    }
    check_order(graph)?;
    check_input(graph)
}

fn check_operator(node: &NodeProto) -> Result<(), Unfit> {
    let standard = node.domain.is_empty() || node.domain == "ai.onnx";
    let subgraph = node.attribute.iter().any(|a| a.g.is_some() || !a.graphs.is_empty());
    if standard && !subgraph && OPERATORS.contains(&node.op_type.as_str()) {
        return Ok(());
    }
    let operator = if standard { node.op_type.clone() } else { format!("{}.{}", node.domain, node.op_type) };
    Err(Unfit::Operator { node: shown(node), operator: clipped(&operator) })
}

fn attribute_tensors(node: &NodeProto) -> impl Iterator<Item = &TensorProto> {
    node.attribute.iter().flat_map(|a| a.t.iter().chain(&a.tensors))
}

fn check_tensor(tensor: &TensorProto) -> Result<(), Unfit> {
    let name = || clipped(&tensor.name);
    if tensor.data_location.is_some_and(|place| place != 0) || !tensor.external_data.is_empty() {
        return Err(Unfit::External { tensor: name() });
    }
    let claimed =
        tensor.dims.iter().try_fold(1_u64, |product, &dim| product.checked_mul(u64::try_from(dim).ok()?));
    let unknown = || Unfit::ElementType { tensor: name(), data_type: tensor.data_type };
    let (size, typed) = match DataType::try_from(tensor.data_type).map_err(|_| unknown())? {
        DataType::Float => (4, tensor.float_data.len()),
        DataType::Double => (8, tensor.double_data.len()),
        DataType::Int64 => (8, tensor.int64_data.len()),
        DataType::Int32 => (4, tensor.int32_data.len()),
        DataType::Float16 | DataType::Bfloat16 => (2, tensor.int32_data.len()),
        DataType::Uint8 | DataType::Int8 | DataType::Bool => (1, tensor.int32_data.len()),
        _ => return Err(unknown()),
    };
    let raw = tensor.raw_data.len() as u64;
    let present = if raw > 0 { raw / size } else { typed as u64 };
    if claimed != Some(present) || !raw.is_multiple_of(size) {
        return Err(Unfit::Claim { tensor: name(), claimed: claimed.unwrap_or(u64::MAX), present });
    }
    let finite = match tensor.data_type {
        kind if kind == DataType::Float as i32 => {
            tensor.float_data.iter().all(|v| v.is_finite())
                && tensor.raw_data.as_chunks::<4>().0.iter().all(|b| f32::from_le_bytes(*b).is_finite())
        }
        kind if kind == DataType::Double as i32 => {
            tensor.double_data.iter().all(|v| v.is_finite())
                && tensor.raw_data.as_chunks::<8>().0.iter().all(|b| f64::from_le_bytes(*b).is_finite())
        }
        kind if kind == DataType::Float16 as i32 => half_finite(tensor, 0x7c00),
        kind if kind == DataType::Bfloat16 as i32 => half_finite(tensor, 0x7f80),
        _ => true,
    };
    if finite { Ok(()) } else { Err(Unfit::NotFinite { tensor: name() }) }
}

/// Of two-byte floats: the bits of `exponent` are not all set.
fn half_finite(tensor: &TensorProto, exponent: u16) -> bool {
    let raw = tensor.raw_data.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b));
    raw.chain(tensor.int32_data.iter().map(|v| *v as u16)).all(|bits| bits & exponent != exponent)
}

/// Every node reads what is there already, so that there is no loop; values are given once; constants are not computed with, except by
/// operators that keep their size.
fn check_order(graph: &GraphProto) -> Result<(), Unfit> {
    let mut known: HashSet<&str> = HashSet::new();
    let mut constant: HashSet<&str> = HashSet::new();
    for tensor in &graph.initializer {
        if !known.insert(&tensor.name) {
            return Err(Unfit::Twice { value: clipped(&tensor.name) });
        }
        constant.insert(&tensor.name);
    }
    // Old files list constants among the inputs.
    known.extend(graph.input.iter().map(|input| input.name.as_str()));
    for node in &graph.node {
        for value in node.input.iter().filter(|name| !name.is_empty()) {
            if !known.contains(value.as_str()) {
                return Err(Unfit::Loop { node: shown(node), value: clipped(value) });
            }
        }
        let all_constant = node.input.iter().all(|name| name.is_empty() || constant.contains(name.as_str()));
        if all_constant && !KEEPS_SIZE.contains(&node.op_type.as_str()) {
            return Err(Unfit::ConstantArithmetic { node: shown(node) });
        }
        for value in node.output.iter().filter(|name| !name.is_empty()) {
            if !known.insert(value) {
                return Err(Unfit::Twice { value: clipped(value) });
            }
            if all_constant {
                constant.insert(value);
            }
        }
    }
    for output in &graph.output {
        if !known.contains(output.name.as_str()) {
            return Err(Unfit::Loop { node: "the graph's output".into(), value: clipped(&output.name) });
        }
    }
    Ok(())
}

fn check_input(graph: &GraphProto) -> Result<(), Unfit> {
    let constants: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let mut inputs = graph.input.iter().filter(|input| !constants.contains(input.name.as_str()));
    // That there is exactly one is the loader's to say.
    let Some(input) = inputs.next() else { return Ok(()) };
    let refuse = |declared: String| Err(Unfit::Input { declared });
    let Some((element, dims)) = shape(input) else { return Ok(()) };
    if element != DataType::Float as i32 {
        return refuse(format!("of element type {element}"));
    }
    let fits = |dim: Option<i64>, wanted: i64| dim.is_none_or(|d| d == wanted);
    let Some(dims) = dims else { return Ok(()) };
    match dims[..] {
        [batch, channels, height, width]
            if fits(batch, 1)
                && fits(channels, 3)
                && [height, width].into_iter().flatten().all(|side| side > 0) =>
        {
            Ok(())
        }
        _ => refuse(clipped(&format!(
            "[{}]",
            dims.iter().map(|d| d.map_or("?".into(), |d| d.to_string())).collect::<Vec<_>>().join(", ")
        ))),
    }
}

type Declared = (i32, Option<Vec<Option<i64>>>);

/// Element type and sizes, `None` for what is free; `None` when nothing is declared.
fn shape(input: &ValueInfoProto) -> Option<Declared> {
    let TypeValue::TensorType(tensor) = input.r#type.as_ref()?.value.as_ref()?;
    let dims = tensor.shape.as_ref().map(|shape| {
        let size = |value: &Option<Value>| match value {
            // Zero and below stand for "any" in some exporters.
            Some(Value::DimValue(size)) if *size > 0 => Some(*size),
            _ => None,
        };
        shape.dim.iter().map(|dim| size(&dim.value)).collect()
    });
    Some((tensor.elem_type, dims))
}

fn shown(node: &NodeProto) -> String {
    clipped(if node.name.is_empty() { node.output.first().map_or("", String::as_str) } else { &node.name })
}

/// Names come from the file: they are cut, and control characters do not reach a terminal.
fn clipped(name: &str) -> String {
    name.chars().take(60).map(|c| if c.is_control() { '·' } else { c }).collect()
}

/// Operators whose result is no larger than what they read, apart from broadcasting and padding, which the bound on values covers. No
/// loops, no branches, nothing that makes data from a shape.
const OPERATORS: &[&str] = &[
    "Abs",
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Clip",
    "Concat",
    "Constant",
    "Conv",
    "DequantizeLinear",
    "Div",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Flatten",
    "Gather",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "InstanceNormalization",
    "LRN",
    "LayerNormalization",
    "LeakyRelu",
    "Log",
    "MatMul",
    "Max",
    "MaxPool",
    "Min",
    "Mul",
    "Neg",
    "PRelu",
    "Pad",
    "Pow",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
    "Reciprocal",
    "ReduceL2",
    "ReduceMax",
    "ReduceMean",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Resize",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Softplus",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Tanh",
    "Transpose",
    "Unsqueeze",
    "Upsample",
];

/// Of those, the ones that may work on constants alone: their result has the size of what they read.
const KEEPS_SIZE: &[&str] = &[
    "Cast",
    "Constant",
    "DequantizeLinear",
    "Flatten",
    "Identity",
    "Reshape",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];

#[cfg(test)]
#[path = "screen_tests.rs"]
mod tests;
