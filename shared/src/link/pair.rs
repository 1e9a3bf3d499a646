//! Pairing: a code of 50 random bits, read at the door, proves to each end that nobody stands between them.
//!
//! Both ends make the connection first and then show that they know the code, bound to this very connection by its exported key: who sits in
//! the middle has two connections, and a proof from one is worth nothing on the other. Whoever would find the code
//! from a proof has as long as the asking end waits for the answer, half a minute, for 2⁵⁰ tries.

use crate::bundle::PublicKey;
use crate::gallery::{Entropy, EntropyError, Key};

/// A code as people read it: two groups of five letters and digits.
#[derive(Clone, PartialEq, Eq)]
pub struct PairingCode([u8; LENGTH]);

impl PairingCode {
    /// A new random one.
    ///
    /// # Errors
    /// [`EntropyError`].
    pub fn generate(entropy: &mut dyn Entropy) -> Result<Self, EntropyError> {
        let mut bytes = [0; LENGTH];
        entropy.fill(&mut bytes)?;
        Ok(Self(bytes.map(|byte| ALPHABET[usize::from(byte % 32)])))
    }

    /// The code of what someone typed: small letters, blanks and hyphens do not matter; `O`, `I` and `L` are read as the digits that they
    /// look like.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut code = [0; LENGTH];
        let mut at = 0;
        for c in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
            let c = match c.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                other => other,
            };
            let byte = u8::try_from(c).ok().filter(|byte| ALPHABET.contains(byte))?;
            *code.get_mut(at)? = byte;
            at += 1;
        }
        (at == LENGTH).then_some(Self(code))
    }

    /// What the asking end sends.
    #[must_use]
    pub fn client_proof(&self, exported: &[u8; 32], client: PublicKey, door: PublicKey) -> [u8; 32] {
        self.proof(b"facelatch pairing 1 client", exported, client, door)
    }

    /// What the door answers.
    #[must_use]
    pub fn door_proof(&self, exported: &[u8; 32], client: PublicKey, door: PublicKey) -> [u8; 32] {
        self.proof(b"facelatch pairing 1 door..", exported, client, door)
    }

    fn proof(&self, what: &[u8; 26], exported: &[u8; 32], client: PublicKey, door: PublicKey) -> [u8; 32] {
        // HMAC hashes keys of other lengths itself; a code has a fixed one.
        let mut key = [0; 32];
        key[..LENGTH].copy_from_slice(&self.0);
        Key::from_bytes(key).authenticate(&[what, exported, &client.0, &door.0])
    }
}

/// Whether two proofs are equal, in a time that tells nothing of where they differ.
#[must_use]
pub fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

impl core::fmt::Display for PairingCode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (at, &byte) in self.0.iter().enumerate() {
            if at > 0 && at % 5 == 0 {
                f.write_str("-")?;
            }
            write!(f, "{}", char::from(byte))?;
        }
        Ok(())
    }
}

impl core::fmt::Debug for PairingCode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("PairingCode(…)")
    }
}

const LENGTH: usize = 10;
/// Crockford's base 32: no I, L, O, U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gallery::CountingEntropy;

    #[test]
    fn codes_are_read_as_people_type_them() {
        let code = PairingCode::generate(&mut CountingEntropy(3)).unwrap();
        let text = code.to_string();
        assert_eq!(text.len(), 11);
        assert_eq!(PairingCode::parse(&text), Some(code.clone()));
        assert_eq!(PairingCode::parse(&text.to_lowercase().replace('-', " ")), Some(code));
        assert_eq!(PairingCode::parse("oil00-00000"), PairingCode::parse("01100-00000"));
        for wrong in ["", "00000-0000", "00000-000000", "00000-0000U", "00000-0000é"] {
            assert_eq!(PairingCode::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_proof_is_for_one_connection_one_direction_and_two_keys() {
        let code = PairingCode::parse("01234-56789").unwrap();
        let (a, b) = (PublicKey([1; 32]), PublicKey([2; 32]));
        let proof = code.client_proof(&[7; 32], a, b);
        assert!(same(&proof, &code.client_proof(&[7; 32], a, b)));
        for other in [
            code.client_proof(&[8; 32], a, b),
            code.client_proof(&[7; 32], b, a),
            code.door_proof(&[7; 32], a, b),
            PairingCode::parse("01234-5678A").unwrap().client_proof(&[7; 32], a, b),
        ] {
            assert!(!same(&proof, &other));
        }
    }
}
