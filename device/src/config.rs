//! `door.toml`: everything an installer sets. A key that is not known is an error, because a typo must not lower a threshold.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use facelatch_shared::access::LABEL_BYTES;
use facelatch_shared::decision::{DecisionRule, MAX_WINDOW};
use facelatch_shared::operating_point::OperatingPoint;
use facelatch_shared::person::Name;
use facelatch_shared::quality::Gate;
use facelatch_shared::score::Threshold;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::access::{AccessConfig, ThresholdSource};
use crate::camera::PixelFormat;
use crate::camera::choose::Wish;
use crate::camera::orientation::{Orientation, Rotation};
use crate::camera::v4l::{Hints, V4lSpec};
use crate::display::spi_panel::SpiSpec;
use crate::inputs::gpio::InputsSpec;
use crate::inputs::keypad::KeypadConfig;
use crate::lock::gpio::GpioLockSpec;
use crate::metrics::Place;
use crate::pin;

/// The whole file. Every table and key may be left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What and where this door is.
    pub door: DoorConfig,
    /// Which models look.
    pub models: ModelsConfig,
    /// Which camera.
    pub camera: CameraConfig,
    /// When a face is good enough.
    pub gate: Gate,
    /// When the door opens.
    pub decision: DecisionConfig,
    /// Times of the session.
    pub session: SessionConfig,
    /// What is done against photographs.
    pub liveness: LivenessConfig,
    /// Who may enter when.
    pub access: AccessConfig,
    /// How people are enrolled at the door.
    pub enrol: EnrolConfig,
    /// The strike or maglock; without one, decisions are shown and logged only.
    pub lock: Option<GpioLockSpec>,
    /// Contacts and buttons.
    pub inputs: InputsSpec,
    /// The keypad.
    pub keypad: KeypadConfig,
    /// The panel.
    pub panel: PanelConfig,
    /// The link to workstations.
    pub link: LinkConfig,
    /// The program as a service.
    pub service: ServiceConfig,
}

/// What and where this door is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DoorConfig {
    /// Shown on the idle panel.
    pub name: Name,
    /// What kind of board this is, as bundles name it.
    pub board: String,
    /// Where gallery, key, event log and control socket live.
    pub state_dir: PathBuf,
    /// Where the event log's older half is dropped, in KiB.
    pub event_log_limit_kib: u32,
}

/// Which models look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelsConfig {
    /// The folder with `manifest.toml`.
    pub dir: PathBuf,
    /// A detector's name in the manifest.
    pub detector: String,
    /// An embedder's name in the manifest.
    pub embedder: String,
    /// A fiducials net's name in the manifest: the gate then knows pose and occlusion. Left out, it goes without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fiducials: Option<String>,
    /// A root document: bundles signed by those whom it names are taken. Read once, by a door that trusts nobody yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// The picture that the detector sees, width in pixels; the camera's is scaled to it.
    pub detector_width_px: usize,
    /// Its height.
    pub detector_height_px: usize,
}

/// Which camera.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CameraConfig {
    /// Video4Linux device.
    pub device: PathBuf,
    /// Wanted width; the nearest that the camera has is taken.
    pub width_px: u32,
    /// Wanted height.
    pub height_px: u32,
    /// Wanted format.
    pub format: CameraFormat,
    /// Wanted frames a second; left out, the camera's own.
    pub fps: Option<u32>,
    /// How far the picture must be turned clockwise to stand upright: 0, 90, 180 or 270.
    pub rotate_deg: Rotation,
    /// Swap left and right, after turning.
    pub mirror: bool,
    /// Exposure in microseconds; left out, the camera decides.
    pub exposure_us: Option<u32>,
    /// Gain in the camera's own unit; left out, the camera decides.
    pub gain: Option<i32>,
    /// Without a frame for so long the camera counts as lost.
    pub timeout_ms: u64,
}

/// A wanted camera format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CameraFormat {
    /// The camera's best.
    #[default]
    Auto,
    /// Packed 4:2:2.
    Yuyv,
    /// Motion JPEG.
    Mjpeg,
    /// Planar 4:2:0.
    Nv12,
    /// Light only.
    Grey,
}

/// When the door opens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DecisionConfig {
    /// Cosine similarity that counts as the same person; left out, the embedder's table decides by the size of the gallery.
    pub threshold: Option<f32>,
    /// Strangers let in of those who try, at most; 0 to 1. Chooses the threshold.
    pub false_accepts: f64,
    /// Best minus second best person must reach this.
    pub min_rank_gap: f32,
    /// Agreeing frames that open.
    pub votes: u8,
    /// Frames looked back on.
    pub window: u8,
    /// What is asked for beside the face.
    pub second_factor: SecondFactor,
    /// Time to type the PIN, in seconds.
    pub pin_timeout_s: u8,
    /// So many seconds after somebody went in, the same face opens nothing; 0 switches it off.
    pub anti_passback_s: u32,
}

