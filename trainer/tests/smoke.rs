//! `make train-smoke`: every recipe overfits a tiny set of real faces. The faces are those of the demo's photographs, found and
//! aligned by the door's own code; each person's few pictures are variations of one. Skipped where they are not fetched.
#![cfg(feature = "train")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use facelatch_shared::align::CANONICAL_112;
use facelatch_shared::align::{CHIP_PX, warp_chip};
use facelatch_shared::detection::{Landmarks5, Point};
use facelatch_shared::frame::RgbView;
use facelatch_shared::vision::contract::Manifest;
use facelatch_shared::vision::detect::Detector;
use facelatch_shared::vision::fiducials::FiducialFinder;
use facelatch_trainer::dataset::{Augment, Pictures, Random, Stream, manifest};
use facelatch_trainer::import;
use facelatch_trainer::recipe::compact::{CompactRecipe, CompactSettings, Side};
use facelatch_trainer::recipe::deepface::DeepfaceRecipe;
use facelatch_trainer::recipe::detector::DetectorRecipe;
use facelatch_trainer::recipe::facenet::FacenetRecipe;
use facelatch_trainer::recipe::fiducials::{CROP_LABELS, CROPS, FiducialsRecipe, SCENES};
use facelatch_trainer::recipe::vggface::VggfaceRecipe;
use facelatch_trainer::recipe::vggface_embedding::VggfaceEmbeddingRecipe;
use facelatch_trainer::train::config::Draft;
use facelatch_trainer::train::{self, CHECKPOINT, Job, LOG, Recipe};
use tch::{Device, Kind, Tensor};

/// Pictures of each person.
const COPIES: usize = 4;
const CANVAS_PX: u32 = 128;

#[test]
fn every_recipe_overfits_a_few_real_faces() {
    let dir = tempfile::tempdir().unwrap();
    let faces = dir.path().join("faces");
    let Some(people) = real_faces(&faces) else {
        println!("skipped: no photographs of faces, fetch them with .ci/fetch demo");
        return;
    };
    assert!(people >= 6, "{people} faces found");
    let chance = (people as f64).ln();

    let common = ["batch=16", "threads=2", "data.least=2", "data.calibration=0", "data.test=0"];
    let softmax = [&common[..], &["shape.start=scaled", "falls=[0.8]"]].concat();
    let deepface =
        [&softmax[..], &["shape.width=0.125", "steps=40", "learning_rate=0.01", "normaliser_faces=8"]]
            .concat();
    let (first, last) =
        overfit::<DeepfaceRecipe>(&Job::new(&faces, &dir.path().join("deepface"), Device::Cpu), &deepface);
    println!("deepface: loss {first:.3} to {last:.3}");
    assert!(last < chance * 0.3, "deepface: {first} to {last}");

    let small =
        ["shape.width=0.125", "shape.side_px=64", "steps=200", "learning_rate=0.02", "shape.dropout=0"];
    let vggface = [&softmax[..], &small].concat();
    let (first, last) =
        overfit::<VggfaceRecipe>(&Job::new(&faces, &dir.path().join("vggface"), Device::Cpu), &vggface);
    println!("vggface: loss {first:.3} to {last:.3}");
    assert!(last < chance * 0.3, "vggface: {first} to {last}");

    let job = Job {
        start_from: Some(dir.path().join("vggface").join(CHECKPOINT)),
        ..Job::new(&faces, &dir.path().join("embedding"), Device::Cpu)
    };
    let embedding = [&common[..], &["steps=60", "dim=32", "batch=24"]].concat();
    let (first, last) = overfit::<VggfaceEmbeddingRecipe>(&job, &embedding);
    println!("vggface-embedding: loss {first:.3} to {last:.3}");
    assert!(last < first * 0.7, "vggface-embedding: {first} to {last}");

    let facenet = [
        &[
            "people=6",
            "faces=4",
            "others=0",
            "steps=60",
            "warmup_steps=3",
            "learning_rate=0.02",
            "accumulator=0",
            "held_out=0",
        ][..],
        &["shape.width=0.125", "shape.input_px=32", "shape.embedding=16", "bf16=false", "mining=batch-hard"],
    ]
    .concat();
    let (first, last) =
        overfit::<FacenetRecipe>(&Job::new(&faces, &dir.path().join("facenet"), Device::Cpu), &facenet);
    println!("facenet: loss {first:.3} to {last:.3}");
    assert!(last < first * 0.5, "facenet: {first} to {last}");

    let data = dir.path().join("data");
    archive(&data.join(CROPS), &faces);
    let (first, last) = compact(dir.path(), &data.join(CROPS));
    println!("compact: loss {first:.3} to {last:.3}");
    assert!(last < first * 0.5, "compact: {first} to {last}");

    let job =
        Job { teacher: Some(data.clone()), ..Job::new(&data, &dir.path().join("fiducials"), Device::Cpu) };
    label_crops(&data.join(CROPS), &data.join(CROP_LABELS));
    let small = [
        "batch=16",
        "steps=80",
        "learning_rate=0.004",
        "warmup_steps=5",
        "held_out=0",
        "bf16=false",
        "vary.cover=0",
    ];
    let (first, last) = overfit::<FiducialsRecipe>(&job, &small);
    println!("fiducials: loss {first:.3} to {last:.3}");
    assert!(last < first * 0.5, "fiducials: {first} to {last}");

    let scenes = label_scenes(&data.join(SCENES));
    let batch = format!("batch={scenes}");
    let small = [
        &batch,
        "side_px=128",
        "steps=400",
        "warmup_steps=5",
        "held_out=0",
        "compose.mosaic=[0.0, 0.0]",
        "compose.face_px=[20.0, 60.0]",
        "compose.tilt_deg=0",
        "compose.paste=0",
        "compose.weather={ side_light = 0, back_light = 0, motion = 0 }",
        "compose.augment={ light = 0, gamma = 0, tint = 0, grey = 0, blur = 0, coarse = 0, noise = 0, mirror = 0 }",
    ];
    let (first, last) =
        overfit::<DetectorRecipe>(&Job::new(&data, &dir.path().join("detector"), Device::Cpu), &small);
    println!("detector: loss {first:.3} to {last:.3}");
    // Place and size in the sample still vary, and with them what a step costs.
    assert!(last < first * 0.6, "detector: {first} to {last}");
}

