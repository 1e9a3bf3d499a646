//! A model folder and photographs to a bundle.

use std::path::{Path, PathBuf};
use std::time::Instant;

use facelatch_shared::align::CHIP_BYTES;
use facelatch_shared::bundle::{
    Accepted, BundleError, Compatible, Content, Draft, FORMAT, Manifest, Platform, SectionKind, SelfTest,
    SelfTestFault, SelfTestReport, SignedRoot, Sink, Stream, SystemPlatform, Trial, Trust, Version,
};
use facelatch_shared::embedding::ModelBinding;
use facelatch_shared::quality::Gate;
use facelatch_shared::score::Threshold;
use facelatch_shared::time::UnixMs;
use facelatch_shared::vision::compat::{CONTRACTS, contracts};
use facelatch_shared::vision::contract::{MANIFEST_FILE, ModelKind};
use facelatch_shared::vision::{Eyes, ManifestError, VisionError};
use thiserror::Error;

use super::probes::{self, PairCount};

/// What to put together.
#[derive(Clone, Debug)]
pub struct BuildJob<'a> {
    /// Folder with `manifest.toml` and the networks.
    pub models: &'a Path,
    /// The detector's name.
    pub detector: &'a str,
    /// The embedder's name.
    pub embedder: &'a str,
    /// Folder with one sub-folder of photographs a person, for the self-test.
    pub probes: &'a Path,
    /// Photographs of each.
    pub per_person: usize,
    /// What people call the bundle.
    pub name: &'a str,
    /// Rollback counter.
    pub counter: u64,
    /// Now.
    pub created: UnixMs,
    /// When it expires.
    pub expires: Option<UnixMs>,
    /// The oldest program that may use it.
    pub min_firmware: Version,
    /// Boards; none for all.
    pub boards: &'a [String],
    /// Instead of the embedder's own.
    pub threshold: Option<f32>,
    /// How it is tried.
    pub trial: Trial,
    /// Older models whose templates stay valid, with what that costs.
    pub compatible: &'a [(ModelBinding, f32)],
    /// Root documents, oldest first.
    pub roots: Vec<SignedRoot>,
}

/// What was made.
#[derive(Debug)]
pub struct Built {
    /// Not yet signed.
    pub draft: Draft,
    /// What it says.
    pub manifest: Manifest,
    /// Chips in the self-test.
    pub probes: usize,
    /// Its pairs.
    pub pairs: PairCount,
}

impl BuildJob<'_> {
    /// Loads the models, cuts the self-test's chips and lists everything.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn build(self) -> Result<Built, BuildError> {
        let list = facelatch_shared::vision::Manifest::load(self.models)?;
        let detector = list.find(self.models, self.detector, ModelKind::Detector)?.clone();
        let embedder = list.find(self.models, self.embedder, ModelKind::Embedder)?.clone();
        let mut needs = [contracts(&detector), contracts(&embedder)].concat();
        needs.sort();
        needs.dedup();
        let size = (detector.contract.width_px, detector.contract.height_px);
        let mut eyes = Eyes::load(self.models, self.detector, self.embedder, Gate::OPEN, size)?;
        let threshold = self
            .threshold
            .or(embedder.default_threshold)
            .map(Threshold)
            .ok_or_else(|| BuildError::NoThreshold { embedder: embedder.name.clone() })?;
        let faces = probes::faces(self.probes, self.per_person, &mut eyes)?;
        let (self_test, pairs) = probes::self_test(&faces, threshold)?;
        let test_bytes = postcard::to_stdvec(&self_test)
            .map_err(|_| BuildError::Probes { what: "the self-test cannot be encoded".into() })?;
        let listed = facelatch_shared::vision::Manifest { models: vec![detector.clone(), embedder.clone()] };
        let list_text = toml::to_string_pretty(&listed)
            .map_err(|e| BuildError::Probes { what: format!("the list of models cannot be written: {e}") })?;
        let read = |name: &str| {
            let path = self.models.join(name);
            std::fs::read(&path).map_err(|source| BuildError::Read { path, source })
        };
        let (detector_net, embedder_net) = (read(&detector.file)?, read(&embedder.file)?);
        let manifest = Manifest {
            format: FORMAT,
            name: short("the bundle's name", self.name)?,
            counter: self.counter,
            created: self.created,
            expires: self.expires,
            min_firmware: self.min_firmware,
            boards: self.boards.iter().map(|b| short("a board's name", b)).collect::<Result<_, _>>()?,
            contracts: needs.iter().map(|n| short("a contract's name", n)).collect::<Result<_, _>>()?,
            detector: short("the detector's name", self.detector)?,
            embedder: short("the embedder's name", self.embedder)?,
            binding: eyes.binding(),
            compatible: self
                .compatible
                .iter()
                .map(|&(binding, tar_cost)| Compatible { binding, tar_cost })
                .collect(),
            threshold,
            trial: self.trial,
            sections: Vec::new(),
        };
        let files: [(SectionKind, &str, &[u8]); 4] = [
            (SectionKind::Models, MANIFEST_FILE, list_text.as_bytes()),
            (SectionKind::SelfTest, SELF_TEST_FILE, &test_bytes),
            (SectionKind::Network, &detector.file, &detector_net),
            (SectionKind::Network, &embedder.file, &embedder_net),
        ];
        let draft = Draft::new(manifest, &files, self.roots)?;
        let manifest = Manifest::parse(&draft.header().manifest)?;
        Ok(Built { draft, manifest, probes: faces.len(), pairs })
    }
}

