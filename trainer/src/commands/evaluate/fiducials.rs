//! `facelatch evaluate fiducials`.

use std::path::PathBuf;
use std::time::Instant;

use facelatch_shared::align::Fiducials68;
use facelatch_shared::detection::{Landmarks5, Point};
use facelatch_shared::frame::RgbView;
use facelatch_shared::vision::contract::{ManifestEntry, ModelKind};
use facelatch_shared::vision::fiducials::{CROP_PX, CROP_SCALE, FiducialFinder};
use image::{Rgb, RgbImage, imageops};
use serde_json::json;

use super::{find, write};
use crate::cli::{Failure, FailureKind};
use crate::dataset::close_ups::{Plain, Vary, canvas_landmarks};
use crate::dataset::picture::Affine;
use crate::dataset::random::{Random, Stream};
use crate::dataset::shards::CANVAS_PX;
use crate::evaluate::fiducials::{self, Errors, FAILED, Face, PARTS, Report, YAW_DEG};
use crate::evaluate::fiducials_curve;
use crate::progress::{Bar, Progress as _};
use crate::recipe::fiducials::{FiducialsSettings, HeldOut};

/// Arguments of `facelatch evaluate fiducials`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Data folder with train/ and scenes/, as for training
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Folder with the teacher's labels, mesh-labels.safetensors and mesh-scenes.safetensors, as for training
    #[arg(long, value_name = "DIR")]
    teacher: PathBuf,
    /// Share of people held out [default: the recipe's]
    #[arg(long, value_name = "SHARE")]
    held_out: Option<f64>,
    /// Seed of the split and of the displacements [default: the recipe's]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Model directories; a net is taken from the first that has it
    #[arg(long, value_name = "DIR", default_value = "target/models")]
    models: Vec<PathBuf>,
    /// Nets by name, side by side in the table
    #[arg(long, value_name = "NAME", default_value = "fiducials")]
    fiducials: Vec<String>,
    /// Write the cumulative error curves
    #[arg(long, value_name = "FILE.svg")]
    curve: Option<PathBuf>,
    /// Write the 50 worst faces of each net as NAME.png into this folder
    #[arg(long, value_name = "DIR")]
    sheets: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One column of the table.
struct Column {
    name: String,
    sha256: String,
    report: Report,
    /// The same faces by landmarks as far off as training displaces them.
    displaced: Errors,
    median_ms: f64,
}

/// Does what `args` say.
///
/// # Errors
/// [`Failure`] with the cause and a hint.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(FailureKind::Failed, error.to_string());
    let recipe = FiducialsSettings::default();
    let share = args.held_out.unwrap_or(recipe.held_out);
    if !(share > 0.0 && share <= 1.0) {
        return Err(Failure::new(FailureKind::Usage, format!("--held-out is {share}: above 0, up to 1")));
    }
    let seed = args.seed.unwrap_or(recipe.seed);
    let nets = args
        .fiducials
        .iter()
        .map(|name| find(&args.models, name, ModelKind::Fiducials))
        .collect::<Result<Vec<_>, _>>()?;
    eprintln!("decoding the faces");
    let held_out = HeldOut::load(&args.data, &args.teacher, share, seed).map_err(|e| failed(&e))?;
    let people: std::collections::HashSet<String> =
        held_out.faces.plain().map(|face| held_out.rows[face.row as usize].split_key()).collect();
    if people.is_empty() {
        return Err(failed(&format!("no face of {} is held out and labelled", args.data.display())));
    }
    let mut columns = Vec::new();
    for (dir, entry) in &nets {
        let mut finder = FiducialFinder::load(dir, entry).map_err(|e| failed(&e))?;
        let (column, worst) = measure(&mut finder, entry, &held_out, &recipe.vary, seed)?;
        if let Some(folder) = &args.sheets {
            let path = folder.join(format!("{}.png", entry.name));
            std::fs::create_dir_all(folder).map_err(|e| failed(&e))?;
            sheet(&worst).save(&path).map_err(|e| failed(&format!("{}: {e}", path.display())))?;
            eprintln!("the {} worst: {}", worst.len(), path.display());
        }
        columns.push(column);
    }
    if let Some(path) = &args.curve {
        write(path, &curve(&columns).map_err(|e| failed(&e))?)?;
    }
    if args.json {
        println!("{:#}", columns.iter().map(|c| as_json(c, people.len())).collect::<serde_json::Value>());
    } else {
        println!(
            "{} faces of {} people held out; errors in % of the distance of the outer eye corners",
            columns[0].report.all.faces(),
            people.len()
        );
        print!("{}", table(&columns));
    }
    Ok(())
}

