//! Doors over the network: paired once, then asked over TLS 1.3 with both keys pinned.

pub mod discover;
pub mod known;
pub mod photo;
pub mod rollout;

use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use facelatch_shared::bundle::PublicKey;
use facelatch_shared::link::pair::{PairingCode, same};
use facelatch_shared::link::{self, Channel, ChannelError, Identity, LinkSetupError, PORT};
use facelatch_shared::person::Name;
use facelatch_shared::protocol::{RefusedKind, RefusedRequest, Request, Response, VERSION};
use facelatch_shared::quality::Unusable;
use facelatch_shared::remote::{LinkRequest, LinkResponse, LinkRole, PHOTO_CHUNK_BYTES, PairRequest};
use thiserror::Error;

use known::KnownDoor;

/// A door that answers.
#[derive(Debug)]
pub struct RemoteDoor {
    channel: Channel,
    address: String,
}

/// What pairing gave.
#[derive(Clone, Debug)]
pub struct Paired {
    /// The door's key, to be pinned.
    pub key: PublicKey,
    /// The door's name.
    pub door: Name,
    /// What this workstation may do there.
    pub role: LinkRole,
}

impl RemoteDoor {
    /// The door's key: pinned, and what its receipts are signed with.
    #[must_use]
    pub const fn key(&self) -> PublicKey {
        self.channel.peer()
    }

    /// Connects to a door that this workstation is paired with, and to no other that may stand in its place.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn connect(identity: &Identity, door: &KnownDoor) -> Result<Self, RemoteError> {
        let pinned = door.key;
        let mut door = Self::open(identity, &door.address, Arc::new(move |key| key == pinned))?;
        door.greet()?;
        Ok(door)
    }

    /// Pairs with the door at `address`, whose console or panel shows `code`.
    ///
    /// # Errors
    /// [`RemoteError`]; nothing is paired then, unless the connection ended before the door's answer: try it.
    pub fn pair(
        identity: &Identity,
        address: &str,
        code: &PairingCode,
        name: Name,
    ) -> Result<Paired, RemoteError> {
        let mut door = Self::open(identity, address, Arc::new(|_| true))?;
        door.greet()?;
        let (client, key) = (identity.public(), door.channel.peer());
        let failed = |source| RemoteError::Channel { address: address.to_owned(), source };
        let exported = door.channel.exported().map_err(failed)?;
        let proof = code.client_proof(&exported, client, key);
        match door.ask(&Request::Link(LinkRequest::Pair(PairRequest { proof, name })))? {
            Response::Link(LinkResponse::Paired { proof, door: name, role }) => {
                if !same(&proof, &code.door_proof(&exported, client, key)) {
                    return Err(RemoteError::Impostor { address: address.to_owned() });
                }
                door.channel.close();
                Ok(Paired { key, door: name, role })
            }
            _ => Err(RemoteError::Unexpected { address: address.to_owned() }),
        }
    }

    /// Asks one question; a refusal is an error.
    ///
    /// # Errors
    /// [`RemoteError`]; after a lost connection the door may or may not have done it.
    pub fn ask(&mut self, request: &Request) -> Result<Response, RemoteError> {
        match self.answer(request)? {
            Response::Refused(refused) => Err(RemoteError::Refused(Box::new(refused))),
            response => Ok(response),
        }
    }

    /// Asks one question; a refusal is an answer.
    ///
    /// # Errors
    /// [`RemoteError`]; after a lost connection the door may or may not have done it.
    pub fn answer(&mut self, request: &Request) -> Result<Response, RemoteError> {
        let failed = |source| RemoteError::Channel { address: self.address.clone(), source };
        // A door that refuses before it has read everything answers all the same.
        match self.channel.send(request, ANSWER_WITHIN) {
            Ok(()) | Err(ChannelError::Ended) => {}
            Err(error) => return Err(failed(error)),
        }
        self.channel.receive(ANSWER_WITHIN).map_err(failed)
    }

    /// Sends one photograph, as [`photo::prepare`] makes it, of the person whose photographs were announced. Returns why the door cannot use it,
    /// if so, and how many it can use so far.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub fn send_photo(&mut self, photo: &[u8]) -> Result<(Option<Unusable>, u8), RemoteError> {
        let total = u32::try_from(photo.len()).unwrap_or(u32::MAX);
        let mut offset = 0_u32;
        for piece in photo.chunks(PHOTO_CHUNK_BYTES) {
            let request = LinkRequest::Photo { total, offset, bytes: piece.to_vec() };
            match self.ask(&Request::Link(request))? {
                Response::Link(LinkResponse::PhotoPart { received }) => offset = received,
                Response::Link(LinkResponse::PhotoSeen { unusable, usable }) => {
                    return Ok((unusable, usable));
                }
                _ => break,
            }
        }
        Err(self.unexpected())
    }

    /// An answer that does not belong to the question.
    #[must_use]
    pub fn unexpected(&self) -> RemoteError {
        RemoteError::Unexpected { address: self.address.clone() }
    }

    /// Says good-bye.
    pub fn close(self) {
        self.channel.close();
    }

    fn open(identity: &Identity, address: &str, admits: Arc<dyn link::Peers>) -> Result<Self, RemoteError> {
        let socket = connect(address)?;
        let connection = link::client(identity, admits)?;
        let channel = Channel::open(connection, socket, HANDSHAKE_WITHIN)
            .map_err(|source| RemoteError::Channel { address: address.to_owned(), source })?;
        Ok(Self { channel, address: address.to_owned() })
    }

    fn greet(&mut self) -> Result<(), RemoteError> {
        match self.ask(&Request::Hello { version: VERSION })? {
            Response::Hello { version: VERSION } => Ok(()),
            Response::Hello { version: theirs } => Err(RemoteError::Version { theirs }),
            _ => Err(self.unexpected()),
        }
    }
}