/// What a whole check of a file measured.
#[derive(Debug)]
pub struct Checked {
    /// The judged header.
    pub accepted: Accepted,
    /// The self-test's outcome; `None` for a system, which has none.
    pub self_test: Option<SelfTestReport>,
    /// Time of one embedding on this machine, in microseconds.
    pub embed_us: u32,
}

/// Reads `file` as a door does, into a temporary folder, loads its models and runs its self-test.
///
/// # Errors
/// [`BuildError`].
pub fn check_file(file: &Path, trust: &Trust, platform: Platform<'_>) -> Result<Checked, BuildError> {
    use std::io::Read as _;
    let failed = |source| BuildError::Read { path: file.into(), source };
    let folder = TempFolder::new().map_err(failed)?;
    let mut sink = Unpack { folder: &folder.0, accepted: None };
    let mut stream = Stream::new(trust, platform);
    let mut input = std::fs::File::open(file).map_err(failed)?;
    let mut piece = vec![0; 1 << 16];
    loop {
        match input.read(&mut piece).map_err(failed)? {
            0 => break,
            count => stream.feed(&piece[..count], &mut sink)?,
        }
    }
    stream.finish()?;
    let accepted = sink.accepted.ok_or(BundleError::NotABundle)?;
    let manifest = &accepted.manifest;
    if manifest.content() == Content::System {
        return Ok(Checked { accepted, self_test: None, embed_us: 0 });
    }
    let list = facelatch_shared::vision::Manifest::load(&folder.0)?;
    let detector = list.find(&folder.0, &manifest.detector, ModelKind::Detector)?;
    let size = (detector.contract.width_px, detector.contract.height_px);
    let mut eyes = Eyes::load(&folder.0, &manifest.detector, &manifest.embedder, Gate::OPEN, size)?;
    if eyes.binding() != manifest.binding {
        return Err(BundleError::Section { what: "embedder" }.into());
    }
    let bytes = std::fs::read(folder.0.join(SELF_TEST_FILE)).map_err(failed)?;
    let test = SelfTest::parse(&bytes)?;
    let started = Instant::now();
    let self_test = test.run(manifest.threshold, |chip: &[u8; CHIP_BYTES]| eyes.embed_chip(chip).ok())?;
    let each = started.elapsed() / u32::try_from(test.probes.len().max(1)).unwrap_or(u32::MAX);
    let embed_us = u32::try_from(each.as_micros()).unwrap_or(u32::MAX);
    Ok(Checked { self_test: Some(self_test), embed_us, accepted })
}

struct Unpack<'a> {
    folder: &'a Path,
    accepted: Option<Accepted>,
}

impl Sink for Unpack<'_> {
    type Error = BuildError;

    fn header(&mut self, accepted: &Accepted) -> Result<(), BuildError> {
        self.accepted = Some(accepted.clone());
        Ok(())
    }

    fn chunk(&mut self, section: u16, _chunk: u32, bytes: &[u8]) -> Result<(), BuildError> {
        use std::io::Write as _;
        let Some(accepted) = &self.accepted else { return Err(BundleError::NotABundle.into()) };
        let path = self.folder.join(accepted.manifest.sections[usize::from(section)].name.as_str());
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(bytes))
            .map_err(|source| BuildError::Read { path, source })
    }
}

/// Removed when dropped.
struct TempFolder(PathBuf);

impl TempFolder {
    fn new() -> std::io::Result<Self> {
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(|e| std::io::Error::other(e.to_string()))?;
        let path = std::env::temp_dir().join(format!("facelatch-bundle-{}", hex::encode(name)));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        // Left-overs in the temporary folder harm nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The workstation as a door: everything this release can compute, no counter yet.
#[must_use]
pub fn this_release<'a>(board: &'a str, counter_floor: u64, now: UnixMs) -> Platform<'a> {
    let firmware = env!("CARGO_PKG_VERSION").parse().unwrap_or(Version(0, 0, 0));
    let system = Some(SystemPlatform { board, counter_floor });
    Platform { firmware, board, contracts: CONTRACTS, counter_floor, system, now }
}

pub(super) fn short<const N: usize>(
    what: &'static str,
    text: &str,
) -> Result<heapless::String<N>, BuildError> {
    heapless::String::try_from(text).map_err(|_| BuildError::TooLong { what, bytes: text.len(), most: N })
}

/// Where the self-test lies in a slot.
pub const SELF_TEST_FILE: &str = "selftest.postcard";

/// Why a bundle cannot be made or does not hold.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Refused as a door would.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The self-test failed on this machine.
    #[error(transparent)]
    SelfTest(#[from] SelfTestFault),
    /// The models.
    #[error(transparent)]
    Vision(#[from] VisionError),
    /// The list of models.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The photographs do not make a self-test.
    #[error("no self-test: {what}")]
    Probes {
        /// What is wrong.
        what: String,
    },
    /// No threshold anywhere.
    #[error("{embedder} has no threshold in its manifest: give one with --threshold")]
    NoThreshold {
        /// The embedder.
        embedder: String,
    },
    /// A text that does not fit.
    #[error("{what} has {bytes} bytes, at most {most} fit")]
    TooLong {
        /// What.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The bound.
        most: usize,
    },
    /// Not a picture.
    #[error("{}: {what}", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Nobody on it.
    #[error("{}: no face found; take it out, or use a larger picture", path.display())]
    NoFace {
        /// The file.
        path: PathBuf,
    },
    /// A file or folder.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl BuildError {
    /// Whether a verification refused it, rather than that it could not be done.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Bundle(_) | Self::SelfTest(_) | Self::Probes { .. })
    }
}
