//! Third-party models known by name: `models/imports.toml`, compiled in.

use facelatch_shared::vision::contract::{Family, InputContract, ModelKind, Source};
use facelatch_shared::vision::lineage::Lineage;
use facelatch_shared::vision::measured::Measured;
use facelatch_shared::vision::thresholds::ThresholdTable;
use serde::Deserialize;

use super::ImportError;

/// A third-party model that `facelatch models import NAME` knows.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// Its name in the manifest.
    pub name: String,
    /// What it is for.
    pub kind: ModelKind,
    /// How its outputs are read.
    pub family: Family,
    /// Licence of the weights, an SPDX expression.
    pub licence: String,
    /// What they learnt from, as far as its makers say.
    #[serde(default)]
    pub lineage: Option<Lineage>,
    /// The least cosine that counts as the same person; embedders only.
    pub default_threshold: Option<f32>,
    /// Where that cosine comes from.
    pub threshold_note: Option<String>,
    /// Where the bytes are.
    pub source: Source,
    /// What the network is fed.
    pub contract: InputContract,
    /// Which similarity a false-match rate asks for.
    #[serde(default)]
    pub thresholds: Option<ThresholdTable>,
    /// How good and how fast it was.
    #[serde(default)]
    pub measured: Option<Measured>,
    /// What onnxruntime answered for the unchanged file on the fixed picture, one entry an output.
    #[serde(default)]
    pub golden: Vec<Golden>,
}

/// One output on the fixed picture, abridged.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// Name of the output.
    pub name: String,
    /// How many elements it has.
    pub elements: usize,
    /// Its Euclidean length.
    pub norm: f32,
    /// Elements `i * elements / samples.len()` for each `i`.
    pub samples: Vec<f32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    models: Vec<Preset>,
}

/// All presets, in the order of the file.
///
/// # Errors
/// [`ImportError::Presets`] when the file compiled in is damaged, which a unit test excludes.
pub fn all() -> Result<Vec<Preset>, ImportError> {
    toml::from_str::<File>(include_str!("../../../models/imports.toml"))
        .map(|file| file.models)
        .map_err(|e| ImportError::Presets { reason: e.to_string() })
}

/// The preset called `name`.
///
/// # Errors
/// [`ImportError::UnknownPreset`] with the names that exist.
pub fn find(name: &str) -> Result<Preset, ImportError> {
    let all = all()?;
    all.iter().find(|preset| preset.name == name).cloned().ok_or_else(|| ImportError::UnknownPreset {
        name: name.into(),
        known: all.iter().map(|preset| preset.name.as_str()).collect::<Vec<_>>().join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_sound() {
        let presets = all().unwrap();
        assert_eq!(presets.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["yunet", "sface"]);
        for preset in &presets {
            assert!(!preset.golden.is_empty(), "{} has no golden figures", preset.name);
            assert!(preset.golden.iter().all(|g| g.norm > 0.0 && g.samples.len() == 16));
            assert_eq!(preset.kind == ModelKind::Embedder, preset.default_threshold.is_some());
            assert_eq!(preset.default_threshold.is_some(), preset.threshold_note.is_some());
        }
        assert_eq!(presets[0].golden.len(), 12);
    }

    #[test]
    fn an_unknown_name_lists_the_known() {
        assert!(find("yunett").unwrap_err().to_string().contains("yunet, sface"));
    }
}
