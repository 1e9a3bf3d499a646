//! PINs: typed on a keypad, stored as Argon2id hashes, never shown.

use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use facelatch_shared::access::PinHash;
use facelatch_shared::gallery::{Entropy, EntropyError};
use thiserror::Error;
use zeroize::Zeroize as _;

/// Fewest digits.
pub const MIN_DIGITS: usize = 4;

/// Most digits.
pub const MAX_DIGITS: usize = 12;

/// Digits as typed, wiped when dropped. Its debug form does not show them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Pin(heapless::Vec<u8, MAX_DIGITS>);

impl Pin {
    /// Parses 4 to 12 digits.
    ///
    /// # Errors
    /// [`PinError::Digits`].
    pub fn parse(text: &str) -> Result<Self, PinError> {
        let mut pin = Self::default();
        for byte in text.bytes() {
            if !byte.is_ascii_digit() || pin.0.push(byte).is_err() {
                return Err(PinError::Digits);
            }
        }
        if pin.0.len() < MIN_DIGITS { Err(PinError::Digits) } else { Ok(pin) }
    }

    /// One more digit, 0 to 9; those beyond [`MAX_DIGITS`] are dropped, and the PIN is then no right one.
    pub fn push(&mut self, digit: u8) {
        let _ = self.0.push(b'0' + digit.min(9));
    }

    /// Digits typed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is typed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The hash to store, under a fresh salt. Takes about a tenth of a second on a small board, on purpose.
    ///
    /// # Errors
    /// [`PinError`].
    pub fn hash(&self, entropy: &mut dyn Entropy) -> Result<PinHash, PinError> {
        let mut salt = [0; 16];
        entropy.fill(&mut salt)?;
        let salt = SaltString::encode_b64(&salt).map_err(|error| PinError::Hash(error.to_string()))?;
        let hash =
            hasher().hash_password(&self.0, &salt).map_err(|error| PinError::Hash(error.to_string()))?;
        PinHash::try_from(hash.to_string().as_str()).map_err(|_| PinError::Hash("it is too long".into()))
    }

    /// Whether this is the PIN of `hash`. A hash that is none belongs to no PIN.
    #[must_use]
    pub fn matches(&self, hash: &str) -> bool {
        PasswordHash::new(hash).is_ok_and(|hash| hasher().verify_password(&self.0, &hash).is_ok())
    }
}

/// Whether `text` is a hash of a PIN.
#[must_use]
pub fn is_hash(text: &str) -> bool {
    text.len() <= 128 && PasswordHash::new(text).is_ok_and(|hash| hash.algorithm == argon2::ARGON2ID_IDENT)
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.as_mut_slice().zeroize();
    }
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pin({} digits)", self.0.len())
    }
}

/// Argon2id over 8 MiB in three passes: what a board with 64 MiB to spare can do within a tap of the finger. A PIN of few digits is
/// guessed from its hash all the same; the hash lies sealed in the gallery, and the door counts failures.
fn hasher() -> Argon2<'static> {
    let params = Params::new(8 * 1024, 3, 1, None).unwrap_or_default();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// Why there is no PIN, or no hash of it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PinError {
    /// Not digits, or too few or too many.
    #[error("a PIN is {MIN_DIGITS} to {MAX_DIGITS} digits")]
    Digits,
    /// No random bytes for the salt.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// The hash function failed.
    #[error("the PIN could not be hashed: {0}")]
    Hash(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch_shared::gallery::CountingEntropy;

    #[test]
    fn a_hash_fits_its_pin_alone() {
        let pin = Pin::parse("4711").unwrap();
        let hash = pin.hash(&mut CountingEntropy(1)).unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=8192,t=3,p=1$") && is_hash(&hash), "{hash}");
        assert!(pin.matches(&hash));
        assert!(!Pin::parse("4712").unwrap().matches(&hash));
        assert_ne!(pin.hash(&mut CountingEntropy(2)).unwrap(), hash, "salted");
        assert!(!pin.matches("4711") && !is_hash("4711"));
    }

    #[test]
    fn digits_alone_and_never_shown() {
        for text in ["", "123", "12a4", "1234567890123", "+1234"] {
            assert!(matches!(Pin::parse(text), Err(PinError::Digits)), "{text}");
        }
        assert_eq!(format!("{:?}", Pin::parse("4711").unwrap()), "Pin(4 digits)");
        let mut typed = Pin::default();
        [4, 7, 1, 1].into_iter().for_each(|digit| typed.push(digit));
        assert_eq!(typed, Pin::parse("4711").unwrap());
    }
}
