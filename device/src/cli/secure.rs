//! `facelatchd secure`, and the guard that the door starts itself.

use std::io::stdin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::Failure;
use super::output::print;
use crate::config::Config;
use crate::lock::Lock as _;
use crate::lock::gpio::{GpioLock, GpioLockSpec};
use crate::lock::guard;

/// Secure the lock of a door that does not run.
///
/// For the service manager after the door has ended (ExecStopPost), however it ended. Fails while the door runs: it holds the line.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  facelatchd secure")]
pub(super) struct Args {}

pub(super) fn run(Args {}: Args, config: &Config) -> Result<ExitCode, Failure> {
    match &config.lock {
        Some(spec) => {
            GpioLock::open(spec).and_then(|mut lock| lock.secure()).map_err(Failure::failed)?;
            print("secured\n")?;
        }
        None => print("no lock is configured\n")?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Secure the lock when standard input ends (the door starts this by itself)
#[derive(Debug, clap::Args)]
pub(super) struct GuardArgs {
    /// The table [lock] as JSON
    lock: String,
}

pub(super) fn run_guard(args: &GuardArgs) -> Result<ExitCode, Failure> {
    let spec: GpioLockSpec = serde_json::from_str(&args.lock).map_err(Failure::failed)?;
    // Whoever ends the door by a signal to all its processes leaves this one its work.
    let ignored = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ignored)).map_err(Failure::failed)?;
    }
    guard::stand(&spec, stdin()).map_err(Failure::failed)?;
    Ok(ExitCode::SUCCESS)
}
