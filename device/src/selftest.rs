//! What an installer wants to know before leaving: does every part of this door do its work, and if not, what is to be done.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use facelatch_shared::embedding::ModelBinding;
use facelatch_shared::frame::RgbView;
use facelatch_shared::score::Threshold;
use facelatch_shared::time::{Millis, UnixMs};
use facelatch_shared::vision::lineage::Allows;
use facelatch_shared::vision::{Eyes, ManifestEntry};
use serde::Serialize;

use crate::camera::v4l::V4lCamera;
use crate::camera::{Camera, RawFrame};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::control::{Client, State};
use crate::daemon::open_display;
use crate::decode::Decoder;
use crate::display::Screen;
use crate::inputs::Inputs as _;
use crate::inputs::gpio::GpioInputs;
use crate::lock::Lock as _;
use crate::lock::gpio::GpioLock;
use crate::update::models::{self, Loaded};

/// How one check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Passed,
    /// It works, and might be better.
    Warned,
    /// It does not work.
    Failed,
    /// There is nothing to check, or something else failed first.
    Skipped,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// What was found, in words and figures.
    pub said: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Check {
    /// As it should be.
    pub fn passed(name: &'static str, said: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Passed, said: said.into(), remedy: None }
    }

    /// It works, and `remedy` might make it better.
    pub fn warned(name: &'static str, said: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Warned, said: said.into(), remedy: Some(remedy.into()) }
    }

    /// It does not work.
    pub fn failed(name: &'static str, said: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = Some(remedy.into()).filter(|text| !text.is_empty());
        Self { name, outcome: Outcome::Failed, said: said.into(), remedy }
    }

    /// Nothing to check.
    pub fn skipped(name: &'static str, said: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Skipped, said: said.into(), remedy: None }
    }
}

/// All checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The program's version.
    pub version: &'static str,
    /// When, in milliseconds since 1970.
    pub at_unix_ms: i64,
    /// In the order in which they were made.
    pub checks: Vec<Check>,
}

impl Report {
    fn count(&self, outcome: Outcome) -> usize {
        self.checks.iter().filter(|check| check.outcome == outcome).count()
    }

    /// How many failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.count(Outcome::Failed)
    }

    /// In one line.
    #[must_use]
    pub fn summary(&self) -> String {
        format!(
            "{} passed, {} to look at, {} failed, {} skipped",
            self.count(Outcome::Passed),
            self.count(Outcome::Warned),
            self.failed(),
            self.count(Outcome::Skipped)
        )
    }
}

/// Makes every check on the hardware of `config`. With `pulse` the lock is released for half a second.
#[must_use]
pub fn run(config: &Config, pulse: bool) -> Report {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let at_unix_ms = clock.unix().0;
    let report = |checks| Report { version: env!("CARGO_PKG_VERSION"), at_unix_ms, checks };
    if Client::connect(&config.door.state_dir).is_ok() {
        let stop = "stop it first: systemctl stop facelatchd";
        return report(vec![Check::failed("door", "it runs, and holds camera, lock and files", stop)]);
    }
    let mut checks = vec![check_storage(&config.door.state_dir)];
    let mut state = State::open_or_create(&config.door, &*clock);
    let newest = state.as_mut().ok().and_then(newest_event);
    checks.push(check_clock(clock.unix(), newest));
    let mut loaded = models::look(config);
    checks.push(match &mut loaded {
        Ok(loaded) => check_models(loaded),
        Err(error) => Check::failed("models", error.to_string(), ""),
    });
    if let Ok(loaded) = &loaded {
        let allows = |m: &ManifestEntry| m.lineage.as_ref().map(|l| l.allows);
        let models = loaded.eyes.models();
        let models: Vec<_> = models.iter().map(|m| (&*m.name, &*m.licence, allows(m))).collect();
        checks.push(check_lineage(&models));
    }
    checks.push(match (&state, &loaded) {
        (Err(error), _) => Check::failed("people", error.to_string(), ""),
        (Ok(state), Ok(Loaded { in_use, threshold, .. })) => {
            let templates = state.people.templates_of(in_use.binding);
            check_people(state, in_use.binding, Some(threshold.at(templates).threshold))
        }
        (Ok(_), Err(_)) => Check::skipped("people", "needs the models"),
    });
    checks.push(check_camera(config, &clock));
    checks.push(check_inputs(config, &clock));
    checks.push(check_lock(config, pulse));
    let mut all = report(checks);
    all.checks.push(check_panel(config, &all));
    all
}

