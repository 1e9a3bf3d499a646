//! A keypad as Linux shows it: any input device with digits, whether on USB or as a key matrix on GPIO lines.
//!
//! The kernel's `struct input_event` is a time stamp of two machine words, then type, code and value
//! (Documentation/input/input.rst); only presses of the keys below count.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A key that means something to the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// 0 to 9.
    Digit(u8),
    /// `#`, Enter: done.
    Enter,
    /// `*`, Escape, Backspace: begin anew, or call it off.
    Clear,
}

/// `[keypad]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeypadConfig {
    /// Its device, such as `/dev/input/by-path/platform-keypad-event`; left out where there is none.
    pub device: Option<PathBuf>,
}

/// Where keys come from.
pub trait Keypad: Send {
    /// Keys pressed since the last call, oldest first; never blocks.
    ///
    /// # Errors
    /// A text for the log when the keypad is gone.
    fn pressed(&mut self) -> Result<Vec<Key>, String>;
}

/// No keypad.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoKeypad;

impl Keypad for NoKeypad {
    fn pressed(&mut self) -> Result<Vec<Key>, String> {
        Ok(Vec::new())
    }
}

/// A Linux input device.
#[derive(Debug)]
pub struct EventKeypad {
    device: File,
    path: PathBuf,
    rest: Vec<u8>,
}

impl EventKeypad {
    /// Opens `path`.
    ///
    /// # Errors
    /// [`KeypadError`].
    pub fn open(path: &Path) -> Result<Self, KeypadError> {
        let failed = |source| KeypadError { path: path.display().to_string(), source };
        let device = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path).map_err(failed)?;
        Ok(Self { device, path: path.to_owned(), rest: Vec::new() })
    }
}

impl Keypad for EventKeypad {
    fn pressed(&mut self) -> Result<Vec<Key>, String> {
        let mut chunk = [0; EVENT_BYTES * 32];
        loop {
            match self.device.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => self.rest.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("keypad {}: {error}", self.path.display())),
            }
            if self.rest.len() > chunk.len() {
                break;
            }
        }
        let whole = self.rest.len() / EVENT_BYTES * EVENT_BYTES;
        let keys = self.rest[..whole].chunks_exact(EVENT_BYTES).filter_map(key_of).collect();
        self.rest.drain(..whole);
        Ok(keys)
    }
}

/// The key that one event presses.
fn key_of(event: &[u8]) -> Option<Key> {
    let body = event.get(EVENT_BYTES - 8..)?;
    let (kind, code) = (u16::from_ne_bytes([body[0], body[1]]), u16::from_ne_bytes([body[2], body[3]]));
    let value = i32::from_ne_bytes([body[4], body[5], body[6], body[7]]);
    if kind != EV_KEY || value != PRESSED {
        return None;
    }
    // Codes of linux/input-event-codes.h: the row of digits, the numeric block, and KEY_NUMERIC_0 to KEY_NUMERIC_POUND.
    match code {
        2..=10 => Some(Key::Digit((code - 1) as u8)),
        11 | 82 => Some(Key::Digit(0)),
        79..=81 => Some(Key::Digit((code - 78) as u8)),
        75..=77 => Some(Key::Digit((code - 71) as u8)),
        71..=73 => Some(Key::Digit((code - 64) as u8)),
        0x200..=0x209 => Some(Key::Digit((code - 0x200) as u8)),
        28 | 96 | 0x20b => Some(Key::Enter),
        1 | 14 | 55 | 0x20a => Some(Key::Clear),
        _ => None,
    }
}

const EVENT_BYTES: usize = 2 * size_of::<usize>() + 8;
const EV_KEY: u16 = 1;
const PRESSED: i32 = 1;
/// The same on all of Linux's ARM and x86.
const O_NONBLOCK: i32 = 0o4000;

/// The keypad cannot be opened.
#[derive(Debug, Error)]
#[error(
    "keypad {path}: {source}; `ls /dev/input/by-path` lists input devices, and the door's user must be in the group `input`"
)]
pub struct KeypadError {
    /// The device.
    pub path: String,
    /// What the system said.
    #[source]
    pub source: std::io::Error,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn event(kind: u16, code: u16, value: i32) -> Vec<u8> {
        let mut bytes = vec![7; EVENT_BYTES - 8];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(code.to_ne_bytes());
        bytes.extend(value.to_ne_bytes());
        bytes
    }

    #[test]
    fn presses_count_and_nothing_else() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut keypad = EventKeypad::open(file.path()).unwrap();
        assert!(keypad.pressed().unwrap().is_empty());
        let mut typed = Vec::new();
        for code in [2, 10, 11, 71, 72, 73, 75, 77, 79, 81, 82, 0x209, 55, 28, 0x20b, 30] {
            typed.extend(event(4, 4, 458_756));
            typed.extend(event(1, code, 1));
            typed.extend(event(0, 0, 0));
            typed.extend(event(1, code, 2));
            typed.extend(event(1, code, 0));
        }
        let half = typed.len() / 2 + 5;
        let mut out = file.reopen().unwrap();
        out.write_all(&typed[..half]).unwrap();
        let mut keys = keypad.pressed().unwrap();
        out.write_all(&typed[half..]).unwrap();
        keys.extend(keypad.pressed().unwrap());
        let digits = |list: &[u8]| list.iter().map(|d| Key::Digit(*d)).collect::<Vec<_>>();
        let mut expected = digits(&[1, 9, 0, 7, 8, 9, 4, 6, 1, 3, 0, 9]);
        expected.extend([Key::Clear, Key::Enter, Key::Enter]);
        assert_eq!(keys, expected);
    }

    #[test]
    fn a_missing_keypad_says_what_helps() {
        let error = EventKeypad::open(Path::new("/nonexistent/event7")).unwrap_err().to_string();
        assert!(error.contains("event7") && error.contains("group `input`"), "{error}");
    }
}
