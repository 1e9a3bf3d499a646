//! `facelatchd soak`: the whole door on a long replay, to see that it neither grows nor forgets.
//!
//! Photographs are played as raw frames through the three threads that run on the board, with files in a folder, a simulated lock and simulated time.
//! A known person comes in every cycle, a stranger in every fifth; in between nobody is there.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use facelatch_shared::event::EventKind;
use facelatch_shared::person::{Name, NameError};
use facelatch_shared::protocol::Request;
use facelatch_shared::time::UnixMs;
use facelatch_shared::vision::VisionError;
use serde::Serialize;
use thiserror::Error;

use crate::camera::Camera;
use crate::camera::orientation::Orientation;
use crate::camera::pace::Pace;
use crate::camera::replay::{Replay, Shot};
use crate::camera::scene::Scene;
use crate::clock::{Clock, SimClock};
use crate::config::{Config, ConfigError, Poses};
use crate::control::{State, StateError};
use crate::daemon::{Rules, load_eyes, rules};
use crate::demo::photos::{Photo, PhotoError};
use crate::display::MemoryDisplay;
use crate::door::{Door, FrameReport, Parts};
use crate::inputs::fake::FakeInputs;
use crate::inputs::keypad::NoKeypad;
use crate::lock::fake::FakeLock;
use crate::metrics::{STAGES, resident_bytes};
use crate::runner::{self, NoUpkeep, RunError, Source, Watcher};

/// What to play, and where.
#[derive(Clone, Debug, clap::Args)]
pub struct SoakArgs {
    /// Frames to play
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub frames: u32,
    /// The folder with the models' manifest.toml
    #[arg(long, value_name = "DIR", default_value = "target/models")]
    pub models: PathBuf,
    /// The embedder's name in it
    #[arg(long, value_name = "NAME", default_value = "sface")]
    pub embedder: String,
    /// A photograph of the person who is enrolled
    #[arg(long, value_name = "FILE")]
    pub known: PathBuf,
    /// A photograph of somebody else
    #[arg(long, value_name = "FILE")]
    pub stranger: PathBuf,
    /// Width in pixels of the picture that the detector sees; its height is three quarters of it
    #[arg(long, value_name = "PX", default_value_t = 320)]
    pub detector_width_px: usize,
    /// Where gallery and log are written; the folder must be empty or not there
    #[arg(long, value_name = "DIR", default_value = "target/soak")]
    pub out: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What a soak found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Frames played.
    pub frames: u64,
    /// Seconds it took.
    pub seconds: f64,
    /// Memory in RAM after the warm-up, the first tenth, in bytes.
    pub resident_warm: u64,
    /// The most there was after that.
    pub resident_most: u64,
    /// At the end.
    pub resident_end: u64,
    /// Times the known person was let in, and times there should have been.
    pub granted: [u64; 2],
    /// The same of strangers refused.
    pub refused: [u64; 2],
    /// Events in the log that could not be stored.
    pub events_lost: u64,
    /// Events that happened, and those that the log, read again, holds or says it rotated out.
    pub events: [u64; 2],
    /// Whether the log's chain holds.
    pub chain_intact: bool,
    /// Frames that never reached the session.
    pub frames_lost: u64,
    /// p50 and p99 of each stage in microseconds.
    pub stages: Vec<Stage>,
}

/// One stage's times.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    /// Its name.
    pub name: &'static str,
    /// Frames that it took part in.
    pub frames: u64,
    /// Median.
    pub p50_us: u32,
    /// 99th percentile.
    pub p99_us: u32,
}

impl Report {
    /// What is not as it should be.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let grown = self.resident_most.saturating_sub(self.resident_warm);
        if grown > MAY_GROW {
            faults.push(format!("memory grew by {grown} bytes after the warm-up"));
        }
        for (what, [got, wanted]) in
            [("granted", self.granted), ("refused", self.refused), ("events", self.events)]
        {
            if got != wanted {
                faults.push(format!("{what}: {got} instead of {wanted}"));
            }
        }
        if self.events_lost > 0 || !self.chain_intact {
            faults.push(format!("{} events lost, chain intact: {}", self.events_lost, self.chain_intact));
        }
        if self.frames_lost > 0 {
            faults.push(format!("{} frames lost", self.frames_lost));
        }
        faults
    }
}