/// `HOST`, `HOST:PORT` or `[v6]:PORT` with the port written out.
///
/// # Errors
/// [`RemoteError::Address`].
pub fn full_address(text: &str) -> Result<String, RemoteError> {
    let bad = || RemoteError::Address { text: text.to_owned() };
    let text = text.trim();
    if text.is_empty() || text.contains(['/', ' ', '@']) {
        return Err(bad());
    }
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok(format!("[{text}]:{PORT}"));
    }
    match text.rsplit_once(':') {
        None => Ok(format!("{text}:{PORT}")),
        Some((_, port)) if text.ends_with(']') || port.is_empty() => {
            if text.ends_with(']') {
                Ok(format!("{text}:{PORT}"))
            } else {
                Err(bad())
            }
        }
        Some((host, port)) => {
            let port: u16 = port.parse().map_err(|_| bad())?;
            if host.is_empty() || port == 0 {
                return Err(bad());
            }
            Ok(format!("{host}:{port}"))
        }
    }
}

fn connect(address: &str) -> Result<TcpStream, RemoteError> {
    let failed = |source| RemoteError::Unreachable { address: address.to_owned(), source };
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "no such host");
    for resolved in address.to_socket_addrs().map_err(failed)? {
        match TcpStream::connect_timeout(&resolved, CONNECT_WITHIN) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// Longer than a door takes to say that it is busy.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Why a door could not be asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// Not an address.
    #[error("`{text}` is no address of a door: HOST, HOST:PORT or [IPv6]:PORT")]
    Address {
        /// What was given.
        text: String,
    },
    /// Nobody listens there.
    #[error("{address}: {source}")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The connection failed.
    #[error("{address}: {source}")]
    Channel {
        /// Where.
        address: String,
        /// How.
        source: ChannelError,
    },
    /// This program or its key.
    #[error(transparent)]
    Setup(#[from] LinkSetupError),
    /// The other end does not know the code.
    #[error(
        "{address}: whoever answers there does not know the pairing code: it is not the door, or somebody stands between"
    )]
    Impostor {
        /// Where.
        address: String,
    },
    /// Another version.
    #[error("the door speaks version {theirs}, this program {VERSION}: both need the same release")]
    Version {
        /// The door's.
        theirs: u16,
    },
    /// The door said no.
    #[error("{}", .0.message)]
    Refused(Box<RefusedRequest>),
    /// An answer that does not belong to the question.
    #[error("{address}: the door answered something else than was asked: both ends need the same release")]
    Unexpected {
        /// Where.
        address: String,
    },
}

impl RemoteError {
    /// Whether the door, or a check of it, refused: the exit code tells it from what merely failed.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Impostor { .. } | Self::Channel { source: ChannelError::Refused(_), .. } => true,
            Self::Refused(refused) => matches!(refused.kind, RefusedKind::Role | RefusedKind::Pairing),
            _ => false,
        }
    }

    /// What the operator can do.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable { source, .. } if source.kind() == std::io::ErrorKind::ConnectionRefused => {
                Some(
                    "nothing listens there: `facelatchd link pair` at the door opens it for the first workstation, and facelatchd must run",
                )
            }
            Self::Unreachable { .. } => Some("look at the address, the network and the door's firewall"),
            Self::Channel { source: ChannelError::Refused(_), .. } => Some(
                "one of the two does not know the other's key: the door may have been set up anew, or this workstation taken off its list. If you know why, `facelatch pair` again; if not, find out first",
            ),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_people_write_them() {
        for (text, full) in [
            ("door.local", "door.local:4815"),
            ("10.0.0.7:9000", "10.0.0.7:9000"),
            ("::1", "[::1]:4815"),
            ("[fe80::2]", "[fe80::2]:4815"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(full_address(text).unwrap(), full);
        }
        for wrong in ["", ":80", "door:", "door:99999", "door:0", "http://door", "a b"] {
            assert!(full_address(wrong).is_err(), "{wrong}");
        }
    }
}
