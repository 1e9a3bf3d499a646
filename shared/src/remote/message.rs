//! What only the link asks: pairing, who is paired, enrolling from photographs; and who may ask what.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{LinkRole, PeerId};
use crate::access::Label;
use crate::person::Name;
use crate::protocol::Request;
use crate::protocol::update::UpdateRequest;
use crate::quality::Unusable;

/// Most bytes of a photograph in one request.
pub const PHOTO_CHUNK_BYTES: usize = 32 * 1024;

/// Most bytes of one encoded photograph.
pub const PHOTO_BYTES: usize = 1024 * 1024;

/// Most photographs of one enrolment.
pub const PHOTOS: usize = crate::gallery::MAX_TEMPLATES;

impl LinkRole {
    /// Whether this role may ask for `request`. What is not named here is the administrator's.
    #[must_use]
    pub const fn may(self, request: &Request) -> bool {
        let least = match request {
            Request::Hello { .. }
            | Request::Status
            | Request::Rules
            | Request::ListEvents { .. }
            | Request::LastEvents { .. }
            | Request::VerifyEvents
            | Request::CheckEvents
            | Request::Update(UpdateRequest::Status | UpdateRequest::Models) => Self::Reader,
            Request::Update(
                UpdateRequest::Begin { .. }
                | UpdateRequest::Chunk { .. }
                | UpdateRequest::Finish
                | UpdateRequest::Activate { .. }
                | UpdateRequest::Confirm
                | UpdateRequest::RollBack
                | UpdateRequest::Discard,
            ) => Self::Engineer,
            // Only someone at the door's own console, and not twice over one connection.
            Request::Transfer(_) | Request::Link(LinkRequest::OpenPairing { .. } | LinkRequest::Pair(_)) => {
                return false;
            }
            _ => Self::Administrator,
        };
        self as u8 >= least as u8
    }
}

/// About the link itself. The order of the variants is the format: append, never move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LinkRequest {
    /// Someone at the door's own console wants a workstation paired.
    OpenPairing {
        /// As what.
        role: LinkRole,
    },
    /// Let me in from now on; over a connection whose key is not known yet.
    Pair(PairRequest),
    /// Who is paired?
    ListPeers,
    /// Let this one in no more.
    RemovePeer {
        /// Who.
        id: PeerId,
    },
    /// Photographs of one person follow; forgets those of an enrolment that was begun before.
    BeginPhotos {
        /// Whose.
        name: Name,
        /// The version of the text that the person agreed to.
        consent: Option<Label>,
    },
    /// A piece of a photograph: JPEG or PNG.
    Photo {
        /// The photograph's length in bytes, at most [`PHOTO_BYTES`].
        total: u32,
        /// Where the piece begins: where the former one ended.
        offset: u32,
        /// The piece, at most [`PHOTO_CHUNK_BYTES`].
        bytes: Vec<u8>,
    },
    /// These were all: enrol the person.
    EndPhotos,
}

/// What a workstation shows to be let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairRequest {
    /// Shows that the code was read; see the link's pairing.
    pub proof: [u8; 32],
    /// Who asks, for the door's list.
    pub name: Name,
}

/// Answers about the link. The order of the variants is the format: append, never move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LinkResponse {
    /// A workstation may be paired now.
    Pairing {
        /// What the workstation must be told.
        code: heapless::String<16>,
        /// For so long.
        seconds: u16,
        /// Where the door listens; `None` when its link is switched off.
        port: Option<u16>,
    },
    /// Paired.
    Paired {
        /// Shows that the door knows the code.
        proof: [u8; 32],
        /// The door's name.
        door: Name,
        /// As what.
        role: LinkRole,
    },
    /// Who is paired.
    Peers(Vec<PeerRow>),
    /// So much of the photograph is there.
    PhotoPart {
        /// Bytes.
        received: u32,
    },
    /// The photograph was looked at.
    PhotoSeen {
        /// Nothing when it serves, otherwise why it does not.
        unusable: Option<Unusable>,
        /// Photographs of this person that serve, so far.
        usable: u8,
    },
}

/// A paired workstation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRow {
    /// Which.
    pub id: PeerId,
    /// What it may do.
    pub role: LinkRole,
    /// Whose it is.
    pub name: Name,
}
