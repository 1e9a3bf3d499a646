//! Results on stdout; a reader that has seen enough (`| head`) is no error.

use std::io::{self, Write as _};

use serde::Serialize;

use super::Failure;

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
