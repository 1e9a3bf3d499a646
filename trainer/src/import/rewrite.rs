//! Turns a third-party graph into one that tract loads, without changing what it computes.
//!
//! Passes, in order: blockwise `DequantizeLinear` on constants and the `Reshape` behind it become float initializers; what
//! no output needs is pruned, and initializers leave the list of inputs; the input gets a fixed shape; the operator set is
//! lowered to 13 when every operator left means the same there.

use std::collections::{HashMap, HashSet};

use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, type_proto};

use super::dequantize;
use super::tensor::{self, Elements};

/// What was done to a graph, for the report and the tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Dequantizations computed now instead of at every run.
    pub folded_dequantize: usize,
    /// Reshapes of their results, computed likewise.
    pub folded_reshape: usize,
    /// Inputs that are initializers, or that nothing reads.
    pub inputs_removed: usize,
    /// Nodes that no output needed.
    pub nodes_pruned: usize,
    /// Constants that nothing needed any more, results of folding that were reshaped among them.
    pub initializers_pruned: usize,
    /// Operator set before and after.
    pub opset: (i64, i64),
}

/// Rewrites `model` for the input shape `[1, 3, height_px, width_px]`.
///
/// # Errors
/// A sentence that names the node or tensor in the way.
pub(super) fn rewrite(
    mut model: ModelProto,
    width_px: usize,
    height_px: usize,
) -> Result<(ModelProto, Changes), String> {
    let mut changes = Changes::default();
    let graph = model.graph.as_mut().ok_or("it holds no graph")?;
    fold_constants(graph, &mut changes)?;
    prune(graph, &mut changes)?;
    fix_input(graph, width_px, height_px)?;
    lower_opset(&mut model, &mut changes)?;
    Ok((model, changes))
}

fn fold_constants(graph: &mut GraphProto, changes: &mut Changes) -> Result<(), String> {
    let nodes = std::mem::take(&mut graph.node);
    let mut folded: HashMap<String, TensorProto> = HashMap::new();
    for node in nodes {
        if dequantize::is_blockwise(&node) {
            let tensor = dequantize::fold(graph, &node)?;
            folded.insert(tensor.name.clone(), tensor);
            changes.folded_dequantize += 1;
        } else if let Some(source) = reshaped(&node).and_then(|name| folded.get(name)) {
            let tensor = reshape(graph, &node, source)?;
            folded.insert(tensor.name.clone(), tensor);
            changes.folded_reshape += 1;
        } else {
            graph.node.push(node);
        }
    }
    let mut new: Vec<TensorProto> = folded.into_values().collect();
    // The same file must give the same bytes, whatever the map's order.
    new.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    graph.initializer.extend(new);
    Ok(())
}

fn reshaped(node: &NodeProto) -> Option<&str> {
    (node.op_type == "Reshape" && node.input.len() == 2 && node.output.len() == 1)
        .then(|| node.input[0].as_str())
}

fn reshape(graph: &GraphProto, node: &NodeProto, source: &TensorProto) -> Result<TensorProto, String> {
    let fail = |why: &str| format!("node '{}': {why}", node.name);
    let shape = tensor::initializer(graph, &node.input[1])
        .ok_or_else(|| fail("the shape of a reshaped weight is computed at run time"))?;
    let Elements::Integers(target) = tensor::elements(shape).map_err(|why| fail(&why))? else {
        return Err(fail("the shape is not made of integers"));
    };
    let count = tensor::element_count(&source.dims).ok_or_else(|| fail("impossible shape"))?;
    let allow_zero = dequantize::int_attribute(node, "allowzero").unwrap_or(0) != 0;
    let mut dims: Vec<i64> = target
        .iter()
        .enumerate()
        .map(|(at, &dim)| match dim {
            0 if !allow_zero => source.dims.get(at).copied().unwrap_or(0),
            dim => dim,
        })
        .collect();
    if let Some(free) = dims.iter().position(|&dim| dim == -1) {
        dims[free] = 1;
        let rest = tensor::element_count(&dims).filter(|&rest| rest > 0 && count.is_multiple_of(rest));
        let rest = rest.ok_or_else(|| fail(&format!("{count} elements do not fit {target:?}")))?;
        dims[free] = (count / rest) as i64;
    }
    if tensor::element_count(&dims) != Some(count) {
        return Err(fail(&format!("{count} elements do not fit {target:?}")));
    }
    Ok(TensorProto { dims, name: node.output[0].clone(), ..source.clone() })
}

