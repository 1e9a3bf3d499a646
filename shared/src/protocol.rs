//! What an administrator may ask of a door, and what it answers: one enum each, one handler, whoever carries the bytes.
//!
//! On the wire: postcard, framed by COBS, so that a frame ends at its only zero byte ([`encode`], [`decode`]). The order of the
//! variants is the format of [`VERSION`]: append, never move.

pub mod told;
pub mod update;

use alloc::boxed::Box;
use alloc::vec::Vec;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::access::{Consent, Label, PinHash, Rights, Role};
use crate::erasure::ErasureReceipt;
use crate::event::{EnrolFailure, Event};
use crate::person::{Name, PersonState, SubjectId};
use crate::pose::View;
use crate::remote::{LinkRequest, LinkResponse};
use crate::schedule::{Day, LocalTime};
use crate::score::Threshold;
use crate::time::UnixMs;
use crate::transfer::{TransferRequest, TransferResponse};
use update::{ModelRow, UpdateRequest, UpdateStatus};

/// Version of these enums; the first thing that two ends tell each other.
pub const VERSION: u16 = 1;

/// Longest encoded message in bytes; a longer one is refused before it is read.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// Longest frame in bytes: a message, one byte more for every 254 of it and for the last, and the zero that ends it.
pub const MAX_FRAME: usize = MAX_MESSAGE + MAX_MESSAGE / 254 + 2;

/// Most people or events in one answer; ask again from where it ended.
pub const PAGE: usize = 256;

/// A question or an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Request {
    /// Which version do you speak?
    Hello {
        /// The asker's [`VERSION`].
        version: u16,
    },
    /// How is the door?
    Status,
    /// Who is enrolled, from this number on? At most [`PAGE`].
    ListPeople {
        /// The least number wanted.
        from: SubjectId,
    },
    /// Enrol the person who stands at the door.
    Enrol {
        /// The name.
        name: Name,
    },
    /// How far is the enrolment?
    EnrolProgress,
    /// Call the enrolment off.
    CancelEnrol,
    /// Another name.
    Rename {
        /// Who.
        id: SubjectId,
        /// The new name.
        name: Name,
    },
    /// Suspend or reinstate.
    SetState {
        /// Who.
        id: SubjectId,
        /// May enter, or may not.
        state: PersonState,
    },
    /// Forget the person and destroy the person's key.
    Erase {
        /// Who.
        id: SubjectId,
    },
    /// The log, from this number on. At most [`PAGE`] events.
    ListEvents {
        /// The least number wanted.
        from: u64,
    },
    /// Does every event follow from the one before?
    VerifyEvents,
    /// The newest events. At most [`PAGE`].
    LastEvents {
        /// How many.
        count: u16,
    },
    /// At which threshold, by which clock and with which checks does the door decide?
    Rules,
    /// What may those do who are enrolled, from this number on? At most [`PAGE`].
    ListRights {
        /// The least number wanted.
        from: SubjectId,
    },
    /// Change what a person may do.
    SetRights {
        /// Who.
        id: SubjectId,
        /// What changes.
        change: RightsChange,
    },
    /// Try people again after far too many failures.
    Unbar,
    /// The wall clock is right, whatever it was before.
    AcceptClock,
    /// Does every event follow from the one before, and is the newest there?
    CheckEvents,
    /// About the link: pairing, who is paired, photographs.
    Link(LinkRequest),
    /// Something about the door's models.
    Update(UpdateRequest),
    /// Enrol the person who stands at the door and has agreed to the configured text.
    EnrolAgreed {
        /// The name.
        name: Name,
    },
    /// The receipt of a person's erasure, as the log has it.
    ErasureReceipt {
        /// Whose.
        id: SubjectId,
    },
    /// Data that leaves the door or comes to it.
    Transfer(TransferRequest),
}

/// What changes in a person's rights; `None` leaves a part as it is, `Some(None)` takes it away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RightsChange {
    /// The role.
    pub role: Option<Role>,
    /// First day of validity.
    pub valid_from: Option<Option<Day>>,
    /// Last day of validity.
    pub valid_until: Option<Option<Day>>,
    /// The schedule.
    pub schedule: Option<Option<Label>>,
    /// The PIN's hash; the PIN itself never travels.
    pub pin: Option<Option<PinHash>>,
}

