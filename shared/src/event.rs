//! What the door's log records. Subjects are numbers here; names, pictures and vectors never reach the log.

use serde::{Deserialize, Serialize};

use crate::access::{Authority, Label};
use crate::embedding::ModelBinding;
use crate::erasure::ErasureReceipt;
use crate::person::SubjectId;
use crate::remote::LinkEvent;
use crate::score::{Similarity, Threshold};
use crate::time::{Millis, UnixMs};

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Running number, from 1, never reused.
    pub seq: u64,
    /// Wall clock.
    pub at: UnixMs,
    /// Monotonic clock of the same instant, since the program started.
    pub uptime: Millis,
    /// What happened.
    pub kind: EventKind,
}

/// What happened. The order of the variants is the format: append, never move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// The program started.
    Started {
        /// Its version.
        version: heapless::String<24>,
        /// The embedder that probes are bound to.
        model: ModelBinding,
        /// People enrolled.
        people: u32,
    },
    /// The program ended in order.
    Stopped,
    /// Someone was recognised and the door released.
    Granted {
        /// Who.
        subject: SubjectId,
        /// The best similarity of the deciding frames.
        similarity: Similarity,
        /// What it was held against.
        threshold: Threshold,
    },
    /// Someone was not let in.
    Refused {
        /// Why.
        reason: Refusal,
        /// Who it was, or who came closest.
        subject: Option<SubjectId>,
        /// How close.
        similarity: Option<Similarity>,
        /// What it was held against.
        threshold: Threshold,
    },
    /// The lock was released.
    Released,
    /// The lock was secured.
    Secured,
    /// The lock did not do as told.
    LockFault,
    /// The door contact opened.
    DoorOpened,
    /// The door contact closed.
    DoorClosed,
    /// The door opened while it was secured.
    DoorForced,
    /// The door has stood open too long.
    DoorHeld,
    /// Someone asked to leave.
    ExitRequested,
    /// Too many failures: nobody is tried for this long.
    LockedOut {
        /// Seconds.
        seconds: u16,
    },
    /// A person was enrolled.
    Enrolled {
        /// Who.
        subject: SubjectId,
        /// Templates taken.
        templates: u8,
    },
    /// An enrolment was given up.
    EnrolFailed {
        /// Why.
        reason: EnrolFailure,
    },
    /// A person's name changed.
    Renamed {
        /// Who.
        subject: SubjectId,
    },
    /// A person may no longer enter.
    Suspended {
        /// Who.
        subject: SubjectId,
    },
    /// A person may enter again.
    Reinstated {
        /// Who.
        subject: SubjectId,
    },
    /// A person and the person's key were destroyed.
    Erased {
        /// Who.
        subject: SubjectId,
    },
    /// The camera stopped giving frames.
    CameraLost,
    /// The camera gives frames again.
    CameraBack,
    /// Frames could not be decoded.
    BadFrames {
        /// How many since the last such entry.
        count: u32,
    },
    /// The gallery was damaged and its intact records were recovered.
    GalleryRecovered {
        /// Records kept.
        records: u32,
        /// Bytes lost.
        lost_bytes: u32,
    },
    /// Events could not be stored and are missing here.
    EventsLost {
        /// How many.
        count: u32,
    },
    /// Older entries were rotated out; the chain goes on.
    Rotated {
        /// The first number that is still here.
        first_kept: u64,
    },
    /// The wall clock is not set, or went back: hours and validity cannot be told.
    ClockDoubtful {
        /// By how much it is behind what it was, in seconds.
        behind_s: u32,
    },
    /// The wall clock is past where it was before.
    ClockTrusted,
    /// An administrator says that the wall clock is right.
    ClockAccepted,
    /// Too many failures in a row: nobody is tried until an administrator acts.
    Barred {
        /// How many.
        failures: u16,
    },
    /// People are tried again.
    BarLifted {
        /// On whose authority.
        by: Authority,
    },
    /// The head turned as the panel asked.
    ChallengePassed {
        /// Whose.
        subject: SubjectId,
    },
    /// What a person may do was changed.
    RightsChanged {
        /// Whose.
        subject: SubjectId,
    },
    /// An enrolment began.
    EnrolStarted {
        /// On whose authority.
        by: Authority,
    },
    /// A person agreed to being enrolled.
    Consented {
        /// Who.
        subject: SubjectId,
        /// The version of the text.
        text: Label,
        /// Who took the consent.
        by: Authority,
    },
    /// The person just enrolled looks much like another.
    Lookalike {
        /// Who.
        subject: SubjectId,
        /// Like whom.
        other: SubjectId,
    },
    /// About the link.
    Link(LinkEvent),
    /// A root document is trusted from now on: whoever it names may bring models.
    RootTrusted {
        /// Its number.
        version: u32,
    },
    /// A bundle of models, or a piece of one, was refused; nothing of it is used.
    BundleRefused {
        /// Why, in a word.
        reason: heapless::String<24>,
    },
    /// A bundle is here, whole and verified.
    BundleStaged {
        /// First bytes of its name.
        bundle: [u8; 8],
        /// Its rollback counter.
        counter: u64,
    },
    /// Other models decide from now on, on trial.
    ModelsActivated {
        /// First bytes of their bundle's name.
        bundle: [u8; 8],
        /// What probes are bound to.
        model: ModelBinding,
    },
    /// The models that were tried stay.
    ModelsConfirmed {
        /// First bytes of their bundle's name.
        bundle: [u8; 8],
        /// Bundles up to this rollback counter are refused from now on.
        counter: u64,
    },
    /// The former models are back.
    ModelsRolledBack {
        /// What probes are bound to again.
        model: ModelBinding,
        /// Why.
        why: TrialOutcome,
    },
    /// The case was opened.
    Tampered,
    /// The case is shut again.
    TamperCleared,
    /// Nothing is left of a person who was erased, and the door signs for it.
    ErasureReceipt(ErasureReceipt),
    /// Everything that is stored of a person was given out, for the person.
    DataExported {
        /// Whose.
        subject: SubjectId,
    },
    /// The gallery was sealed for another door.
    GalleryExported {
        /// First bytes of that door's key.
        to: [u8; 8],
        /// People in it.
        people: u32,
    },
    /// The gallery of another door was taken.
    GalleryImported {
        /// First bytes of that door's key.
        from: [u8; 8],
        /// Its number.
        number: u64,
        /// People who were added.
        people: u32,
    },
    /// A new system was written into the other slot of the card; the board started anew for it.
    SystemInstalled {
        /// First bytes of its bundle's name.
        bundle: [u8; 8],
        /// Its rollback counter.
        counter: u64,
    },
    /// The new system came up and stays.
    SystemConfirmed {
        /// First bytes of its bundle's name.
        bundle: [u8; 8],
        /// Systems up to this rollback counter are refused from now on.
        counter: u64,
    },
    /// The new system did not come up; the former one runs.
    SystemFellBack {
        /// First bytes of its bundle's name.
        bundle: [u8; 8],
        /// Its rollback counter.
        counter: u64,
    },
}