/// A file written, made durable, read back, removed; and room for more.
fn check_storage(folder: &Path) -> Check {
    let probe = folder.join(".selftest");
    let start = Instant::now();
    let payload = [0x5A; 4096];
    let written = std::fs::create_dir_all(folder).and_then(|()| {
        let mut file = std::fs::File::create(&probe)?;
        file.write_all(&payload)?;
        file.sync_all()?;
        let back = std::fs::read(&probe)?;
        std::fs::remove_file(&probe)?;
        Ok(back == payload)
    });
    let ms = start.elapsed().as_secs_f64() * 1000.0;
    let shown = folder.display();
    match written {
        Err(error) => Check::failed(
            "storage",
            format!("{shown}: {error}"),
            "the folder must be writable by the door's user, and the medium must have room",
        ),
        Ok(false) => Check::failed(
            "storage",
            format!("{shown}: what was written is read back otherwise"),
            "replace the medium",
        ),
        Ok(true) if ms > 1_000.0 => Check::warned(
            "storage",
            format!("{shown}: a durable write takes {ms:.0} ms"),
            "use a faster or newer medium",
        ),
        Ok(true) => Check::passed("storage", format!("{shown}: a durable write takes {ms:.1} ms")),
    }
}

fn newest_event(state: &mut State) -> Option<UnixMs> {
    state.log.read().ok()?.0.last().map(|event| event.at)
}

/// Schedules and the log need the time of day.
fn check_clock(now: UnixMs, newest: Option<UnixMs>) -> Check {
    let day = format!("{} days after 1970", now.0 / 86_400_000);
    if now.0 < EARLIEST_MS {
        return Check::failed(
            "clock",
            format!("the clock stands at {day}"),
            "set it: let timesyncd or chrony reach a time server, or fit a battery-backed clock",
        );
    }
    match newest {
        Some(before) if before.0 > now.0 => Check::warned(
            "clock",
            format!("the log's newest entry is {} s in the future", (before.0 - now.0) / 1000),
            "the clock was set back: check the time and where it comes from",
        ),
        _ => Check::passed("clock", format!("plausible ({day})")),
    }
}

/// The models run on a picture without a face.
fn check_models(loaded: &mut Loaded) -> Check {
    let from = &loaded.in_use;
    let mut check = check_eyes(&mut loaded.eyes);
    check.said = format!("{from}: {}", check.said);
    check
}

fn check_eyes(eyes: &mut Eyes) -> Check {
    let grey = vec![128; 640 * 480 * 3];
    let Ok(view) = RgbView::new(&grey, 640, 480) else {
        return Check::skipped("models", "no picture");
    };
    let start = Instant::now();
    match eyes.observe(&view, 1, Millis(0)) {
        Ok(seen) if seen.faces.is_empty() => Check::passed(
            "models",
            format!("a frame without a face takes {:.0} ms", start.elapsed().as_secs_f64() * 1000.0),
        ),
        Ok(seen) => Check::failed(
            "models",
            format!("{} faces seen in an empty picture", seen.faces.len()),
            "import the models again: facelatch models import",
        ),
        Err(error) => {
            Check::failed("models", error.to_string(), "import the models again: facelatch models import")
        }
    }
}