impl RightsChange {
    /// The rights after the change.
    #[must_use]
    pub fn apply(self, rights: Rights) -> Rights {
        Rights {
            role: self.role.unwrap_or(rights.role),
            valid_from: self.valid_from.unwrap_or(rights.valid_from),
            valid_until: self.valid_until.unwrap_or(rights.valid_until),
            schedule: self.schedule.unwrap_or(rights.schedule),
            pin: self.pin.unwrap_or(rights.pin),
            consent: rights.consent,
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Response {
    /// The door's version.
    Hello {
        /// Its [`VERSION`].
        version: u16,
    },
    /// Done; nothing more to say.
    Done,
    /// How the door is.
    Status(Status),
    /// People by number; fewer than [`PAGE`] means the end.
    People(Vec<PersonRow>),
    /// How the enrolment stands.
    Enrolment(Enrolment),
    /// Events, oldest first; fewer than [`PAGE`] means the end.
    Events(Vec<Event>),
    /// What a check of the log found.
    Verified {
        /// Entries.
        events: u64,
        /// Numbers of entries that do not follow from the one before; the first 64.
        broken_at: Vec<u64>,
        /// Bytes that are no entry.
        damaged_bytes: u64,
    },
    /// It was not done.
    Refused(RefusedRequest),
    /// How the door decides.
    Rules(Rules),
    /// Rights by number; fewer than [`PAGE`] means the end.
    Rights(Vec<RightsRow>),
    /// What a check of the log found.
    Checked {
        /// Entries.
        events: u64,
        /// Numbers of entries that do not follow from the one before; the first 64.
        broken_at: Vec<u64>,
        /// Bytes that are no entry.
        damaged_bytes: u64,
        /// The newest entry that must be there and is not.
        missing_end: Option<u64>,
    },
    /// About the link.
    Link(LinkResponse),
    /// How models and their update stand.
    Update(Box<UpdateStatus>),
    /// The receipt of an erasure.
    ErasureReceipt(ErasureReceipt),
    /// About data that leaves the door or comes to it.
    Transfer(TransferResponse),
    /// Which nets decide.
    Models(Vec<ModelRow>),
}

/// How the door decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// What similarities are held against.
    pub threshold: Threshold,
    /// Where that comes from.
    pub source: ThresholdFrom,
    /// N: templates that a probe is compared with.
    pub templates: u32,
    /// The door's time; `None` while it is not known.
    pub local: Option<LocalTime>,
    /// Whether nobody is tried until an administrator acts.
    pub barred: bool,
    /// Whether a head turn is asked for.
    pub liveness: Liveness,
}

/// Where a threshold comes from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum ThresholdFrom {
    /// The configuration.
    Configured,
    /// The embedder's entry in the manifest, one for every size of gallery.
    Model,
    /// The embedder's table, by the size of the gallery.
    Table {
        /// False match rate of one comparison at the threshold.
        fmr: f64,
        /// Strangers let in of those who try, at most: N · FMR.
        rate: f64,
        /// Whether that is what was configured; if not, the table does not reach far enough for so many templates.
        as_configured: bool,
    },
}

/// What is done against photographs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Liveness {
    /// Nothing: a photograph of a face opens the door.
    Off,
    /// A head turn is asked for.
    Challenge,
}

/// What one person may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RightsRow {
    /// The number.
    pub id: SubjectId,
    /// The role.
    pub role: Role,
    /// First day of validity.
    pub valid_from: Option<Day>,
    /// Last day of validity.
    pub valid_until: Option<Day>,
    /// The schedule.
    pub schedule: Option<Label>,
    /// Whether there is a PIN.
    pub has_pin: bool,
    /// The consent.
    pub consent: Option<Consent>,
}

/// One enrolled person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonRow {
    /// The number.
    pub id: SubjectId,
    /// The name.
    pub name: Name,
    /// Whether the person may enter.
    pub state: PersonState,
    /// When the person was enrolled.
    pub enrolled_at: UnixMs,
    /// Templates.
    pub templates: u8,
}

/// How the door is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: heapless::String<24>,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// The door's name.
    pub door: Name,
    /// People enrolled.
    pub people: u32,
    /// Frames seen since the start.
    pub frames: u64,
    /// Frames that came while vision was busy and were dropped.
    pub dropped: u64,
    /// Whether the camera gives frames.
    pub camera_ok: bool,
    /// Whether the lock is released.
    pub released: bool,
}

