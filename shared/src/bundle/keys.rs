//! Who may sign: root keys name engineers' keys in a root document, and the next root document is signed by the former's keys.

use alloc::vec::Vec;

use ed25519_dalek::{Signature as Ed25519, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{BundleError, FORMAT};
use crate::gallery::{Entropy, EntropyError};
use crate::time::UnixMs;

/// Most root keys, most engineers, and most signatures under one document.
pub const MAX_KEYS: usize = 16;

/// Most revoked keys that a root document lists.
pub const MAX_REVOKED: usize = 64;

/// What a root document's file begins with; the digit is the format.
const ROOT_MAGIC: &[u8] = b"FLROOT1\n";

/// An Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);

impl core::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl core::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

/// An Ed25519 secret key (its 32-byte seed); wiped from memory when dropped, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    /// The key of this seed.
    #[must_use]
    pub const fn from_bytes(seed: [u8; 32]) -> Self {
        Self(seed)
    }

    /// A new random key.
    ///
    /// # Errors
    /// [`EntropyError`] when the source gives none.
    pub fn generate(entropy: &mut dyn Entropy) -> Result<Self, EntropyError> {
        let mut seed = [0; 32];
        entropy.fill(&mut seed)?;
        Ok(Self(seed))
    }

    /// The seed, for whoever stores it.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(SigningKey::from_bytes(&self.0).verifying_key().to_bytes())
    }

    /// Signs `bytes` for one purpose.
    #[must_use]
    pub fn sign(&self, domain: Domain, bytes: &[u8]) -> Signature {
        let key = SigningKey::from_bytes(&self.0);
        let signed = key.sign(&domain.message(bytes));
        Signature { key: self.public(), r: *signed.r_bytes(), s: *signed.s_bytes() }
    }
}

impl core::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

/// What a signature is for, so that one is never taken for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// A bundle's manifest.
    Manifest,
    /// A root document.
    Root,
    /// A receipt or an export of a door.
    Receipt,
    /// What a card's image is.
    Image,
}

impl Domain {
    fn message(self, bytes: &[u8]) -> Vec<u8> {
        let prefix: &[u8] = match self {
            Self::Manifest => b"facelatch bundle manifest 1\0",
            Self::Root => b"facelatch root document 1\0",
            Self::Receipt => b"facelatch receipt 1\0",
            Self::Image => b"facelatch image 1\0",
        };
        [prefix, bytes].concat()
    }
}

/// A signature and whose it claims to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// The signer.
    pub key: PublicKey,
    r: [u8; 32],
    s: [u8; 32],
}

impl Signature {
    /// Its two halves, for formats of their own.
    #[must_use]
    pub const fn parts(&self) -> [[u8; 32]; 2] {
        [self.r, self.s]
    }

    /// The signature of these halves.
    #[must_use]
    pub const fn of_parts(key: PublicKey, [r, s]: [[u8; 32]; 2]) -> Self {
        Self { key, r, s }
    }

    /// Whether it stands under `bytes`, signed for `domain`.
    #[must_use]
    pub fn fits(&self, domain: Domain, bytes: &[u8]) -> bool {
        let signature = Ed25519::from_components(self.r, self.s);
        VerifyingKey::from_bytes(&self.key.0)
            .is_ok_and(|key| key.verify_strict(&domain.message(bytes), &signature).is_ok())
    }
}

/// Who may sign what, until the next one. Numbered from 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// [`FORMAT`].
    pub format: u16,
    /// Its number; the next document has the next one.
    pub version: u32,
    /// When it was made.
    pub created: UnixMs,
    /// From when on it is no longer taken; `None` for never.
    pub expires: Option<UnixMs>,
    /// Keys that sign root documents.
    pub keys: Vec<PublicKey>,
    /// How many of them must sign.
    pub threshold: u8,
    /// Keys that sign bundles.
    pub engineers: Vec<Engineer>,
    /// How many engineers must sign a bundle.
    pub engineer_threshold: u8,
    /// Keys that must never count again, of either kind.
    pub revoked: Vec<PublicKey>,
}

