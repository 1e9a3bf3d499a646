//! `facelatchd demo`: the simulated door.

use std::process::ExitCode;

use super::Failure;
use super::daemon::stop_on_signal;
use crate::demo::{self, DemoArgs};

/// Play a simulated door from photographs or a live camera, and tell its story.
///
/// The pictures come as camera frames through the whole door: detect, align, embed, match, decide, lock, panel, log. People are enrolled
/// at the simulated door and let in on other pictures; strangers are kept out. The story tells the similarity and the time of each
/// stage. Exit code 1 if anything went otherwise than it says.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    demo: DemoArgs,
}

pub(super) fn run(args: Args) -> Result<ExitCode, Failure> {
    let mut out = std::io::stdout();
    let well = demo::run(&args.demo, &mut out, stop_on_signal()?).map_err(Failure::failed)?;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const EXAMPLES: &str = "\
Examples:
  facelatchd demo                            with the photographs that `make demo` fetched
  facelatchd demo --faces ~/family           with your own, one sub-folder a person
  facelatchd demo --camera /dev/video0       live";
