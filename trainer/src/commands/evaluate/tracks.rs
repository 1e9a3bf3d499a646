//! `facelatch evaluate tracks`.

use std::path::PathBuf;

use crate::cli::{Failure, FailureKind};
use crate::evaluate::pairs::Pairs;
use crate::evaluate::tracks::{self, SPLITS};
use crate::progress::Bar;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder with NAME/NAME_0001.jpg
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Pairs of stills, in LFW's format, that become pairs of tracks
    #[arg(long, value_name = "FILE")]
    pairs: PathBuf,
    /// Folder to fill
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Frames of each track
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    frames: u32,
    /// Seed of the camera's drift
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let pairs = Pairs::read(&args.pairs)?;
    let made = tracks::make(&args.images, &pairs, &args.out, args.frames as usize, args.seed, &Bar::new())
        .map_err(|e| Failure::new(FailureKind::Failed, e))?;
    println!(
        "{made} tracks of {} frames made from stills in {}, pairs in {}",
        args.frames,
        args.out.display(),
        args.out.join(SPLITS).display()
    );
    Ok(())
}

pub(super) const HELP: &str = "\
Each still becomes a short video: a hand-held camera drifts, light changes, frames blur and are compressed. A face in it never turns or \
speaks, so figures on such tracks exercise the protocol and say nothing about video.

Examples:
  facelatch evaluate tracks --images lfw --pairs pairsDevTest.txt --out tracks
  facelatch evaluate ytf --frames tracks --splits tracks/splits.txt";
