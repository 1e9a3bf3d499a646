//! Writing a system into the slot that is not running.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use facelatch_shared::bundle::{
    Accepted, BundleError, CHUNK_BYTES, Content, MAX_HEADER, NUMBER_MARK, Platform, SLOT_MARK, Section,
    SectionKind, SignedRoot, Trust, Version, judge,
};
use facelatch_shared::time::UnixMs;
use facelatch_shared::vision::compat::CONTRACTS;
use thiserror::Error;

use super::record::{Install, State, SystemRecord};
use super::{Image, other, sync_folder};

/// What is to be installed, and where.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The folder with the bundle's header and sections, as the door received them.
    pub from: &'a Path,
    /// Partition of the root that is not running.
    pub root: &'a Path,
    /// Where the boot partition is mounted.
    pub boot: &'a Path,
    /// What runs.
    pub image: &'a Image,
    /// The root document of the running root file system.
    pub trust: &'a SignedRoot,
    /// Folder of the [`SystemRecord`].
    pub state: &'a Path,
    /// Present time.
    pub now: UnixMs,
}

/// Installs it: the slot is booted at the next start, on trial.
///
/// # Errors
/// [`InstallError`]. The running slot stays what it was in any case; the other one may be gone.
pub fn install(job: &Job<'_>) -> Result<Install, InstallError> {
    let accepted = accept(job)?;
    let slot = other(job.image.slot).ok_or(InstallError::NoImage)?;
    let section = |kind| accepted.manifest.section(kind).ok_or(InstallError::NoSystem);
    let (root, kernel) = (section(SectionKind::Root)?, section(SectionKind::Kernel)?);
    let (initrd, entry) = (section(SectionKind::Initrd)?, section(SectionKind::Entry)?);

    // Everything that can be known beforehand, before anything changes.
    let mut partition = OpenOptions::new().write(true).open(job.root).map_err(at(job.root))?;
    let room = partition.seek(SeekFrom::End(0)).map_err(at(job.root))?;
    if room < u64::from(root.1.length) {
        return Err(InstallError::TooLarge { needs: root.1.length.into(), has: room });
    }
    let entries = job.boot.join("loader/entries");
    let known = read_entries(&entries)?;
    let number = known.iter().filter_map(|entry| entry.number).max().unwrap_or_default() + 1;
    let mut text = Vec::new();
    copy(job.from, &accepted, entry, &mut text, Path::new("the boot entry"))?;
    let text = String::from_utf8(text)
        .ok()
        .filter(|text| text.contains(SLOT_MARK) && text.contains(NUMBER_MARK))
        .ok_or(InstallError::BadEntry)?
        .replace(SLOT_MARK, &slot.to_string())
        .replace(NUMBER_MARK, &number.to_string());

    // From here on nobody can boot the other slot.
    for old in known.iter().filter(|entry| entry.slot == Some(slot)) {
        std::fs::remove_file(&old.path).map_err(at(&old.path))?;
    }
    sync_folder(&entries).map_err(at(&entries))?;

    partition.seek(SeekFrom::Start(0)).map_err(at(job.root))?;
    copy(job.from, &accepted, root, &mut partition, job.root)?;
    partition.sync_all().map_err(at(job.root))?;
    let folder = job.boot.join(format!("facelatch/{slot}"));
    for (name, listed) in [("linux", kernel), ("initrd", initrd)] {
        let path = folder.join(name);
        // There is no room for two of them, and nothing names the old one any more.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&path)(error)),
            _ => {}
        }
        let mut file = File::create(&path).map_err(at(&path))?;
        copy(job.from, &accepted, listed, &mut file, &path)?;
        file.sync_all().map_err(at(&path))?;
    }
    sync_folder(&folder).map_err(at(&folder))?;

    let done = Install {
        bundle: hex::encode(accepted.id.0),
        name: accepted.manifest.name.as_str().to_owned(),
        counter: accepted.manifest.counter,
        slot,
        state: State::Trying,
    };
    let record = SystemRecord { floor: job.image.record.floor, last: Some(done.clone()) };
    record.store(job.state).map_err(at(job.state))?;
    // The last step, and the one that counts.
    let path = entries.join(format!("facelatch-{slot}+{TRIES}.conf"));
    super::replace(&path, text.as_bytes()).map_err(at(&path))?;
    Ok(done)
}

fn accept(job: &Job<'_>) -> Result<Accepted, InstallError> {
    let path = job.from.join(HEADER);
    let mut header = Vec::new();
    let file = plain(&path)?;
    file.take(MAX_HEADER as u64 + 1).read_to_end(&mut header).map_err(at(&path))?;
    let platform = Platform {
        firmware: env!("CARGO_PKG_VERSION").parse().unwrap_or(Version(0, 0, 0)),
        board: &job.image.board,
        contracts: CONTRACTS,
        counter_floor: 0,
        system: Some(job.image.platform()),
        now: job.now,
    };
    let accepted = judge(&header, &Trust::begin(job.trust.clone())?, &platform)?;
    match accepted.manifest.content() {
        Content::System => Ok(accepted),
        Content::Models => Err(InstallError::NoSystem),
    }
}

/// Copies a section; each chunk is written as it was verified.
fn copy(
    from: &Path,
    accepted: &Accepted,
    (number, section): (u16, &Section),
    into: &mut impl Write,
    to: &Path,
) -> Result<(), InstallError> {
    let path = from.join(section.name.as_str());
    let mut file = plain(&path)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    for at_chunk in 0..section.chunks.len() as u32 {
        let bytes = &mut chunk[..section.chunk_length(at_chunk).unwrap_or_default()];
        file.read_exact(bytes).map_err(at(&path))?;
        accepted.manifest.check_chunk(number, at_chunk, bytes)?;
        into.write_all(bytes).map_err(at(to))?;
    }
    Ok(())
}

/// The file itself: the folder is the door's, and root follows no link there.
fn plain(path: &Path) -> Result<File, InstallError> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path).map_err(at(path))
}

struct Entry {
    path: PathBuf,
    slot: Option<char>,
    number: Option<u64>,
}

fn read_entries(folder: &Path) -> Result<Vec<Entry>, InstallError> {
    let listed = std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut entries = Vec::new();
    for path in listed.map_err(at(folder))?.into_iter().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let slot = name.strip_prefix("facelatch-").and_then(|rest| rest.chars().next());
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let number = text.lines().find_map(|line| line.strip_prefix("version ")?.trim().parse().ok());
        entries.push(Entry { path, slot, number });
    }
    Ok(entries)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError::Io { path, source }
}

/// As the boot loader counts them.
const TRIES: u8 = 3;
/// The bundle's header beside its sections.
const HEADER: &str = "_header";

/// Why a system is not installed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InstallError {
    /// The bundle is refused.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The bundle brings models.
    #[error("the bundle brings no system: `facelatchd models take` is for models")]
    NoSystem,
    /// Not an image.
    #[error("this board does not run from a card's image")]
    NoImage,
    /// The slot is too small.
    #[error(
        "the root has {needs} bytes and its partition {has}: build the image with less, or flash the card anew with --spare-mib"
    )]
    TooLarge {
        /// Length of the root.
        needs: u64,
        /// Length of the partition.
        has: u64,
    },
    /// The boot entry names no slot.
    #[error("the bundle's boot entry has no place for the slot: build it with this release")]
    BadEntry,
    /// The medium.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
