//! Why vision cannot work. Every message names the file and what to do about it.

use std::path::PathBuf;

use thiserror::Error;

use super::contract::{FileHash, ManifestError};
use super::screen::Unfit;
use crate::align::AlignError;
use crate::embedding::EmbeddingError;

/// Why a model cannot be loaded or run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VisionError {
    /// The manifest is missing, damaged, or lacks the model.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The manifest names a file that is not there.
    #[error("{} is in the manifest but not on disk: run `facelatch models import` again", path.display())]
    Missing {
        /// The model file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The model file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is longer than any model that fits the board.
    #[error("{} is larger than {limit_bytes} bytes: import a smaller model", path.display())]
    TooLarge {
        /// The model file.
        path: PathBuf,
        /// The bound.
        limit_bytes: u64,
    },
    /// The bytes are not those that were imported.
    #[error("{} has SHA-256 {actual}, the manifest says {expected}: the file was changed or damaged; run `facelatch models import` again", path.display())]
    Hash {
        /// The model file.
        path: PathBuf,
        /// What the manifest says.
        expected: FileHash,
        /// What the file has.
        actual: FileHash,
    },
    /// Not a network that tract can load, optimize and run.
    #[error("{} cannot be used: {stage}: {reason}; run `facelatch models import` on the original file, which says whether it can be rewritten", path.display())]
    Model {
        /// The model file.
        path: PathBuf,
        /// Which step failed.
        stage: Stage,
        /// What the runtime says.
        reason: String,
    },
    /// The file is refused before anything is built from it.
    #[error("{} is refused: {source}; export or import the model again, or take another", path.display())]
    Unfit {
        /// The model file.
        path: PathBuf,
        /// What is wrong with it.
        source: Unfit,
    },
    /// The network runs but its inputs or outputs are not those of its family.
    #[error("{} is not what its manifest entry says: {reason}; correct `family` or the contract in manifest.toml, or import another file", path.display())]
    Shape {
        /// The model file.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// The detector cannot be loaded at the size asked for.
    #[error(
        "a detector input of {width_px}x{height_px} px is out of range: each side must lie between {least_px} and {most_px}"
    )]
    DetectorInput {
        /// Width asked for.
        width_px: usize,
        /// Height asked for.
        height_px: usize,
        /// Smallest side.
        least_px: usize,
        /// Largest side.
        most_px: usize,
    },
    /// The landmarks admit no chip.
    #[error("cannot align the face: {0}")]
    Align(#[from] AlignError),
    /// The network's output is no embedding.
    #[error("{}: {source}", path.display())]
    Embedding {
        /// The model file.
        path: PathBuf,
        /// What is wrong with the numbers.
        source: EmbeddingError,
    },
}

/// A step on the way from a file to numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Protobuf and graph.
    Parse,
    /// Shapes, types and optimization for the fixed input size.
    Optimize,
    /// Evaluation.
    Run,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Parse => "reading the ONNX graph",
            Self::Optimize => "optimizing it for the fixed input size",
            Self::Run => "running it",
        })
    }
}
