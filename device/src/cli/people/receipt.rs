//! `facelatchd people receipt` and `verify-receipt`: the door's word for an erasure.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use facelatch_shared::erasure::{self, ErasureReceipt};
use facelatch_shared::person::SubjectId;
use facelatch_shared::protocol::{Request, Response};
use serde::Serialize;

use super::super::door::{Door, unexpected};
use super::super::output::{print, print_json};
use super::super::{Failure, FailureKind};
use super::Id;
use crate::config::Config;
use crate::store::door_key;

/// The receipt of a person's erasure, signed by this door.
///
/// It says how much was destroyed and names nobody. Whoever has the text and the door's key can verify it: `facelatch people verify-receipt` at a
/// workstation, `facelatchd people verify-receipt` here.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  facelatchd people receipt 3 > erased-3.txt")]
pub(super) struct ReceiptArgs {
    /// Whose, as the list once showed it: 3 or #3
    id: Id,
}

/// Whether this very door signed a receipt, and every character of it is as it was.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  facelatchd people verify-receipt erased-3.txt")]
pub(super) struct VerifyArgs {
    /// The receipt's text; - is standard input
    file: PathBuf,
}

pub(super) fn show(args: &ReceiptArgs, config: &Config, json: bool) -> Result<(), Failure> {
    let Id(id) = args.id;
    let receipt = of(&mut Door::open(config)?, id)?;
    if json { print_json(&Shown::from(&receipt)) } else { print(&receipt.to_string()) }
}

/// The receipt as the door has it.
pub(super) fn of(door: &mut Door, id: SubjectId) -> Result<ErasureReceipt, Failure> {
    match door.ask(Request::ErasureReceipt { id })? {
        Response::ErasureReceipt(receipt) => Ok(receipt),
        _ => Err(unexpected()),
    }
}

/// A receipt for programs: what it says, and its text, which is what was signed.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    id: u32,
    enrolled_at_ms: i64,
    erased_at_ms: i64,
    templates: u16,
    models: u8,
    chips: u8,
    receipt: String,
}

impl From<&ErasureReceipt> for Shown {
    fn from(receipt: &ErasureReceipt) -> Self {
        let erasure = &receipt.erasure;
        Self {
            id: erasure.subject.0,
            enrolled_at_ms: erasure.enrolled_at.0,
            erased_at_ms: erasure.erased_at.0,
            templates: erasure.templates,
            models: erasure.models,
            chips: erasure.chips,
            receipt: receipt.to_string(),
        }
    }
}

pub(super) fn verify(args: &VerifyArgs, config: &Config) -> Result<(), Failure> {
    let refused = |what: String| Failure::new(FailureKind::Refused, what);
    let signer = erasure::verify(&read(&args.file)?).map_err(|error| refused(error.to_string()))?;
    let own = door_key(&config.door.state_dir).map_err(Failure::failed)?.public();
    if signer != own {
        return Err(refused(format!("another door signed the receipt: {signer}; this one is {own}")));
    }
    print("Genuine: this door signed it, and it was not changed.\n")
}

fn read(path: &Path) -> Result<String, Failure> {
    let failed = |error| Failure::failed(format!("{}: {error}", path.display()));
    let mut text = String::new();
    let input: Box<dyn std::io::Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).map_err(failed)?)
    };
    input.take(MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// A receipt has less than a kilobyte.
const MAX_BYTES: u64 = 64 * 1024;
