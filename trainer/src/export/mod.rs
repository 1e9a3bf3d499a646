//! From a run to the file the door loads: one ONNX graph, checked in tract against libtorch before it is written.

pub mod onnx;
pub mod facenet;
pub mod weights;
pub mod eyes;
pub mod papers;
pub mod layers;

use std::path::{Path, PathBuf};

use tch::{Device, Kind, Tensor, nn::VarStore};
use thiserror::Error;
use tract_onnx::prelude::{Framework, InferenceModelExt, IntoRunnable, tvec};

use crate::dataset::Augment;
use crate::model::compact::{Compact, EMBEDDING, Shape};
use crate::model::layers::{BN_EPS, Mode};
use crate::model::resample;
use crate::quantize::Quantized;
use crate::recipe::{
    self,
    compact::{CompactRecipe, CompactSettings},
    facenet::FacenetRecipe,
};
use crate::train::{CHECKPOINT, Recipe as _, SETTINGS, checkpoint, config};
pub use onnx::Form;
use onnx::{Geometry, Graph};
use weights::{Dense, Norm};

/// Least cosine between a net and its int8 weights. The comparison uses patterns unlike any face, on which a trained net's
/// vectors are short and differences weigh more than on faces (`models/README.md` has the figure on faces).
pub const W8_COSINE: f32 = 0.99;

/// Least cosine between the integer form in tract and its simulation, on the same patterns: they round ties differently.
pub const INT8_COSINE: f32 = 0.99;

/// Side of the chip the exported net takes.
pub const CHIP_PX: i64 = 112;

/// What was written, and how it compares with the net it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Exported {
    /// Size of the file.
    pub bytes: usize,
    /// Largest difference between tract's and libtorch's numbers, relative to the length of the vector.
    pub difference: f32,
    /// Least cosine between them.
    pub cosine: f32,
}

