//! Which models the door decides with: those of the active slot, else those of the configured folder.

use std::path::Path;
use std::time::Instant;

use facelatch_shared::align::CHIP_BYTES;
use facelatch_shared::bundle::{Manifest, SectionKind, SelfTest, SelfTestFault, SelfTestReport, Trial};
use facelatch_shared::embedding::ModelBinding;
use facelatch_shared::event::EventKind;
use facelatch_shared::protocol::update::{ModelsFrom, ModelsInUse};
use facelatch_shared::vision::contract::ModelKind;
use facelatch_shared::vision::{Eyes, Manifest as ModelList, VisionError};
use thiserror::Error;

use super::record::{Outcome, Phase, Source, Trying};
use super::slots::{FileSlots, Slot};
use super::slots_dir;
use super::trial::p95;
use super::updater::{UpdateError, Updater};
use crate::access::ThresholdSource;
use crate::config::{Config, ConfigError};
use crate::daemon::{load_eyes, threshold_source};

/// Models that are ready to look, and everything that goes with them.
#[derive(Debug)]
pub struct Loaded {
    /// The eyes.
    pub eyes: Eyes,
    /// What they are.
    pub in_use: ModelsInUse,
    /// Older models whose templates stay valid.
    pub compatible: Vec<ModelBinding>,
    /// Where the threshold comes from.
    pub threshold: ThresholdSource,
    /// The trial that goes on with them.
    pub trial: Option<Tried>,
}

/// A trial that goes on.
#[derive(Clone, Copy, Debug)]
pub struct Tried {
    /// Its record.
    pub trying: Trying,
    /// What must be shown.
    pub trial: Trial,
    /// 95th percentile of an embedding's time in the self-test, in microseconds.
    pub embed_p95_us: u32,
}

/// Loads what `updater` says is in use. A slot that is damaged, or does not pass its self-test while it is on trial, is given up for what was
/// used before; what the log must say of that is added to `events`.
///
/// # Errors
/// [`ModelsError`] when the models of the configured folder, the last resort, cannot be loaded.
pub fn load(
    config: &Config,
    updater: &mut Updater,
    events: &mut Vec<EventKind>,
) -> Result<Loaded, ModelsError> {
    let mut gave_up = None;
    loop {
        let loaded = match updater.record().active() {
            Source::Factory => load_configured(config)?,
            Source::Slot(slot) => match load_slot(config, updater, slot) {
                Ok(loaded) => loaded,
                Err(error) => {
                    tracing::error!(%error, "the models of the active slot are of no use; the former ones are taken");
                    updater.give_up(Outcome::SelfTest)?;
                    gave_up = Some(Outcome::SelfTest);
                    continue;
                }
            },
        };
        if let Some(why) = gave_up {
            events.push(EventKind::ModelsRolledBack { model: loaded.in_use.binding, why });
        }
        return Ok(loaded);
    }
}

/// Loads what is in use, for a check beside a door that does not run; changes nothing.
///
/// # Errors
/// [`ModelsError`]: what the door would meet at its next start.
pub fn look(config: &Config) -> Result<Loaded, ModelsError> {
    let slots = FileSlots::open(&slots_dir(&config.door)).map_err(UpdateError::from)?;
    let mut updater = Updater::look(Box::new(slots), &config.door.board).map_err(UpdateError::from)?;
    updater.check_active()?;
    let source = updater.record().active();
    load_source(config, &mut updater, source)
}

/// The models of the configured folder.
///
/// # Errors
/// [`ModelsError`].
pub fn load_configured(config: &Config) -> Result<Loaded, ModelsError> {
    let eyes = load_eyes(config)?;
    let in_use = ModelsInUse {
        from: ModelsFrom::Configured,
        bundle: None,
        name: heapless::String::new(),
        embedder: heapless::String::try_from(config.models.embedder.as_str()).unwrap_or_default(),
        binding: eyes.binding(),
    };
    let threshold = threshold_source(config, &eyes)?;
    Ok(Loaded { eyes, in_use, compatible: Vec::new(), threshold, trial: None })
}

fn load_slot(config: &Config, updater: &mut Updater, slot: Slot) -> Result<Loaded, ModelsError> {
    updater.check_active()?;
    let mut loaded = load_source(config, updater, Source::Slot(slot))?;
    loaded.in_use.bundle = updater.record().active_id;
    loaded.compatible = updater.compatible().to_vec();
    if let Phase::Trial(trying) = updater.record().phase
        && let Some(manifest) = updater.active_manifest()?
    {
        let bytes = updater.active_section(SectionKind::SelfTest)?;
        let proof = prove(&mut loaded.eyes, &manifest, &bytes, |_| {})?;
        loaded.trial = Some(Tried { trying, trial: manifest.trial, embed_p95_us: proof.embed_p95_us });
    }
    Ok(loaded)
}

