//! The training loop: one for all recipes. It owns the run's folder (settings, log, checkpoint), the threads that make
//! batches, the schedule's clock, and stopping; a [`Recipe`] owns nets, loss and optimizer.
//!
//! A killed and resumed run equals the uninterrupted one bit for bit on a CPU, when the schedule is in steps: batches are pure
//! functions of the step, libtorch's generator is seeded from the step before each one, and everything else that a step
//! changes is in the checkpoint.

pub mod config;
pub mod workers;
pub mod optimizer;
pub mod sgd;
pub mod adagrad;
pub mod checkpoint;
pub mod teacher;
pub mod teach;
pub mod replica;
pub mod log;
pub mod tensorboard;
pub mod curves;
mod show;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use sha2::{Digest, Sha256};
use tch::{Device, Tensor};
use thiserror::Error;

use crate::dataset::{self, Random, Stream, shards};
use checkpoint::Counters;
use config::{Draft, Origin, Settings};
pub use log::LOG;
use log::{Log, Values};
use show::Show;
use tensorboard::Events;
pub use workers::{Maker, Workers};

/// What a run reads and where it writes.
#[derive(Debug, Clone)]
pub struct Job {
    /// Where the pictures are; what is in it depends on the recipe.
    pub data: PathBuf,
    /// The run's folder.
    pub out: PathBuf,
    /// Where to compute.
    pub device: Device,
    /// Go on from the folder's checkpoint.
    pub resume: bool,
    /// A teacher's vectors, for recipes that learn from one.
    pub teacher: Option<PathBuf>,
    /// Weights to start from.
    pub start_from: Option<PathBuf>,
    /// End with a checkpoint when this many steps have been taken, before the schedule does.
    pub pause_at: Option<u64>,
    /// Write a checkpoint after every so many steps, besides the ones every few minutes.
    pub save_every: Option<u64>,
    /// Set from outside (a signal) to end with a checkpoint after the step at hand.
    pub stop: Arc<AtomicBool>,
}

impl Job {
    /// A run of `data` into `out` on `device`, with nothing else asked for.
    #[must_use]
    pub fn new(data: &Path, out: &Path, device: Device) -> Self {
        Self {
            data: data.to_owned(),
            out: out.to_owned(),
            device,
            resume: false,
            teacher: None,
            start_from: None,
            pause_at: None,
            save_every: None,
            stop: Arc::default(),
        }
    }
}

/// A step and where in the schedule it lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct At {
    /// Steps taken before.
    pub step: u64,
    /// Share of the schedule that has passed, from 0; the loop ends at 1.
    pub share: f64,
}

/// What one step did.
#[derive(Debug, Clone, PartialEq)]
pub struct Learnt {
    /// The loss; a run whose loss is no number ends.
    pub loss: f64,
    /// Pictures learnt from.
    pub images: usize,
    /// Anything else worth a curve, such as the learning rate; the log holds means over some steps.
    pub more: Vec<(&'static str, f64)>,
}

/// How one kind of net is trained.
pub trait Recipe: Sized {
    /// The name on the command line.
    const NAME: &'static str;
    /// What can be set.
    type Settings: Settings;
    /// What a worker thread makes for one step.
    type Batch: Send + 'static;

    /// Reads the data, makes the nets (seed libtorch with the settings' seed first; read `job.start_from` here) and says on
    /// stderr what it found. The loop fills in the origin's revision.
    ///
    /// # Errors
    /// [`TrainError`]; [`TrainError::recipe`] wraps any other error.
    fn open(job: &Job, settings: &Self::Settings) -> Result<(Self, Origin), TrainError>;

    /// One maker for each thread that shall make batches.
    fn makers(&self) -> Vec<Maker<Self::Batch>>;

    /// Forward, backward, update. libtorch's generator (dropout) has been seeded from the step.
    fn step(&mut self, batch: &Self::Batch, at: At) -> Learnt;

