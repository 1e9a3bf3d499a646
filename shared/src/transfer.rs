//! What a door gives away: one person's data, for that person, and its gallery, sealed for one other door.
//!
//! A sealed gallery is one file: a head in the clear (from whom, for whom, its number, the model), one sealed record a person, and the sender's
//! signature under all of it. Records are sealed by ChaCha20-Poly1305 under a key agreed on between a fresh key and the receiving door's
//! (X25519, RFC 7748, on the curve's other form of the doors' Ed25519 keys), so that nobody else opens them, the sender neither. The receiver
//! holds one record at a time; nothing counts before the signature was seen.

use alloc::boxed::Box;
use alloc::vec::Vec;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::access::Rights;
use crate::bundle::{Domain, PublicKey, SecretKey, Signature};
use crate::embedding::ModelBinding;
use crate::gallery::{Entropy, EntropyError, Key};
use crate::person::{Name, PersonState, SubjectId};
use crate::time::UnixMs;

/// Everything that a door keeps of one person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonData {
    /// The number.
    pub id: SubjectId,
    /// The name.
    pub name: Name,
    /// Whether the person may enter.
    pub state: PersonState,
    /// When the person was enrolled.
    pub enrolled_at: UnixMs,
    /// What the person may do, and the consent.
    pub rights: Rights,
    /// Templates, of all models.
    pub templates: Vec<TemplateData>,
    /// Pictures of the face, 112×112, as JPEG.
    pub chips: Vec<Vec<u8>>,
}

/// One template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateData {
    /// The model that it belongs to.
    pub binding: ModelBinding,
    /// When it was made.
    pub taken_at: UnixMs,
    /// Its 128 codes.
    pub codes: Vec<i8>,
}

/// What is asked about data that leaves the door or comes to it; at the door's own console only. Append, never move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TransferRequest {
    /// Everything about this person, for the person.
    Person {
        /// Whom.
        id: SubjectId,
    },
    /// The gallery goes to the door with this key.
    BeginExport {
        /// Whose key.
        to: PublicKey,
    },
    /// The next person of it, from this number on.
    NextPerson {
        /// The least number wanted.
        from: SubjectId,
    },
    /// A gallery came from the door with this key, and was verified.
    BeginImport {
        /// Whose key.
        from: PublicKey,
        /// Its number.
        number: u64,
        /// What its templates are bound to.
        binding: ModelBinding,
    },
    /// A person of it.
    ImportPerson(Box<PersonData>),
    /// These were all: it is taken once and not again.
    EndImport {
        /// Whose key.
        from: PublicKey,
        /// Its number.
        number: u64,
        /// People who were added.
        people: u32,
    },
}

/// Answers to these. Append, never move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TransferResponse {
    /// The person.
    Person(Box<PersonData>),
    /// There is nobody from that number on.
    End,
    /// It may begin.
    Export {
        /// Larger than that of every export before.
        number: u64,
        /// What the templates are bound to.
        binding: ModelBinding,
        /// Who are there.
        people: u32,
    },
    /// The person was added.
    Imported {
        /// The number here.
        id: SubjectId,
    },
    /// The person is enrolled already.
    Known {
        /// As whom.
        id: SubjectId,
    },
}

/// What a sealed gallery says of itself in the clear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The format.
    pub format: u16,
    /// The door that it comes from.
    pub from: PublicKey,
    /// The door that it is for.
    pub to: PublicKey,
    /// Grows with every export of that door.
    pub number: u64,
    /// When it was made.
    pub made: UnixMs,
    /// What its templates are bound to.
    pub binding: ModelBinding,
    /// People in it.
    pub people: u32,
    /// Half of the agreed key, made for this file.
    ephemeral: PublicKey,
}

/// Writes a sealed gallery, piece by piece.
pub struct Sealer {
    seal: Seal,
    hash: Sha256,
    left: u32,
    key: SecretKey,
}

/// Reads one, piece by piece.
pub struct Opener {
    /// What it says of itself.
    pub head: Head,
    seal: Seal,
    hash: Sha256,
    left: u32,
}

/// What seals the records: a key, what it is about, and a count that makes each nonce.
struct Seal {
    key: Key,
    about: [u8; 32],
    count: u64,
}

