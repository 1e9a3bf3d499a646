//! Journals as files.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::JournalStore;

/// One journal in one file, held by one process at a time.
///
/// `append` ends with `fdatasync`. `replace` writes a file beside, syncs it, renames it over the old one and syncs the folder; the old
/// file's blocks are overwritten with zeros afterwards (on flash with wear levelling the medium may keep copies: erasure rests on the
/// person's key being gone from every sealed record, this is the second line).
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
    file: File,
    /// Locked for the life of the store; a file of its own, since `replace` puts a new inode in the journal's place.
    _lock: File,
    len: u64,
}

impl FileStore {
    /// Opens or makes the journal at `path`, and locks it.
    ///
    /// # Errors
    /// The system's error, with the path; [`io::ErrorKind::WouldBlock`] when another process holds it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let lock_path = path.with_extension("lock");
        let lock = private()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|e| about(&lock_path, e))?;
        take(&lock).map_err(|error| match error {
            TryLockError::WouldBlock => {
                let what = "another facelatchd is using it; talk to that one or stop it first";
                about(path, io::Error::new(io::ErrorKind::WouldBlock, what))
            }
            TryLockError::Error(error) => about(&lock_path, error),
        })?;
        // What a replace left behind when the power went is worth nothing.
        destroy(&unfinished(path))?;
        let file = open_file(path)?;
        let len = file.metadata().map_err(|e| about(path, e))?.len();
        Ok(Self { path: path.to_owned(), file, _lock: lock, len })
    }

    fn write_unfinished(&self, bytes: &[u8]) -> io::Result<()> {
        let mut fresh = private().create(true).truncate(true).write(true).open(unfinished(&self.path))?;
        fresh.write_all(bytes)?;
        fresh.sync_all()?;
        std::fs::rename(unfinished(&self.path), &self.path)?;
        sync_folder(&self.path)
    }
}

impl JournalStore for FileStore {
    fn load(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(0)).map_err(|e| about(&self.path, e))?;
        (&mut self.file)
            .take(MAX_JOURNAL_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| about(&self.path, e))?;
        if bytes.len() as u64 > MAX_JOURNAL_BYTES {
            let what = format!(
                "it is larger than {} MiB, which no journal of ours grows to",
                MAX_JOURNAL_BYTES >> 20
            );
            return Err(about(&self.path, io::Error::new(io::ErrorKind::InvalidData, what)));
        }
        Ok(bytes)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self
            .file
            .seek(SeekFrom::Start(self.len))
            .and_then(|_| self.file.write_all(bytes))
            .and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.len += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Cut the unfinished record off; if that fails too, the reader skips it.
                let _ = self.file.set_len(self.len).and_then(|()| self.file.sync_data());
                Err(about(&self.path, error))
            }
        }
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.write_unfinished(bytes) {
            let _ = destroy(&unfinished(&self.path));
            return Err(about(&self.path, error));
        }
        let fresh = open_file(&self.path)?;
        let mut former = std::mem::replace(&mut self.file, fresh);
        let former_len = std::mem::replace(&mut self.len, bytes.len() as u64);
        // The new file stands whether or not the old one's blocks could be overwritten.
        let _ = overwrite(&mut former, former_len);
        Ok(())
    }

    fn set_aside(&mut self, bytes: &[u8]) -> io::Result<String> {
        for number in 1..=KEPT_ASIDE {
            let aside = aside(&self.path, number);
            match private().create_new(true).write(true).open(&aside) {
                Ok(mut file) => {
                    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| about(&aside, e))?;
                    return Ok(aside.display().to_string());
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(about(&aside, error)),
            }
        }
        let what =
            format!("{KEPT_ASIDE} damaged copies are kept beside it already; look at them and remove them");
        Err(about(&self.path, io::Error::new(io::ErrorKind::AlreadyExists, what)))
    }

    fn destroy_asides(&mut self) -> io::Result<()> {
        for number in 1..=KEPT_ASIDE {
            destroy(&aside(&self.path, number))?;
        }
        sync_folder(&self.path)
    }
}

/// Puts `bytes` in the place of the file at `path`, whole or not at all, for its owner alone.
///
/// # Errors
/// The system's error, with the path; the former content stands then.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let write = || {
        let mut fresh = private().create(true).truncate(true).write(true).open(unfinished(path))?;
        fresh.write_all(bytes)?;
        fresh.sync_all()?;
        std::fs::rename(unfinished(path), path)?;
        sync_folder(path)
    };
    write().map_err(|e| about(path, e))
}

