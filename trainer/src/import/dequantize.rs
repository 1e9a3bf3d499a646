//! `DequantizeLinear` on constants, folded into floats.
//!
//! ONNX operator specification, `DequantizeLinear` of opsets 10 to 21: `y = (x - zero_point) * scale`, with one scale for
//! the tensor, one for each index of `axis`, or (from opset 21, `block_size` > 0) one for each run of `block_size`
//! elements along `axis`.

use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use super::tensor::{self, Elements};

/// Whether `node` dequantizes in blocks, which tract 0.23 refuses.
pub(super) fn is_blockwise(node: &NodeProto) -> bool {
    node.op_type == "DequantizeLinear" && int_attribute(node, "block_size").unwrap_or(0) != 0
}

/// The integer attribute `name` of `node`.
pub(super) fn int_attribute(node: &NodeProto, name: &str) -> Option<i64> {
    node.attribute.iter().find(|attribute| attribute.name == name).map(|attribute| attribute.i)
}

/// Computes `node`, a `DequantizeLinear` whose inputs are initializers of `graph`, as a float initializer that takes the
/// name of its output.
///
/// # Errors
/// A sentence that names the node: an input that is computed at run time, or shapes that contradict the specification.
pub(super) fn fold(graph: &GraphProto, node: &NodeProto) -> Result<TensorProto, String> {
    let operands = Operands::read(graph, node).map_err(|why| format!("node '{}': {why}", node.name))?;
    let Operands { dims, codes, scales, zero_points, layout } = operands;
    let values: Vec<f32> = codes
        .iter()
        .enumerate()
        .map(|(flat, &code)| {
            let parameter = layout.parameter(flat);
            let zero_point = zero_points.as_ref().map_or(0, |points| points[parameter]);
            (code - zero_point) as f32 * scales[parameter]
        })
        .collect();
    Ok(tensor::float_tensor(&node.output[0], dims, &values))
}

struct Operands {
    dims: Vec<i64>,
    codes: Vec<i64>,
    scales: Vec<f32>,
    zero_points: Option<Vec<i64>>,
    layout: Layout,
}

impl Operands {
    fn read(graph: &GraphProto, node: &NodeProto) -> Result<Self, String> {
        if node.output.len() != 1 || !(2..=3).contains(&node.input.len()) {
            return Err("DequantizeLinear takes two or three inputs and gives one output".into());
        }
        let codes = integers(graph, &node.input[0])?;
        let dims = codes.0;
        let scales = constant(graph, &node.input[1])?;
        let Elements::Floats(scale_values) = tensor::elements(scales)? else {
            return Err(format!("scale '{}' is not 32-bit float", node.input[1]));
        };
        let layout = Layout::new(
            &dims,
            &scales.dims,
            int_attribute(node, "axis").unwrap_or(1),
            int_attribute(node, "block_size").unwrap_or(0),
        )?;
        let zero_points = match node.input.get(2).filter(|name| !name.is_empty()) {
            Some(name) => {
                let (point_dims, points) = integers(graph, name)?;
                if point_dims != scales.dims {
                    return Err(format!(
                        "zero point of shape {point_dims:?} beside a scale of shape {:?}",
                        scales.dims
                    ));
                }
                Some(points)
            }
            None => None,
        };
        Ok(Self { dims, codes: codes.1, scales: scale_values, zero_points, layout })
    }
}

/// Which scale belongs to which element.
enum Layout {
    Tensor,
    Axis { length: usize, inner: usize },
    Block { length: usize, inner: usize, block: usize, blocks: usize },
}

impl Layout {
    fn new(dims: &[i64], scale_dims: &[i64], axis: i64, block: i64) -> Result<Self, String> {
        if block == 0 && tensor::element_count(scale_dims) == Some(1) {
            return Ok(Self::Tensor);
        }
        let rank = dims.len() as i64;
        let axis = if axis < 0 { axis + rank } else { axis };
        if !(0..rank).contains(&axis) {
            return Err(format!("axis {axis} is outside a tensor of shape {dims:?}"));
        }
        let axis = axis as usize;
        let length = dims[axis] as usize;
        // A zero elsewhere can hide an impossible product here.
        let inner =
            tensor::element_count(&dims[axis + 1..]).ok_or_else(|| format!("impossible shape {dims:?}"))?;
        let mut expected = dims.to_vec();
        let layout = match usize::try_from(block) {
            Ok(0) => {
                expected = vec![dims[axis]];
                Self::Axis { length, inner }
            }
            Ok(block) => {
                let blocks = length.div_ceil(block);
                expected[axis] = blocks as i64;
                Self::Block { length, inner, block, blocks }
            }
            Err(_) => return Err(format!("block size {block}")),
        };
        if expected == scale_dims {
            Ok(layout)
        } else {
            Err(format!("scale of shape {scale_dims:?} where {expected:?} is due"))
        }
    }

    fn parameter(&self, flat: usize) -> usize {
        match *self {
            Self::Tensor => 0,
            Self::Axis { length, inner } => flat / inner % length,
            Self::Block { length, inner, block, blocks } => {
                let (outer, index, rest) = (flat / inner / length, flat / inner % length, flat % inner);
                (outer * blocks + index / block) * inner + rest
            }
        }
    }
}

