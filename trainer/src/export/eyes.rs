//! The detector and the fiducials net as the graphs that the door loads.

use std::path::Path;

use tch::{Device, Kind, Tensor, nn::VarStore};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::prelude::{Framework, InferenceModelExt, IntoRunnable, tvec};

use super::onnx::{Form, Geometry, Graph, ints};
use super::weights::Dense;
use super::{ExportError, Exported, Reader};
use crate::model::detector::{self, Detector, STRIDES};
use crate::model::fiducials::{self, Fiducials};
use crate::model::layers::Mode;
use crate::recipe::detector::DetectorRecipe;
use crate::recipe::fiducials::FiducialsRecipe;
use crate::train::config::Draft;
use crate::train::{CHECKPOINT, Recipe as _, SETTINGS, checkpoint};

/// Which of the eyes' nets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EyesRecipe {
    /// [`crate::recipe::detector`].
    Detector,
    /// [`crate::recipe::fiducials`].
    Fiducials,
}

/// Least cosine between the outputs of a net and of its int8 weights, on patterns unlike any face.
const W8_COSINE: f32 = 0.98;

/// Height and width that the detector's file states; the door loads it for its own.
const DETECTOR_PX: [i64; 2] = [256, 320];
const CROP_PX: i64 = facelatch_shared::vision::fiducials::CROP_PX as i64;

/// Which of them a run's folder holds, if any; for a weights file, by what is in it.
///
/// # Errors
/// [`ExportError`] when it cannot be read.
pub fn recipe_of(run: &Path) -> Result<Option<EyesRecipe>, ExportError> {
    if run.is_dir() {
        let draft = Draft::read(&run.join(SETTINGS))?;
        return Ok(match draft.recipe() {
            Some(DetectorRecipe::NAME) => Some(EyesRecipe::Detector),
            Some(FiducialsRecipe::NAME) => Some(EyesRecipe::Fiducials),
            _ => None,
        });
    }
    let tensors = checkpoint::read(run)?;
    let has =
        |name: &str, first: i64| tensors.iter().any(|(n, t)| n == name && t.size().first() == Some(&first));
    Ok(if has("ema.head0.weight", detector::CELL) {
        Some(EyesRecipe::Detector)
    } else if has("ema.linear", fiducials::POINTS * fiducials::NUMBERS) {
        Some(EyesRecipe::Fiducials)
    } else {
        None
    })
}

/// Exports the running-mean weights.
///
/// # Errors
/// [`ExportError`]; nothing is written when tract's answer is not libtorch's.
pub fn export(run: &Path, recipe: EyesRecipe, form: Form, out: &Path) -> Result<Exported, ExportError> {
    let mut store = VarStore::new(Device::Cpu);
    let (bytes, exported) = match recipe {
        EyesRecipe::Detector => {
            let net = Detector::new(&store.root());
            load(run, &mut store)?;
            let bytes = detector(&store, form)?;
            let exported = compare(&bytes, DETECTOR_PX, |x| detector_answer(&net, x))?;
            (bytes, exported)
        }
        EyesRecipe::Fiducials => {
            let net = Fiducials::new(&store.root());
            load(run, &mut store)?;
            let bytes = fiducials(&store, form)?;
            let exported = compare(&bytes, [CROP_PX; 2], |x| net.forward(x, Mode::EVAL).flatten(0, -1))?;
            (bytes, exported)
        }
    };
    let fits = match form {
        Form::F32 => exported.difference <= 1e-4,
        Form::W8 => exported.cosine >= W8_COSINE,
    };
    if !fits {
        return Err(ExportError::Parity { difference: exported.difference, cosine: exported.cosine });
    }
    std::fs::write(out, &bytes).map_err(|source| ExportError::Unwritable { path: out.to_owned(), source })?;
    Ok(exported)
}

/// Writes the running-mean weights alone, as half floats.
///
/// # Errors
/// [`ExportError`].
pub fn weights_only(run: &Path, recipe: EyesRecipe, out: &Path) -> Result<(), ExportError> {
    let mut store = VarStore::new(Device::Cpu);
    match recipe {
        EyesRecipe::Detector => drop(Detector::new(&store.root())),
        EyesRecipe::Fiducials => drop(Fiducials::new(&store.root())),
    }
    load(run, &mut store)?;
    Ok(checkpoint::save_weights(out, &store, true)?)
}

fn load(run: &Path, store: &mut VarStore) -> Result<(), ExportError> {
    store.freeze();
    let file = if run.is_dir() { run.join(CHECKPOINT) } else { run.to_owned() };
    Ok(checkpoint::load_weights(&file, store)?)
}

