//! The door live on a camera, without a lock: enrol whoever comes first, then greet those who are known.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;

use facelatch_shared::person::Name;
use facelatch_shared::protocol::Request;
use facelatch_shared::time::Millis;
use facelatch_shared::vision::Eyes;

use super::story::StoryError;
use super::{DemoArgs, DemoError, PANEL};
use crate::camera::Camera;
use crate::camera::orientation::Orientation;
use crate::camera::v4l::V4lCamera;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::control::State;
use crate::daemon::{Rules, rules};
use crate::display::PngDisplay;
use crate::door::{Door, FrameReport, Parts};
use crate::inputs::fake::FakeInputs;
use crate::inputs::keypad::NoKeypad;
use crate::lock::none::NoLock;
use crate::runner::{self, NoUpkeep, Source, Watcher};

/// Runs until it is stopped or the seconds are over.
pub(super) fn run(
    args: &DemoArgs,
    device: &Path,
    mut config: Config,
    eyes: Eyes,
    out: &mut dyn Write,
    stop: Arc<AtomicBool>,
) -> Result<bool, DemoError> {
    config.camera.device = device.to_owned();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let State { people, log, .. } = State::open_or_create(&config.door, &*clock)?;
    let panel_dir = args.out.join("panel");
    let Rules { session, threshold, keeper } = rules(&config, &eyes, &log)?;
    let door = Door::start(Parts {
        session,
        people,
        log,
        lock: Box::new(NoLock),
        inputs: Box::new(FakeInputs::new()),
        keypad: Box::new(NoKeypad),
        display: Box::new(PngDisplay::new(&panel_dir, PANEL)?),
        clock: Arc::clone(&clock),
        keeper,
        threshold,
        binding: eyes.binding(),
        compatible: Vec::new(),
        keep_chips: config.enrol.keep_chips,
        name: config.door.name.clone(),
    });
    // Live, a camera that does not open is the user's to mend at once, not to wait for.
    let spec = config.camera.spec();
    drop(V4lCamera::open(&spec, Arc::clone(&clock)).map_err(|error| DemoError::Camera(error.to_string()))?);
    writeln!(
        out,
        "Live from {}. Look at the camera: you are enrolled as \"Visitor\", then greeted. Ctrl-C ends it; screens go to {}.",
        device.display(),
        panel_dir.display()
    )?;
    let camera_clock = Arc::clone(&clock);
    let open_camera = Box::new(move || {
        V4lCamera::open(&spec, Arc::clone(&camera_clock)).map(|camera| Box::new(camera) as Box<dyn Camera>)
    });
    let until = args.seconds.map(|s| Millis(s.saturating_mul(1000)));
    let visitor = Name::new("Visitor").map_err(StoryError::from)?;
    let mut watcher = Live { out, visitor: Some(visitor), last: "", until, stop: Arc::clone(&stop) };
    let source = Source {
        open_camera,
        orientation: Orientation::default(),
        upkeep: Box::new(NoUpkeep),
        clock,
        update: None,
        pace: None,
        looks: None,
        stop,
    };
    let (_nobody, control) = sync_channel(1);
    runner::run(door, eyes, source, &control, &mut watcher)?;
    Ok(true)
}

struct Live<'a> {
    out: &'a mut dyn Write,
    /// Whom to enrol at the first frame.
    visitor: Option<Name>,
    last: &'static str,
    until: Option<Millis>,
    stop: Arc<AtomicBool>,
}

impl Watcher for Live<'_> {
    fn frame(&mut self, report: &FrameReport) -> Vec<Request> {
        let slug = report.screen.slug();
        let mut line = String::new();
        if slug != self.last {
            self.last = slug;
            line = format!("{:>8.1} s  panel: {slug}", report.at.0 as f64 / 1000.0);
            if let Some(best) = report.report.and_then(|r| r.best) {
                line.push_str(&format!(", closest {} at {}", best.subject, best.similarity));
            }
            line.push('\n');
        }
        for event in &report.events {
            line.push_str(&format!("{:>8.1} s  {event:?}\n", report.at.0 as f64 / 1000.0));
        }
        // A closed pipe ends the demonstration.
        if self.out.write_all(line.as_bytes()).is_err() || self.until.is_some_and(|until| report.at >= until)
        {
            self.stop.store(true, Ordering::SeqCst);
        }
        self.visitor.take().map(|name| Request::Enrol { name }).into_iter().collect()
    }
}
