//! The door's files: key, gallery and event log, opened in the one order that is safe.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use facelatch_shared::event::EventKind;
use facelatch_shared::gallery::Recovery;
use thiserror::Error;

use crate::clock::Clock;
use crate::config::DoorConfig;
use crate::erasure;
use crate::event_log::{EventLog, Verification};
use crate::people::{Opened, People, PeopleError};
use crate::store::{FileStore, KeyError, SystemEntropy, door_key, load_or_create};

/// What one door remembers, held by one process at a time.
#[derive(Debug)]
pub struct State {
    /// The people.
    pub people: People,
    /// The log.
    pub log: EventLog,
    /// Damage that was found in the gallery, survived, and written into the log.
    pub recovery: Recovery,
    /// Where a copy of the damaged gallery is kept.
    pub aside: Option<String>,
    /// Whether the log's entries follow from each other.
    pub log_check: Verification,
}

impl State {
    /// Opens `gallery.journal`, `device.key`, `events.journal` and `anchor.journal` in the configured folder; makes those that were never there.
    ///
    /// # Errors
    /// [`StateError`]; nothing is written then but, at most, empty files.
    pub fn open(door: &DoorConfig, clock: &dyn Clock) -> Result<Self, StateError> {
        let folder = door.state_dir.as_path();
        if !folder.is_dir() {
            return Err(StateError::NoFolder { path: shown(folder) });
        }
        // The gallery's lock comes first: whoever has it owns the folder.
        let gallery = FileStore::open(&folder.join("gallery.journal"))?;
        let events = FileStore::open(&folder.join("events.journal"))?;
        let sealed_before =
            !is_empty(&folder.join("gallery.journal"))? || !is_empty(&folder.join("events.journal"))?;
        let key = load_or_create(&folder.join("device.key"), sealed_before, &mut SystemEntropy)?;
        let limit_bytes = door.event_log_limit_kib as usize * 1024;
        let anchor = FileStore::open(&folder.join("anchor.journal"))?;
        let (mut log, log_check) =
            EventLog::open_anchored(Box::new(events), Box::new(anchor), &key, limit_bytes)?;
        let Opened { mut people, recovery, aside } =
            People::open(Box::new(gallery), key, Box::new(SystemEntropy))?;
        if recovery.is_damage() {
            let kind = EventKind::GalleryRecovered {
                records: u32::try_from(recovery.records).unwrap_or(u32::MAX),
                lost_bytes: u32::try_from(recovery.damaged_bytes).unwrap_or(u32::MAX),
            };
            log.record(clock.unix(), clock.now(), kind);
        }
        match door_key(folder) {
            Ok(key) => people.sign_with(key),
            Err(error) => {
                tracing::error!(%error, "without its own key the door gives no receipts of erasures")
            }
        }
        erasure::erase_restored(&mut people, &mut log, clock);
        erasure::settle(&mut people, &mut log, clock);
        Ok(Self { people, log, recovery, aside, log_check })
    }

    /// The same, and makes the folder where there is none: for the daemon's first start.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn open_or_create(door: &DoorConfig, clock: &dyn Clock) -> Result<Self, StateError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&door.state_dir)
            .map_err(|source| StateError::Create { path: shown(&door.state_dir), source })?;
        Self::open(door, clock)
    }
}

fn is_empty(path: &Path) -> io::Result<bool> {
    Ok(std::fs::metadata(path)?.len() == 0)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Why the door's files could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StateError {
    /// Not there.
    #[error(
        "{path}: no such folder; set door.state_dir to the door's, or start facelatchd once, which makes it"
    )]
    NoFolder {
        /// The folder.
        path: String,
    },
    /// It cannot be made.
    #[error("{path}: the state folder cannot be made: {source}")]
    Create {
        /// The folder.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Files written now would lock the door's own user out.
    #[error(
        "{path}: the door's files belong to user {owner}, and the door is not running; run the command as `sudo -u '#{owner}' facelatchd …`, or start facelatchd"
    )]
    OtherUser {
        /// The folder.
        path: String,
        /// Whose it is.
        owner: u32,
    },
    /// The device's key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The gallery.
    #[error(transparent)]
    People(#[from] PeopleError),
    /// A file.
    #[error(transparent)]
    Files(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use std::os::unix::fs::PermissionsExt;

    fn door(folder: &Path) -> DoorConfig {
        DoorConfig { state_dir: folder.to_owned(), ..DoorConfig::default() }
    }

    #[test]
    fn a_first_start_makes_a_private_folder_and_a_second_finds_everything() {
        let folder = tempfile::tempdir().unwrap();
        let door = door(&folder.path().join("a/b"));
        let clock = SystemClock::new();
        assert!(matches!(State::open(&door, &clock), Err(StateError::NoFolder { .. })));
        drop(State::open_or_create(&door, &clock).unwrap());
        assert_eq!(std::fs::metadata(&door.state_dir).unwrap().permissions().mode() & 0o777, 0o700);
        let mut again = State::open(&door, &clock).unwrap();
        assert!(again.log_check.is_intact() && !again.recovery.is_damage());
        assert!(again.log.read().unwrap().0.is_empty());
    }

    #[test]
    fn one_process_at_a_time_and_never_with_another_key() {
        let folder = tempfile::tempdir().unwrap();
        let (door, clock) = (door(folder.path()), SystemClock::new());
        let first = State::open(&door, &clock).unwrap();
        let error = State::open(&door, &clock).unwrap_err().to_string();
        assert!(error.contains("another facelatchd"), "{error}");
        drop(first);
        std::fs::remove_file(folder.path().join("device.key")).unwrap();
        assert!(matches!(State::open(&door, &clock), Err(StateError::Key(KeyError::Missing { .. }))));
    }

    #[test]
    fn a_mended_gallery_is_in_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let (door, clock) = (door(folder.path()), SystemClock::new());
        drop(State::open(&door, &clock).unwrap());
        let gallery = folder.path().join("gallery.journal");
        let mut bytes = std::fs::read(&gallery).unwrap();
        let head = bytes.clone();
        bytes.extend_from_slice(b"not a record");
        bytes.extend_from_slice(&head);
        std::fs::write(&gallery, bytes).unwrap();
        let mut mended = State::open(&door, &clock).unwrap();
        assert!(mended.aside.is_some());
        let (events, _) = mended.log.read().unwrap();
        assert!(matches!(events[0].kind, EventKind::GalleryRecovered { lost_bytes: 12, .. }), "{events:?}");
    }
}
