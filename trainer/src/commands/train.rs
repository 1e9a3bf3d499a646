//! `facelatch train`: distil the compact net from a teacher's vectors.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tch::Device;

use crate::train::{self, Job, SETTINGS, TrainError, config::RunConfig};

/// Train a recipe. The run's folder gets its settings (run.toml), log (log.jsonl) and checkpoint; create a file named `stop` in it to
/// end early with a checkpoint.
#[derive(Debug, Args)]
pub struct TrainArgs {
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
            Self::Cuda if !cuda => Err("no CUDA: this libtorch is a CPU build, or no GPU is found; point LIBTORCH at a CUDA build \
                 and rebuild, or use --device cpu"
                .to_owned()),
            Self::Cpu => Ok(Device::Cpu),
            _ if cuda => Ok(Device::Cuda(0)),
            _ => Ok(Device::Cpu),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// What to tell the user.
pub fn run(args: &TrainArgs) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let Recipe::Compact = args.recipe;
    let saved = args.out.join(SETTINGS);
    let mut config = match &args.config {
        Some(path) => RunConfig::read(path)?,
        None if args.resume => RunConfig::read(&saved)?,
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
        device: args.device.pick()?,
        resume: args.resume,
        start_from: args.start_from.clone(),
    };
    let counters = train::run(&job, config).map_err(|e: TrainError| Box::new(e) as Box<dyn std::error::Error + Send + Sync>)?;
    println!("{} steps, {} chips, {:.1} h", counters.step, counters.images, counters.seconds / 3600.0);
    Ok(())
}
