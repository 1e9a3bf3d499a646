//! Making a bundle: manifest from sections, signatures, one file.

use alloc::vec::Vec;

use super::keys::{Domain, SecretKey, SignedRoot};
use super::manifest::{Manifest, Section, SectionKind};
use super::stream::{Header, PREFIX_BYTES, header_length};
use super::{BundleError, MAGIC, MAX_HEADER};

/// A bundle being made: the manifest with its sections, and their bytes.
#[derive(Clone, Debug)]
pub struct Draft {
    header: Header,
    contents: Vec<u8>,
}

impl Draft {
    /// Lists `files` in `manifest` in the place of its sections. Nothing is signed yet.
    ///
    /// # Errors
    /// [`BundleError::Malformed`] when the manifest contradicts itself.
    pub fn new(
        mut manifest: Manifest,
        files: &[(SectionKind, &str, &[u8])],
        roots: Vec<SignedRoot>,
    ) -> Result<Self, BundleError> {
        let sections = files.iter().map(|(kind, name, bytes)| Section::of(*kind, name, bytes));
        manifest.sections = sections.collect::<Result<_, _>>()?;
        let bytes = postcard::to_allocvec(&manifest)
            .map_err(|_| BundleError::Malformed { what: "the manifest cannot be encoded" })?;
        Manifest::parse(&bytes)?;
        let contents = files.iter().flat_map(|(_, _, bytes)| bytes.iter().copied()).collect();
        Ok(Self { header: Header { roots, manifest: bytes, signatures: Vec::new() }, contents })
    }

    /// Adds a signature under the manifest, in the place of the same key's former one.
    pub fn sign(&mut self, key: &SecretKey) {
        let public = key.public();
        self.header.signatures.retain(|signature| signature.key != public);
        self.header.signatures.push(key.sign(Domain::Manifest, &self.header.manifest));
    }

    /// Puts other root documents in; signatures under the manifest hold as before.
    pub fn set_roots(&mut self, roots: Vec<SignedRoot>) {
        self.header.roots = roots;
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The file.
    ///
    /// # Errors
    /// [`BundleError::HeaderTooLong`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, BundleError> {
        let header = postcard::to_allocvec(&self.header)
            .map_err(|_| BundleError::Malformed { what: "the header cannot be encoded" })?;
        let length = u32::try_from(header.len()).unwrap_or(u32::MAX);
        if header.len() > MAX_HEADER {
            return Err(BundleError::HeaderTooLong { bytes: length });
        }
        Ok([&MAGIC[..], &length.to_le_bytes(), &header, &self.contents].concat())
    }

    /// Takes a file apart, to sign it again. Neither signatures nor contents are judged.
    ///
    /// # Errors
    /// [`BundleError`] when the file is no bundle.
    pub fn open(file: &[u8]) -> Result<Self, BundleError> {
        let Parts { header, contents } = split(file)?;
        Ok(Self { header: Header::parse(header)?, contents: contents.to_vec() })
    }
}

/// A bundle's file, cut in two.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The header's bytes.
    pub header: &'a [u8],
    /// All sections, one after the other.
    pub contents: &'a [u8],
}

/// Cuts `file` in two; nothing is judged.
///
/// # Errors
/// [`BundleError`] when the file is no bundle or ends within its header.
pub fn split(file: &[u8]) -> Result<Parts<'_>, BundleError> {
    let missing = |bytes: usize| BundleError::Truncated { missing: bytes as u64 };
    let (prefix, rest) = file.split_at_checked(PREFIX_BYTES).ok_or_else(|| {
        match file.is_empty() || MAGIC.starts_with(&file[..file.len().min(8)]) {
            true => missing(PREFIX_BYTES - file.len()),
            false => BundleError::NotABundle,
        }
    })?;
    let length = header_length(prefix)?;
    let (header, contents) = rest.split_at_checked(length).ok_or_else(|| missing(length - rest.len()))?;
    Ok(Parts { header, contents })
}
