//! Keys and sealing: ChaCha20-Poly1305, one key a person, each wrapped by the device's key.

use alloc::vec::Vec;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A 256-bit key; wiped from memory when dropped, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Key([u8; 32]);

impl Key {
    /// A key of these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A new random key.
    ///
    /// # Errors
    /// [`EntropyError`] when the source gives none.
    pub fn generate(entropy: &mut dyn Entropy) -> Result<Self, EntropyError> {
        let mut bytes = [0; 32];
        entropy.fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The bytes, for whoever stores the device's key.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// A key for `purpose` that tells nothing of this one (HMAC-SHA-256).
    #[must_use]
    pub fn derive(&self, purpose: &str) -> Self {
        Self(self.authenticate(&[purpose.as_bytes()]))
    }

    /// HMAC-SHA-256 over `parts` in order. Parts are not delimited: their lengths must be fixed or told by the caller.
    #[must_use]
    pub fn authenticate(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = match <Hmac<Sha256> as Mac>::new_from_slice(&self.0) {
            Ok(mac) => mac,
            Err(_) => unreachable!("HMAC takes keys of any length"),
        };
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// Encrypts `plain`; `about` must be given again to open it. Result: nonce (12), ciphertext, tag (16).
    ///
    /// # Errors
    /// [`EntropyError`] when there is no nonce to be had.
    pub fn seal(
        &self,
        plain: &[u8],
        about: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<Vec<u8>, EntropyError> {
        let mut nonce = [0; NONCE];
        entropy.fill(&mut nonce)?;
        let payload = Payload { msg: plain, aad: about };
        // Fails only for messages of 256 GiB and more.
        let sealed = ChaCha20Poly1305::new(&self.0.into())
            .encrypt(Nonce::from_slice(&nonce), payload)
            .map_err(|_| EntropyError)?;
        let mut out = Vec::with_capacity(NONCE + sealed.len());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// Decrypts what [`seal`](Self::seal) made with this key and the same `about`; `None` for anything else.
    #[must_use]
    pub fn open(&self, sealed: &[u8], about: &[u8]) -> Option<Vec<u8>> {
        let (nonce, body) = sealed.split_at_checked(NONCE)?;
        ChaCha20Poly1305::new(&self.0.into())
            .decrypt(Nonce::from_slice(nonce), Payload { msg: body, aad: about })
            .ok()
    }
}

impl core::fmt::Debug for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// A source of random bytes.
pub trait Entropy {
    /// Fills `out`.
    ///
    /// # Errors
    /// [`EntropyError`] when the system gives none; `out` is then not to be used.
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError>;
}

/// The system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the system gives no random bytes")]
pub struct EntropyError;

/// Distinct but predictable bytes, for tests and simulations only: a gallery sealed with these is not secret.
#[derive(Clone, Debug, Default)]
pub struct CountingEntropy(pub u64);

impl Entropy for CountingEntropy {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
        for chunk in out.chunks_mut(8) {
            self.0 += 1;
            let bytes = self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        Ok(())
    }
}

const NONCE: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_and_purpose_open() {
        let mut entropy = CountingEntropy::default();
        let key = Key::generate(&mut entropy).unwrap();
        let sealed = key.seal(b"who", b"person 1", &mut entropy).unwrap();
        assert_eq!(key.open(&sealed, b"person 1").unwrap(), b"who");
        assert_eq!(key.open(&sealed, b"person 2"), None);
        assert_eq!(key.derive("other").open(&sealed, b"person 1"), None);
        assert_eq!(key.open(&sealed[..5], b"person 1"), None);
        for at in 0..sealed.len() {
            let mut broken = sealed.clone();
            broken[at] ^= 0x10;
            assert_eq!(key.open(&broken, b"person 1"), None, "byte {at}");
        }
    }
}
