//! What is known of systems that were installed, across restarts.

use std::io;
use std::path::Path;

use facelatch_shared::bundle::BundleId;
pub use facelatch_shared::protocol::update::SystemState as State;
use serde::{Deserialize, Serialize};

use super::replace;

/// The record, as TOML in a folder that only root writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemRecord {
    /// The highest rollback counter that came up here.
    pub floor: u64,
    /// What was installed last.
    pub last: Option<Install>,
}

/// A system that was written into a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Install {
    /// Its bundle's name: 64 hexadecimal digits.
    pub bundle: String,
    /// What people call it.
    pub name: String,
    /// Its rollback counter.
    pub counter: u64,
    /// The slot, `a` or `b`.
    pub slot: char,
    /// What became of it.
    pub state: State,
}

impl Install {
    /// The bundle.
    #[must_use]
    pub fn id(&self) -> Option<BundleId> {
        let mut id = [0; 32];
        hex::decode_to_slice(&self.bundle, &mut id).ok()?;
        Some(BundleId(id))
    }
}

impl SystemRecord {
    /// The record in `folder`; a new board's where there is none.
    ///
    /// # Errors
    /// The system's error, or that it is no record.
    pub fn load(folder: &Path) -> io::Result<Self> {
        match std::fs::read_to_string(folder.join(FILE)) {
            Ok(text) => {
                toml::from_str(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Stores it, all or nothing.
    ///
    /// # Errors
    /// The system's error.
    pub fn store(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let text = toml::to_string(self).map_err(io::Error::other)?;
        replace(&folder.join(FILE), text.as_bytes())
    }
}

/// The system in slot `running` came up. Returns what that says of the one that was installed last, if it was still being tried.
///
/// # Errors
/// The system's error.
pub fn settle(folder: &Path, running: char) -> io::Result<Option<Install>> {
    let mut record = SystemRecord::load(folder)?;
    let Some(last) = record.last.as_mut().filter(|last| last.state == State::Trying) else { return Ok(None) };
    if last.slot == running {
        last.state = State::Confirmed;
        record.floor = record.floor.max(last.counter);
    } else {
        last.state = State::FellBack;
    }
    let last = last.clone();
    record.store(folder)?;
    Ok(Some(last))
}

/// The door's wish that a bundle be installed: a file in its state folder, which init's script waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The model slot in which the bundle lies, `a` or `b`.
    pub lies_in: char,
    /// The bundle.
    pub bundle: String,
}

/// Why a bundle was not installed: a file beside the [`SystemRecord`], since root writes nothing where the door could put a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// The bundle.
    pub bundle: String,
    /// Why, for a person.
    pub why: String,
}

impl Refused {
    /// The last refusal, if there is one that can be read.
    #[must_use]
    pub fn load(folder: &Path) -> Option<Self> {
        toml::from_str(&std::fs::read_to_string(folder.join(REFUSED)).ok()?).ok()
    }

    /// Stores it.
    ///
    /// # Errors
    /// The system's error.
    pub fn store(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let text = toml::to_string(self).map_err(io::Error::other)?;
        replace(&folder.join(REFUSED), text.as_bytes())
    }
}

impl Request {
    /// The request in a door's state folder, if there is one that makes sense.
    #[must_use]
    pub fn load(state_dir: &Path) -> Option<Self> {
        let request: Self = toml::from_str(&std::fs::read_to_string(state_dir.join(REQUEST)).ok()?).ok()?;
        // It becomes part of a path.
        super::other(request.lies_in).map(|_| request)
    }

    /// Whether the door still waits: init takes the request away when it is done with it.
    #[must_use]
    pub fn is_open(state_dir: &Path) -> bool {
        state_dir.join(REQUEST).exists()
    }

    /// Stores it.
    ///
    /// # Errors
    /// The system's error.
    pub fn store(&self, state_dir: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        replace(&state_dir.join(REQUEST), text.as_bytes())
    }
}

const FILE: &str = "record.toml";
const REFUSED: &str = "refused.toml";
const REQUEST: &str = "system-request.toml";