/// Whether the models' data allow a door that somebody relies on; name, licence and what the data allow, of each.
fn check_lineage(models: &[(&str, &str, Option<Allows>)]) -> Check {
    let of = |wanted| {
        let names = models.iter().filter(|(_, _, allows)| *allows == wanted);
        names.map(|(name, ..)| *name).collect::<Vec<_>>().join(", ")
    };
    let licences: Vec<_> = models.iter().map(|(name, licence, _)| format!("{name} ({licence})")).collect();
    let licences = licences.join(", ");
    let (research, unknown) = (of(Some(Allows::Research)), of(None));
    if !research.is_empty() {
        return Check::warned(
            "lineage",
            format!("{licences}; learnt from pictures for research only: {research}"),
            "no product may rest on that without clearing it; `facelatch models list` shows the data",
        );
    }
    let unstated = if unknown.is_empty() {
        String::new()
    } else {
        format!("; the makers of {unknown} do not state the data")
    };
    Check::passed("lineage", licences + &unstated)
}

/// How near this door's own people are to being mistaken for one another.
fn check_people(state: &State, binding: ModelBinding, threshold: Option<Threshold>) -> Check {
    let people = &state.people;
    if !state.log_check.is_intact() {
        return Check::warned(
            "people",
            "the event log's chain is broken",
            "look at it: facelatchd events verify",
        );
    }
    if people.is_empty() {
        return Check::skipped("people", "nobody is enrolled yet");
    }
    let (Some((one, other)), Some(threshold)) = (people.closest_pair(binding), threshold) else {
        return Check::passed("people", format!("{} enrolled; no two to compare", people.len()));
    };
    let margin = threshold.0 - other.similarity.0;
    let said = format!(
        "{} enrolled; the closest two (#{} and #{}) reach {:.3} of {:.3}: margin {margin:.3}",
        people.len(),
        one.0,
        other.subject.0,
        other.similarity.0,
        threshold.0
    );
    if margin < 0.0 {
        Check::failed(
            "people",
            said,
            "one may be taken for the other: enrol both anew in better light, or raise decision.threshold",
        )
    } else if margin < 0.05 {
        Check::warned("people", said, "they are near each other: enrol both anew in better light")
    } else {
        Check::passed("people", said)
    }
}

/// Frames, how fast they come, and how light they are.
fn check_camera(config: &Config, clock: &Arc<dyn Clock>) -> Check {
    let mut camera = match V4lCamera::open(&config.camera.spec(), Arc::clone(clock)) {
        Ok(camera) => camera,
        Err(error) => return Check::failed("camera", error.to_string(), ""),
    };
    let mut decoder = Decoder::turning(config.camera.orientation());
    let mut frame = RawFrame::default();
    let (mut lumas, mut bad, mut started) = (Vec::new(), 0, None::<Instant>);
    while lumas.len() + bad < FRAMES && started.is_none_or(|at| at.elapsed() < Duration::from_secs(5)) {
        if let Err(error) = camera.next_frame(&mut frame) {
            return Check::failed("camera", error.to_string(), "");
        }
        // The first frame is of before.
        started.get_or_insert_with(Instant::now);
        match decoder.decode(&frame) {
            Ok(view) => lumas.push(mean_luma(&view)),
            Err(_) => bad += 1,
        }
    }
    let seconds = started.map_or(0.0, |at| at.elapsed().as_secs_f64());
    let fps = (lumas.len() + bad).saturating_sub(1) as f64 / seconds.max(1e-3);
    if lumas.is_empty() {
        return Check::failed(
            "camera",
            "no frame can be decoded",
            "check its cable, or set another [camera] format",
        );
    }
    let light = lumas.iter().sum::<f64>() / lumas.len() as f64;
    judge_camera(&camera.describe(), fps, light, bad)
}

