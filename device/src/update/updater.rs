//! The update's state machine over a [`SlotStore`].

use std::io;
use std::path::PathBuf;

use facelatch_shared::bundle::{
    Accepted, BundleError, BundleId, CHUNK_BYTES, MAX_HEADER, Manifest, Platform, SectionKind, SignedRoot,
    Trust, Version, judge,
};
use facelatch_shared::embedding::ModelBinding;
use facelatch_shared::time::UnixMs;
use facelatch_shared::vision::compat::CONTRACTS;
use thiserror::Error;

use super::record::{Outcome, Phase, Record, Source, Trying};
use super::slots::{Slot, SlotStore};
use crate::system::Image;

/// Receives bundles and decides which models the door uses.
pub struct Updater {
    slots: Box<dyn SlotStore>,
    record: Record,
    board: String,
    /// The card's image that the door runs from.
    image: Option<Image>,
    /// A header of which not everything has come.
    partial: Vec<u8>,
    /// The bundle that the record says is being received or staged, once its header was judged again.
    incoming: Option<Incoming>,
}

struct Incoming {
    slot: Slot,
    accepted: Accepted,
    /// The first chunk that is missing; `None` when all are there.
    next: Option<(u16, u32)>,
}

/// What a start found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boot {
    /// Nothing special.
    Normal,
    /// A trial goes on.
    Trying(Trying),
    /// The trial's program was started too often; the former models are back.
    RolledBack,
    /// The record was lost: the factory's models are used, and the door must be paired again before it takes bundles.
    RecordLost,
}

/// How far a bundle has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The bundle; `None` while its header is still coming.
    pub id: Option<BundleId>,
    /// Bytes of the header, or of the contents, that are here.
    pub received: u64,
    /// Of so many.
    pub total: u64,
    /// The chunk that is wanted next; `None` when everything is here or the header is not.
    pub next: Option<(u16, u32)>,
    /// Whether it may be activated.
    pub staged: bool,
}

impl Updater {
    /// Opens the slots of a door whose board is called `board`, and counts this start if a trial is under way.
    ///
    /// # Errors
    /// The system's error.
    pub fn open(mut slots: Box<dyn SlotStore>, board: &str) -> io::Result<(Self, Boot)> {
        let stored = slots.load_record()?;
        let decoded = Record::decode(&stored);
        let lost = decoded.is_none();
        let mut updater = Self {
            slots,
            record: decoded.unwrap_or_default(),
            board: board.to_owned(),
            image: None,
            partial: Vec::new(),
            incoming: None,
        };
        if lost {
            updater.replace(Record::default())?;
            return Ok((updater, Boot::RecordLost));
        }
        let Phase::Trial(mut trying) = updater.record.phase else { return Ok((updater, Boot::Normal)) };
        trying.starts = trying.starts.saturating_add(1);
        let mut next = updater.record.clone();
        if trying.starts > trying.max_starts {
            next.go_back(Outcome::Crashed);
            updater.replace(next)?;
            return Ok((updater, Boot::RolledBack));
        }
        next.phase = Phase::Trial(trying);
        updater.replace(next)?;
        Ok((updater, Boot::Trying(trying)))
    }

    /// Looks at the slots without counting a start and without changing anything: for checks beside the door.
    ///
    /// # Errors
    /// The system's error.
    pub fn look(mut slots: Box<dyn SlotStore>, board: &str) -> io::Result<Self> {
        let record = Record::decode(&slots.load_record()?).unwrap_or_default();
        Ok(Self { slots, record, board: board.to_owned(), image: None, partial: Vec::new(), incoming: None })
    }

    /// Takes systems too, for the image that the door runs from.
    #[must_use]
    pub fn on_image(mut self, image: Option<Image>) -> Self {
        self.image = image;
        self
    }

    /// The image that the door runs from.
    #[must_use]
    pub const fn image(&self) -> Option<&Image> {
        self.image.as_ref()
    }

    /// The image, looked at anew.
    pub fn set_image(&mut self, image: Option<Image>) {
        self.image = image;
    }

    /// The record as it is stored.
    #[must_use]
    pub const fn record(&self) -> &Record {
        &self.record
    }

    /// The folder of the models in use; `None` for the factory's.
    #[must_use]
    pub fn active_folder(&self) -> Option<PathBuf> {
        self.folder_of(self.record.active())
    }

