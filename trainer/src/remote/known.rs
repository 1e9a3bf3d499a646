//! What this workstation knows: its own key, and the doors that it is paired with, in one private folder.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use facelatch_shared::bundle::{PublicKey, SecretKey};
use facelatch_shared::gallery::EntropyError;
use facelatch_shared::link::Identity;
use facelatch_shared::remote::LinkRole;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::bundle::keyfile::{KeyFileError, SystemEntropy, read_secret, write_secret, write_whole};

/// A door that this workstation is paired with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownDoor {
    /// As the door calls itself.
    pub name: String,
    /// Host and port.
    pub address: String,
    /// The door's pinned key.
    pub key: PublicKey,
    /// What this workstation may do there, as of the pairing.
    pub role: LinkRole,
}

/// The folder with `workstation.key` and `doors.toml`.
#[derive(Clone, Debug)]
pub struct Workstation {
    folder: PathBuf,
}

impl Workstation {
    /// `$FACELATCH_CONFIG`, else `facelatch` in the user's folder for configuration.
    ///
    /// # Errors
    /// [`KnownError::NoHome`].
    pub fn of_user() -> Result<Self, KnownError> {
        let from_env =
            |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        from_env("FACELATCH_CONFIG")
            .or_else(|| from_env("XDG_CONFIG_HOME").map(|folder| folder.join("facelatch")))
            .or_else(|| from_env("HOME").map(|home| home.join(".config/facelatch")))
            .map(|folder| Self { folder })
            .ok_or(KnownError::NoHome)
    }

    /// The workstation whose files are in `folder`.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// This workstation's key; made at the first call.
    ///
    /// # Errors
    /// [`KnownError`].
    pub fn identity(&self) -> Result<Identity, KnownError> {
        let path = self.folder.join("workstation.key");
        if !path.exists() {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.folder)
                .map_err(|source| KnownError::Io { path: self.folder.clone(), source })?;
            write_secret(&path, &SecretKey::generate(&mut SystemEntropy)?)?;
        }
        Ok(Identity::new(read_secret(&path)?))
    }

    /// Every door that this workstation is paired with.
    ///
    /// # Errors
    /// [`KnownError`].
    pub fn doors(&self) -> Result<Vec<KnownDoor>, KnownError> {
        let path = self.folder.join("doors.toml");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(KnownError::Io { path, source }),
        };
        let bad = |what: String| KnownError::Invalid { path: path.clone(), what };
        let file: File = toml::from_str(&text).map_err(|error| bad(error.to_string()))?;
        file.door
            .into_iter()
            .map(|entry| {
                let mut key = [0; 32];
                hex::decode_to_slice(&entry.key, &mut key)
                    .map_err(|_| bad(format!("the key of {} is not 64 hexadecimal digits", entry.name)))?;
                let Entry { name, address, role, .. } = entry;
                Ok(KnownDoor { name, address, key: PublicKey(key), role })
            })
            .collect()
    }

    /// Remembers `door` in the place of one with the same key or at the same address.
    ///
    /// # Errors
    /// [`KnownError`].
    pub fn remember(&self, door: &KnownDoor) -> Result<(), KnownError> {
        let mut doors = self.doors()?;
        doors.retain(|other| other.key != door.key && other.address != door.address);
        doors.push(door.clone());
        let entry = |door: KnownDoor| Entry {
            name: door.name,
            address: door.address,
            key: door.key.to_string(),
            role: door.role,
        };
        let path = self.folder.join("doors.toml");
        let file = File { door: doors.into_iter().map(entry).collect() };
        let text = toml::to_string(&file)
            .map_err(|error| KnownError::Invalid { path: path.clone(), what: error.to_string() })?;
        write_whole(&path, text.as_bytes()).map_err(|source| KnownError::Io { path, source })
    }

    /// The door that is meant: by name or address; without either, the only one.
    ///
    /// # Errors
    /// [`KnownError::Unknown`], [`KnownError::Which`] or [`KnownError::NoDoor`].
    pub fn find(&self, wanted: Option<&str>) -> Result<KnownDoor, KnownError> {
        let mut doors = self.doors()?;
        let names = |doors: &[KnownDoor]| {
            doors.iter().map(|d| format!("{} ({})", d.name, d.address)).collect::<Vec<_>>().join(", ")
        };
        let Some(wanted) = wanted else {
            return match doors.len() {
                0 => Err(KnownError::NoDoor),
                1 => Ok(doors.remove(0)),
                _ => Err(KnownError::Which { doors: names(&doors) }),
            };
        };
        let address = super::full_address(wanted).ok();
        let meant = |door: &KnownDoor| door.name == wanted || Some(&door.address) == address.as_ref();
        let mut found: Vec<KnownDoor> = doors.into_iter().filter(meant).collect();
        match found.len() {
            0 => Err(KnownError::Unknown { wanted: wanted.to_owned() }),
            1 => Ok(found.remove(0)),
            _ => Err(KnownError::Which { doors: names(&found) }),
        }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    door: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    address: String,
    key: String,
    role: LinkRole,
}

