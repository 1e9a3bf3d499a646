//! The whole build, step by step.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use facelatch_shared::bundle::{NUMBER_MARK, SLOT_MARK};
use sha2::{Digest as _, Sha256};

use super::disk::{BootFiles, Layout, assemble, entry, pack_boot, pack_root};
use super::loader::Loader;
use super::packages::Packages;
use super::root::Contents;
use super::wifi::Wifi;
use super::{Board, ImageError, initrd, root, tools};
use crate::progress::Progress;

/// Everything that an image follows from.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The board.
    pub board: Board,
    /// `facelatchd` for aarch64.
    pub program: PathBuf,
    /// The model directory.
    pub models: PathBuf,
    /// `door.toml`; none for a door without a lock.
    pub config: Option<PathBuf>,
    /// The root document that the door trusts.
    pub trust: Option<PathBuf>,
    /// The wireless network that it joins.
    pub wifi: Option<Wifi>,
    /// Shown by boot loader and system.
    pub version: String,
    /// Seconds since 1970: the time of every file.
    pub epoch: u64,
    /// Bytes that a root slot is larger than its content.
    pub spare: u64,
    /// Added to the kernel's options.
    pub options: String,
    /// A root shell on the serial console.
    pub console: bool,
    /// A folder of files to add to the root.
    pub extra: Option<PathBuf>,
    /// Whether [`Built::system`] is wanted.
    pub system: bool,
}

/// An image that was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// Its length in bytes.
    pub bytes: u64,
    /// The partitions.
    pub layout: Layout,
    /// Length of a root with its dm-verity tree.
    pub root_bytes: u64,
    /// The root hash.
    pub root_hash: String,
    /// The kernel's version.
    pub kernel: String,
    /// The packages that it was made of.
    pub packages: Vec<String>,
    /// What a slot holds, for a bundle that brings it to boards that run already.
    pub system: Option<System>,
}

/// What lies in a slot, as a bundle carries it.
#[derive(Clone)]
pub struct System {
    /// The root file system with its dm-verity tree.
    pub root: Vec<u8>,
    /// The kernel.
    pub kernel: Vec<u8>,
    /// The first file system.
    pub initrd: Vec<u8>,
    /// The boot loader's entry, with marks for slot and number.
    pub entry: String,
}

impl std::fmt::Debug for System {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = [&self.root, &self.kernel, &self.initrd].map(Vec::len);
        f.debug_struct("System").field("bytes", &bytes).finish_non_exhaustive()
    }
}

/// Builds `recipe` into `out`, from packages in `cache` (fetched where they are missing, or anew with `refresh`).
///
/// # Errors
/// [`ImageError`].
pub fn build(
    recipe: &Recipe,
    cache: &Path,
    refresh: bool,
    out: &Path,
    progress: &dyn Progress,
) -> Result<Built, ImageError> {
    tools::check()?;
    let config = recipe
        .config
        .as_deref()
        .map(|path| std::fs::read_to_string(path).map_err(ImageError::io(path)))
        .transpose()?;
    let trust =
        recipe.trust.as_deref().map(|path| std::fs::read(path).map_err(ImageError::io(path))).transpose()?;
    if !recipe.program.is_file() {
        let path = recipe.program.display();
        return Err(ImageError::input(format!(
            "there is no {path}: `make device` builds it, or name another with --facelatchd"
        )));
    }
    progress.start("building the image", 5);
    let packages = Packages::get(cache, refresh)?;
    progress.step();
    let work = Work::new(out)?;
    let (root_tree, initrd_tree) = (work.0.join("root"), work.0.join("initrd"));
    let contents = Contents {
        board: recipe.board,
        program: &recipe.program,
        models: &recipe.models,
        config: config.as_deref(),
        trust: trust.as_deref(),
        version: &recipe.version,
        wifi: recipe.wifi.is_some(),
        console: recipe.console,
        extra: recipe.extra.as_deref(),
    };
    root::make(&root_tree, &packages, &contents)?;
    let initrd = work.0.join("initrd.xz");
    initrd::make(&initrd_tree, &packages, recipe.epoch, &initrd)?;
    progress.step();
    let root_file = work.0.join("root.squashfs");
    let verity = pack_root(&root_tree, recipe.epoch, &root_file)?;
    progress.step();
    let kernel = packages.tree.join(format!("boot/vmlinuz-{}", packages.kernel));
    let loader = Loader::new(recipe.board, &packages, cache, recipe.epoch, &work.0)?;
    let files = BootFiles {
        loader: &loader.files,
        kernel: &kernel,
        initrd: &initrd,
        root: &verity,
        version: &recipe.version,
        options: &recipe.options,
        wifi: recipe.wifi.as_ref().map(Wifi::supplicant),
    };
    let boot_file = work.0.join("boot.fat");
    let read = |path: &Path| std::fs::read(path).map_err(ImageError::io(path));
    let system = match recipe.system {
        true => Some(System {
            root: read(&root_file)?,
            kernel: read(&kernel)?,
            initrd: read(&initrd)?,
            entry: entry(SLOT_MARK, NUMBER_MARK, recipe.board, &files),
        }),
        false => None,
    };
    let boot_bytes = pack_boot(&boot_file, &work.0, recipe.board, recipe.epoch, &files)?;
    progress.step();
    let layout = Layout::new(boot_bytes, verity.bytes, recipe.spare);
    let identity =
        hex::encode(Sha256::digest(format!("{} {} {}", recipe.board.name(), packages.kernel, verity.hash)));
    let image = work.0.join("image");
    if recipe.wifi.is_some() {
        // It holds the passphrase.
        private(&image).map_err(ImageError::io(&image))?;
    }
    assemble(&image, recipe.board, &layout, &boot_file, &root_file, &identity, recipe.epoch)?;
    std::fs::rename(&image, out).map_err(ImageError::io(out))?;
    progress.step();
    progress.finish();
    Ok(Built {
        bytes: layout.bytes(),
        layout,
        root_bytes: verity.bytes,
        root_hash: verity.hash,
        kernel: packages.kernel,
        packages: [packages.names, loader.packages].concat(),
        system,
    })
}

/// Makes a file that its owner alone may read.
fn private(path: &Path) -> std::io::Result<()> {
    std::fs::File::options().write(true).create_new(true).mode(0o600).open(path).map(drop)
}

/// A folder beside the image, gone when the build is over.
struct Work(PathBuf);

impl Work {
    fn new(out: &Path) -> Result<Self, ImageError> {
        let mut name =
            out.file_name().ok_or_else(|| ImageError::input("the image's name is missing"))?.to_owned();
        name.push(".build");
        let path = out.with_file_name(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).map_err(ImageError::io(&path))?;
        // Tools may be run from elsewhere.
        let path = std::fs::canonicalize(&path).map_err(ImageError::io(&path))?;
        Ok(Self(path))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
