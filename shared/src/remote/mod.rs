//! Workstations over the link: their roles, what they ask beyond what the console asks, and what they leave in the log.

#[cfg(feature = "alloc")]
mod message;

#[cfg(feature = "alloc")]
pub use message::{LinkRequest, LinkResponse, PHOTO_BYTES, PHOTO_CHUNK_BYTES, PHOTOS, PairRequest, PeerRow};

use serde::{Deserialize, Serialize};

/// What a paired workstation may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkRole {
    /// Sees how the door is and what happened.
    Reader,
    /// The same, and brings new models.
    Engineer,
    /// Everything.
    Administrator,
}

impl LinkRole {
    /// Its name in commands, tables and files.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Engineer => "engineer",
            Self::Administrator => "administrator",
        }
    }

    /// The role of this name.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Reader, Self::Engineer, Self::Administrator].into_iter().find(|role| role.word() == word)
    }
}

/// Names a paired workstation in lists and in the log: the first bytes of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerId(pub [u8; 4]);

impl PeerId {
    /// The one written as eight hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = (text.len() == 8).then_some(text.as_bytes())?;
        let mut id = [0; 4];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            let high = char::from(pair[0]).to_digit(16)?;
            let low = char::from(pair[1]).to_digit(16)?;
            // Two digits of base 16 are below 256.
            *byte = (high * 16 + low) as u8;
        }
        Some(Self(id))
    }
}

impl core::fmt::Display for PeerId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What the link leaves in the log. The order of the variants is the format: append, never move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LinkEvent {
    /// Someone at the door opened it for pairing.
    PairingOpened {
        /// As what.
        role: LinkRole,
    },
    /// A workstation was paired.
    Paired {
        /// Which.
        peer: PeerId,
        /// As what.
        role: LinkRole,
    },
    /// A workstation is let in no more.
    Removed {
        /// Which.
        peer: PeerId,
    },
    /// A wrong code, one that came too early after another, or none was asked for.
    PairingRefused,
    /// Connections were refused: not paired, another key, an older TLS, or no TLS at all.
    ConnectionsRefused {
        /// How many since the last such entry.
        count: u32,
    },
    /// Something was asked that the role does not allow.
    RoleTooLow {
        /// Who asked.
        peer: PeerId,
        /// As what.
        role: LinkRole,
    },
    /// Something that is no request, or too many of them.
    Misbehaved {
        /// Who.
        peer: PeerId,
    },
    /// Something was changed over the link; the next entries say what.
    Ordered {
        /// Who.
        peer: PeerId,
    },
}

#[cfg(test)]
#[cfg(feature = "alloc")]
mod tests {
    use super::*;
    use crate::access::Label;
    use crate::person::{Name, SubjectId};
    use crate::protocol::Request;
    use crate::protocol::update::UpdateRequest;
    use crate::quality::Unusable;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn each_role_may_what_it_needs_and_no_more() {
        use LinkRole::{Administrator, Engineer, Reader};
        let may = |request: &Request| [Reader, Engineer, Administrator].map(|role| role.may(request));
        for request in [Request::Status, Request::Rules, Request::LastEvents { count: 1 }] {
            assert_eq!(may(&request), [true; 3], "{request:?}");
        }
        let update = Request::Update;
        assert_eq!(may(&update(UpdateRequest::Status)), [true; 3]);
        for request in [
            UpdateRequest::Begin { size: 1, id: crate::bundle::BundleId([1; 32]) },
            UpdateRequest::Chunk { offset: 0, bytes: Vec::new() },
            UpdateRequest::Finish,
            UpdateRequest::Activate { leave_behind: 0 },
            UpdateRequest::Confirm,
            UpdateRequest::RollBack,
            UpdateRequest::Discard,
        ] {
            assert_eq!(may(&update(request.clone())), [false, true, true], "{request:?}");
        }
        // Whom to trust, names and orders are for administrators.
        let root = crate::bundle::SignedRoot { document: Vec::new(), signatures: Vec::new() };
        assert_eq!(may(&update(UpdateRequest::Trust(root))), [false, false, true]);
        assert_eq!(may(&update(UpdateRequest::LeftBehind { from: SubjectId(0) })), [false, false, true]);
        for request in [
            Request::ListPeople { from: SubjectId(0) },
            Request::Erase { id: SubjectId(1) },
            Request::Enrol { name: name("A") },
            Request::Unbar,
            Request::AcceptClock,
            Request::Link(LinkRequest::ListPeers),
            Request::Link(LinkRequest::RemovePeer { id: PeerId([1; 4]) }),
            Request::Link(LinkRequest::BeginPhotos { name: name("A"), consent: None }),
            Request::Link(LinkRequest::EndPhotos),
        ] {
            assert_eq!(may(&request), [false, false, true], "{request:?}");
        }
        // What is kept of people leaves the door at the door alone, and there pairing is opened.
        let person = crate::transfer::TransferRequest::Person { id: SubjectId(1) };
        assert_eq!(may(&Request::Transfer(person)), [false; 3]);
        assert_eq!(may(&Request::Link(LinkRequest::OpenPairing { role: Reader })), [false; 3]);
    }

