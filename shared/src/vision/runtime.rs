//! A model file, loaded once for a fixed input size and run many times.
//!
//! One thread: tract's executor is left at its default, single-threaded, so that the door's other threads keep their core.

use std::any::Any;
use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::Cost;

use super::contract::{FileHash, ManifestEntry};
use super::error::{Stage, VisionError};
use super::prelu;
use super::screen::{self, MAX_ELEMENTS, MAX_MULTIPLICATIONS, Unfit};

/// A network optimized for one input shape, `[1, 3, height_px, width_px]` float32, with its running state.
#[derive(Debug)]
pub struct Network {
    path: PathBuf,
    outputs: Vec<String>,
    shapes: Vec<Vec<usize>>,
    input: Arc<Tensor>,
    plan: Arc<TypedRunnableModel>,
    state: TypedSimpleState,
}

impl Network {
    /// Reads `entry.file` in `dir`, checks its hash, optimizes it for `width_px`×`height_px` and runs it once on zeros.
    ///
    /// # Errors
    /// [`VisionError`] naming the file: missing, unreadable, too large, another hash, or not a network that tract can run.
    pub fn load(
        dir: &Path,
        entry: &ManifestEntry,
        width_px: usize,
        height_px: usize,
    ) -> Result<Self, VisionError> {
        let path = dir.join(&entry.file);
        let bytes = read_bounded(&path)?;
        let actual = FileHash::of(&bytes);
        if actual != entry.sha256 {
            return Err(VisionError::Hash { path, expected: entry.sha256, actual });
        }
        Self::from_bytes(&path, &bytes, width_px, height_px)
    }

    /// The same from bytes in memory; `path` only names them in errors. Whoever calls this vouches for the bytes.
    ///
    /// # Errors
    /// [`VisionError::Unfit`] for a file that is refused before anything is built from it, [`VisionError::Model`] for what tract cannot parse, optimize or run, [`VisionError::Shape`] for a network that has not
    /// exactly one input and float32 outputs.
    pub fn from_bytes(
        path: &Path,
        bytes: &[u8],
        width_px: usize,
        height_px: usize,
    ) -> Result<Self, VisionError> {
        let shape = [1, 3, height_px, width_px];
        let unfit = |source| VisionError::Unfit { path: path.into(), source };
        screen::count_pieces(bytes).map_err(unfit)?;
        let proto =
            guarded(path, Stage::Parse, || tract_onnx::onnx().proto_model_for_read(&mut Cursor::new(bytes)))?;
        screen::check(&proto).map_err(unfit)?;
        let parsed = guarded(path, Stage::Parse, || parse(&proto))?;
        if parsed.input_count != 1 {
            let reason = format!("it has {} inputs instead of one picture", parsed.input_count);
            return Err(VisionError::Shape { path: path.into(), reason });
        }
        let typed = guarded(path, Stage::Optimize, || {
            parsed.model.with_input_fact(0, f32::fact(shape).into())?.into_typed()
        })?;
        guarded(path, Stage::Optimize, || Ok(bound(&typed)))?.map_err(unfit)?;
        let plan = guarded(path, Stage::Optimize, || typed.into_optimized()?.into_runnable())?;
        let (state, input) =
            guarded(path, Stage::Run, || Ok((plan.spawn()?, Arc::new(Tensor::zero::<f32>(&shape)?))))?;
        let mut network =
            Self { path: path.into(), outputs: parsed.outputs, shapes: Vec::new(), input, plan, state };
        let first = network.run()?;
        for (name, value) in network.outputs.iter().zip(&first) {
            if value.datum_type() != f32::datum_type() {
                let reason = format!("output \"{name}\" holds {:?} instead of float32", value.datum_type());
                return Err(VisionError::Shape { path: path.into(), reason });
            }
        }
        network.shapes = first.iter().map(|value| value.shape().to_vec()).collect();
        Ok(network)
    }

    /// The file, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The outputs' names and shapes, in the order in which [`run`](Self::run) returns them.
    pub fn outputs(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.outputs.iter().map(String::as_str).zip(self.shapes.iter().map(Vec::as_slice))
    }

    /// The operators of the optimized graph, in no particular order.
    pub fn operators(&self) -> impl Iterator<Item = String> {
        self.plan.model().nodes().iter().map(|node| node.op().name().into_owned())
    }

