//! `facelatchd demo`: the door on simulated hardware, playing photographs as camera frames, or live on a camera without a lock.
//!
//! Everything but the adapters is what the daemon runs: decoder, eyes, gallery in files, session, panel, event log.

pub mod act;
mod live;
pub mod photos;
pub mod story;
pub mod teller;
pub mod turned;
pub mod words;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::sync_channel;

use facelatch_shared::time::UnixMs;
use facelatch_shared::vision::VisionError;
use thiserror::Error;

use crate::camera::Camera;
use crate::camera::orientation::Orientation;
use crate::camera::pace::Pace;
use crate::camera::replay::Replay;
use crate::clock::{Clock, SimClock};
use crate::config::{Config, ConfigError, Poses};
use crate::control::{State, StateError};
use crate::daemon::{Rules, load_eyes, rules, threshold_source};
use crate::display::{DisplayError, PngDisplay};
use crate::door::{Door, Parts};
use crate::inputs::fake::{FakeInputs, FakeKeypad};
use crate::lock::fake::FakeLock;
use crate::pin::{Pin, PinError};
use crate::runner::{self, NoUpkeep, RunError, Source};
use crate::store::SystemEntropy;
use story::StoryError;
use teller::Teller;

/// What to play, and where everything is.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Your own photographs: a folder with one sub-folder a person, named after the person
    #[arg(long, value_name = "DIR", conflicts_with = "camera")]
    pub faces: Option<PathBuf>,
    /// A live camera instead of photographs, such as /dev/video0
    #[arg(long, value_name = "DEVICE")]
    pub camera: Option<PathBuf>,
    /// With --camera: stop after so many seconds
    #[arg(long, value_name = "S", requires = "camera")]
    pub seconds: Option<u64>,
    /// The folder with the models' manifest.toml
    #[arg(long, value_name = "DIR", default_value = "target/models")]
    pub models: PathBuf,
    /// The folder with the demonstration's photographs
    #[arg(long, value_name = "DIR", default_value_os_t = default_photos())]
    pub photos: PathBuf,
    /// Where the panel's screens, the gallery and the event log are written
    #[arg(long, value_name = "DIR", default_value = "target/demo")]
    pub out: PathBuf,
    /// The detector's name in the manifest
    #[arg(long, value_name = "NAME", default_value = "yunet")]
    pub detector: String,
    /// The embedder's name in the manifest
    #[arg(long, value_name = "NAME", default_value = "sface")]
    pub embedder: String,
}

/// Plays the demonstration and tells it on `out`. `true` when everything went as the story says.
///
/// # Errors
/// [`DemoError`] when it could not be played at all.
pub fn run(args: &DemoArgs, out: &mut dyn Write, stop: Arc<AtomicBool>) -> Result<bool, DemoError> {
    let config = configuration(args)?;
    let (panel_dir, state_dir) = (args.out.join("panel"), config.door.state_dir.clone());
    // Only what an earlier demonstration wrote.
    for stale in [&panel_dir, &state_dir] {
        match std::fs::remove_dir_all(stale) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(DemoError::Folder { path: stale.display().to_string(), source: error });
            }
            _ => {}
        }
    }
    let mut eyes = load_eyes(&config)?;
    let rule = config.rule(&threshold_source(&config, &eyes)?);
    let models: Vec<String> = eyes.models().iter().map(|m| format!("{} ({})", m.name, m.licence)).collect();
    writeln!(
        out,
        "Facelatch {}: {}. Threshold {}, {} of {} frames, rank gap {}.\n",
        env!("CARGO_PKG_VERSION"),
        models.join(", "),
        rule.threshold,
        rule.votes,
        rule.window,
        rule.min_rank_gap
    )?;
    if let Some(device) = &args.camera {
        return live::run(args, device, config, eyes, out, stop);
    }
    let acts = match &args.faces {
        Some(folder) => story::of_folder(folder, &mut eyes)?,
        None => story::builtin(&args.photos, &mut eyes)?,
    };
    let clock = Arc::new(SimClock::starting_at(DAY));
    let pace = Pace::new();
    let shots = acts.iter().flat_map(|act| act.shots.iter().cloned()).collect();
    let replay = Replay::new(shots, SEED, Arc::clone(&clock), Arc::clone(&pace));
    let inputs = FakeInputs::new();
    let keypad = FakeKeypad::default();
    let mut teller = Teller::new(&acts, inputs.clone(), keypad.clone(), &mut *out);
    let display = PngDisplay::new(&panel_dir, PANEL)?;
    let screens = display.written();
    let dyn_clock: Arc<dyn Clock> = clock;
    let (lock, lock_probe) = FakeLock::new(Arc::clone(&dyn_clock));
    let State { people, log, .. } = State::open_or_create(&config.door, &*dyn_clock)?;
    let Rules { session, threshold, keeper } = rules(&config, &eyes, &log)?;
    let door = Door::start(Parts {
        session,
        people,
        log,
        lock: Box::new(lock),
        inputs: Box::new(inputs),
        keypad: Box::new(keypad),
        display: Box::new(display),
        clock: Arc::clone(&dyn_clock),
        keeper,
        threshold,
        binding: eyes.binding(),
        compatible: Vec::new(),
        keep_chips: config.enrol.keep_chips,
        name: config.door.name.clone(),
    });
    let open_camera = Box::new(move || replay.open().map(|camera| Box::new(camera) as Box<dyn Camera>));
    let source = Source {
        open_camera,
        orientation: Orientation::default(),
        upkeep: Box::new(NoUpkeep),
        clock: Arc::clone(&dyn_clock),
        update: None,
        pace: Some(pace),
        looks: None,
        stop,
    };
    // Nobody else talks to this door.
    let (_nobody, control) = sync_channel(1);
    runner::run(door, eyes, source, &control, &mut teller)?;
    let (misses, acts, medians) = (teller.finish(), teller.acts(), teller.medians());
    drop(teller);

    // What a restart would find.
    let State { people, mut log, .. } = State::open(&config.door, &*dyn_clock)?;
    let (events, verification) = log.read().map_err(StateError::from)?;
    let released = lock_probe
        .changes()
        .iter()
        .filter(|(_, effect)| *effect == crate::lock::fake::Effect::Released)
        .count();
    writeln!(
        out,
        "After a restart: {} enrolled, {} events, the chain of events {}.",
        people.len(),
        events.len(),
        if verification.is_intact() { "holds" } else { "IS BROKEN" }
    )?;
    writeln!(
        out,
        "The lock was released {released} times and is {}.\n",
        if lock_probe.is_released() { "STILL RELEASED" } else { "secured" }
    )?;
    writeln!(out, "Median time of each stage, this machine, one thread:")?;
    for (stage, micros, frames) in medians {
        writeln!(out, "  {stage:<15} {:>8.2} ms   ({frames} frames)", f64::from(micros) / 1000.0)?;
    }
    let screens = screens.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    writeln!(out, "\nThe panel's screens are in {}; one of each kind:", panel_dir.display())?;
    for name in one_of_each(&screens) {
        writeln!(out, "  {name}")?;
    }
    let misuse = lock_probe.misuse();
    for (at, what) in &misuse {
        writeln!(out, "The lock was misused at {} ms: {what}", at.0)?;
    }
    let well = misses == 0 && verification.is_intact() && !lock_probe.is_released() && misuse.is_empty();
    if well {
        writeln!(out, "All {acts} acts went as the story says.")?;
    } else {
        writeln!(out, "{misses} of {acts} acts did NOT go as the story says.")?;
    }
    Ok(well)
}

