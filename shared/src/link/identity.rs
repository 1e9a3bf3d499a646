//! One end's key in the forms that TLS wants.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

use super::LinkSetupError;
use crate::bundle::{PublicKey, SecretKey};

/// Who one end is.
#[derive(Clone, Debug)]
pub struct Identity {
    key: SecretKey,
}

impl Identity {
    /// The end with this key.
    #[must_use]
    pub const fn new(key: SecretKey) -> Self {
        Self { key }
    }

    /// What the other end pins.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.key.public()
    }

    /// The key, for receipts.
    #[must_use]
    pub const fn key(&self) -> &SecretKey {
        &self.key
    }

    pub(super) fn certified(&self, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, LinkSetupError> {
        let private = [&PKCS8_ED25519[..], self.key.expose()].concat();
        let key = provider
            .key_provider
            .load_private_key(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(private)))?;
        let public = CertificateDer::from(spki(self.public()));
        Ok(Arc::new(CertifiedKey::new(vec![public], key)))
    }
}

/// A SubjectPublicKeyInfo of Ed25519 (RFC 8410, section 4).
pub(super) fn spki(key: PublicKey) -> Vec<u8> {
    [&SPKI_ED25519[..], &key.0].concat()
}

/// The key in a SubjectPublicKeyInfo, if it is one of Ed25519.
pub(super) fn of_spki(der: &[u8]) -> Option<PublicKey> {
    Some(PublicKey(der.strip_prefix(&SPKI_ED25519)?.try_into().ok()?))
}

/// SEQUENCE { AlgorithmIdentifier { 1.3.101.112 }, BIT STRING of 32 bytes }.
const SPKI_ED25519: [u8; 12] = [0x30, 0x2A, 0x30, 0x05, 0x06, 0x03, 0x2B, 0x65, 0x70, 0x03, 0x21, 0x00];
/// SEQUENCE { 0, AlgorithmIdentifier { 1.3.101.112 }, OCTET STRING { OCTET STRING of 32 bytes } } (RFC 8410, section 7).
const PKCS8_ED25519: [u8; 16] =
    [0x30, 0x2E, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2B, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