    /// The input to fill before [`run`](Self::run): three planes of `height_px * width_px` values. It keeps what was written last.
    ///
    /// # Errors
    /// [`VisionError::Model`] if the runtime cannot provide it.
    pub fn input_mut(&mut self) -> Result<&mut [f32], VisionError> {
        // The state lets go of the input after each run, so that this copies nothing.
        values_mut(Arc::make_mut(&mut self.input)).map_err(|error| VisionError::Model {
            path: self.path.clone(),
            stage: Stage::Run,
            reason: shortened(&format!("{error:#}")),
        })
    }

    /// Runs the network on the input.
    ///
    /// # Errors
    /// [`VisionError::Model`] when tract fails or panics; the next run starts from a fresh state.
    pub fn run(&mut self) -> Result<TVec<TValue>, VisionError> {
        let input = tvec!(TValue::from_const(self.input.clone()));
        let result = guarded(&self.path, Stage::Run, || self.state.run(input));
        if result.is_err()
            && let Ok(fresh) = guarded(&self.path, Stage::Run, || self.plan.spawn())
        {
            self.state = fresh;
        }
        result
    }

    /// An error about this network's inputs or outputs.
    pub(super) fn shape_error(&self, reason: String) -> VisionError {
        VisionError::Shape { path: self.path.clone(), reason }
    }
}

/// The values of a float32 tensor in row-major order; empty for anything else, which [`Network`] has excluded at load.
#[must_use]
pub fn values(tensor: &Tensor) -> &[f32] {
    tensor.as_plain_ram().and_then(|view| view.as_slice::<f32>().ok()).unwrap_or(&[])
}

fn values_mut(tensor: &mut Tensor) -> TractResult<&mut [f32]> {
    // Checks type and storage; the view's own borrow is too short to return a slice from.
    tensor.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?;
    // SAFETY: the line above returned Ok, so the tensor is plain, in memory, and of f32.
    Ok(unsafe { tensor.as_slice_mut_unchecked::<f32>() })
}

struct Parsed {
    model: InferenceModel,
    input_count: usize,
    outputs: Vec<String>,
}

fn parse(proto: &tract_onnx::pb::ModelProto) -> TractResult<Parsed> {
    let mut onnx = tract_onnx::onnx().with_ignore_output_shapes(true).with_ignore_value_info(true);
    prelu::register(&mut onnx);
    let outputs = proto.graph.iter().flat_map(|g| &g.output).map(|o| o.name.clone()).collect();
    // No directory is given, so that weights outside the hashed file are refused.
    let model = onnx.parse(proto, None)?.model;
    let input_count = model.input_outlets()?.len();
    Ok(Parsed { model, input_count, outputs })
}

/// No value larger, and no more arithmetic, than a board can do; shapes are known, nothing is computed yet.
fn bound(model: &TypedModel) -> Result<(), Unfit> {
    let mut multiplications = 0_u64;
    for node in model.nodes() {
        for output in &node.outputs {
            let sizes = output.fact.shape.as_concrete();
            let elements = sizes.and_then(|sizes| {
                sizes.iter().try_fold(1_u64, |product, &size| product.checked_mul(size as u64))
            });
            if elements.is_none_or(|elements| elements > MAX_ELEMENTS) {
                let node = node.name.chars().take(60).collect();
                return Err(Unfit::Memory {
                    node,
                    elements: elements.unwrap_or(u64::MAX),
                    limit: MAX_ELEMENTS,
                });
            }
        }
        let Ok(inputs) = model.node_input_facts(node.id) else { continue };
        for (cost, amount) in node.op.cost(&inputs).unwrap_or_default() {
            if matches!(cost, Cost::FMA(_)) {
                let amount = amount.to_i64().ok().and_then(|amount| u64::try_from(amount).ok());
                multiplications = multiplications.saturating_add(amount.unwrap_or(u64::MAX));
            }
        }
    }
    if multiplications > MAX_MULTIPLICATIONS {
        return Err(Unfit::Arithmetic { multiplications, limit: MAX_MULTIPLICATIONS });
    }
    Ok(())
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, VisionError> {
    let unreadable = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => VisionError::Missing { path: path.into() },
        _ => VisionError::Unreadable { path: path.into(), source },
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_MODEL_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_MODEL_BYTES {
        return Err(VisionError::TooLarge { path: path.into(), limit_bytes: MAX_MODEL_BYTES });
    }
    Ok(bytes)
}

/// Turns tract's errors, and panics on files that it does not expect, into [`VisionError::Model`].
fn guarded<T>(path: &Path, stage: Stage, work: impl FnOnce() -> TractResult<T>) -> Result<T, VisionError> {
    let reason = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => format!("{error:#}"),
        Err(panic) => format!("the runtime gave up: {}", panic_text(panic.as_ref())),
    };
    Err(VisionError::Model { path: path.into(), stage, reason: shortened(&reason) })
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no reason given")
}

