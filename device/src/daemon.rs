//! `facelatchd --config door.toml`: the door on its real hardware.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::sync_channel;

use embedded_graphics::geometry::Size;
use facelatch_shared::vision::{Eyes, VisionError};
use thiserror::Error;

use crate::camera::Camera;
use crate::camera::v4l::V4lCamera;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, ConfigError, PanelConfig};
use crate::control::{ControlError, Limits, Server, State, StateError};
use crate::display::{Display, DisplayError, FramebufferDisplay, NoDisplay, PngDisplay};
use crate::door::{Door, Parts};
use crate::inputs::gpio::{GpioInputs, InputsError};
use crate::lock::gpio::GpioLock;
use crate::lock::none::NoLock;
use crate::lock::{Lock, LockError};
use crate::runner::{self, Ended, NoWatcher, RunError, Source};
use crate::session::Session;

/// Loads the configured models.
///
/// # Errors
/// [`VisionError`], naming the file and the remedy.
pub fn load_eyes(config: &Config) -> Result<Eyes, VisionError> {
    let models = &config.models;
    let size = (models.detector_width_px, models.detector_height_px);
    Eyes::load(&models.dir, &models.detector, &models.embedder, config.gate, size)
}

/// The session that `config` describes.
///
/// # Errors
/// [`ConfigError::NoThreshold`].
pub fn session(config: &Config, eyes: &Eyes) -> Result<Session, ConfigError> {
    let rule = config.rule(eyes.default_threshold())?;
    Ok(Session::new(rule, config.session.clone(), config.enrol.clone(), config.door.name.clone()))
}

/// Runs the door of `config` until `stop` is set.
///
/// # Errors
/// [`DaemonError`]: nothing was started, or a thread died. The lock is secured either way.
pub fn run(config: &Config, stop: Arc<AtomicBool>) -> Result<Ended, DaemonError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    // The lock first: whatever fails afterwards, the door is shut.
    let lock: Box<dyn Lock> = match &config.lock {
        Some(spec) => Box::new(GpioLock::open(spec)?),
        None => Box::new(NoLock),
    };
    let inputs = Box::new(GpioInputs::open(&config.inputs, Arc::clone(&clock))?);
    let display = open_display(&config.panel)?;
    let State { people, log, .. } = State::open_or_create(&config.door, &*clock)?;
    let eyes = load_eyes(config)?;
    let session = session(config, &eyes)?;
    let (to_session, control) = sync_channel(CONTROL_QUEUE);
    let _server = Server::start(&config.door.state_dir, to_session, Limits::default())?;
    let door = Door::start(Parts {
        session,
        people,
        log,
        lock,
        inputs,
        display,
        clock: Arc::clone(&clock),
        binding: eyes.binding(),
        name: config.door.name.clone(),
    });
    let (spec, camera_clock) = (config.camera.spec(), Arc::clone(&clock));
    let open_camera = Box::new(move || {
        V4lCamera::open(&spec, Arc::clone(&camera_clock)).map(|camera| Box::new(camera) as Box<dyn Camera>)
    });
    let source = Source { open_camera, clock, pace: None, stop };
    Ok(runner::run(door, eyes, source, &control, &mut NoWatcher)?)
}

fn open_display(panel: &PanelConfig) -> Result<Box<dyn Display>, DisplayError> {
    Ok(match panel {
        PanelConfig::None => Box::new(NoDisplay),
        PanelConfig::Framebuffer { device } => Box::new(FramebufferDisplay::open(device)?),
        PanelConfig::Png { dir, width_px, height_px } => {
            Box::new(PngDisplay::new(dir, Size::new(*width_px, *height_px))?)
        }
    })
}

const CONTROL_QUEUE: usize = 4;

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
    Vision(#[from] VisionError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It ran and then died.
    #[error(transparent)]
    Run(#[from] RunError),
}
