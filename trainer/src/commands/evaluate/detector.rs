//! `facelatch evaluate detector`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use facelatch_shared::detection::{BoxPx, Detection, Point};
use facelatch_shared::frame::RgbView;
use facelatch_shared::vision::contract::{ManifestEntry, ModelKind};
use facelatch_shared::vision::detect::{Detector, MIN_SCORE};
use image::{Rgb, RgbImage, imageops};
use serde_json::json;

use super::find;
use crate::cli::{Failure, FailureKind};
use crate::dataset::scenes::{self, Scene};
use crate::evaluate::detection::{self, Middle, Report, Shot, Truth, Verdict};
use crate::progress::{Bar, Progress as _};

/// Arguments of `facelatch evaluate detector`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder with scenes.tar and labels.csv; its test part is measured
    #[arg(long, value_name = "DIR")]
    scenes: PathBuf,
    /// Folder of pictures with one person in the middle, in LFW's layout (NAME/NAME_0001.jpg)
    #[arg(long, value_name = "DIR")]
    middle: Option<PathBuf>,
    /// Model directories; a detector is taken from the first that has it
    #[arg(long, value_name = "DIR", default_value = "target/models")]
    models: Vec<PathBuf>,
    /// Detectors by name, side by side in the table
    #[arg(long, value_name = "NAME", default_value = "yunet")]
    detector: Vec<String>,
    /// Largest picture the detector sees
    #[arg(long, value_name = "WxH", default_value = "320x240", value_parser = size)]
    input: Vec<(usize, usize)>,
    /// Write the 50 worst pictures of each as NAME-WxH.png into this folder
    #[arg(long, value_name = "DIR")]
    sheets: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One column of the table.
struct Column {
    name: String,
    input: (usize, usize),
    sha256: String,
    report: Report,
    middle: Option<Middle>,
    median_ms: f64,
}

/// Does what `args` say.
///
/// # Errors
/// [`Failure`] with the cause and a hint.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(FailureKind::Failed, error.to_string());
    let scenes: Vec<Scene> =
        scenes::load(&args.scenes).map_err(|e| failed(&e))?.into_iter().filter(|s| s.test).collect();
    if scenes.is_empty() {
        return Err(failed(&format!("{} has no scene with split 'test'", args.scenes.display())));
    }
    let pictures = args.middle.as_deref().map(pictures_in).transpose()?.unwrap_or_default();
    let mut columns = Vec::new();
    for name in &args.detector {
        let (dir, entry) = find(&args.models, name, ModelKind::Detector)?;
        for &input in &args.input {
            // Faint faces too: the curve needs them.
            let mut detector =
                Detector::load(&dir, &entry, input).map_err(|e| failed(&e))?.with_min_score(FAINTEST);
            let (column, worst) = measure(&mut detector, &entry, input, &scenes, &pictures)?;
            if let Some(folder) = &args.sheets {
                let path = folder.join(format!("{name}-{}x{}.png", input.0, input.1));
                std::fs::create_dir_all(folder).map_err(|e| failed(&e))?;
                sheet(worst).save(&path).map_err(|e| failed(&format!("{}: {e}", path.display())))?;
                eprintln!("the 50 worst: {}", path.display());
            }
            columns.push(column);
        }
    }
    if args.json {
        println!("{:#}", columns.iter().map(as_json).collect::<serde_json::Value>());
    } else {
        print!("{}", table(&columns));
    }
    Ok(())
}

/// A picture and how badly it went, 0 to 1.
struct Worst {
    badness: f32,
    picture: RgbImage,
}