    /// Where the models in use, and those that the door can go back to, lie and come from; the header of each is read from its slot.
    ///
    /// # Errors
    /// [`UpdateError`] when a header cannot be read.
    pub fn manifest_of(&mut self, source: Source) -> Result<Option<Manifest>, UpdateError> {
        let Source::Slot(slot) = source else { return Ok(None) };
        let bytes = self.stored_header(slot)?;
        let header = facelatch_shared::bundle::Header::parse(&bytes)?;
        Ok(Some(Manifest::parse(&header.manifest)?))
    }

    /// The folder of `source`; `None` for the factory's, and for slots that are no files.
    #[must_use]
    pub fn folder_of(&self, source: Source) -> Option<PathBuf> {
        match source {
            Source::Factory => None,
            Source::Slot(slot) => self.slots.folder(slot),
        }
    }

    /// Reads what a slot in use holds, from the first byte to the last, and compares it with what was signed.
    ///
    /// # Errors
    /// [`UpdateError`]: the slot holds something else than the record says, or is damaged.
    pub fn check_active(&mut self) -> Result<(), UpdateError> {
        let Source::Slot(slot) = self.record.active() else { return Ok(()) };
        let header = self.stored_header(slot)?;
        if self.record.active_id != Some(BundleId::of(&header)) {
            return Err(BundleError::Malformed { what: "its header is another bundle's" }.into());
        }
        let manifest = self.active_manifest()?.ok_or(UpdateError::NothingStaged)?;
        match self.first_missing(slot, &manifest)? {
            Some((section, chunk)) => Err(BundleError::BadChunk { section, chunk }.into()),
            None => Ok(()),
        }
    }

