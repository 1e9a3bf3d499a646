//! Messages over an encrypted connection, with a deadline for the whole of each.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustls::{Connection, Stream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::tls::peer_key;
use crate::bundle::PublicKey;
use crate::protocol::{FrameError, MAX_FRAME, decode, encode};

/// One connection, after its handshake.
#[derive(Debug)]
pub struct Channel {
    connection: Connection,
    socket: TcpStream,
    peer: PublicKey,
    /// Bytes that came behind the last message.
    held: Vec<u8>,
}

impl Channel {
    /// Makes the handshake.
    ///
    /// # Errors
    /// [`ChannelError::Refused`] when either end does not admit the other or speaks anything older, [`ChannelError::TimedOut`].
    pub fn open(
        connection: impl Into<Connection>,
        mut socket: TcpStream,
        within: Duration,
    ) -> Result<Self, ChannelError> {
        let mut connection = connection.into();
        let deadline = Instant::now() + within;
        socket.set_nodelay(true)?;
        while connection.is_handshaking() {
            limit(&socket, deadline)?;
            connection.complete_io(&mut socket).map_err(ChannelError::of)?;
        }
        let peer = peer_key(connection.peer_certificates()).ok_or(ChannelError::NoKey)?;
        Ok(Self { connection, socket, peer, held: Vec::new() })
    }

    /// The other end's key; it has proven to hold it.
    #[must_use]
    pub const fn peer(&self) -> PublicKey {
        self.peer
    }

    /// 32 bytes that only the two ends of this very connection know (RFC 8446, section 7.5).
    ///
    /// # Errors
    /// [`ChannelError::Refused`].
    pub fn exported(&self) -> Result<[u8; 32], ChannelError> {
        let label = b"EXPORTER-facelatch-pair";
        let exported = match &self.connection {
            Connection::Client(c) => c.export_keying_material([0; 32], label, None),
            Connection::Server(c) => c.export_keying_material([0; 32], label, None),
        };
        exported.map_err(|e| ChannelError::Refused(e.to_string()))
    }

    /// Sends one message.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn send<T: Serialize>(&mut self, message: &T, within: Duration) -> Result<(), ChannelError> {
        let frame = encode(message)?;
        limit(&self.socket, Instant::now() + within)?;
        self.write(&frame)
    }

    /// Receives one message; at most [`MAX_FRAME`] bytes and a chunk are held.
    ///
    /// # Errors
    /// [`ChannelError`]; [`ChannelError::Ended`] when the other end said good-bye between two messages.
    pub fn receive<T: DeserializeOwned>(&mut self, within: Duration) -> Result<T, ChannelError> {
        let deadline = Instant::now() + within;
        let mut chunk = [0; 16 * 1024];
        loop {
            if let Some(end) = self.held.iter().position(|&byte| byte == 0) {
                let rest = self.held.split_off(end + 1);
                let frame = std::mem::replace(&mut self.held, rest);
                return Ok(decode(&frame)?);
            }
            if self.held.len() > MAX_FRAME {
                return Err(FrameError::TooLong { bytes: self.held.len() }.into());
            }
            limit(&self.socket, deadline)?;
            let read = match &mut self.connection {
                Connection::Client(c) => Stream::new(c, &mut self.socket).read(&mut chunk),
                Connection::Server(c) => Stream::new(c, &mut self.socket).read(&mut chunk),
            };
            match read {
                Ok(0) => return Err(ChannelError::Ended),
                Ok(count) => self.held.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ChannelError::of(error)),
            }
        }
    }

    /// Asks one question.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn ask<Q: Serialize, A: DeserializeOwned>(
        &mut self,
        question: &Q,
        within: Duration,
    ) -> Result<A, ChannelError> {
        self.send(question, within)?;
        self.receive(within)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ChannelError> {
        fn all(mut to: impl Write, bytes: &[u8]) -> io::Result<()> {
            to.write_all(bytes)?;
            to.flush()
        }
        let written = match &mut self.connection {
            Connection::Client(c) => all(Stream::new(c, &mut self.socket), bytes),
            Connection::Server(c) => all(Stream::new(c, &mut self.socket), bytes),
        };
        written.map_err(ChannelError::of)
    }

    /// Sends bytes that may be no message, as a hostile end would: for tests of the other end.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn send_raw(&mut self, bytes: &[u8], within: Duration) -> Result<(), ChannelError> {
        limit(&self.socket, Instant::now() + within)?;
        self.write(bytes)
    }

    /// Says good-bye, so that the other end does not take the end for an accident.
    pub fn close(mut self) {
        self.connection.send_close_notify();
        let _ = self.connection.write_tls(&mut self.socket);
    }
}

/// Every wait on the socket ends by `deadline`; never zero, which the system would take for "for ever".
fn limit(socket: &TcpStream, deadline: Instant) -> Result<(), ChannelError> {
    let left = deadline
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
        .ok_or(ChannelError::TimedOut)?;
    socket.set_read_timeout(Some(left))?;
    socket.set_write_timeout(Some(left))?;
    Ok(())
}

/// Why there is no connection, or no message.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// Nothing came in time.
    #[error("the other end did not answer in time")]
    TimedOut,
    /// The other end is gone.
    #[error("the connection ended")]
    Ended,
    /// TLS: another key than the pinned one, an end that is not paired, an older version, or changed bytes.
    #[error("the connection was refused: {0}")]
    Refused(String),
    /// A handshake without a key.
    #[error("the other end showed no key")]
    NoKey,
    /// Not a message.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The system's error.
    #[error("the network failed: {0}")]
    Io(#[source] io::Error),
}

impl ChannelError {
    fn of(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::InvalidData => Self::Refused(error.to_string()),
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted => Self::Ended,
            _ => Self::Io(error),
        }
    }
}

impl From<io::Error> for ChannelError {
    fn from(error: io::Error) -> Self {
        Self::of(error)
    }
}