/// What is done against photographs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LivenessConfig {
    /// Left out: a head turn, where a lock is wired; such a door must say so to do without.
    pub mode: Option<LivenessMode>,
    /// Time to turn the head, in seconds.
    pub timeout_s: u8,
}

/// What is done against photographs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LivenessMode {
    /// Nothing: a photograph opens the door.
    Off,
    /// A head turn is asked for.
    Challenge,
}

impl Default for LivenessConfig {
    fn default() -> Self {
        Self { mode: None, timeout_s: 8 }
    }
}

/// What is asked for beside the face.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecondFactor {
    /// Nothing.
    #[default]
    None,
    /// The person's PIN, on the keypad.
    Pin,
}

/// Times of the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionConfig {
    /// How long the door stays released, in seconds.
    pub open_s: u8,
    /// How long a released door may stand open before an alarm, in seconds.
    pub held_s: u16,
    /// Failures in a row that lock out.
    pub lockout_after: u8,
    /// First lock-out in seconds; it doubles with every further failure.
    pub lockout_first_s: u8,
    /// Longest lock-out in seconds.
    pub lockout_max_s: u8,
    /// Failures that may be attacks, without anybody let in between: then nobody is tried until an administrator acts.
    pub bar_after: u16,
}

/// How people are enrolled at the door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnrolConfig {
    /// Views to take.
    pub views: u8,
    /// Least time between two views, in milliseconds.
    pub spacing_ms: u64,
    /// The enrolment is given up after so many seconds.
    pub timeout_s: u16,
    /// Whether up to three chips of the face are kept, sealed under the person's key, to make templates for other models from.
    pub keep_chips: bool,
    /// From which sides views are taken.
    pub poses: Poses,
    /// A view other than the front that is not shown for so long is left out, in seconds.
    pub pose_timeout_s: u8,
    /// The version of the text that people agree to; left out, nobody is asked and no consent is recorded.
    pub consent: Option<String>,
    /// Holding the service button begins an enrolment.
    pub service_button: bool,
    /// An administrator's face begins one.
    pub administrator_face: bool,
    /// The hash of the PIN that begins one; left out, there is none.
    pub admin_pin: Option<String>,
}

/// From which sides views are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Poses {
    /// The person is guided: front, left, right, up, down.
    #[default]
    Guided,
    /// From the front alone.
    Front,
}

/// The link to workstations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkConfig {
    /// Whether there is one at all. Nothing listens before somebody at the door opens it for pairing.
    pub enabled: bool,
    /// Where it listens then: address and port.
    pub listen: SocketAddr,
    /// Whether the local network is told that it listens, by multicast DNS.
    pub announce: bool,
    /// Holding the service button for eight seconds lets one workstation pair, as an administrator.
    pub service_button: bool,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: SocketAddr::from(([0, 0, 0, 0], facelatch_shared::link::PORT)),
            announce: true,
            service_button: true,
        }
    }
}

/// The program as a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceConfig {
    /// The board's watchdog timer, `/dev/watchdog`; left out, none is armed.
    pub watchdog: Option<PathBuf>,
    /// Without a sign of life for so long the watchdog resets the board, in seconds.
    pub watchdog_timeout_s: u32,
    /// Where metrics are served: a port of this machine or a socket; left out, nowhere.
    pub metrics: Option<String>,
}

/// The panel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum PanelConfig {
    /// None.
    #[default]
    None,
    /// A Linux framebuffer.
    Framebuffer {
        /// Its device, `/dev/fb0`.
        device: PathBuf,
    },
    /// A colour panel on the SPI bus.
    Spi(SpiSpec),
    /// Every screen as a PNG file in a folder, for a bench without a panel.
    Png {
        /// The folder.
        dir: PathBuf,
        /// Width in pixels.
        width_px: u32,
        /// Height in pixels.
        height_px: u32,
    },
}

