//! What the commands that talk to a door share.

use std::io::Write as _;

use facelatch_shared::person::{NameError, SubjectId};
use facelatch_shared::protocol::{PAGE, PersonRow, Request, Response};

use crate::cli::{Failure, FailureKind};
use crate::remote::known::{KnownError, Workstation};
use crate::remote::photo::PhotoError;
use crate::remote::{RemoteDoor, RemoteError};

/// Which door.
#[derive(Debug, clap::Args)]
pub(super) struct DeviceArgs {
    /// The door: its address, or its name [default: the only one that this workstation is paired with]
    #[arg(long, value_name = "HOST[:PORT]")]
    device: Option<String>,
}

impl DeviceArgs {
    /// Connects.
    pub(super) fn connect(&self) -> Result<RemoteDoor, Failure> {
        let station = Workstation::of_user()?;
        let door = station.find(self.device.as_deref())?;
        Ok(RemoteDoor::connect(&station.identity()?, &door)?)
    }
}

/// Asks for something to be done.
pub(super) fn order(door: &mut RemoteDoor, request: &Request) -> Result<(), Failure> {
    match door.ask(request)? {
        Response::Done => Ok(()),
        _ => Err(door.unexpected().into()),
    }
}

/// Everyone, page by page.
pub(super) fn everyone(door: &mut RemoteDoor) -> Result<Vec<PersonRow>, Failure> {
    let mut all = Vec::new();
    let mut from = SubjectId(0);
    loop {
        let Response::People(page) = door.ask(&Request::ListPeople { from })? else {
            return Err(door.unexpected().into());
        };
        let ended = page.len() < PAGE;
        // A page that leads nowhere ends it, whatever its length.
        let next = page.last().and_then(|row| row.id.0.checked_add(1)).filter(|next| *next > from.0);
        all.extend(page);
        match next {
            Some(next) if !ended => from = SubjectId(next),
            _ => return Ok(all),
        }
    }
}

/// A person's number as it is typed: `3` or `#3`.
pub(super) fn subject(text: &str) -> Result<SubjectId, &'static str> {
    let digits = text.strip_prefix('#').unwrap_or(text);
    match digits.parse() {
        Ok(number) if digits.starts_with(|c: char| c.is_ascii_digit()) => Ok(SubjectId(number)),
        _ => Err("an ID is a number such as 3 or #3; `facelatch people list` shows them"),
    }
}

/// Writes a result; a reader that has seen enough (`| head`) is no error. Whether anybody reads on.
pub(super) fn print(text: &str) -> Result<bool, Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => {
            Err(Failure::new(FailureKind::Failed, format!("the result cannot be written: {error}")))
        }
    }
}

/// Lays `rows` out under `head`, columns two blanks apart.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(|text| text.chars().count());
    for row in rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let mut line = |cells: [&str; N]| {
        let text: String =
            cells.iter().zip(widths).map(|(cell, widest)| format!("{cell:<widest$}  ")).collect();
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(head);
    for row in rows {
        line(row.each_ref().map(String::as_str));
    }
    out
}

impl From<RemoteError> for Failure {
    fn from(error: RemoteError) -> Self {
        let kind = if error.is_refusal() { FailureKind::Refused } else { FailureKind::Failed };
        let hint = error.hint();
        // What the error shows of its cause is not told twice.
        let failure = Self::new(kind, error.to_string());
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<KnownError> for Failure {
    fn from(error: KnownError) -> Self {
        let kind = match &error {
            KnownError::Which { .. } | KnownError::Unknown { .. } | KnownError::NoDoor => FailureKind::Usage,
            _ => FailureKind::Failed,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<PhotoError> for Failure {
    fn from(error: PhotoError) -> Self {
        Self::new(FailureKind::Failed, error)
    }
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Self {
        Self::new(FailureKind::Usage, error.to_string())
    }
}
