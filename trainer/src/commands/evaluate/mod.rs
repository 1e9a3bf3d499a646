//! `facelatch evaluate …`: one file a protocol.

mod lfw;
mod ytf;
mod tracks;
mod identify;
mod sensitivity;
#[cfg(feature = "train")]
mod detector;
#[cfg(feature = "train")]
mod fiducials;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use facelatch_shared::quality::Gate;
use facelatch_shared::vision::Eyes;
use facelatch_shared::vision::contract::{AlignmentMethod, Manifest, ManifestEntry, ModelKind};

use crate::cli::{Failure, FailureKind};
use crate::evaluate::lfw::LfwError;
use crate::evaluate::pairs::PairsError;
use crate::evaluate::pictures::PictureError;

/// Arguments of `facelatch evaluate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Verification on pairs of pictures in LFW's layout
    #[command(after_help = lfw::HELP)]
    Lfw(lfw::Args),
    /// Verification on pairs of face tracks by the protocol of YouTube Faces
    #[command(after_help = ytf::HELP)]
    Ytf(ytf::Args),
    /// Make tracks from stills, in the layout of YouTube Faces
    #[command(after_help = tracks::HELP)]
    Tracks(tracks::Args),
    /// Open-set identification: DIR at FPIR with a gallery of N
    #[command(after_help = identify::HELP)]
    Identify(identify::Args),
    /// What JPEG compression and small pictures cost
    #[command(after_help = sensitivity::HELP)]
    Sensitivity(sensitivity::Args),
    /// Detectors side by side, on labelled scenes and on pictures with one person in the middle
    #[cfg(feature = "train")]
    #[command(after_help = detector::HELP)]
    Detector(detector::Args),
    /// How far a fiducials net's points are from the teacher's, on people it never saw
    #[cfg(feature = "train")]
    #[command(after_help = fiducials::HELP)]
    Fiducials(fiducials::Args),
}

/// Does what `args` say.
///
/// # Errors
/// [`Failure`] with the cause and a hint.
pub fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Lfw(args) => lfw::run(args),
        Command::Ytf(args) => ytf::run(args),
        Command::Tracks(args) => tracks::run(args),
        Command::Identify(args) => identify::run(args),
        Command::Sensitivity(args) => sensitivity::run(args),
        #[cfg(feature = "train")]
        Command::Detector(args) => detector::run(args),
        #[cfg(feature = "train")]
        Command::Fiducials(args) => fiducials::run(args),
    }
}

/// Which models look at the pictures.
#[derive(Debug, clap::Args)]
pub(crate) struct EyesArgs {
    /// Model directory
    #[arg(long, value_name = "DIR", default_value = "target/models")]
    models: PathBuf,
    /// Detector by name [default: the first in the manifest]
    #[arg(long, value_name = "NAME")]
    detector: Option<String>,
    /// Embedder by name [default: the first in the manifest]
    #[arg(long, value_name = "NAME")]
    embedder: Option<String>,
    /// Fiducials net by name, for the alignments that need more than the detector's five landmarks [default: none]
    #[arg(long, value_name = "NAME")]
    fiducials: Option<String>,
    /// Cut chips by this alignment instead of the embedder's own
    #[arg(long, value_name = "METHOD", value_parser = alignment())]
    alignment: Option<AlignmentMethod>,
    /// Threads, each with its own copy of the models [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
}

/// The models chosen, loaded once a thread.
pub(crate) struct Loaded {
    /// One a thread.
    pub eyes: Vec<Eyes>,
    /// Detector and embedder.
    pub models: [ManifestEntry; 2],
}

