//! `facelatchd` without a subcommand: the door.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};

use super::Failure;
use crate::config::Config;
use crate::daemon;

/// Runs the door of `config` until SIGINT or SIGTERM.
pub(super) fn run(config: Config) -> Result<ExitCode, Failure> {
    daemon::run(&config, stop_on_signal()?).map_err(Failure::failed)?;
    Ok(ExitCode::SUCCESS)
}

/// A flag that is set when the program is told to end.
pub(super) fn stop_on_signal() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(Failure::failed)?;
    }
    Ok(stop)
}
