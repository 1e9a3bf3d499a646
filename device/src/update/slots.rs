//! Where models lie on the board: two slots and one small record that says which of them is used.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// One of the two places for models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// Two slots of files and a record.
///
/// The contract that the update rests on: what [`sync`](Self::sync) acknowledged is there after a power cut; what was only
/// written may be there in full, in part, or not at all. [`replace_record`](Self::replace_record) is durable and all or nothing.
/// File names are plain names, as a bundle's manifest has them.
pub trait SlotStore: Send {
    /// The record; empty when there never was one.
    ///
    /// # Errors
    /// The system's error.
    fn load_record(&mut self) -> io::Result<Vec<u8>>;

    /// Puts `bytes` in the record's place, atomically and durably.
    ///
    /// # Errors
    /// The system's error; the former record stands then.
    fn replace_record(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Removes everything in `slot`, durably.
    ///
    /// # Errors
    /// The system's error; some of it may be gone then.
    fn clear(&mut self, slot: Slot) -> io::Result<()>;

    /// Writes `bytes` at offset `at` of a file; makes the file if need be.
    ///
    /// # Errors
    /// The system's error, a full disk among them.
    fn write(&mut self, slot: Slot, file: &str, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes everything written to a file durable.
    ///
    /// # Errors
    /// The system's error.
    fn sync(&mut self, slot: Slot, file: &str) -> io::Result<()>;

    /// Reads up to `into.len()` bytes from offset `at`; fewer only at the file's end, none where there is no file.
    ///
    /// # Errors
    /// The system's error.
    fn read(&mut self, slot: Slot, file: &str, at: u64, into: &mut [u8]) -> io::Result<usize>;

    /// The folder of a slot, for whoever loads models from files; `None` where there are no files.
    fn folder(&self, slot: Slot) -> Option<PathBuf>;
}

/// Slots as folders `a` and `b` beside a file `record`, under the door's state folder.
#[derive(Debug)]
pub struct FileSlots {
    root: PathBuf,
}

impl FileSlots {
    /// Opens or makes the folders.
    ///
    /// # Errors
    /// The system's error, with the path.
    pub fn open(root: &Path) -> io::Result<Self> {
        let slots = Self { root: root.to_owned() };
        for folder in [root.to_owned(), slots.path(Slot::A), slots.path(Slot::B)] {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .map_err(|e| about(&folder, &e))?;
        }
        // What was left when the power went is worth nothing.
        match std::fs::remove_file(root.join(UNFINISHED)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(about(root, &error)),
            _ => {}
        }
        Ok(slots)
    }

    fn path(&self, slot: Slot) -> PathBuf {
        self.root.join(match slot {
            Slot::A => "a",
            Slot::B => "b",
        })
    }

    fn file(&self, slot: Slot, name: &str) -> io::Result<PathBuf> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name:?} is no plain file name"),
            ));
        }
        Ok(self.path(slot).join(name))
    }
}

impl SlotStore for FileSlots {
    fn load_record(&mut self) -> io::Result<Vec<u8>> {
        let path = self.root.join(RECORD);
        let mut bytes = Vec::new();
        match File::open(&path) {
            Ok(file) => file.take(MAX_RECORD).read_to_end(&mut bytes).map_err(|e| about(&path, &e))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(about(&path, &error)),
        };
        Ok(bytes)
    }

    fn replace_record(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (path, beside) = (self.root.join(RECORD), self.root.join(UNFINISHED));
        let write = || {
            let mut file = private().create(true).truncate(true).write(true).open(&beside)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&beside, &path)?;
            File::open(&self.root)?.sync_all()
        };
        write().map_err(|e| about(&path, &e))
    }

    fn clear(&mut self, slot: Slot) -> io::Result<()> {
        let folder = self.path(slot);
        let clear = || {
            for entry in std::fs::read_dir(&folder)? {
                std::fs::remove_file(entry?.path())?;
            }
            File::open(&folder)?.sync_all()
        };
        clear().map_err(|e| about(&folder, &e))
    }

    fn write(&mut self, slot: Slot, file: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        let path = self.file(slot, file)?;
        let write = || {
            let mut file = private().create(true).truncate(false).write(true).open(&path)?;
            file.seek(SeekFrom::Start(at))?;
            file.write_all(bytes)
        };
        write().map_err(|e| about(&path, &e))
    }

    fn sync(&mut self, slot: Slot, file: &str) -> io::Result<()> {
        let path = self.file(slot, file)?;
        let sync = || {
            File::open(&path)?.sync_all()?;
            File::open(self.path(slot))?.sync_all()
        };
        sync().map_err(|e| about(&path, &e))
    }

    fn read(&mut self, slot: Slot, file: &str, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let path = self.file(slot, file)?;
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(about(&path, &error)),
        };
        let mut read = || {
            file.seek(SeekFrom::Start(at))?;
            let mut done = 0;
            while done < into.len() {
                match file.read(&mut into[done..])? {
                    0 => break,
                    count => done += count,
                }
            }
            Ok(done)
        };
        read().map_err(|e: io::Error| about(&path, &e))
    }

    fn folder(&self, slot: Slot) -> Option<PathBuf> {
        Some(self.path(slot))
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn about(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

const RECORD: &str = "record";
const UNFINISHED: &str = "record.unfinished";
const MAX_RECORD: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_record_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("slots");
        let mut slots = FileSlots::open(&root).unwrap();
        assert!(slots.load_record().unwrap().is_empty());
        slots.write(Slot::A, "net.onnx", 3, b"def").unwrap();
        slots.write(Slot::A, "net.onnx", 0, b"abc").unwrap();
        slots.sync(Slot::A, "net.onnx").unwrap();
        slots.replace_record(b"one").unwrap();
        slots.replace_record(b"two").unwrap();
        let mut slots = FileSlots::open(&root).unwrap();
        let mut bytes = [0; 8];
        assert_eq!(slots.read(Slot::A, "net.onnx", 1, &mut bytes).unwrap(), 5);
        assert_eq!(&bytes[..5], b"bcdef");
        assert_eq!(slots.read(Slot::B, "net.onnx", 0, &mut bytes).unwrap(), 0);
        assert_eq!(slots.load_record().unwrap(), b"two");
        slots.clear(Slot::A).unwrap();
        assert_eq!(slots.read(Slot::A, "net.onnx", 0, &mut bytes).unwrap(), 0);
    }

    #[test]
    fn names_never_leave_the_slot() {
        let folder = tempfile::tempdir().unwrap();
        let mut slots = FileSlots::open(folder.path()).unwrap();
        for name in ["", "../record", "/etc/passwd", ".hidden", "a/b"] {
            let error = slots.write(Slot::A, name, 0, b"x").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}");
        }
    }
}
