//! Paired workstations, and the window in which another one may pair.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use facelatch_shared::bundle::PublicKey;
use facelatch_shared::gallery::Entropy;
use facelatch_shared::journal::{self, Item};
use facelatch_shared::link::pair::{PairingCode, same};
use facelatch_shared::person::Name;
use facelatch_shared::remote::{LinkRole, PeerId, PeerRow};
use facelatch_shared::time::Millis;
use serde::{Deserialize, Serialize};

/// A workstation that was paired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its key.
    pub key: PublicKey,
    /// What it may do.
    pub role: LinkRole,
    /// Whose it is.
    pub name: Name,
}

impl Peer {
    /// What it is called in lists and in the log.
    #[must_use]
    pub const fn id(&self) -> PeerId {
        id_of(self.key)
    }
}

/// What the workstation with this key is called in lists and in the log.
pub(super) const fn id_of(key: PublicKey) -> PeerId {
    let [a, b, c, d, ..] = key.0;
    PeerId([a, b, c, d])
}

/// Who is paired, kept in one small file that is replaced whole.
#[derive(Debug)]
pub struct PeerStore {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    peers: Vec<Peer>,
    window: Option<Window>,
}

#[derive(Debug)]
struct Window {
    code: PairingCode,
    role: LinkRole,
    until: Millis,
    tries: u8,
    next_try: Millis,
}

