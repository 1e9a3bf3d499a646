//! `facelatchd events`: what the door has logged.

mod list;
mod export;
mod verify;
mod row;

use std::process::ExitCode;

use clap::Subcommand;
use facelatch_shared::event::Event;
use facelatch_shared::person::SubjectId;

use super::Failure;
use crate::config::Config;

/// List, export and verify what the door has logged.
///
/// Every entry is chained to the one before by a keyed hash. Subjects are numbers; names never reach the log. Times are UTC.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Results as JSON, for programs
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::Args),
    Export(export::Args),
    /// Check that no entry was changed, removed or damaged
    Verify,
}

pub(super) fn run(args: Args, config: &Config) -> Result<ExitCode, Failure> {
    match args.command {
        Command::List(list) => list::run(&list, config, args.json),
        Command::Export(export) => export::run(&export, config, args.json),
        Command::Verify => verify::run(config, args.json),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// The event for programs, where it is about this person.
pub(super) fn about(event: &Event, id: SubjectId) -> Option<serde_json::Value> {
    let row = row::Row::from(event);
    // Numbers and words alone: they become JSON.
    (row.subject == Some(id.0) || row.other_is(id)).then(|| serde_json::to_value(&row).unwrap_or_default())
}

const EXAMPLES: &str = "\
Examples:
  facelatchd events list                     the last 50 entries
  facelatchd events list --from 120          all entries from number 120 on
  facelatchd events list --follow            and what happens from now on
  facelatchd events export log.csv           for a spreadsheet
  facelatchd events export log.jsonl         one JSON object a line, for programs
  facelatchd events verify                   exit code 3 when something was changed";
