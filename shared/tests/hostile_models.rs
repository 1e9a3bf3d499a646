//! Random damage to small graphs: the loader answers with a network or a typed error, and never takes the process with it. Found cases are
//! kept by proptest in `hostile_models.proptest-regressions` beside this file.
#![cfg(feature = "vision")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use facelatch_shared::vision::VisionError;
use facelatch_shared::vision::runtime::Network;
use proptest::prelude::*;
use prost::Message as _;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, tensor_shape_proto, type_proto,
};

fn node(op: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        name: output.into(),
        input: inputs.iter().map(ToString::to_string).collect(),
        output: vec![output.into()],
        attribute,
        ..Default::default()
    }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: 7, ints: values.to_vec(), ..Default::default() }
}

fn constant(name: &str, data_type: i32, dims: &[i64], raw_data: Vec<u8>) -> TensorProto {
    TensorProto { name: name.into(), dims: dims.to_vec(), data_type, raw_data, ..Default::default() }
}

fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = |&d: &i64| tensor_shape_proto::Dimension {
        denotation: String::new(),
        value: Some(tensor_shape_proto::dimension::Value::DimValue(d)),
    };
    let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let kind = type_proto::Value::TensorType(type_proto::Tensor { elem_type: 1, shape });
    let r#type = Some(TypeProto { denotation: String::new(), value: Some(kind) });
    ValueInfoProto { name: name.into(), r#type, ..Default::default() }
}

fn model(node: Vec<NodeProto>, initializer: Vec<TensorProto>) -> Vec<u8> {
    let graph = GraphProto {
        name: "seed".into(),
        node,
        initializer,
        input: vec![value("x", &[1, 3, 8, 8])],
        output: vec![value("y", &[])],
        ..Default::default()
    };
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 13 }];
    ModelProto { ir_version: 8, opset_import, graph: Some(graph), ..Default::default() }.encode_to_vec()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A float net and an integer one, with every kind of piece that exports have.
fn seeds() -> [Vec<u8>; 2] {
    let geometry = || vec![ints("kernel_shape", &[3, 3]), ints("pads", &[1; 4]), ints("strides", &[2, 2])];
    let float = model(
        vec![
            node("Conv", &["x", "w", "b"], "c", geometry()),
            node("Relu", &["c"], "r", vec![]),
            node("GlobalAveragePool", &["r"], "p", vec![]),
            node("Flatten", &["p"], "y", vec![]),
        ],
        vec![
            constant("w", 1, &[2, 3, 3, 3], floats(&[0.1; 54])),
            constant("b", 1, &[2], floats(&[0.0, 1.0])),
        ],
    );
    let range = |name: &str, scale: f32, zero: i8| {
        [
            constant(&format!("{name}s"), 1, &[], floats(&[scale])),
            constant(&format!("{name}z"), 3, &[], vec![zero as u8]),
        ]
    };
    let mut constants =
        vec![constant("w", 3, &[2, 3, 3, 3], vec![7; 54]), constant("b", 6, &[2], vec![0; 8])];
    for (name, scale, zero) in [("i", 1.0, 0), ("k", 0.01, 0), ("o", 0.5, -128)] {
        constants.extend(range(name, scale, zero));
    }
    let integer = model(
        vec![
            node("QuantizeLinear", &["x", "is", "iz"], "q", vec![]),
            node("QLinearConv", &["q", "is", "iz", "w", "ks", "kz", "os", "oz", "b"], "c", geometry()),
            node("DequantizeLinear", &["c", "os", "oz"], "y", vec![]),
        ],
        constants,
    );
    [float, integer]
}

fn load(bytes: &[u8]) -> Result<Network, VisionError> {
    Network::from_bytes(Path::new("seed.onnx"), bytes, 8, 8)
}

#[test]
fn the_seeds_load() {
    for seed in seeds() {
        load(&seed).unwrap();
    }
}

/// One piece of damage: where (as a share), what, and with which byte.
fn damaged(mut bytes: Vec<u8>, damage: &[(u16, u8, u8)]) -> Vec<u8> {
    for &(place, kind, byte) in damage {
        let at = usize::from(place) * bytes.len() / 65_536;
        let end = (at + usize::from(byte) % 40).min(bytes.len());
        match kind % 5 {
            _ if bytes.is_empty() => bytes.push(byte),
            0 => bytes[at] = byte,
            1 => bytes[at] ^= 1 << (byte % 8),
            2 => bytes.insert(at, byte),
            3 => drop(bytes.drain(at..end)),
            _ => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn damage_is_a_typed_error_or_another_network(
        integer in any::<bool>(), damage in prop::collection::vec(any::<(u16, u8, u8)>(), 1..12),
    ) {
        let [float, quantized] = seeds();
        let bytes = damaged(if integer { quantized } else { float }, &damage);
        if let Err(error) = load(&bytes) {
            let said = error.to_string();
            prop_assert!(said.starts_with("seed.onnx ") && said.len() < 1200, "{}", said);
        }
    }

    #[test]
    fn noise_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(load(&bytes).is_err());
    }
}