/// How a trial of models ended. The order is the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TrialOutcome {
    /// It went well.
    Confirmed,
    /// The self-test failed, or the models could not be loaded.
    SelfTest,
    /// The board was too slow.
    TooSlow,
    /// The program was started too often: a crash, or a watchdog's reset.
    Crashed,
    /// More people who are enrolled were rejected than by the former models.
    Rejections,
    /// An engineer said so.
    Commanded,
}

impl TrialOutcome {
    /// In a word, for logs and programs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::SelfTest => "self_test",
            Self::TooSlow => "too_slow",
            Self::Crashed => "crashed",
            Self::Rejections => "rejections",
            Self::Commanded => "commanded",
        }
    }
}

/// Why someone was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Refusal {
    /// No enrolled person is close enough.
    NotRecognised,
    /// Two enrolled people are about equally close.
    Ambiguous,
    /// Recognised, but suspended.
    Suspended,
    /// The gallery was made by another model.
    OtherModel,
    /// Nobody is enrolled.
    NobodyEnrolled,
    /// Recognised, but outside the hours that hold for the person.
    OutOfHours,
    /// Recognised, but before the first day of validity.
    NotYetValid,
    /// Recognised, but after the last day of validity.
    Expired,
    /// Recognised, but hours or days hold for the person and the door does not know the time.
    TimeUnknown,
    /// Recognised, but the PIN was wrong.
    WrongPin,
    /// Recognised, but no PIN was typed in time.
    PinTimedOut,
    /// Recognised, but a PIN is asked for and the person has none.
    NoPin,
    /// Recognised, but let in a short while ago.
    PassedBack,
    /// What moved before the camera was not a turning head: a print or a screen.
    NotLive,
    /// The head was not turned in time.
    NotTurned,
    /// Recognised, but an administrator was asked for.
    NotAdministrator,
}

