//! Tiny ONNX graphs built in code, so that unit tests need no model files.

use std::path::Path;

use prost::Message as _;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, tensor_shape_proto, type_proto,
};

use super::contract::{
    Alignment, ChannelOrder, Family, FileHash, InputContract, Manifest, ManifestEntry, ModelKind, Source,
};
use super::error::VisionError;
use super::runtime::Network;

/// Loads `bytes` for an input of (width, height) under the name `test.onnx`.
pub(super) fn load(bytes: &[u8], (width_px, height_px): (usize, usize)) -> Result<Network, VisionError> {
    Network::from_bytes(Path::new("test.onnx"), bytes, width_px, height_px)
}

/// An embedder's manifest entry for `bytes`, file `NAME.onnx`.
pub(super) fn entry(name: &str, bytes: &[u8]) -> ManifestEntry {
    ManifestEntry {
        name: name.into(),
        kind: ModelKind::Embedder,
        family: Family::Embedding,
        file: format!("{name}.onnx"),
        sha256: FileHash::of(bytes),
        licence: "MIT".into(),
        lineage: None,
        default_threshold: Some(0.5),
        threshold_note: None,
        source: Source {
            package: "test".into(),
            version: "0".into(),
            path: "none".into(),
            sha256: FileHash::of(bytes),
        },
        contract: InputContract {
            width_px: 112,
            height_px: 112,
            channels: ChannelOrder::Rgb,
            mean: [0.0; 3],
            scale: [1.0; 3],
            alignment: Some(Alignment::ARCFACE_112),
            pad_multiple_px: None,
        },
        thresholds: None,
        measured: None,
    }
}

/// A fiducials net's manifest entry for `bytes`.
pub(super) fn fiducials_entry(name: &str, bytes: &[u8]) -> ManifestEntry {
    let mut entry = entry(name, bytes);
    (entry.kind, entry.family, entry.default_threshold) = (ModelKind::Fiducials, Family::Fiducials68, None);
    (entry.contract.alignment, entry.contract.width_px, entry.contract.height_px) = (None, 96, 96);
    entry
}

/// Gives `values`, `[1, n]`, whatever it sees.
pub(super) fn constant(values: &[f32]) -> Vec<u8> {
    let n = values.len() as i64;
    let initializers = vec![weights("w", &[3, n], &vec![0.0; 3 * values.len()]), weights("v", &[n], values)];
    let nodes = vec![
        node("GlobalAveragePool", &["x"], "mean", vec![]),
        node("Flatten", &["mean"], "flat", vec![]),
        node("Gemm", &["flat", "w", "v"], "y", vec![]),
    ];
    model(nodes, initializers, &["y"])
}

/// A detector's manifest entry for `bytes`.
pub(super) fn detector_entry(name: &str, bytes: &[u8]) -> ManifestEntry {
    let mut entry = entry(name, bytes);
    (entry.kind, entry.family, entry.default_threshold) = (ModelKind::Detector, Family::Yunet, None);
    (entry.contract.alignment, entry.contract.pad_multiple_px) = (None, Some(32));
    (entry.contract.width_px, entry.contract.height_px) = (64, 64);
    entry.contract.channels = ChannelOrder::Bgr;
    entry
}

/// Writes models and their manifest into `dir`.
pub(super) fn write_models(dir: &Path, models: &[(ManifestEntry, Vec<u8>)]) {
    for (entry, bytes) in models {
        std::fs::write(dir.join(&entry.file), bytes).unwrap();
    }
    Manifest { models: models.iter().map(|(entry, _)| entry.clone()).collect() }.save(dir).unwrap();
}

/// y = PRelu(x, slopes), slopes of `shape`.
pub(super) fn prelu_graph(shape: &[i64], slopes: &[f32]) -> Vec<u8> {
    model(vec![node("PRelu", &["x", "slopes"], "y", vec![])], vec![weights("slopes", shape, slopes)], &["y"])
}

/// y = PRelu(x, slopes) with the slopes in another file.
pub(super) fn external_weights_graph(location: &str) -> Vec<u8> {
    let mut slopes = weights("slopes", &[3, 1, 1], &[]);
    slopes.data_location = Some(1);
    slopes.external_data = vec![StringStringEntryProto { key: "location".into(), value: location.into() }];
    model(vec![node("PRelu", &["x", "slopes"], "y", vec![])], vec![slopes], &["y"])
}

/// Mean of each plane, spread over `dim` outputs by a fixed matrix: an embedder that sees colour only.
pub(super) fn colour_embedder(dim: usize) -> Vec<u8> {
    let matrix: Vec<f32> = (0..3 * dim).map(|i| (i as f32 * 1.7).sin()).collect();
    model(
        vec![
            node("GlobalAveragePool", &["x"], "pooled", vec![]),
            node("Flatten", &["pooled"], "flat", vec![]),
            node("MatMul", &["flat", "matrix"], "y", vec![]),
        ],
        vec![weights("matrix", &[3, dim as i64], &matrix)],
        &["y"],
    )
}

