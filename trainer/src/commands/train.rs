//! `facelatch train`: train a recipe.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::ValueEnum;
use signal_hook::consts::{SIGINT, SIGTERM};
use tch::Device;

use crate::cli::{Failure, FailureKind};
use crate::recipe::compact::CompactRecipe;
use crate::recipe::deepface::DeepfaceRecipe;
use crate::recipe::detector::DetectorRecipe;
use crate::recipe::facenet::FacenetRecipe;
use crate::recipe::fiducials::FiducialsRecipe;
use crate::recipe::vggface::VggfaceRecipe;
use crate::recipe::vggface_embedding::VggfaceEmbeddingRecipe;
use crate::train::config::{ConfigError, Draft};
use crate::train::{self, Job, SETTINGS, TrainError};

/// Train a recipe. The run's folder gets its settings (run.toml), log (log.jsonl) and checkpoint. A file named `stop` in it, SIGTERM
/// or Ctrl-C ends the run with a checkpoint; a second Ctrl-C ends it at once.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What to train
    #[arg(long, value_enum, default_value = "compact")]
    pub recipe: RecipeName,
    /// The pictures: a folder with manifest.csv and tar shards of aligned 128×128 faces; for deepface and vggface also a folder with one
    /// folder an identity, any .csv with columns path and identity, or such a folder as .tar or .zip; for detector and fiducials a folder
    /// with a folder `train` of such faces and a folder `scenes` of labelled pictures
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// A teacher's vectors, for compact: NAME.safetensors with NAME.paths beside it; for detector and fiducials the folder of the face
    /// mesh's labels
    #[arg(long, value_name = "FILE")]
    pub teacher: Option<PathBuf>,
    /// Folder of the run
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Settings in TOML [default: the recipe's own, or with --resume those of the run]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Change one setting, as in `--set batch=32`; a dot goes into a table (`--set augment.mirror=0`)
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Width of the net, for deepface and vggface: 1 is the paper's, less suits smaller machines
    #[arg(long)]
    pub width: Option<f64>,
    /// People who must not be learnt from, for deepface and vggface: LFW's pairs or people file, or one name a line
    #[arg(long, value_name = "FILE")]
    pub exclude: Vec<PathBuf>,
    /// Length of the schedule in minutes of training, pauses left out
    #[arg(long)]
    pub minutes: Option<f64>,
    /// Length of the schedule in steps: repeatable, unlike minutes
    #[arg(long, conflicts_with = "minutes")]
    pub steps: Option<u64>,
    /// Go on from the run's checkpoint
    #[arg(long)]
    pub resume: bool,
    /// Start from the weights of another run's checkpoint or weights file
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    pub start_from: Option<PathBuf>,
    /// End with a checkpoint after this many steps, before the schedule does
    #[arg(long, value_name = "STEP")]
    pub pause_at: Option<u64>,
    /// Write a checkpoint after every so many steps, besides the one every five minutes
    #[arg(long, value_name = "STEPS")]
    pub save_every: Option<u64>,
    /// Where to compute
    #[arg(long, value_enum, default_value = "auto")]
    pub device: DeviceChoice,
}

/// What can be trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RecipeName {
    /// The net for the door, distilled from a teacher
    Compact,
    /// An Inception net that learns embeddings by triplets
    Facenet,
    /// Boxes and five landmarks, from scenes and composed pictures
    Detector,
    /// Sixty-eight points on a face, taught by a face mesh
    Fiducials,
    /// DeepFace: locally connected layers, a softmax over identities
    Deepface,
    /// VGG-Face: stacked 3×3 convolutions, a softmax over identities
    Vggface,
    /// A projection of a trained vggface's descriptors by triplets, the rest standing still (--start-from)
    VggfaceEmbedding,
}

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DeviceChoice {
    /// CUDA where libtorch has it and finds a GPU, else the CPU
    Auto,
    /// The CPU
    Cpu,
    /// The first CUDA GPU
    Cuda,
}