    /// Measures on what was held out; may not change anything that a step reads. Names begin with `held_out_`.
    fn evaluate(&mut self, at: At) -> Values;

    /// Everything that steps change, by name: [`checkpoint::named`] for stores, [`optimizer::Optimizer::state`].
    fn state(&self) -> Vec<(String, Tensor)>;

    /// Takes the state back.
    ///
    /// # Errors
    /// The name of a tensor that is missing or of another shape.
    fn restore(&mut self, state: &[(String, Tensor)]) -> Result<(), String>;
}

/// The file in a run's folder that holds its latest state.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// The file in a run's folder that holds its settings.
pub const SETTINGS: &str = "run.toml";
/// A file of this name in a run's folder ends the run with a checkpoint.
pub const STOP: &str = "stop";

const AHEAD: u64 = 4;
const SAVE_EVERY_S: f64 = 300.0;
const EVALUATE_EVERY_S: f64 = 300.0;
/// On a slow or busy machine an evaluation waits until training has taken this many times as long.
const EVALUATE_SHARE: f64 = 10.0;
const SHOW_EVERY_S: f64 = 20.0;
/// Points of a curve, at least, when the schedule is in steps.
const POINTS: u64 = 100;

/// Runs a recipe with the settings of `draft`, or those of the run when it is resumed.
///
/// # Errors
/// [`TrainError`].
pub fn start<R: Recipe>(job: &Job, draft: &Draft) -> Result<Counters, TrainError> {
    run::<R>(job, &draft.settings(R::NAME)?)
}

/// Runs a recipe to the end of its schedule, or until it is stopped.
///
/// # Errors
/// [`TrainError`].
pub fn run<R: Recipe>(job: &Job, settings: &R::Settings) -> Result<Counters, TrainError> {
    settings.check()?;
    let folder = |source| TrainError::Folder { path: job.out.clone(), source };
    std::fs::create_dir_all(&job.out).map_err(folder)?;
    let path = job.out.join(CHECKPOINT);
    if path.exists() && !job.resume {
        return Err(TrainError::Exists { path });
    }
    let _ = std::fs::remove_file(job.out.join(STOP)); // one that ended the run before
    let (mut recipe, origin) = R::open(job, settings)?;
    let counters = if job.resume {
        let (state, counters) = checkpoint::load(&path)?;
        recipe.restore(&state).map_err(|name| checkpoint::CheckpointError::Misfit { path, name })?;
        counters
    } else {
        Counters::default()
    };
    config::write(&job.out.join(SETTINGS), R::NAME, settings, &Origin { revision: revision(), ..origin })?;
    let log = Log::open(&job.out, counters.step).map_err(folder)?;
    let events = Events::create(&job.out, counters.step).map_err(folder)?;
    Loop { job, settings, recipe, log, events, show: Show::new() }.run(counters)
}

struct Loop<'a, R: Recipe> {
    job: &'a Job,
    settings: &'a R::Settings,
    recipe: R,
    log: Log,
    events: Events,
    show: Show,
}

/// Means since the last line of the log.
struct Since {
    seconds: f64,
    images: u64,
    steps: u32,
    waited: f64,
    sums: Vec<(&'static str, f64)>,
}

impl Since {
    fn new(counters: Counters) -> Self {
        Self { seconds: counters.seconds, images: counters.images, steps: 0, waited: 0.0, sums: Vec::new() }
    }

    fn add(&mut self, learnt: &Learnt) {
        self.steps += 1;
        for (name, value) in [("loss", learnt.loss)].iter().chain(&learnt.more) {
            match self.sums.iter_mut().find(|(n, _)| n == name) {
                Some((_, sum)) => *sum += value,
                None => self.sums.push((name, *value)),
            }
        }
    }

    fn speed(&self, counters: Counters) -> f64 {
        (counters.images - self.images) as f64 / (counters.seconds - self.seconds).max(1e-9)
    }