/// A face, drawn, and how far off it is.
struct Worst {
    error: f32,
    picture: RgbImage,
}

fn measure(
    finder: &mut FiducialFinder,
    entry: &ManifestEntry,
    held_out: &HeldOut,
    vary: &Vary,
    seed: u64,
) -> Result<(Column, Vec<Worst>), Failure> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Failure::new(FailureKind::Failed, format!("{what}: {error}"))
    };
    let bar = Bar::new();
    bar.start(&entry.name, held_out.faces.len() as u64);
    let (mut plain, mut displaced, mut times, mut worst) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (number, face) in (0..).zip(held_out.faces.plain()) {
        let what = held_out.rows[face.row as usize].path();
        let frame = framed(face.pixels);
        let view = RgbView::new(&frame, FRAME_PX, FRAME_PX).map_err(|e| failed(&what, &e))?;
        let mut look = |landmarks: &Landmarks5| -> Result<Face, Failure> {
            let begun = Instant::now();
            let found = finder.find(&view, landmarks).map_err(|e| failed(&what, &e))?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
            Ok(beside(&face, found.fiducials, found.spread_px))
        };
        let landmarks = moved(&canvas_landmarks(), MARGIN_PX as f32);
        let whole = look(&landmarks)?;
        let mut random = Random::new(seed, Stream::Augment, number);
        displaced.push(look(&astray(&landmarks, vary, &mut random))?);
        keep(&mut worst, &view, &whole);
        plain.push(whole);
        bar.step();
    }
    bar.finish();
    times.sort_by(f64::total_cmp);
    let column = Column {
        name: entry.name.clone(),
        sha256: entry.sha256.to_string(),
        report: fiducials::measure(&plain),
        displaced: fiducials::measure(&displaced).all,
        median_ms: times[times.len() / 2],
    };
    Ok((column, worst))
}

/// The canvas with its edges repeated outwards as far as the net's crop reaches, as training does: `[160, 160, 3]`.
fn framed(canvas: &[u8]) -> Vec<u8> {
    let inner = |at: usize| at.saturating_sub(MARGIN_PX).min(CANVAS_PX - 1);
    let mut frame = Vec::with_capacity(FRAME_PX * FRAME_PX * 3);
    for y in 0..FRAME_PX {
        for x in 0..FRAME_PX {
            frame.extend_from_slice(&canvas[(inner(y) * CANVAS_PX + inner(x)) * 3..][..3]);
        }
    }
    frame
}

fn moved(landmarks: &Landmarks5, by_px: f32) -> Landmarks5 {
    Landmarks5(landmarks.0.map(|p| Point::new(p.x + by_px, p.y + by_px)))
}

/// Landmarks turned, scaled and shifted at random as far as training displaces the crop.
fn astray(landmarks: &Landmarks5, vary: &Vary, random: &mut Random) -> Landmarks5 {
    let mut pull = |most: f32| random.range(-1.0, 1.0) * most;
    let (tilt, scale) = (pull(vary.tilt_deg).to_radians(), pull(vary.scale).exp2());
    let most_px = vary.shift * CROP_PX as f32 * CROP_SCALE;
    let middle = [FRAME_PX as f32 / 2.0; 2];
    let to = [middle[0] + pull(most_px), middle[1] + pull(most_px)];
    let map = Affine::turn(middle, to, scale, tilt, false);
    Landmarks5(landmarks.0.map(|p| {
        let [x, y] = map.point([p.x, p.y]);
        Point::new(x, y)
    }))
}

/// Label and finding on one frame.
fn beside(face: &Plain<'_>, found: Fiducials68, spread_px: [f32; 68]) -> Face {
    let margin = MARGIN_PX as f32;
    let truth = Fiducials68 {
        points: face.points.map(|[x, y]| Point::new(x + margin, y + margin)),
        visibility: face.hidden.map(|hidden| if hidden { 0.0 } else { 1.0 }),
    };
    Face { truth, known: face.known, found, spread_px, masked: face.masked }
}

