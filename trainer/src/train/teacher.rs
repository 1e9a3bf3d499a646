//! The teacher's vectors, made once for all faces and kept in a file.
//!
//! `NAME.safetensors` holds `mean`, f32 `[n, dim]`, rows of length one (or zero where a face has none); `NAME.paths` names the
//! face of each row as the manifest does, one a line.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tch::{Kind, Tensor};
use thiserror::Error;

use crate::dataset::Row;
use crate::loss::distill::unit;

/// One vector for each row of a manifest.
#[derive(Debug)]
pub struct Teacher {
    /// `[rows, dim]`, length one, or zero for a face the teacher has not seen.
    pub vectors: Tensor,
    /// Which faces it has seen.
    pub known: Vec<bool>,
}

/// Reads the vectors and brings them into the manifest's order.
///
/// # Errors
/// [`TeacherError`].
pub fn read(path: &Path, rows: &[Row]) -> Result<Teacher, TeacherError> {
    let bad = |reason: String| TeacherError { path: path.to_owned(), reason };
    let tensors = Tensor::read_safetensors(path).map_err(|e| bad(e.to_string()))?;
    let vectors = tensors
        .into_iter()
        .find(|(name, _)| name == "mean")
        .ok_or_else(|| bad("it has no tensor 'mean'".into()))?
        .1;
    let names = std::fs::read_to_string(path.with_extension("paths"))
        .map_err(|e| bad(format!("the list of faces beside it (.paths): {e}")))?;
    let index: HashMap<&str, i64> = names.lines().zip(0..).collect();
    if vectors.dim() != 2 || vectors.size()[0] != names.lines().count() as i64 {
        return Err(bad(format!("{:?} vectors for {} names", vectors.size(), names.lines().count())));
    }
    // Unknown faces point at a row of zeros put at the end.
    let zero = Tensor::zeros([1, vectors.size()[1]], (Kind::Float, vectors.device()));
    let padded = Tensor::cat(&[&vectors.to_kind(Kind::Float), &zero], 0);
    let order: Vec<i64> =
        rows.iter().map(|row| index.get(row.path().as_str()).copied().unwrap_or(vectors.size()[0])).collect();
    let vectors = padded.index_select(0, &Tensor::from_slice(&order));
    if vectors.isfinite().all().int64_value(&[]) == 0 {
        return Err(bad("it holds numbers that are not finite".into()));
    }
    let lengths = vectors.square().sum_dim_intlist(1, false, Kind::Float);
    let known: Vec<bool> =
        Vec::<f32>::try_from(lengths).map_err(|e| bad(e.to_string()))?.iter().map(|&l| l > 1e-6).collect();
    Ok(Teacher { vectors: unit(&vectors), known })
}

/// A teacher file that does not fit.
#[derive(Debug, Error)]
#[error("teacher vectors {}: {reason}", path.display())]
pub struct TeacherError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub reason: String,
}