fn measure(
    detector: &mut Detector,
    entry: &ManifestEntry,
    input: (usize, usize),
    scenes: &[Scene],
    pictures: &[PathBuf],
) -> Result<(Column, Vec<Worst>), Failure> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Failure::new(FailureKind::Failed, format!("{what}: {error}"))
    };
    let bar = Bar::new();
    bar.start(&entry.name, (scenes.len() + pictures.len()) as u64);
    let (mut shots, mut times, mut worst) = (Vec::new(), Vec::new(), Vec::new());
    let mut look = |what: &str, pixels: &[u8], w: usize, h: usize| -> Result<Vec<Detection>, Failure> {
        let view = RgbView::new(pixels, w, h).map_err(|e| failed(what, &e))?;
        let begun = Instant::now();
        let found = detector.find(&view).map_err(|e| failed(what, &e))?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        Ok(found.to_vec())
    };
    for scene in scenes {
        let picture = &scene.picture;
        let found = look(&scene.name, &picture.pixels, picture.width, picture.height)?;
        let shot = Shot { truths: scene.faces.iter().map(truth).collect(), found };
        let badness = badness(&shot);
        if badness > 0.0
            && let Some(image) =
                RgbImage::from_raw(picture.width as u32, picture.height as u32, picture.pixels.clone())
        {
            keep(&mut worst, badness, image, &shot);
        }
        shots.push(shot);
        bar.step();
    }
    let mut middle = Middle::default();
    for path in pictures {
        let what = path.display().to_string();
        let image = image::open(path).map_err(|e| failed(&what, &e))?.into_rgb8();
        let (w, h) = (image.width() as usize, image.height() as usize);
        let found: Vec<Detection> =
            look(&what, image.as_raw(), w, h)?.into_iter().filter(|d| d.score >= MIN_SCORE).collect();
        let before = middle.once;
        middle.add(&found, w, h);
        if middle.once == before {
            keep(&mut worst, 1.0, image, &Shot { truths: Vec::new(), found });
        }
        bar.step();
    }
    bar.finish();
    times.sort_by(f64::total_cmp);
    let column = Column {
        name: entry.name.clone(),
        input,
        sha256: entry.sha256.to_string(),
        report: detection::measure(&shots, MIN_SCORE),
        middle: (!pictures.is_empty()).then_some(middle),
        median_ms: times[times.len() / 2],
    };
    Ok((column, worst))
}

fn truth(face: &scenes::SceneFace) -> Truth {
    let [x, y, w, h] = face.bbox;
    Truth {
        bbox: BoxPx { x, y, w, h },
        landmarks: face.landmarks.map(|[x, y]| Point::new(x, y)),
        ignore: face.ignore,
    }
}

/// How sure the detector was of something wrong, or how unsure of something right, whichever is worse.
fn badness(shot: &Shot) -> f32 {
    let verdicts = detection::judge(shot);
    let wrong = shot.found.iter().zip(&verdicts).filter(|(_, v)| **v == Verdict::Wrong);
    let surest = wrong.map(|(found, _)| found.score).fold(0.0, f32::max);
    let doubt = |i: usize| {
        let matched = verdicts.iter().position(|v| *v == Verdict::Right(i));
        1.0 - matched.map_or(0.0, |k| shot.found[k].score)
    };
    let counted = (0..shot.truths.len()).filter(|&i| !shot.truths[i].ignore);
    counted.map(doubt).fold(surest, f32::max)
}

/// Keeps the [`SHEET`] worst, drawn.
fn keep(worst: &mut Vec<Worst>, badness: f32, mut picture: RgbImage, shot: &Shot) {
    if worst.len() >= SHEET && worst.last().is_some_and(|w| w.badness >= badness) {
        return;
    }
    for truth in &shot.truths {
        let colour = if truth.ignore { [128, 128, 128] } else { [0, 255, 0] };
        outline(&mut picture, &truth.bbox, Rgb(colour));
    }
    for (found, verdict) in shot.found.iter().zip(detection::judge(shot)) {
        let sure = found.score >= MIN_SCORE;
        let colour = match verdict {
            Verdict::Right(_) => [0, 160, 255],
            Verdict::Ignored => [90, 90, 160],
            Verdict::Wrong if sure => [255, 0, 0],
            Verdict::Wrong => [255, 160, 0],
        };
        if sure || verdict != Verdict::Wrong || found.score > 0.3 {
            outline(&mut picture, &found.bbox, Rgb(colour));
        }
    }
    let at = worst.partition_point(|w| w.badness >= badness);
    worst.insert(at, Worst { badness, picture });
    worst.truncate(SHEET);
}