/// A detector with YuNet's twelve outputs that takes a bright cell for a face: on every stride the class and object scores are the
/// cell's mean brightness (0 to 1), the box has `bbox` and the landmarks `kps` as raw outputs. Strides other than `stride` stay dark.
pub(super) fn bright_cell_detector(stride: usize, bbox: [f32; 4], kps: [f32; 10]) -> Vec<u8> {
    let (mut nodes, mut initializers, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
    for (head, bias) in [("cls", &[0.0][..]), ("obj", &[0.0]), ("bbox", &bbox), ("kps", &kps)] {
        for s in [8, 16, 32] {
            let name = format!("{head}_{s}");
            let gain = if bias.len() == 1 && s == stride { 1.0 / (255 * 3 * s * s) as f32 } else { 0.0 };
            let part = |p: &str| format!("{name}.{p}");
            let shape = [bias.len() as i64, 3, s as i64, s as i64];
            initializers.push(weights(&part("w"), &shape, &vec![gain; bias.len() * 3 * s * s]));
            initializers.push(weights(&part("b"), &[bias.len() as i64], bias));
            initializers.push(TensorProto {
                name: part("s"),
                dims: vec![3],
                data_type: INT64,
                int64_data: vec![1, -1, bias.len() as i64],
                ..Default::default()
            });
            let size = [s as i64; 2];
            nodes.push(node(
                "Conv",
                &["x", &part("w"), &part("b")],
                &part("conv"),
                vec![ints("kernel_shape", &size), ints("strides", &size)],
            ));
            nodes.push(node("Transpose", &[&part("conv")], &part("nhwc"), vec![ints("perm", &[0, 2, 3, 1])]));
            nodes.push(node("Reshape", &[&part("nhwc"), &part("s")], &name, vec![]));
            outputs.push(name);
        }
    }
    model(nodes, initializers, &outputs.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A graph put together node by node, for files that no exporter writes.
pub(super) struct Graph {
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    input: Vec<i64>,
}

impl Graph {
    pub(super) fn new() -> Self {
        Self { nodes: Vec::new(), constants: Vec::new(), input: vec![1, 3, 16, 16] }
    }

    pub(super) fn input(mut self, dims: &[i64]) -> Self {
        self.input = dims.to_vec();
        self
    }

    pub(super) fn node(mut self, op: &str, inputs: &[&str], output: &str) -> Self {
        self.nodes.push(node(op, inputs, output, vec![]));
        self
    }

    /// float32 as bytes, of any shape it claims.
    pub(super) fn raw(mut self, name: &str, dims: &[i64], raw_data: Vec<u8>) -> Self {
        self.constants.push(TensorProto { raw_data, ..weights(name, dims, &[]) });
        self
    }

    pub(super) fn raw_i64(mut self, name: &str, dims: &[i64], raw_data: Vec<u8>) -> Self {
        self.constants.push(TensorProto { raw_data, data_type: INT64, ..weights(name, dims, &[]) });
        self
    }

    pub(super) fn build(self, outputs: &[&str]) -> Vec<u8> {
        let graph = GraphProto {
            name: "test".into(),
            node: self.nodes,
            initializer: self.constants,
            input: vec![float_tensor("x", &self.input)],
            output: outputs.iter().map(|name| float_tensor(name, &[])).collect(),
            ..Default::default()
        };
        let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 13 }];
        ModelProto { ir_version: 7, opset_import, graph: Some(graph), ..Default::default() }.encode_to_vec()
    }
}

fn model(node: Vec<NodeProto>, initializer: Vec<TensorProto>, outputs: &[&str]) -> Vec<u8> {
    let graph = GraphProto {
        name: "test".into(),
        node,
        initializer,
        input: vec![float_tensor("x", &[1, 3, 16, 16])],
        output: outputs.iter().map(|name| float_tensor(name, &[])).collect(),
        ..Default::default()
    };
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 13 }];
    ModelProto { ir_version: 7, opset_import, graph: Some(graph), ..Default::default() }.encode_to_vec()
}

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

fn weights(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: FLOAT,
        float_data: values.to_vec(),
        ..Default::default()
    }
}

fn float_tensor(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = |&d: &i64| tensor_shape_proto::Dimension {
        denotation: String::new(),
        value: Some(tensor_shape_proto::dimension::Value::DimValue(d)),
    };
    let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let tensor = type_proto::Tensor { elem_type: FLOAT, shape };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            denotation: String::new(),
            value: Some(type_proto::Value::TensorType(tensor)),
        }),
        ..Default::default()
    }
}

const FLOAT: i32 = 1;
const INT64: i32 = 7;
