//! The asking end of the control socket.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use facelatch_shared::protocol::{Request, Response, VERSION};

use super::wire::{WireError, receive, send};
use super::{ControlError, socket_path};

/// A running door.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    answer_within: Duration,
}

impl Client {
    /// Finds the door whose files are in `state_dir`, and makes sure that both speak the same version.
    ///
    /// # Errors
    /// [`ControlError::NotRunning`] when nobody answers, [`ControlError::Denied`] when the door is another user's,
    /// [`ControlError::Version`], or what the connection met.
    pub fn connect(state_dir: &Path) -> Result<Self, ControlError> {
        let client = Self { socket: socket_path(state_dir), answer_within: ANSWER_WITHIN };
        match client.ask(&Request::Hello { version: VERSION })? {
            Response::Hello { version: VERSION } => Ok(client),
            Response::Hello { version: theirs } => Err(ControlError::Version { theirs }),
            _ => Err(ControlError::Ended),
        }
    }

    /// Asks one question over a connection of its own, so that others get their turn.
    ///
    /// # Errors
    /// [`ControlError`]; after [`ControlError::TimedOut`] and [`ControlError::Ended`] the door may or may not have done it.
    pub fn ask(&self, request: &Request) -> Result<Response, ControlError> {
        let mut stream = UnixStream::connect(&self.socket).map_err(|error| self.unreachable(error))?;
        // A door that refuses before it has read everything answers all the same: a broken pipe is told by the reading side.
        match send(&mut stream, request, self.answer_within) {
            Ok(()) | Err(WireError::Ended) => {}
            Err(error) => return Err(self.failed(error)),
        }
        receive(&mut stream, self.answer_within).map_err(|error| self.failed(error))
    }

    fn unreachable(&self, error: io::Error) -> ControlError {
        let path = self.socket.display().to_string();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => {
                ControlError::NotRunning { path }
            }
            io::ErrorKind::PermissionDenied => ControlError::Denied { path },
            _ => ControlError::Io { path, source: error },
        }
    }

    fn failed(&self, error: WireError) -> ControlError {
        match error {
            WireError::TimedOut => ControlError::TimedOut { seconds: self.answer_within.as_secs() },
            WireError::Ended => ControlError::Ended,
            WireError::Frame(error) => ControlError::Frame(error),
            WireError::Io(source) => ControlError::Io { path: self.socket.display().to_string(), source },
        }
    }
}

/// Longer than a door that waits for its session and for another client takes to say that it is busy.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
