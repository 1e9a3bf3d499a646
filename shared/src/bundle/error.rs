//! Why a bundle, a root document or a chunk is refused.

use thiserror::Error;

use super::manifest::Version;
use super::{CHUNK_BYTES, FORMAT, MAX_HEADER};
use crate::time::UnixMs;

/// Why something is refused. Nothing is stored when one of these is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The first bytes are not a bundle's.
    #[error("this is no Facelatch bundle of format {FORMAT}")]
    NotABundle,
    /// Written by another version.
    #[error("the bundle has format {actual}, this program reads {FORMAT}: use the release that made it")]
    Format {
        /// What it says.
        actual: u16,
    },
    /// A header that is longer than any.
    #[error("the bundle's header claims {bytes} bytes, at most {MAX_HEADER} are read")]
    HeaderTooLong {
        /// What it claims.
        bytes: u32,
    },
    /// The header's bytes make no sense, a field is too long, or something is said twice.
    #[error("the bundle's header is malformed: {what}")]
    Malformed {
        /// Which part.
        what: &'static str,
    },
    /// It ends too early.
    #[error("the bundle ends too early: at least {missing} bytes are missing; copy it again")]
    Truncated {
        /// How many are missing at least.
        missing: u64,
    },
    /// It goes on behind its last section.
    #[error("the bundle goes on behind its last section")]
    TrailingBytes,
    /// No signature at all.
    #[error("it is not signed: `facelatch bundle sign`")]
    Unsigned,
    /// Signed by a key that the root document does not name.
    #[error("it is signed by a key that this door's root document does not name")]
    UnknownKey,
    /// Signed by a key that was revoked.
    #[error("it is signed by a key that was revoked")]
    RevokedKey,
    /// A signature that does not fit what it stands under.
    #[error("a signature does not fit: the bundle was changed after it was signed")]
    BadSignature,
    /// Fewer keys than the root document asks for.
    #[error("{have} of the {need} signatures that are needed are there")]
    TooFewSignatures {
        /// Valid ones by different keys.
        have: u8,
        /// What the root document asks for.
        need: u8,
    },
    /// A root document that contradicts itself.
    #[error("the root document is malformed: {what}")]
    BadRoot {
        /// What is wrong.
        what: &'static str,
    },
    /// A root document that does not follow the one that is trusted.
    #[error("root document {version} does not follow the trusted number {trusted}")]
    RootGap {
        /// Its number.
        version: u32,
        /// The trusted one's.
        trusted: u32,
    },
    /// The root document is out of date.
    #[error("the root document expired: sign a new one with the root keys")]
    RootExpired,
    /// The rollback counter is not above the door's.
    #[error(
        "its rollback counter is {counter}, this door has confirmed {floor} already: build it with a higher one"
    )]
    OldCounter {
        /// The bundle's.
        counter: u64,
        /// The door's.
        floor: u64,
    },
    /// Out of date.
    #[error("it expired: build and sign it anew")]
    Expired {
        /// Since when.
        at: UnixMs,
    },
    /// Made after the door's present time.
    #[error("it was made after the door's present time: set the door's clock")]
    ClockBehind {
        /// When it was made.
        created: UnixMs,
    },
    /// For other boards.
    #[error("it is made for other boards than this one")]
    OtherBoard,
    /// It brings a system, and the door has no slots for one.
    #[error(
        "it brings a system, and this door does not run from a card's image: update its packages instead"
    )]
    NoSystemSlots,
    /// The door's program is too old.
    #[error("it needs firmware {needs}, this door has {has}: update facelatchd first")]
    OldFirmware {
        /// The least that it needs.
        needs: Version,
        /// What runs.
        has: Version,
    },
    /// It asks for something that this program does not compute.
    #[error(
        "it needs an input contract, alignment or template format that this door's program does not have"
    )]
    UnknownContract,
    /// A chunk whose bytes are not those that were signed.
    #[error("chunk {chunk} of section {section} is not what was signed: damaged, or another file's")]
    BadChunk {
        /// Which section, from 0.
        section: u16,
        /// Which chunk of it, from 0.
        chunk: u32,
    },
    /// A chunk that the manifest does not list, or of a wrong length.
    #[error("there is no chunk {chunk} of {bytes} bytes in section {section}; chunks have {CHUNK_BYTES}")]
    NoSuchChunk {
        /// Which section.
        section: u16,
        /// Which chunk.
        chunk: u32,
        /// How long it is.
        bytes: u32,
    },
    /// A section's content makes no sense.
    #[error("the {what} does not fit the manifest")]
    Section {
        /// Which.
        what: &'static str,
    },
}

impl BundleError {
    /// The reason in a word, for logs.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::NotABundle => "not_a_bundle",
            Self::Format { .. } => "format",
            Self::HeaderTooLong { .. } => "header_too_long",
            Self::Malformed { .. } => "malformed",
            Self::Truncated { .. } => "truncated",
            Self::TrailingBytes => "trailing_bytes",
            Self::Unsigned => "unsigned",
            Self::UnknownKey => "unknown_key",
            Self::RevokedKey => "revoked_key",
            Self::BadSignature => "bad_signature",
            Self::TooFewSignatures { .. } => "too_few_signatures",
            Self::BadRoot { .. } => "bad_root",
            Self::RootGap { .. } => "root_gap",
            Self::RootExpired => "root_expired",
            Self::OldCounter { .. } => "old_counter",
            Self::Expired { .. } => "expired",
            Self::ClockBehind { .. } => "clock_behind",
            Self::OtherBoard => "other_board",
            Self::NoSystemSlots => "no_system_slots",
            Self::OldFirmware { .. } => "old_firmware",
            Self::UnknownContract => "unknown_contract",
            Self::BadChunk { .. } => "bad_chunk",
            Self::NoSuchChunk { .. } => "no_such_chunk",
            Self::Section { .. } => "section",
        }
    }
}