fn shortened(reason: &str) -> String {
    let flat = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    match flat.char_indices().nth(MAX_REASON_CHARS) {
        Some((end, _)) => format!("{} …", &flat[..end]),
        None => flat,
    }
}

/// The largest model file that is read, in bytes.
pub const MAX_MODEL_BYTES: u64 = 256 << 20;

const MAX_REASON_CHARS: usize = 400;

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    fn good() -> Vec<u8> {
        testing::prelu_graph(&[3, 1, 1], &[0.5, 0.25, 2.0])
    }

    #[test]
    fn inputs_are_reused_and_outputs_described() {
        let mut network = testing::load(&good(), (4, 2)).unwrap();
        assert_eq!(network.outputs().collect::<Vec<_>>(), [("y", &[1, 3, 2, 4][..])]);
        let first = network.input_mut().unwrap().as_ptr();
        for value in [1.0, -1.0] {
            network.input_mut().unwrap().fill(value);
            let out = network.run().unwrap();
            let expected = if value > 0.0 { [1.0; 3] } else { [-0.5, -0.25, -2.0] };
            for (plane, expected) in values(&out[0]).chunks(8).zip(expected) {
                assert_eq!(plane, [expected; 8]);
            }
        }
        assert_eq!(network.input_mut().unwrap().as_ptr(), first);
    }

    #[test]
    fn every_truncation_is_a_clear_error() {
        let bytes = good();
        for length in 0..bytes.len() {
            // Cut between two messages a file may still be a smaller graph: then it must load as one.
            if let Err(error) = testing::load(&bytes[..length], (4, 2)) {
                let said = error.to_string();
                assert!(said.starts_with("test.onnx ") && said.len() < 900, "{length}: {said}");
            }
        }
    }

    #[test]
    fn damaged_bytes_never_panic() {
        let bytes = good();
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                let _ = testing::load(&damaged, (4, 2));
            }
        }
    }

    #[test]
    fn weights_outside_the_file_are_refused() {
        let said =
            testing::load(&testing::external_weights_graph("/etc/hostname"), (4, 2)).unwrap_err().to_string();
        assert!(said.contains("external"), "{said}");
    }

    #[test]
    fn files_are_checked_before_they_are_parsed() {
        let dir = tempfile::tempdir().unwrap();
        let entry = testing::entry("m", &good());
        let said = Network::load(dir.path(), &entry, 4, 2).unwrap_err().to_string();
        assert!(said.contains("m.onnx is in the manifest but not on disk"), "{said}");

        let path = dir.path().join("m.onnx");
        std::fs::write(&path, good()).unwrap();
        Network::load(dir.path(), &entry, 4, 2).unwrap();

        let mut flipped = good();
        flipped[3] ^= 1;
        std::fs::write(&path, flipped).unwrap();
        assert!(matches!(Network::load(dir.path(), &entry, 4, 2), Err(VisionError::Hash { .. })));

        std::fs::File::create(&path).unwrap().set_len(MAX_MODEL_BYTES + 1).unwrap();
        assert!(matches!(Network::load(dir.path(), &entry, 4, 2), Err(VisionError::TooLarge { .. })));
    }

    #[test]
    fn panics_of_the_runtime_become_errors() {
        let panicked = guarded::<()>(Path::new("p.onnx"), Stage::Run, || panic!("index out of range"));
        let said = panicked.unwrap_err().to_string();
        assert!(said.contains("p.onnx") && said.contains("index out of range"), "{said}");
    }
}
