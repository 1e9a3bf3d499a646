//! Reading a bundle as it comes: nothing is handed on before it is verified.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::keys::{Domain, MAX_KEYS, Signature, SignedRoot, Trust};
use super::manifest::{Manifest, Platform};
use super::{BundleError, MAGIC, MAX_HEADER};

/// SHA-256 of a bundle's header: names the bundle, since the header names everything else.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BundleId(pub [u8; 32]);

impl BundleId {
    /// The name of the bundle with this header.
    #[must_use]
    pub fn of(header: &[u8]) -> Self {
        Self(Sha256::digest(header).into())
    }
}

impl core::fmt::Display for BundleId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl core::fmt::Debug for BundleId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

/// The header as it lies in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Root documents, oldest first, so that a door that missed some can follow.
    pub roots: Vec<SignedRoot>,
    /// Postcard of [`Manifest`].
    pub manifest: Vec<u8>,
    /// Engineers' signatures under the manifest.
    pub signatures: Vec<Signature>,
}

impl Header {
    /// The header of `bytes`; nothing is judged yet.
    ///
    /// # Errors
    /// [`BundleError::HeaderTooLong`], [`BundleError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        if bytes.len() > MAX_HEADER {
            return Err(BundleError::HeaderTooLong { bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX) });
        }
        let malformed = |what| BundleError::Malformed { what };
        let (header, rest) =
            postcard::take_from_bytes::<Self>(bytes).map_err(|_| malformed("it is no header"))?;
        if !rest.is_empty() {
            return Err(malformed("there are bytes behind the header"));
        }
        if header.roots.len() > MAX_KEYS || header.signatures.len() > MAX_KEYS {
            return Err(malformed("more root documents or signatures than there may be"));
        }
        Ok(header)
    }
}

/// A header that was judged good.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// The bundle's name.
    pub id: BundleId,
    /// What it holds.
    pub manifest: Manifest,
    /// Whom to trust from now on.
    pub trust: Trust,
}

/// Judges a header: root documents, signatures, then whether it is for this door at this time.
///
/// # Errors
/// [`BundleError`], the first thing that is wrong.
pub fn judge(bytes: &[u8], trust: &Trust, platform: &Platform<'_>) -> Result<Accepted, BundleError> {
    let header = Header::parse(bytes)?;
    let trust = trust.follow(&header.roots)?;
    trust.check(Domain::Manifest, &header.manifest, &header.signatures, platform.now)?;
    let manifest = Manifest::parse(&header.manifest)?;
    manifest.fits(platform)?;
    Ok(Accepted { id: BundleId::of(bytes), manifest, trust })
}

/// Where verified pieces go.
pub trait Sink {
    /// Why it takes no more.
    type Error: From<BundleError>;

    /// The header is good.
    ///
    /// # Errors
    /// The sink's; reading ends then.
    fn header(&mut self, accepted: &Accepted) -> Result<(), Self::Error>;

    /// The next chunk is good.
    ///
    /// # Errors
    /// The sink's; reading ends then.
    fn chunk(&mut self, section: u16, chunk: u32, bytes: &[u8]) -> Result<(), Self::Error>;
}

/// Reads a bundle in pieces of any length; holds at most one header or one chunk.
#[derive(Debug)]
pub struct Stream<'a> {
    trust: &'a Trust,
    platform: Platform<'a>,
    held: Vec<u8>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Prefix,
    Header {
        length: usize,
    },
    Chunks {
        accepted: alloc::boxed::Box<Accepted>,
        section: u16,
        chunk: u32,
    },
    End,
    /// Something was wrong; nothing more is taken.
    Refused(BundleError),
}

impl<'a> Stream<'a> {
    /// Begins to read.
    #[must_use]
    pub const fn new(trust: &'a Trust, platform: Platform<'a>) -> Self {
        Self { trust, platform, held: Vec::new(), place: Place::Prefix }
    }

    /// Takes the next bytes of the file; hands on what they complete.
    ///
    /// # Errors
    /// The sink's error, or [`BundleError`]; every later call then gives the refusal again.
    pub fn feed<S: Sink>(&mut self, mut bytes: &[u8], sink: &mut S) -> Result<(), S::Error> {
        while !bytes.is_empty() {
            if let Err(error) = self.step(&mut bytes, sink) {
                return Err(match error {
                    Stop::Bundle(error) => {
                        self.place = Place::Refused(error);
                        self.held = Vec::new();
                        error.into()
                    }
                    Stop::Sink(error) => error,
                });
            }
        }
        Ok(())
    }