fn outline(picture: &mut RgbImage, bbox: &BoxPx, colour: Rgb<u8>) {
    let mut dot = |x: f32, y: f32| {
        if x >= 0.0 && y >= 0.0 && x < picture.width() as f32 && y < picture.height() as f32 {
            picture.put_pixel(x as u32, y as u32, colour);
        }
    };
    for step in 0..=(bbox.w.max(bbox.h).clamp(1.0, 4096.0) as usize) {
        let along = step as f32;
        if along <= bbox.w {
            dot(bbox.x + along, bbox.y);
            dot(bbox.x + along, bbox.y + bbox.h);
        }
        if along <= bbox.h {
            dot(bbox.x, bbox.y + along);
            dot(bbox.x + bbox.w, bbox.y + along);
        }
    }
}

/// Ten in a row, each fitted into a square, worst first.
fn sheet(worst: Vec<Worst>) -> RgbImage {
    let rows = worst.len().div_ceil(10).max(1) as u32;
    let mut sheet = RgbImage::new(10 * TILE_PX, rows * TILE_PX);
    for (i, Worst { picture, .. }) in worst.into_iter().enumerate() {
        let scale = TILE_PX as f32 / picture.width().max(picture.height()) as f32;
        let fit = |side: u32| ((side as f32 * scale) as u32).clamp(1, TILE_PX);
        let (w, h) = (fit(picture.width()), fit(picture.height()));
        let tile = imageops::resize(&picture, w, h, imageops::FilterType::Triangle);
        let (column, row) = (i as u32 % 10, i as u32 / 10);
        imageops::replace(&mut sheet, &tile, i64::from(column * TILE_PX), i64::from(row * TILE_PX));
    }
    sheet
}

/// Every picture one folder below `dir`, by name.
fn pictures_in(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed =
        |e: std::io::Error| Failure::new(FailureKind::Failed, format!("cannot read {}: {e}", dir.display()));
    let mut pictures = Vec::new();
    for folder in std::fs::read_dir(dir).map_err(failed)? {
        let folder = folder.map_err(failed)?.path();
        if folder.is_dir() {
            for file in std::fs::read_dir(&folder).map_err(failed)? {
                let path = file.map_err(failed)?.path();
                if path.extension().is_some_and(|e| e == "jpg" || e == "png" || e == "webp") {
                    pictures.push(path);
                }
            }
        }
    }
    if pictures.is_empty() {
        return Err(Failure::new(
            FailureKind::Failed,
            format!("{} holds no NAME/PICTURE.jpg", dir.display()),
        ));
    }
    pictures.sort();
    Ok(pictures)
}

fn size(text: &str) -> Result<(usize, usize), String> {
    let parsed = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    parsed.ok_or_else(|| format!("'{text}' is not WIDTHxHEIGHT, as in 320x240"))
}

fn table(columns: &[Column]) -> String {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    type Row<'a> = (&'static str, Box<dyn Fn(&Column) -> String + 'a>);
    let middle = |of: fn(&Middle) -> usize| -> Box<dyn Fn(&Column) -> String> {
        Box::new(move |c| {
            c.middle.as_ref().map_or_else(|| "-".into(), |m| format!("{} of {}", of(m), m.pictures))
        })
    };
    let rows: Vec<Row<'_>> = vec![
        ("input", Box::new(|c| format!("{}x{}", c.input.0, c.input.1))),
        ("average precision", Box::new(|c| percent(c.report.average_precision))),
        ("recall at 1 false in 100", Box::new(|c| percent(c.report.at_one_in_hundred.recall))),
        ("  from score", Box::new(|c| format!("{:.3}", c.report.at_one_in_hundred.score))),
        ("recall at the door's 0.7", Box::new(|c| percent(c.report.at_door.recall))),
        ("  false faces", Box::new(|c| c.report.at_door.false_faces.to_string())),
        ("landmarks off, eye dist.", Box::new(|c| percent(c.report.landmark_error))),
        ("middle person found once", middle(|m| m.once)),
        ("  found twice", middle(|m| m.twice)),
        ("  missed", middle(Middle::missed)),
        ("  other faces", Box::new(|c| c.middle.map_or_else(|| "-".into(), |m| m.others.to_string()))),
        ("median ms a picture", Box::new(|c| format!("{:.2}", c.median_ms))),
    ];
    let width = columns.iter().map(|c| c.name.len()).max().unwrap_or(0).max(12) + 2;
    let mut text = columns.first().map_or_else(String::new, |c| {
        format!("{} pictures, {} faces that count\n", c.report.pictures, c.report.faces)
    });
    text += &format!("{:26}", "");
    text.extend(columns.iter().map(|c| format!("{:>width$}", c.name)));
    text.push('\n');
    for (name, value) in rows {
        text += &format!("{name:26}");
        text.extend(columns.iter().map(|c| format!("{:>width$}", value(c))));
        text.push('\n');
    }
    text
}

