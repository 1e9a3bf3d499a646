//! `facelatchd demo`: the simulated door.

use std::path::PathBuf;
use std::process::ExitCode;

use super::Failure;

/// Plays photographs (or a live camera) as camera frames through the whole door: detect, align, embed, match, decide, lock, panel,
/// log. Enrols people at the simulated door, lets them in on other pictures, keeps strangers out, and tells the story with the
/// similarity and the time of each stage. Exits with 1 if anything went otherwise than the story says.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Your own photographs: one sub-folder a person, at least two pictures in each
    #[arg(long, value_name = "DIR", conflicts_with = "camera")]
    pub faces: Option<PathBuf>,
    /// A live camera instead of photographs
    #[arg(long, value_name = "DEV")]
    pub camera: Option<PathBuf>,
    /// The models, with their manifest.toml
    #[arg(long, value_name = "DIR")]
    pub models: Option<PathBuf>,
    /// Where the demo's own photographs are
    #[arg(long, value_name = "DIR", conflicts_with_all = ["faces", "camera"])]
    pub photos: Option<PathBuf>,
    /// Where the panel's screens are written as PNG files
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

pub(super) fn run(args: Args) -> Result<ExitCode, Failure> {
    let _ = args;
    Err(Failure::failed("this build holds no demo"))
}

const EXAMPLES: &str = "\
Examples:
  facelatchd demo                            with the photographs that `make demo` fetched
  facelatchd demo --faces ~/family           with your own, one sub-folder a person
  facelatchd demo --camera /dev/video0       live";
