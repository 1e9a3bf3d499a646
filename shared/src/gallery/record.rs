//! The gallery's records as they lie in the journal: postcard, with everything that tells who someone is sealed.
//!
//! Format 3. Enum order and field order are the format: append variants, never move them. Format 1 had no [`Rights`]: its facts end
//! before them, and are read as having none. Format 2 knew `Erased` only, without what is owed for it.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::transfer::SenderId;
use crate::access::Rights;
use crate::embedding::{DIM, ModelBinding, Template};
use crate::erasure::Erasure;
use crate::person::{Name, PersonState, SubjectId};
use crate::time::UnixMs;

/// The format that this crate writes. It reads this one and those before it.
pub const FORMAT: u16 = 3;

/// One journal payload. `sealed` and `wrapped` are as [`Key::seal`](super::Key::seal) gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Record<'a> {
    /// First record of a journal.
    Head {
        format: u16,
        /// A fixed text sealed by the device key: tells a wrong key from damage.
        key_check: &'a [u8],
        /// The least number not yet given to anyone, so that erased numbers are not given again.
        next_subject: u32,
    },
    /// A new person, followed by `templates` records of kind `Template`.
    Enrol {
        id: SubjectId,
        /// The person's key, sealed by the device key.
        wrapped: &'a [u8],
        /// [`Facts`], sealed by the person's key.
        sealed: &'a [u8],
        templates: u8,
    },
    /// One more template; `sealed` holds [`TemplateFacts`].
    Template { id: SubjectId, sealed: &'a [u8] },
    /// New [`Facts`] in the place of the old.
    Facts { id: SubjectId, sealed: &'a [u8] },
    /// The person and the person's key are gone. Formats 1 and 2 wrote this.
    Erased { id: SubjectId },
    /// One of `parts` pieces of chip number `chip`, each sealed by itself.
    Chip { id: SubjectId, chip: u8, part: u8, parts: u8, sealed: &'a [u8] },
    /// The person and the person's key are gone, and the receipt of it is not given yet.
    ErasedOwing(Erasure),
    /// It is.
    Receipted { id: SubjectId },
    /// The gallery of another door was taken whole; the last number from each counts.
    Imported { from: SenderId, number: u64 },
}

/// What is known of a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Facts {
    pub(super) name: Name,
    pub(super) state: PersonState,
    pub(super) enrolled_at: UnixMs,
    /// Grows with every change, so that an old record put back changes nothing.
    pub(super) revision: u32,
    /// Absent in format 1.
    pub(super) rights: Rights,
}

impl Facts {
    /// Reads the facts of any format.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct First {
            name: Name,
            state: PersonState,
            enrolled_at: UnixMs,
            revision: u32,
        }
        let (First { name, state, enrolled_at, revision }, rest) =
            postcard::take_from_bytes::<First>(bytes).ok()?;
        let rights = if rest.is_empty() { Rights::default() } else { postcard::from_bytes(rest).ok()? };
        Some(Self { name, state, enrolled_at, revision, rights })
    }
}

/// One template with what it is bound to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct TemplateFacts {
    pub(super) binding: ModelBinding,
    pub(super) taken_at: UnixMs,
    /// 128 signed bytes; serde has no arrays of that length.
    codes: heapless::Vec<i8, DIM>,
}

impl TemplateFacts {
    pub(super) fn new(template: &Template, binding: ModelBinding, taken_at: UnixMs) -> Self {
        let mut codes = heapless::Vec::new();
        // 128 fit into 128.
        let _ = codes.extend_from_slice(template.codes());
        Self { binding, taken_at, codes }
    }

    pub(super) fn codes(&self) -> Vec<i8> {
        self.codes.to_vec()
    }

    pub(super) fn template(&self) -> Option<Template> {
        let codes: [i8; DIM] = self.codes.as_slice().try_into().ok()?;
        Template::from_codes(codes).ok()
    }
}

/// What a sealed part is about, so that it opens nowhere else: its kind and its person.
pub(super) fn about(part: Part, id: SubjectId) -> [u8; 24] {
    let mut about = *b"facelatch gallery 1 ....";
    about[19] = part as u8;
    about[20..].copy_from_slice(&id.0.to_le_bytes());
    about
}

#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Part {
    KeyCheck = 0,
    WrappedKey = 1,
    Facts = 2,
    Template = 3,
    Chip = 4,
}

pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    match postcard::to_allocvec(value) {
        Ok(bytes) => bytes,
        Err(_) => unreachable!("these types have known lengths and a growing buffer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Authority, Consent, Role};
    use crate::schedule::Day;

    #[test]
    fn bytes_are_frozen() {
        let record = Record::Enrol { id: SubjectId(300), wrapped: &[1, 2], sealed: &[3], templates: 5 };
        assert_eq!(encode(&record), [1, 0xAC, 2, 2, 1, 2, 1, 3, 5]);
        assert_eq!(encode(&Record::Erased { id: SubjectId(1) }), [4, 1]);
        let chip = Record::Chip { id: SubjectId(2), chip: 1, part: 0, parts: 3, sealed: &[9, 9] };
        assert_eq!(encode(&chip), [5, 2, 1, 0, 3, 2, 9, 9]);
        let owing = Record::ErasedOwing(Erasure {
            subject: SubjectId(2),
            enrolled_at: UnixMs(1),
            erased_at: UnixMs(2),
            templates: 300,
            models: 2,
            chips: 3,
            key: [7; 16],
        });
        assert_eq!(encode(&owing), [&[6, 2, 2, 4, 0xAC, 2, 2, 3][..], &[7; 16]].concat());
        assert_eq!(encode(&Record::Receipted { id: SubjectId(2) }), [7, 2]);
        let imported = Record::Imported { from: [9; 16], number: 300 };
        assert_eq!(encode(&imported), [&[8][..], &[9; 16], &[0xAC, 2]].concat());
        let facts = Facts {
            name: Name::new("Ada").unwrap(),
            state: PersonState::Suspended,
            enrolled_at: UnixMs(1),
            revision: 2,
            rights: Rights::default(),
        };
        let format_1 = [3, b'A', b'd', b'a', 1, 2, 2];
        assert_eq!(Facts::decode(&format_1), Some(facts.clone()));
        assert_eq!(encode(&facts), [&format_1[..], &[0; 6]].concat());
        let rights = Rights {
            role: Role::Administrator,
            valid_from: Some(Day(-1)),
            valid_until: None,
            schedule: Some("day".try_into().unwrap()),
            pin: None,
            consent: Some(Consent { text: "1".try_into().unwrap(), at: UnixMs(1), by: Authority::AdminPin }),
        };
        let facts = Facts { rights, ..facts };
        let bytes = encode(&facts);
        assert_eq!(
            bytes,
            [&format_1[..], &[1, 1, 1, 0, 1, 3, b'd', b'a', b'y', 0, 1, 1, b'1', 2, 2]].concat()
        );
        assert_eq!(Facts::decode(&bytes), Some(facts));
        assert_eq!(Facts::decode(&bytes[..9]), None, "half of the rights is damage, not none");
        assert_eq!(about(Part::Facts, SubjectId(7))[18..], [b'1', 2, 7, 0, 0, 0]);
    }
}
