//! What a bundle holds, whom it is for, and how the door is to try it.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{BundleError, CHUNK_BYTES, FORMAT, MAX_SECTION};
use crate::embedding::ModelBinding;
use crate::score::Threshold;
use crate::time::UnixMs;

/// Most sections of a bundle.
pub const MAX_SECTIONS: usize = 16;

/// The signed list of everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u16,
    /// What people call it.
    pub name: heapless::String<48>,
    /// Rollback counter: a door takes only more than it has confirmed.
    pub counter: u64,
    /// When it was built.
    pub created: UnixMs,
    /// From when on it is no longer taken; `None` for never.
    pub expires: Option<UnixMs>,
    /// The oldest program that can use it.
    pub min_firmware: Version,
    /// Boards it is for; empty for every board.
    pub boards: Vec<heapless::String<32>>,
    /// Names of everything the program must be able to compute: alignment, template quantization, network families.
    pub contracts: Vec<heapless::String<48>>,
    /// The detector's name in the models' list.
    pub detector: heapless::String<64>,
    /// The embedder's name in the models' list.
    pub embedder: heapless::String<64>,
    /// What this embedder's templates are bound to.
    pub binding: ModelBinding,
    /// Older models whose templates remain valid for this one.
    pub compatible: Vec<Compatible>,
    /// The least similarity that counts as the same person.
    pub threshold: Threshold,
    /// How the door tries it.
    pub trial: Trial,
    /// The files, in the order in which they lie in the bundle.
    pub sections: Vec<Section>,
}

/// An older model whose templates the new one was trained to understand (Shen et al. 2020, "Towards Backward-Compatible Representation
/// Learning": old gallery, new probe).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compatible {
    /// The older model.
    pub binding: ModelBinding,
    /// True-accept rate that is lost against templates of the new model, measured at the bundle's threshold; 0 to 1.
    pub tar_cost: f32,
}

/// What the new models must show before they stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// How long the trial lasts, in seconds.
    pub seconds: u32,
    /// So many starts during the trial are too many: the door rolls back at the next one.
    pub max_starts: u8,
    /// The 95th percentile of detect + align + embed, in microseconds, that the board must keep.
    pub max_p95_us: u32,
    /// How much larger the share of rejected probes of enrolled people may become, in thousandths.
    pub max_rejection_rise: u16,
}

/// A program's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version(pub u16, pub u16, pub u16);

impl core::fmt::Display for Version {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl core::str::FromStr for Version {
    type Err = BundleError;
    fn from_str(text: &str) -> Result<Self, BundleError> {
        let mut parts = text.split('.').map(str::parse);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(a)), Some(Ok(b)), Some(Ok(c)), None) => Ok(Self(a, b, c)),
            _ => Err(BundleError::Malformed { what: "a version is three numbers, as in 0.1.0" }),
        }
    }
}

/// One file of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// What it is.
    pub kind: SectionKind,
    /// Its file name: letters, digits, `-`, `_`, `.`; begins with a letter or digit.
    pub name: heapless::String<64>,
    /// Its length in bytes.
    pub length: u32,
    /// SHA-256 of each chunk of [`CHUNK_BYTES`].
    pub chunks: Vec<[u8; 32]>,
}

/// What a section is. The order is the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum SectionKind {
    /// The models' list, as the vision module reads it; threshold tables lie in it.
    Models,
    /// One network.
    Network,
    /// Postcard of [`SelfTest`](super::SelfTest).
    SelfTest,
    /// For people: a card, a licence.
    Document,
    /// A root file system with its dm-verity tree, as it lies in a root partition.
    Root,
    /// The kernel that boots it.
    Kernel,
    /// The first file system of that kernel.
    Initrd,
    /// The boot loader's entry for them, with [`SLOT_MARK`] and [`NUMBER_MARK`] where the board fills in its own.
    Entry,
}

/// What a bundle brings. One bundle brings one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// Models; the program stays.
    Models,
    /// The whole system of a card's image: kernel, programs, and the models that come with them.
    System,
}

/// Stands in a boot entry where the slot's letter belongs.
pub const SLOT_MARK: &str = "@SLOT@";
/// Stands in a boot entry where its number belongs: the boot loader takes the highest that has tries left.
pub const NUMBER_MARK: &str = "@NUMBER@";

