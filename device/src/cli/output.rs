//! Results on stdout; a reader that has seen enough (`| head`) is no error.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use facelatch_shared::access::PinHash;
use serde::Serialize;

use super::{Failure, FailureKind};
use crate::pin::Pin;
use crate::store::SystemEntropy;

/// Writes `text` as it is.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    print_or_ended(text).map(drop)
}

/// The same; `false` when nobody reads any more.
pub(super) fn print_or_ended(text: &str) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::failed(format!("the result cannot be written: {error}"))),
    }
}

/// Writes `value` as indented JSON.
pub(super) fn print_json<T: Serialize>(value: &T) -> Result<(), Failure> {
    print(&(json(value)? + "\n"))
}

fn json<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map_err(Failure::failed)
}

/// Reads a PIN from standard input and hashes it here, so that it goes no further.
pub(super) fn read_pin() -> Result<PinHash, Failure> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        eprintln!("PIN, 4 to 12 digits (shown as you type):");
    }
    let mut line = String::new();
    stdin.lock().read_line(&mut line).map_err(Failure::failed)?;
    let usage = |error| Failure::new(FailureKind::Usage, error);
    Pin::parse(line.trim()).map_err(usage)?.hash(&mut SystemEntropy).map_err(Failure::failed)
}