/// Plays `args.frames` frames.
///
/// # Errors
/// [`SoakError`] when it cannot be played at all.
pub fn run(args: &SoakArgs, stop: Arc<AtomicBool>) -> Result<Report, SoakError> {
    let mut config = Config::default();
    // One still photograph enrols.
    config.enrol.poses = Poses::Front;
    config.models.dir.clone_from(&args.models);
    config.models.embedder.clone_from(&args.embedder);
    config.models.detector_width_px = args.detector_width_px;
    config.models.detector_height_px = args.detector_width_px * 3 / 4;
    config.door.state_dir.clone_from(&args.out);
    if std::fs::read_dir(&args.out).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(SoakError::NotEmpty { path: args.out.display().to_string() });
    }
    let mut eyes = load_eyes(&config)?;
    let known = Photo::load(&args.known, &mut eyes)?;
    let stranger = Photo::load(&args.stranger, &mut eyes)?;
    let (shots, cycles) = script(args.frames, &known, &stranger);
    drop((known, stranger));

    let sim = Arc::new(SimClock::starting_at(DAY));
    let pace = Pace::new();
    let frames: u64 = shots.iter().map(Shot::playing).sum();
    let replay = Replay::new(shots, 1, Arc::clone(&sim), Arc::clone(&pace));
    let clock: Arc<dyn Clock> = sim;
    let (lock, _probe) = FakeLock::new(Arc::clone(&clock));
    let State { people, log, .. } = State::open_or_create(&config.door, &*clock)?;
    let Rules { session, threshold, keeper } = rules(&config, &eyes, &log)?;
    let door = Door::start(Parts {
        session,
        people,
        log,
        lock: Box::new(lock),
        inputs: Box::new(FakeInputs::new()),
        keypad: Box::new(NoKeypad),
        display: Box::new(Forgetful(MemoryDisplay::new())),
        clock: Arc::clone(&clock),
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
        clock: Arc::clone(&clock),
        update: None,
        pace: Some(pace),
        looks: None,
        stop,
    };
    let mut watch = Watch::new(frames, Name::new("Known")?);
    let (_nobody, control) = sync_channel(1);
    let start = Instant::now();
    runner::run(door, eyes, source, &control, &mut watch)?;
    let seconds = start.elapsed().as_secs_f64();

    let State { mut log, .. } = State::open(&config.door, &*clock)?;
    let (events, verification) = log.read().map_err(StateError::from)?;
    // Numbers are never reused: the newest one says how many there were; `Started` came before the first report, `Stopped` after the last.
    let logged = events.last().map_or(0, |event| event.seq);
    let lost = events.iter().map(|event| match event.kind {
        EventKind::EventsLost { count } => u64::from(count),
        _ => 0,
    });
    Ok(Report {
        frames: watch.seen,
        seconds,
        resident_warm: watch.warm,
        resident_most: watch.most,
        resident_end: watch.last,
        granted: [watch.granted, cycles.known],
        refused: [watch.refused, cycles.strangers],
        events_lost: lost.sum(),
        // The log itself adds an entry when it is rotated; what happened is at most what it numbers.
        events: [logged.min(watch.events + 1), watch.events + 1],
        chain_intact: verification.is_intact(),
        frames_lost: frames - watch.seen,
        stages: watch.stages(),
    })
}

struct Cycles {
    known: u64,
    strangers: u64,
}

/// The first cycle enrols; each further one lets the known person in, every fifth a stranger refused.
fn script(frames: u32, known: &Photo, stranger: &Photo) -> (Vec<Shot>, Cycles) {
    let shot = |scene: Scene| Shot::of(Arc::new(scene.finish())).every_ms(FRAME_MS);
    let nobody = shot(Scene::blank());
    let (come, other) = (shot(known.at_the_door(0, 0.5, 0.5)), shot(stranger.at_the_door(0, 0.5, 0.5)));
    let mut shots = vec![come.clone().frames(ENROL_FRAMES), nobody.clone().frames(CYCLE - ENROL_FRAMES)];
    let mut cycles = Cycles { known: 0, strangers: 0 };
    for cycle in 1..frames / CYCLE {
        if cycle % 5 == 0 {
            shots.push(other.clone().frames(REFUSAL));
            shots.push(nobody.clone().frames(CYCLE - REFUSAL));
            cycles.strangers += 1;
        } else {
            shots.push(come.clone().frames(VISIT));
            shots.push(nobody.clone().frames(CYCLE - VISIT));
            cycles.known += 1;
        }
    }
    shots.push(nobody.frames(frames % CYCLE));
    (shots, cycles)
}

/// Keeps no screens: a record of a hundred thousand would be the growth that is looked for.
struct Forgetful(MemoryDisplay);

impl crate::display::Display for Forgetful {
    fn show(&mut self, screen: &crate::display::Screen) -> Result<(), crate::display::DisplayError> {
        let shown = std::mem::take(&mut self.0).show(screen);
        shown.map(drop)
    }
}

struct Watch {
    name: Option<Name>,
    seen: u64,
    warm_at: u64,
    warm: u64,
    most: u64,
    last: u64,
    granted: u64,
    refused: u64,
    events: u64,
    times: [Histogram; 6],
}

impl Watch {
    fn new(frames: u64, name: Name) -> Self {
        Self {
            name: Some(name),
            seen: 0,
            warm_at: frames / 10,
            warm: 0,
            most: 0,
            last: 0,
            granted: 0,
            refused: 0,
            events: 0,
            times: Default::default(),
        }
    }