/// What a bundle is held against: the door, as it is now.
#[derive(Clone, Copy, Debug)]
pub struct Platform<'a> {
    /// The running program.
    pub firmware: Version,
    /// What the board is called.
    pub board: &'a str,
    /// Everything this program can compute.
    pub contracts: &'a [&'a str],
    /// The highest rollback counter of models that was confirmed here.
    pub counter_floor: u64,
    /// The card's image that the program runs from; `None` where it was installed otherwise, and bundles bring models only.
    pub system: Option<SystemPlatform<'a>>,
    /// Present time.
    pub now: UnixMs,
}

/// A card's image, as bundles of systems are held against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemPlatform<'a> {
    /// The board that the image was made for.
    pub board: &'a str,
    /// The highest rollback counter of systems that was confirmed here.
    pub counter_floor: u64,
}

impl Manifest {
    /// The manifest of `bytes`, checked for contradictions but for no signature.
    ///
    /// # Errors
    /// [`BundleError::Malformed`], [`BundleError::Format`].
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        let malformed = |what| BundleError::Malformed { what };
        let (manifest, rest) =
            postcard::take_from_bytes::<Self>(bytes).map_err(|_| malformed("the manifest is not one"))?;
        if manifest.format != FORMAT {
            return Err(BundleError::Format { actual: manifest.format });
        }
        if !rest.is_empty() {
            return Err(malformed("there are bytes behind the manifest"));
        }
        manifest.check()?;
        Ok(manifest)
    }

    /// Whether this bundle may be used by the door that `platform` describes.
    ///
    /// # Errors
    /// [`BundleError`], the first thing that does not fit.
    pub fn fits(&self, platform: &Platform<'_>) -> Result<(), BundleError> {
        let (board, floor) = match (self.content(), platform.system) {
            (Content::Models, _) => (platform.board, platform.counter_floor),
            (Content::System, Some(system)) => (system.board, system.counter_floor),
            (Content::System, None) => return Err(BundleError::NoSystemSlots),
        };
        if !self.boards.is_empty() && !self.boards.iter().any(|name| name == board) {
            return Err(BundleError::OtherBoard);
        }
        if platform.firmware < self.min_firmware {
            return Err(BundleError::OldFirmware { needs: self.min_firmware, has: platform.firmware });
        }
        if self.contracts.iter().any(|name| !platform.contracts.contains(&name.as_str())) {
            return Err(BundleError::UnknownContract);
        }
        if self.counter <= floor {
            return Err(BundleError::OldCounter { counter: self.counter, floor });
        }
        if let Some(at) = self.expires.filter(|&at| platform.now >= at) {
            return Err(BundleError::Expired { at });
        }
        // Without this, a door whose clock stands in the past would take what expired long ago.
        if platform.now.0.saturating_add(CLOCK_SLACK_MS) < self.created.0 {
            return Err(BundleError::ClockBehind { created: self.created });
        }
        Ok(())
    }

    /// What it brings.
    #[must_use]
    pub fn content(&self) -> Content {
        if self.sections.iter().any(|section| SYSTEM.contains(&section.kind)) {
            Content::System
        } else {
            Content::Models
        }
    }

    /// Bytes of all sections.
    #[must_use]
    pub fn content_bytes(&self) -> u64 {
        self.sections.iter().map(|section| u64::from(section.length)).sum()
    }

    /// The only section of `kind`.
    #[must_use]
    pub fn section(&self, kind: SectionKind) -> Option<(u16, &Section)> {
        // At most MAX_SECTIONS.
        self.sections.iter().position(|s| s.kind == kind).map(|at| (at as u16, &self.sections[at]))
    }

    /// Whether `bytes` are chunk number `chunk` of section number `section`.
    ///
    /// # Errors
    /// [`BundleError::NoSuchChunk`], [`BundleError::BadChunk`].
    pub fn check_chunk(&self, section: u16, chunk: u32, bytes: &[u8]) -> Result<(), BundleError> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let none = BundleError::NoSuchChunk { section, chunk, bytes: length };
        let listed = self.sections.get(usize::from(section)).ok_or(none)?;
        let hash = listed.chunks.get(chunk as usize).ok_or(none)?;
        if listed.chunk_length(chunk) != Some(bytes.len()) {
            return Err(none);
        }
        let actual: [u8; 32] = Sha256::digest(bytes).into();
        if actual != *hash {
            return Err(BundleError::BadChunk { section, chunk });
        }
        Ok(())
    }

    fn check(&self) -> Result<(), BundleError> {
        let bad = |what| Err(BundleError::Malformed { what });
        if self.sections.is_empty() || self.sections.len() > MAX_SECTIONS {
            return bad("it has no section, or more than 16");
        }
        if self.boards.len() > 16 || self.contracts.len() > 32 || self.compatible.len() > 8 {
            return bad("a list is longer than it may be");
        }
        if !self.threshold.0.is_finite() || !(0.0..1.0).contains(&self.threshold.0) {
            return bad("its threshold is not from 0 to 1");
        }
        if self.compatible.iter().any(|c| !(0.0..=1.0).contains(&c.tar_cost) || c.binding == self.binding) {
            return bad("a compatible model's cost is not from 0 to 1, or it is the model itself");
        }
        if self.trial.max_starts == 0 {
            return bad("its trial allows no start");
        }
        for (at, section) in self.sections.iter().enumerate() {
            section.check()?;
            if self.sections[..at].iter().any(|other| other.name == section.name) {
                return bad("two sections have one name");
            }
        }
        self.check_content()
    }

    fn check_content(&self) -> Result<(), BundleError> {
        let bad = |what| Err(BundleError::Malformed { what });
        let count = |kind| self.sections.iter().filter(|section| section.kind == kind).count();
        match self.content() {
            Content::Models if MODELS.iter().any(|&kind| count(kind) != 1) => {
                bad("it needs one list of models and one self-test")
            }
            Content::System if SYSTEM.iter().any(|&kind| count(kind) != 1) => {
                bad("a system needs one root, one kernel, one initrd and one boot entry")
            }
            Content::System
                if count(SectionKind::Network) > 0 || MODELS.iter().any(|&kind| count(kind) > 0) =>
            {
                bad("it brings models and a system: a bundle brings one of them")
            }
            Content::System if self.boards.is_empty() => bad("a system is for boards: it names none"),
            Content::System | Content::Models => Ok(()),
        }
    }
}