/// Trains and returns the first and the last loss of the log.
fn overfit<R: Recipe>(job: &Job, settings: &[&str]) -> (f64, f64) {
    let mut draft = Draft::default();
    for text in settings {
        draft.set_text(text).unwrap();
    }
    train::start::<R>(job, &draft).unwrap();
    losses(&job.out)
}

fn losses(run: &Path) -> (f64, f64) {
    let log = std::fs::read_to_string(run.join(LOG)).unwrap();
    let losses: Vec<f64> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].as_f64())
        .collect();
    (losses[0], *losses.last().unwrap())
}

/// The same faces as one shard with a manifest, which is what the other recipes read.
fn archive(out: &Path, faces: &Path) {
    std::fs::create_dir_all(out).unwrap();
    let mut builder = tar::Builder::new(std::fs::File::create(out.join("s.tar")).unwrap());
    builder.append_dir_all("", faces).unwrap();
    builder.into_inner().unwrap();
    let mut manifest = "path,identity\n".to_owned();
    for row in Pictures::open(faces).unwrap().rows() {
        manifest += &format!("s.tar/{},{}\n", row.path(), row.identity.as_ref().unwrap());
    }
    std::fs::write(out.join("manifest.csv"), manifest).unwrap();
}

/// compact learns the directions that a teacher gives to each person.
fn compact(dir: &Path, data: &Path) -> (f64, f64) {
    let rows = manifest::read(data).unwrap();
    let (mut names, mut vectors) = (String::new(), Vec::new());
    for row in &rows {
        names += &format!("{}\n", row.path());
        let mut random = Random::new(row.identity.as_ref().unwrap().parse().unwrap(), Stream::Sampler, 0);
        vectors.extend((0..128).map(|_| random.range(-1.0, 1.0)));
    }
    std::fs::write(dir.join("vectors.paths"), names).unwrap();
    let mean = Tensor::from_slice(&vectors).reshape([-1, 128]);
    Tensor::write_safetensors(&[("mean", mean)], dir.join("vectors.safetensors")).unwrap();
    let settings = CompactSettings {
        batch: 16,
        steps: 60,
        learning_rate: 5e-3,
        warmup_steps: 5,
        bf16: false,
        held_out: 0.0,
        sides: vec![Side { px: 64, until: 0.9 }, Side { px: 112, until: 1.0 }],
        shape: facelatch_trainer::model::compact::Shape {
            stem: 16,
            stages: [32, 48, 64],
            blocks: [1, 0, 0],
            head: 128,
            input_px: 112,
        },
        augment: Augment::none(),
        ..CompactSettings::default()
    };
    let job = Job {
        teacher: Some(dir.join("vectors.safetensors")),
        ..Job::new(data, &dir.join("compact"), Device::Cpu)
    };
    train::run::<CompactRecipe>(&job, &settings).unwrap();
    losses(&job.out)
}

