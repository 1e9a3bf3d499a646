//! Where journals are kept. The gallery and the event log are each one append-only file that is now and then replaced whole.

mod file;
mod key;
mod mem;

pub use file::{FileStore, write_whole};
pub use key::{KeyError, SystemEntropy, door_key, load_or_create};
pub use mem::{Fault, MemStore};

use std::io;

/// One durable, append-only sequence of bytes.
///
/// The contract that the gallery and the event log rest on: what `append` or `replace` acknowledged is there after a power cut;
/// what they did not acknowledge may be there in part (a torn tail), in full, or not at all; `replace` is all or nothing.
pub trait JournalStore: Send {
    /// All bytes now stored; empty when nothing was ever written.
    ///
    /// # Errors
    /// The system's error.
    fn load(&mut self) -> io::Result<Vec<u8>>;

    /// Adds `bytes` at the end; durable when it returns. On error the tail is cut back to what was there before where the medium allows.
    ///
    /// # Errors
    /// The system's error, a full disk among them; nothing stored before is lost.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Puts `bytes` in the place of everything stored, atomically and durably, and overwrites what was there as far as the medium allows.
    ///
    /// # Errors
    /// The system's error; then the former content stands.
    fn replace(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Keeps a copy of `bytes` beside the journal, for whoever investigates damage; returns where.
    ///
    /// # Errors
    /// The system's error.
    fn set_aside(&mut self, bytes: &[u8]) -> io::Result<String>;

    /// Destroys every copy that was set aside, now or before.
    ///
    /// # Errors
    /// The system's error; some copies may be left then.
    fn destroy_asides(&mut self) -> io::Result<()>;
}
