use super::*;
use crate::train::{CHECKPOINT, run};

const FACES: usize = 24;

/// A folder with one shard of random pictures, and random vectors for them.
fn data() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(dir.path().join("s.tar")).unwrap();
    let mut builder = tar::Builder::new(file);
    let (mut manifest, mut names) = ("path,set,identity,masked\n".to_owned(), String::new());
    for face in 0..FACES {
        let mut random = Random::new(3, Stream::Sampler, face as u64);
        let picture = image::RgbImage::from_fn(128, 128, |_, _| image::Rgb([random.below(256) as u8; 3]));
        let mut png = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut png, image::ImageFormat::Png).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(png.get_ref().len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, format!("{face}.png"), png.get_ref().as_slice()).unwrap();
        manifest += &format!("s.tar/{face}.png,s,p{},0\n", face / 2);
        names += &format!("s.tar/{face}.png\n");
    }
    builder.into_inner().unwrap();
    std::fs::write(dir.path().join("manifest.csv"), manifest).unwrap();
    std::fs::write(dir.path().join("teacher.paths"), names).unwrap();
    tch::manual_seed(2);
    let mean = distill::unit(&Tensor::randn([FACES as i64, 128], (Kind::Float, Device::Cpu)));
    Tensor::write_safetensors(&[("mean", mean)], dir.path().join("teacher.safetensors")).unwrap();
    dir
}

fn job(dir: &std::path::Path, out: &str) -> Job {
    Job { teacher: Some(dir.join("teacher.safetensors")), ..Job::new(dir, &dir.join(out), Device::Cpu) }
}

fn config() -> CompactSettings {
    CompactSettings {
        batch: 6,
        steps: 6,
        bf16: false,
        warmup_steps: 2,
        held_out: 0.1,
        sides: vec![Side { px: 32, until: 0.6 }, Side { px: 112, until: 1.0 }],
        shape: Shape { stem: 8, stages: [16, 16, 32], blocks: [1, 0, 0], head: 32, input_px: 112 },
        ..CompactSettings::default()
    }
}

#[test]
fn a_paused_and_resumed_run_equals_the_uninterrupted_one_bit_for_bit() {
    let dir = data();
    let whole = run::<CompactRecipe>(&job(dir.path(), "whole"), &config()).unwrap();
    run::<CompactRecipe>(&Job { pause_at: Some(4), ..job(dir.path(), "parts") }, &config()).unwrap();
    let parts = run::<CompactRecipe>(&Job { resume: true, ..job(dir.path(), "parts") }, &config()).unwrap();
    assert_eq!((whole.step, whole.images), (parts.step, parts.images));
    let read = |out: &str| {
        let mut tensors = Tensor::read_safetensors(dir.path().join(out).join(CHECKPOINT)).unwrap();
        tensors.retain(|(name, _)| name != "counters");
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        tensors
    };
    let (whole, parts) = (read("whole"), read("parts"));
    assert!(whole.len() > 30 && whole.len() == parts.len());
    for ((name, a), (other, b)) in whole.iter().zip(&parts) {
        assert!(name == other && a == b, "{name} differs");
    }
}

#[test]
fn a_margin_softmax_beside_distillation_is_learnt_and_resumed_too() {
    let dir = data();
    let kind = Margin::Arcface { margin: 0.3, scale: 16.0 };
    let config = CompactSettings {
        margin: Some(MarginTerm { weight: 0.1, least: 2, kind }),
        steps: 3,
        threads: 2,
        ..config()
    };
    let whole = run::<CompactRecipe>(&job(dir.path(), "whole"), &config).unwrap();
    run::<CompactRecipe>(&Job { pause_at: Some(2), ..job(dir.path(), "parts") }, &config).unwrap();
    let parts = run::<CompactRecipe>(&Job { resume: true, ..job(dir.path(), "parts") }, &config).unwrap();
    assert_eq!(whole.step, parts.step);
    let centres = |out: &str| {
        let tensors = Tensor::read_safetensors(dir.path().join(out).join(CHECKPOINT)).unwrap();
        tensors.into_iter().find(|(name, _)| name == "weights.margin.centres").unwrap().1
    };
    assert_eq!(centres("whole"), centres("parts"));
    assert!(centres("whole").size()[0] >= 8);
    crate::export::weights_only(&dir.path().join("whole"), &dir.path().join("w.safetensors")).unwrap();
}

#[test]
fn a_second_run_into_the_same_folder_and_foreign_vectors_are_refused() {
    let dir = data();
    run::<CompactRecipe>(&Job { pause_at: Some(1), ..job(dir.path(), "a") }, &config()).unwrap();
    assert!(matches!(run::<CompactRecipe>(&job(dir.path(), "a"), &config()), Err(TrainError::Exists { .. })));
    let names: String = (0..FACES).map(|face| format!("other.tar/{face}.png\n")).collect();
    std::fs::write(dir.path().join("teacher.paths"), names).unwrap();
    assert!(matches!(
        run::<CompactRecipe>(&job(dir.path(), "b"), &config()),
        Err(TrainError::TooFewFaces { faces: 0, .. })
    ));
}

#[test]
fn the_rate_warms_up_and_falls_to_zero_and_sides_follow_the_schedule() {
    let config = CompactSettings::default();
    assert!(config.rate(0, 0.0) < config.learning_rate * 0.01);
    assert!((config.rate(5000, 0.5) - config.learning_rate / 2.0).abs() < 1e-9);
    assert!(config.rate(9000, 1.0).abs() < 1e-12);
    assert_eq!([0.0, 0.5, 0.9, 1.5].map(|s| config.side_px(s)), [64, 96, 112, 112]);
}

#[test]
fn a_run_that_does_not_end_at_the_doors_size_is_refused() {
    let config = CompactSettings { sides: vec![Side { px: 96, until: 1.0 }], ..CompactSettings::default() };
    assert!(matches!(config.check(), Err(ConfigError::Value { key: "sides", .. })));
}