/// How an enrolment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Enrolment {
    /// None is under way and none has ended since the program started.
    None,
    /// Views taken of those wanted.
    Running {
        /// Taken.
        taken: u8,
        /// Wanted.
        wanted: u8,
    },
    /// The last one ended well.
    Done {
        /// Who.
        id: SubjectId,
    },
    /// The last one was given up.
    Failed(EnrolFailure),
    /// The person is asked to agree first.
    AskingConsent,
    /// The person is guided from view to view.
    Guided {
        /// Views that are done.
        taken: u8,
        /// Views wanted.
        wanted: u8,
        /// The view that is asked for.
        view: View,
    },
    /// The last one ended well, with something to know.
    DoneNoting {
        /// Who.
        id: SubjectId,
        /// Only views from the front were to be had.
        front_only: bool,
        /// Somebody who looks much alike.
        lookalike: Option<SubjectId>,
    },
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRequest {
    /// What kind of refusal.
    pub kind: RefusedKind,
    /// For a person: what is wrong and what helps.
    pub message: heapless::String<256>,
}

/// Kinds of refusal, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RefusedKind {
    /// Nobody has this number.
    UnknownPerson,
    /// Not now: an enrolment is under way, or the door is out of service.
    Busy,
    /// The gallery or the log could not be read or written.
    Storage,
    /// The gallery is full.
    Full,
    /// The two ends speak different versions.
    Version,
    /// The message is not one.
    Malformed,
    /// A value that this door does not know, such as a schedule's name.
    Invalid,
    /// The asker's role does not allow it.
    Role,
    /// Too much at once.
    TooFast,
    /// The workstation is not paired, the code was wrong, or nobody opened the door for pairing.
    Pairing,
    /// A bundle or a root document that a verification refused.
    Unverified,
    /// Another piece of the bundle is wanted; ask for the status.
    OutOfOrder,
}

/// Whoever answers: the door itself, or a stand-in.
pub trait Handler {
    /// Answers one request; never fails, a refusal is an answer.
    fn handle(&mut self, request: Request) -> Response;
}

/// One message as one frame, its closing zero included.
///
/// # Errors
/// [`FrameError::TooLong`] above [`MAX_MESSAGE`]; pages keep every answer well below.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let frame = postcard::to_allocvec_cobs(message).map_err(|_| FrameError::NotAMessage)?;
    if frame.len() > MAX_FRAME {
        return Err(FrameError::TooLong { bytes: frame.len() });
    }
    Ok(frame)
}

/// The message of one frame, with or without its closing zero.
///
/// # Errors
/// [`FrameError`] for anything that [`encode`] does not make; the length is checked before anything is allocated.
pub fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, FrameError> {
    if frame.len() > MAX_FRAME {
        return Err(FrameError::TooLong { bytes: frame.len() });
    }
    let body = frame.strip_suffix(&[0]).unwrap_or(frame);
    if body.is_empty() || body.contains(&0) {
        return Err(FrameError::NotAFrame);
    }
    let mut bytes = body.to_vec();
    let length = uncobs(&mut bytes).ok_or(FrameError::NotAFrame)?;
    match postcard::take_from_bytes(&bytes[..length]) {
        Ok((message, [])) => Ok(message),
        // Bytes behind a message are another version's, and half understood is not understood.
        _ => Err(FrameError::NotAMessage),
    }
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Longer than any message.
    #[error("a frame of {bytes} bytes or more, at most {MAX_FRAME} are allowed; ask for fewer at a time")]
    TooLong {
        /// Its length, as far as it was read.
        bytes: usize,
    },
    /// Broken framing.
    #[error("the bytes are no COBS frame: the other end speaks another protocol")]
    NotAFrame,
    /// A frame without a message of this version.
    #[error("the frame holds no message of version {VERSION}: both ends need the same release")]
    NotAMessage,
}

/// Undoes consistent overhead byte stuffing in place (Cheshire and Baker 1999); returns the length. `bytes` holds no zero.
fn uncobs(bytes: &mut [u8]) -> Option<usize> {
    let (mut from, mut to) = (0, 0);
    while from < bytes.len() {
        let code = usize::from(bytes[from]);
        let end = from + code;
        if code == 0 || end > bytes.len() {
            return None;
        }
        bytes.copy_within(from + 1..end, to);
        to += code - 1;
        from = end;
        // A block of 254 stands for itself; every other one for itself and a zero, except the last.
        if code < 0xFF && from < bytes.len() {
            bytes[to] = 0;
            to += 1;
        }
    }
    Some(to)
}

impl Response {
    /// A refusal; `message` is cut to what fits.
    #[must_use]
    pub fn refused(kind: RefusedKind, message: &str) -> Self {
        let mut short = heapless::String::new();
        for c in message.chars() {
            if short.push(c).is_err() {
                break;
            }
        }
        Self::Refused(RefusedRequest { kind, message: short })
    }
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