    fn stages(&self) -> Vec<Stage> {
        let stage = |(name, times): (&'static str, &Histogram)| Stage {
            name,
            frames: times.count,
            p50_us: times.percentile(0.50),
            p99_us: times.percentile(0.99),
        };
        STAGES.into_iter().zip(&self.times).map(stage).collect()
    }
}

impl Watcher for Watch {
    fn frame(&mut self, report: &FrameReport) -> Vec<Request> {
        self.seen += 1;
        let t = &report.timings;
        let us = [t.decode_us, t.detect_us, t.quality_us, t.align_us, t.embed_us, t.match_us];
        self.times.iter_mut().zip(us).filter(|(_, us)| *us > 0).for_each(|(times, us)| times.add(us));
        self.events += report.events.len() as u64;
        for event in &report.events {
            match event {
                EventKind::Granted { .. } => self.granted += 1,
                EventKind::Refused { .. } => self.refused += 1,
                _ => {}
            }
        }
        if self.seen.is_multiple_of(MEASURE_EVERY) || self.seen == self.warm_at {
            self.last = resident_bytes();
            if self.seen >= self.warm_at {
                if self.warm == 0 {
                    self.warm = self.last;
                }
                self.most = self.most.max(self.last);
            }
        }
        self.name.take().map(|name| Request::Enrol { name }).into_iter().collect()
    }
}

/// Times in buckets of about one per cent: nothing grows while it counts.
#[derive(Debug)]
struct Histogram {
    buckets: Vec<u32>,
    count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; 32 * PER_OCTAVE], count: 0 }
    }
}

impl Histogram {
    fn add(&mut self, us: u32) {
        let bucket = (f64::from(us.max(1)).log2() * PER_OCTAVE as f64) as usize;
        let last = self.buckets.len() - 1;
        self.buckets[bucket.min(last)] += 1;
        self.count += 1;
    }

    /// The least time that the share `of` does not pass, within one per cent.
    fn percentile(&self, of: f64) -> u32 {
        let wanted = (self.count as f64 * of).ceil().max(1.0) as u64;
        let mut below = 0;
        for (bucket, &count) in self.buckets.iter().enumerate() {
            below += u64::from(count);
            if below >= wanted {
                return ((bucket as f64 + 0.5) / PER_OCTAVE as f64).exp2().round() as u32;
            }
        }
        0
    }
}

/// Why nothing was played.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SoakError {
    /// The models.
    #[error(transparent)]
    Vision(#[from] VisionError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A photograph.
    #[error(transparent)]
    Photo(#[from] PhotoError),
    /// Gallery or log.
    #[error(transparent)]
    State(#[from] StateError),
    /// The person's name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A thread died.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Somebody's files.
    #[error("{path} is not empty: choose another folder with --out, or remove it")]
    NotEmpty {
        /// The folder.
        path: String,
    },
}

/// A Monday morning.
const DAY: UnixMs = UnixMs(1_767_600_000_000);
const FRAME_MS: u64 = 100;
/// Frames from one visit to the next; longer than a welcome, a refusal and their forgiveness take.
const CYCLE: u32 = 100;
/// Frames of one visit: enough for one decision, not for two.
const VISIT: u32 = 4;
/// The same for a refusal, which wants the whole window.
const REFUSAL: u32 = 7;
/// Frames of the enrolment: five views, 400 ms apart, and some to spare.
const ENROL_FRAMES: u32 = 30;
const MEASURE_EVERY: u64 = 100;
/// What memory may grow by after the warm-up.
const MAY_GROW: u64 = 1 << 20;
const PER_OCTAVE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_bucket() {
        let mut times = Histogram::default();
        (1..=1_000).for_each(|us| times.add(us * 10));
        for (of, expected) in [(0.5, 5_000.0), (0.99, 9_900.0), (0.0, 10.0), (1.0, 10_000.0)] {
            let got = f64::from(times.percentile(of));
            assert!((got / expected - 1.0).abs() < 0.06, "{of}: {got}");
        }
        assert_eq!(Histogram::default().percentile(0.5), 0);
    }

    #[test]
    fn every_kind_of_fault_is_told() {
        let well = Report {
            frames: 10,
            seconds: 1.0,
            resident_warm: 100,
            resident_most: 100 + MAY_GROW,
            resident_end: 100,
            granted: [1, 1],
            refused: [2, 2],
            events_lost: 0,
            events: [9, 9],
            chain_intact: true,
            frames_lost: 0,
            stages: vec![],
        };
        assert!(well.faults().is_empty());
        let ill = Report {
            resident_most: 101 + MAY_GROW,
            granted: [0, 1],
            refused: [3, 2],
            events: [8, 9],
            events_lost: 1,
            frames_lost: 1,
            ..well
        };
        assert_eq!(ill.faults().len(), 6);
    }
}