impl PeerStore {
    /// Reads the file; an absent one means nobody.
    ///
    /// # Errors
    /// The system's error, and [`io::ErrorKind::InvalidData`] for a damaged file: nobody is let in on a guess.
    pub fn open(path: &Path) -> io::Result<Self> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let damaged = || {
            let what = format!("{}: damaged; remove it and pair again", path.display());
            io::Error::new(io::ErrorKind::InvalidData, what)
        };
        let mut peers = Vec::new();
        for item in journal::frames(&bytes) {
            let Item::Frame { payload, .. } = item else { return Err(damaged()) };
            peers.push(postcard::from_bytes(payload).map_err(|_| damaged())?);
        }
        Ok(Self { path: path.to_owned(), state: Mutex::new(State { peers, window: None }) })
    }

    /// The paired workstation with this key.
    #[must_use]
    pub fn get(&self, key: PublicKey) -> Option<Peer> {
        self.lock().peers.iter().find(|peer| peer.key == key).cloned()
    }

    /// Whether a connection with this key may be made now: it is paired, or the door is open for pairing.
    #[must_use]
    pub fn admits(&self, key: PublicKey, now: Millis) -> bool {
        let state = self.lock();
        state.peers.iter().any(|peer| peer.key == key) || state.window.as_ref().is_some_and(|w| now < w.until)
    }

    /// Whether anything should listen.
    #[must_use]
    pub fn wants_listener(&self, now: Millis) -> bool {
        let state = self.lock();
        !state.peers.is_empty() || state.window.as_ref().is_some_and(|w| now < w.until)
    }

    /// Everyone who is paired.
    #[must_use]
    pub fn list(&self) -> Vec<PeerRow> {
        let row = |peer: &Peer| PeerRow { id: peer.id(), role: peer.role, name: peer.name.clone() };
        self.lock().peers.iter().map(row).collect()
    }

    /// The code and the end of the window in which another workstation may pair, while it is open.
    #[must_use]
    pub fn window(&self, now: Millis) -> Option<(PairingCode, Millis)> {
        self.lock().window.as_ref().filter(|w| now < w.until).map(|w| (w.code.clone(), w.until))
    }

    /// Opens the door for one pairing with `role`.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn open_window(
        &self,
        now: Millis,
        role: LinkRole,
        entropy: &mut dyn Entropy,
    ) -> io::Result<PairingCode> {
        let code = PairingCode::generate(entropy).map_err(io::Error::other)?;
        let window = Window {
            code: code.clone(),
            role,
            until: now.plus(u64::from(WINDOW_S) * 1000),
            tries: TRIES,
            next_try: now,
        };
        self.lock().window = Some(window);
        Ok(code)
    }

    /// Judges one try: `proof_of` says what the right proof would be. `Some` with the code and the role when it is right, and the window is shut
    /// then; `None` when it is wrong, too early, or nobody opened the door. Five wrong ones shut the window.
    pub fn try_pair(
        &self,
        now: Millis,
        proof: &[u8; 32],
        proof_of: impl Fn(&PairingCode) -> [u8; 32],
    ) -> Option<(PairingCode, LinkRole)> {
        let mut state = self.lock();
        let window = state.window.as_mut().filter(|window| now < window.until)?;
        let early = now < window.next_try;
        window.next_try = now.plus(TRY_EVERY_MS);
        // A try that comes too early counts, so that nobody gains by hurrying.
        window.tries -= 1;
        let right = !early && same(proof, &proof_of(&window.code));
        let found = right.then(|| (window.code.clone(), window.role));
        if right || window.tries == 0 {
            state.window = None;
        }
        found
    }

    /// Adds a workstation, in the place of one with the same key.
    ///
    /// # Errors
    /// The system's error, or a full list; nobody is added then.
    pub fn add(&self, peer: Peer) -> io::Result<()> {
        let mut state = self.lock();
        let mut next: Vec<Peer> = state.peers.iter().filter(|old| old.key != peer.key).cloned().collect();
        if next.len() >= MAX_PEERS {
            return Err(io::Error::other(format!("{MAX_PEERS} workstations are paired already")));
        }
        if next.iter().any(|other| other.id() == peer.id()) {
            let what = "another workstation's key begins with the same four bytes: make a new key";
            return Err(io::Error::other(what));
        }
        next.push(peer);
        self.store(&next)?;
        state.peers = next;
        Ok(())
    }

    /// Takes a workstation off the list, from its next request on; whether it was on it.
    ///
    /// # Errors
    /// The system's error; it stays paired then.
    pub fn remove(&self, id: PeerId) -> io::Result<bool> {
        let mut state = self.lock();
        let next: Vec<Peer> = state.peers.iter().filter(|peer| peer.id() != id).cloned().collect();
        if next.len() == state.peers.len() {
            return Ok(false);
        }
        self.store(&next)?;
        state.peers = next;
        Ok(true)
    }

    fn store(&self, peers: &[Peer]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (at, peer) in peers.iter().enumerate() {
            let payload = postcard::to_stdvec(peer).map_err(io::Error::other)?;
            journal::write_frame(&mut bytes, at as u64, &payload);
        }
        crate::store::write_whole(&self.path, &bytes)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whole values are put in and taken out: valid in any state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a door stays open for pairing, in seconds.
pub const WINDOW_S: u16 = 120;
const TRIES: u8 = 5;
const TRY_EVERY_MS: u64 = 1000;
const MAX_PEERS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch_shared::gallery::CountingEntropy;

    fn peer(n: u8) -> Peer {
        Peer { key: PublicKey([n; 32]), role: LinkRole::Engineer, name: Name::new("Eve").unwrap() }
    }

    fn proof(code: &PairingCode) -> [u8; 32] {
        code.client_proof(&[0; 32], PublicKey([1; 32]), PublicKey([2; 32]))
    }

    #[test]
    fn paired_ones_come_back_and_a_damaged_list_lets_nobody_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("link.peers");
        let store = PeerStore::open(&path).unwrap();
        assert!(!store.wants_listener(Millis(0)) && !store.admits(PublicKey([1; 32]), Millis(0)));
        store.add(peer(1)).unwrap();
        store.add(Peer { role: LinkRole::Reader, ..peer(1) }).unwrap();
        let store = PeerStore::open(&path).unwrap();
        assert_eq!(store.get(PublicKey([1; 32])).unwrap().role, LinkRole::Reader);
        assert!(store.wants_listener(Millis(0)) && !store.admits(PublicKey([2; 32]), Millis(0)));
        assert_eq!(store.list().len(), 1);
        assert!(!store.remove(PeerId([2; 4])).unwrap() && store.remove(PeerId([1; 4])).unwrap());
        assert!(!PeerStore::open(&path).unwrap().admits(PublicKey([1; 32]), Millis(0)));
        store.add(peer(1)).unwrap();
        (2..=16).for_each(|n| store.add(peer(n)).unwrap());
        assert!(store.add(peer(17)).is_err());
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(PeerStore::open(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn one_try_a_second_five_tries_one_pairing_two_minutes() {
        let folder = tempfile::tempdir().unwrap();
        let store = PeerStore::open(&folder.path().join("p")).unwrap();
        let mut entropy = CountingEntropy(1);
        let mut open = |at| store.open_window(Millis(at), LinkRole::Reader, &mut entropy).unwrap();
        assert!(store.try_pair(Millis(0), &[0; 32], proof).is_none(), "nobody opened the door");
        let right = proof(&open(0));
        assert!(store.try_pair(Millis(10), &[0; 32], proof).is_none());
        assert!(store.try_pair(Millis(500), &right, proof).is_none(), "too early, although right");
        assert!(store.window(Millis(1600)).is_some());
        assert_eq!(store.try_pair(Millis(1600), &right, proof).unwrap().1, LinkRole::Reader);
        assert!(store.window(Millis(1600)).is_none());
        assert!(store.try_pair(Millis(3000), &right, proof).is_none(), "the window is shut");

        let right = proof(&open(10_000));
        (0..5).for_each(|n| assert!(store.try_pair(Millis(11_000 + n * 2000), &[0; 32], proof).is_none()));
        assert!(store.try_pair(Millis(30_000), &right, proof).is_none(), "five wrong ones shut it");

        let right = proof(&open(100_000));
        assert!(store.admits(PublicKey([9; 32]), Millis(219_999)));
        assert!(!store.admits(PublicKey([9; 32]), Millis(220_000)));
        assert!(store.try_pair(Millis(220_000), &right, proof).is_none(), "too late");
    }
}
