//! DeepFace and VGG-Face as graphs: input `chip` `[1, 3, 112, 112]` RGB 0–255, resampled inside to the net's own size, output
//! `embedding`, not normalised.

use std::path::Path;

use tch::{Device, Tensor, nn::VarStore};
use tract_onnx::pb::tensor_proto::DataType;

use super::onnx::{Form, Geometry, Graph, int, ints};
use super::weights::Dense;
use super::{CHIP_PX, ExportError, Exported, Reader, W8_COSINE, compare};
use crate::model::deepface::{self, DeepFace};
use crate::model::local::out_side;
use crate::model::resample;
use crate::model::vggface::{self, VggFace};
use crate::recipe::deepface::{DeepfaceRecipe, DeepfaceSettings};
use crate::recipe::vggface::{VggfaceRecipe, VggfaceSettings};
use crate::recipe::vggface_embedding::{self, VggfaceEmbeddingRecipe};
use crate::train::{CHECKPOINT, Recipe as _, SETTINGS, checkpoint, config::Draft};

/// A net of a run, with its weights.
#[derive(Debug)]
pub struct Net {
    store: VarStore,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Deepface(DeepFace, deepface::Shape),
    Vggface(VggFace, vggface::Shape, Option<Tensor>),
}

/// The net of a run's folder, when the run is of a recipe that this file knows.
///
/// # Errors
/// [`ExportError`] for a run that is damaged.
pub fn open(run: &Path) -> Result<Option<Net>, ExportError> {
    if !run.is_dir() {
        return Ok(None);
    }
    let draft = Draft::read(&run.join(SETTINGS))?;
    let path = run.join(CHECKPOINT);
    let misfit = |name| checkpoint::CheckpointError::Misfit { path: path.clone(), name };
    let recipe = draft.recipe().unwrap_or_default().to_owned();
    if ![DeepfaceRecipe::NAME, VggfaceRecipe::NAME, VggfaceEmbeddingRecipe::NAME].contains(&recipe.as_str()) {
        return Ok(None);
    }
    let tensors = checkpoint::read(&path)?;
    let classes = |name: &str| -> Result<i64, ExportError> {
        let found = tensors.iter().find(|(n, _)| n == name).map(|(_, t)| t.size()[0]);
        Ok(found.ok_or_else(|| misfit(name.to_owned()))?)
    };
    let mut store = VarStore::new(Device::Cpu);
    let kind = if recipe == DeepfaceRecipe::NAME {
        let shape = draft.settings::<DeepfaceSettings>(DeepfaceRecipe::NAME)?.shape;
        Kind::Deepface(DeepFace::new(&store.root(), &shape, classes("weights.f8.bias")?), shape)
    } else if recipe == VggfaceRecipe::NAME {
        let shape = draft.settings::<VggfaceSettings>(VggfaceRecipe::NAME)?.shape;
        Kind::Vggface(VggFace::new(&store.root(), &shape, classes("weights.fc8.bias")?), shape, None)
    } else {
        let shape = vggface_embedding::shape_of(&tensors).map_err(misfit)?;
        let projection =
            tensors.iter().find(|(n, _)| n == vggface_embedding::PROJECTION).map(|(_, t)| t.shallow_clone());
        let projection = projection.ok_or_else(|| misfit(vggface_embedding::PROJECTION.to_owned()))?;
        Kind::Vggface(
            VggFace::new(&store.root(), &shape, classes("weights.fc8.bias")?),
            shape,
            Some(projection),
        )
    };
    store.freeze();
    checkpoint::fill(&store, "weights", &tensors).map_err(misfit)?;
    Ok(Some(Net { store, kind }))
}

