//! `facelatch train`: distil the compact net from a teacher's vectors.

use std::path::PathBuf;

use clap::ValueEnum;
use tch::Device;

use crate::cli::{Failure, FailureKind};
use crate::train::{self, Job, SETTINGS, config::RunConfig};

/// Train a recipe. The run's folder gets its settings (run.toml), log (log.jsonl) and checkpoint; create a file named `stop` in it to
/// end early with a checkpoint.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to train.
    #[arg(long, value_enum, default_value = "compact")]
    pub recipe: Recipe,
    /// Folder with manifest.csv and tar shards of aligned 128×128 faces.
    #[arg(long)]
    pub data: PathBuf,
    /// The teacher's vectors: NAME.safetensors with NAME.paths beside it.
    #[arg(long)]
    pub teacher: PathBuf,
    /// Folder of the run.
    #[arg(long)]
    pub out: PathBuf,
    /// Settings in TOML; without it the defaults, or with --resume those of the run.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Length of the schedule in minutes of training, pauses left out.
    #[arg(long)]
    pub minutes: Option<f64>,
    /// Length of the schedule in steps: repeatable, unlike minutes.
    #[arg(long, conflicts_with = "minutes")]
    pub steps: Option<u64>,
    /// Go on from the run's checkpoint.
    #[arg(long)]
    pub resume: bool,
    /// Start from the weights of another run's checkpoint or weights file.
    #[arg(long, conflicts_with = "resume")]
    pub start_from: Option<PathBuf>,
    /// End with a checkpoint after this many steps, before the schedule does.
    #[arg(long)]
    pub pause_at: Option<u64>,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "auto")]
    pub device: DeviceChoice,
}

/// What can be trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Recipe {
    /// The net for the door, distilled.
    Compact,
}

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DeviceChoice {
    /// CUDA where libtorch has it and finds a GPU, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The first CUDA GPU.
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
    let failed = |error: &dyn std::fmt::Display| Failure::new(FailureKind::Failed, error.to_string());
    let Recipe::Compact = args.recipe;
    let mut config = match &args.config {
        Some(path) => RunConfig::read(path).map_err(|e| failed(&e))?,
        None if args.resume => RunConfig::read(&args.out.join(SETTINGS)).map_err(|e| failed(&e))?,
        None => RunConfig::default(),
    };
    if let Some(minutes) = args.minutes {
        (config.minutes, config.steps) = (minutes, 0);
    }
    if let Some(steps) = args.steps {
        config.steps = steps;
    }
    let job = Job {
        data: args.data.clone(),
        teacher: args.teacher.clone(),
        out: args.out.clone(),
        device: args.device.pick().map_err(|e| failed(&e))?,
        resume: args.resume,
        start_from: args.start_from.clone(),
        pause_at: args.pause_at,
    };
    let counters = train::run(&job, config).map_err(|e| failed(&e))?;
    println!("{} steps, {} chips, {:.1} h", counters.step, counters.images, counters.seconds / 3600.0);
    Ok(())
}
