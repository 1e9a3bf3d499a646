//! What is left of a person who was erased: how much was destroyed, and a receipt of it that the door signs.
//!
//! The signature stands under the very text that is shown ([`ErasureReceipt`]'s `Display` above its last line), so that a copied text can be
//! verified without any other file, and nothing can be said beside what was signed.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::person::SubjectId;
use crate::schedule::Day;
use crate::time::UnixMs;

/// What was destroyed with a person. Says nothing of who it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    /// The number, which is never given again.
    pub subject: SubjectId,
    /// When the person was enrolled.
    pub enrolled_at: UnixMs,
    /// When the person was erased.
    pub erased_at: UnixMs,
    /// Templates, of all models.
    pub templates: u16,
    /// Models that these belonged to: in use, former, and being prepared.
    pub models: u8,
    /// Chips of the face.
    pub chips: u8,
    /// The print of the person's key: a keyed hash of it, which tells nothing of it.
    pub key: KeyPrint,
}

/// Names a person's key without telling anything of it.
pub type KeyPrint = [u8; 16];

/// The door's word for an erasure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErasureReceipt {
    /// What was destroyed.
    pub erasure: Erasure,
    /// The door's Ed25519 key, which workstations pin.
    pub door: [u8; 32],
    /// Its signature under the text.
    pub(crate) signature: [[u8; 32]; 2],
}

/// The text that is signed.
struct Signed<'a>(&'a Erasure, &'a [u8; 32]);

impl fmt::Display for Signed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(erasure, door) = self;
        let Erasure { subject, enrolled_at, erased_at, templates, models, chips, key } = erasure;
        writeln!(f, "{TITLE}")?;
        writeln!(f, "{DOOR}{}", Hex(*door))?;
        writeln!(f, "person: {}", subject.0)?;
        writeln!(f, "enrolled: {}", Instant(*enrolled_at))?;
        writeln!(f, "erased: {}", Instant(*erased_at))?;
        writeln!(
            f,
            "destroyed: key {}, templates {templates}, models {models}, pictures of the face {chips}",
            Hex(key)
        )
    }
}

impl fmt::Display for ErasureReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [r, s] = &self.signature;
        writeln!(f, "{}{SIGNATURE}{}{}", Signed(&self.erasure, &self.door), Hex(r), Hex(s))
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// RFC 3339 in UTC to the second; plain milliseconds before 1970 and after 9999.
struct Instant(UnixMs);

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, seconds) = (self.0.0.div_euclid(86_400_000), self.0.0.rem_euclid(86_400_000) / 1000);
        match i32::try_from(days) {
            Ok(days) if (0..=LAST_DAY).contains(&days) => {
                write!(f, "{}T{:02}:{:02}:{:02}Z", Day(days), seconds / 3600, seconds / 60 % 60, seconds % 60)
            }
            _ => write!(f, "{} ms", self.0.0),
        }
    }
}

const TITLE: &str = "Facelatch erasure receipt 1";
const DOOR: &str = "door: ";
const SIGNATURE: &str = "signature: ";
/// 9999-12-31.
const LAST_DAY: i32 = 2_932_896;

#[cfg(feature = "alloc")]
mod signing {
    use alloc::string::{String, ToString as _};

    use thiserror::Error;

    use super::{DOOR, Erasure, ErasureReceipt, SIGNATURE, Signed, TITLE};
    use crate::bundle::{Domain, PublicKey, SecretKey, Signature};

    impl ErasureReceipt {
        /// The receipt of the door whose key this is.
        #[must_use]
        pub fn sign(erasure: Erasure, key: &SecretKey) -> Self {
            let door = key.public().0;
            let signature = key.sign(Domain::Receipt, Signed(&erasure, &door).to_string().as_bytes()).parts();
            Self { erasure, door, signature }
        }

        /// Whether the door named in it signed it.
        #[must_use]
        pub fn is_genuine(&self) -> bool {
            let text = Signed(&self.erasure, &self.door).to_string();
            Signature::of_parts(PublicKey(self.door), self.signature).fits(Domain::Receipt, text.as_bytes())
        }
    }