fn as_json(column: &Column) -> serde_json::Value {
    let r = &column.report;
    let point = |p: &detection::Point100| json!({ "score": p.score, "recall": p.recall, "false_faces": p.false_faces });
    json!({
        "detector": column.name,
        "sha256": column.sha256,
        "input": [column.input.0, column.input.1],
        "pictures": r.pictures,
        "faces": r.faces,
        "average_precision": r.average_precision,
        "at_one_false_in_100_pictures": point(&r.at_one_in_hundred),
        "at_door_score": point(&r.at_door),
        "landmark_error": r.landmark_error,
        "middle": column.middle.map(|m| json!({
            "pictures": m.pictures, "once": m.once, "twice": m.twice, "missed": m.missed(), "others": m.others,
        })),
        "median_ms": column.median_ms,
    })
}

/// The faintest face that enters the curve.
const FAINTEST: f32 = 0.02;
/// Pictures on a sheet.
const SHEET: usize = 50;
const TILE_PX: u32 = 160;

pub(super) const HELP: &str = "\
Scenes: a face counts as found at an overlap of 0.5; labels marked ignore count neither way. Where labels were made by another \
detector, figures say how well this one agrees with it. Pictures with a person in the middle: found means that a box with a score \
of at least 0.7 holds the picture's middle. On sheets: green labelled, blue found, red false, orange false below 0.7.

Examples:
  facelatch evaluate detector --scenes data/scenes --middle lfw --input 320x240 --input 160x120
  facelatch evaluate detector --scenes data/scenes --models target/models --models runs/mine --detector yunet --detector mine";

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch_shared::detection::Landmarks5;

    fn found(x: f32, score: f32) -> Detection {
        Detection { bbox: BoxPx { x, y: 0.0, w: 10.0, h: 10.0 }, landmarks: Landmarks5::default(), score }
    }

    #[test]
    fn badness_is_doubt_of_what_is_right_or_faith_in_what_is_wrong() {
        let bbox = BoxPx { x: 0.0, y: 0.0, w: 10.0, h: 10.0 };
        let truth = Truth { bbox, landmarks: [Point::default(); 5], ignore: false };
        let shot = |found: Vec<Detection>| Shot { truths: vec![truth], found };
        assert_eq!(badness(&shot(vec![])), 1.0);
        assert!((badness(&shot(vec![found(0.0, 0.9)])) - 0.1).abs() < 1e-6);
        assert!((badness(&shot(vec![found(0.0, 0.9), found(50.0, 0.6)])) - 0.6).abs() < 1e-6);
    }

    #[test]
    fn the_worst_are_kept_in_order_and_no_more_than_fit() {
        let mut worst = Vec::new();
        for i in 0..80 {
            keep(&mut worst, (i * 37 % 80) as f32 / 80.0, RgbImage::new(4, 3), &Shot::default());
        }
        assert_eq!(worst.len(), SHEET);
        assert!(worst.windows(2).all(|w| w[0].badness >= w[1].badness) && worst[0].badness > 0.98);
        assert_eq!(sheet(worst).dimensions(), (1600, 800));
    }

    #[test]
    fn sizes_are_read_and_typos_named() {
        assert_eq!(size("320x240"), Ok((320, 240)));
        assert!(size("320").unwrap_err().contains("'320'"));
    }
}
