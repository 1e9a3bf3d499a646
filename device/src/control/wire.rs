//! One message over a socket, with a deadline for the whole of it: a peer that sends a byte a second is as late as one that sends none.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use facelatch_shared::protocol::{FrameError, MAX_FRAME, decode, encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Reads one message; it is the last that the peer sends. At most [`MAX_FRAME`] bytes are held.
pub(super) fn receive<T: DeserializeOwned>(
    stream: &mut UnixStream,
    within: Duration,
) -> Result<T, WireError> {
    let deadline = Instant::now() + within;
    let mut frame = Vec::new();
    let mut chunk = [0; 4096];
    while !frame.contains(&0) {
        if frame.len() > MAX_FRAME {
            return Err(FrameError::TooLong { bytes: frame.len() }.into());
        }
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut chunk) {
            Ok(0) => return Err(WireError::Ended),
            Ok(count) => frame.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(decode(&frame)?)
}

/// Writes one message.
pub(super) fn send<T: Serialize>(
    stream: &mut UnixStream,
    message: &T,
    within: Duration,
) -> Result<(), WireError> {
    let deadline = Instant::now() + within;
    let frame = encode(message)?;
    let mut rest = frame.as_slice();
    while !rest.is_empty() {
        stream.set_write_timeout(Some(left(deadline)?))?;
        match stream.write(rest) {
            Ok(0) => return Err(WireError::Ended),
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Never zero, which the system would take for "for ever".
fn left(deadline: Instant) -> Result<Duration, WireError> {
    deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()).ok_or(WireError::TimedOut)
}

/// Why no message came or went.
#[derive(Debug, Error)]
pub(super) enum WireError {
    #[error("no whole message in time")]
    TimedOut,
    #[error("the connection ended")]
    Ended,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::UnexpectedEof => Self::Ended,
            _ => Self::Io(error),
        }
    }
}