    #[test]
    fn words_and_numbers_are_read_as_they_are_written() {
        for role in [LinkRole::Reader, LinkRole::Engineer, LinkRole::Administrator] {
            assert_eq!(LinkRole::parse(role.word()), Some(role));
        }
        assert_eq!(LinkRole::parse("root"), None);
        let id = PeerId([0, 0xAB, 0x10, 0xFF]);
        assert_eq!(id.to_string(), "00ab10ff");
        assert_eq!(PeerId::parse("00AB10ff"), Some(id));
        for wrong in ["", "00ab10f", "00ab10ffa", "00ab10fg", "é0ab10f"] {
            assert_eq!(PeerId::parse(wrong), None, "{wrong}");
        }
    }

    /// Byte for byte; lines are added here, never changed.
    #[test]
    fn bytes_of_version_1_are_frozen() {
        fn same<T: Serialize>(value: &T, bytes: &[u8]) {
            assert_eq!(postcard::to_allocvec(value).unwrap(), bytes);
        }
        let label = || Label::try_from("v1").unwrap();
        same(&LinkRequest::OpenPairing { role: LinkRole::Engineer }, &[0, 1]);
        let pair = PairRequest { proof: [7; 32], name: name("Bo") };
        same(&LinkRequest::Pair(pair), &[&[1][..], &[7; 32], &[2, b'B', b'o']].concat());
        same(&LinkRequest::ListPeers, &[2]);
        same(&LinkRequest::RemovePeer { id: PeerId([1, 2, 3, 4]) }, &[3, 1, 2, 3, 4]);
        same(
            &LinkRequest::BeginPhotos { name: name("Bo"), consent: Some(label()) },
            &[4, 2, b'B', b'o', 1, 2, b'v', b'1'],
        );
        same(
            &LinkRequest::Photo { total: 300, offset: 2, bytes: alloc::vec![9, 8] },
            &[5, 0xAC, 2, 2, 2, 9, 8],
        );
        same(&LinkRequest::EndPhotos, &[6]);
        same(
            &LinkResponse::Pairing {
                code: heapless::String::try_from("A").unwrap(),
                seconds: 120,
                port: None,
            },
            &[0, 1, b'A', 120, 0],
        );
        let row = PeerRow { id: PeerId([1; 4]), role: LinkRole::Reader, name: name("Bo") };
        same(&LinkResponse::Peers(alloc::vec![row]), &[2, 1, 1, 1, 1, 1, 0, 2, b'B', b'o']);
        same(&LinkResponse::PhotoPart { received: 5 }, &[3, 5]);
        same(&LinkResponse::PhotoSeen { unusable: Some(Unusable::Blurred), usable: 2 }, &[4, 1, 4, 2]);
        same(&LinkEvent::ConnectionsRefused { count: 3 }, &[4, 3]);
        same(&LinkEvent::Ordered { peer: PeerId([1; 4]) }, &[7, 1, 1, 1, 1]);
    }
}
