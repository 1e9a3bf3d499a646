//! Why a model was not imported, and what to do about it.

use std::path::PathBuf;

use facelatch_shared::vision::contract::{FileHash, ManifestError, ModelKind};
use facelatch_shared::vision::runtime::MAX_MODEL_BYTES;
use thiserror::Error;

/// Why a model was not imported. Messages say what is wrong; [`ImportError::hint`] says what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The presets compiled in are damaged.
    #[error("models/imports.toml: {reason}")]
    Presets {
        /// What the parser says.
        reason: String,
    },
    /// No preset of that name.
    #[error("there is no preset \"{name}\"; there are: {known}")]
    UnknownPreset {
        /// The name asked for.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// The file is not there.
    #[error("{} does not exist", file.display())]
    Missing {
        /// The file.
        file: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read {}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// No model for a door is that large.
    #[error("{} is larger than {} MiB", file.display(), MAX_MODEL_BYTES >> 20)]
    TooLarge {
        /// The file.
        file: PathBuf,
    },
    /// Not the bytes that the preset names.
    #[error("{} is not the file that the preset names: SHA-256 {actual}, expected {expected}", file.display())]
    Hash {
        /// The file.
        file: PathBuf,
        /// The preset's hash.
        expected: FileHash,
        /// The file's hash.
        actual: FileHash,
        /// The package that carries the right file, with its version.
        origin: String,
    },
    /// Not the bytes that the manifest names.
    #[error("{} has changed since it was imported: SHA-256 {actual}, expected {expected}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The manifest's hash.
        expected: FileHash,
        /// The file's hash.
        actual: FileHash,
    },
    /// The bytes are no ONNX model, or are cut short.
    #[error("{} is not a whole ONNX file: {reason}", file.display())]
    NotOnnx {
        /// The file.
        file: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// The graph has something that cannot be rewritten.
    #[error("{} cannot be rewritten for tract: {reason}", file.display())]
    Rewrite {
        /// The file.
        file: PathBuf,
        /// The node or tensor in the way.
        reason: String,
    },
    /// tract does not load or run the result, or its answers are odd.
    #[error("{} does not run in tract: {reason}", file.display())]
    Tract {
        /// The file.
        file: PathBuf,
        /// What tract says.
        reason: String,
    },
    /// The result does not mean what the original meant.
    #[error("{} would change its meaning: {reason}", file.display())]
    Meaning {
        /// The file.
        file: PathBuf,
        /// The first difference.
        reason: String,
    },
    /// A model of another kind.
    #[error("{} is no usable {kind}: {wanted} due, found {found}", file.display())]
    Kind {
        /// The file.
        file: PathBuf,
        /// The kind asked for.
        kind: ModelKind,
        /// What a model of that kind has, with the verb.
        wanted: String,
        /// What this one has, with element counts where it ran.
        found: String,
    },
    /// The manifest entry contradicts itself.
    #[error("\"{name}\" cannot be listed in the manifest: {reason}")]
    Entry {
        /// The model's name.
        name: String,
        /// What is wrong and what is allowed.
        reason: String,
    },
    /// The manifest in the way.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The result cannot be written.
    #[error("cannot write {}", file.display())]
    Unwritable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

impl ImportError {
    /// What the operator can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Presets { .. } => "rebuild facelatch from a clean checkout".into(),
            Self::UnknownPreset { .. } => "name one of those, or import any file with --file X.onnx --kind …".into(),
            Self::Missing { .. } => {
                "fetch the third-party files with .ci/fetch, or name their folder with --from DIR".into()
            }
            Self::Hash { origin, .. } => {
                format!("take it from {origin}, e.g. with .ci/fetch, or import another file under its own name with --file")
            }
            Self::Damaged { .. } => "import it again with facelatch models import".into(),
            Self::NotOnnx { .. } => "it may be cut short: fetch it again and compare its size".into(),
            Self::TooLarge { .. } => "a door's models are a few MiB: check that this is the right file".into(),
            Self::Rewrite { .. } | Self::Tract { .. } => {
                "export the model again with plain ONNX operators (opset 13) and a float input [1, 3, height, width]".into()
            }
            Self::Kind { kind, .. } => match kind {
                ModelKind::Detector => "import it with --kind embedder if that is what it is".into(),
                ModelKind::Embedder => "import it with --kind detector if that is what it is".into(),
                ModelKind::Fiducials => "the door reads 68 points of four numbers each".into(),
            },
            Self::Meaning { .. } => "nothing was written; please report the file, this is a defect of the import".into(),
            Self::Unwritable { .. } => "check the free space and the permissions of --out".into(),
            Self::Unreadable { .. } | Self::Entry { .. } | Self::Manifest(_) => return None,
        })
    }

    /// Whether a check of the file refused it, as opposed to something that failed on the way.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Hash { .. } | Self::Damaged { .. } | Self::Meaning { .. })
    }
}