fn judge_camera(which: &str, fps: f64, light: f64, bad: usize) -> Check {
    let said = format!("{which}; {fps:.1} frames a second, mean light {light:.0} of 255, {bad} damaged");
    if bad > 2 {
        Check::warned("camera", said, "check its cable and power, or set [camera] format to \"yuyv\"")
    } else if light < 40.0 {
        Check::warned("camera", said, "too dark: add a lamp, or raise [camera] exposure_us or gain")
    } else if light > 215.0 {
        Check::warned(
            "camera",
            said,
            "too bright: keep the sun out of the picture, or lower [camera] exposure_us",
        )
    } else if fps < 8.0 {
        Check::warned(
            "camera",
            said,
            "slow: choose a smaller size or \"mjpeg\" in [camera]; dim light slows some cameras down",
        )
    } else {
        Check::passed("camera", said)
    }
}

/// Mean of ITU-R BT.601 luma over every fourth pixel, 0 to 255.
fn mean_luma(view: &RgbView<'_>) -> f64 {
    let (mut sum, mut count) = (0_u64, 0_u64);
    for pixel in view.data().chunks_exact(3).step_by(4) {
        sum += 77 * u64::from(pixel[0]) + 150 * u64::from(pixel[1]) + 29 * u64::from(pixel[2]);
        count += 256;
    }
    sum as f64 / count.max(1) as f64
}

fn check_inputs(config: &Config, clock: &Arc<dyn Clock>) -> Check {
    let spec = &config.inputs;
    if [&spec.door_open, &spec.exit_request, &spec.service, &spec.tamper].iter().all(|input| input.is_none())
    {
        return Check::skipped("inputs", "none are configured");
    }
    match GpioInputs::open(spec, Arc::clone(clock)) {
        Err(error) => Check::failed("inputs", error.to_string(), ""),
        Ok(mut inputs) => match inputs.read() {
            Err(error) => Check::failed("inputs", error, ""),
            Ok(state) if state.exit_requested => Check::warned(
                "inputs",
                "the exit button reads as pressed",
                "if nobody presses it, turn active_low of inputs.exit_request round",
            ),
            Ok(state) => {
                let door = match state.door_open {
                    Some(true) => "open",
                    Some(false) => "shut",
                    None => "not wired",
                };
                Check::passed("inputs", format!("door {door}, exit button not pressed"))
            }
        },
    }
}

fn check_lock(config: &Config, pulse: bool) -> Check {
    let Some(spec) = &config.lock else {
        return Check::skipped("lock", "none is configured");
    };
    let mut lock = match GpioLock::open(spec) {
        Ok(lock) => lock,
        Err(error) => return Check::failed("lock", error.to_string(), ""),
    };
    if !pulse {
        return Check::passed("lock", "the line is there and secured; --pulse releases it once");
    }
    let released = lock.release();
    std::thread::sleep(PULSE);
    match released.and(lock.secure()) {
        Ok(()) => Check::passed(
            "lock",
            format!("released for {} ms and secured: did the door open, and only then?", PULSE.as_millis()),
        ),
        Err(error) => Check::failed("lock", error.to_string(), ""),
    }
}

/// The panel shows how the others went.
fn check_panel(config: &Config, report: &Report) -> Check {
    if config.panel == crate::config::PanelConfig::None {
        return Check::skipped("panel", "none is configured");
    }
    let failed = report.checks.iter().filter(|check| check.outcome == Outcome::Failed);
    let screen = Screen::SelfTest { failed: failed.map(|check| check.name).collect() };
    match open_display(&config.panel).and_then(|mut panel| panel.show(&screen)) {
        Ok(()) => Check::passed("panel", "shows the result"),
        Err(error) => Check::failed("panel", error.to_string(), ""),
    }
}

/// 2024-01-01: a board that believes an earlier day has not been told the time.
const EARLIEST_MS: i64 = 1_704_067_200_000;
/// Frames that are looked at.
const FRAMES: usize = 30;
/// How long the lock is released.
const PULSE: Duration = Duration::from_millis(500);

#[cfg(test)]
#[path = "selftest_tests.rs"]
mod tests;
