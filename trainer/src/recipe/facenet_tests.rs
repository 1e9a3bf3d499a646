use super::*;
use crate::train;
use std::path::Path;

/// Six people with four faces each, drawn: a person is a pattern, a face its noisy copy.
fn data() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for person in 0..6_u32 {
        let folder = dir.path().join(format!("p{person}"));
        std::fs::create_dir_all(&folder).unwrap();
        for face in 0..4_u32 {
            let mut random = Random::new(5, Stream::Sampler, u64::from(person * 10 + face));
            let picture = image::RgbImage::from_fn(128, 128, |x, y| {
                let wave = (x * (person + 1) + y * (6 - person)) as f32 * 0.12;
                let value = 128.0 + 90.0 * wave.sin() + random.range(-40.0, 40.0);
                image::Rgb([value as u8, (value * 0.8) as u8, (255.0 - value) as u8])
            });
            picture.save(folder.join(format!("{face}.png"))).unwrap();
        }
    }
    dir
}

fn settings(steps: u64) -> FacenetSettings {
    FacenetSettings {
        steps,
        people: 4,
        faces: 4,
        others: 2,
        warmup_steps: 3,
        learning_rate: 0.02,
        accumulator: 0.0,
        ema: 0.5,
        bf16: false,
        held_out: 0.0,
        threads: 1,
        shape: Shape { width: 0.125, input_px: 32, embedding: 16, ..Shape::default() },
        augment: Augment::none(),
        ..FacenetSettings::default()
    }
}

fn run(
    dir: &Path,
    out: &str,
    settings: &FacenetSettings,
    job: impl Fn(Job) -> Job,
) -> train::checkpoint::Counters {
    let job = job(Job::new(dir, &dir.with_extension("runs").join(out), Device::Cpu));
    train::run::<FacenetRecipe>(&job, settings).unwrap()
}

/// Cosines of a run's net: least within a person, largest between people.
fn cosines(run: &Path, data: &Path) -> (f64, f64) {
    let (_, net, shape) = load(run, Device::Cpu).unwrap();
    let pictures = Pictures::open(data).unwrap();
    let side = shape.input_px;
    let mut pixels = vec![0; pictures.rows().len() * side * side * 3];
    for (row, chip) in pixels.chunks_exact_mut(side * side * 3).enumerate() {
        let canvas = pictures.canvas(row as u32).unwrap();
        Augment::none().chip(&canvas, chip, side, &mut Random::new(0, Stream::Augment, 0));
    }
    let x = tch::no_grad(|| net.embed(&chips(&pixels, side), Mode::EVAL));
    let cosines = Vec::<Vec<f32>>::try_from(x.matmul(&x.tr())).unwrap();
    let (mut within, mut between) = (1.0_f32, -1.0_f32);
    for (i, row) in cosines.iter().enumerate() {
        for (j, &cosine) in row.iter().enumerate() {
            if i / 4 == j / 4 { within = within.min(cosine) } else { between = between.max(cosine) }
        }
    }
    (f64::from(within), f64::from(between))
}

#[test]
fn a_tiny_set_is_learnt_by_heart_and_a_resumed_run_equals_the_whole() {
    let dir = data();
    let runs = dir.path().with_extension("runs");
    run(dir.path(), "whole", &settings(60), |job| job);
    let (within, between) = cosines(&runs.join("whole"), dir.path());
    assert!(within > between + 0.2, "least within a person {within}, largest between people {between}");
    run(dir.path(), "parts", &settings(60), |job| Job { pause_at: Some(7), ..job });
    run(dir.path(), "parts", &settings(60), |job| Job { resume: true, ..job });
    let state = |out: &str| {
        let mut state = checkpoint::read(&runs.join(out).join(CHECKPOINT)).unwrap();
        state.retain(|(name, _)| name != "counters");
        state.sort_by(|a, b| a.0.cmp(&b.0));
        state
    };
    for ((name, a), (other, b)) in state("whole").iter().zip(&state("parts")) {
        assert!(name == other && a == b, "{name} differs");
    }
    std::fs::remove_dir_all(runs).unwrap();
}

#[test]
fn a_second_version_answers_to_the_firsts_templates() {
    let dir = data();
    let runs = dir.path().with_extension("runs");
    run(dir.path(), "v1", &settings(40), |job| job);
    let v1 = runs.join("v1");
    let harmonic =
        FacenetSettings { seed: 2, harmonic: Harmonic { v1: v1.clone(), head_steps: 0 }, ..settings(60) };
    run(dir.path(), "v2", &harmonic, |job| job);
    run(dir.path(), "alone", &FacenetSettings { seed: 2, ..settings(60) }, |job| job);
    let mixed = |run: &str| {
        let (_, new, shape) = load(&runs.join(run), Device::Cpu).unwrap();
        let (_, old, _) = load(&v1, Device::Cpu).unwrap();
        let pictures = Arc::new(Pictures::open(dir.path()).unwrap());
        let all: Vec<u32> = (0..24).collect();
        let people = People::new(pictures.rows(), &all);
        let cache = Arc::new((0..24).map(|_| OnceLock::new()).collect());
        let faces = Faces { cache, people: Arc::new(people.clone()), pictures };
        let settings = FacenetSettings { shape, ..settings(1) };
        let held = HeldOut::new(&faces, &people, &settings);
        let embed = |net| held.embed(net, &faces, &settings, Device::Cpu).unwrap();
        let scores = held.scores(&embed(&new), &embed(&old));
        accuracy_balanced(&scores, &Roc::new(&scores).unwrap())
    };
    let (harmonic, alone) = (mixed("v2"), mixed("alone"));
    assert!(harmonic > 0.9 && harmonic > alone + 0.1, "harmonic {harmonic}, trained alone {alone}");
    let other = FacenetSettings {
        shape: Shape { embedding: 32, ..settings(1).shape },
        harmonic: Harmonic { v1, head_steps: 0 },
        ..settings(1)
    };
    let job = Job::new(dir.path(), &runs.join("other"), Device::Cpu);
    let error = train::run::<FacenetRecipe>(&job, &other).unwrap_err().to_string();
    assert!(error.contains("shape.embedding"), "{error}");
    std::fs::remove_dir_all(runs).unwrap();
}

#[test]
fn settings_that_allow_no_triplet_are_refused() {
    for (settings, key) in [
        (FacenetSettings { faces: 1, ..settings(1) }, "faces"),
        (FacenetSettings { people: 1, others: 0, ..settings(1) }, "others"),
        (FacenetSettings { margin: 0.0, ..settings(1) }, "margin"),
        (FacenetSettings { shape: Shape { width: 9.0, ..Shape::default() }, ..settings(1) }, "shape.width"),
    ] {
        assert!(settings.check().unwrap_err().to_string().contains(&format!("'{key}'")));
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("ann")).unwrap();
    image::RgbImage::new(128, 128).save(dir.path().join("ann/1.png")).unwrap();
    let job = Job::new(dir.path(), &dir.path().join("run"), Device::Cpu);
    let error = train::run::<FacenetRecipe>(&job, &settings(1)).unwrap_err().to_string();
    assert!(error.contains("at least two people"), "{error}");
}
