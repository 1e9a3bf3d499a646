//! `facelatchd people`: who may enter.

mod list;
mod enrol;
mod rename;
mod state;
mod rights;
mod erase;
mod receipt;
mod export;

use std::process::ExitCode;
use std::str::FromStr;

use clap::Subcommand;
use facelatch_shared::person::{PersonState, SubjectId};
use serde::Serialize;

use super::Failure;
use super::door::Door;
use super::output::{print, print_json};
use crate::config::Config;

/// Enrol people at the door; list, rename, suspend and erase them.
///
/// The running door is asked through its socket. While none runs, all but enrolment works on the door's files.
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
    /// Who is enrolled
    List,
    Enrol(enrol::Args),
    Rename(rename::Args),
    /// Let a person no longer enter; the enrolment stays
    Suspend(state::Args),
    /// Let a suspended person enter again
    Reinstate(state::Args),
    Permit(rights::PermitArgs),
    Show(rights::ShowArgs),
    Erase(erase::Args),
    Receipt(receipt::ReceiptArgs),
    VerifyReceipt(receipt::VerifyArgs),
    Export(export::ExportArgs),
    Import(export::ImportArgs),
}

pub(super) fn run(args: Args, config: &Config) -> Result<ExitCode, Failure> {
    match args.command {
        Command::List => list::run(config, args.json),
        Command::Enrol(enrol) => enrol::run(&enrol, config, args.json),
        Command::Rename(rename) => rename::run(rename, config, args.json),
        Command::Suspend(who) => state::run(&who, PersonState::Suspended, config, args.json),
        Command::Reinstate(who) => state::run(&who, PersonState::Active, config, args.json),
        Command::Permit(permit) => rights::permit(permit, config, args.json),
        Command::Show(who) => rights::show(&who, config, args.json),
        Command::Erase(erase) => erase::run(&erase, config, args.json),
        Command::Receipt(who) => receipt::show(&who, config, args.json),
        Command::VerifyReceipt(file) => receipt::verify(&file, config),
        Command::Export(export) => export::export(&export, config),
        Command::Import(import) => export::import(&import, config),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// A person's number as it is typed: `3` or `#3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Id(SubjectId);

impl FromStr for Id {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix('#').unwrap_or(text);
        match digits.parse() {
            Ok(number) if digits.starts_with(|c: char| c.is_ascii_digit()) => Ok(Self(SubjectId(number))),
            _ => Err("an ID is a number such as 3 or #3; `facelatchd people list` shows them"),
        }
    }
}

/// What a change did, for programs.
#[derive(Debug, Serialize)]
struct Changed {
    id: u32,
    name: String,
    change: &'static str,
}

impl Changed {
    fn print(&self, json: bool) -> Result<(), Failure> {
        if json {
            return print_json(self);
        }
        print(&format!("#{} {} is {}\n", self.id, self.name, self.change))
    }
}

/// The name of `id`, for the person who reads; the door itself refuses a number that nobody has.
fn name_of(door: &mut Door, id: SubjectId) -> Result<String, Failure> {
    Ok(door.person(id)?.map_or_else(String::new, |row| row.name.to_string()))
}

const EXAMPLES: &str = "\
Examples:
  facelatchd people enrol \"Ada Lovelace\"     she looks at the camera until it is done
  facelatchd people list --json              for programs
  facelatchd people suspend 3                she may not enter until she is reinstated
  facelatchd people permit 3 --until 2026-12-31
  facelatchd people erase 3 --yes            without asking back
  facelatchd people receipt 3                the door's word that nothing is left";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_taken_with_and_without_their_mark() {
        assert_eq!("3".parse(), Ok(Id(SubjectId(3))));
        assert_eq!("#3".parse(), Ok(Id(SubjectId(3))));
        for text in ["", "#", "##3", "+3", "-1", "3a", "4294967296", "Ada"] {
            assert!(text.parse::<Id>().is_err(), "{text}");
        }
    }
}