    /// A section of the slot in use; empty for the factory's models.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub fn active_section(&mut self, kind: SectionKind) -> Result<Vec<u8>, UpdateError> {
        let Source::Slot(slot) = self.record.active() else { return Ok(Vec::new()) };
        let manifest = self.active_manifest()?.ok_or(UpdateError::NothingStaged)?;
        self.section_of(slot, &manifest, kind)
    }

    /// Goes on with bundle `id`, whose header is here already: its length, and how far it has come. `None` when another one is here, or none.
    ///
    /// # Errors
    /// [`UpdateError`]: it is in use, a trial is under way, or its header is refused by now.
    pub fn resume(&mut self, id: BundleId, now: UnixMs) -> Result<Option<(usize, Progress)>, UpdateError> {
        if let Phase::Trial(_) = self.record.phase {
            return Err(UpdateError::TrialUnderWay);
        }
        if self.record.active_id == Some(id) {
            return Err(UpdateError::AlreadyActive);
        }
        let (Phase::Receiving(slot, known) | Phase::Staged(slot, known)) = self.record.phase else {
            return Ok(None);
        };
        // The power may have gone between the record and the header.
        let header = self.stored_header(slot)?;
        if known != id || BundleId::of(&header) != id {
            return Ok(None);
        }
        let progress = self.begin(&header, now)?;
        Ok(Some((header.len(), progress)))
    }

    /// The length of the chunk that is wanted next.
    #[must_use]
    pub fn next_length(&self) -> Option<usize> {
        let incoming = self.incoming.as_ref()?;
        let (section, chunk) = incoming.next?;
        incoming.accepted.manifest.sections.get(usize::from(section))?.chunk_length(chunk)
    }

    /// The models in use are of no use: back to the former ones, or to the factory's where there are none.
    ///
    /// # Errors
    /// The record cannot be stored.
    pub fn give_up(&mut self, why: Outcome) -> Result<Source, UpdateError> {
        let mut next = self.record.clone();
        if !next.go_back(why) {
            next.to_factory(why);
        }
        self.replace(next)?;
        self.incoming = None;
        Ok(self.record.active())
    }

    /// What a slot in use was made from, read from its stored header; `None` for the factory's models.
    ///
    /// # Errors
    /// [`UpdateError`] when the header cannot be read.
    pub fn active_manifest(&mut self) -> Result<Option<Manifest>, UpdateError> {
        self.manifest_of(self.record.active())
    }

    /// Trusts `root` from now on: at pairing, with someone present at the door.
    ///
    /// # Errors
    /// [`UpdateError`] when it is not signed by its own keys, or the record cannot be stored.
    pub fn set_root(&mut self, root: SignedRoot) -> Result<(), UpdateError> {
        let trust = match self.record.root.clone() {
            // Once there is one, only its keys name the next.
            Some(known) => Trust::begin(known)?.follow(&[root])?,
            None => Trust::begin(root)?,
        };
        let mut next = self.record.clone();
        next.root = Some(trust.signed().clone());
        Ok(self.replace(next)?)
    }

    /// Takes a piece of a header; judges it when all has come. A bundle that was half received goes on where it was.
    ///
    /// # Errors
    /// [`UpdateError`]; nothing is stored of a bundle that is refused.
    pub fn header(
        &mut self,
        total: u32,
        offset: u32,
        bytes: &[u8],
        now: UnixMs,
    ) -> Result<Progress, UpdateError> {
        if total as usize > MAX_HEADER {
            return Err(BundleError::HeaderTooLong { bytes: total }.into());
        }
        if offset == 0 {
            self.partial = Vec::new();
        }
        if offset as usize != self.partial.len() || self.partial.len() + bytes.len() > total as usize {
            self.partial = Vec::new();
            return Err(UpdateError::OutOfOrder { section: None, next: 0 });
        }
        self.partial.extend_from_slice(bytes);
        if self.partial.len() < total as usize {
            let received = self.partial.len() as u64;
            return Ok(Progress { id: None, received, total: u64::from(total), next: None, staged: false });
        }
        let header = std::mem::take(&mut self.partial);
        self.begin(&header, now)
    }

    /// Takes the chunk that is wanted next; one that is here already is passed over.
    ///
    /// # Errors
    /// [`UpdateError`]; only verified bytes are written.
    pub fn chunk(&mut self, section: u16, chunk: u32, bytes: &[u8]) -> Result<Progress, UpdateError> {
        let incoming = self.incoming.as_mut().ok_or(UpdateError::NoHeader)?;
        let Some(next) = incoming.next else { return Ok(self.progress()) };
        if (section, chunk) < next {
            return Ok(self.progress());
        }
        if (section, chunk) != next {
            return Err(UpdateError::OutOfOrder { section: Some(next.0), next: next.1 });
        }
        let manifest = &incoming.accepted.manifest;
        manifest.check_chunk(section, chunk, bytes)?;
        let listed = &manifest.sections[usize::from(section)];
        let at = u64::from(chunk) * CHUNK_BYTES as u64;
        self.slots.write(incoming.slot, &listed.name, at, bytes)?;
        incoming.next = if listed.chunk_length(chunk + 1).is_some() {
            Some((section, chunk + 1))
        } else {
            self.slots.sync(incoming.slot, &listed.name)?;
            Some((section + 1, 0)).filter(|_| usize::from(section) + 1 < manifest.sections.len())
        };
        if incoming.next.is_none() {
            self.stage()?;
        }
        Ok(self.progress())
    }

    /// How far the bundle has come that is being received.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let Some(Incoming { accepted, next, .. }) = &self.incoming else {
            return Progress { id: None, received: 0, total: 0, next: None, staged: false };
        };
        let sections = &accepted.manifest.sections;
        let total = accepted.manifest.content_bytes();
        let received = next.map_or(total, |(section, chunk)| {
            let whole: u64 = sections[..usize::from(section)].iter().map(|s| u64::from(s.length)).sum();
            whole + u64::from(chunk) * CHUNK_BYTES as u64
        });
        Progress { id: Some(accepted.id), received, total, next: *next, staged: self.is_staged() }
    }

    /// The staged bundle's manifest and its folder, judged again at `now` and verified from the first byte to the last.
    ///
    /// # Errors
    /// [`UpdateError::NothingStaged`], or what is wrong by now.
    pub fn staged(&mut self, now: UnixMs) -> Result<(Manifest, Option<PathBuf>), UpdateError> {
        let Phase::Staged(slot, id) = self.record.phase else { return Err(UpdateError::NothingStaged) };
        let accepted = self.judge_stored(slot, id, now)?;
        let next = self.first_missing(slot, &accepted.manifest)?;
        if let Some((section, chunk)) = next {
            self.incoming = Some(Incoming { slot, accepted, next });
            let mut record = self.record.clone();
            record.phase = Phase::Receiving(slot, id);
            self.replace(record)?;
            return Err(BundleError::BadChunk { section, chunk }.into());
        }
        let manifest = accepted.manifest.clone();
        self.incoming = Some(Incoming { slot, accepted, next: None });
        Ok((manifest, self.slots.folder(slot)))
    }

    /// The staged bundle's only section of `kind`.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub fn staged_section(&mut self, kind: SectionKind) -> Result<Vec<u8>, UpdateError> {
        let incoming =
            self.incoming.as_ref().filter(|i| i.next.is_none()).ok_or(UpdateError::NothingStaged)?;
        let (slot, manifest) = (incoming.slot, incoming.accepted.manifest.clone());
        self.section_of(slot, &manifest, kind)
    }

    /// From here on the staged models are used, on trial. The gallery must be ready for them.
    ///
    /// # Errors
    /// [`UpdateError`]; the former models stay in use then.
    pub fn activate(&mut self, now: UnixMs) -> Result<Trying, UpdateError> {
        let Phase::Staged(slot, id) = self.record.phase else { return Err(UpdateError::NothingStaged) };
        let (manifest, _) = self.staged(now)?;
        let mut next = self.record.clone();
        next.try_out(slot, &manifest, id);
        let Phase::Trial(trying) = next.phase else { return Err(UpdateError::NothingStaged) };
        self.replace(next)?;
        self.incoming = None;
        Ok(trying)
    }

    /// The trial went well: the models stay, and older counters are refused from now on.
    ///
    /// # Errors
    /// [`UpdateError::NoTrial`], or the record cannot be stored: the trial goes on then.
    pub fn confirm(&mut self) -> Result<(), UpdateError> {
        let Phase::Trial(trying) = self.record.phase else { return Err(UpdateError::NoTrial) };
        let mut next = self.record.clone();
        next.confirm(&trying);
        Ok(self.replace(next)?)
    }

    /// Back to the former models: out of a trial, or after it by command.
    ///
    /// # Errors
    /// [`UpdateError::NothingBefore`], or the record cannot be stored.
    pub fn roll_back(&mut self, why: Outcome) -> Result<Source, UpdateError> {
        let mut next = self.record.clone();
        if !next.go_back(why) {
            return Err(UpdateError::NothingBefore);
        }
        self.replace(next)?;
        self.incoming = None;
        Ok(self.record.active())
    }

    /// Forgets what was received and not activated.
    ///
    /// # Errors
    /// The system's error.
    pub fn discard(&mut self) -> Result<(), UpdateError> {
        let (Phase::Receiving(slot, _) | Phase::Staged(slot, _)) = self.record.phase else { return Ok(()) };
        let mut next = self.record.clone();
        next.phase = Phase::Idle;
        self.replace(next)?;
        self.incoming = None;
        Ok(self.slots.clear(slot)?)
    }

    /// Bindings that the active models understand beside their own.
    #[must_use]
    pub fn compatible(&self) -> &[ModelBinding] {
        &self.record.compatible
    }

    fn section_of(
        &mut self,
        slot: Slot,
        manifest: &Manifest,
        kind: SectionKind,
    ) -> Result<Vec<u8>, UpdateError> {
        let (_, section) = manifest.section(kind).ok_or(BundleError::Section { what: "section" })?;
        let mut bytes = vec![0; section.length as usize];
        let read = self.slots.read(slot, &section.name, 0, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    fn begin(&mut self, header: &[u8], now: UnixMs) -> Result<Progress, UpdateError> {
        let accepted = self.judge(header, now)?;
        if self.record.active_id == Some(accepted.id) {
            return Err(UpdateError::AlreadyActive);
        }
        let slot = match self.record.phase {
            Phase::Trial(_) => return Err(UpdateError::TrialUnderWay),
            Phase::Receiving(slot, id) | Phase::Staged(slot, id) if id == accepted.id => slot,
            _ => self.take_slot(&accepted)?,
        };
        if self.stored_header(slot).ok().as_deref() != Some(header) {
            self.slots.clear(slot)?;
            self.slots.write(slot, HEADER, 0, header)?;
            self.slots.sync(slot, HEADER)?;
        }
        let next = self.first_missing(slot, &accepted.manifest)?;
        self.incoming = Some(Incoming { slot, accepted, next });
        if next.is_none() && !self.is_staged() {
            self.stage()?;
        }
        Ok(self.progress())
    }

    /// Says in the record, before anything is removed, that a slot is being filled and nobody can go back to it.
    fn take_slot(&mut self, accepted: &Accepted) -> Result<Slot, UpdateError> {
        let slot = self.record.free_slot();
        let mut next = self.record.clone();
        next.phase = Phase::Receiving(slot, accepted.id);
        next.root = Some(accepted.trust.signed().clone());
        next.previous = next.previous.filter(|former| former.source != Source::Slot(slot));
        self.replace(next)?;
        Ok(slot)
    }

    fn stage(&mut self) -> Result<(), UpdateError> {
        let Some(Incoming { slot, accepted, .. }) = &self.incoming else { return Err(UpdateError::NoHeader) };
        let (slot, id, manifest) = (*slot, accepted.id, accepted.manifest.clone());
        // What the medium gives back counts, not what was sent.
        for section in &manifest.sections {
            self.slots.sync(slot, &section.name)?;
        }
        let next = self.first_missing(slot, &manifest)?;
        if let Some(incoming) = &mut self.incoming {
            incoming.next = next;
        }
        if next.is_some() {
            return Ok(());
        }
        let mut record = self.record.clone();
        record.phase = Phase::Staged(slot, id);
        Ok(self.replace(record)?)
    }

    fn is_staged(&self) -> bool {
        matches!(self.record.phase, Phase::Staged(..))
    }

    /// The first chunk that the medium does not give back as it was signed.
    fn first_missing(&mut self, slot: Slot, manifest: &Manifest) -> io::Result<Option<(u16, u32)>> {
        let mut held = vec![0; CHUNK_BYTES];
        for (section, listed) in manifest.sections.iter().enumerate() {
            let section = section as u16; // at most MAX_SECTIONS
            for chunk in 0..listed.chunks.len() as u32 {
                let length = listed.chunk_length(chunk).unwrap_or_default();
                let at = u64::from(chunk) * CHUNK_BYTES as u64;
                let read = self.slots.read(slot, &listed.name, at, &mut held[..length])?;
                if manifest.check_chunk(section, chunk, &held[..read]).is_err() {
                    return Ok(Some((section, chunk)));
                }
            }
        }
        Ok(None)
    }

    fn judge(&self, header: &[u8], now: UnixMs) -> Result<Accepted, UpdateError> {
        let trust = Trust::begin(self.record.root.clone().ok_or(UpdateError::NoRoot)?)?;
        let platform = Platform {
            firmware: env!("CARGO_PKG_VERSION").parse().unwrap_or(Version(0, 0, 0)),
            board: &self.board,
            contracts: CONTRACTS,
            counter_floor: self.record.counter_floor,
            system: self.image.as_ref().map(Image::platform),
            now,
        };
        Ok(judge(header, &trust, &platform)?)
    }

    fn judge_stored(&mut self, slot: Slot, id: BundleId, now: UnixMs) -> Result<Accepted, UpdateError> {
        let header = self.stored_header(slot)?;
        if BundleId::of(&header) != id {
            return Err(UpdateError::NothingStaged);
        }
        self.judge(&header, now)
    }

    fn stored_header(&mut self, slot: Slot) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; MAX_HEADER];
        let read = self.slots.read(slot, HEADER, 0, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Nothing is believed that is not stored.
    fn replace(&mut self, next: Record) -> io::Result<()> {
        self.slots.replace_record(&next.encode())?;
        self.record = next;
        Ok(())
    }
}

impl std::fmt::Debug for Updater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Updater").field("record", &self.record).finish_non_exhaustive()
    }
}