fn constant<'g>(graph: &'g GraphProto, name: &str) -> Result<&'g TensorProto, String> {
    tensor::initializer(graph, name).ok_or_else(|| format!("input '{name}' is not a constant of the file"))
}

fn integers(graph: &GraphProto, name: &str) -> Result<(Vec<i64>, Vec<i64>), String> {
    let tensor = constant(graph, name)?;
    match tensor::elements(tensor).map_err(|why| format!("'{name}': {why}"))? {
        Elements::Integers(values) => Ok((tensor.dims.clone(), values)),
        Elements::Floats(_) => Err(format!("'{name}' holds floats where codes are due")),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use tract_onnx::pb::AttributeProto;
    use tract_onnx::pb::tensor_proto::DataType;

    pub(in super::super) fn int8(name: &str, dims: &[i64], values: &[i8]) -> TensorProto {
        TensorProto {
            dims: dims.to_vec(),
            data_type: DataType::Int8 as i32,
            name: name.into(),
            raw_data: values.iter().map(|&v| v as u8).collect(),
            ..TensorProto::default()
        }
    }

    pub(in super::super) fn dequantize(name: &str, output: &str, axis: i64, block: i64) -> NodeProto {
        let attribute =
            |name: &str, i| AttributeProto { name: name.into(), r#type: 2, i, ..AttributeProto::default() };
        NodeProto {
            op_type: "DequantizeLinear".into(),
            name: name.into(),
            input: vec!["q".into(), "s".into(), "z".into()],
            output: vec![output.into()],
            attribute: vec![attribute("axis", axis), attribute("block_size", block)],
            ..NodeProto::default()
        }
    }

    fn graph(q: TensorProto, s: TensorProto, z: TensorProto) -> GraphProto {
        GraphProto { initializer: vec![q, s, z], ..GraphProto::default() }
    }

    fn folded(graph: &GraphProto, axis: i64, block: i64) -> Result<Vec<f32>, String> {
        let tensor = fold(graph, &dequantize("n", "w", axis, block))?;
        match tensor::elements(&tensor).unwrap() {
            Elements::Floats(values) => Ok(values),
            Elements::Integers(_) => panic!("integers"),
        }
    }

    #[test]
    fn blocks_along_the_last_axis_with_a_short_last_block() {
        let g = graph(
            int8("q", &[2, 3], &[1, 2, 3, 4, 5, 6]),
            tensor::float_tensor("s", vec![2, 2], &[1.0, 10.0, 100.0, 1000.0]),
            int8("z", &[2, 2], &[0, 1, -1, 0]),
        );
        assert_eq!(folded(&g, 1, 2).unwrap(), [1.0, 2.0, 20.0, 500.0, 600.0, 6000.0]);
        assert_eq!(folded(&g, -1, 2), folded(&g, 1, 2));
    }

    #[test]
    fn blocks_along_the_first_axis() {
        let g = graph(
            int8("q", &[2, 2], &[1, 2, 3, 4]),
            tensor::float_tensor("s", vec![1, 2], &[1.0, 10.0]),
            int8("z", &[1, 2], &[0, 2]),
        );
        assert_eq!(folded(&g, 0, 2).unwrap(), [1.0, 0.0, 3.0, 20.0]);
    }

    #[test]
    fn one_scale_an_axis_index_or_a_tensor() {
        let q = int8("q", &[2, 2], &[1, 2, 3, -128]);
        let per_axis =
            graph(q.clone(), tensor::float_tensor("s", vec![2], &[1.0, 0.5]), int8("z", &[2], &[0, 127]));
        assert_eq!(folded(&per_axis, 0, 0).unwrap(), [1.0, 2.0, -62.0, -127.5]);
        let per_tensor = graph(q, tensor::float_tensor("s", vec![], &[0.5]), int8("z", &[], &[1]));
        assert_eq!(folded(&per_tensor, 1, 0).unwrap(), [0.0, 0.5, 1.0, -64.5]);
    }

    #[test]
    fn contradictions_name_the_node() {
        let g = graph(
            int8("q", &[2, 2], &[1, 2, 3, 4]),
            tensor::float_tensor("s", vec![2, 2], &[1.0; 4]),
            int8("z", &[2, 2], &[0; 4]),
        );
        let why = folded(&g, 1, 2).unwrap_err();
        assert!(why.contains("node 'n'") && why.contains("[2, 1] is due"), "{why}");
        assert!(folded(&g, 7, 1).unwrap_err().contains("axis 7"));
        assert!(folded(&g, 1, -4).unwrap_err().contains("block size -4"));
        let mut missing = g;
        missing.initializer.remove(0);
        let empty = graph(
            int8("q", &[0, i64::MAX, i64::MAX], &[]),
            tensor::float_tensor("s", vec![0], &[]),
            int8("z", &[0], &[]),
        );
        assert!(folded(&empty, 0, 0).unwrap_err().contains("impossible shape"));
        assert!(folded(&missing, 1, 1).unwrap_err().contains("'q' is not a constant"));
    }
}
