//! The card's image: one file that a board boots, and everything on it.
//!
//! ```text
//! GPT | facelatch-boot    FAT: the boot loader, and for each slot kernel, initrd and an entry with boot counter
//!     | facelatch-root-a  squashfs, then its dm-verity tree; the entry of slot a carries the root hash
//!     | facelatch-root-b  the same
//!     ·  facelatch-data   ext4, made by the board at its first start, as large as the card allows
//! ```
//!
//! Everything comes from Debian packages by name, `facelatchd`, a folder of models and a configuration. Same inputs give the same bytes: all
//! times are [`Recipe::epoch`], all identifiers are hashes of contents. No step needs root. The tools that do the work
//! (`mksquashfs`, `veritysetup`, `sfdisk`, mtools) are the distribution's; see [`tools`].

pub mod tools;
mod apt;
pub mod packages;
pub mod userland;
pub mod wifi;
pub mod root;
pub mod initrd;
mod uboot;
mod raspberry;
mod loader;
mod mbr;
pub mod disk;
pub mod build;
pub mod signature;
pub mod devices;
pub mod flash;

use std::path::PathBuf;

use thiserror::Error;

pub use build::{Built, Recipe, System, build};

/// A kind of board that images are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Board {
    /// Any 64-bit ARM board that boots by UEFI, and qemu's `virt` machine.
    GenericArm64,
    /// Raspberry Pi 3, Zero 2 W, 4, 400, CM3 and CM4, 64 bit.
    RpiArm64,
}

impl Board {
    /// As the command line and the signed document name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::GenericArm64 => "generic-arm64",
            Self::RpiArm64 => "rpi-arm64",
        }
    }

    /// What the kernel is told beside the root.
    const fn kernel_options(self) -> &'static str {
        match self {
            Self::GenericArm64 => "console=ttyAMA0",
            // Pins 8 and 10; the other serial port leads to Bluetooth.
            Self::RpiArm64 => "console=ttyS1,115200",
        }
    }

    /// What whoever builds or passes on an image must know of licences.
    #[must_use]
    pub const fn notice(self) -> Option<&'static str> {
        match self {
            Self::GenericArm64 => None,
            Self::RpiArm64 => Some(
                "this image holds the Raspberry Pi's boot firmware (Debian's raspi-firmware, non-free): Broadcom's licence, binary, for use on a \
                 Raspberry Pi only; LICENCE.txt on the boot partition has it",
            ),
        }
    }
}

/// Why an image cannot be made, checked or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A program is not installed.
    #[error("there is no {tool} on this machine: apt install {package}")]
    MissingTool {
        /// The program.
        tool: &'static str,
        /// The Debian package that brings it.
        package: &'static str,
    },
    /// A program ended with an error.
    #[error("{tool} failed: {said}")]
    Tool {
        /// The program.
        tool: String,
        /// The end of what it wrote.
        said: String,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An input is not what it must be.
    #[error("{what}")]
    Input {
        /// What is wrong, and the remedy.
        what: String,
    },
    /// The image or its signature is refused.
    #[error("{what}")]
    Refused {
        /// Why.
        what: String,
    },
    /// The card does not hold what was written.
    #[error("the card differs from the image at byte {offset}: what was written is not what is read back")]
    Mismatch {
        /// The first byte that differs.
        offset: u64,
    },
}

impl ImageError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn input(what: impl Into<String>) -> Self {
        Self::Input { what: what.into() }
    }

    pub(crate) fn refused(what: impl Into<String>) -> Self {
        Self::Refused { what: what.into() }
    }
}
