//! The import from file to manifest, on a network of three operators made here.

use std::fs;
use std::path::PathBuf;

use facelatch_shared::vision::contract::{Alignment, ChannelOrder, Family};
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    AttributeProto, GraphProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto,
    type_proto,
};

use super::dequantize::tests::{dequantize, int8};
use super::*;

/// `mean of each plane → 128 numbers`, with blockwise weights `[128, 3]`, two blocks a row.
fn embedder() -> ModelProto {
    let codes: Vec<i8> = (0..128 * 3).map(|i| (i * 37 % 251 - 125) as i8).collect();
    let scales: Vec<f32> = (0..128 * 2).map(|i| 0.001 + i as f32 * 1e-5).collect();
    let zeros: Vec<i8> = (0..128 * 2).map(|i| (i % 7 - 3) as i8).collect();
    let transposed = AttributeProto { name: "transB".into(), r#type: 2, i: 1, ..AttributeProto::default() };
    let graph = GraphProto {
        node: vec![
            dequantize("dq", "w", 1, 2),
            node("GlobalAveragePool", &["picture"], "mean", vec![]),
            node("Flatten", &["mean"], "flat", vec![]),
            node("Gemm", &["flat", "w"], "vector", vec![transposed]),
        ],
        initializer: vec![
            int8("q", &[128, 3], &codes),
            tensor::float_tensor("s", vec![128, 2], &scales),
            int8("z", &[128, 2], &zeros),
        ],
        input: vec![value("picture", &[1, 3, 64, 64])],
        output: vec![value("vector", &[1, 128])],
        ..GraphProto::default()
    };
    ModelProto {
        ir_version: 10,
        opset_import: vec![OperatorSetIdProto { version: 21, ..OperatorSetIdProto::default() }],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

fn node(op: &str, input: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        name: output.into(),
        input: input.iter().map(|&s| s.into()).collect(),
        output: vec![output.into()],
        attribute,
        ..NodeProto::default()
    }
}

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

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("models")
    }

    fn job(&self, bytes: &[u8]) -> Job {
        let file = self.dir.path().join("third-party.onnx");
        fs::write(&file, bytes).unwrap();
        let contract = InputContract {
            width_px: 112,
            height_px: 112,
            channels: ChannelOrder::Rgb,
            mean: [0.0; 3],
            scale: [1.0; 3],
            alignment: Some(Alignment::ARCFACE_112),
            pad_multiple_px: None,
        };
        let source = Source {
            package: "maker".into(),
            version: "1.0".into(),
            path: "net.onnx".into(),
            sha256: FileHash::of(bytes),
        };
        let preset = Preset {
            name: "small".into(),
            kind: ModelKind::Embedder,
            family: Family::Embedding,
            licence: "MIT".into(),
            lineage: None,
            default_threshold: Some(0.5),
            threshold_note: Some("made up".into()),
            source,
            contract,
            thresholds: None,
            measured: None,
            golden: vec![],
        };
        Job { preset, file, hash_known: true }
    }

    /// Imports and expects a refusal that leaves no trace.
    fn refused(&self, job: &Job) -> ImportError {
        let error = import(job, &self.out()).unwrap_err();
        assert!(!self.out().exists(), "a failed import wrote {:?}", fs::read_dir(self.out()).unwrap().next());
        error
    }
}