/// Keeps the [`SHEET`] worst, drawn: labels green, findings blue, or red where the net says that they are hidden.
fn keep(worst: &mut Vec<Worst>, view: &RgbView<'_>, face: &Face) {
    let error = fiducials::measure(std::slice::from_ref(face)).all.nme() as f32;
    if worst.len() >= SHEET && worst.last().is_some_and(|w| w.error >= error) {
        return;
    }
    let (w, h) = (view.width_px() as u32, view.height_px() as u32);
    let pixel = |x: u32, y: u32| Rgb(view.pixel_clamped(x as isize, y as isize));
    let mut picture =
        imageops::resize(&RgbImage::from_fn(w, h, pixel), TILE_PX, TILE_PX, imageops::FilterType::Triangle);
    let scale = TILE_PX as f32 / w as f32;
    let mut dot = |p: Point, colour: [u8; 3]| {
        for (dx, dy) in [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)] {
            let (x, y) = ((p.x + 0.5) * scale - 1.0 + dx, (p.y + 0.5) * scale - 1.0 + dy);
            if x >= 0.0 && y >= 0.0 && (x as u32) < TILE_PX && (y as u32) < TILE_PX {
                picture.put_pixel(x as u32, y as u32, Rgb(colour));
            }
        }
    };
    for k in 0..68 {
        dot(face.truth.points[k], [0, 220, 0]);
        let seen = face.found.visibility[k] > 0.5;
        dot(face.found.points[k], if seen { [60, 140, 255] } else { [255, 40, 40] });
    }
    let at = worst.partition_point(|w| w.error >= error);
    worst.insert(at, Worst { error, picture });
    worst.truncate(SHEET);
}

/// Ten in a row, worst first.
fn sheet(worst: &[Worst]) -> RgbImage {
    let mut sheet = RgbImage::new(10 * TILE_PX, worst.len().div_ceil(10).max(1) as u32 * TILE_PX);
    for (i, tile) in (0..).zip(worst) {
        let (x, y) = (i % 10 * i64::from(TILE_PX), i / 10 * i64::from(TILE_PX));
        imageops::replace(&mut sheet, &tile.picture, x, y);
    }
    sheet
}

/// One line a net; for a single net, one for each bin of turn too.
fn curve(columns: &[Column]) -> Result<String, String> {
    let mut lines: Vec<(String, &Errors)> = columns.iter().map(|c| (c.name.clone(), &c.report.all)).collect();
    if let [only] = columns {
        let bins = YAW_DEG.iter().zip(&only.report.turned).filter(|(_, errors)| errors.faces() > 0);
        lines.extend(bins.map(|(bin, errors)| (turn_name(bin), errors)));
    }
    fiducials_curve::svg("Fiducials: cumulative error against the face mesh", &lines)
}

fn turn_name(bin: &std::ops::Range<f32>) -> String {
    if bin.end > 90.0 {
        format!("turned {:.0}° or more", bin.start)
    } else {
        format!("turned {:.0} to {:.0}°", bin.start, bin.end)
    }
}

fn table(columns: &[Column]) -> String {
    let percent = |share: f64| format!("{:.2}", share * 100.0);
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    let mut row = |name: &str, value: &dyn Fn(&Column) -> String| {
        rows.push((name.to_owned(), columns.iter().map(value).collect()));
    };
    row("mean, all points", &|c| percent(c.report.all.nme()));
    row("  median · 90 % of faces", &|c| {
        format!("{} · {}", percent(c.report.all.quantile(0.5)), percent(c.report.all.quantile(0.9)))
    });
    row("  landmarks displaced", &|c| percent(c.displaced.nme()));
    for (i, (name, points)) in PARTS.iter().enumerate() {
        let name = format!("  {name} ({}-{})", points.start, points.end - 1);
        row(&name, &|c| percent(c.report.parts[i].nme()));
    }
    row("  DeepFace's six", &|c| percent(c.report.six.nme()));
    for (i, bin) in YAW_DEG.iter().enumerate() {
        let faces = columns[0].report.turned[i].faces();
        row(&format!("  {} ({faces})", turn_name(bin)), &|c| percent(c.report.turned[i].nme()));
    }
    row(&format!("  with a mask ({})", columns[0].report.masked.faces()), &|c| {
        percent(c.report.masked.nme())
    });
    row(&format!("above {:.0} %, of faces", FAILED * 100.0), &|c| percent(1.0 - c.report.all.within(FAILED)));
    row("area under the curve", &|c| percent(c.report.all.area()));
    row("seen said seen", &|c| percent(c.report.seen_right));
    row("hidden said hidden", &|c| percent(c.report.hidden_right));
    row("spread said / error", &|c| format!("{:.2}", c.report.spread_over_error));
    row("yaw off, degrees", &|c| format!("{:.1}", c.report.yaw_off_deg));
    row("median ms a face", &|c| format!("{:.2}", c.median_ms));
    let width = columns.iter().map(|c| c.name.len()).max().unwrap_or(0).max(13) + 2;
    let mut text = format!("{:30}", "");
    text.extend(columns.iter().map(|c| format!("{:>width$}", c.name)));
    text.push('\n');
    for (name, values) in rows {
        text += &format!("{name:30}");
        text.extend(values.iter().map(|value| format!("{value:>width$}")));
        text.push('\n');
    }
    text
}

