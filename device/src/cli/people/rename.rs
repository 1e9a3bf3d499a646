//! `facelatchd people rename`.

use facelatch_shared::person::Name;
use facelatch_shared::protocol::Request;

use super::super::door::Door;
use super::{Changed, Failure, Id};
use crate::config::Config;

/// Give a person another name.
///
/// The number, the views and the log stay.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  facelatchd people rename 3 \"Ada Byron\"")]
pub(super) struct Args {
    /// Whom, as `people list` shows it: 3 or #3
    id: Id,
    /// The new name: 1 to 48 bytes
    name: Name,
}

pub(super) fn run(args: Args, config: &Config, json: bool) -> Result<(), Failure> {
    let Id(id) = args.id;
    let name = args.name.to_string();
    Door::open(config)?.order(Request::Rename { id, name: args.name })?;
    Changed { id: id.0, name, change: "renamed" }.print(json)
}
