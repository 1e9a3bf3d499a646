//! The link between workstation and door: TLS 1.3 and nothing older, both ends known by their Ed25519 keys.
//!
//! The keys are raw public keys (RFC 7250): no certificate that could expire, no authority that could be tricked. Each end pins the other's
//! key at pairing; pairing itself is proven by a code that only someone at the door can read ([`pair`]). One request a frame, one answer a
//! frame, as [`crate::protocol`] encodes them.

mod channel;
mod identity;
pub mod pair;
mod tls;

pub use channel::{Channel, ChannelError};
pub use identity::Identity;
pub use tls::{LinkSetupError, Peers, client, server};

/// The port that doors listen on.
pub const PORT: u16 = 4815;

/// The service that doors announce over mDNS.
pub const SERVICE: &str = "_facelatch._tcp.local.";

#[cfg(test)]
mod tests;