fn prune(graph: &mut GraphProto, changes: &mut Changes) -> Result<(), String> {
    if graph.output.is_empty() {
        return Err("its graph has no output".into());
    }
    let mut needed: HashSet<String> = graph.output.iter().map(|output| output.name.clone()).collect();
    let before = graph.node.len();
    // ONNX lists nodes in topological order, so that one pass from the end suffices.
    let mut kept: Vec<NodeProto> = Vec::with_capacity(before);
    for node in std::mem::take(&mut graph.node).into_iter().rev() {
        if node.output.iter().any(|name| needed.contains(name)) {
            uses(&node, &mut needed);
            kept.push(node);
        }
    }
    kept.reverse();
    graph.node = kept;
    changes.nodes_pruned = before - graph.node.len();
    // Some exporters list every initializer as an input too, and go on listing those that nothing reads any more.
    let constant: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let inputs = graph.input.len();
    graph.input.retain(|input| needed.contains(&input.name) && !constant.contains(input.name.as_str()));
    changes.inputs_removed = inputs - graph.input.len();
    let constants = graph.initializer.len();
    graph.initializer.retain(|tensor| needed.contains(&tensor.name));
    changes.initializers_pruned = constants - graph.initializer.len();
    // Shapes noted for the old input size would contradict the new one.
    graph.value_info.clear();
    graph.quantization_annotation.clear();
    Ok(())
}

fn uses(node: &NodeProto, names: &mut HashSet<String>) {
    names.extend(node.input.iter().cloned());
    for inner in node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs)) {
        names.extend(inner.output.iter().map(|output| output.name.clone()));
        for node in &inner.node {
            uses(node, names);
        }
    }
}

fn fix_input(graph: &mut GraphProto, width_px: usize, height_px: usize) -> Result<(), String> {
    let [input] = graph.input.as_mut_slice() else {
        let names: Vec<&str> = graph.input.iter().map(|input| input.name.as_str()).collect();
        return Err(format!("it takes {} inputs ({}), one picture is due", names.len(), names.join(", ")));
    };
    let Some(type_proto::Value::TensorType(tensor)) = input.r#type.as_mut().and_then(|t| t.value.as_mut())
    else {
        return Err(format!("its input '{}' is not a tensor", input.name));
    };
    if tensor.elem_type != tract_onnx::pb::tensor_proto::DataType::Float as i32 {
        return Err(format!("its input '{}' is not 32-bit float", input.name));
    }
    let wanted = [1, 3, height_px, width_px];
    if let Some(shape) = &tensor.shape {
        let fits = shape.dim.len() == 4
            && shape.dim.iter().zip(wanted).take(2).all(|(dim, want)| match &dim.value {
                Some(dimension::Value::DimValue(value)) => *value <= 0 || *value == want as i64,
                _ => true,
            });
        if !fits {
            return Err(format!(
                "its input '{}' is not of shape [1, 3, height, width]: planes of one RGB picture are due",
                input.name
            ));
        }
    }
    tensor.shape = Some(fixed_shape(&wanted));
    for output in &mut graph.output {
        if let Some(type_proto::Value::TensorType(tensor)) =
            output.r#type.as_mut().and_then(|t| t.value.as_mut())
        {
            tensor.shape = None;
        }
    }
    Ok(())
}