/// The models of `source`, as they would be used now. Neither checked against what was signed nor on trial.
///
/// # Errors
/// [`ModelsError`].
pub fn load_source(config: &Config, updater: &mut Updater, source: Source) -> Result<Loaded, ModelsError> {
    let Source::Slot(slot) = source else { return load_configured(config) };
    let manifest = updater.manifest_of(source)?.ok_or(UpdateError::NothingStaged)?;
    let folder = updater.folder_of(source).ok_or(UpdateError::NothingStaged)?;
    let eyes = load_bundle(config, &folder, &manifest)?;
    let in_use = ModelsInUse {
        from: match slot {
            Slot::A => ModelsFrom::SlotA,
            Slot::B => ModelsFrom::SlotB,
        },
        bundle: None,
        name: manifest.name.clone(),
        embedder: manifest.embedder.clone(),
        binding: eyes.binding(),
    };
    let threshold = bundle_threshold(config, &eyes, &manifest);
    Ok(Loaded { eyes, in_use, compatible: Vec::new(), threshold, trial: None })
}

/// The models of a bundle whose files lie in `folder`. A fiducials net that the configuration asks for comes from the bundle, or else from the
/// configured folder: no bundle takes the head turn away.
///
/// # Errors
/// [`ModelsError`]: a file does not load, or the embedder is not the one that was signed.
pub fn load_bundle(config: &Config, folder: &Path, manifest: &Manifest) -> Result<Eyes, ModelsError> {
    let models = &config.models;
    let size = (models.detector_width_px, models.detector_height_px);
    let mut eyes = Eyes::load(folder, &manifest.detector, &manifest.embedder, config.gate, size)?;
    if let Some(name) = &models.fiducials {
        let brings =
            ModelList::load(folder).is_ok_and(|list| list.find(folder, name, ModelKind::Fiducials).is_ok());
        eyes = eyes.with_fiducials(if brings { folder } else { &models.dir }, name)?;
    }
    if eyes.binding() != manifest.binding {
        return Err(ModelsError::OtherBinding { actual: eyes.binding(), signed: manifest.binding });
    }
    Ok(eyes)
}

/// Where a bundle's threshold comes from: its embedder's table at `decision.false_accepts`, else the bundle's own. A similarity that
/// `decision.threshold` fixes was measured for the configured embedder and means nothing for another.
#[must_use]
pub fn bundle_threshold(config: &Config, eyes: &Eyes, manifest: &Manifest) -> ThresholdSource {
    let table = eyes.models().iter().find_map(|entry| entry.thresholds.as_ref());
    match table.map(|table| table.operating_points()).filter(|points| !points.is_empty()) {
        Some(points) => ThresholdSource::Table { points, false_accepts: config.decision.false_accepts },
        None => ThresholdSource::OfModel(manifest.threshold),
    }
}

/// What a passed self-test showed.
#[derive(Clone, Copy, Debug)]
pub struct Proof {
    /// The comparison.
    pub report: SelfTestReport,
    /// 95th percentile of an embedding's time, in microseconds.
    pub embed_p95_us: u32,
}

/// Runs the self-test in `section` and times each embedding; `each` is called after every one, with when it began.
///
/// # Errors
/// [`ModelsError`]: an embedding or a decision differs from what was signed, or an embedding alone takes longer than everything may.
pub fn prove(
    eyes: &mut Eyes,
    manifest: &Manifest,
    section: &[u8],
    mut each: impl FnMut(Instant),
) -> Result<Proof, ModelsError> {
    let test = SelfTest::parse(section).map_err(UpdateError::from)?;
    let mut times = Vec::with_capacity(test.probes.len());
    let report = test.run(manifest.threshold, |chip: &[u8; CHIP_BYTES]| {
        let start = Instant::now();
        let embedding = eyes.embed_chip(chip).ok();
        times.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
        each(start);
        embedding
    })?;
    // The first one finds cold caches.
    let warm = if times.len() > 1 { &mut times[1..] } else { &mut times[..] };
    let embed_p95_us = p95(warm);
    if embed_p95_us > manifest.trial.max_p95_us {
        return Err(ModelsError::TooSlow { p95_us: embed_p95_us, max_us: manifest.trial.max_p95_us });
    }
    Ok(Proof { report, embed_p95_us })
}

/// Why models are of no use.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ModelsError {
    /// A file.
    #[error(transparent)]
    Vision(#[from] VisionError),
    /// The slot.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// The self-test.
    #[error(transparent)]
    SelfTest(#[from] SelfTestFault),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another embedder than the one that was signed, or another alignment.
    #[error("its embedder gives templates of model {actual}, and {signed} was signed")]
    OtherBinding {
        /// What it gives.
        actual: ModelBinding,
        /// What the manifest says.
        signed: ModelBinding,
    },
    /// The board.
    #[error(
        "this board is too slow for it: an embedding alone takes {p95_us} µs (95th percentile), and {max_us} are allowed for everything"
    )]
    TooSlow {
        /// Measured.
        p95_us: u32,
        /// Allowed.
        max_us: u32,
    },
    /// The people of this door.
    #[error(
        "it tells this door's people apart worse than the present models: {new} of 1000 probes rejected, {old} before"
    )]
    Rejections {
        /// With the new models, in thousandths.
        new: u32,
        /// With the present ones.
        old: u32,
    },
    /// The door has ended meanwhile.
    #[error("the door ended meanwhile")]
    Ended,
    /// The gallery.
    #[error("templates could not be stored: {0}")]
    People(#[from] crate::people::PeopleError),
}

impl ModelsError {
    /// Why a trial ends with it.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::TooSlow { .. } => Outcome::TooSlow,
            Self::Rejections { .. } => Outcome::Rejections,
            _ => Outcome::SelfTest,
        }
    }
}
