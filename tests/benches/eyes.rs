//! What each of the eyes' nets and alignments costs a face, on one core, in turns: `cargo bench -p facelatch-tests --no-default-features
//! --bench eyes`.
//!
//! Detectors see a frame of 640×480 shrunk to 320×240. What is shown is the median over all calls with its quartiles, and the ratio to
//! YuNet in the same run: rounds go over all stages, so that other work on the machine falls on all of them alike.

use std::path::Path;
use std::time::Instant;

use facelatch_shared::align::CHIP_BYTES;
use facelatch_shared::detection::Landmarks5;
use facelatch_shared::frame::RgbView;
use facelatch_shared::vision::chip::{ChipCutter, FindFiducials};
use facelatch_shared::vision::contract::{Alignment, AlignmentMethod, Manifest, ManifestEntry, ModelKind};
use facelatch_shared::vision::detect::Detector;
use facelatch_shared::vision::fiducials::FiducialFinder;
use facelatch_tests::{models, photos};
use image::{Rgb, RgbImage, imageops};

/// A stage by name, and what one call of it is.
type Stage<'a> = (String, Box<dyn FnMut() + 'a>);

fn main() {
    let (Some(dir), Some(photos)) = (models("bench eyes"), photos("bench eyes")) else { return };
    let picture = frame(&photos.join("face_recognition/obama.jpg"));
    let Ok(view) = RgbView::new(picture.as_raw(), 640, 480) else { panic!("the frame is 640x480") };
    let nets = Manifest::load(dir).unwrap_or_else(|e| panic!("{e}")).models;
    let of = |kind| nets.iter().filter(move |entry| entry.kind == kind);
    let mut stages: Vec<Stage<'_>> = Vec::new();
    let mut landmarks = None;
    for entry in of(ModelKind::Detector) {
        let mut detector = Detector::load(dir, entry, (320, 240)).unwrap_or_else(|e| panic!("{e}"));
        let found = detector.find(&view).unwrap_or_else(|e| panic!("{e}"));
        landmarks = landmarks.or(found.first().map(|face| face.landmarks));
        let name = format!("detector {}", entry.name);
        stages.push((name, Box::new(move || drop(std::hint::black_box(detector.find(&view))))));
    }
    let Some(landmarks) = landmarks else { panic!("no detector finds the face") };
    for entry in of(ModelKind::Fiducials) {
        let mut finder = load(dir, entry);
        let name = format!("fiducials {}", entry.name);
        stages.push((name, Box::new(move || drop(std::hint::black_box(finder.find(&view, &landmarks))))));
    }
    let net = of(ModelKind::Fiducials).next();
    for method in AlignmentMethod::ALL {
        stages
            .push((format!("align {}, five landmarks", method.name()), cut(&view, landmarks, method, None)));
        let looks = matches!(method, AlignmentMethod::Warp2d | AlignmentMethod::Frontal3d);
        if let Some(entry) = net.filter(|_| looks) {
            let name = format!("align {}, {} looking", method.name(), entry.name);
            stages.push((name, cut(&view, landmarks, method, Some(load(dir, entry)))));
        }
    }
    report(&mut stages);
}

fn load(dir: &Path, entry: &ManifestEntry) -> FiducialFinder {
    FiducialFinder::load(dir, entry).unwrap_or_else(|e| panic!("{e}"))
}

/// Cutting the chip by `method`, with what it has to look for.
fn cut<'a>(
    view: &'a RgbView<'a>,
    landmarks: Landmarks5,
    method: AlignmentMethod,
    mut finder: Option<FiducialFinder>,
) -> Box<dyn FnMut() + 'a> {
    let mut cutter = ChipCutter::new(Alignment { method, ..Alignment::ARCFACE_112 });
    let mut chip = Box::new([0_u8; CHIP_BYTES]);
    Box::new(move || {
        let finder = finder.as_mut().map(|finder| finder as &mut dyn FindFiducials);
        cutter.cut(view, &landmarks, finder, &mut chip).unwrap_or_else(|e| panic!("{e}"));
        std::hint::black_box(&chip);
    })
}

/// Runs the stages in turns and prints the table.
fn report(stages: &mut [Stage<'_>]) {
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); stages.len()];
    for round in 0..=ROUNDS {
        for ((_, call), times) in stages.iter_mut().zip(&mut times) {
            for _ in 0..CALLS {
                let begun = Instant::now();
                call();
                // The first round warms up.
                if round > 0 {
                    times.push(begun.elapsed().as_secs_f64() * 1e6);
                }
            }
        }
    }
    times.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
    let at = |times: &[f64], share: usize| times[times.len() * share / 4];
    let yunet = stages.iter().position(|(name, _)| name == "detector yunet").map(|i| at(&times[i], 2));
    println!("{:<38}{:>10}{:>20}{:>16}", "one core, 640x480, a face", "µs", "quartiles", "to YuNet");
    for ((name, _), times) in stages.iter().zip(&times) {
        let ratio = yunet.map_or_else(String::new, |yunet| format!("{:.3}x", at(times, 2) / yunet));
        let quartiles = format!("{:.0} - {:.0}", at(times, 1), at(times, 3));
        println!("{name:<38}{:>10.0}{quartiles:>20}{ratio:>16}", at(times, 2));
    }
}

/// The photograph on grey, as large as fits.
fn frame(path: &Path) -> RgbImage {
    let photo = image::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).into_rgb8();
    let scale = (640.0 / photo.width() as f32).min(480.0 / photo.height() as f32);
    let side = |px: u32| ((px as f32 * scale) as u32).max(1);
    let (w, h) = (side(photo.width()), side(photo.height()));
    let photo = imageops::resize(&photo, w, h, imageops::FilterType::Triangle);
    let mut frame = RgbImage::from_pixel(640, 480, Rgb([128; 3]));
    imageops::replace(&mut frame, &photo, i64::from((640 - w) / 2), i64::from((480 - h) / 2));
    frame
}

const ROUNDS: usize = 40;
const CALLS: usize = 5;
