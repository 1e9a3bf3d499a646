//! TLS configurations: version 1.3, raw public keys on both sides, no resumption and no early data, so that nothing can be replayed.

use std::fmt;
use std::sync::Arc;

use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, DistinguishedName, Error,
    ServerConfig, ServerConnection, SignatureScheme,
};
use thiserror::Error;

use super::identity::{Identity, of_spki};
use crate::bundle::PublicKey;

/// Whom one end lets in.
pub trait Peers: Send + Sync {
    /// Whether the end with this key may connect now.
    fn admits(&self, key: PublicKey) -> bool;
}

impl<F: Fn(PublicKey) -> bool + Send + Sync> Peers for F {
    fn admits(&self, key: PublicKey) -> bool {
        self(key)
    }
}

/// The asking end: admits only doors that `peers` admits.
///
/// # Errors
/// [`LinkSetupError`].
pub fn client(identity: &Identity, peers: Arc<dyn Peers>) -> Result<ClientConnection, LinkSetupError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certified = identity.certified(&provider)?;
    let verifier = Arc::new(Pinned::new(&provider, peers));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified)));
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_sni = false;
    config.alpn_protocols = vec![ALPN.to_vec()];
    let name = ServerName::try_from("door.facelatch.invalid").map_err(|_| LinkSetupError::Name)?;
    Ok(ClientConnection::new(Arc::new(config), name)?)
}

/// The answering end: admits only those whom `peers` admits.
///
/// # Errors
/// [`LinkSetupError`].
pub fn server(identity: &Identity, peers: Arc<dyn Peers>) -> Result<ServerConnection, LinkSetupError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certified = identity.certified(&provider)?;
    let verifier = Arc::new(Pinned::new(&provider, peers));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified)));
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(ServerConnection::new(Arc::new(config))?)
}

/// The key that the other end has proven to hold.
pub(super) fn peer_key(certificates: Option<&[CertificateDer<'_>]>) -> Option<PublicKey> {
    of_spki(certificates?.first()?)
}

struct Pinned {
    peers: Arc<dyn Peers>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pinned {
    fn new(provider: &CryptoProvider, peers: Arc<dyn Peers>) -> Self {
        Self { peers, algorithms: provider.signature_verification_algorithms }
    }

    fn admit(&self, der: &CertificateDer<'_>) -> Result<(), Error> {
        let key = of_spki(der).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if self.peers.admits(key) {
            return Ok(());
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn signature(
        &self,
        message: &[u8],
        der: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(der.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pinned")
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.admit(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.admit(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

fn too_old() -> Error {
    Error::PeerIncompatible(rustls::PeerIncompatible::Tls13RequiredForQuic)
}

const ALPN: &[u8] = b"facelatch/1";

/// Why no connection can be prepared: a fault of this program or its key, not of the other end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LinkSetupError {
    /// TLS refused the configuration.
    #[error("the encrypted connection cannot be prepared: {0}")]
    Tls(#[from] Error),
    /// The fixed name was refused.
    #[error("the encrypted connection cannot be prepared: its name is refused")]
    Name,
}
