//! `facelatchd --config door.toml`: the door on its real hardware.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use embedded_graphics::geometry::Size;
use facelatch_shared::bundle::SignedRoot;
use facelatch_shared::event::{EventKind, TrialOutcome};
use facelatch_shared::gallery::Entropy as _;
use facelatch_shared::vision::thresholds::ThresholdTable;
use facelatch_shared::vision::{Eyes, VisionError};
use thiserror::Error;

use crate::access::{ThresholdSource, Timekeeper};
use crate::camera::folder::FolderCamera;
use crate::camera::pace::Pace;
use crate::camera::v4l::{V4lCamera, V4lSpec};
use crate::camera::{Camera, CameraError};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, ConfigError, DoorConfig, LivenessMode, PanelConfig};
use crate::control::{ControlError, Limits, Server, State, StateError, ToSession};
use crate::display::{
    Display, DisplayError, FramebufferDisplay, NoDisplay, PngDisplay, Screen, ServiceReason, spi_panel,
};
use crate::door::{Desk, Door, Parts};
use crate::event_log::EventLog;
use crate::heartbeat::{Heartbeat, HeartbeatError};
use crate::inputs::Inputs;
use crate::inputs::gpio::{GpioInputs, InputsError};
use crate::inputs::keypad::{EventKeypad, Keypad, KeypadError, NoKeypad};
use crate::link::{self, LinkLimits, LinkParts, LinkServer};
use crate::lock::gpio::{GpioLock, GpioLockSpec};
use crate::lock::guard::Guard;
use crate::lock::none::NoLock;
use crate::lock::{Lock, LockError};
use crate::metrics::{self, MetricsError};
use crate::runner::{self, Ended, Look, NoWatcher, RunError, Source, Upkeep};
use crate::session::{LivenessPolicy, Policy, Session};
use crate::store::SystemEntropy;
use crate::system::{IMAGE_ROOT, Image, SystemPaths};
use crate::update::models::{self, Loaded, ModelsError};
use crate::update::{Boot, FileSlots, Service, UpdateError, Updater, slots_dir};

/// Loads the configured models.
///
/// # Errors
/// [`VisionError`], naming the file and the remedy.
pub fn load_eyes(config: &Config) -> Result<Eyes, VisionError> {
    let models = &config.models;
    let size = (models.detector_width_px, models.detector_height_px);
    let eyes = Eyes::load(&models.dir, &models.detector, &models.embedder, config.gate, size)?;
    match &models.fiducials {
        Some(name) => eyes.with_fiducials(&models.dir, name),
        None => Ok(eyes),
    }
}

/// What decides at the door that `config` describes.
#[derive(Debug)]
pub struct Rules {
    /// The state machine.
    pub session: Session,
    /// Where its threshold comes from.
    pub threshold: ThresholdSource,
    /// The wall clock's keeper.
    pub keeper: Timekeeper,
}

/// Where the threshold of `config` with these models comes from.
///
/// # Errors
/// [`ConfigError::NoThreshold`].
pub fn threshold_source(config: &Config, eyes: &Eyes) -> Result<ThresholdSource, ConfigError> {
    let table = eyes.models().iter().find_map(|entry| entry.thresholds.as_ref());
    let points = table.map(ThresholdTable::operating_points).unwrap_or_default();
    config.threshold_source(&points, eyes.default_threshold())
}

/// The rules that `config` describes, going on from what `log` remembers.
///
/// # Errors
/// [`ConfigError`].
pub fn rules(config: &Config, eyes: &Eyes, log: &EventLog) -> Result<Rules, ConfigError> {
    rules_at(config, eyes, log, threshold_source(config, eyes)?)
}

/// The same at a threshold that comes from elsewhere: with the models of a bundle.
///
/// # Errors
/// [`ConfigError`].
pub fn rules_at(
    config: &Config,
    eyes: &Eyes,
    log: &EventLog,
    threshold: ThresholdSource,
) -> Result<Rules, ConfigError> {
    let mut seed = [0; 16];
    SystemEntropy.fill(&mut seed).map_err(|_| ConfigError::NoEntropy)?;
    rules_asking(config, eyes, log, threshold, seed)
}