#[test]
fn a_blockwise_network_is_imported_and_computes_what_the_original_says() {
    let bench = Bench::new();
    let job = bench.job(&embedder().encode_to_vec());
    let done = import(&job, &bench.out()).unwrap();
    assert_eq!((done.changes.folded_dequantize, done.weights_compared), (1, 128 * 3));
    let manifest = Manifest::load(&bench.out()).unwrap();
    assert_eq!(manifest.models, std::slice::from_ref(&done.entry));
    assert_eq!(done.entry.source.sha256, job.preset.source.sha256);
    check(&done.entry, &bench.out()).unwrap();

    // By hand: plane means of the fixed picture times the dequantized weights.
    let bytes = fs::read(bench.out().join("small.onnx")).unwrap();
    let answers = verify::run(&bytes, 112, 112).unwrap();
    let picture = verify::picture(112, 112);
    let means: Vec<f32> =
        picture.chunks(112 * 112).map(|plane| plane.iter().sum::<f32>() / (112.0 * 112.0)).collect();
    for (row, &answer) in answers.outputs[0].iter().enumerate() {
        let expected: f32 = (0..3)
            .map(|column| {
                let block = row * 2 + column / 2;
                let code = ((row * 3 + column) * 37 % 251) as f32 - 125.0;
                let zero = (block % 7) as f32 - 3.0;
                (code - zero) * (0.001 + block as f32 * 1e-5) * means[column]
            })
            .sum();
        assert!((answer - expected).abs() < 1e-3, "row {row}: {answer} instead of {expected}");
    }

    // Again: the same bytes, one entry, and no litter.
    let again = import(&job, &bench.out()).unwrap();
    assert_eq!(again.entry, done.entry);
    let mut files: Vec<_> =
        fs::read_dir(bench.out()).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files, ["manifest.toml", "small.onnx"]);
}

#[test]
fn another_file_than_the_presets_is_refused_with_both_hashes() {
    let bench = Bench::new();
    let mut job = bench.job(&embedder().encode_to_vec());
    job.preset.source.sha256 = FileHash::of(b"something else");
    let error = bench.refused(&job);
    assert!(error.is_refusal());
    let said = error.to_string();
    assert!(said.contains(&FileHash::of(b"something else").to_string()), "{said}");
    assert!(error.hint().unwrap().contains("maker 1.0"));
}

#[test]
fn what_is_no_model_is_refused() {
    let bench = Bench::new();
    let picture = bench.job(b"\xff\xd8\xff\xe0 not a network");
    assert!(matches!(bench.refused(&picture), ImportError::NotOnnx { .. }));
    assert!(matches!(bench.refused(&bench.job(b"")), ImportError::NotOnnx { .. }));
    let mut absent = bench.job(b"");
    absent.file = bench.dir.path().join("absent.onnx");
    let error = bench.refused(&absent);
    assert!(error.to_string().contains("absent.onnx does not exist") && error.hint().is_some());
    absent.file = bench.dir.path().into();
    assert!(matches!(bench.refused(&absent), ImportError::Unreadable { .. }));
}

#[test]
fn every_truncation_is_refused() {
    let bench = Bench::new();
    let whole = embedder().encode_to_vec();
    // Cut anywhere in the head, and at steps through the weights.
    for length in (0..200).chain((200..whole.len()).step_by(61)) {
        let error = bench.refused(&bench.job(&whole[..length]));
        assert!(error.to_string().contains("third-party.onnx"), "{error}");
    }
}

#[test]
fn a_giant_is_refused_without_being_read_whole() {
    let bench = Bench::new();
    let mut job = bench.job(b"");
    job.hash_known = false;
    // Sparse: takes no space.
    fs::File::create(&job.file).unwrap().set_len(MAX_MODEL_BYTES + 1).unwrap();
    let error = bench.refused(&job);
    assert!(
        matches!(error, ImportError::TooLarge { .. }) && error.to_string().contains("256 MiB"),
        "{error}"
    );
}

#[test]
fn another_kind_is_named_with_what_was_found() {
    let bench = Bench::new();
    let mut job = bench.job(&embedder().encode_to_vec());
    (job.preset.kind, job.preset.family) = (ModelKind::Detector, Family::Yunet);
    (job.preset.default_threshold, job.preset.contract.alignment) = (None, None);
    (job.preset.contract.width_px, job.preset.contract.height_px) = (128, 128);
    job.preset.contract.pad_multiple_px = Some(32);
    let error = bench.refused(&job);
    let said = error.to_string();
    assert!(
        said.contains("no usable detector") && said.contains("cls_8") && said.ends_with("found vector"),
        "{said}"
    );
    assert!(error.hint().unwrap().contains("--kind embedder"));

    // 64 numbers instead of 128.
    let mut half = embedder();
    let graph = half.graph.as_mut().unwrap();
    for (tensor, columns) in graph.initializer.iter_mut().zip([3, 2 * 4, 2]) {
        tensor.dims[0] = 64;
        tensor.raw_data.truncate(64 * columns);
    }
    graph.output[0] = value("vector", &[1, 64]);
    let said = bench.refused(&bench.job(&half.encode_to_vec())).to_string();
    assert!(said.contains("128 numbers") && said.contains("vector (64)"), "{said}");
}