    /// Verifies a receipt's text, as a door printed it; whatever stands above it, blank lines and blanks before line ends do no harm.
    /// Returns the key of the door that signed it: the caller judges whether that is the door in question.
    ///
    /// # Errors
    /// [`ReceiptError`].
    pub fn verify(text: &str) -> Result<PublicKey, ReceiptError> {
        let lines = text.lines().map(str::trim_end).skip_while(|line| *line != TITLE);
        let text: String = lines.flat_map(|line| [line, "\n"]).collect();
        let signed_end = text.find(SIGNATURE).ok_or(ReceiptError::NotAReceipt)?;
        let (signed, rest) = text.split_at(signed_end);
        let mut lines = signed.lines();
        let door = match (lines.next(), lines.next().and_then(|line| line.strip_prefix(DOOR))) {
            (Some(TITLE), Some(door)) => PublicKey(unhex(door).ok_or(ReceiptError::NotAReceipt)?),
            _ => return Err(ReceiptError::NotAReceipt),
        };
        let digits = rest[SIGNATURE.len()..].trim_end();
        let (r, s) = digits.split_at_checked(64).ok_or(ReceiptError::NotAReceipt)?;
        let parts = unhex(r).zip(unhex(s)).ok_or(ReceiptError::NotAReceipt)?;
        let signature = Signature::of_parts(door, [parts.0, parts.1]);
        if signature.fits(Domain::Receipt, signed.as_bytes()) { Ok(door) } else { Err(ReceiptError::Forged) }
    }

    fn unhex(text: &str) -> Option<[u8; 32]> {
        let digits = (text.len() == 64).then_some(text.as_bytes())?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let high = char::from(pair[0]).to_digit(16)?;
            let low = char::from(pair[1]).to_digit(16)?;
            // Two digits of base 16 are below 256.
            *byte = (high * 16 + low) as u8;
        }
        Some(bytes)
    }

    /// Why a text is no receipt.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
    #[non_exhaustive]
    pub enum ReceiptError {
        /// Something else.
        #[error(
            "this is no erasure receipt: it begins with `{TITLE}` and ends with the line of the signature"
        )]
        NotAReceipt,
        /// Changed, or made up.
        #[error("the receipt was changed: its signature does not stand under this text")]
        Forged,
    }
}

#[cfg(feature = "alloc")]
pub use signing::{ReceiptError, verify};

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use super::*;
    use crate::bundle::SecretKey;
    use alloc::string::ToString as _;

    fn receipt() -> ErasureReceipt {
        let erasure = Erasure {
            subject: SubjectId(3),
            enrolled_at: UnixMs(1_709_210_096_001),
            erased_at: UnixMs(1_795_608_000_000),
            templates: 6,
            models: 2,
            chips: 3,
            key: [0xAB; 16],
        };
        ErasureReceipt::sign(erasure, &SecretKey::from_bytes([7; 32]))
    }

    #[test]
    fn the_text_says_what_was_destroyed_and_verifies_as_it_is_copied() {
        let (receipt, key) = (receipt(), SecretKey::from_bytes([7; 32]).public());
        assert!(receipt.is_genuine());
        let text = receipt.to_string();
        let lines: alloc::vec::Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[2..6],
            [
                "person: 3",
                "enrolled: 2024-02-29T12:34:56Z",
                "erased: 2026-11-25T12:00:00Z",
                "destroyed: key abababababababababababababababab, templates 6, models 2, pictures of the face 3",
            ]
        );
        assert_eq!(verify(&text), Ok(key));
        assert_eq!(verify(&alloc::format!("#3 is erased.\n\n{}\n", text.replace('\n', " \r\n"))), Ok(key));
    }

    #[test]
    fn any_changed_character_is_refused() {
        let text = receipt().to_string();
        let mut wrong = 0;
        for at in 0..text.trim_end().len() {
            let mut bytes = text.clone().into_bytes();
            if bytes[at] == b'\n' {
                continue;
            }
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            let changed = alloc::string::String::from_utf8(bytes).unwrap();
            assert!(verify(&changed).is_err(), "{changed}");
            wrong += 1;
        }
        assert!(wrong > 300);
        for junk in ["", "signature: ", "Facelatch erasure receipt 1\ndoor: 00\nsignature: 00", "é"] {
            assert_eq!(verify(junk), Err(ReceiptError::NotAReceipt), "{junk}");
        }
        // Another door's name under the same signature.
        let mut other = receipt();
        other.door = SecretKey::from_bytes([8; 32]).public().0;
        assert!(!other.is_genuine());
        assert_eq!(verify(&other.to_string()), Err(ReceiptError::Forged));
    }

    #[test]
    fn times_beyond_the_calendar_are_told_all_the_same() {
        for (ms, text) in [
            (-1, "-1 ms"),
            (253_402_300_799_999, "9999-12-31T23:59:59Z"),
            (253_402_300_800_000, "253402300800000 ms"),
        ] {
            assert_eq!(Instant(UnixMs(ms)).to_string(), text);
        }
    }
}
