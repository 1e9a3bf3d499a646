//! `facelatchd demo`: the simulated door.

use std::process::ExitCode;

use super::Failure;
use super::daemon::stop_on_signal;
use crate::demo::{self, DemoArgs};

/// Arguments of `facelatchd demo`.
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
