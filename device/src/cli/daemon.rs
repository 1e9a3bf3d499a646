//! `facelatchd` without a subcommand: the door.

use std::process::ExitCode;

use super::Failure;
use crate::config::Config;

/// Runs the door of `config` until it is told to stop.
pub(super) fn run(config: Config) -> Result<ExitCode, Failure> {
    let _ = config;
    Err(Failure::failed("this build holds no door loop")
        .hint("`facelatchd people` and `events` work on the door's files"))
}
