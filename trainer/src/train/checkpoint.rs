//! One safetensors file with everything a run needs to go on: weights, their running mean, moments, counters.
//!
//! Order and augmentation are functions of the seed and the step, so the step is their whole state.

use std::path::{Path, PathBuf};

use tch::{Device, Kind, Tensor, nn::VarStore};
use thiserror::Error;

/// How far a run has come.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counters {
    /// Steps taken.
    pub step: u64,
    /// Chips seen.
    pub images: u64,
    /// Seconds of training, pauses left out.
    pub seconds: f64,
}

/// Writes a checkpoint beside `path` and renames it into place: after a power cut there is the old one or the new one.
///
/// # Errors
/// [`CheckpointError`].
pub fn save(
    path: &Path,
    mut state: Vec<(String, Tensor)>,
    counters: Counters,
) -> Result<(), CheckpointError> {
    for (_, tensor) in &mut state {
        *tensor = tensor.detach().to_device(Device::Cpu).contiguous();
    }
    state.push((
        "counters".to_owned(),
        Tensor::from_slice(&[counters.step as f64, counters.images as f64, counters.seconds]),
    ));
    write(path, &state)
}

/// Reads a checkpoint: everything in it, and how far the run had come.
///
/// # Errors
/// [`CheckpointError`] when the file is damaged.
pub fn load(path: &Path) -> Result<(Vec<(String, Tensor)>, Counters), CheckpointError> {
    let tensors = read(path)?;
    let counters = tensors
        .iter()
        .find(|(name, t)| name == "counters" && t.numel() == 3)
        .ok_or_else(|| CheckpointError::Misfit { path: path.to_owned(), name: "counters".to_owned() })?;
    let at = |i| counters.1.double_value(&[i]);
    let counters = Counters { step: at(0) as u64, images: at(1) as u64, seconds: at(2) };
    Ok((tensors, counters))
}

/// Writes the weights alone, as half floats when `half`.
///
/// # Errors
/// [`CheckpointError`].
pub fn save_weights(path: &Path, store: &VarStore, half: bool) -> Result<(), CheckpointError> {
    let mut tensors = named("ema", store);
    if half {
        for (_, tensor) in &mut tensors {
            *tensor = tensor.to_kind(Kind::Half);
        }
    }
    write(path, &tensors)
}

/// Reads the running-mean weights of a checkpoint or of a weights file into `store`.
///
/// # Errors
/// [`CheckpointError`].
pub fn load_weights(path: &Path, store: &VarStore) -> Result<(), CheckpointError> {
    fill(store, "ema", &read(path)?).map_err(|name| CheckpointError::Misfit { path: path.to_owned(), name })
}

/// The variables of a store as `prefix.name`, in the order of their names.
#[must_use]
pub fn named(prefix: &str, store: &VarStore) -> Vec<(String, Tensor)> {
    let mut tensors: Vec<_> = store
        .variables()
        .into_iter()
        .map(|(name, t)| (format!("{prefix}.{name}"), t.detach().to_device(Device::Cpu).contiguous()))
        .collect();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    tensors
}

/// Copies `prefix.name` into each variable of a store.
///
/// # Errors
/// The name of one that is missing or of another shape.
pub fn fill(store: &VarStore, prefix: &str, tensors: &[(String, Tensor)]) -> Result<(), String> {
    let _no_grad = tch::no_grad_guard();
    for (name, mut variable) in store.variables() {
        let name = format!("{prefix}.{name}");
        let found = tensors.iter().find(|(n, t)| *n == name && t.size() == variable.size());
        variable.copy_(&found.ok_or(name)?.1);
    }
    Ok(())
}

/// The tensors of a safetensors file.
///
/// # Errors
/// [`CheckpointError::Unreadable`].
pub fn read(path: &Path) -> Result<Vec<(String, Tensor)>, CheckpointError> {
    Tensor::read_safetensors(path)
        .map_err(|e| CheckpointError::Unreadable { path: path.to_owned(), reason: e.to_string() })
}

fn write(path: &Path, tensors: &[(String, Tensor)]) -> Result<(), CheckpointError> {
    let fail = |reason: String| CheckpointError::Unwritable { path: path.to_owned(), reason };
    let beside = path.with_extension("part");
    Tensor::write_safetensors(tensors, &beside).map_err(|e| fail(e.to_string()))?;
    let file = std::fs::File::open(&beside).map_err(|e| fail(e.to_string()))?;
    file.sync_all().map_err(|e| fail(e.to_string()))?;
    std::fs::rename(&beside, path).map_err(|e| fail(e.to_string()))
}

/// Why a checkpoint could not be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// It cannot be read or is damaged.
    #[error("cannot read {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It cannot be written.
    #[error("cannot write {}: {reason}; the previous checkpoint is untouched", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It belongs to a net of another shape.
    #[error("{} has no '{name}' of the net's shape: it is of another recipe or another [shape]", path.display())]
    Misfit {
        /// The file.
        path: PathBuf,
        /// What is missing.
        name: String,
    },
}
