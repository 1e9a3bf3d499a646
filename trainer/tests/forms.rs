//! Every form that is exported, checked by onnx's checker and run by onnxruntime beside tract. Skipped, loudly, where Python has no onnx or
//! onnxruntime; `FACELATCH_PYTHON` names another Python.
#![cfg(feature = "train")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::Command;

use facelatch_shared::vision::runtime::Network;
use facelatch_trainer::export::layers::{LayerForm, write};
use facelatch_trainer::export::onnx::Form;
use facelatch_trainer::model::compact::{Compact, Shape};
use facelatch_trainer::quantize::net::Net;
use facelatch_trainer::quantize::{Settings, quantize};
use tch::{Device, Kind, Tensor, nn::VarStore};

/// The exit code by which the script says that a Python package is missing.
const SKIPPED: i32 = 77;

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn onnxruntime_reads_every_form_and_answers_as_tract() {
    tch::manual_seed(21);
    let shape = Shape { stem: 16, stages: [64, 64, 64], blocks: [1, 0, 1], head: 64, input_px: 112 };
    let store = VarStore::new(Device::Cpu);
    let _net = Compact::new(&store.root(), &shape);
    let net = Net::fold(&store, &shape).unwrap();
    let coarse = Tensor::rand([4, 3, 14, 14], (Kind::Float, Device::Cpu)) * 255.0;
    let chips = coarse.upsample_bilinear2d([112, 112], false, None, None).contiguous();
    let (quantized, _) = quantize(&net, &chips, &chips, &Settings::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut numbers = vec![0.0_f32; chips.numel()];
    chips.flatten(0, -1).copy_data(&mut numbers, chips.numel());
    let raw: Vec<u8> = numbers.iter().flat_map(|v| v.to_le_bytes()).collect();
    std::fs::write(dir.path().join("chips.f32"), raw).unwrap();
    let forms = [
        ("f32", LayerForm::Float(&net, Form::F32), 0.999_99),
        ("w8", LayerForm::Float(&net, Form::W8), 0.999_99),
        ("int8", LayerForm::Integer(&quantized), 0.999),
    ];
    for (name, form, _) in &forms {
        std::fs::write(dir.path().join(format!("{name}.onnx")), write(*form, false).unwrap()).unwrap();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/bench/onnx_reference.py");
    let python = std::env::var("FACELATCH_PYTHON").unwrap_or_else(|_| "python3".into());
    let run = Command::new(&python)
        .arg(script)
        .args(["forms", "112", "112", "chips.f32", "f32.onnx", "w8.onnx", "int8.onnx"])
        .current_dir(dir.path())
        .output();
    let Ok(run) = run else {
        eprintln!("skipped: {python} does not start");
        return;
    };
    let said = String::from_utf8_lossy(&run.stderr);
    if run.status.code() == Some(SKIPPED) {
        eprintln!("skipped: {}", said.trim().trim_start_matches("SKIPPED: "));
        return;
    }
    assert!(run.status.success(), "{said}");
    for (name, _, least) in forms {
        let bytes = std::fs::read(dir.path().join(format!("{name}.onnx"))).unwrap();
        let mut network = Network::from_bytes(Path::new(name), &bytes, 112, 112).unwrap();
        let raw = std::fs::read(dir.path().join(format!("{name}.onnx.vectors"))).unwrap();
        let theirs: Vec<f32> = raw.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        for (chip, theirs) in numbers.chunks(3 * 112 * 112).zip(theirs.chunks(128)) {
            network.input_mut().unwrap().copy_from_slice(chip);
            let output = network.run().unwrap();
            let ours: Vec<f32> = output[0].to_plain_array_view::<f32>().unwrap().iter().copied().collect();
            let near = cosine(&ours, theirs);
            assert!(near > least, "{name}: tract against onnxruntime {near}");
        }
    }
}