    fn values(&self, counters: Counters) -> Values {
        let waiting = self.waited / (counters.seconds - self.seconds).max(1e-9);
        let mut values: Values =
            vec![("images_per_s".into(), self.speed(counters)), ("waiting".into(), waiting)];
        values.extend(
            self.sums.iter().map(|(name, sum)| ((*name).to_owned(), sum / f64::from(self.steps.max(1)))),
        );
        values
    }
}

impl<R: Recipe> Loop<'_, R> {
    fn at(&self, step: u64, seconds: f64) -> At {
        At { step, share: self.settings.length().share(step, seconds) }
    }

    fn run(mut self, mut counters: Counters) -> Result<Counters, TrainError> {
        let mut workers = Workers::start(self.recipe.makers());
        let (begun, before) = (Instant::now(), counters.seconds);
        let mut asked = counters.step;
        let (mut saved, mut evaluated, mut measuring) = (before, before, 0.0);
        let mut since = Since::new(counters);
        let every = (self.settings.length().steps / POINTS).max(1);
        let in_steps = self.settings.length().steps > 0;
        if counters.step == 0 {
            self.evaluate(counters)?;
        }
        loop {
            let at = self.at(counters.step, counters.seconds);
            if at.share >= 1.0 || self.stopped(counters.step) {
                break;
            }
            while asked < counters.step + AHEAD {
                workers.request(self.at(asked, counters.seconds));
                asked += 1;
            }
            let waiting = Instant::now();
            let batch = workers.take().ok_or(TrainError::LoaderEnded)?;
            since.waited += waiting.elapsed().as_secs_f64();
            tch::manual_seed(Random::new(self.settings.seed(), Stream::Dropout, at.step).bits() as i64);
            let learnt = self.recipe.step(&batch, at);
            if !learnt.loss.is_finite() {
                return Err(TrainError::NotFinite { step: at.step });
            }
            counters.step += 1;
            counters.images += learnt.images as u64;
            counters.seconds = before + begun.elapsed().as_secs_f64();
            since.add(&learnt);
            let now = counters.seconds;
            let share = self.at(counters.step, now).share;
            self.show.now(share, || status(counters, share, &since));
            if now - since.seconds >= SHOW_EVERY_S || (in_steps && counters.step.is_multiple_of(every)) {
                if now - since.seconds >= SHOW_EVERY_S {
                    self.show.progress(&status(counters, share, &since));
                }
                self.write(counters, &since.values(counters))?;
                since = Since::new(counters);
            }
            if now - evaluated >= EVALUATE_EVERY_S.max(EVALUATE_SHARE * measuring) {
                let measured = Instant::now();
                self.evaluate(counters)?;
                (evaluated, measuring) = (now, measured.elapsed().as_secs_f64());
            }
            let due = self.job.save_every.is_some_and(|n| counters.step.is_multiple_of(n.max(1)));
            if due || now - saved >= SAVE_EVERY_S {
                self.save(counters)?;
                saved = now;
            }
        }
        self.evaluate(counters)?;
        self.save(counters)?;
        Ok(counters)
    }

    fn stopped(&self, step: u64) -> bool {
        self.job.pause_at.is_some_and(|at| step >= at)
            || self.job.stop.load(Ordering::Relaxed)
            || self.job.out.join(STOP).exists()
    }

    fn evaluate(&mut self, counters: Counters) -> Result<(), TrainError> {
        let values = self.recipe.evaluate(self.at(counters.step, counters.seconds));
        if values.is_empty() {
            return Ok(());
        }
        let said: Vec<String> = values
            .iter()
            .map(|(name, v)| format!("{} {v:.4}", name.trim_start_matches("held_out_").replace('_', " ")))
            .collect();
        self.show.line(&format!("step {} · held out: {}", counters.step, said.join(" · ")));
        self.write(counters, &values)
    }