/// Labels the crops with the points that the fiducials net of `models/` finds on them.
fn label_crops(crops: &Path, out: &Path) {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let entry =
        Manifest::load(&models).unwrap().models.into_iter().find(|entry| entry.name == "fiducials").unwrap();
    let mut finder = FiducialFinder::load(&models, &entry).unwrap();
    let edge = (CANVAS_PX as usize - CHIP_PX) as f32 / 2.0;
    let landmarks = Landmarks5(CANONICAL_112.0.map(|p| Point::new(p.x + edge, p.y + edge)));
    let pictures = Pictures::open(crops).unwrap();
    let (mut names, mut points) = (String::new(), Vec::new());
    for (row, number) in pictures.rows().iter().zip(0..) {
        let canvas = pictures.canvas(number).unwrap();
        let view = RgbView::new(&canvas, CANVAS_PX as usize, CANVAS_PX as usize).unwrap();
        names += &format!("{}\n", row.path());
        points.extend(
            finder.find(&view, &landmarks).unwrap().fiducials.points.iter().flat_map(|p| [p.x, p.y, 0.0]),
        );
    }
    let n = pictures.rows().len() as i64;
    let (score, spread) = (Tensor::ones([n], FLOAT), Tensor::zeros([n], FLOAT));
    let points = Tensor::from_slice(&points).reshape([n, 68, 3]);
    Tensor::write_safetensors(&[("points", points), ("score", score), ("spread", spread)], out).unwrap();
    std::fs::write(out.with_extension("paths"), names).unwrap();
}

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

/// The photographs as scenes, labelled with what YuNet finds in them; returns how many.
fn label_scenes(out: &Path) -> usize {
    std::fs::create_dir_all(out).unwrap();
    let mut builder = tar::Builder::new(std::fs::File::create(out.join("scenes.tar")).unwrap());
    let mut labels = "image,split,ignore,x,y,w,h".to_owned();
    (1..=5).for_each(|k| labels += &format!(",lm{k}x,lm{k}y"));
    let (mut detector, photos) = yunet().unwrap();
    for photo in &photos {
        let name = photo.file_name().unwrap().to_string_lossy();
        builder.append_path_with_name(photo, &*name).unwrap();
        let picture = image::open(photo).unwrap().into_rgb8();
        let view =
            RgbView::new(picture.as_raw(), picture.width() as usize, picture.height() as usize).unwrap();
        for face in detector.find(&view).unwrap().iter().filter(|face| face.score >= 0.7) {
            let b = face.bbox;
            labels += &format!("\n{name},train,0,{},{},{},{}", b.x, b.y, b.w, b.h);
            face.landmarks.0.iter().for_each(|p| labels += &format!(",{},{}", p.x, p.y));
        }
    }
    builder.into_inner().unwrap();
    std::fs::write(out.join("labels.csv"), labels).unwrap();
    photos.len()
}

/// Writes each face of the photographs with some variations into a folder of its own; returns how many, or `None` without photographs.
fn real_faces(out: &Path) -> Option<usize> {
    let (mut detector, photos) = yunet()?;
    let mut person = 0;
    for photo in photos {
        let picture = image::open(photo).unwrap().into_rgb8();
        let view =
            RgbView::new(picture.as_raw(), picture.width() as usize, picture.height() as usize).unwrap();
        for face in &detector.find(&view).unwrap() {
            let mut chip = [0; CHIP_PX * CHIP_PX * 3];
            if face.score < 0.7 || warp_chip(&view, &face.landmarks, &mut chip).is_err() {
                continue;
            }
            let folder = out.join(person.to_string());
            std::fs::create_dir_all(&folder).unwrap();
            for copy in 0..COPIES {
                canvas(&chip, copy as i32 * 12 - 18).save(folder.join(format!("{copy}.png"))).unwrap();
            }
            person += 1;
        }
    }
    Some(person)
}

/// The detector and the photographs; `None` where they are not fetched.
fn yunet() -> Option<(Detector, [PathBuf; 3])> {
    let assets = assets();
    let preset = import::preset("yunet").unwrap();
    let file = assets.join("models").join(Path::new(&preset.source.path).file_name().unwrap());
    let photos = ["insightface/t1.jpg", "face_recognition/biden.jpg", "face_recognition/obama.jpg"];
    let photos = photos.map(|name| assets.join("photos").join(name));
    if !file.exists() || !photos.iter().all(|path| path.exists()) {
        return None;
    }
    let models = tempfile::tempdir().unwrap();
    let entry = import::import(&import::Job { preset, file, hash_known: true }, models.path()).unwrap().entry;
    let input = (entry.contract.width_px, entry.contract.height_px);
    Some((Detector::load(models.path(), &entry, input).unwrap(), photos))
}

/// The chip in a canvas, its border repeated, a little darker or lighter.
fn canvas(chip: &[u8], light: i32) -> image::RgbImage {
    let edge = (CANVAS_PX - CHIP_PX as u32) / 2;
    image::RgbImage::from_fn(CANVAS_PX, CANVAS_PX, |x, y| {
        let at = |v: u32| (v.saturating_sub(edge) as usize).min(CHIP_PX - 1);
        let pixel = (at(y) * CHIP_PX + at(x)) * 3;
        image::Rgb([0, 1, 2].map(|k| (i32::from(chip[pixel + k]) + light).clamp(0, 255) as u8))
    })
}

fn assets() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    variable("FACELATCH_ASSETS").unwrap_or_else(|| {
        let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
        cache.unwrap_or_default().join("facelatch/assets")
    })
}