/// The detector with YuNet's twelve outputs: `cls_8 … kps_32`. There is one score; `obj` repeats it, so that √(cls · obj) is it.
///
/// # Errors
/// [`ExportError::Missing`] when the store is not this net's.
pub fn detector(store: &VarStore, form: Form) -> Result<Vec<u8>, ExportError> {
    let reader = Reader(store);
    let mut graph = Graph::new(form).exact_below(600);
    let two = Geometry { stride: 2, padding: 1, groups: 1 };
    let mut x = graph.shift("picture", -127.5);
    for (i, layer) in ["stem.a", "stem.b", "stem.c"].iter().enumerate() {
        let dense = reader.conv_bn(layer)?;
        let dense = if i == 0 { dense.scaled(1.0 / 128.0) } else { dense };
        x = graph.conv(&x, &dense, two);
        x = graph.relu(&x);
    }
    let mut features = Vec::new();
    for stage in 0..3 {
        if stage > 0 {
            x = separable(&mut graph, &reader, &x, &format!("stage{stage}.down"), 2)?;
            x = graph.relu(&x);
        }
        for block in 0..detector::BLOCKS[stage] {
            let y = separable(&mut graph, &reader, &x, &format!("stage{stage}.block{block}"), 1)?;
            let sum = graph.add(&y, &x);
            x = graph.relu(&sum);
        }
        features.push(x.clone());
    }
    for i in (0..2).rev() {
        let lateral = reader.conv_bn(&format!("lateral{i}"))?;
        let coarse = graph.conv(&features[i + 1], &lateral, Geometry { stride: 1, padding: 0, groups: 1 });
        let coarse = twice(&mut graph, &coarse);
        let sum = graph.add(&features[i], &coarse);
        features[i] = graph.relu(&sum);
    }
    let mut outputs = Vec::new();
    for (i, stride) in STRIDES.iter().enumerate() {
        let y = separable(&mut graph, &reader, &features[i], &format!("head{i}.block"), 1)?;
        let sum = graph.add(&y, &features[i]);
        let y = graph.relu(&sum);
        let cells = DETECTOR_PX.iter().map(|side| side / stride).product();
        let part = |from: usize, to: usize| -> Result<Dense, ExportError> {
            let width = detector::WIDTHS[i] as usize;
            let values = reader.values(&format!("head{i}.weight"))?[from * width..to * width].to_vec();
            let bias = reader.values(&format!("head{i}.bias"))?[from..to].to_vec();
            Ok(Dense { dims: vec![(to - from) as i64, width as i64, 1, 1], values, bias })
        };
        for (name, from, to) in [("cls", 0, 1), ("bbox", 1, 5), ("kps", 5, 15)] {
            let one = Geometry { stride: 1, padding: 0, groups: 1 };
            let raw = graph.conv(&y, &part(from, to)?, one);
            let rows = rows(&mut graph, &raw, (to - from) as i64);
            let op = if name == "cls" { "Sigmoid" } else { "Identity" };
            graph.named(op, &[&rows], &format!("{name}_{stride}"));
            outputs.push((format!("{name}_{stride}"), vec![1, cells, (to - from) as i64]));
            if name == "cls" {
                graph.named("Sigmoid", &[&rows], &format!("obj_{stride}"));
                outputs.push((format!("obj_{stride}"), vec![1, cells, 1]));
            }
        }
    }
    Ok(graph.finish_as("picture", DETECTOR_PX, &outputs))
}

/// The fiducials net: input `crop` `[1, 3, 96, 96]` RGB 0–255, output `fiducials` `[1, 272]`.
///
/// # Errors
/// [`ExportError::Missing`] when the store is not this net's.
pub fn fiducials(store: &VarStore, form: Form) -> Result<Vec<u8>, ExportError> {
    let reader = Reader(store);
    let mut graph = Graph::new(form).exact_below(1000);
    let three = |stride| Geometry { stride, padding: 1, groups: 1 };
    let mut x = graph.shift("crop", -127.5);
    x = graph.conv(&x, &reader.conv_bn("stem")?.scaled(1.0 / 128.0), three(2));
    x = graph.relu(&x);
    for stage in 0..fiducials::STAGES.len() {
        x = graph.conv(&x, &reader.conv_bn(&format!("stage{stage}.down"))?, three(2));
        x = graph.relu(&x);
        let first = graph.conv(&x, &reader.conv_bn(&format!("stage{stage}.block.a"))?, three(1));
        let first = graph.relu(&first);
        let second = graph.conv(&first, &reader.conv_bn(&format!("stage{stage}.block.b"))?, three(1));
        let sum = graph.add(&second, &x);
        x = graph.relu(&sum);
    }
    x = graph.conv(&x, &reader.conv_bn("head")?, Geometry { stride: 1, padding: 0, groups: 1 });
    x = graph.relu(&x);
    let all = Geometry { stride: 1, padding: 0, groups: fiducials::HEAD };
    x = graph.conv(&x, &reader.conv_bn("global")?, all);
    x = graph.flatten(&x);
    let numbers = fiducials::POINTS * fiducials::NUMBERS;
    let (values, bias) = (reader.values("linear")?, reader.values("bias")?);
    x = graph.linear(&x, &Dense { dims: vec![numbers, fiducials::HEAD], values, bias });
    graph.named("Identity", &[&x], "fiducials");
    Ok(graph.finish_as("crop", [CROP_PX; 2], &[("fiducials".to_owned(), vec![1, numbers])]))
}