fn as_json(column: &Column, people: usize) -> serde_json::Value {
    let r = &column.report;
    let errors = |e: &Errors| json!({ "faces": e.faces(), "nme": e.nme(), "median": e.quantile(0.5), "p90": e.quantile(0.9) });
    let parts: serde_json::Map<String, serde_json::Value> =
        PARTS.iter().zip(&r.parts).map(|((name, _), e)| ((*name).to_owned(), errors(e))).collect();
    let turned: Vec<serde_json::Value> = YAW_DEG
        .iter()
        .zip(&r.turned)
        .map(|(bin, e)| json!({ "from_deg": bin.start, "below_deg": bin.end, "errors": errors(e) }))
        .collect();
    let limits: Vec<[f64; 2]> =
        (0..=40).map(|i| f64::from(i) / 200.0).map(|e| [e, r.all.within(e)]).collect();
    json!({
        "fiducials": column.name,
        "sha256": column.sha256,
        "people": people,
        "all": errors(&r.all),
        "displaced": errors(&column.displaced),
        "parts": parts,
        "six": errors(&r.six),
        "by_turn": turned,
        "masked": errors(&r.masked),
        "failed_above": FAILED,
        "failed": 1.0 - r.all.within(FAILED),
        "area_under_curve": r.all.area(),
        "curve": limits,
        "seen_right": r.seen_right,
        "hidden_right": r.hidden_right,
        "spread_over_error": r.spread_over_error,
        "yaw_off_deg": r.yaw_off_deg,
        "median_ms": column.median_ms,
    })
}

/// What is repeated round the canvas.
const MARGIN_PX: usize = 16;
const FRAME_PX: usize = CANVAS_PX + 2 * MARGIN_PX;
/// Faces on a sheet.
const SHEET: usize = 50;
const TILE_PX: u32 = 192;

pub(super) const HELP: &str = "\
Faces are those that the recipe holds out, by people, without people who appear in the training scenes. The net is run by the door's \
own code on landmarks at their canonical place, and again on landmarks as far astray as training displaces them. Labels are the \
teacher's, so figures say how well the net agrees with the face mesh; points outside the picture do not count. On sheets: green \
labelled, blue found, red found and said to be hidden.

Example:
  facelatch evaluate fiducials --data data --teacher labels --models models --curve errors.svg --sheets sheets";

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: &Landmarks5, b: &Landmarks5, px: f32) -> bool {
        a.0.iter().zip(b.0).all(|(p, q)| p.distance_px(q) <= px)
    }

    #[test]
    fn displaced_landmarks_stay_within_what_training_allows_and_are_not_the_plain_ones() {
        let plain = moved(&canvas_landmarks(), MARGIN_PX as f32);
        let vary = Vary::default();
        for number in 0..50 {
            let astray = astray(&plain, &vary, &mut Random::new(1, Stream::Augment, number));
            assert!(close(&astray, &plain, 40.0) && !close(&astray, &plain, 0.01));
            assert_eq!(astray, super::astray(&plain, &vary, &mut Random::new(1, Stream::Augment, number)));
        }
        assert!(close(
            &super::astray(&plain, &Vary::none(), &mut Random::new(1, Stream::Augment, 0)),
            &plain,
            1e-3
        ));
    }

    #[test]
    fn the_frame_repeats_the_edge_and_keeps_the_middle() {
        let canvas: Vec<u8> = (0..CANVAS_PX * CANVAS_PX).flat_map(|i| [(i % CANVAS_PX) as u8; 3]).collect();
        let frame = framed(&canvas);
        let row = &frame[80 * FRAME_PX * 3..81 * FRAME_PX * 3];
        assert_eq!((row[0], row[MARGIN_PX * 3], row[(MARGIN_PX + 50) * 3], row[159 * 3]), (0, 0, 50, 127));
    }

    #[test]
    fn names_of_bins() {
        assert_eq!(YAW_DEG.map(|bin| turn_name(&bin))[2..], ["turned 30 to 45°", "turned 45° or more"]);
    }
}
