//! What starts a board: files of the boot partition that belong to no slot.

use std::path::{Path, PathBuf};

use super::packages::Packages;
use super::{Board, ImageError, raspberry};

/// A boot loader.
#[derive(Debug)]
pub(super) struct Loader {
    /// Name on the boot partition, and the file.
    pub files: Vec<(String, PathBuf)>,
    /// `name_version_architecture` of packages that are fetched for it alone, sorted.
    pub packages: Vec<String>,
}

impl Loader {
    /// That of `board`; what is made here is written into `work`.
    pub(super) fn new(
        board: Board,
        packages: &Packages,
        cache: &Path,
        epoch: u64,
        work: &Path,
    ) -> Result<Self, ImageError> {
        if board == Board::RpiArm64 {
            return raspberry::loader(packages, cache, epoch, work);
        }
        let settings = work.join("loader.conf");
        std::fs::write(&settings, "timeout 0\neditor no\n").map_err(ImageError::io(&settings))?;
        let program = packages.file("lib/systemd/boot/efi/systemd-bootaa64.efi")?;
        let files = [("EFI/BOOT/BOOTAA64.EFI", program), ("loader/loader.conf", settings)];
        Ok(Self { files: files.map(|(name, file)| (name.to_owned(), file)).into(), packages: Vec::new() })
    }
}
