//! `facelatchd demo`: the door on simulated hardware, playing photographs as camera frames, or live on a camera without a lock.
//!
//! Everything but the adapters is what the daemon runs: decoder, eyes, gallery in files, session, panel, event log.

pub mod act;
mod live;
pub mod photos;
pub mod story;
pub mod teller;
pub mod turn;
pub mod turned;
pub mod words;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;

use facelatch_shared::person::SubjectId;
use facelatch_shared::time::UnixMs;
use facelatch_shared::vision::{Eyes, VisionError};
use thiserror::Error;

use act::Act;

use crate::camera::Camera;
use crate::camera::orientation::Orientation;
use crate::camera::pace::Pace;
use crate::camera::replay::Replay;
use crate::clock::{Clock, SimClock};
use crate::config::{Config, ConfigError, LivenessMode, Poses};
use crate::control::{State, StateError};
use crate::daemon::{Rules, load_eyes, rules, rules_asking, threshold_source};
use crate::display::{DisplayError, PngDisplay};
use crate::door::{Door, Parts};
use crate::inputs::fake::{FakeInputs, FakeKeypad};
use crate::lock::fake::FakeLock;
use crate::pin::{Pin, PinError};
use crate::runner::{self, Ended, NoUpkeep, RunError, Source};
use crate::session::LivenessPolicy;
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
    /// The fiducials net's name in the manifest, or "none": no pose, no occlusion, and no head turn is asked for
    #[arg(long, value_name = "NAME", default_value = "fiducials")]
    pub fiducials: String,
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
    // The same door again, which asks for a head turn now.
    let turning =
        if args.faces.is_none() { story::turning(&args.photos, &mut eyes, &TURNS)? } else { vec![] };
    let stage = Stage { config, panel_dir: panel_dir.clone(), start: DAY, asking: None };
    let mut played = play(
        &stage,
        eyes,
        &acts,
        Teller::new(&acts, FakeInputs::new(), FakeKeypad::default(), &mut *out),
        &stop,
    )?;
    if !turning.is_empty() {
        let mut config = stage.config;
        config.liveness.mode = Some(LivenessMode::Challenge);
        let eyes = load_eyes(&config)?;
        writeln!(
            out,
            "The door is told to ask for a turn of the head, `[liveness] mode = \"challenge\"`.\n"
        )?;
        let asking = Some(TURNS.seed);
        let stage = Stage { config, panel_dir: panel_dir.join("turning"), start: LATER, asking };
        let teller = Teller::new(&turning, FakeInputs::new(), FakeKeypad::default(), &mut *out);
        let teller = teller.going_on(acts.len(), std::mem::take(&mut played.names));
        let more = play(&stage, eyes, &turning, teller, &stop)?;
        played.misses += more.misses;
        played.acts += more.acts;
        played.released += more.released;
        played.still_released |= more.still_released;
        played.misuse.extend(more.misuse);
        played.screens.extend(more.screens.into_iter().map(|name| format!("turning/{name}")));
    }
    let config = configuration(args)?;
    let later: Arc<dyn Clock> = Arc::new(SimClock::starting_at(LATER));

    // What a restart would find.
    let State { people, mut log, .. } = State::open(&config.door, &*later)?;
    let (events, verification) = log.read().map_err(StateError::from)?;
    writeln!(
        out,
        "After a restart: {} enrolled, {} events, the chain of events {}.",
        people.len(),
        events.len(),
        if verification.is_intact() { "holds" } else { "IS BROKEN" }
    )?;
    writeln!(
        out,
        "The lock was released {} times and is {}.\n",
        played.released,
        if played.still_released { "STILL RELEASED" } else { "secured" }
    )?;
    writeln!(out, "Median time of each stage, this machine, one thread:")?;
    for (stage, micros, frames) in played.medians {
        writeln!(out, "  {stage:<15} {:>8.2} ms   ({frames} frames)", f64::from(micros) / 1000.0)?;
    }
    writeln!(out, "\nThe panel's screens are in {}; one of each kind:", panel_dir.display())?;
    for name in one_of_each(&played.screens) {
        writeln!(out, "  {name}")?;
    }
    for what in &played.misuse {
        writeln!(out, "The lock was misused {what}")?;
    }
    let (misses, acts) = (played.misses, played.acts);
    let well = misses == 0 && verification.is_intact() && !played.still_released && played.misuse.is_empty();
    if well {
        writeln!(out, "All {acts} acts went as the story says.")?;
    } else {
        writeln!(out, "{misses} of {acts} acts did NOT go as the story says.")?;
    }
    Ok(well)
}

