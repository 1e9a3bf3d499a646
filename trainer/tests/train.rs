//! `facelatch train` as a process: killed without warning, told to stop, resumed.
#![cfg(feature = "train")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tch::Tensor;

const FACES: usize = 16;

/// Random pictures in one shard, and random vectors for them.
fn data(dir: &Path) {
    let mut builder = tar::Builder::new(std::fs::File::create(dir.join("s.tar")).unwrap());
    let (mut manifest, mut names) = ("path,identity\n".to_owned(), String::new());
    for face in 0..FACES as u32 {
        let pixel =
            |x: u32, y: u32| image::Rgb([(x * (face + 1)) as u8, (y * 3 + face * 16) as u8, (x ^ y) as u8]);
        let mut png = std::io::Cursor::new(Vec::new());
        image::RgbImage::from_fn(128, 128, pixel).write_to(&mut png, image::ImageFormat::Png).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(png.get_ref().len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, format!("{face}.png"), png.get_ref().as_slice()).unwrap();
        manifest += &format!("s.tar/{face}.png,p{}\n", face / 2);
        names += &format!("s.tar/{face}.png\n");
    }
    builder.into_inner().unwrap();
    std::fs::write(dir.join("manifest.csv"), manifest).unwrap();
    std::fs::write(dir.join("vectors.paths"), names).unwrap();
    let values: Vec<f32> = (0..FACES * 128).map(|i| ((i * 37 % 101) as f32) / 50.0 - 1.0).collect();
    let mean = Tensor::from_slice(&values).reshape([FACES as i64, 128]);
    Tensor::write_safetensors(&[("mean", mean)], dir.join("vectors.safetensors")).unwrap();
}

fn train(dir: &Path, out: &str, more: &[&str]) -> Child {
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    Command::new(env!("CARGO_BIN_EXE_facelatch"))
        .args(["train", "--recipe", "compact", "--device", "cpu", "--save-every", "3"])
        .args(["--data", &path("."), "--teacher", &path("vectors.safetensors"), "--out", &path(out)])
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

const SMALL: [&str; 10] = [
    "--set",
    "batch=4",
    "--set",
    "sides=[{px=112,until=1.0}]",
    "--set",
    "held_out=0.1",
    "--set",
    "shape={stem=8,stages=[16,16,32],blocks=[1,0,0],head=32}",
    "--set",
    "bf16=false",
];

fn finished(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

/// The checkpoint without its clock, which is no state of the training.
fn state(run: &Path) -> Vec<(String, Tensor)> {
    let mut tensors = Tensor::read_safetensors(run.join("checkpoint.safetensors")).unwrap();
    for (name, tensor) in &mut tensors {
        if name == "counters" {
            *tensor = tensor.narrow(0, 0, 2);
        }
    }
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    tensors
}

fn wait_for(path: &Path) {
    let begun = Instant::now();
    while !path.exists() {
        assert!(begun.elapsed() < Duration::from_secs(300), "{} never appeared", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_killed_and_resumed_run_equals_the_uninterrupted_one_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path());
    let steps: Vec<&str> = SMALL.iter().chain(&["--steps", "40"]).copied().collect();
    finished(train(dir.path(), "whole", &steps));

    // Killed twice, each time somewhere after a checkpoint; what it did after that checkpoint is done again.
    let parts = dir.path().join("parts");
    let mut child = train(dir.path(), "parts", &steps);
    wait_for(&parts.join("checkpoint.safetensors"));
    child.kill().unwrap();
    child.wait().unwrap();
    let first = state(&parts);
    let mut child = train(dir.path(), "parts", &["--resume"]);
    while state(&parts).iter().zip(&first).all(|(a, b)| a.1 == b.1) && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    finished(train(dir.path(), "parts", &["--resume"]));

    let (whole, parts) = (state(&dir.path().join("whole")), state(&parts));
    assert!(whole.len() > 30 && whole.len() == parts.len());
    for ((name, a), (other, b)) in whole.iter().zip(&parts) {
        assert!(name == other && a == b, "{name} differs");
    }
}

#[test]
fn sigterm_ends_a_run_with_a_checkpoint_and_leaves_settings_log_and_curves() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path());
    let run = dir.path().join("run");
    let long: Vec<&str> = SMALL.iter().chain(&["--steps", "100000"]).copied().collect();
    let child = train(dir.path(), "run", &long);
    wait_for(&run.join("checkpoint.safetensors"));
    let told = Command::new("sh").args(["-c", &format!("kill -TERM {}", child.id())]).status().unwrap();
    assert!(told.success());
    let said = finished(child);
    assert!(said.contains("held out"), "{said}");
    let settings = std::fs::read_to_string(run.join("run.toml")).unwrap();
    assert!(settings.contains("recipe = \"compact\"") && settings.contains("manifest = "), "{settings}");
    assert!(std::fs::read_to_string(run.join("log.jsonl")).unwrap().contains("held_out_cosine"));
    let events = std::fs::read_dir(&run).unwrap().filter(|entry| {
        entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("events.out.tfevents.")
    });
    assert_eq!(events.count(), 1);

    // A file named `stop` does the same.
    let child = train(dir.path(), "run", &["--resume"]);
    let step = || state(&run).into_iter().find(|(name, _)| name == "counters").unwrap().1.double_value(&[0]);
    let before = step();
    while step() == before {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::fs::write(run.join("stop"), "").unwrap();
    finished(child);
    assert!(step() < 100_000.0);
}