/// Exports, as [`super::export`] does.
///
/// # Errors
/// [`ExportError`]; nothing is written when tract's answer is not libtorch's.
pub fn export(net: &Net, form: Form, out: &Path) -> Result<Exported, ExportError> {
    let bytes = net.graph(form)?;
    let exported = compare(&|chip| net.forward(chip), &bytes)?;
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

impl Net {
    /// What faces are compared by, for chips `[n, 3, 112, 112]`.
    #[must_use = "the only effect"]
    pub fn forward(&self, chip: &Tensor) -> Tensor {
        let chip = chip.to_kind(tch::Kind::Float);
        match &self.kind {
            Kind::Deepface(net, _) => net.represent(&resample::square(&chip, deepface::SIDE_PX)),
            Kind::Vggface(net, shape, projection) => {
                let descriptor = net.represent(&resample::square(&chip, shape.side_px));
                projection.as_ref().map_or_else(|| descriptor.shallow_clone(), |p| descriptor.matmul(&p.tr()))
            }
        }
    }

    fn graph(&self, form: Form) -> Result<Vec<u8>, ExportError> {
        let reader = Reader(&self.store);
        let mut graph = Graph::new(form);
        match &self.kind {
            Kind::Deepface(_, shape) => {
                deepface_graph(&mut graph, &reader, shape).map(|(x, dim)| graph.finish(&x, CHIP_PX, dim))
            }
            Kind::Vggface(_, shape, projection) => {
                vggface_graph(&mut graph, &reader, shape, projection.as_ref())
                    .map(|(x, dim)| graph.finish(&x, CHIP_PX, dim))
            }
        }
    }
}

fn deepface_graph(
    graph: &mut Graph,
    reader: &Reader<'_>,
    shape: &deepface::Shape,
) -> Result<(String, i64), ExportError> {
    let units = shape.channels().2;
    let mut x = resampled(graph, deepface::SIDE_PX);
    x = graph.shift(&x, -127.5);
    let valid = Geometry { stride: 1, padding: 0, groups: 1 };
    x = graph.conv(&x, &reader.biased("c1")?.scaled(1.0 / 128.0), valid);
    x = graph.relu(&x);
    x = graph.pool(&x, 3, 2, true);
    x = graph.conv(&x, &reader.biased("c3")?, valid);
    x = graph.relu(&x);
    let mut side = out_side(71, 9, 1);
    for (name, kernel, stride) in [("l4", 9, 1), ("l5", 7, 2), ("l6", 5, 1)] {
        x = graph.local(&x, &reader.local(name)?, kernel, stride, side);
        x = graph.relu(&x);
        side = out_side(side, kernel, stride);
    }
    x = graph.flatten(&x);
    x = graph.linear(&x, &reader.biased("f7")?);
    x = graph.relu(&x);
    let gains: Vec<f32> = reader.values("largest")?.iter().map(|v| 1.0 / v).collect();
    let gains = graph.float("gains", vec![1, units], &gains);
    Ok((graph.node("Mul", &[&x, &gains], vec![]), units))
}

fn vggface_graph(
    graph: &mut Graph,
    reader: &Reader<'_>,
    shape: &vggface::Shape,
    projection: Option<&Tensor>,
) -> Result<(String, i64), ExportError> {
    let mut x = resampled(graph, shape.side_px);
    x = graph.shift(&x, -127.5);
    let mut factor = 1.0 / 128.0;
    for (stage, convolutions) in shape.configuration.convolutions().into_iter().enumerate() {
        for i in 0..convolutions {
            let layer = reader.biased(&format!("stage{stage}.conv{i}"))?.scaled(factor);
            factor = 1.0;
            x = graph.conv(&x, &layer, Geometry { stride: 1, padding: 1, groups: 1 });
            x = graph.relu(&x);
        }
        x = graph.pool(&x, 2, 2, false);
    }
    x = graph.flatten(&x);
    for name in ["fc6", "fc7"] {
        x = graph.linear(&x, &reader.biased(name)?);
        x = graph.relu(&x);
    }
    let Some(projection) = projection else { return Ok((x, shape.units())) };
    let dims = projection.size();
    let values: Vec<f32> = Vec::try_from(projection.flatten(0, -1))
        .map_err(|_| ExportError::Missing { name: vggface_embedding::PROJECTION.into() })?;
    let dense = Dense { bias: vec![0.0; dims[0] as usize], dims: dims.clone(), values };
    Ok((graph.linear(&x, &dense), dims[0]))
}

fn resampled(graph: &mut Graph, side: i64) -> String {
    if side == CHIP_PX {
        return "chip".to_owned();
    }
    graph.resample("chip", &resample::matrix(CHIP_PX as usize, side as usize), CHIP_PX, side)
}

/// A locally connected layer: weights `[positions, out, in·k·k]`, biases `[out, height, width]`.
#[derive(Debug)]
struct LocalWeights {
    dims: [usize; 3],
    values: Vec<f32>,
    bias: Vec<f32>,
}

impl Reader<'_> {
    fn biased(&self, name: &str) -> Result<Dense, ExportError> {
        let weight = format!("{name}.weight");
        Ok(Dense {
            dims: self.tensor(&weight)?.size(),
            values: self.values(&weight)?,
            bias: self.values(&format!("{name}.bias"))?,
        })
    }

    fn local(&self, name: &str) -> Result<LocalWeights, ExportError> {
        let weight = format!("{name}.weight");
        let size = self.tensor(&weight)?.size();
        let &[positions, to, fan_in] = size.as_slice() else {
            return Err(ExportError::Missing { name: weight });
        };
        Ok(LocalWeights {
            dims: [positions, to, fan_in].map(|v| v as usize),
            values: self.values(&weight)?,
            bias: self.values(&format!("{name}.bias"))?,
        })
    }
}