/// One who signs bundles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engineer {
    /// The key.
    pub key: PublicKey,
    /// Whose, for people.
    pub name: heapless::String<48>,
}

/// A root document and the signatures under it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRoot {
    /// Postcard of [`Root`].
    pub document: Vec<u8>,
    /// By the former document's keys and by its own.
    pub signatures: Vec<Signature>,
}

impl SignedRoot {
    /// `root`, not yet signed.
    ///
    /// # Errors
    /// [`BundleError::BadRoot`].
    pub fn unsigned(root: &Root) -> Result<Self, BundleError> {
        root.check()?;
        let document =
            postcard::to_allocvec(root).map_err(|_| BundleError::BadRoot { what: "it cannot be encoded" })?;
        Ok(Self { document, signatures: Vec::new() })
    }

    /// The document of a root file.
    ///
    /// # Errors
    /// [`BundleError::BadRoot`], [`BundleError::Format`]; signatures are not judged.
    pub fn from_file(bytes: &[u8]) -> Result<Self, BundleError> {
        let malformed = BundleError::BadRoot { what: "the file is no root document" };
        let body = bytes.strip_prefix(ROOT_MAGIC).ok_or(malformed)?;
        let (signed, rest) = postcard::take_from_bytes::<Self>(body).map_err(|_| malformed)?;
        if !rest.is_empty() {
            return Err(malformed);
        }
        signed.root()?;
        Ok(signed)
    }

    /// The bytes that [`from_file`](Self::from_file) reads.
    ///
    /// # Errors
    /// [`BundleError::BadRoot`] when it cannot be encoded.
    pub fn to_file(&self) -> Result<Vec<u8>, BundleError> {
        let body =
            postcard::to_allocvec(self).map_err(|_| BundleError::BadRoot { what: "it cannot be encoded" })?;
        Ok([ROOT_MAGIC, &body].concat())
    }

    /// Adds one signature.
    pub fn sign(&mut self, key: &SecretKey) {
        self.signatures.retain(|signature| signature.key != key.public());
        self.signatures.push(key.sign(Domain::Root, &self.document));
    }

    /// What it says, whoever signed it.
    ///
    /// # Errors
    /// [`BundleError::BadRoot`], [`BundleError::Format`].
    pub fn root(&self) -> Result<Root, BundleError> {
        let malformed = BundleError::BadRoot { what: "it is not one" };
        let (root, rest) = postcard::take_from_bytes::<Root>(&self.document).map_err(|_| malformed)?;
        if root.format != FORMAT {
            return Err(BundleError::Format { actual: root.format });
        }
        if !rest.is_empty() {
            return Err(malformed);
        }
        root.check()?;
        Ok(root)
    }
}

impl Root {
    fn check(&self) -> Result<(), BundleError> {
        let bad = |what| Err(BundleError::BadRoot { what });
        let distinct = |keys: &mut Vec<PublicKey>| {
            keys.sort_unstable();
            keys.windows(2).all(|pair| pair[0] != pair[1])
        };
        if self.keys.is_empty() || self.keys.len() > MAX_KEYS || self.engineers.len() > MAX_KEYS {
            return bad("it names no root key, or more than 16 keys of a kind");
        }
        if self.revoked.len() > MAX_REVOKED {
            return bad("it revokes more than 64 keys");
        }
        if !distinct(&mut self.keys.clone()) || !distinct(&mut self.engineer_keys()) {
            return bad("it names a key twice");
        }
        if self.threshold == 0 || usize::from(self.threshold) > self.keys.len() {
            return bad("its threshold is not 1 to the number of its root keys");
        }
        let engineers = self.engineers.len();
        if self.engineer_threshold == 0 || (engineers > 0 && usize::from(self.engineer_threshold) > engineers)
        {
            return bad("its engineers' threshold is not 1 to their number");
        }
        if self.keys.iter().chain(&self.engineer_keys()).any(|key| self.revoked.contains(key)) {
            return bad("it names a key that it revokes");
        }
        if self.version == 0 {
            return bad("its number is zero");
        }
        Ok(())
    }