/// The bundle's header, kept in its slot. No section has this name: theirs begin with a letter or digit.
const HEADER: &str = "_header";

/// Why an update does not go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The bundle is refused.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The slots could not be read or written.
    #[error("the model slots could not be used: {0}")]
    Storage(#[from] io::Error),
    /// Nobody has said whom to trust.
    #[error("this door trusts no root document yet: `facelatchd models trust`")]
    NoRoot,
    /// Chunks came before a header.
    #[error("no bundle is being received: send its header first")]
    NoHeader,
    /// Not the piece that is wanted.
    #[error("another piece is wanted next: number {next} of {}", section.map_or("the header".into(), |s| format!("section {s}")))]
    OutOfOrder {
        /// Of which section; `None` for the header.
        section: Option<u16>,
        /// Which.
        next: u32,
    },
    /// Bytes of another place than the one that is wanted.
    #[error("the bundle goes on at byte {offset} of its file")]
    OutOfPlace {
        /// Where.
        offset: u64,
    },
    /// Longer than any bundle or any piece of one.
    #[error("{bytes} bytes are more than a bundle, or a piece of one, may have")]
    TooLong {
        /// How many.
        bytes: u64,
    },
    /// It is in use already.
    #[error("this bundle is in use already")]
    AlreadyActive,
    /// Nothing may change during a trial.
    #[error("a trial is under way: confirm it, roll it back, or wait for its end")]
    TrialUnderWay,
    /// There is nothing to activate.
    #[error("no bundle is staged: push one first")]
    NothingStaged,
    /// There is nothing to confirm.
    #[error("no trial is under way")]
    NoTrial,
    /// There is nothing to go back to.
    #[error("there are no former models to go back to")]
    NothingBefore,
}
