//! `facelatchd people suspend` and `reinstate`.

use facelatch_shared::person::PersonState;
use facelatch_shared::protocol::Request;

use super::super::door::Door;
use super::{Changed, Failure, Id, name_of};
use crate::config::Config;

/// Whether a person may enter.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  facelatchd people suspend 3\n  facelatchd people reinstate 3")]
pub(super) struct Args {
    /// Whom, as `people list` shows it: 3 or #3
    id: Id,
}

pub(super) fn run(args: &Args, state: PersonState, config: &Config, json: bool) -> Result<(), Failure> {
    let Id(id) = args.id;
    let mut door = Door::open(config)?;
    let name = name_of(&mut door, id)?;
    door.order(Request::SetState { id, state })?;
    let change = match state {
        PersonState::Active => "reinstated",
        PersonState::Suspended => "suspended",
    };
    Changed { id: id.0, name, change }.print(json)
}
