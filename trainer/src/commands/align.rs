//! `facelatch align`.

use std::path::{Path, PathBuf};

use facelatch_shared::align::five;
use facelatch_shared::frame::RgbView;
use facelatch_shared::vision::contract::{Manifest, ModelKind};
use facelatch_shared::vision::detect::Detector;

use crate::cli::{Failure, FailureKind};
use crate::contact_sheet::{self, Strip};
use crate::evaluate::pictures::subject;

/// Arguments of `facelatch align`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Pictures; of several faces in one the largest near the middle counts
    #[arg(required = true, value_name = "IMAGES")]
    images: Vec<PathBuf>,
    /// Contact sheet to write, PNG
    #[arg(long, value_name = "FILE.png")]
    sheet: PathBuf,
    /// Faces in a row of the sheet
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=16))]
    across: u32,
    /// Model directory
    #[arg(long, value_name = "DIR", default_value = "target/models")]
    models: PathBuf,
    /// Detector by name [default: the first in the manifest]
    #[arg(long, value_name = "NAME")]
    detector: Option<String>,
}

/// Does what `args` say.
///
/// # Errors
/// [`Failure`] with the cause and a hint.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut finder = load(args)?;
    let mut strips: Vec<(Strip, &Path)> = Vec::new();
    for path in &args.images {
        match look(path, &mut finder)? {
            Ok(strip) => strips.push((strip, path)),
            Err(reason) => eprintln!("{}: left out: {reason}", path.display()),
        }
    }
    if strips.is_empty() {
        return Err(Failure::new(
            FailureKind::Failed,
            "none of the pictures shows a face that can be aligned",
        )
        .hint("a face needs about 24 px between the eyes, and a detector that finds it"));
    }
    strips.sort_by(|(a, _), (b, _)| a.pose.yaw_deg.total_cmp(&b.pose.yaw_deg));
    println!("{:>6} {:>6} {:>6} {:>9}  PICTURE", "YAW", "PITCH", "ROLL", "RESIDUAL");
    for (strip, path) in &strips {
        let pose = strip.pose;
        println!(
            "{:>6.0} {:>6.0} {:>6.0} {:>6.1} px  {}",
            pose.yaw_deg,
            pose.pitch_deg,
            pose.roll_deg,
            strip.residual_px,
            path.display()
        );
    }
    let strips: Vec<Strip> = strips.into_iter().map(|(strip, _)| strip).collect();
    contact_sheet::sheet(&strips, args.across.min(strips.len() as u32)).save(&args.sheet).map_err(|e| {
        Failure::new(FailureKind::Failed, format!("cannot write {}: {e}", args.sheet.display()))
            .hint("the name must end in .png and its folder must exist")
    })?;
    eprintln!("{} faces on {}", strips.len(), args.sheet.display());
    Ok(())
}

fn load(args: &Args) -> Result<Detector, Failure> {
    let failed = |e| Failure::new(FailureKind::Failed, e);
    let manifest = Manifest::load(&args.models).map_err(|e| Failure::new(FailureKind::Failed, e))?;
    let entry = match &args.detector {
        Some(name) => manifest
            .find(&args.models, name, ModelKind::Detector)
            .map_err(|e| Failure::new(FailureKind::Failed, e))?,
        None => manifest.models.iter().find(|entry| entry.kind == ModelKind::Detector).ok_or_else(|| {
            Failure::new(FailureKind::Failed, format!("{} holds no detector", args.models.display()))
                .hint("import one with facelatch models import")
        })?,
    };
    Detector::load(&args.models, entry, (entry.contract.width_px, entry.contract.height_px)).map_err(failed)
}

/// The strip of one picture, or why there is none.
fn look(path: &Path, detector: &mut Detector) -> Result<Result<Strip, String>, Failure> {
    let failed =
        |e: String| Failure::new(FailureKind::Failed, format!("cannot read {}: {e}", path.display()));
    let picture = image::open(path).map_err(|e| failed(e.to_string()))?.into_rgb8();
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let frame = RgbView::new(picture.as_raw(), width, height).map_err(|e| failed(e.to_string()))?;
    let faces = detector.find(&frame).map_err(|e| Failure::new(FailureKind::Failed, e))?;
    let Some(face) = subject(&faces, width, height) else { return Ok(Err("no face found".into())) };
    let landmarks = &face.landmarks;
    Ok(five::from_five(landmarks)
        .and_then(|fiducials| contact_sheet::strip(&frame, landmarks, &fiducials))
        .map_err(|e| e.to_string()))
}

const HELP: &str = "\
For each face, sorted by yaw: the picture, its fiducials, the mesh of the 3D face (red where it is hidden and the other side \
stands in) and the frontal view of 152x152 px. Fiducials are the likeliest for the detector's five landmarks.

Example:
  facelatch align --sheet sheet.png photos/*.jpg";
