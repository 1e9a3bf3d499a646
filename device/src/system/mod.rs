//! A new system for a board that runs from a card's image: kernel, programs and the models that come with them, into the root slot that is not
//! running.
//!
//! The door takes such a bundle as it takes models, as its own user, and asks for the installation by a file ([`Request`]). What changes the
//! card is `facelatchd system install`, started by the image's init as root: it believes nothing that the door says. It judges the bundle
//! anew, against the root document of the verified root file system, writes each chunk from the very bytes it has just verified, and nothing
//! into the door's folders, where a link could lead elsewhere.
//!
//! ```text
//! entries of the other slot gone ─ root ─ kernel, initrd ─ record: trying ─ entry with three tries ─ restart
//!    └─ from here to the entry the other slot cannot be booted: the running one is, whatever happens
//! ```
//!
//! From there the boot loader counts (systemd-boot's boot counting): a system whose door does not come to answer loses its tries, and the
//! former one is booted. Whichever comes up says so by `facelatchd system settled`.

mod install;
mod record;

pub use install::{InstallError, Job, install};
pub use record::{Install, Refused, Request, State, SystemRecord, settle};

use std::path::{Path, PathBuf};

use facelatch_shared::bundle::SystemPlatform;

/// The root document that an image was built with.
pub const IMAGE_ROOT: &str = "/etc/facelatch/root.bin";

/// Where an image keeps what this is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemPaths {
    /// The board that the image was made for, a line of text; without this file the door does not run from an image.
    pub board: PathBuf,
    /// What the first file system found: `slot=a` and the partitions.
    pub boot: PathBuf,
    /// The folder of the [`SystemRecord`]; only root writes there.
    pub state: PathBuf,
}

impl Default for SystemPaths {
    fn default() -> Self {
        let [board, boot, state] =
            ["/etc/facelatch/board", "/run/facelatch/boot", "/data/system"].map(PathBuf::from);
        Self { board, boot, state }
    }
}

/// The image that the program runs from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The board that it was made for.
    pub board: String,
    /// The slot that runs, `a` or `b`.
    pub slot: char,
    /// What was installed last, and what was confirmed.
    pub record: SystemRecord,
}

impl Image {
    /// What there is; `None` where the program was installed otherwise.
    #[must_use]
    pub fn look(paths: &SystemPaths) -> Option<Self> {
        let board = std::fs::read_to_string(&paths.board).ok()?.trim().to_owned();
        let boot = std::fs::read_to_string(&paths.boot).ok()?;
        let slot = boot.lines().find_map(|line| line.strip_prefix("slot="))?;
        let slot = slot.chars().next().filter(|&slot| other(slot).is_some())?;
        let record = SystemRecord::load(&paths.state).unwrap_or_default();
        Some(Self { board, slot, record })
    }

    /// As bundles are held against it.
    #[must_use]
    pub fn platform(&self) -> SystemPlatform<'_> {
        SystemPlatform { board: &self.board, counter_floor: self.record.floor }
    }
}

/// The slot beside `slot`; `None` when that is none.
#[must_use]
pub const fn other(slot: char) -> Option<char> {
    match slot {
        'a' => Some('b'),
        'b' => Some('a'),
        _ => None,
    }
}

/// Puts `bytes` in the place of `path`, all or nothing, and makes that durable.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let beside = path.with_extension("new");
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

fn sync_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
