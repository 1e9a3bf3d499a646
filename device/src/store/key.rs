//! The device's key: 32 random bytes in a file that only its owner reads. Whoever has it and the gallery's file can read the gallery.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use facelatch_shared::bundle::SecretKey;
use facelatch_shared::gallery::{Entropy, EntropyError, Key};
use thiserror::Error;

/// The kernel's random numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
        getrandom::fill(out).map_err(|_| EntropyError)
    }
}

/// Reads the key at `path`; makes one when there is none and nothing has been sealed yet.
///
/// # Errors
/// [`KeyError`]: missing although `sealed_before`, readable by others, of the wrong length, or the system's error.
pub fn load_or_create(path: &Path, sealed_before: bool, entropy: &mut dyn Entropy) -> Result<Key, KeyError> {
    let shown = || path.display().to_string();
    match File::open(path) {
        Ok(mut file) => {
            let mode = file
                .metadata()
                .map_err(|source| KeyError::Io { path: shown(), source })?
                .permissions()
                .mode();
            if mode & 0o077 != 0 {
                return Err(KeyError::Exposed { path: shown(), mode: mode & 0o777 });
            }
            let mut bytes = Vec::with_capacity(33);
            (&mut file)
                .take(33)
                .read_to_end(&mut bytes)
                .map_err(|source| KeyError::Io { path: shown(), source })?;
            let key: [u8; 32] = bytes
                .as_slice()
                .try_into()
                .map_err(|_| KeyError::Length { path: shown(), actual: bytes.len() })?;
            Ok(Key::from_bytes(key))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if sealed_before {
                return Err(KeyError::Missing { path: shown() });
            }
            let key = Key::generate(entropy)?;
            write_new(path, key.expose()).map_err(|source| KeyError::Io { path: shown(), source })?;
            Ok(key)
        }
        Err(source) => Err(KeyError::Io { path: shown(), source }),
    }
}

/// The door's own Ed25519 key, made at the first call: what workstations pin, and what receipts are signed with.
///
/// # Errors
/// [`KeyError`].
pub fn door_key(state_dir: &Path) -> Result<SecretKey, KeyError> {
    let key = load_or_create(&state_dir.join("link.key"), false, &mut SystemEntropy)?;
    Ok(SecretKey::from_bytes(*key.expose()))
}

/// Written beside and renamed, so that a power cut leaves no half key.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("unfinished");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// Why there is no key.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Something is sealed, but the key is gone.
    #[error(
        "{path}: the device's key is missing, and the gallery beside it cannot be opened without it; restore the key, or move the gallery away to begin anew"
    )]
    Missing {
        /// Where it should be.
        path: String,
    },
    /// Others may read it.
    #[error("{path}: others may read the device's key (mode {mode:o}); run `chmod 600 {path}`")]
    Exposed {
        /// The file.
        path: String,
        /// Its permissions.
        mode: u32,
    },
    /// Not 32 bytes.
    #[error("{path}: a device key has 32 bytes, this file has {actual}; restore it from a backup")]
    Length {
        /// The file.
        path: String,
        /// Its length, at most 33.
        actual: usize,
    },
    /// No random bytes.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// The system's error.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_once_kept_private_and_missed_when_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device.key");
        let made = load_or_create(&path, false, &mut SystemEntropy).unwrap();
        let read = load_or_create(&path, true, &mut SystemEntropy).unwrap();
        assert_eq!(made.expose(), read.expose());
        assert_ne!(made.expose(), &[0; 32]);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = load_or_create(&path, true, &mut SystemEntropy).unwrap_err().to_string();
        assert!(error.contains("mode 640") && error.contains("chmod 600"), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, b"short").unwrap();
        assert!(matches!(
            load_or_create(&path, true, &mut SystemEntropy),
            Err(KeyError::Length { actual: 5, .. })
        ));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(load_or_create(&path, true, &mut SystemEntropy), Err(KeyError::Missing { .. })));
    }
}