    /// Ends: everything must have come.
    ///
    /// # Errors
    /// [`BundleError::Truncated`], or the refusal.
    pub fn finish(self) -> Result<(), BundleError> {
        match self.place {
            Place::End => Ok(()),
            Place::Refused(error) => Err(error),
            Place::Prefix => Err(BundleError::Truncated { missing: (PREFIX_BYTES - self.held.len()) as u64 }),
            Place::Header { length } => {
                Err(BundleError::Truncated { missing: (length - self.held.len()) as u64 })
            }
            Place::Chunks { accepted, section, chunk } => {
                let left: u64 = accepted.manifest.sections[usize::from(section)..]
                    .iter()
                    .map(|section| u64::from(section.length))
                    .sum();
                let done = u64::from(chunk) * super::CHUNK_BYTES as u64 + self.held.len() as u64;
                Err(BundleError::Truncated { missing: left - done })
            }
        }
    }

    fn step<S: Sink>(&mut self, bytes: &mut &[u8], sink: &mut S) -> Result<(), Stop<S::Error>> {
        match &mut self.place {
            Place::Refused(error) => return Err(Stop::Bundle(*error)),
            Place::End => return Err(Stop::Bundle(BundleError::TrailingBytes)),
            Place::Prefix => {
                if !fill(&mut self.held, PREFIX_BYTES, bytes) {
                    return Ok(());
                }
                let length = header_length(&self.held).map_err(Stop::Bundle)?;
                self.place = Place::Header { length };
                self.held.clear();
            }
            Place::Header { length } => {
                if !fill(&mut self.held, *length, bytes) {
                    return Ok(());
                }
                let accepted = judge(&self.held, self.trust, &self.platform).map_err(Stop::Bundle)?;
                sink.header(&accepted).map_err(Stop::Sink)?;
                self.place = Place::Chunks { accepted: accepted.into(), section: 0, chunk: 0 };
                self.held.clear();
            }
            Place::Chunks { accepted, section, chunk } => {
                let listed = &accepted.manifest.sections[usize::from(*section)];
                // A manifest that was accepted has no empty section, and `chunk` is below their number.
                let wanted = listed.chunk_length(*chunk).unwrap_or_default();
                if !fill(&mut self.held, wanted, bytes) {
                    return Ok(());
                }
                accepted.manifest.check_chunk(*section, *chunk, &self.held).map_err(Stop::Bundle)?;
                sink.chunk(*section, *chunk, &self.held).map_err(Stop::Sink)?;
                self.held.clear();
                *chunk += 1;
                if listed.chunk_length(*chunk).is_none() {
                    (*section, *chunk) = (*section + 1, 0);
                }
                if usize::from(*section) == accepted.manifest.sections.len() {
                    self.place = Place::End;
                }
            }
        }
        Ok(())
    }
}

enum Stop<E> {
    Bundle(BundleError),
    Sink(E),
}

/// The header's length, from the first [`PREFIX_BYTES`] of a file.
///
/// # Errors
/// [`BundleError::NotABundle`], [`BundleError::Format`], [`BundleError::HeaderTooLong`].
pub fn header_length(prefix: &[u8]) -> Result<usize, BundleError> {
    let (magic, length) = prefix.split_at_checked(MAGIC.len()).ok_or(BundleError::NotABundle)?;
    if magic[..7] == MAGIC[..7] && magic != MAGIC {
        return Err(BundleError::Format { actual: u16::from(magic[7].wrapping_sub(b'0')) });
    }
    let length: [u8; 4] = length.try_into().map_err(|_| BundleError::NotABundle)?;
    let length = u32::from_le_bytes(length);
    match magic == MAGIC {
        true if length as usize <= MAX_HEADER => Ok(length as usize),
        true => Err(BundleError::HeaderTooLong { bytes: length }),
        false => Err(BundleError::NotABundle),
    }
}

/// Moves bytes over until `held` has `wanted`; whether it has.
fn fill(held: &mut Vec<u8>, wanted: usize, bytes: &mut &[u8]) -> bool {
    let (now, later) = bytes.split_at((wanted - held.len()).min(bytes.len()));
    held.extend_from_slice(now);
    *bytes = later;
    held.len() == wanted
}

/// Bytes before the header: [`MAGIC`] and the header's length.
pub const PREFIX_BYTES: usize = MAGIC.len() + 4;