/// The same; the ways in which heads are to turn follow from `seed`, which nobody at a real door may know.
///
/// # Errors
/// [`ConfigError`].
pub fn rules_asking(
    config: &Config,
    eyes: &Eyes,
    log: &EventLog,
    threshold: ThresholdSource,
    seed: [u8; 16],
) -> Result<Rules, ConfigError> {
    let past = log.past();
    let wrong = |what| ConfigError::Invalid { path: "[access]".into(), what };
    let ask = config.liveness(eyes.finds_fiducials())? == LivenessMode::Challenge;
    if !ask {
        tracing::warn!("liveness is off: a photograph of a face opens this door");
    }
    let timeout_s = config.liveness.timeout_s;
    let liveness = LivenessPolicy { ask, mirrored: config.camera.mirror, timeout_s, seed };
    let policy = Policy {
        rule: config.rule(&threshold),
        times: config.session.clone(),
        enrol: config.enrol.clone(),
        calendar: config.access.calendar().map_err(wrong)?,
        second_factor: config.decision.second_factor,
        pin_timeout_s: config.decision.pin_timeout_s,
        anti_passback_s: config.decision.anti_passback_s,
        liveness,
        pair_by_button: config.link.enabled && config.link.service_button,
        door: config.door.name.clone(),
    };
    let keeper = Timekeeper::new(config.access.zone().map_err(wrong)?, past.newest);
    Ok(Rules { session: Session::new(policy, past.history), threshold, keeper })
}

/// What the program is told from outside while it runs.
#[derive(Clone, Debug)]
pub struct Signals {
    /// End in order.
    pub stop: Arc<AtomicBool>,
    /// Read the configuration again.
    pub reload: Arc<AtomicBool>,
    /// Where it stands; without a file there is nothing to read again.
    pub config: Option<PathBuf>,
}

/// Runs the door of `config` until it is told to stop. A reload that names a configuration which cannot be used leaves the door as it is.
///
/// # Errors
/// [`DaemonError`]: nothing was started, or a thread died. The lock is secured either way.
pub fn run(config: Config, signals: &Signals) -> Result<(), DaemonError> {
    let mut heartbeat = None;
    // Opened once a program: every opening within a trial counts as a start.
    let mut updates = Updates::default();
    let (mut config, mut before) = (config, None::<Config>);
    loop {
        let mut next = None;
        let ended = match run_once(&config, signals, &mut heartbeat, &mut updates, &mut next) {
            Err(error) => match before.take() {
                Some(old) => {
                    tracing::error!(%error, "the new configuration does not work; the old one holds");
                    next = Some(old);
                    Ended::Reload
                }
                None => return Err(error),
            },
            Ok(ended) => {
                before = Some(config.clone());
                ended
            }
        };
        match (ended, next) {
            (Ended::Reload, Some(new)) => config = new,
            (Ended::Anew, _) => {}
            _ => break,
        }
    }
    if let Some(heartbeat) = heartbeat {
        heartbeat.stop();
    }
    Ok(())
}

