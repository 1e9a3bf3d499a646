//! `facelatchd people erase`: asks back on a terminal, and wants `--yes` elsewhere.

use std::io::{IsTerminal as _, Write as _};

use facelatch_shared::protocol::Request;

use super::super::door::Door;
use super::super::{Failure, FailureKind};
use super::{Changed, Id, name_of};
use crate::config::Config;

/// Forget a person for good: templates, name and key are destroyed.
///
/// The number is never given again; the log keeps it, without the name.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  facelatchd people erase 3\n  facelatchd people erase 3 --yes")]
pub(super) struct Args {
    /// Whom, as `people list` shows it: 3 or #3
    id: Id,
    /// Do not ask back
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(args: &Args, config: &Config, json: bool) -> Result<(), Failure> {
    let Id(id) = args.id;
    if !args.yes && !std::io::stdin().is_terminal() {
        return Err(Failure::new(FailureKind::Usage, "erasing cannot be undone, and there is nobody to ask")
            .hint(format!("`facelatchd people erase {} --yes` if it is meant", id.0)));
    }
    // The door is not held while a person thinks.
    let name = name_of(&mut Door::open(config)?, id)?;
    if !args.yes && !name.is_empty() && !confirmed(&format!("Erase {id} {name} for good?"))? {
        return Err(Failure::failed("nothing was erased"));
    }
    Door::open(config)?.order(Request::Erase { id })?;
    Changed { id: id.0, name, change: "erased" }.print(json)
}

fn confirmed(question: &str) -> Result<bool, Failure> {
    eprint!("{question} [y/N] ");
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(Failure::failed)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}
