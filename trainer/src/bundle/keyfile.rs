//! Keys and root documents as files.
//!
//! A secret key is one line, `facelatch-secret-key-1 HEX`, in a file that only its owner reads; a public key is its 64 hexadecimal digits.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use facelatch_shared::bundle::{BundleError, PublicKey, SecretKey, SignedRoot};
use facelatch_shared::gallery::{Entropy, EntropyError};
use thiserror::Error;

/// The system's random numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyError> {
        getrandom::fill(out).map_err(|_| EntropyError)
    }
}

/// Writes a secret key to a new file that only its owner reads; a file that is there is left alone.
///
/// # Errors
/// [`KeyFileError`].
pub fn write_secret(path: &Path, key: &SecretKey) -> Result<(), KeyFileError> {
    let text = format!("{SECRET} {}\n", hex::encode(key.expose()));
    let mut file =
        OpenOptions::new().create_new(true).write(true).mode(0o600).open(path).map_err(|e| io_at(path, e))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|e| io_at(path, e))
}

/// Reads a secret key; refuses one that others may read.
///
/// # Errors
/// [`KeyFileError`].
pub fn read_secret(path: &Path) -> Result<SecretKey, KeyFileError> {
    let mode = std::fs::metadata(path).map_err(|e| io_at(path, e))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed { path: path.into(), mode: mode & 0o777 });
    }
    let text = read_text(path)?;
    let digits = text.trim().strip_prefix(SECRET).map(str::trim);
    let mut seed = [0; 32];
    match digits.map(|digits| hex::decode_to_slice(digits, &mut seed)) {
        Some(Ok(())) => Ok(SecretKey::from_bytes(seed)),
        _ => Err(KeyFileError::NotAKey { path: path.into() }),
    }
}

/// A public key from its digits, or from a file: a public one, or the secret one it belongs to.
///
/// # Errors
/// [`KeyFileError`].
pub fn read_public(text_or_path: &str) -> Result<PublicKey, KeyFileError> {
    if let Some(key) = parse_public(text_or_path) {
        return Ok(key);
    }
    let path = Path::new(text_or_path);
    let text = read_text(path)?;
    match parse_public(text.trim()) {
        Some(key) => Ok(key),
        None => Ok(read_secret(path)?.public()),
    }
}

/// Reads a root document and what it says; whoever signed it.
///
/// # Errors
/// [`KeyFileError`].
pub fn read_root(path: &Path) -> Result<SignedRoot, KeyFileError> {
    let bytes = std::fs::read(path).map_err(|e| io_at(path, e))?;
    SignedRoot::from_file(&bytes).map_err(|source| match source {
        BundleError::BadRoot { .. } => KeyFileError::NotARoot { path: path.into() },
        source => KeyFileError::Root { path: path.into(), source },
    })
}

/// Writes a root document beside and renames it, so that an interrupted write leaves the former one.
///
/// # Errors
/// [`KeyFileError`].
pub fn write_root(path: &Path, root: &SignedRoot) -> Result<(), KeyFileError> {
    let bytes =
        root.to_file().map_err(|e| io_at(path, io::Error::new(io::ErrorKind::InvalidData, e.to_string())))?;
    write_whole(path, &bytes).map_err(|e| io_at(path, e))
}

/// Writes a whole file or nothing.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".unfinished");
    let beside = PathBuf::from(beside);
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

fn parse_public(text: &str) -> Option<PublicKey> {
    let mut key = [0; 32];
    hex::decode_to_slice(text, &mut key).ok()?;
    Some(PublicKey(key))
}

fn read_text(path: &Path) -> Result<String, KeyFileError> {
    std::fs::read_to_string(path).map_err(|e| io_at(path, e))
}

fn io_at(path: &Path, source: io::Error) -> KeyFileError {
    KeyFileError::Io { path: path.into(), source }
}

const SECRET: &str = "facelatch-secret-key-1";

/// Why a key or a root document cannot be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// Others may read a secret key.
    #[error("{}: others may read this secret key (mode {mode:o}): run chmod 600 on it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// No key.
    #[error("{} is no Facelatch key: `facelatch keys new --out FILE` makes one", path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
    /// No root document.
    #[error("{} is no root document: `facelatch keys root --out FILE` makes one", path.display())]
    NotARoot {
        /// The file.
        path: PathBuf,
    },
    /// A root document that contradicts itself.
    #[error("{}: {source}", path.display())]
    Root {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: BundleError,
    },
    /// The system's error.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch_shared::bundle::{FORMAT, Root};
    use facelatch_shared::time::UnixMs;

    #[test]
    fn keys_and_roots_come_back_and_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("eve.key");
        let key = SecretKey::generate(&mut SystemEntropy).unwrap();
        write_secret(&path, &key).unwrap();
        assert_eq!(read_secret(&path).unwrap().expose(), key.expose());
        assert_eq!(read_public(path.to_str().unwrap()).unwrap(), key.public());
        assert_eq!(read_public(&key.public().to_string()).unwrap(), key.public());
        assert!(matches!(write_secret(&path, &key), Err(KeyFileError::Io { .. })), "never overwritten");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(read_secret(&path), Err(KeyFileError::Exposed { mode: 0o644, .. })));

        let root = Root {
            format: FORMAT,
            version: 1,
            created: UnixMs(0),
            expires: None,
            keys: vec![key.public()],
            threshold: 1,
            engineers: vec![],
            engineer_threshold: 1,
            revoked: vec![],
        };
        let mut signed = SignedRoot::unsigned(&root).unwrap();
        signed.sign(&key);
        let path = folder.path().join("root.bin");
        write_root(&path, &signed).unwrap();
        assert_eq!(read_root(&path).unwrap(), signed);
        std::fs::write(&path, b"something else").unwrap();
        assert!(read_root(&path).unwrap_err().to_string().contains("keys root"));
    }
}