fn run_once(
    config: &Config,
    signals: &Signals,
    heartbeat: &mut Option<Heartbeat>,
    updates: &mut Updates,
    next: &mut Option<Config>,
) -> Result<Ended, DaemonError> {
    if config.lock.is_some() && config.camera.device.is_dir() {
        let what = format!(
            "camera.device is the folder {}: photographs open no real lock; remove [lock], or name a camera",
            config.camera.device.display()
        );
        return Err(DaemonError::Setting(what));
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    // Declared before the lock, hence dropped after it: the guard needs the line then.
    let mut guard = None;
    // The lock first: whatever fails afterwards, the door is shut.
    let mut lock: Box<dyn Lock> = match &config.lock {
        Some(spec) => {
            let lock = open_lock(spec)?;
            guard = Some(Guard::start(spec)?);
            Box::new(lock)
        }
        None => Box::new(NoLock),
    };
    if heartbeat.is_none() {
        let service = &config.service;
        *heartbeat = Some(Heartbeat::start(service.watchdog.as_deref(), service.watchdog_timeout_s)?);
    }
    let mut inputs: Box<dyn Inputs> = Box::new(GpioInputs::open(&config.inputs, Arc::clone(&clock))?);
    let keypad: Box<dyn Keypad> = match &config.keypad.device {
        Some(device) => Box::new(EventKeypad::open(device)?),
        None => Box::new(NoKeypad),
    };
    let mut display = open_display(&config.panel)?;
    show(&mut *display, ServiceReason::Starting);
    let metrics = match config.service.metrics_place().map_err(DaemonError::Setting)? {
        Some(place) => Some(metrics::Server::start(&place)?),
        None => None,
    };
    let mut upkeep = Keeper { heartbeat, guard: &mut guard, metrics, signals, next, published: None };
    let (State { people, mut log, .. }, loaded) = loop {
        let error = match prepare(config, &*clock, updates) {
            Ok(ready) => break ready,
            Err(error) => error,
        };
        show(&mut *display, error.reason());
        if config.lock.is_none() {
            return Err(error);
        }
        tracing::error!(%error, "the door cannot recognise anyone; it stays secured, and the exit button works");
        if egress_only(config, &mut *lock, &mut *inputs, &*clock, &mut upkeep)? {
            return Ok(Ended::Stopped);
        }
    };
    for event in updates.events.drain(..) {
        log.record(clock.unix(), clock.now(), event);
    }
    let Rules { session, threshold, keeper } =
        rules_at(config, &loaded.eyes, &log, loaded.threshold.clone())?;
    let compatible = loaded.compatible.clone();
    let updater = updates.updater.take().map(|(_, updater)| updater).ok_or(DaemonError::NoUpdater)?;
    let (service, seat, eyes) = Service::start(config, updater, Arc::clone(&clock), loaded)?;
    let (to_session, control) = sync_channel::<ToSession>(CONTROL_QUEUE);
    let _server = Server::start(&config.door.state_dir, to_session.clone(), Limits::default())?;
    let mut door = Door::start(Parts {
        session,
        people,
        log,
        lock,
        inputs,
        keypad,
        display,
        clock: Arc::clone(&clock),
        keeper,
        threshold,
        binding: eyes.binding(),
        compatible,
        keep_chips: config.enrol.keep_chips,
        name: config.door.name.clone(),
    });
    let (to_vision, looks) = sync_channel(LOOK_QUEUE);
    let mut _link = None;
    if config.link.enabled
        && let Some((server, desk)) = start_link(config, &clock, to_session, to_vision)
    {
        door = door.with_link(desk);
        _link = Some(server);
    }
    let (spec, camera_clock) = (config.camera.spec(), Arc::clone(&clock));
    // Pictures in the place of a camera wait for a door that is slow.
    let pace = spec.device.is_dir().then(Pace::new);
    let camera_pace = pace.clone();
    let open_camera = Box::new(move || open_camera(&spec, &camera_clock, camera_pace.as_ref()));
    if let Some(heartbeat) = upkeep.heartbeat {
        heartbeat.ready();
    }
    let orientation = config.camera.orientation();
    // The run ends its own flag; the program's stays for the next run.
    let stop = Arc::new(AtomicBool::new(false));
    let upkeep = Box::new(upkeep);
    let source = Source {
        open_camera,
        orientation,
        clock,
        upkeep,
        pace,
        looks: Some(looks),
        update: Some(seat),
        stop,
    };
    let ended = runner::run(door, eyes, source, &control, &mut NoWatcher);
    updates.updater = service.finish().map(|updater| (place(&config.door), updater));
    Ok(ended?)
}

/// What outlives a run of the door.
#[derive(Default)]
struct Updates {
    /// The slots, and whose they are: their folder, and what the board is called.
    updater: Option<(Place, Updater)>,
    /// For the log, once it is open.
    events: Vec<EventKind>,
    /// A trial's program was started too often.
    rolled_back: bool,
}

type Place = (PathBuf, String);

fn place(door: &DoorConfig) -> Place {
    (slots_dir(door), door.board.clone())
}

impl Updates {
    /// The slots of this door.
    fn open(&mut self, config: &Config) -> Result<&mut Updater, DaemonError> {
        let place = place(&config.door);
        let updater = match self.updater.take().filter(|(known, _)| *known == place) {
            Some((_, updater)) => updater,
            None => {
                let slots = FileSlots::open(&place.0)?;
                let (updater, boot) = Updater::open(Box::new(slots), &config.door.board)?;
                let mut updater = updater.on_image(Image::look(&SystemPaths::default()));
                self.tell(&boot);
                if let Some(event) = trust_at_set_up(config, &mut updater) {
                    self.events.push(event);
                }
                updater
            }
        };
        Ok(&mut self.updater.insert((place, updater)).1)
    }

    fn tell(&mut self, boot: &Boot) {
        match boot {
            Boot::RecordLost => {
                tracing::error!(
                    "the record of the model slots is damaged: the configured models are used, and the door must be told anew whose bundles it takes"
                );
                let reason = heapless::String::try_from("record_lost").unwrap_or_default();
                self.events.push(EventKind::BundleRefused { reason });
            }
            Boot::Trying(trying) => {
                tracing::info!(starts = trying.starts, of = trying.max_starts, "a trial of models goes on");
            }
            Boot::Normal | Boot::RolledBack => {}
        }
        self.rolled_back = matches!(boot, Boot::RolledBack);
    }
}

/// Trusts the configured root document, or the image's, if the door trusts nobody yet. One that cannot be used leaves a door that takes no bundles.
fn trust_at_set_up(config: &Config, updater: &mut Updater) -> Option<EventKind> {
    let image = || Some(PathBuf::from(IMAGE_ROOT)).filter(|path| updater.image().is_some() && path.exists());
    let path = config.models.root.clone().or_else(image).filter(|_| updater.record().root.is_none())?;
    let trust = || -> Result<u32, Box<dyn std::error::Error>> {
        let root = SignedRoot::from_file(&std::fs::read(&path)?)?;
        let version = root.root()?.version;
        updater.set_root(root)?;
        Ok(version)
    };
    match { trust }() {
        Ok(version) => Some(EventKind::RootTrusted { version }),
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "models.root cannot be used: this door takes no bundles");
            None
        }
    }
}