impl Sealer {
    /// Begins a file; the bytes are its beginning. `head` says for whom; the sender is `key`'s owner.
    ///
    /// # Errors
    /// [`TransferError::BadKey`] when the receiver's key is none, [`TransferError::Entropy`].
    pub fn begin(
        key: SecretKey,
        to: PublicKey,
        told: (u64, UnixMs, ModelBinding, u32),
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, Vec<u8>), TransferError> {
        let once = SecretKey::generate(entropy)?;
        let (number, made, binding, people) = told;
        let head = Head {
            format: FORMAT,
            from: key.public(),
            to,
            number,
            made,
            binding,
            people,
            ephemeral: once.public(),
        };
        let body = encode(&head);
        // A head has less than 200 bytes.
        let start = [&MAGIC[..], &(body.len() as u32).to_le_bytes(), &body].concat();
        let seal = Seal::agreed(&once, to, &start).ok_or(TransferError::BadKey)?;
        let sealer = Self { seal, hash: Sha256::new_with_prefix(&start), left: people, key };
        Ok((sealer, start))
    }

    /// One more person.
    ///
    /// # Errors
    /// [`TransferError::Count`] beyond what the head says, [`TransferError::TooLong`].
    pub fn person(&mut self, person: &PersonData) -> Result<Vec<u8>, TransferError> {
        self.left = self.left.checked_sub(1).ok_or(TransferError::Count)?;
        let sealed = self.seal.close(&encode(person)).ok_or(TransferError::TooLong)?;
        if sealed.len() > MAX_RECORD {
            return Err(TransferError::TooLong);
        }
        // At most MAX_RECORD.
        let record = [&(sealed.len() as u32).to_le_bytes()[..], &sealed].concat();
        self.hash.update(&record);
        Ok(record)
    }

    /// The end.
    ///
    /// # Errors
    /// [`TransferError::Count`] when people are missing.
    pub fn finish(self) -> Result<Vec<u8>, TransferError> {
        if self.left > 0 {
            return Err(TransferError::Count);
        }
        let signed = signed(self.hash);
        Ok(self.key.sign(Domain::Receipt, &signed).parts().concat())
    }
}

impl Opener {
    /// Begins to read a file for the door `key`, as it came from the door `from`; `start` are its first bytes, as [`start_length`] tells them.
    ///
    /// # Errors
    /// [`TransferError`]: no sealed gallery, for another door, from another one.
    pub fn begin(start: &[u8], key: &SecretKey, from: PublicKey) -> Result<Self, TransferError> {
        let body = start.strip_prefix(&MAGIC).and_then(|rest| rest.get(4..)).ok_or(TransferError::NotOne)?;
        let (head, rest) = postcard::take_from_bytes::<Head>(body).map_err(|_| TransferError::NotOne)?;
        if head.format != FORMAT {
            return Err(TransferError::Format { actual: head.format });
        }
        if !rest.is_empty() {
            return Err(TransferError::NotOne);
        }
        if head.to != key.public() {
            return Err(TransferError::OtherDoor { to: head.to });
        }
        if head.from != from {
            return Err(TransferError::OtherSender { from: head.from });
        }
        let seal = Seal::agreed(key, head.ephemeral, start).ok_or(TransferError::BadKey)?;
        Ok(Self { seal, hash: Sha256::new_with_prefix(start), left: head.people, head })
    }

    /// People who are still to come.
    #[must_use]
    pub const fn left(&self) -> u32 {
        self.left
    }

    /// The next person; `sealed` without its length.
    ///
    /// # Errors
    /// [`TransferError::Changed`].
    pub fn person(&mut self, sealed: &[u8]) -> Result<PersonData, TransferError> {
        self.left = self.left.checked_sub(1).ok_or(TransferError::Count)?;
        if sealed.len() > MAX_RECORD {
            return Err(TransferError::TooLong);
        }
        self.hash.update((sealed.len() as u32).to_le_bytes());
        self.hash.update(sealed);
        let plain = self.seal.open(sealed).ok_or(TransferError::Changed)?;
        match postcard::take_from_bytes(&plain) {
            Ok((person, [])) => Ok(person),
            _ => Err(TransferError::Changed),
        }
    }

    /// The last [`SIGNATURE_BYTES`] of the file: whether the sender signed all of it.
    ///
    /// # Errors
    /// [`TransferError::Changed`], [`TransferError::Count`] when people are missing.
    pub fn finish(self, signature: &[u8]) -> Result<Head, TransferError> {
        if self.left > 0 {
            return Err(TransferError::Count);
        }
        let (r, s) = signature.split_first_chunk::<32>().ok_or(TransferError::Changed)?;
        let s: [u8; 32] = s.try_into().map_err(|_| TransferError::Changed)?;
        let genuine = Signature::of_parts(self.head.from, [*r, s]).fits(Domain::Receipt, &signed(self.hash));
        if genuine { Ok(self.head) } else { Err(TransferError::Changed) }
    }
}