/// Exports the running-mean weights of a run's folder, or of a weights file of the net in its default shape.
///
/// # Errors
/// [`ExportError`]; nothing is written when tract's answer is not libtorch's (difference 1e-4 for [`Form::F32`], cosine
/// [`W8_COSINE`] for [`Form::W8`]).
pub fn export(run: &Path, form: Form, out: &Path) -> Result<Exported, ExportError> {
    if let Some(recipe) = eyes::recipe_of(run)? {
        return eyes::export(run, recipe, form, out);
    }
    if let Some(net) = papers::open(run)? {
        return papers::export(&net, form, out);
    }
    let recipe =
        if run.is_dir() { config::Draft::read(&run.join(SETTINGS))? } else { config::Draft::default() };
    let (bytes, exported) = match recipe.recipe() {
        Some(FacenetRecipe::NAME) => {
            let (store, net, shape) = recipe::facenet::load(run, Device::Cpu)?;
            let bytes = facenet::graph(&store, &shape, form)?;
            let exported = compare(&|chip| net.forward(chip, Mode::EVAL), &bytes)?;
            (bytes, exported)
        }
        _ => {
            let RunData { store, net, shape, .. } = load(run)?;
            let bytes = compact(&store, &shape, form)?;
            let exported = compare(&|chip| net.forward(chip, Mode::EVAL), &bytes)?;
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

/// Writes the integer form.
///
/// # Errors
/// [`ExportError`]; nothing is written when tract's answer is not the simulation's (cosine [`INT8_COSINE`]).
pub fn integer(quantized: &Quantized, out: &Path) -> Result<Exported, ExportError> {
    let bytes = layers::write(layers::LayerForm::Integer(quantized), false)?;
    let exported = compare(&|chip| quantized.embed(chip), &bytes)?;
    if exported.cosine < INT8_COSINE {
        return Err(ExportError::Parity { difference: exported.difference, cosine: exported.cosine });
    }
    std::fs::write(out, &bytes).map_err(|source| ExportError::Unwritable { path: out.to_owned(), source })?;
    Ok(exported)
}

/// Writes the running-mean weights alone, as half floats: a point to start another run from, small enough to hand around.
///
/// # Errors
/// [`ExportError`].
pub fn weights_only(run: &Path, out: &Path) -> Result<(), ExportError> {
    if let Some(recipe) = eyes::recipe_of(run)? {
        return eyes::weights_only(run, recipe, out);
    }
    Ok(checkpoint::save_weights(out, &load(run)?.store, true)?)
}

/// A run as quantization and export need it.
#[derive(Debug)]
pub struct RunData {
    /// The running-mean weights.
    pub store: VarStore,
    /// The net on them.
    pub net: Compact,
    /// Its shape.
    pub shape: Shape,
    /// Share of identities that it did not learn from.
    pub held_out: f64,
    /// Seed of that split.
    pub seed: u64,
    /// How its chips were varied.
    pub augment: Augment,
}

/// The running-mean weights of a run's folder with its settings, or a weights file of the net in its default shape with the default ones.
///
/// # Errors
/// [`ExportError`].
pub fn load(run: &Path) -> Result<RunData, ExportError> {
    let (file, settings) = if run.is_dir() {
        (run.join(CHECKPOINT), config::read::<CompactSettings>(&run.join(SETTINGS), CompactRecipe::NAME)?)
    } else {
        (run.to_owned(), CompactSettings::default())
    };
    let mut store = VarStore::new(Device::Cpu);
    let net = Compact::new(&store.root(), &settings.shape);
    store.freeze();
    checkpoint::load_weights(&file, &store)?;
    let CompactSettings { shape, held_out, seed, augment, .. } = settings;
    Ok(RunData { store, net, shape, held_out, seed, augment })
}

/// The compact net as a graph: input `chip` `[1, 3, 112, 112]` RGB 0–255, output `embedding` `[1, 128]`, not normalised.
///
/// # Errors
/// [`ExportError::Missing`] when the store is not this net's.
pub fn compact(store: &VarStore, shape: &Shape, form: Form) -> Result<Vec<u8>, ExportError> {
    let reader = Reader(store);
    let mut graph = Graph::new(form);
    let three = |stride| Geometry { stride, padding: 1, groups: 1 };
    // The borders are padded with zeros after the shift, so the shift cannot go into the stem's bias; the factor can.
    let mut x = "chip".to_owned();
    if shape.input_px != CHIP_PX {
        let matrix = resample::matrix(CHIP_PX as usize, shape.input_px as usize);
        x = graph.resample(&x, &matrix, CHIP_PX, shape.input_px);
    }
    x = graph.shift(&x, -127.5);
    x = graph.conv(&x, &reader.conv_bn("stem")?.scaled(1.0 / 128.0), three(2));
    x = graph.relu(&x);
    for (stage, &blocks) in shape.blocks.iter().enumerate() {
        x = graph.conv(&x, &reader.conv_bn(&format!("stage{stage}.down"))?, three(2));
        x = graph.relu(&x);
        for block in 0..blocks {
            let path = format!("stage{stage}.block{block}");
            let first = graph.conv(&x, &reader.conv_bn(&format!("{path}.a"))?, three(1));
            let first = graph.relu(&first);
            let second = graph.conv(&first, &reader.conv_bn(&format!("{path}.b"))?, three(1));
            let sum = graph.add(&second, &x);
            x = graph.relu(&sum);
        }
    }
    x = graph.conv(&x, &reader.conv_bn("head")?, Geometry { stride: 1, padding: 0, groups: 1 });
    x = graph.relu(&x);
    x = graph.conv(&x, &reader.conv_bn("global")?, Geometry { stride: 1, padding: 0, groups: shape.head });
    x = graph.flatten(&x);
    let (values, bias) = (reader.values("linear")?, reader.values("bias")?);
    x = graph.linear(&x, &Dense { dims: vec![EMBEDDING, shape.head], values, bias });
    Ok(graph.finish(&x, CHIP_PX, EMBEDDING))
}

pub(super) struct Reader<'a>(pub(super) &'a VarStore);

impl Reader<'_> {
    fn tensor(&self, name: &str) -> Result<Tensor, ExportError> {
        let found = self.0.variables().remove(name);
        found.ok_or_else(|| ExportError::Missing { name: name.to_owned() })
    }

    pub(super) fn values(&self, name: &str) -> Result<Vec<f32>, ExportError> {
        let flat = self.tensor(name)?.to_kind(Kind::Float).flatten(0, -1);
        Vec::try_from(flat).map_err(|_| ExportError::Missing { name: name.to_owned() })
    }

    pub(super) fn conv_bn(&self, path: &str) -> Result<Dense, ExportError> {
        let name = format!("{path}.weight");
        let dims = self.tensor(&name)?.size();
        let part = |part: &str| self.values(&format!("{path}.bn.{part}"));
        let norm =
            Norm { weight: part("weight")?, bias: part("bias")?, mean: part("mean")?, var: part("var")? };
        let layer = Dense { bias: vec![0.0; dims[0] as usize], dims, values: self.values(&name)? };
        Ok(layer.fold(&norm, BN_EPS))
    }
}

/// Runs both on smooth and on noisy pictures.
fn compare(forward: &dyn Fn(&Tensor) -> Tensor, bytes: &[u8]) -> Result<Exported, ExportError> {
    let tract = |e: tract_onnx::prelude::TractError| ExportError::Tract { reason: format!("{e:#}") };
    let plan = tract_onnx::onnx()
        .model_for_read(&mut std::io::Cursor::new(bytes))
        .and_then(|model| model.into_optimized())
        .and_then(|model| model.into_runnable())
        .map_err(tract)?;
    let mut exported = Exported { bytes: bytes.len(), difference: 0.0, cosine: 1.0 };
    for kind in 0..4 {
        let picture = picture(kind);
        let side = CHIP_PX as usize;
        let input = tract_onnx::prelude::Tensor::from_shape(&[1, 3, side, side], &picture).map_err(tract)?;
        let output = plan.run(tvec!(input.into())).map_err(tract)?;
        let view = output[0].to_plain_array_view::<f32>().map_err(tract)?;
        let actual: Vec<f32> = view.iter().copied().collect();
        let chip = Tensor::from_slice(&picture).reshape([1, 3, CHIP_PX, CHIP_PX]);
        let expected = tch::no_grad(|| forward(&chip)).flatten(0, -1);
        let expected: Vec<f32> = Vec::try_from(&expected)
            .map_err(|e: tch::TchError| ExportError::Tract { reason: e.to_string() })?;
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let lengths = (dot(&actual, &actual).sqrt(), dot(&expected, &expected).sqrt());
        let largest = actual.iter().zip(&expected).map(|(a, e)| (a - e).abs()).fold(0.0_f32, f32::max);
        exported.difference = exported.difference.max((f64::from(largest) / lengths.1) as f32);
        exported.cosine = exported.cosine.min((dot(&actual, &expected) / (lengths.0 * lengths.1)) as f32);
    }
    Ok(exported)
}

fn picture(kind: usize) -> Vec<f32> {
    let side = CHIP_PX as usize;
    let value = |i: usize| {
        let (x, y, plane) = (i % side, i / side % side, i / side / side);
        let smooth = (x * (kind + 1) + y + plane * 40) / 3;
        let noise = (x * y * 7 + plane * 57 + i * 31) % 251;
        ((if kind.is_multiple_of(2) { smooth } else { (smooth + noise) / 2 }) % 256) as f32
    };
    (0..3 * side * side).map(value).collect()
}

/// Why nothing was exported.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The run's settings.
    #[error(transparent)]
    Config(#[from] crate::train::config::ConfigError),
    /// The run.
    #[error(transparent)]
    Run(#[from] crate::train::TrainError),
    /// The run's weights.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::CheckpointError),
    /// A weight is not there.
    #[error("the weights have no '{name}': they are of another recipe")]
    Missing {
        /// The weight.
        name: String,
    },
    /// The integer form is for whole chips.
    #[error(
        "a net that looks at {input_px} px has no integer form: export f32 or w8, or train one with shape.input_px = {CHIP_PX}"
    )]
    Side {
        /// What the net looks at.
        input_px: i64,
    },
    /// tract does not run the graph.
    #[error("tract does not run the exported graph: {reason}")]
    Tract {
        /// What it says.
        reason: String,
    },
    /// tract's numbers are not libtorch's.
    #[error(
        "tract and libtorch differ by {difference:.2e} of the vector's length, cosine {cosine:.6}: nothing was written"
    )]
    Parity {
        /// Largest difference, relative.
        difference: f32,
        /// Least cosine.
        cosine: f32,
    },
    /// The file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        Shape { blocks: [1, 0, 1], ..Shape::default() }
    }

    fn net(store: &VarStore, shape: &Shape) -> Compact {
        tch::manual_seed(8);
        let net = Compact::new(&store.root(), shape);
        // Statistics and scales as after some training, else folding would be tested with ones and zeros.
        let _no_grad = tch::no_grad_guard();
        for (name, mut tensor) in std::collections::BTreeMap::from_iter(store.variables()) {
            if name.contains(".bn.") {
                tensor.copy_(&(Tensor::rand_like(&tensor) * 0.5 + 0.5));
            }
        }
        net
    }

    #[test]
    fn both_forms_run_in_tract_and_agree_with_libtorch() {
        for shape in [shape(), Shape { input_px: 96, ..shape() }] {
            let store = VarStore::new(Device::Cpu);
            let net = net(&store, &shape);
            let float = compact(&store, &shape, Form::F32).unwrap();
            let exact = compare(&|chip| net.forward(chip, Mode::EVAL), &float).unwrap();
            assert!(exact.difference < 1e-4, "{exact:?}");
            let small = compact(&store, &shape, Form::W8).unwrap();
            let close = compare(&|chip| net.forward(chip, Mode::EVAL), &small).unwrap();
            assert!(close.cosine > 0.999 && small.len() * 3 < float.len(), "{close:?}");
        }
    }

    #[test]
    fn weights_of_another_net_are_named() {
        let store = VarStore::new(Device::Cpu);
        let _ = net(&store, &shape());
        let other = Shape { blocks: [2, 0, 1], ..Shape::default() };
        let error = compact(&store, &other, Form::F32).unwrap_err();
        assert!(error.to_string().contains("stage0.block1.a.weight"), "{error}");
    }
}
