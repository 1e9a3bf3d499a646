//! `facelatchd people erase`: asks back on a terminal, and wants `--yes` elsewhere.

use std::io::{IsTerminal as _, Write as _};

use facelatch_shared::protocol::Request;
use serde::Serialize;

use super::super::door::Door;
use super::super::output::{print, print_json};
use super::super::{Failure, FailureKind};
use super::{Changed, Id, name_of, receipt};
use crate::config::Config;

/// Forget a person for good: templates, name and key are destroyed.
///
/// The number is never given again; the log keeps it, without the name, and a receipt that the door signs.
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
    let mut door = Door::open(config)?;
    door.order(Request::Erase { id })?;
    let receipt = receipt::of(&mut door, id);
    if json {
        let receipt = receipt.ok().map(|receipt| receipt::Shown::from(&receipt));
        return print_json(&Erased { id: id.0, name, change: "erased", receipt });
    }
    Changed { id: id.0, name, change: "erased" }.print(json)?;
    match receipt {
        Ok(receipt) => print(&format!("\n{receipt}")),
        Err(failure) => {
            eprintln!("warning: there is no receipt yet; `facelatchd people receipt {}` asks again", id.0);
            eprint!("{failure}");
            Ok(())
        }
    }
}

/// As [`Changed`], with the receipt.
#[derive(Debug, Serialize)]
struct Erased {
    id: u32,
    name: String,
    change: &'static str,
    receipt: Option<receipt::Shown>,
}

fn confirmed(question: &str) -> Result<bool, Failure> {
    eprint!("{question} [y/N] ");
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(Failure::failed)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}