/// The first file of each kind of screen; names are `NN-kind.png`.
fn one_of_each(names: &[String]) -> Vec<&str> {
    let mut kinds = std::collections::BTreeSet::new();
    let kind = |name: &str| name.split_once('-').map(|(_, kind)| kind.to_owned());
    names.iter().filter(|name| kinds.insert(kind(name))).map(String::as_str).collect()
}

/// The door of the demonstration: every default, but for its folders, a schedule and what an enrolment asks.
fn configuration(args: &DemoArgs) -> Result<Config, DemoError> {
    let mut config = Config::default();
    config.models.dir.clone_from(&args.models);
    config.models.detector.clone_from(&args.detector);
    config.models.embedder.clone_from(&args.embedder);
    config.door.state_dir = args.out.join("state");
    config.access.schedules.insert(story::NIGHT.into(), vec!["mon-sun 22:00-06:00".into()]);
    if args.faces.is_some() {
        // Photographs show the side that they show.
        config.enrol.poses = Poses::Front;
    } else if args.camera.is_none() {
        config.enrol.consent = Some("2026-1".into());
        config.enrol.pose_timeout_s = 3;
        let pin = Pin::parse(story::DEMO_PIN).and_then(|pin| pin.hash(&mut SystemEntropy))?;
        config.enrol.admin_pin = Some(pin.to_string());
    }
    Ok(config)
}

fn default_photos() -> PathBuf {
    let assets = std::env::var_os("FACELATCH_ASSETS").map(PathBuf::from).unwrap_or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"));
        cache.join("facelatch/assets")
    });
    assets.join("photos")
}

/// A Monday morning, so that the story's log reads the same every time.
const DAY: UnixMs = UnixMs(1_767_600_000_000);
const SEED: u64 = 7;
const PANEL: embedded_graphics::geometry::Size = embedded_graphics::geometry::Size::new(480, 320);

/// Why the demonstration could not be played.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DemoError {
    /// The models.
    #[error(transparent)]
    Vision(#[from] VisionError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The photographs.
    #[error(transparent)]
    Story(#[from] StoryError),
    /// Gallery, key or log.
    #[error(transparent)]
    State(#[from] StateError),
    /// The panel's folder.
    #[error(transparent)]
    Display(#[from] DisplayError),
    /// A thread died.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The administrator PIN.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// A folder of an earlier demonstration cannot be cleared.
    #[error("{path}: {source}")]
    Folder {
        /// The folder.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The live camera.
    #[error("{0}")]
    Camera(String),
    /// The story could not be written out.
    #[error("the story could not be written: {0}")]
    Out(#[from] std::io::Error),
}