impl Graph {
    /// Maximum over `kernel`×`kernel`, without padding; `ceil` rounds the size up.
    fn pool(&mut self, x: &str, kernel: i64, stride: i64, ceil: bool) -> String {
        let attributes = vec![
            ints("kernel_shape", &[kernel; 2]),
            ints("strides", &[stride; 2]),
            ints("pads", &[0; 4]),
            int("ceil_mode", i64::from(ceil)),
        ];
        self.node("MaxPool", &[x], attributes)
    }

    /// Filters of their own at every position: the patches as columns, by a convolution whose kernels each pick one pixel, then
    /// one matrix product a position. `[1, in, side, side]` → `[1, out, o, o]`. (A slice for each place in the kernel says the
    /// same, but tract takes minutes to optimize that many nodes.)
    fn local(&mut self, x: &str, weights: &LocalWeights, kernel: i64, stride: i64, side: i64) -> String {
        let [positions, to, fan_in] = weights.dims;
        let out = out_side(side, kernel, stride);
        let places = (kernel * kernel) as usize;
        let from = (fan_in / places) as i64;
        let mut picks = vec![0.0; fan_in * places];
        for column in 0..fan_in {
            picks[column * places + column % places] = 1.0;
        }
        let picks = self.float("picks", vec![fan_in as i64, 1, kernel, kernel], &picks);
        let attributes = vec![
            int("group", from),
            ints("kernel_shape", &[kernel; 2]),
            ints("pads", &[0; 4]),
            ints("strides", &[stride; 2]),
        ];
        // [1, in·k·k, o, o], the channel outermost, as in libtorch's columns.
        let columns = self.node("Conv", &[x, &picks], attributes);
        let shape = self.whole("shape", &[fan_in as i64, positions as i64]);
        let columns = self.node("Reshape", &[&columns, &shape], vec![]);
        let columns = self.node("Transpose", &[&columns], vec![ints("perm", &[1, 0])]);
        let shape = self.whole("shape", &[positions as i64, fan_in as i64, 1]);
        let columns = self.node("Reshape", &[&columns, &shape], vec![]);
        let filters =
            self.float("filters", vec![positions as i64, to as i64, fan_in as i64], &weights.values);
        let y = self.node("MatMul", &[&filters, &columns], vec![]);
        let shape = self.whole("shape", &[positions as i64, to as i64]);
        let y = self.node("Reshape", &[&y, &shape], vec![]);
        let y = self.node("Transpose", &[&y], vec![ints("perm", &[1, 0])]);
        let shape = self.whole("shape", &[1, to as i64, out, out]);
        let y = self.node("Reshape", &[&y, &shape], vec![]);
        let bias = self.float("bias", vec![1, to as i64, out, out], &weights.bias);
        self.node("Add", &[&y, &bias], vec![])
    }

    fn whole(&mut self, kind: &str, values: &[i64]) -> String {
        let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(kind, vec![values.len() as i64], DataType::Int64, raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::local::Start;

    fn exact(net: &Net) {
        let exported = compare(&|chip| net.forward(chip), &net.graph(Form::F32).unwrap()).unwrap();
        assert!(exported.difference < 1e-4, "{exported:?}");
    }

    #[test]
    fn deepface_runs_in_tract_as_in_libtorch() {
        tch::manual_seed(9);
        let shape = deepface::Shape { width: 0.125, start: Start::Scaled, ..deepface::Shape::default() };
        let store = VarStore::new(Device::Cpu);
        let net = DeepFace::new(&store.root(), &shape, 5);
        net.set_largest(&(Tensor::rand([512], (tch::Kind::Float, Device::Cpu)) + 0.1));
        exact(&Net { store, kind: Kind::Deepface(net, shape) });
    }

    #[test]
    fn vggface_with_and_without_its_projection_runs_in_tract_as_in_libtorch() {
        for configuration in [vggface::Configuration::A, vggface::Configuration::D] {
            tch::manual_seed(10);
            let shape = vggface::Shape {
                configuration,
                width: 0.0625,
                side_px: 64,
                start: Start::Scaled,
                ..vggface::Shape::default()
            };
            let store = VarStore::new(Device::Cpu);
            let net = VggFace::new(&store.root(), &shape, 5);
            let projection = (configuration == vggface::Configuration::D)
                .then(|| Tensor::randn([128, shape.units()], (tch::Kind::Float, Device::Cpu)));
            exact(&Net { store, kind: Kind::Vggface(net, shape, projection) });
        }
    }
}