/// How long a file's beginning is, from its first [`PREFIX_BYTES`].
///
/// # Errors
/// [`TransferError::NotOne`].
pub fn start_length(prefix: &[u8; PREFIX_BYTES]) -> Result<usize, TransferError> {
    let length = prefix.strip_prefix(&MAGIC).and_then(|rest| rest.try_into().ok()).map(u32::from_le_bytes);
    match length {
        Some(length) if length as usize <= MAX_HEAD => Ok(PREFIX_BYTES + length as usize),
        _ => Err(TransferError::NotOne),
    }
}

impl Seal {
    /// What both ends agree on: one has `own`, and the other `other`'s secret half. `None` for keys that are no points, or worthless ones.
    fn agreed(own: &SecretKey, other: PublicKey, start: &[u8]) -> Option<Self> {
        let point = VerifyingKey::from_bytes(&other.0).ok().filter(|key| !key.is_weak())?.to_montgomery();
        let scalar = SigningKey::from_bytes(own.expose()).to_scalar_bytes();
        let shared = point.mul_clamped(scalar).to_bytes();
        if shared == [0; 32] {
            return None;
        }
        let about: [u8; 32] = Sha256::digest(start).into();
        // The head names both doors and the fresh key, so that the key holds for this very file.
        let key = Key::from_bytes(Key::from_bytes(shared).authenticate(&[PURPOSE, &about]));
        Some(Self { key, about, count: 0 })
    }

    fn nonce(&mut self) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&self.count.to_le_bytes());
        self.count += 1;
        nonce
    }

    fn close(&mut self, plain: &[u8]) -> Option<Vec<u8>> {
        let (nonce, payload) = (self.nonce(), Payload { msg: plain, aad: &self.about });
        ChaCha20Poly1305::new(self.key.expose().into()).encrypt(Nonce::from_slice(&nonce), payload).ok()
    }

    fn open(&mut self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, payload) = (self.nonce(), Payload { msg: sealed, aad: &self.about });
        ChaCha20Poly1305::new(self.key.expose().into()).decrypt(Nonce::from_slice(&nonce), payload).ok()
    }
}

fn signed(hash: Sha256) -> Vec<u8> {
    [&b"facelatch gallery for another door 1\0"[..], &hash.finalize()].concat()
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    match postcard::to_allocvec(value) {
        Ok(bytes) => bytes,
        Err(_) => unreachable!("these types have known lengths and a growing buffer"),
    }
}

const MAGIC: [u8; 8] = *b"FLATCHG1";
const PURPOSE: &[u8] = b"facelatch gallery for another door 1";
/// The format that is written and read.
pub const FORMAT: u16 = 1;
/// Before the head: what it is, and the head's length.
pub const PREFIX_BYTES: usize = 12;
/// At the end.
pub const SIGNATURE_BYTES: usize = 64;
/// Longest record: three chips, 24 templates and what is said of a person.
pub const MAX_RECORD: usize = 60 * 1024;
const MAX_HEAD: usize = 1024;

/// Why a gallery is not sealed or not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TransferError {
    /// Something else.
    #[error("this is no sealed gallery: `facelatchd people export --for KEY` makes one")]
    NotOne,
    /// Of another release.
    #[error(
        "the sealed gallery has format {actual}, this program reads {FORMAT}: both doors need the same release"
    )]
    Format {
        /// What it says.
        actual: u16,
    },
    /// For somebody else.
    #[error("the gallery was sealed for another door, whose key is {to}")]
    OtherDoor {
        /// Whose.
        to: PublicKey,
    },
    /// From somebody else.
    #[error("the gallery says that it comes from another door, whose key is {from}")]
    OtherSender {
        /// Whose.
        from: PublicKey,
    },
    /// Not what was signed.
    #[error("the gallery was changed or damaged on its way; nothing of it is taken")]
    Changed,
    /// Fewer or more people than it says.
    #[error("the gallery has another number of people than it says; nothing of it is taken")]
    Count,
    /// Not a key.
    #[error(
        "the key is none of a door: 64 hexadecimal digits, as `facelatchd link key` shows them at the other door"
    )]
    BadKey,
    /// A record that is none of ours.
    #[error("a person has more data than a door keeps")]
    TooLong,
    /// No random bytes.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