#[test]
fn a_contract_that_contradicts_itself_is_refused_before_writing() {
    let bench = Bench::new();
    let mut job = bench.job(&embedder().encode_to_vec());
    job.preset.contract.scale = [0.0; 3];
    let error = bench.refused(&job);
    assert!(matches!(error, ImportError::Entry { .. }), "{error}");
}

#[test]
fn golden_figures_refuse_another_answer() {
    let bench = Bench::new();
    let mut job = bench.job(&embedder().encode_to_vec());
    job.preset.golden =
        vec![Golden { name: "vector".into(), elements: 128, norm: 1.0, samples: vec![1.0; 16] }];
    let error = bench.refused(&job);
    assert!(error.is_refusal() && error.to_string().contains("would change its meaning"), "{error}");
}

#[test]
fn damage_after_the_import_is_found() {
    let bench = Bench::new();
    let done = import(&bench.job(&embedder().encode_to_vec()), &bench.out()).unwrap();
    let file = bench.out().join("small.onnx");
    let mut bytes = fs::read(&file).unwrap();
    let elsewhere = bench.out().join("door");
    add(&done.entry, &bench.out(), &elsewhere).unwrap();
    check(&done.entry, &elsewhere).unwrap();
    assert_eq!(Manifest::load(&elsewhere).unwrap().models, std::slice::from_ref(&done.entry));
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let error = check(&done.entry, &bench.out()).unwrap_err();
    assert!(matches!(error, ImportError::Damaged { .. }) && error.is_refusal());
    assert!(matches!(add(&done.entry, &bench.out(), &elsewhere).unwrap_err(), ImportError::Damaged { .. }));
    check(&done.entry, &elsewhere).unwrap();
    fs::remove_file(&file).unwrap();
    assert!(matches!(check(&done.entry, &bench.out()).unwrap_err(), ImportError::Missing { .. }));
}

#[test]
fn a_damaged_manifest_is_not_overwritten() {
    let bench = Bench::new();
    fs::create_dir(bench.out()).unwrap();
    fs::write(bench.out().join("manifest.toml"), "modles = []").unwrap();
    let error = import(&bench.job(&embedder().encode_to_vec()), &bench.out()).unwrap_err();
    assert!(matches!(error, ImportError::Manifest(_)), "{error}");
    assert_eq!(fs::read_to_string(bench.out().join("manifest.toml")).unwrap(), "modles = []");
    assert!(!bench.out().join("small.onnx").exists());
}

#[test]
fn weights_that_were_tampered_with_are_noticed() {
    let original = embedder();
    let (mut rewritten, _) = rewrite::rewrite(original.clone(), 112, 112).unwrap();
    assert_eq!(verify::same_meaning(&original, &rewritten), Ok(128 * 3));
    let graph = rewritten.graph.as_mut().unwrap();
    graph.initializer[0].raw_data[400] ^= 1;
    assert!(verify::same_meaning(&original, &rewritten).unwrap_err().contains("element 100"));
    let (mut rewired, _) = rewrite::rewrite(original.clone(), 112, 112).unwrap();
    rewired.graph.as_mut().unwrap().node[0].op_type = "GlobalMaxPool".into();
    assert!(verify::same_meaning(&original, &rewired).unwrap_err().contains("not the original's"));
}

/// The two presets, when their files are in the cache.
#[test]
fn the_presets_import() {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let assets = std::env::var_os("FACELATCH_ASSETS")
        .map(PathBuf::from)
        .or_else(|| Some(cache?.join("facelatch/assets")))
        .unwrap_or_default();
    let bench = Bench::new();
    for preset in presets().unwrap() {
        let file = assets.join("models").join(PathBuf::from(&preset.source.path).file_name().unwrap());
        if !file.exists() {
            eprintln!("SKIPPED: {} is not there; fetch it with .ci/fetch", file.display());
            return;
        }
        let done = import(&Job { preset, file, hash_known: true }, &bench.out()).unwrap();
        assert!(done.golden_difference.is_some());
    }
    assert_eq!(Manifest::load(&bench.out()).unwrap().models.len(), 2);
}