impl DeviceChoice {
    /// The device.
    ///
    /// # Errors
    /// A message when CUDA is asked for and there is none.
    pub fn pick(self) -> Result<Device, String> {
        let cuda = tch::Cuda::is_available();
        match self {
            Self::Cuda if !cuda => Err(
                "no CUDA: this libtorch is a CPU build, or no GPU is found; point LIBTORCH at a CUDA build \
                 and rebuild, or use --device cpu"
                    .to_owned(),
            ),
            Self::Cpu => Ok(Device::Cpu),
            _ if cuda => Ok(Device::Cuda(0)),
            _ => Ok(Device::Cpu),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// A [`Failure`] that says what to change.
pub fn run(args: &Args) -> Result<(), Failure> {
    let device = args.device.pick().map_err(|e| Failure::new(FailureKind::Failed, e))?;
    let draft = draft(args).map_err(TrainError::from)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // In this order: the first signal sets the flag, a second one finds it set and ends the program.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(|e| Failure::new(FailureKind::Failed, e))?;
    }
    let job = Job {
        resume: args.resume,
        teacher: args.teacher.clone(),
        start_from: args.start_from.clone(),
        pause_at: args.pause_at,
        save_every: args.save_every,
        stop,
        ..Job::new(&args.data, &args.out, device)
    };
    let counters = match args.recipe {
        RecipeName::Compact => train::start::<CompactRecipe>(&job, &draft),
        RecipeName::Facenet => train::start::<FacenetRecipe>(&job, &draft),
        RecipeName::Detector => train::start::<DetectorRecipe>(&job, &draft),
        RecipeName::Fiducials => train::start::<FiducialsRecipe>(&job, &draft),
        RecipeName::Deepface => train::start::<DeepfaceRecipe>(&job, &draft),
        RecipeName::Vggface => train::start::<VggfaceRecipe>(&job, &draft),
        RecipeName::VggfaceEmbedding => train::start::<VggfaceEmbeddingRecipe>(&job, &draft),
    }?;
    println!("{} steps, {} pictures, {:.2} h", counters.step, counters.images, counters.seconds / 3600.0);
    Ok(())
}

/// The settings: a file's or a resumed run's, then what the command line changes.
fn draft(args: &Args) -> Result<Draft, ConfigError> {
    let mut draft = match &args.config {
        Some(path) => Draft::read(path)?,
        None if args.resume => Draft::read(&args.out.join(SETTINGS))?,
        None => Draft::default(),
    };
    if let Some(minutes) = args.minutes {
        draft.set("minutes", minutes)?;
        draft.set("steps", 0)?;
    }
    if let Some(steps) = args.steps {
        draft.set("steps", i64::try_from(steps).unwrap_or(i64::MAX))?;
    }
    if let Some(width) = args.width {
        draft.set("shape.width", width)?;
    }
    if !args.exclude.is_empty() {
        let paths = args.exclude.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        draft.set("data.exclude", paths)?;
    }
    for text in &args.set {
        draft.set_text(text)?;
    }
    Ok(draft)
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Self {
        let hint = match &error {
            TrainError::Config(ConfigError::Malformed { .. } | ConfigError::Value { .. }) => {
                Some("run.toml of any run shows every setting of its recipe")
            }
            TrainError::Config(ConfigError::OtherRecipe { .. }) => {
                Some("name the recipe of the settings with --recipe")
            }
            _ => None,
        };
        let failure = Self::new(FailureKind::Failed, error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  facelatch train --recipe compact --data faces --teacher sface-vectors.safetensors --out runs/compact-1 --minutes 100
  facelatch train --recipe compact --data faces --teacher sface-vectors.safetensors --out runs/compact-1 --resume
  facelatch train --recipe detector --data data --teacher labels --out runs/detector-1 --steps 40000
  facelatch train --recipe facenet --data faces --out runs/facenet-1 --steps 3000 --set people=20 --set faces=8 --set mining=semi-hard";