/// The door that acts are played at.
struct Stage {
    config: Config,
    panel_dir: PathBuf,
    start: UnixMs,
    /// Seed of the head turns asked for, where the demonstration must know them beforehand.
    asking: Option<[u8; 16]>,
}

/// What came of acts.
struct Played {
    misses: usize,
    acts: usize,
    names: Vec<(SubjectId, String)>,
    medians: Vec<(&'static str, u32, usize)>,
    released: usize,
    still_released: bool,
    misuse: Vec<String>,
    screens: Vec<String>,
}

/// Plays `acts`, which `teller` tells, from start to end of a door's run.
fn play<W: Write>(
    stage: &Stage,
    eyes: Eyes,
    acts: &[Act],
    mut teller: Teller<W>,
    stop: &Arc<AtomicBool>,
) -> Result<Played, DemoError> {
    let config = &stage.config;
    let clock = Arc::new(SimClock::starting_at(stage.start));
    let pace = Pace::new();
    let shots = acts.iter().flat_map(|act| act.shots.iter().cloned()).collect();
    let replay = Replay::new(shots, SEED, Arc::clone(&clock), Arc::clone(&pace));
    let display = PngDisplay::new(&stage.panel_dir, PANEL)?;
    let screens = display.written();
    let dyn_clock: Arc<dyn Clock> = clock;
    let (lock, lock_probe) = FakeLock::new(Arc::clone(&dyn_clock));
    let State { people, log, .. } = State::open_or_create(&config.door, &*dyn_clock)?;
    let Rules { session, threshold, keeper } = match stage.asking {
        Some(seed) => rules_asking(config, &eyes, &log, threshold_source(config, &eyes)?, seed)?,
        None => rules(config, &eyes, &log)?,
    };
    let door = Door::start(Parts {
        session,
        people,
        log,
        lock: Box::new(lock),
        inputs: Box::new(teller.inputs()),
        keypad: Box::new(teller.keypad()),
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
        stop: Arc::clone(stop),
    };
    // Nobody else talks to this door.
    let (_nobody, control) = sync_channel(1);
    if runner::run(door, eyes, source, &control, &mut teller)? == Ended::RecordingOver {
        // The run told its own threads to end by this flag; the next acts must not take it for a signal.
        stop.store(false, Ordering::SeqCst);
    }
    let released = |(_, effect): &&(_, _)| *effect == crate::lock::fake::Effect::Released;
    let misuse = lock_probe.misuse();
    let screens = screens.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    Ok(Played {
        misses: teller.finish(),
        acts: teller.acts(),
        names: teller.names(),
        medians: teller.medians(),
        released: lock_probe.changes().iter().filter(released).count(),
        still_released: lock_probe.is_released(),
        misuse: misuse.iter().map(|(at, what)| format!("at {} ms: {what}", at.0)).collect(),
        screens,
    })
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
    config.models.fiducials = (args.fiducials != "none").then(|| args.fiducials.clone());
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
/// An hour after it, when the acts have been played.
const LATER: UnixMs = UnixMs(DAY.0 + 3_600_000);
const SEED: u64 = 7;
/// The turns that the demonstration's door asks for; a real door draws them afresh at each start.
const TURNS: LivenessPolicy =
    LivenessPolicy { ask: true, mirrored: false, timeout_s: 8, seed: *b"a demonstration!" };
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
