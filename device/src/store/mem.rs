//! A journal in memory that fails as storage fails, only oftener: cut power at any step, torn writes, a full disk.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::JournalStore;

/// The fake of [`JournalStore`]. Clones share one medium, so that a test can cut the power, drop the program's store and
/// open the medium again.
#[derive(Clone, Debug, Default)]
pub struct MemStore {
    medium: Arc<Mutex<Medium>>,
}

#[derive(Debug, Default)]
struct Medium {
    bytes: Vec<u8>,
    aside: Vec<Vec<u8>>,
    /// Writes made so far, in bytes: the axis along which power is cut.
    written: usize,
    fault: Fault,
}

/// What goes wrong next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// The power goes when this many bytes have been written since the medium was made: that write is torn there, and nothing works
    /// afterwards until [`MemStore::power_on`].
    PowerCut {
        /// Bytes written before it.
        after_bytes: usize,
    },
    /// No byte more fits.
    DiskFull,
    /// Appending works, a new file cannot be made.
    ReplaceFails,
}

impl MemStore {
    /// A medium that holds `bytes`.
    #[must_use]
    pub fn holding(bytes: Vec<u8>) -> Self {
        let store = Self::default();
        store.with(|medium| medium.bytes = bytes);
        store
    }

    /// What goes wrong from now on.
    pub fn set_fault(&self, fault: Fault) {
        self.with(|medium| medium.fault = fault);
    }

    /// The power is back.
    pub fn power_on(&self) {
        self.set_fault(Fault::None);
    }

    /// Everything stored now.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.with(|medium| medium.bytes.clone())
    }

    /// How many bytes have been written since the medium was made.
    #[must_use]
    pub fn written(&self) -> usize {
        self.with(|medium| medium.written)
    }

    /// Copies that were set aside.
    #[must_use]
    pub fn aside(&self) -> Vec<Vec<u8>> {
        self.with(|medium| medium.aside.clone())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Medium) -> T) -> T {
        act(&mut self.medium.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Medium {
    /// How many of `wanted` bytes reach the medium before it fails.
    fn admit(&mut self, wanted: usize) -> Result<(), (usize, io::Error)> {
        match self.fault {
            Fault::None | Fault::ReplaceFails => {
                self.written += wanted;
                Ok(())
            }
            Fault::DiskFull => {
                Err((0, io::Error::new(io::ErrorKind::StorageFull, "no space left on the fake medium")))
            }
            Fault::PowerCut { after_bytes } => {
                let left = after_bytes.saturating_sub(self.written);
                if left >= wanted {
                    self.written += wanted;
                    return Ok(());
                }
                self.written = after_bytes.max(self.written);
                Err((left, io::Error::other("the power is cut")))
            }
        }
    }
}

impl JournalStore for MemStore {
    fn load(&mut self) -> io::Result<Vec<u8>> {
        Ok(self.bytes())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.with(|medium| {
            medium.admit(bytes.len()).map_err(|(torn, error)| {
                if medium.fault != Fault::DiskFull {
                    medium.bytes.extend_from_slice(&bytes[..torn]);
                    // Flash may have started the next page with anything.
                    medium.bytes.extend(std::iter::repeat_n(0xFF, torn % 7));
                }
                error
            })?;
            medium.bytes.extend_from_slice(bytes);
            Ok(())
        })
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.with(|medium| {
            if medium.fault == Fault::ReplaceFails {
                return Err(io::Error::other("no new file can be made"));
            }
            // All or nothing: a torn new file is never renamed over the old one.
            medium.admit(bytes.len()).map_err(|(_, error)| error)?;
            medium.bytes = bytes.to_vec();
            Ok(())
        })
    }

    fn set_aside(&mut self, bytes: &[u8]) -> io::Result<String> {
        self.with(|medium| {
            medium.admit(bytes.len()).map_err(|(_, error)| error)?;
            medium.aside.push(bytes.to_vec());
            Ok(format!("memory copy {}", medium.aside.len()))
        })
    }

    fn destroy_asides(&mut self) -> io::Result<()> {
        self.with(|medium| {
            medium.admit(0).map_err(|(_, error)| error)?;
            medium.aside.clear();
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_cuts_tear_appends_and_not_replaces() {
        let mut store = MemStore::default();
        store.append(b"abcd").unwrap();
        store.set_fault(Fault::PowerCut { after_bytes: 6 });
        assert!(store.append(b"efgh").is_err());
        assert!(store.bytes().starts_with(b"abcdef"));
        assert!(store.append(b"x").is_err(), "nothing works without power");
        let torn = store.bytes();
        assert!(store.replace(b"new").is_err());
        assert_eq!(store.bytes(), torn);
        store.power_on();
        store.replace(b"new").unwrap();
        assert_eq!(store.bytes(), b"new");
    }
}