/// The link, or nothing: a door that cannot be reached works all the same.
fn start_link(
    config: &Config,
    clock: &Arc<dyn Clock>,
    session: SyncSender<ToSession>,
    looks: SyncSender<Look>,
) -> Option<(LinkServer, Desk)> {
    let (identity, peers) = link::open(&config.door.state_dir)
        .inspect_err(|error| tracing::error!(%error, "there is no link to workstations"))
        .ok()?;
    let parts = LinkParts {
        address: config.link.listen,
        identity,
        peers: Arc::clone(&peers),
        clock: Arc::clone(clock),
        name: config.door.name.clone(),
        session,
        looks,
        announce: config.link.announce,
        limits: LinkLimits::default(),
    };
    let server = LinkServer::start(parts)
        .inspect_err(|error| tracing::error!(%error, "there is no link to workstations"))
        .ok()?;
    Some((server, Desk { peers, port: config.link.listen.port() }))
}

/// The configured camera; where a folder stands in its place, its pictures.
fn open_camera(
    spec: &V4lSpec,
    clock: &Arc<dyn Clock>,
    pace: Option<&Arc<Pace>>,
) -> Result<Box<dyn Camera>, CameraError> {
    if let Some(pace) = pace {
        return Ok(Box::new(FolderCamera::open(&spec.device, Arc::clone(clock), Arc::clone(pace))?));
    }
    Ok(Box::new(V4lCamera::open(spec, Arc::clone(clock))?))
}

/// Everything that may be missing for a while: files and models.
fn prepare(
    config: &Config,
    clock: &dyn Clock,
    updates: &mut Updates,
) -> Result<(State, Loaded), DaemonError> {
    let state = State::open_or_create(&config.door, clock)?;
    let mut events = Vec::new();
    let loaded = models::load(config, updates.open(config)?, &mut events)?;
    if std::mem::take(&mut updates.rolled_back) {
        let model = loaded.in_use.binding;
        updates.events.push(EventKind::ModelsRolledBack { model, why: TrialOutcome::Crashed });
    }
    updates.events.append(&mut events);
    tracing::info!(from = ?loaded.in_use.from, embedder = loaded.in_use.embedder.as_str(), bundle = loaded.in_use.name.as_str(), "models");
    Ok((state, loaded))
}

