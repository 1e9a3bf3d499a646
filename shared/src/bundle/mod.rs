//! Bundles: one file that brings a door new models, or a card's image a new system, and everything that says whether the door may use them.
//!
//! ```text
//! FLATCHB1 | header length u32 | header | section 1 | section 2 | …          little endian
//!            header = postcard { root documents, manifest, signatures }
//! ```
//!
//! The manifest lists every section with its length and the SHA-256 of each of its chunks of [`CHUNK_BYTES`], and is signed by engineers
//! whom a [`Root`] names. A reader therefore judges the header before it stores anything, and every chunk before it stores that one: the
//! memory it needs is one header and one chunk, whatever the file's length. Format 1; the order of fields is the format.

mod error;
mod keys;
mod manifest;
mod selftest;
mod stream;
mod write;

pub use error::BundleError;
pub use keys::{
    Domain, Engineer, MAX_KEYS, MAX_REVOKED, PublicKey, Root, SecretKey, Signature, SignedRoot, Trust,
};
pub use manifest::{
    Compatible, Content, MAX_SECTIONS, Manifest, NUMBER_MARK, Platform, SLOT_MARK, Section, SectionKind,
    SystemPlatform, Trial, Version,
};
pub use selftest::{MAX_PROBES, Pair, ProbeChip, SelfTest, SelfTestFault, SelfTestReport};
pub use stream::{Accepted, BundleId, Header, PREFIX_BYTES, Sink, Stream, header_length, judge};
pub use write::{Draft, Parts, split};

/// What a bundle begins with; the last byte is the format.
pub const MAGIC: [u8; 8] = *b"FLATCHB1";

/// The format of header and manifest.
pub const FORMAT: u16 = 1;

/// A section is hashed, sent and stored in pieces of so many bytes; only its last may be shorter.
pub const CHUNK_BYTES: usize = 32 * 1024;

/// Longest header in bytes; a longer one is refused before it is read.
pub const MAX_HEADER: usize = 192 * 1024;

/// Largest section in bytes.
pub const MAX_SECTION: u32 = 128 << 20;

#[cfg(test)]
mod tests;