fn fixed_shape(dims: &[usize]) -> TensorShapeProto {
    let dim = dims
        .iter()
        .map(|&dim| Dimension { value: Some(dimension::Value::DimValue(dim as i64)), ..Dimension::default() })
        .collect();
    TensorShapeProto { dim }
}

fn lower_opset(model: &mut ModelProto, changes: &mut Changes) -> Result<(), String> {
    if let Some(foreign) =
        model.graph.iter().flat_map(|g| &g.node).find(|node| !matches!(node.domain.as_str(), "" | "ai.onnx"))
    {
        return Err(format!(
            "node '{}' uses operator '{}' of domain '{}', which is no part of ONNX; export without contrib operators",
            foreign.name, foreign.op_type, foreign.domain
        ));
    }
    let same = model
        .graph
        .iter()
        .flat_map(|g| &g.node)
        .all(|node| SAME_SINCE_13.contains(&node.op_type.as_str()) && !uses_newer_attribute(node));
    model.opset_import.retain(|set| matches!(set.domain.as_str(), "" | "ai.onnx"));
    let set = model.opset_import.first_mut().ok_or("it does not say which operator set it uses")?;
    changes.opset = (set.version, set.version);
    if same && set.version > 13 {
        set.version = 13;
        changes.opset.1 = 13;
    }
    Ok(())
}

fn uses_newer_attribute(node: &NodeProto) -> bool {
    let newer: &[&str] = match node.op_type.as_str() {
        "Reshape" => &["allowzero"],
        "Resize" => &["antialias", "axes", "keep_aspect_ratio_policy"],
        "BatchNormalization" => &["training_mode"],
        "AveragePool" => &["dilations"],
        "DequantizeLinear" | "QuantizeLinear" => &["block_size", "output_dtype", "saturate"],
        _ => &[],
    };
    node.attribute.iter().any(|attribute| newer.contains(&attribute.name.as_str()))
}

/// Operators whose meaning for float pictures did not change between operator sets 13 and 21, bar the attributes that
/// `uses_newer_attribute` lists (ONNX `docs/Changelog.md`).
const SAME_SINCE_13: &[&str] = &[
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Clip",
    "Concat",
    "Constant",
    "Conv",
    "ConvTranspose",
    "DequantizeLinear",
    "Div",
    "Dropout",
    "Flatten",
    "Gemm",
    "GlobalAveragePool",
    "Identity",
    "LeakyRelu",
    "MatMul",
    "Max",
    "MaxPool",
    "Min",
    "Mul",
    "PRelu",
    "QuantizeLinear",
    "Relu",
    "Reshape",
    "Resize",
    "Sigmoid",
    "Softmax",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Tanh",
    "Transpose",
    "Unsqueeze",
];

#[cfg(test)]
mod tests {
    use super::super::dequantize::tests::{dequantize, int8};
    use super::*;
    use tract_onnx::pb::{OperatorSetIdProto, TypeProto, ValueInfoProto};

    fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
        let dim = dims
            .iter()
            .map(|&d| Dimension { value: Some(dimension::Value::DimValue(d)), ..Dimension::default() })
            .collect();
        let tensor = type_proto::Tensor { elem_type: 1, shape: Some(TensorShapeProto { dim }) };
        let value = Some(type_proto::Value::TensorType(tensor));
        ValueInfoProto {
            name: name.into(),
            r#type: Some(TypeProto { value, ..TypeProto::default() }),
            ..ValueInfoProto::default()
        }
    }

    fn node(op: &str, input: &[&str], output: &str) -> NodeProto {
        NodeProto {
            op_type: op.into(),
            name: output.into(),
            input: input.iter().map(|&s| s.into()).collect(),
            output: vec![output.into()],
            ..NodeProto::default()
        }
    }

    /// `y = conv(x, reshape(dequantize(q)))`, with a dead branch and the initializers among the inputs.
    fn small() -> ModelProto {
        let shape = TensorProto {
            dims: vec![4],
            data_type: 7,
            name: "shape".into(),
            int64_data: vec![2, -1, 1, 1],
            ..TensorProto::default()
        };
        let graph = GraphProto {
            node: vec![
                dequantize("dq", "w_flat", 1, 2),
                node("Reshape", &["w_flat", "shape"], "w"),
                node("Conv", &["x", "w"], "y"),
                node("Relu", &["x"], "dead"),
            ],
            initializer: vec![
                int8("q", &[2, 3], &[1, 2, 3, 4, 5, 6]),
                tensor::float_tensor("s", vec![2, 2], &[1.0, 10.0, 100.0, 1000.0]),
                int8("z", &[2, 2], &[0, 1, -1, 0]),
                shape,
            ],
            input: vec![value("x", &[1, 3, 64, 64]), value("q", &[2, 3])],
            output: vec![value("y", &[1, 2, 64, 64])],
            value_info: vec![value("w_flat", &[2, 3])],
            ..GraphProto::default()
        };
        ModelProto {
            ir_version: 6,
            opset_import: vec![OperatorSetIdProto { version: 21, ..OperatorSetIdProto::default() }],
            graph: Some(graph),
            ..ModelProto::default()
        }
    }

    #[test]
    fn blockwise_weights_become_floats_and_the_rest_is_pruned() {
        let (model, changes) = rewrite(small(), 8, 4).unwrap();
        let graph = model.graph.unwrap();
        assert_eq!(graph.node.len(), 1);
        assert_eq!(graph.initializer.len(), 1);
        assert_eq!(graph.initializer[0].dims, [2, 3, 1, 1]);
        let Elements::Floats(weights) = tensor::elements(&graph.initializer[0]).unwrap() else { panic!() };
        assert_eq!(weights, [1.0, 2.0, 20.0, 500.0, 600.0, 6000.0]);
        assert_eq!(graph.input, [value("x", &[1, 3, 4, 8])]);
        assert!(graph.value_info.is_empty());
        let expected = Changes {
            folded_dequantize: 1,
            folded_reshape: 1,
            inputs_removed: 1,
            nodes_pruned: 1,
            initializers_pruned: 5,
            opset: (21, 13),
        };
        assert_eq!(changes, expected);
    }

    #[test]
    fn an_operator_that_changed_keeps_the_operator_set() {
        let mut model = small();
        model.graph.as_mut().unwrap().node[2].op_type = "GroupNormalization".into();
        assert_eq!(rewrite(model, 8, 4).unwrap().1.opset, (21, 21));
    }

    #[test]
    fn what_cannot_be_rewritten_is_named() {
        let mut contrib = small();
        contrib.graph.as_mut().unwrap().node[2].domain = "com.microsoft".into();
        assert!(rewrite(contrib, 8, 4).unwrap_err().contains("com.microsoft"));

        let mut two = small();
        let graph = two.graph.as_mut().unwrap();
        graph.input.push(value("scale", &[1]));
        graph.node[2].input.push("scale".into());
        assert!(rewrite(two, 8, 4).unwrap_err().contains("2 inputs (x, scale)"));

        let mut channels_last = small();
        channels_last.graph.as_mut().unwrap().input[0] = value("x", &[1, 64, 64, 3]);
        assert!(rewrite(channels_last, 8, 4).unwrap_err().contains("[1, 3, height, width]"));

        let mut shape = small();
        shape.graph.as_mut().unwrap().initializer[3].int64_data = vec![5, -1, 1, 1];
        assert!(rewrite(shape, 8, 4).unwrap_err().contains("6 elements do not fit"));

        let mut run_time = small();
        run_time.graph.as_mut().unwrap().initializer.remove(0);
        assert!(rewrite(run_time, 8, 4).unwrap_err().contains("'q' is not a constant"));
        assert!(rewrite(ModelProto::default(), 8, 4).is_err());
    }
}