/// Why the workstation's own files are of no use, or no door is meant.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KnownError {
    /// No folder to keep them in.
    #[error("neither FACELATCH_CONFIG nor HOME is set: there is nowhere to keep this workstation's key")]
    NoHome,
    /// A file.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file that says something wrong.
    #[error("{}: {what}", path.display())]
    Invalid {
        /// Which.
        path: PathBuf,
        /// What.
        what: String,
    },
    /// The workstation's key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// No random bytes.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// Not paired with any.
    #[error("this workstation is not paired with any door: `facelatch pair --device HOST`")]
    NoDoor,
    /// Several could be meant.
    #[error("several doors could be meant; name one with --device: {doors}")]
    Which {
        /// Their names and addresses.
        doors: String,
    },
    /// Not paired with this one.
    #[error("this workstation is not paired with {wanted}: `facelatch pair --device {wanted}`")]
    Unknown {
        /// What was asked for.
        wanted: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(n: u8, name: &str, address: &str) -> KnownDoor {
        KnownDoor {
            name: name.into(),
            address: address.into(),
            key: PublicKey([n; 32]),
            role: LinkRole::Engineer,
        }
    }

    #[test]
    fn doors_are_remembered_found_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let station = Workstation::in_folder(&folder.path().join("new"));
        assert!(matches!(station.find(None), Err(KnownError::NoDoor)));
        let key = station.identity().unwrap().public();
        assert_eq!(station.identity().unwrap().public(), key, "made once");
        station.remember(&door(1, "North", "10.0.0.1:4815")).unwrap();
        assert_eq!(station.find(None).unwrap(), door(1, "North", "10.0.0.1:4815"));
        station.remember(&door(2, "South", "10.0.0.2:4815")).unwrap();
        assert!(station.find(None).unwrap_err().to_string().contains("North (10.0.0.1:4815), South"));
        assert_eq!(station.find(Some("South")).unwrap().key, PublicKey([2; 32]));
        assert_eq!(station.find(Some("10.0.0.1")).unwrap().name, "North");
        assert!(station.find(Some("10.0.0.3")).unwrap_err().to_string().contains("facelatch pair"));
        // Another address of the same door; another door at the same address.
        station.remember(&door(2, "South", "10.0.0.9:4815")).unwrap();
        station.remember(&door(3, "East", "10.0.0.1:4815")).unwrap();
        let names: Vec<_> = station.doors().unwrap().into_iter().map(|d| d.name).collect();
        assert_eq!(names, ["South", "East"]);
        std::fs::write(folder.path().join("new/doors.toml"), "[[door]]\nname = 3").unwrap();
        assert!(station.doors().unwrap_err().to_string().contains("doors.toml"));
    }
}
