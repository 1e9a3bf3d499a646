//! `facelatchd` without a subcommand: the door.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::Failure;
use crate::config::Config;
use crate::daemon::{self, Signals};

/// Runs the door of `config` until SIGINT or SIGTERM; SIGHUP reads `path` again.
pub(super) fn run(config: Config, path: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let signals = Signals { stop: stop_on_signal()?, reload: Arc::new(AtomicBool::new(false)), config: path };
    signal_hook::flag::register(SIGHUP, Arc::clone(&signals.reload)).map_err(Failure::failed)?;
    daemon::run(config, &signals).map_err(Failure::failed)?;
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