impl Config {
    /// Reads and checks `path`.
    ///
    /// # Errors
    /// [`ConfigError`] with the file, the line where the parser knows it, and the remedy.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.display().to_string(), source })?;
        Self::parse(&text).map_err(|what| ConfigError::Invalid { path: path.display().to_string(), what })
    }

    /// Reads and checks the text of a configuration.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        config.check()?;
        Ok(config)
    }

    /// The rule that decides, for a gallery that holds nobody yet.
    #[must_use]
    pub fn rule(&self, source: &ThresholdSource) -> DecisionRule {
        DecisionRule {
            threshold: source.at(0).threshold,
            min_rank_gap: self.decision.min_rank_gap,
            votes: self.decision.votes,
            window: self.decision.window,
        }
    }

    /// What is done against photographs at this door, whose eyes find fiducials or not.
    ///
    /// # Errors
    /// [`ConfigError::NoLiveness`] when a head turn is to be asked for and could not be seen, or when a door with a lock does not say
    /// that it does without.
    pub fn liveness(&self, finds_fiducials: bool) -> Result<LivenessMode, ConfigError> {
        match self.liveness.mode {
            Some(LivenessMode::Off) => Ok(LivenessMode::Off),
            Some(LivenessMode::Challenge) if finds_fiducials => Ok(LivenessMode::Challenge),
            None if self.lock.is_none() => Ok(LivenessMode::Off),
            None if finds_fiducials => Ok(LivenessMode::Challenge),
            _ => Err(ConfigError::NoLiveness),
        }
    }

    /// Where the threshold comes from: configured, else by the gallery's size from `table`, else the embedder's own fixed one.
    ///
    /// # Errors
    /// [`ConfigError::NoThreshold`] when there is none of these.
    pub fn threshold_source(
        &self,
        table: &[OperatingPoint],
        of_model: Option<Threshold>,
    ) -> Result<ThresholdSource, ConfigError> {
        if let Some(threshold) = self.decision.threshold {
            return Ok(ThresholdSource::Configured(Threshold(threshold)));
        }
        if !table.is_empty() {
            let false_accepts = self.decision.false_accepts;
            return Ok(ThresholdSource::Table { points: table.to_vec(), false_accepts });
        }
        of_model
            .map(ThresholdSource::OfModel)
            .ok_or_else(|| ConfigError::NoThreshold { embedder: self.models.embedder.clone() })
    }

    fn check(&self) -> Result<(), String> {
        let decision = &self.decision;
        if let Some(threshold) = decision.threshold
            && !(0.0..1.0).contains(&threshold)
        {
            return Err(format!(
                "decision.threshold is {threshold}: a cosine from 0 to 1, usually 0.3 to 0.6"
            ));
        }
        if !(0.0..1.0).contains(&decision.min_rank_gap) {
            return Err(format!(
                "decision.min_rank_gap is {}: a difference from 0 to 1",
                decision.min_rank_gap
            ));
        }
        if decision.votes == 0
            || decision.votes > decision.window
            || usize::from(decision.window) > MAX_WINDOW
        {
            return Err(format!(
                "decision.votes = {} of decision.window = {}: votes are 1 to window, window at most {MAX_WINDOW}",
                decision.votes, decision.window
            ));
        }
        if !(decision.false_accepts > 0.0 && decision.false_accepts < 1.0) {
            return Err(format!(
                "decision.false_accepts is {}: strangers let in of those who try, above 0 and below 1, usually 0.0001",
                decision.false_accepts
            ));
        }
        if !(5..=120).contains(&decision.pin_timeout_s) {
            return Err(format!("decision.pin_timeout_s is {}: 5 to 120 seconds", decision.pin_timeout_s));
        }
        let session = &self.session;
        if session.bar_after < u16::from(session.lockout_after) {
            return Err("session.bar_after is less than session.lockout_after".into());
        }
        if decision.second_factor == SecondFactor::Pin && self.keypad.device.is_none() {
            return Err("decision.second_factor is \"pin\": name the keypad in keypad.device".into());
        }
        self.access.calendar()?;
        if session.open_s == 0 || session.lockout_after == 0 || session.lockout_first_s == 0 {
            return Err(
                "session.open_s, session.lockout_after and session.lockout_first_s are at least 1".into()
            );
        }
        if session.lockout_max_s < session.lockout_first_s {
            return Err("session.lockout_max_s is shorter than session.lockout_first_s".into());
        }
        self.enrol.check()?;
        self.service.metrics_place()?;
        if !(2..=600).contains(&self.service.watchdog_timeout_s) {
            return Err(format!(
                "service.watchdog_timeout_s is {}: 2 to 600 seconds",
                self.service.watchdog_timeout_s
            ));
        }
        if !(3..=60).contains(&self.liveness.timeout_s) {
            return Err(format!("liveness.timeout_s is {}: 3 to 60 seconds", self.liveness.timeout_s));
        }
        if let Some(fault) = self.gate.fault() {
            return Err(format!("[gate]: {fault}"));
        }
        for side in [self.models.detector_width_px, self.models.detector_height_px] {
            if !(64..=1280).contains(&side) {
                return Err(format!(
                    "models.detector_width_px and detector_height_px are 64 to 1280, not {side}"
                ));
            }
        }
        Ok(())
    }
}

impl Default for DoorConfig {
    fn default() -> Self {
        Self {
            name: default_name(),
            board: "generic".into(),
            state_dir: PathBuf::from("/var/lib/facelatch"),
            event_log_limit_kib: 4096,
        }
    }
}