impl Refusal {
    /// Whether it may be an attack: those are counted towards the bar. The others concern people who are known, or the door itself.
    #[must_use]
    pub const fn is_suspicious(self) -> bool {
        matches!(
            self,
            Self::NotRecognised | Self::Ambiguous | Self::WrongPin | Self::NotLive | Self::NotTurned
        )
    }
}

/// Why an enrolment was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EnrolFailure {
    /// Too few good views in time.
    TimedOut,
    /// The views do not agree with each other.
    NotOnePerson,
    /// The face is enrolled already.
    AlreadyEnrolled {
        /// As whom.
        subject: SubjectId,
    },
    /// The gallery could not be written.
    Storage,
    /// Called off.
    Cancelled,
    /// The person did not agree.
    NoConsent,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_format_1_are_frozen() {
        let event = Event {
            seq: 5,
            at: UnixMs(-1),
            uptime: Millis(300),
            kind: EventKind::Refused {
                reason: Refusal::Ambiguous,
                subject: Some(SubjectId(9)),
                similarity: None,
                threshold: Threshold(0.5),
            },
        };
        let mut buffer = [0; 32];
        let bytes = postcard::to_slice(&event, &mut buffer).unwrap();
        assert_eq!(bytes, [5, 1, 0xAC, 2, 3, 1, 1, 9, 0, 0, 0, 0, 0x3F]);
        let mut buffer = [0; 8];
        let last = EventKind::Rotated { first_kept: 1 };
        assert_eq!(postcard::to_slice(&last, &mut buffer).unwrap(), [24, 1]);
        let appended = EventKind::Lookalike { subject: SubjectId(2), other: SubjectId(1) };
        assert_eq!(postcard::to_slice(&appended, &mut buffer).unwrap(), [34, 2, 1]);
        assert_eq!(postcard::to_slice(&EventKind::TamperCleared, &mut buffer).unwrap(), [43]);
        let erasure = crate::erasure::Erasure {
            subject: SubjectId(3),
            enrolled_at: UnixMs(1),
            erased_at: UnixMs(2),
            templates: 6,
            models: 2,
            chips: 3,
            key: [9; 16],
        };
        let (door, signature) = ([8; 32], [[7; 32], [6; 32]]);
        let receipt = EventKind::ErasureReceipt(ErasureReceipt { erasure, door, signature });
        let mut long = [0; 160];
        let bytes = postcard::to_slice(&receipt, &mut long).unwrap();
        assert_eq!((&bytes[..8], bytes.len()), (&[44, 3, 2, 4, 6, 2, 3, 9][..], 7 + 16 + 96));
        let imported = EventKind::GalleryImported { from: [1; 8], number: 5, people: 2 };
        let bytes = postcard::to_slice(&imported, &mut long).unwrap();
        assert_eq!(bytes, [47, 1, 1, 1, 1, 1, 1, 1, 1, 5, 2]);
        let system = EventKind::SystemFellBack { bundle: [7; 8], counter: 3 };
        assert_eq!(postcard::to_slice(&system, &mut long).unwrap()[..2], [50, 7]);
        let barred = EventKind::BarLifted { by: Authority::Administrator(SubjectId(3)) };
        assert_eq!(postcard::to_slice(&barred, &mut buffer).unwrap(), [29, 3, 3]);
        let staged = EventKind::BundleStaged { bundle: [7; 8], counter: 3 };
        let mut buffer = [0; 16];
        assert_eq!(postcard::to_slice(&staged, &mut buffer).unwrap(), [38, 7, 7, 7, 7, 7, 7, 7, 7, 3]);
        let back = EventKind::ModelsRolledBack { model: ModelBinding([1; 16]), why: TrialOutcome::Crashed };
        let mut buffer = [0; 32];
        let bytes = postcard::to_slice(&back, &mut buffer).unwrap();
        assert_eq!((bytes[0], bytes[bytes.len() - 1]), (41, 3));
    }
}
