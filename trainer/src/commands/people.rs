//! `facelatch people list|rename|suspend|reinstate|erase|receipt|verify-receipt`, over the link.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use facelatch_shared::erasure;
use facelatch_shared::person::{Name, PersonState, SubjectId};
use facelatch_shared::protocol::{PersonRow, Request, Response};
use facelatch_shared::schedule::Day;
use facelatch_shared::time::UnixMs;
use serde_json::json;

use super::remote::{DeviceArgs, everyone, order, print, subject, table};
use crate::cli::{Failure, FailureKind};
use crate::remote::RemoteDoor;
use crate::remote::known::Workstation;

/// Arguments of `facelatch people`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    device: DeviceArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Who is enrolled
    List {
        /// The result as JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Give a person another name
    Rename {
        /// Whom, as `people list` shows it
        #[arg(value_parser = subject)]
        id: SubjectId,
        /// The new name
        name: String,
    },
    /// Let a person no longer enter; the enrolment stays
    Suspend {
        /// Whom
        #[arg(value_parser = subject)]
        id: SubjectId,
    },
    /// Let a suspended person enter again
    Reinstate {
        /// Whom
        #[arg(value_parser = subject)]
        id: SubjectId,
    },
    /// Forget a person for good: templates, name and key are destroyed
    Erase {
        /// Whom
        #[arg(value_parser = subject)]
        id: SubjectId,
        /// Do not ask back
        #[arg(long)]
        yes: bool,
    },
    /// The receipt of a person's erasure, signed by the door
    Receipt {
        /// Whose
        #[arg(value_parser = subject)]
        id: SubjectId,
    },
    /// Whether a door that this workstation knows signed a receipt, and every character of it is as it was
    VerifyReceipt {
        /// The receipt's text
        file: PathBuf,
        /// The door's key, where this workstation is not paired with it: 64 hexadecimal digits
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
    },
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::List { json } => list(&args.device, *json),
        Command::Rename { id, name } => {
            let name = Name::new(name)?;
            change(&args.device, &Request::Rename { id: *id, name }, &format!("{id} has another name."))
        }
        Command::Suspend { id } => {
            let request = Request::SetState { id: *id, state: PersonState::Suspended };
            change(&args.device, &request, &format!("{id} is suspended."))
        }
        Command::Reinstate { id } => {
            let request = Request::SetState { id: *id, state: PersonState::Active };
            change(&args.device, &request, &format!("{id} may enter again."))
        }
        Command::Erase { id, yes } => {
            if !yes {
                confirm(*id)?;
            }
            let mut door = args.device.connect()?;
            order(&mut door, &Request::Erase { id: *id })?;
            let receipt = receipt(&mut door, *id);
            door.close();
            print(&format!("{id} is erased.\n\n{}", receipt?))?;
            Ok(())
        }
        Command::Receipt { id } => {
            let mut door = args.device.connect()?;
            let text = receipt(&mut door, *id)?;
            door.close();
            print(&text)?;
            Ok(())
        }
        Command::VerifyReceipt { file, key } => verify(file, key.as_deref()),
    }
}

fn list(device: &DeviceArgs, json: bool) -> Result<(), Failure> {
    let mut door = device.connect()?;
    let people = everyone(&mut door)?;
    door.close();
    if json {
        let rows: Vec<_> = people
            .iter()
            .map(|row| {
                json!({
                    "id": row.id.0, "name": row.name.as_str(), "suspended": suspended(row),
                    "enrolled_at_ms": row.enrolled_at.0, "templates": row.templates,
                })
            })
            .collect();
        print(&format!("{:#}\n", serde_json::Value::from(rows)))?;
        return Ok(());
    }
    if people.is_empty() {
        eprintln!("Nobody is enrolled: `facelatch enrol --name NAME PHOTO…`, or at the door.");
        return Ok(());
    }
    let rows: Vec<[String; 5]> = people
        .iter()
        .map(|row| {
            let state = if suspended(row) { "suspended" } else { "active" };
            [
                row.id.to_string(),
                row.name.to_string(),
                state.into(),
                day(row.enrolled_at),
                row.templates.to_string(),
            ]
        })
        .collect();
    print(&table(["ID", "NAME", "STATE", "ENROLLED", "TEMPLATES"], &rows))?;
    Ok(())
}

fn change(device: &DeviceArgs, request: &Request, done: &str) -> Result<(), Failure> {
    let mut door = device.connect()?;
    order(&mut door, request)?;
    door.close();
    print(&format!("{done}\n"))?;
    Ok(())
}

fn receipt(door: &mut RemoteDoor, id: SubjectId) -> Result<String, Failure> {
    match door.ask(&Request::ErasureReceipt { id })? {
        Response::ErasureReceipt(receipt) => Ok(receipt.to_string()),
        _ => Err(door.unexpected().into()),
    }
}

fn verify(file: &Path, key: Option<&str>) -> Result<(), Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::new(FailureKind::Failed, format!("{}: {error}", file.display())))?;
    let refused = |what: String| Failure::new(FailureKind::Refused, what);
    let signer = erasure::verify(&text).map_err(|error| refused(format!("{}: {error}", file.display())))?;
    let whose = match key {
        Some(key) if key.eq_ignore_ascii_case(&signer.to_string()) => "the door of that key".to_owned(),
        Some(_) => return Err(refused(format!("another door signed the receipt: {signer}"))),
        None => {
            let known = Workstation::of_user()?.doors()?.into_iter().find(|door| door.key == signer);
            let known = known.ok_or_else(|| {
                refused(format!(
                    "the door that signed the receipt is none that this workstation is paired with: {signer}"
                ))
                .hint("--key says which key the door in question has; `facelatchd status` shows it")
            })?;
            known.name
        }
    };
    print(&format!("Genuine: {whose} signed it, and it was not changed.\n"))?;
    Ok(())
}

fn confirm(id: SubjectId) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        let what = "erasing cannot be undone, and there is nobody to ask";
        return Err(Failure::new(FailureKind::Usage, what).hint("--yes if it is meant"));
    }
    eprint!("Erase {id} for good? [y/N] ");
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|error| Failure::new(FailureKind::Failed, error))?;
    match line.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::new(FailureKind::Failed, "nothing was erased")),
    }
}

fn suspended(row: &PersonRow) -> bool {
    row.state == PersonState::Suspended
}

fn day(at: UnixMs) -> String {
    i32::try_from(at.0.div_euclid(86_400_000)).map_or_else(|_| "?".into(), |days| Day(days).to_string())
}

const EXAMPLES: &str = "\
Examples:
  facelatch people list
  facelatch people rename 3 \"Ada Lovelace\"
  facelatch people suspend 3
  facelatch people erase 3 --yes > erased-3.txt
  facelatch people verify-receipt erased-3.txt";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_of_enrolment() {
        assert_eq!(day(UnixMs(1_795_608_000_000)), "2026-11-25");
    }
}
