//! Third-party ONNX models, made fit for the door.
//!
//! `read → rewrite → verify → write`: the file is read whole and its hash compared, the graph is rewritten so that tract loads
//! it, the result is checked against the original's own meaning, and only then the `.onnx` and its manifest entry are
//! written, each by rename, so that a failed import leaves the model directory as it was.

mod tensor;
mod dequantize;
mod rewrite;
mod verify;
mod presets;
mod error;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use facelatch_shared::embedding;
use facelatch_shared::vision::contract::{
    FileHash, InputContract, Manifest, ManifestEntry, ManifestError, ModelKind, Source,
};
use facelatch_shared::vision::runtime::MAX_MODEL_BYTES;
use prost::Message as _;
use tract_onnx::pb::ModelProto;

pub use error::ImportError;
pub use presets::{Golden, Preset, all as presets, find as preset};
pub use rewrite::Changes;

/// One model to import.
#[derive(Clone, Debug)]
pub struct Job {
    /// What becomes of it in the manifest, and how it is checked. For a file without a preset `golden` is empty.
    pub preset: Preset,
    /// The file to read.
    pub file: PathBuf,
    /// Whether the file's hash must equal `preset.source.sha256`. Without a preset the hash is recorded, not compared.
    pub hash_known: bool,
}

/// What an import did.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The manifest entry as written.
    pub entry: ManifestEntry,
    /// What was rewritten.
    pub changes: Changes,
    /// Weights recomputed and compared bit by bit.
    pub weights_compared: usize,
    /// Largest difference from the golden figures, relative to the output's peak; `None` without golden figures.
    pub golden_difference: Option<f32>,
    /// Bytes written.
    pub bytes: usize,
}

/// Imports `job` into the model directory `out`, which is created if need be.
///
/// # Errors
/// [`ImportError`]; nothing is written then.
pub fn import(job: &Job, out: &Path) -> Result<Imported, ImportError> {
    // A broken manifest is found before the work, not after it.
    let mut manifest = match Manifest::load(out) {
        Ok(manifest) => manifest,
        Err(ManifestError::Missing { .. }) => Manifest::default(),
        Err(e) => return Err(e.into()),
    };
    let Job { preset, file, .. } = job;
    let published = read(file)?;
    let hash = FileHash::of(&published);
    if job.hash_known && hash != preset.source.sha256 {
        return Err(ImportError::Hash {
            file: file.clone(),
            expected: preset.source.sha256,
            actual: hash,
            origin: format!("{} {}", preset.source.package, preset.source.version),
        });
    }
    // A contract that contradicts itself is named as such, before the network trips over it.
    let mut entry = ManifestEntry {
        name: preset.name.clone(),
        kind: preset.kind,
        family: preset.family,
        file: format!("{}.onnx", preset.name),
        sha256: hash,
        licence: preset.licence.clone(),
        lineage: preset.lineage.clone(),
        default_threshold: preset.default_threshold,
        threshold_note: preset.threshold_note.clone(),
        source: Source { sha256: hash, ..preset.source.clone() },
        contract: preset.contract,
        thresholds: preset.thresholds.clone(),
        measured: preset.measured.clone(),
    };
    manifest.upsert(entry.clone());
    toml::to_string(&manifest)
        .map_err(|e| e.to_string())
        .and_then(|text| Manifest::parse(&text, out).map_err(|e| e.to_string()))
        .map_err(|reason| ImportError::Entry { name: preset.name.clone(), reason })?;

    let prepared = prepare(preset, file, &published)?;
    entry.sha256 = FileHash::of(&prepared.bytes);
    manifest.upsert(entry.clone());
    write(out, &entry.file, &prepared.bytes)?;
    manifest.save(out)?;
    Ok(Imported {
        entry,
        changes: prepared.changes,
        weights_compared: prepared.weights_compared,
        golden_difference: prepared.golden_difference,
        bytes: prepared.bytes.len(),
    })
}

/// Copies `entry` of the model directory `from` into the model directory `out`, unless it is damaged.
///
/// # Errors
/// [`ImportError`], naming the file; `out`'s manifest is then as it was.
pub fn add(entry: &ManifestEntry, from: &Path, out: &Path) -> Result<(), ImportError> {
    check(entry, from)?;
    let mut manifest = match Manifest::load(out) {
        Ok(manifest) => manifest,
        Err(ManifestError::Missing { .. }) => Manifest::default(),
        Err(e) => return Err(e.into()),
    };
    let bytes = read(&from.join(&entry.file))?;
    write(out, &entry.file, &bytes)?;
    manifest.upsert(entry.clone());
    manifest.save(out)?;
    Ok(())
}

/// Checks a model of the directory `dir`: its file has the manifest's hash, loads in tract and answers sensibly.
///
/// # Errors
/// [`ImportError`], naming the file.
pub fn check(entry: &ManifestEntry, dir: &Path) -> Result<(), ImportError> {
    let file = dir.join(&entry.file);
    let bytes = read(&file)?;
    let actual = FileHash::of(&bytes);
    if actual != entry.sha256 {
        return Err(ImportError::Damaged { file, expected: entry.sha256, actual });
    }
    let model = ModelProto::decode(bytes.as_slice())
        .map_err(|e| ImportError::NotOnnx { file: file.clone(), reason: e.to_string() })?;
    let answers = verify::run(&bytes, entry.contract.width_px, entry.contract.height_px)
        .map_err(|reason| ImportError::Tract { file: file.clone(), reason })?;
    check_kind(entry.kind, &file, &model, Some(&answers))
}