    fn write(&mut self, counters: Counters, values: &[(String, f64)]) -> Result<(), TrainError> {
        self.log
            .write(counters, values)
            .and_then(|()| self.events.scalars(counters.step, values))
            .map_err(|source| TrainError::Folder { path: self.job.out.clone(), source })
    }

    fn save(&self, counters: Counters) -> Result<(), TrainError> {
        checkpoint::save(&self.job.out.join(CHECKPOINT), self.recipe.state(), counters)?;
        // A picture that cannot be drawn is no reason to end a run.
        if let Err(reason) = curves::draw(&self.job.out, &format!("{} · {}", R::NAME, self.job.out.display()))
        {
            self.show.line(&format!("no curves: {reason}"));
        }
        Ok(())
    }
}

/// `step 120 · 45 images/s · loss 1.2345 · rate 1.00e-2 · 12 min left`
fn status(counters: Counters, share: f64, since: &Since) -> String {
    let mut text = format!("step {} · {:.0} images/s", counters.step, since.speed(counters));
    for (name, sum) in &since.sums {
        let mean = sum / f64::from(since.steps.max(1));
        let small = mean != 0.0 && mean.abs() < 0.01;
        text += &if small { format!(" · {name} {mean:.2e}") } else { format!(" · {name} {mean:.4}") };
    }
    let left_s = counters.seconds * (1.0 - share).max(0.0) / share.max(1e-9);
    text + &if left_s < 90.0 {
        format!(" · {left_s:.0} s left")
    } else {
        format!(" · {:.0} min left", left_s / 60.0)
    }
}

/// SHA-256 of a file, for [`Origin::hashes`].
///
/// # Errors
/// [`TrainError::Folder`] naming it.
pub fn hash(path: &Path) -> Result<String, TrainError> {
    let fail = |source| TrainError::Folder { path: path.to_owned(), source };
    let mut file = std::fs::File::open(path).map_err(fail)?;
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut hash).map_err(fail)?;
    Ok(hex::encode(hash.finalize()))
}

/// Revision of the source tree the program is run in, or `unknown`.
fn revision() -> String {
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let dirty = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|s| !s.is_empty());
    git(&["rev-parse", "HEAD"])
        .map_or_else(|| "unknown".to_owned(), |r| r + if dirty { "-dirty" } else { "" })
}

/// Why a run ended early.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrainError {
    /// Settings.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] dataset::manifest::ManifestError),
    /// The shards.
    #[error(transparent)]
    Shards(#[from] shards::ShardError),
    /// The teacher's vectors.
    #[error(transparent)]
    Teacher(#[from] teacher::TeacherError),
    /// The checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::CheckpointError),
    /// Anything else that a recipe met.
    #[error(transparent)]
    Recipe(Box<dyn std::error::Error + Send + Sync>),
    /// A file or folder of the run.
    #[error("{}: {source}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The folder has a run already.
    #[error("{} exists: add --resume to go on with it, or choose another --out", path.display())]
    Exists {
        /// Its checkpoint.
        path: PathBuf,
    },
    /// The recipe learns from a teacher, and none was named.
    #[error(
        "this recipe learns from a teacher: name its vectors with --teacher (facelatch teach makes them)"
    )]
    NoTeacher,
    /// Not enough usable faces.
    #[error("{faces} usable faces are fewer than a batch of {batch}: {hint}")]
    TooFewFaces {
        /// Faces.
        faces: usize,
        /// Batch.
        batch: usize,
        /// What may be wrong.
        hint: &'static str,
    },
    /// The thread that makes batches has ended.
    #[error(
        "the thread that makes batches has ended, see the message above; --resume goes on from the last checkpoint"
    )]
    LoaderEnded,
    /// The loss is no number any more.
    #[error(
        "the loss at step {step} is not finite: lower learning_rate, then --resume from the last checkpoint"
    )]
    NotFinite {
        /// The step.
        step: u64,
    },
}

impl TrainError {
    /// Wraps a recipe's own error.
    #[must_use]
    pub fn recipe(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Recipe(error.into())
    }
}
