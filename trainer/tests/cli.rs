//! The program `facelatch` as an operator meets it: exit codes, what goes to stdout and to stderr, stable JSON keys.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::{Command, Output};

fn facelatch(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_facelatch"))
        .args(arguments)
        .env_remove("FACELATCH_ASSETS")
        .output()
        .expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A model directory with one entry whose file is not what the manifest says.
fn damaged_models(dir: &Path) {
    std::fs::write(dir.join("net.onnx"), b"changed").unwrap();
    let manifest = format!(
        r#"
[[models]]
name = "net"
kind = "embedder"
family = "embedding"
file = "net.onnx"
sha256 = "{hash}"
licence = "MIT"
source = {{ package = "maker", version = "1.0", path = "net.onnx", sha256 = "{hash}" }}

[models.contract]
width_px = 112
height_px = 112
channels = "rgb"
mean = [0.0, 0.0, 0.0]
scale = [1.0, 1.0, 1.0]
alignment = {{ method = "similarity", canonical = "arcface112" }}
"#,
        hash = "ab".repeat(32)
    );
    std::fs::write(dir.join("manifest.toml"), manifest).unwrap();
}

fn keys(value: &serde_json::Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn help_shows_examples_and_exit_codes() {
    for arguments in [
        &["--help"][..],
        &["models", "import", "--help"],
        &["evaluate", "lfw", "--help"],
        &["evaluate", "ytf", "--help"],
        &["evaluate", "tracks", "--help"],
        &["evaluate", "identify", "--help"],
        &["evaluate", "sensitivity", "--help"],
        &["cluster", "--help"],
    ] {
        let output = facelatch(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(text(&output.stdout).contains("Examples:"), "{arguments:?}");
    }
    assert!(text(&facelatch(&["--help"]).stdout).contains("3 refused by a verification"));
}

#[test]
fn wrong_usage_is_exit_code_2_on_stderr() {
    let cases: [&[&str]; 10] = [
        &["evaluate", "identify", "--images", ".", "--fpir", "2"],
        &["evaluate", "sensitivity", "--images", ".", "--pairs", "p", "--jpeg", "0"],
        &["evaluate", "ytf", "--frames", ".", "--splits", "s", "--most-frames", "0"],
        &["cluster", "--images", ".", "--linkage", "single"],
        &["modles"],
        &["models", "import", "--file", "x.onnx"],
        &["models", "import", "yunet", "--file", "x.onnx"],
        &["evaluate", "lfw", "--pairs", "p.txt"],
        &["evaluate", "lfw", "--images", ".", "--pairs", "p", "--threads", "0"],
        &["models", "import", "--mean", "1"],
    ];
    for arguments in cases {
        let output = facelatch(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
    let two_means = facelatch(&[
        "models",
        "import",
        "--file",
        "x.onnx",
        "--kind",
        "embedder",
        "--name",
        "x",
        "--licence",
        "MIT",
        "--channels",
        "rgb",
        "--mean",
        "1,2",
    ]);
    assert_eq!(two_means.status.code(), Some(2));
    assert!(text(&two_means.stderr).contains("--mean takes one number or three, 2 were given"));
}

#[test]
fn a_failure_is_exit_code_1_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let output = facelatch(&["models", "import", "sface", "--from", path, "--out", path]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("error: ") && said.contains("does not exist") && said.contains("hint: "), "{said}");
    assert!(text(&facelatch(&["models", "import", "sfaec"]).stderr).contains("there are: yunet, sface"));

    let output = facelatch(&["models", "list", "--models", path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("facelatch models import"));
}

#[test]
fn a_refusal_is_exit_code_3() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    std::fs::write(dir.path().join("face_recognition_sface_2021dec_int8bq.onnx"), b"not it").unwrap();
    let out = dir.path().join("out");
    let output = facelatch(&["models", "import", "sface", "--from", path, "--out", out.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(!out.exists());

    damaged_models(dir.path());
    let output = facelatch(&["models", "check", "--models", path, "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(keys(&value), ["models", "sound"]);
    assert_eq!(keys(&value["models"][0]), ["fault", "name", "sound"]);
    assert_eq!(value["sound"], false);
}

#[test]
fn the_keys_of_the_list_are_fixed() {
    let dir = tempfile::tempdir().unwrap();
    damaged_models(dir.path());
    let path = dir.path().to_str().unwrap();
    let output = facelatch(&["models", "list", "--models", path, "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(keys(&value), ["models"]);
    let model = &value["models"][0];
    assert_eq!(
        keys(model),
        [
            "contract",
            "default_threshold",
            "file",
            "kind",
            "licence",
            "lineage",
            "measured",
            "name",
            "sha256",
            "source",
            "threshold_note",
            "thresholds"
        ]
    );
    assert_eq!(keys(&model["source"]), ["package", "path", "sha256", "version"]);
    let table = text(&facelatch(&["models", "list", "--models", path]).stdout);
    assert!(table.starts_with("NAME") && table.contains("net") && table.contains("maker 1.0"), "{table}");
}

#[test]
fn a_wrong_pairs_file_names_its_line() {
    let dir = tempfile::tempdir().unwrap();
    damaged_models(dir.path());
    let pairs = dir.path().join("pairs.txt");
    std::fs::write(&pairs, "1\nAnn 1 2\nAnn 1\n").unwrap();
    let path = dir.path().to_str().unwrap();
    let arguments =
        ["evaluate", "lfw", "--images", path, "--models", path, "--pairs", pairs.to_str().unwrap()];
    let output = facelatch(&arguments);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("pairs.txt line 3: 2 fields"), "{}", text(&output.stderr));
}

#[test]
fn a_wrong_splits_file_names_its_line_and_the_format() {
    let dir = tempfile::tempdir().unwrap();
    let splits = dir.path().join("splits.txt");
    std::fs::write(&splits, "1, Ann/0, Ann/1, 1\n1, Ann/0, Bob/0, maybe\n").unwrap();
    let path = dir.path().to_str().unwrap();
    let output = facelatch(&[
        "evaluate",
        "ytf",
        "--frames",
        path,
        "--splits",
        splits.to_str().unwrap(),
        "--models",
        path,
    ]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("splits.txt line 2: 'maybe'") && said.contains("hint: a line is"), "{said}");
}

#[test]
fn stills_become_tracks_in_the_protocols_layout() {
    let dir = tempfile::tempdir().unwrap();
    let images = dir.path().join("stills");
    for (name, number) in [("Ann", 1), ("Ann", 2), ("Bob", 1)] {
        std::fs::create_dir_all(images.join(name)).unwrap();
        let path = images.join(format!("{name}/{name}_{number:04}.jpg"));
        image::RgbImage::from_pixel(16, 16, image::Rgb([90, 120, 60])).save(path).unwrap();
    }
    let pairs = dir.path().join("pairs.txt");
    std::fs::write(&pairs, "1\nAnn 1 2\nAnn 1 Bob 1\n").unwrap();
    let out = dir.path().join("tracks");
    let at = |path: &Path| path.to_str().unwrap().to_owned();
    let (images, pairs, folder) = (at(&images), at(&pairs), at(&out));
    let arguments =
        ["evaluate", "tracks", "--images", &images, "--pairs", &pairs, "--out", &folder, "--frames", "3"];
    let output = facelatch(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("3 tracks of 3 frames made from stills"));
    assert!(out.join("Bob/1/0.2.jpg").is_file());
    let splits = std::fs::read_to_string(out.join("splits.txt")).unwrap();
    assert!(splits.contains("1, Ann/1, Ann/2, 1") && splits.contains("1, Ann/1, Bob/1, 0"), "{splits}");
}