impl EyesArgs {
    /// Loads what was chosen.
    pub(crate) fn load(&self) -> Result<Loaded, Failure> {
        let failed = |error| Failure::new(FailureKind::Failed, error);
        let manifest = Manifest::load(&self.models).map_err(|e| Failure::new(FailureKind::Failed, e))?;
        let mut models = [
            choose(&manifest, &self.models, self.detector.as_deref(), ModelKind::Detector)?.clone(),
            choose(&manifest, &self.models, self.embedder.as_deref(), ModelKind::Embedder)?.clone(),
        ];
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = self.threads.map_or_else(cores, usize::from);
        // What the manifest was imported for, which is the door's default too.
        let input = (models[0].contract.width_px, models[0].contract.height_px);
        let eyes = (0..threads)
            .map(|_| Eyes::load(&self.models, &models[0].name, &models[1].name, Gate::OPEN, input))
            .map(|eyes| match &self.fiducials {
                Some(name) => eyes.and_then(|eyes| eyes.with_fiducials(&self.models, name)),
                None => eyes,
            })
            .map(|eyes| match self.alignment {
                Some(method) => eyes.map(|eyes| eyes.with_alignment(method)),
                None => eyes,
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed)?;
        if let (Some(method), Some(alignment)) = (self.alignment, &mut models[1].contract.alignment) {
            alignment.method = method;
        }
        Ok(Loaded { eyes, models })
    }
}

/// Alignments by their names.
fn alignment() -> impl clap::builder::TypedValueParser<Value = AlignmentMethod> {
    use clap::builder::{PossibleValuesParser, TypedValueParser as _};
    PossibleValuesParser::new(AlignmentMethod::ALL.map(AlignmentMethod::name)).try_map(|name| {
        AlignmentMethod::ALL.into_iter().find(|method| method.name() == name).ok_or("no such alignment")
    })
}

/// The alignment that `entry`'s chips were cut by.
fn alignment_of(entry: &ManifestEntry) -> &'static str {
    entry.contract.alignment.map_or("none", |alignment| alignment.method.name())
}

/// The entry called `name`, or the first of `kind`.
///
/// # Errors
/// A [`Failure`] with the names there are.
pub(super) fn choose<'m>(
    manifest: &'m Manifest,
    dir: &Path,
    name: Option<&str>,
    kind: ModelKind,
) -> Result<&'m ManifestEntry, Failure> {
    match name {
        Some(name) => manifest.find(dir, name, kind).map_err(|e| Failure::new(FailureKind::Failed, e)),
        None => manifest.models.iter().find(|entry| entry.kind == kind).ok_or_else(|| {
            Failure::new(FailureKind::Failed, format!("{} holds no {kind}", dir.display()))
                .hint("import one with facelatch models import")
        }),
    }
}

/// The model called `name` from the first of `dirs` that has it.
#[cfg(feature = "train")]
fn find(dirs: &[PathBuf], name: &str, kind: ModelKind) -> Result<(PathBuf, ManifestEntry), Failure> {
    let failed = |e: facelatch_shared::vision::ManifestError| Failure::new(FailureKind::Failed, e);
    let mut last = None;
    for dir in dirs {
        match Manifest::load(dir).map_err(failed)?.find(dir, name, kind) {
            Ok(entry) => return Ok((dir.clone(), entry.clone())),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| Failure::new(FailureKind::Usage, "name a model directory with --models"), failed))
}

/// Detector and embedder as JSON.
fn models_json([detector, embedder]: &[ManifestEntry; 2]) -> serde_json::Value {
    let model =
        |entry: &ManifestEntry| serde_json::json!({ "name": entry.name, "sha256": entry.sha256.to_string() });
    serde_json::json!({ "detector": model(detector), "embedder": model(embedder), "alignment": alignment_of(embedder) })
}

/// Detector and embedder as the last lines of a report.
fn models_text(models: &[ManifestEntry; 2]) -> String {
    let line =
        |entry: &ManifestEntry| format!("{:<17} {} {}\n", entry.kind.to_string(), entry.name, entry.sha256);
    models.iter().map(line).chain([format!("{:<17} {}\n", "alignment", alignment_of(&models[1]))]).collect()
}

/// A share as a percentage with two decimals.
fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

/// A small rate: `1.2e-2`, or `0`.
fn rate(share: f64) -> String {
    if share == 0.0 { "0".into() } else { format!("{share:.1e}") }
}

/// Writes a file that a report asks for.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|e| Failure::new(FailureKind::Failed, format!("cannot write {}: {e}", path.display())))
}

impl From<PairsError> for Failure {
    fn from(error: PairsError) -> Self {
        Self::new(FailureKind::Failed, error)
            .hint("the format is LFW's: http://vis-www.cs.umass.edu/lfw/README.txt")
    }
}

impl From<PictureError> for Failure {
    fn from(error: PictureError) -> Self {
        let broken = matches!(error, PictureError::Picture { .. });
        let failure = Self::new(FailureKind::Failed, error);
        if broken { failure.hint("the file may be cut short: fetch it again") } else { failure }
    }
}

impl From<LfwError> for Failure {
    fn from(error: LfwError) -> Self {
        match error {
            LfwError::Picture(error) => error.into(),
            LfwError::Missing { .. } => Self::new(FailureKind::Failed, error).hint(
                "--images must be the folder that holds one sub-folder a person, of the same edition as the pairs",
            ),
            LfwError::Degenerate => Self::new(FailureKind::Failed, error),
        }
    }
}