    fn engineer_keys(&self) -> Vec<PublicKey> {
        self.engineers.iter().map(|engineer| engineer.key).collect()
    }
}

/// The root document that a door trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    root: Root,
    signed: SignedRoot,
}

impl Trust {
    /// Begins with `signed`, which must be signed by its own keys: for the document that pairing brings.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn begin(signed: SignedRoot) -> Result<Self, BundleError> {
        let root = signed.root()?;
        count(Domain::Root, &signed.document, &signed.signatures, &root.keys, &root.revoked, root.threshold)?;
        Ok(Self { root, signed })
    }

    /// Follows a chain of documents, oldest first; those that are not newer than the trusted one are passed over. Each must be signed
    /// by enough keys of the one before it and of its own.
    ///
    /// # Errors
    /// [`BundleError`]; nothing is changed then.
    pub fn follow(&self, chain: &[SignedRoot]) -> Result<Self, BundleError> {
        let mut trust = self.clone();
        for signed in chain {
            let next = signed.root()?;
            let now = &trust.root;
            if next.version <= now.version {
                // The very document, or one that was superseded: it decides nothing.
                continue;
            }
            if next.version != now.version + 1 {
                return Err(BundleError::RootGap { version: next.version, trusted: now.version });
            }
            let check = |root: &Root| {
                count(Domain::Root, &signed.document, &signed.signatures, &root.keys, &[], root.threshold)
            };
            check(now)?;
            check(&next)?;
            trust = Self { root: next, signed: signed.clone() };
        }
        Ok(trust)
    }

    /// Judges the signatures under a manifest.
    ///
    /// # Errors
    /// [`BundleError::Unsigned`], [`BundleError::RevokedKey`], [`BundleError::UnknownKey`], [`BundleError::BadSignature`],
    /// [`BundleError::TooFewSignatures`], [`BundleError::RootExpired`].
    pub fn check(
        &self,
        domain: Domain,
        bytes: &[u8],
        signatures: &[Signature],
        now: UnixMs,
    ) -> Result<(), BundleError> {
        if self.root.expires.is_some_and(|at| now >= at) {
            return Err(BundleError::RootExpired);
        }
        let keys = self.root.engineer_keys();
        count(domain, bytes, signatures, &keys, &self.root.revoked, self.root.engineer_threshold)
    }

    /// What the trusted document says.
    #[must_use]
    pub const fn root(&self) -> &Root {
        &self.root
    }

    /// The trusted document, to be stored.
    #[must_use]
    pub const fn signed(&self) -> &SignedRoot {
        &self.signed
    }
}

/// Counts valid signatures of different `keys`. The first thing that is wrong is the reason, so that a forged signature beside good ones is
/// told too; signatures by strangers are passed over when enough others are there.
fn count(
    domain: Domain,
    bytes: &[u8],
    signatures: &[Signature],
    keys: &[PublicKey],
    revoked: &[PublicKey],
    need: u8,
) -> Result<(), BundleError> {
    if signatures.is_empty() {
        return Err(BundleError::Unsigned);
    }
    if signatures.len() > 2 * MAX_KEYS {
        return Err(BundleError::Malformed { what: "more signatures than keys can be" });
    }
    let mut signers: Vec<PublicKey> = Vec::new();
    let mut reason = None;
    for signature in signatures {
        if revoked.contains(&signature.key) {
            reason = Some(BundleError::RevokedKey);
        } else if keys.contains(&signature.key) {
            if !signature.fits(domain, bytes) {
                return Err(BundleError::BadSignature);
            }
            if !signers.contains(&signature.key) {
                signers.push(signature.key);
            }
        } else if reason.is_none() {
            reason = Some(BundleError::UnknownKey);
        }
    }
    // At most 32 signatures were looked at.
    let have = signers.len() as u8;
    match reason {
        _ if have >= need => Ok(()),
        Some(reason) if have == 0 => Err(reason),
        _ => Err(BundleError::TooFewSignatures { have, need }),
    }
}