impl Default for ModelsConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("/usr/share/facelatch/models"),
            detector: "yunet".into(),
            embedder: "sface".into(),
            fiducials: None,
            root: None,
            detector_width_px: 320,
            detector_height_px: 240,
        }
    }
}

impl Default for CameraConfig {
    fn default() -> Self {
        Self {
            device: PathBuf::from("/dev/video0"),
            width_px: 640,
            height_px: 480,
            format: CameraFormat::Auto,
            fps: None,
            rotate_deg: Rotation::None,
            mirror: false,
            exposure_us: None,
            gain: None,
            timeout_ms: 2_000,
        }
    }
}

impl CameraConfig {
    /// What the camera is opened with.
    #[must_use]
    pub fn spec(&self) -> V4lSpec {
        let format = match self.format {
            CameraFormat::Auto => None,
            CameraFormat::Yuyv => Some(PixelFormat::Yuyv),
            CameraFormat::Mjpeg => Some(PixelFormat::Mjpeg),
            CameraFormat::Nv12 => Some(PixelFormat::Nv12),
            CameraFormat::Grey => Some(PixelFormat::Grey),
        };
        let wish = Wish { format, width_px: self.width_px, height_px: self.height_px };
        let hints = Hints { fps: self.fps, exposure_us: self.exposure_us, gain: self.gain };
        V4lSpec { device: self.device.clone(), wish, hints, frame_timeout_ms: self.timeout_ms }
    }

    /// How its pictures are turned.
    #[must_use]
    pub const fn orientation(&self) -> Orientation {
        Orientation { rotation: self.rotate_deg, mirror: self.mirror }
    }
}

impl Default for DecisionConfig {
    fn default() -> Self {
        Self {
            threshold: None,
            false_accepts: 0.0001,
            min_rank_gap: 0.05,
            votes: 3,
            window: 5,
            second_factor: SecondFactor::None,
            pin_timeout_s: 20,
            anti_passback_s: 0,
        }
    }
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self { open_s: 5, held_s: 30, lockout_after: 5, lockout_first_s: 5, lockout_max_s: 30, bar_after: 50 }
    }
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self { watchdog: None, watchdog_timeout_s: 30, metrics: None }
    }
}

impl ServiceConfig {
    /// Where metrics are served.
    ///
    /// # Errors
    /// What is wrong with the place, in words.
    pub fn metrics_place(&self) -> Result<Option<Place>, String> {
        self.metrics.as_deref().map(str::parse).transpose()
    }
}

impl EnrolConfig {
    fn check(&self) -> Result<(), String> {
        if !(3..=8).contains(&self.views) {
            return Err(format!("enrol.views is {}: 3 to 8 views are kept", self.views));
        }
        if !(3..=60).contains(&self.pose_timeout_s) {
            return Err(format!("enrol.pose_timeout_s is {}: 3 to 60 seconds", self.pose_timeout_s));
        }
        if let Some(text) = &self.consent
            && !(1..=LABEL_BYTES).contains(&text.trim().len())
        {
            return Err(format!(
                "enrol.consent names the version of the text that people agree to, in 1 to {LABEL_BYTES} bytes, such as \"2026-1\""
            ));
        }
        if self.admin_pin.as_deref().is_some_and(|hash| !pin::is_hash(hash)) {
            return Err(
                "enrol.admin_pin is the hash of a PIN: `facelatchd config --hash-pin` prints one".into()
            );
        }
        Ok(())
    }
}

impl Default for EnrolConfig {
    fn default() -> Self {
        Self {
            views: 5,
            spacing_ms: 400,
            timeout_s: 60,
            poses: Poses::Guided,
            pose_timeout_s: 8,
            consent: None,
            service_button: true,
            administrator_face: true,
            admin_pin: None,
            keep_chips: true,
        }
    }
}

fn default_name() -> Name {
    match Name::new("Door") {
        Ok(name) => name,
        Err(_) => unreachable!("the default name is one"),
    }
}

/// Why there is no configuration.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}; `facelatchd config` prints one to start from")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It says something wrong.
    #[error("{path}: {what}")]
    Invalid {
        /// The file.
        path: String,
        /// What, where, and what is allowed.
        what: String,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes, without which the ways to turn the head could be foretold")]
    NoEntropy,
    /// A head turn cannot be seen.
    #[error(
        "a head turn is asked for before a lock opens, and it takes a fiducials net to see one: name it in models.fiducials, or set liveness.mode = \"off\"; a photograph of a face opens the door then"
    )]
    NoLiveness,
    /// Nothing says how close is close enough.
    #[error(
        "the embedder {embedder} carries no threshold: measure one with `facelatch evaluate` and set decision.threshold"
    )]
    NoThreshold {
        /// Its name.
        embedder: String,
    },
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