struct Prepared {
    bytes: Vec<u8>,
    changes: Changes,
    weights_compared: usize,
    golden_difference: Option<f32>,
}

fn prepare(preset: &Preset, file: &Path, published: &[u8]) -> Result<Prepared, ImportError> {
    let not_onnx = |reason: String| ImportError::NotOnnx { file: file.into(), reason };
    let original = ModelProto::decode(published).map_err(|e| not_onnx(e.to_string()))?;
    if original.graph.as_ref().is_none_or(|graph| graph.node.is_empty()) {
        return Err(not_onnx("it holds no graph".into()));
    }
    let InputContract { width_px, height_px, .. } = preset.contract;
    let (rewritten, changes) = rewrite::rewrite(original.clone(), width_px, height_px)
        .map_err(|reason| ImportError::Rewrite { file: file.into(), reason })?;
    let weights_compared = verify::same_meaning(&original, &rewritten)
        .map_err(|reason| ImportError::Meaning { file: file.into(), reason })?;
    check_kind(preset.kind, file, &rewritten, None)?;
    let bytes = rewritten.encode_to_vec();
    let answers = verify::run(&bytes, width_px, height_px)
        .map_err(|reason| ImportError::Tract { file: file.into(), reason })?;
    check_kind(preset.kind, file, &rewritten, Some(&answers))?;
    let golden_difference = if preset.golden.is_empty() {
        None
    } else {
        let difference = verify::compare_golden(&answers, &preset.golden)
            .map_err(|reason| ImportError::Meaning { file: file.into(), reason })?;
        Some(difference)
    };
    Ok(Prepared { bytes, changes, weights_compared, golden_difference })
}

/// Compares the outputs with those of `kind`: their names before the network has run, their sizes too once it has.
fn check_kind(
    kind: ModelKind,
    file: &Path,
    model: &ModelProto,
    answers: Option<&verify::Answers>,
) -> Result<(), ImportError> {
    let names: Vec<&str> =
        model.graph.iter().flat_map(|graph| &graph.output).map(|output| output.name.as_str()).collect();
    let sizes: Option<Vec<usize>> = answers.map(|answers| answers.outputs.iter().map(Vec::len).collect());
    let fits = match (kind, &sizes) {
        (ModelKind::Embedder, None) => names.len() == 1,
        (ModelKind::Embedder, Some(sizes)) => *sizes == [embedding::DIM],
        (ModelKind::Fiducials, None) => names.len() == 1,
        (ModelKind::Fiducials, Some(sizes)) => *sizes == [FIDUCIAL_NUMBERS],
        (ModelKind::Detector, _) => DETECTOR_OUTPUTS.iter().all(|name| names.contains(name)),
    };
    if fits {
        return Ok(());
    }
    let wanted = match kind {
        ModelKind::Embedder => format!("one output of {} numbers is", embedding::DIM),
        ModelKind::Fiducials => format!("one output of {FIDUCIAL_NUMBERS} numbers is"),
        ModelKind::Detector => format!("YuNet's outputs {} are", DETECTOR_OUTPUTS.join(", ")),
    };
    let found = match sizes {
        None => names.join(", "),
        Some(sizes) => names
            .iter()
            .zip(sizes)
            .map(|(name, size)| format!("{name} ({size})"))
            .collect::<Vec<_>>()
            .join(", "),
    };
    Err(ImportError::Kind { file: file.into(), kind, wanted, found })
}

fn read(file: &Path) -> Result<Vec<u8>, ImportError> {
    let unreadable = |source| ImportError::Unreadable { file: file.into(), source };
    let opened = std::fs::File::open(file).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => ImportError::Missing { file: file.into() },
        _ => unreadable(source),
    })?;
    let mut bytes = Vec::new();
    // The limit holds for what is read, whatever the file's size is said to be.
    opened.take(MAX_MODEL_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_MODEL_BYTES {
        return Err(ImportError::TooLarge { file: file.into() });
    }
    Ok(bytes)
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), ImportError> {
    let path = dir.join(name);
    let unwritable = |source| ImportError::Unwritable { file: path.clone(), source };
    std::fs::create_dir_all(dir).map_err(unwritable)?;
    let fresh = dir.join(format!("{name}.new"));
    let result = write_synced(dir, &fresh, &path, bytes);
    if result.is_err() {
        // The first error is the one to report.
        let _ = std::fs::remove_file(&fresh);
    }
    result.map_err(unwritable)
}

fn write_synced(dir: &Path, fresh: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::File::create(fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(fresh, path)?;
    std::fs::File::open(dir)?.sync_all()
}

/// Four for each of 68 points.
const FIDUCIAL_NUMBERS: usize = 272;
const DETECTOR_OUTPUTS: [&str; 12] = [
    "cls_8", "cls_16", "cls_32", "obj_8", "obj_16", "obj_32", "bbox_8", "bbox_16", "bbox_32", "kps_8",
    "kps_16", "kps_32",
];

#[cfg(test)]
mod tests;
