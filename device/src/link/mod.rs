//! The door's end of the link: TLS 1.3 to paired workstations, and the same questions that the console asks.
//!
//! Nothing listens before the door is paired, or opened for pairing from its own console (`facelatchd link pair`). A connection that is not
//! paired can do one thing: pair, with the code that only the console and the panel show, one try a second, five tries. Requests become
//! [`ToSession`](crate::control::ToSession) messages like those of the control socket; photographs are looked at by the vision thread, between two frames.

mod announce;
pub mod peers;
mod photos;
mod rate;
pub mod server;

pub use peers::{Peer, PeerStore, WINDOW_S};
pub use server::{LinkLimits, LinkParts, LinkServer};

use std::io;
use std::path::Path;
use std::sync::Arc;

use facelatch_shared::link::Identity;

use crate::store::{KeyError, door_key};

/// Who the door whose files are in `state_dir` is, and who is paired with it. A door without a key makes one; workstations that were paired
/// with a lost one refuse the door then, and must be paired again.
///
/// # Errors
/// [`KeyError`], also for a damaged list: nobody is let in on a guess.
pub fn open(state_dir: &Path) -> Result<(Identity, Arc<PeerStore>), KeyError> {
    let path = state_dir.join("link.peers");
    let peers = PeerStore::open(&path)
        .map_err(|source: io::Error| KeyError::Io { path: path.display().to_string(), source })?;
    Ok((Identity::new(door_key(state_dir)?), Arc::new(peers)))
}