const MODELS: [SectionKind; 2] = [SectionKind::Models, SectionKind::SelfTest];
const SYSTEM: [SectionKind; 4] =
    [SectionKind::Root, SectionKind::Kernel, SectionKind::Initrd, SectionKind::Entry];

impl Section {
    /// The section of these bytes.
    ///
    /// # Errors
    /// [`BundleError::Malformed`] for a name that is no plain file name, or for too many bytes.
    pub fn of(kind: SectionKind, name: &str, bytes: &[u8]) -> Result<Self, BundleError> {
        let section = Self {
            kind,
            name: heapless::String::try_from(name)
                .map_err(|_| BundleError::Malformed { what: "a section's name is too long" })?,
            length: u32::try_from(bytes.len())
                .map_err(|_| BundleError::Malformed { what: "a section is too long" })?,
            chunks: bytes.chunks(CHUNK_BYTES).map(|chunk| Sha256::digest(chunk).into()).collect(),
        };
        section.check()?;
        Ok(section)
    }

    /// How long chunk number `chunk` is; `None` when there is none.
    #[must_use]
    pub fn chunk_length(&self, chunk: u32) -> Option<usize> {
        let from = (chunk as usize).checked_mul(CHUNK_BYTES)?;
        let left = (self.length as usize).checked_sub(from).filter(|&left| left > 0)?;
        Some(left.min(CHUNK_BYTES))
    }

    fn check(&self) -> Result<(), BundleError> {
        let bad = |what| Err(BundleError::Malformed { what });
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        // Doors keep files of their own beside these, under names that begin otherwise.
        if !self.name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !self.name.chars().all(plain) {
            return bad("a section's name is no plain file name");
        }
        if self.length == 0 || self.length > MAX_SECTION {
            return bad("a section is empty or too long");
        }
        if self.chunks.len() != (self.length as usize).div_ceil(CHUNK_BYTES) {
            return bad("a section's chunks do not make its length");
        }
        Ok(())
    }
}

/// Clocks of workstation and door may differ by a day.
const CLOCK_SLACK_MS: i64 = 24 * 3600 * 1000;
