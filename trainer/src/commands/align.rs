//! `facelatch align`.

use std::path::{Path, PathBuf};

use facelatch_shared::align::five;
use facelatch_shared::frame::RgbView;
use facelatch_shared::vision::VisionError;
use facelatch_shared::vision::contract::{Manifest, ModelKind};
use facelatch_shared::vision::detect::Detector;
use facelatch_shared::vision::fiducials::FiducialFinder;

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
    /// Fiducials net by name [default: none; the likeliest fiducials for the detector's five landmarks]
    #[arg(long, value_name = "NAME")]
    fiducials: Option<String>,
}

/// What looks at the pictures.
struct Lookers {
    detector: Detector,
    fiducials: Option<FiducialFinder>,
}

/// Does what `args` say.
///
/// # Errors
/// [`Failure`] with the cause and a hint.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut lookers = load(args)?;
    let mut strips: Vec<(Strip, &Path)> = Vec::new();
    for path in &args.images {
        match look(path, &mut lookers)? {
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

fn load(args: &Args) -> Result<Lookers, Failure> {
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
    let input = (entry.contract.width_px, entry.contract.height_px);
    let detector = Detector::load(&args.models, entry, input).map_err(failed)?;
    let fiducials = args.fiducials.as_ref().map(|name| {
        let entry = manifest.find(&args.models, name, ModelKind::Fiducials);
        let entry = entry.map_err(|e| Failure::new(FailureKind::Failed, e))?;
        FiducialFinder::load(&args.models, entry).map_err(failed)
    });
    Ok(Lookers { detector, fiducials: fiducials.transpose()? })
}

/// The strip of one picture, or why there is none.
fn look(path: &Path, lookers: &mut Lookers) -> Result<Result<Strip, String>, Failure> {
    let failed =
        |e: String| Failure::new(FailureKind::Failed, format!("cannot read {}: {e}", path.display()));
    let picture = image::open(path).map_err(|e| failed(e.to_string()))?.into_rgb8();
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let frame = RgbView::new(picture.as_raw(), width, height).map_err(|e| failed(e.to_string()))?;
    let faces = lookers.detector.find(&frame).map_err(|e| Failure::new(FailureKind::Failed, e))?;
    let Some(face) = subject(&faces, width, height) else { return Ok(Err("no face found".into())) };
    let landmarks = &face.landmarks;
    let fiducials = match &mut lookers.fiducials {
        None => five::from_five(landmarks),
        Some(finder) => match finder.find(&frame, landmarks) {
            Ok(found) => Ok(found.fiducials),
            Err(VisionError::Align(error)) => Err(error),
            Err(error) => return Err(Failure::new(FailureKind::Failed, error)),
        },
    };
    Ok(fiducials
        .and_then(|fiducials| contact_sheet::strip(&frame, landmarks, &fiducials))
        .map_err(|e| e.to_string()))
}

const HELP: &str = "\
For each face, sorted by yaw: the picture, its fiducials, the mesh of the 3D face (red where it is hidden and the other side \
stands in) and the frontal view of 152x152 px. Without --fiducials they are the likeliest for the detector's five landmarks.

Examples:
  facelatch align --sheet sheet.png photos/*.jpg
  facelatch align --sheet sheet.png --fiducials fiducials photos/*.jpg";
