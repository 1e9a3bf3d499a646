//! `facelatchd unbar` and `accept-clock`: one order each.

use std::process::ExitCode;

use facelatch_shared::protocol::Request;

use super::Failure;
use super::door::Door;
use super::output::print;
use crate::config::Config;

/// Try people again after far too many failures.
///
/// After `session.bar_after` failures that may be attacks the door tries nobody. Look at `facelatchd events list` first.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  facelatchd unbar")]
pub(super) struct UnbarArgs {}

/// Say that the board's clock is right.
///
/// A clock that was set back is in doubt, and whoever has hours or days stays out, until it is past where it was before or
/// somebody says that it is right.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  facelatchd accept-clock")]
pub(super) struct AcceptClockArgs {}

pub(super) fn unbar(UnbarArgs {}: UnbarArgs, config: &Config) -> Result<ExitCode, Failure> {
    Door::running(config)?.order(Request::Unbar)?;
    print("People are tried again.\n")?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn accept_clock(
    AcceptClockArgs {}: AcceptClockArgs,
    config: &Config,
) -> Result<ExitCode, Failure> {
    Door::running(config)?.order(Request::AcceptClock)?;
    print("The clock counts from now on.\n")?;
    Ok(ExitCode::SUCCESS)
}
