//! The door's administration on the board itself: a private socket, one question a connection, answered by the session.
//!
//! `facelatchd people rename 3 Ada` asks the running door through [`Client`]; where none runs, [`Offline`] opens the files and asks
//! them. Both end in [`answer`], so that a stopped door and a running one cannot drift apart. Who may connect is the business of the
//! file system: the socket belongs to the door's user and has mode 0600.

mod answer;
mod state;
mod wire;
mod server;
mod client;
mod offline;

pub use answer::answer;
pub(crate) use answer::refused as refusal_of;

pub use client::Client;
pub use offline::Offline;
pub use server::{Limits, Server};
pub use state::{State, StateError};

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;

use facelatch_shared::protocol::{FrameError, Request, Response, VERSION};
use thiserror::Error;

use crate::door::Door;

/// One question on its way to the session.
#[derive(Debug)]
pub struct ControlMessage {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes; there is room for one.
    pub reply: SyncSender<Response>,
}

impl ControlMessage {
    /// Gives the answer. Never blocks; nobody may be waiting any more.
    pub fn answer(self, response: Response) {
        let _ = self.reply.try_send(response);
    }
}

/// What reaches the session's thread from those who talk to the door.
#[expect(
    clippy::large_enum_variant,
    reason = "a few messages wait at most, and most of them are the larger kind"
)]
pub enum ToSession {
    /// A question.
    Ask(ControlMessage),
    /// A short piece of work at the door, between two frames.
    Visit(Visit),
}

/// Work at the door, done on the session's thread; it must be short, because nobody is recognised meanwhile.
pub type Visit = Box<dyn FnOnce(&mut Door) + Send>;

impl From<ControlMessage> for ToSession {
    fn from(message: ControlMessage) -> Self {
        Self::Ask(message)
    }
}

impl std::fmt::Debug for ToSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ask(message) => message.fmt(f),
            Self::Visit(_) => f.write_str("Visit"),
        }
    }
}

/// Where the socket of the door whose files are in `state_dir` stands.
#[must_use]
pub fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join("control.sock")
}

/// Why a door could not be asked, or a socket not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Nobody answers there.
    #[error(
        "{path}: no facelatchd answers here; start it, or look whether door.state_dir is the same for both"
    )]
    NotRunning {
        /// The socket.
        path: String,
    },
    /// Another user's door.
    #[error("{path}: this door belongs to another user; run the command as that user or with sudo")]
    Denied {
        /// The socket.
        path: String,
    },
    /// A door is served there already.
    #[error(
        "{path}: another facelatchd serves this door; stop that one first, or set another door.state_dir"
    )]
    AlreadyServed {
        /// The socket.
        path: String,
    },
    /// Something else stands in the socket's place.
    #[error("{path}: there is something here that is no socket; move it away")]
    NotASocket {
        /// The path.
        path: String,
    },
    /// No answer in time.
    #[error(
        "the door did not answer in {seconds} s; it may be busy and may still do what was asked: look before you ask again"
    )]
    TimedOut {
        /// How long was waited.
        seconds: u64,
    },
    /// The connection ended before the answer.
    #[error("the door ended the connection without an answer; its log says why, ask again when it is back")]
    Ended,
    /// The two ends were built from different versions.
    #[error(
        "the running facelatchd speaks version {theirs}, this program {VERSION}: restart the daemon after an update"
    )]
    Version {
        /// The door's version.
        theirs: u16,
    },
    /// The other end does not speak the protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The system's error.
    #[error("{path}: {source}")]
    Io {
        /// The socket.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}
