//! An imported model beside the unchanged file, both run by onnxruntime. Skipped, loudly, where Python has no onnxruntime or the
//! third-party files are not fetched; `FACELATCH_PYTHON` names another Python.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use facelatch_trainer::import::{self, Job};

/// The exit code by which the script says that a Python package is missing.
const SKIPPED: i32 = 77;

#[test]
fn imported_models_answer_as_the_originals() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/bench/onnx_reference.py");
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let assets = variable("FACELATCH_ASSETS").or_else(|| {
        let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?;
        Some(cache.join("facelatch/assets"))
    });
    let python = variable("FACELATCH_PYTHON").unwrap_or_else(|| "python3".into());
    let out = tempfile::tempdir().unwrap();
    for preset in import::presets().unwrap() {
        let name = Path::new(&preset.source.path).file_name().unwrap();
        let file = assets.clone().unwrap_or_default().join("models").join(name);
        if !file.exists() {
            eprintln!("SKIPPED: {} is not there; fetch it with .ci/fetch", file.display());
            return;
        }
        let job = Job { preset, file, hash_known: true };
        let done = import::import(&job, out.path()).unwrap();
        let run = Command::new(&python)
            .arg(&script)
            .arg("compare")
            .args([&job.file, &out.path().join(&done.entry.file)])
            .args([job.preset.contract.width_px, job.preset.contract.height_px].map(|px| px.to_string()))
            .output();
        let Ok(run) = run else {
            eprintln!("SKIPPED: {} does not start", python.display());
            return;
        };
        let said = String::from_utf8_lossy(&run.stderr);
        if run.status.code() == Some(SKIPPED) {
            eprintln!("{said}");
            return;
        }
        assert!(run.status.success(), "{}: {said}", done.entry.name);
        eprintln!("{}: {}", done.entry.name, String::from_utf8_lossy(&run.stdout).trim());
    }
}