/// Depthwise 3×3, then 1×1.
fn separable(
    graph: &mut Graph,
    reader: &Reader<'_>,
    x: &str,
    path: &str,
    stride: i64,
) -> Result<String, ExportError> {
    let depthwise = reader.conv_bn(&format!("{path}.dw"))?;
    let groups = depthwise.dims[0];
    let y = graph.conv(x, &depthwise, Geometry { stride, padding: 1, groups });
    let pointwise = reader.conv_bn(&format!("{path}.pw"))?;
    Ok(graph.conv(&y, &pointwise, Geometry { stride: 1, padding: 0, groups: 1 }))
}

/// Each pixel twice on both axes.
fn twice(graph: &mut Graph, x: &str) -> String {
    let scales = graph.float("scales", vec![4], &[1.0, 1.0, 2.0, 2.0]);
    let text = |name: &str, s: &str| tract_onnx::pb::AttributeProto {
        name: name.into(),
        s: s.as_bytes().to_vec(),
        r#type: tract_onnx::pb::attribute_proto::AttributeType::String as i32,
        ..Default::default()
    };
    let attributes = vec![
        text("coordinate_transformation_mode", "asymmetric"),
        text("mode", "nearest"),
        text("nearest_mode", "floor"),
    ];
    graph.node("Resize", &[x, "", &scales], attributes)
}

/// `[1, n, h, w]` to `[1, h·w, n]`.
fn rows(graph: &mut Graph, x: &str, n: i64) -> String {
    let last = graph.node("Transpose", &[x], vec![ints("perm", &[0, 2, 3, 1])]);
    let shape = [1_i64, -1, n].iter().flat_map(|v| v.to_le_bytes()).collect();
    let shape = graph.constant("shape", vec![3], DataType::Int64, shape);
    graph.node("Reshape", &[&last, &shape], vec![])
}

/// What libtorch says, in the order of the file's outputs.
fn detector_answer(net: &Detector, x: &Tensor) -> Tensor {
    let parts: Vec<Tensor> = net
        .forward(x, Mode::EVAL)
        .iter()
        .flat_map(|out| {
            let rows = out.permute([0, 2, 3, 1]).reshape([-1, detector::CELL]);
            let score = rows.narrow(1, 0, 1).sigmoid();
            [score.shallow_clone(), score, rows.narrow(1, 1, 4), rows.narrow(1, 5, 10)]
        })
        .map(|part| part.flatten(0, -1))
        .collect();
    Tensor::cat(&parts, 0)
}