/// Tries for a moment: a program that is just being started by the former holder has a copy of the lock between its fork and its exec.
fn take(lock: &File) -> Result<(), TryLockError> {
    for _ in 0..LOCK_TRIES {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            taken_or_failed => return taken_or_failed,
        }
    }
    lock.try_lock()
}

fn open_file(path: &Path) -> io::Result<File> {
    private().create(true).truncate(false).read(true).write(true).open(path).map_err(|e| about(path, e))
}

/// Only the owner reads what is written.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn unfinished(path: &Path) -> PathBuf {
    path.with_extension("unfinished")
}

fn aside(path: &Path, number: u32) -> PathBuf {
    path.with_extension(format!("damaged-{number}"))
}

/// Overwrites a file and removes it; one that is not there needs neither. That its blocks cannot be overwritten keeps nobody from removing it.
fn destroy(path: &Path) -> io::Result<()> {
    let removed = match OpenOptions::new().write(true).open(path) {
        Ok(mut file) => {
            let _ = file.metadata().and_then(|found| overwrite(&mut file, found.len()));
            std::fs::remove_file(path)
        }
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(about(path, error)),
        _ => Ok(()),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

fn overwrite(file: &mut File, len: u64) -> io::Result<()> {
    let zeros = [0_u8; 4096];
    file.seek(SeekFrom::Start(0))?;
    let mut left = len;
    while left > 0 {
        let now = left.min(zeros.len() as u64) as usize;
        file.write_all(&zeros[..now])?;
        left -= now as u64;
    }
    file.sync_all()
}

fn about(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// A gallery of 10,000 people with 8 templates takes 20 MB.
const MAX_JOURNAL_BYTES: u64 = 256 << 20;
const KEPT_ASIDE: u32 = 9;
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_appended_is_there_when_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gallery.journal");
        let mut store = FileStore::open(&path).unwrap();
        assert!(store.load().unwrap().is_empty());
        store.append(b"one").unwrap();
        store.append(b"two").unwrap();
        drop(store);
        let mut store = FileStore::open(&path).unwrap();
        assert_eq!(store.load().unwrap(), b"onetwo");
        store.replace(b"new").unwrap();
        store.append(b"er").unwrap();
        assert_eq!(store.load().unwrap(), b"newer");
        drop(store);
        assert_eq!(FileStore::open(&path).unwrap().load().unwrap(), b"newer");
    }

    #[test]
    fn the_replaced_bytes_are_overwritten_on_the_medium() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gallery.journal");
        let mut store = FileStore::open(&path).unwrap();
        store.append(b"a sealed person").unwrap();
        let mut former = File::open(&path).unwrap();
        store.replace(b"nobody").unwrap();
        let mut bytes = Vec::new();
        former.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [0; 15]);
    }

    #[test]
    fn two_processes_cannot_hold_one_journal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gallery.journal");
        let first = FileStore::open(&path).unwrap();
        let error = FileStore::open(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(error.to_string().contains("another facelatchd"), "{error}");
        drop(first);
        FileStore::open(&path).unwrap();
    }

    #[test]
    fn damage_is_kept_for_whoever_looks_into_it_and_not_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = FileStore::open(&folder.path().join("gallery.journal")).unwrap();
        for number in 1..=9 {
            assert!(store.set_aside(b"?").unwrap().ends_with(&format!("damaged-{number}")));
        }
        assert!(store.set_aside(b"?").unwrap_err().to_string().contains("remove them"));
        store.destroy_asides().unwrap();
        assert!(store.set_aside(b"?").unwrap().ends_with("damaged-1"));
    }

    #[test]
    fn files_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gallery.journal");
        FileStore::open(&path).unwrap().replace(b"x").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_full_disk_loses_nothing_that_was_there() {
        // /dev/full refuses every write with ENOSPC, as a full disk does.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gallery.journal");
        let mut store = FileStore::open(&path).unwrap();
        store.append(b"kept").unwrap();
        store.file = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
        let error = store.append(b"more").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
        assert!(error.to_string().contains("gallery.journal"));
        drop(store);
        assert_eq!(FileStore::open(&path).unwrap().load().unwrap(), b"kept");
    }
}