/// A door that recognises nobody lets people out all the same. Returns after [`RETRY`], to try again, with whether the program is to end.
fn egress_only(
    config: &Config,
    lock: &mut dyn Lock,
    inputs: &mut dyn Inputs,
    clock: &dyn Clock,
    upkeep: &mut Keeper<'_>,
) -> Result<bool, LockError> {
    let end = Instant::now() + RETRY;
    let mut released_until = None;
    let mut pressed_before = false;
    while Instant::now() < end || released_until.is_some() {
        upkeep.keep(clock, true);
        if upkeep.signals.stop.load(Ordering::SeqCst) {
            lock.secure()?;
            return Ok(true);
        }
        let pressed = inputs.read().is_ok_and(|contacts| contacts.exit_requested);
        if pressed && !std::mem::replace(&mut pressed_before, pressed) {
            lock.release()?;
            released_until = Some(clock.now().plus(u64::from(config.session.open_s) * 1000));
        }
        pressed_before = pressed;
        if released_until.is_some_and(|until| clock.now() >= until) {
            released_until = None;
            lock.secure()?;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(false)
}

/// The previous program's guard may hold the line for a moment.
fn open_lock(spec: &GpioLockSpec) -> Result<GpioLock, LockError> {
    let start = Instant::now();
    loop {
        match GpioLock::open(spec) {
            Err(error) if error.is_busy() && start.elapsed() < Duration::from_secs(2) => {
                std::thread::sleep(Duration::from_millis(20));
            }
            outcome => return outcome,
        }
    }
}

/// Signs of life, the lock's guard, metrics and signals.
struct Keeper<'a> {
    heartbeat: &'a mut Option<Heartbeat>,
    guard: &'a mut Option<Guard>,
    metrics: Option<metrics::Server>,
    signals: &'a Signals,
    next: &'a mut Option<Config>,
    published: Option<Instant>,
}

impl Keeper<'_> {
    fn keep(&mut self, clock: &dyn Clock, healthy: bool) {
        if healthy && let Some(heartbeat) = self.heartbeat {
            heartbeat.beat(clock.now());
        }
        if let Some(guard) = self.guard {
            guard.check();
        }
    }

    /// A usable new configuration, if one was asked for.
    fn reload(&self) -> Option<Config> {
        if !self.signals.reload.swap(false, Ordering::SeqCst) {
            return None;
        }
        let Some(path) = &self.signals.config else {
            tracing::warn!("there is no configuration file to read again");
            return None;
        };
        Config::load(path)
            .inspect(|_| tracing::info!("the configuration is read again"))
            .inspect_err(
                |error| tracing::error!(%error, "the configuration cannot be used; the old one holds"),
            )
            .ok()
    }
}

impl Upkeep for Keeper<'_> {
    fn turn(&mut self, door: &Door, healthy: bool) -> Option<Ended> {
        self.keep(door.clock(), healthy);
        if let Some(metrics) = &self.metrics
            && self.published.is_none_or(|at| at.elapsed() >= Duration::from_secs(1))
        {
            self.published = Some(Instant::now());
            metrics.publish(metrics::render(door.counters(), &door.gauges()));
        }
        if self.signals.stop.load(Ordering::SeqCst) {
            return Some(Ended::Stopped);
        }
        *self.next = Some(self.reload()?);
        Some(Ended::Reload)
    }
}

fn show(display: &mut dyn Display, reason: ServiceReason) {
    let screen = Screen::Service(reason);
    match display.show(&screen) {
        Ok(()) => tracing::info!(screen = screen.slug(), "panel"),
        Err(error) => tracing::error!(%error, "the panel cannot be drawn; the door works on"),
    }
}

/// Opens the configured panel.
///
/// # Errors
/// [`DisplayError`].
pub fn open_display(panel: &PanelConfig) -> Result<Box<dyn Display>, DisplayError> {
    Ok(match panel {
        PanelConfig::None => Box::new(NoDisplay),
        PanelConfig::Framebuffer { device } => Box::new(FramebufferDisplay::open(device)?),
        PanelConfig::Spi(spec) => Box::new(spi_panel::open(spec)?),
        PanelConfig::Png { dir, width_px, height_px } => {
            Box::new(PngDisplay::new(dir, Size::new(*width_px, *height_px))?)
        }
    })
}

const CONTROL_QUEUE: usize = 16;
const LOOK_QUEUE: usize = 1;
/// How often a door without files or models looks for them again.
const RETRY: Duration = Duration::from_secs(10);

/// Why the door is not at work.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The lock's line.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A contact's line.
    #[error(transparent)]
    Inputs(#[from] InputsError),
    /// The keypad.
    #[error(transparent)]
    Keypad(#[from] KeypadError),
    /// The panel.
    #[error(transparent)]
    Display(#[from] DisplayError),
    /// Gallery, key or log.
    #[error(transparent)]
    State(#[from] StateError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The models.
    #[error(transparent)]
    Models(#[from] ModelsError),
    /// The model slots.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// The update's thread, or its folder.
    #[error("the model slots could not be used: {0}")]
    Slots(#[from] std::io::Error),
    /// The update's thread died in the former run.
    #[error("the model slots are not open")]
    NoUpdater,
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// One setting of it.
    #[error("{0}")]
    Setting(String),
    /// The watchdog.
    #[error(transparent)]
    Heartbeat(#[from] HeartbeatError),
    /// Metrics.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// It ran and then died.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl DaemonError {
    /// What the panel says of it.
    #[must_use]
    pub const fn reason(&self) -> ServiceReason {
        match self {
            Self::State(_) | Self::Slots(_) => ServiceReason::Storage,
            Self::Lock(_) => ServiceReason::Lock,
            _ => ServiceReason::Models,
        }
    }
}