/// Runs both on smooth and on noisy pictures.
fn compare(
    bytes: &[u8],
    [height, width]: [i64; 2],
    expected: impl Fn(&Tensor) -> Tensor,
) -> Result<Exported, ExportError> {
    let tract = |e: tract_onnx::prelude::TractError| ExportError::Tract { reason: format!("{e:#}") };
    let plan = tract_onnx::onnx()
        .model_for_read(&mut std::io::Cursor::new(bytes))
        .and_then(|model| model.into_optimized())
        .and_then(|model| model.into_runnable())
        .map_err(tract)?;
    let mut exported = Exported { bytes: bytes.len(), difference: 0.0, cosine: 1.0 };
    let (h, w) = (height as usize, width as usize);
    for kind in 0..4 {
        let picture: Vec<f32> = (0..3 * h * w)
            .map(|i| {
                let (x, y, plane) = (i % w, i / w % h, i / w / h);
                let smooth = (x * (kind + 1) + y + plane * 40) / 3;
                let noise = (x * y * 7 + plane * 57 + i * 31) % 251;
                ((if kind.is_multiple_of(2) { smooth } else { (smooth + noise) / 2 }) % 256) as f32
            })
            .collect();
        let input = tract_onnx::prelude::Tensor::from_shape(&[1, 3, h, w], &picture).map_err(tract)?;
        let outputs = plan.run(tvec!(input.into())).map_err(tract)?;
        let mut actual = Vec::new();
        for output in &outputs {
            actual.extend(output.to_plain_array_view::<f32>().map_err(tract)?.iter().copied());
        }
        let x = Tensor::from_slice(&picture).reshape([1, 3, height, width]);
        let expected = tch::no_grad(|| expected(&x)).to_kind(Kind::Float);
        let expected: Vec<f32> = Vec::try_from(&expected)
            .map_err(|e: tch::TchError| ExportError::Tract { reason: e.to_string() })?;
        if actual.len() != expected.len() {
            let reason = format!("it gives {} numbers instead of {}", actual.len(), expected.len());
            return Err(ExportError::Tract { reason });
        }
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let lengths = (dot(&actual, &actual).sqrt(), dot(&expected, &expected).sqrt());
        let largest = actual.iter().zip(&expected).map(|(a, e)| (a - e).abs()).fold(0.0_f32, f32::max);
        exported.difference = exported.difference.max((f64::from(largest) / lengths.1) as f32);
        exported.cosine = exported.cosine.min((dot(&actual, &expected) / (lengths.0 * lengths.1)) as f32);
    }
    Ok(exported)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Statistics and scales as after some training, else folding would be tested with ones and zeros.
    fn trained(store: &VarStore) {
        tch::manual_seed(8);
        let _no_grad = tch::no_grad_guard();
        for (name, mut tensor) in std::collections::BTreeMap::from_iter(store.variables()) {
            if name.contains(".bn.") {
                tensor.copy_(&(Tensor::rand_like(&tensor) * 0.5 + 0.5));
            }
        }
    }

    #[test]
    fn the_detector_runs_in_tract_in_both_forms_and_fits_its_size() {
        tch::manual_seed(7);
        let store = VarStore::new(Device::Cpu);
        let net = Detector::new(&store.root());
        trained(&store);
        let float = detector(&store, Form::F32).unwrap();
        let exact = compare(&float, DETECTOR_PX, |x| detector_answer(&net, x)).unwrap();
        assert!(exact.difference < 1e-4, "{exact:?}");
        let small = detector(&store, Form::W8).unwrap();
        let close = compare(&small, DETECTOR_PX, |x| detector_answer(&net, x)).unwrap();
        assert!(close.cosine > 0.99 && small.len() <= 150_000, "{close:?}");
    }

    #[test]
    fn the_fiducials_net_runs_in_tract_in_both_forms_and_fits_its_size() {
        tch::manual_seed(7);
        let store = VarStore::new(Device::Cpu);
        let net = Fiducials::new(&store.root());
        trained(&store);
        let answer = |x: &Tensor| net.forward(x, Mode::EVAL).flatten(0, -1);
        let float = fiducials(&store, Form::F32).unwrap();
        let exact = compare(&float, [CROP_PX; 2], answer).unwrap();
        assert!(exact.difference < 1e-4, "{exact:?}");
        let small = fiducials(&store, Form::W8).unwrap();
        let close = compare(&small, [CROP_PX; 2], answer).unwrap();
        assert!(close.cosine > 0.99 && small.len() <= 400_000, "{close:?} {}", small.len());
    }

    #[test]
    fn the_door_loads_the_detector_at_any_input() {
        use facelatch_shared::frame::RgbView;
        use facelatch_shared::vision::contract::{
            ChannelOrder, Family, FileHash, InputContract, ManifestEntry, ModelKind, Source,
        };
        tch::manual_seed(7);
        let store = VarStore::new(Device::Cpu);
        let _net = Detector::new(&store.root());
        let bytes = detector(&store, Form::W8).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("d.onnx"), &bytes).unwrap();
        let sha256 = FileHash::of(&bytes);
        let entry = ManifestEntry {
            name: "d".into(),
            kind: ModelKind::Detector,
            family: Family::Yunet,
            file: "d.onnx".into(),
            sha256,
            licence: "MIT".into(),
            lineage: None,
            default_threshold: None,
            threshold_note: None,
            thresholds: None,
            measured: None,
            source: Source { package: "t".into(), version: "0".into(), path: "t".into(), sha256 },
            contract: InputContract {
                width_px: 320,
                height_px: 256,
                channels: ChannelOrder::Rgb,
                mean: [0.0; 3],
                scale: [1.0; 3],
                alignment: None,
                pad_multiple_px: Some(32),
            },
        };
        let pixels = vec![120; 200 * 150 * 3];
        let frame = RgbView::new(&pixels, 200, 150).unwrap();
        for size in [(160, 120), (320, 240), (640, 480)] {
            let mut detector =
                facelatch_shared::vision::detect::Detector::load(dir.path(), &entry, size).unwrap();
            detector.find(&frame).unwrap();
        }
    }
}
