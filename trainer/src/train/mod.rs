//! The training loop: distillation of the compact net, resumable, with its settings, log and checkpoints in one folder.

pub mod config;
pub mod optimizer;
pub mod checkpoint;
pub mod teacher;
pub mod teach;
pub mod replica;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor, nn::VarStore};
use thiserror::Error;

use crate::dataset::{self, Augment, Loader, Random, Source, Stream, batches::Order, shards};
use crate::loss::distill;
use crate::model::compact::Compact;
use crate::model::layers::Mode;
use checkpoint::Counters;
use config::RunConfig;
use optimizer::Optimizer;
use replica::{Part, Replica};

/// What a run reads and where it writes.
#[derive(Debug, Clone)]
pub struct Job {
    /// Folder with `manifest.csv` and shards.
    pub data: PathBuf,
    /// The teacher's vectors.
    pub teacher: PathBuf,
    /// The run's folder.
    pub out: PathBuf,
    /// Where to compute.
    pub device: Device,
    /// Go on from the folder's checkpoint.
    pub resume: bool,
    /// Weights to start from.
    pub start_from: Option<PathBuf>,
    /// End with a checkpoint when this many steps have been taken, before the schedule does.
    pub pause_at: Option<u64>,
}

/// The file in a run's folder that holds its latest state.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// The file in a run's folder that holds its settings.
pub const SETTINGS: &str = "run.toml";
/// The file in a run's folder with one JSON object a line.
pub const LOG: &str = "log.jsonl";

const AHEAD: u64 = 4;
const SAVE_EVERY_S: f64 = 300.0;
const EVALUATE_EVERY_S: f64 = 300.0;
const SHOW_EVERY_S: f64 = 20.0;

/// A net, the running mean of its weights, and what trains it.
struct Student {
    weights: VarStore,
    net: Compact,
    ema: VarStore,
    ema_net: Compact,
    optimizer: Optimizer,
}

impl Student {
    fn new(config: &RunConfig, device: Device) -> Self {
        tch::manual_seed(config.seed as i64);
        let weights = VarStore::new(device);
        let net = Compact::new(&weights.root(), &config.shape);
        let mut ema = VarStore::new(device);
        let ema_net = Compact::new(&ema.root(), &config.shape);
        ema.freeze();
        let trainable: Vec<(String, Tensor)> =
            weights.variables().into_iter().filter(|(_, t)| t.requires_grad()).collect();
        let optimizer = Optimizer::new(trainable, config.rule, config.weight_decay);
        let student = Self { weights, net, ema, ema_net, optimizer };
        student.average(0.0);
        student
    }

    /// Moves the running mean towards the weights: mean ← decay·mean + (1 − decay)·weights.
    fn average(&self, decay: f64) {
        let _no_grad = tch::no_grad_guard();
        let source = self.weights.variables();
        for (name, mut mean) in self.ema.variables() {
            if let Some(now) = source.get(&name) {
                let _ = mean.g_mul_scalar_(decay);
                let _ = mean.g_add_(&(now * (1.0 - decay)));
            }
        }
    }
}

/// Runs `config` to the end of its schedule, or until a file named `stop` appears in the run's folder.
///
/// # Errors
/// [`TrainError`].
pub fn run(job: &Job, mut config: RunConfig) -> Result<Counters, TrainError> {
    config.check()?;
    std::fs::create_dir_all(&job.out)
        .map_err(|source| TrainError::Folder { path: job.out.clone(), source })?;
    tch::set_num_threads(if job.device == Device::Cpu { 1 } else { config.threads });
    let rows = dataset::manifest::read(&job.data)?;
    let teacher = teacher::read(&job.teacher, &rows)?;
    let canvases =
        shards::load(&job.data, &rows, config.threads.max(1) as usize, config.memory_limit_mb << 20)?;
    for (name, reason) in canvases.skipped.iter().take(10) {
        eprintln!("skipped {name}: {reason}");
    }
    let usable: Vec<bool> = canvases.present.iter().zip(&teacher.known).map(|(&a, &b)| a && b).collect();
    let split = dataset::split::by_identity(&rows, &usable, config.held_out, config.seed);
    if split.train.len() < config.batch {
        return Err(TrainError::TooFewFaces { faces: split.train.len(), batch: config.batch });
    }
    let mut student = Student::new(&config, job.device);
    config.origin = config::Origin {
        revision: revision(),
        manifest_sha256: hash(&job.data.join("manifest.csv"))?,
        teacher_sha256: hash(&job.teacher)?,
        faces: split.train.len(),
        identities: split.train_identities,
        parameters: student.weights.trainable_variables().iter().map(Tensor::numel).sum(),
    };
    if let Some(path) = &job.start_from {
        checkpoint::load_weights(path, &student.weights)?;
        student.average(0.0);
    }
    let path = job.out.join(CHECKPOINT);
    let counters = if job.resume {
        checkpoint::load(&path, &student.weights, &student.ema, &mut student.optimizer)?
    } else if path.exists() {
        return Err(TrainError::Exists { path });
    } else {
        Counters::default()
    };
    config.write(&job.out.join(SETTINGS))?;
    eprintln!(
        "{} faces of {} known identities, {} held out, {} skipped; {} parameters on {:?}; from step {}",
        split.train.len(),
        split.train_identities,
        split.held_out.len(),
        canvases.skipped.len(),
        config.origin.parameters,
        job.device,
        counters.step
    );
    let source = Source {
        canvases: Arc::new(canvases),
        rows: Arc::new(split.train),
        augment: config.augment.clone(),
        batch: config.batch,
        seed: config.seed,
    };
    let held_out = HeldOut::new(&source, &split.held_out, &teacher.vectors, config.held_out_faces);
    let copies = if job.device == Device::Cpu { config.threads.max(1) - 1 } else { 0 };
    let replicas = (0..copies).map(|_| Replica::start(&student.weights, &config.shape, job.device)).collect();
    Loop {
        job,
        config: &config,
        student,
        replicas,
        source,
        teacher: teacher.vectors.to_device(job.device),
        held_out,
    }
    .run(counters)
}

struct Loop<'a> {
    job: &'a Job,
    config: &'a RunConfig,
    student: Student,
    replicas: Vec<Replica>,
    source: Source,
    teacher: Tensor,
    held_out: Option<HeldOut>,
}

impl Loop<'_> {
    fn share(&self, step: u64, seconds: f64) -> f64 {
        if self.config.steps > 0 {
            step as f64 / self.config.steps as f64
        } else {
            seconds / (self.config.minutes * 60.0)
        }
    }

    fn run(mut self, mut counters: Counters) -> Result<Counters, TrainError> {
        let loader = Loader::start(self.source.clone());
        let mut log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.job.out.join(LOG))
            .map_err(|source| TrainError::Folder { path: self.job.out.join(LOG), source })?;
        let (begun, before) = (Instant::now(), counters.seconds);
        let mut asked = counters.step;
        let (mut shown, mut saved, mut evaluated) = (before, before, before);
        let (mut loss_sum, mut loss_count, mut images_shown) = (0.0, 0_u32, counters.images);
        loop {
            let share = self.share(counters.step, counters.seconds);
            let paused = self.job.pause_at.is_some_and(|at| counters.step >= at);
            let stopped = paused || self.job.out.join("stop").exists();
            if share >= 1.0 || stopped {
                break;
            }
            while asked < counters.step + AHEAD {
                loader.request(asked, self.config.side_px(self.share(asked, counters.seconds)));
                asked += 1;
            }
            let batch = loader.next().ok_or(TrainError::LoaderEnded)?;
            let rate = self.config.rate(counters.step, share);
            let loss = self.step(&batch, counters.step, rate);
            if !loss.is_finite() {
                return Err(TrainError::NotFinite { step: counters.step });
            }
            counters.step += 1;
            counters.images += batch.rows.len() as u64;
            counters.seconds = before + begun.elapsed().as_secs_f64();
            (loss_sum, loss_count) = (loss_sum + loss, loss_count + 1);
            let now = counters.seconds;
            if now - shown >= SHOW_EVERY_S {
                let speed = (counters.images - images_shown) as f64 / (now - shown);
                let share = self.share(counters.step, now);
                let left_min = now * (1.0 - share) / share.max(1e-9) / 60.0;
                let mean = loss_sum / f64::from(loss_count.max(1));
                eprintln!(
                    "step {} · {} px · {speed:.0} images/s · loss {mean:.4} · rate {rate:.2e} · {left_min:.0} min left",
                    counters.step, batch.side_px
                );
                let line = serde_json::json!({ "step": counters.step, "images": counters.images, "seconds": now, "side_px": batch.side_px,
                    "images_per_s": speed, "rate": rate, "loss": mean });
                let _ = writeln!(log, "{line}");
                (shown, loss_sum, loss_count, images_shown) = (now, 0.0, 0, counters.images);
            }
            if now - evaluated >= EVALUATE_EVERY_S {
                self.evaluate(counters, &mut log);
                evaluated = now;
            }
            if now - saved >= SAVE_EVERY_S {
                self.save(counters)?;
                saved = now;
            }
        }
        self.evaluate(counters, &mut log);
        self.save(counters)?;
        Ok(counters)
    }

    /// One step; returns the loss.
    fn step(&mut self, batch: &dataset::Batch, step: u64, rate: f64) -> f64 {
        let device = self.job.device;
        let chips = chips(&batch.pixels, batch.side_px).to_device(device);
        let rows: Vec<i64> = batch.rows.iter().map(|&r| i64::from(r)).collect();
        let target = self.teacher.index_select(0, &Tensor::from_slice(&rows).to_device(device));
        let mode = Mode { train: true, bf16: self.config.bf16 };
        let parts = self.replicas.len() as i64 + 1;
        let batch = chips.size()[0];
        let part = |i: i64| {
            let (from, to) = (batch * i / parts, batch * (i + 1) / parts);
            Part {
                chips: chips.narrow(0, from, to - from),
                target: target.narrow(0, from, to - from),
                mode,
                relational: self.config.relational,
                share: (to - from) as f64 / batch as f64,
            }
        };
        for (replica, i) in self.replicas.iter().zip(1..) {
            replica.learn(part(i));
        }
        let mut loss = part(0).learn(&self.student.net);
        for replica in &self.replicas {
            // A dead thread's loss is not a number, which ends the run with its message.
            loss += replica.finish().unwrap_or(f64::NAN);
        }
        self.student.optimizer.step(step, rate);
        self.student.average(self.config.ema.min((step + 1) as f64 / (step + 10) as f64));
        loss / parts as f64
    }

    /// Held-out cosine at the size in use and at the door's.
    fn evaluate(&self, counters: Counters, log: &mut std::fs::File) {
        let Some(held_out) = &self.held_out else { return };
        let side = self.config.side_px(self.share(counters.step, counters.seconds));
        let cosine = |side| held_out.cosine(&self.student.ema_net, side, self.job.device);
        let (here, door) = (cosine(side), cosine(112));
        eprintln!("held out: cosine to the teacher {here:.4} at {side} px, {door:.4} at 112 px");
        let line = serde_json::json!({ "step": counters.step, "images": counters.images, "seconds": counters.seconds,
            "side_px": side, "held_out_cosine": here, "held_out_cosine_112": door });
        let _ = writeln!(log, "{line}");
    }

    fn save(&self, counters: Counters) -> Result<(), TrainError> {
        let path = self.job.out.join(CHECKPOINT);
        checkpoint::save(&path, &self.student.weights, &self.student.ema, &self.student.optimizer, counters)?;
        Ok(())
    }
}

/// `[n, side, side, 3]` bytes as an `[n, 3, side, side]` view of the same memory order (channels last).
fn chips(pixels: &[u8], side: usize) -> Tensor {
    let side = side as i64;
    let n = pixels.len() as i64 / (side * side * 3);
    Tensor::from_data_size(pixels, &[n, side, side, 3], Kind::Uint8).permute([0, 3, 1, 2])
}

/// Plain centre chips of held-out faces, chosen once by the seed.
struct HeldOut {
    source: Source,
    /// The teacher's vectors, in the order of the source's first batch.
    target: Tensor,
}

impl HeldOut {
    fn new(source: &Source, held_out: &[u32], teacher: &Tensor, most: usize) -> Option<Self> {
        let mut rows = held_out.to_vec();
        Random::new(source.seed, Stream::Split, 1).shuffle(&mut rows);
        rows.truncate(most);
        let (batch, rows) = (rows.len(), Arc::new(rows));
        let source = Source { rows, augment: Augment::none(), batch, ..source.clone() };
        let order: Vec<i64> = source.chips(32).rows.iter().map(|&r| i64::from(r)).collect();
        (batch > 0).then(|| Self { target: teacher.index_select(0, &Tensor::from_slice(&order)), source })
    }

    /// Mean cosine to the teacher at one size.
    fn cosine(&self, net: &Compact, side: usize, device: Device) -> f64 {
        let _no_grad = tch::no_grad_guard();
        let chips = chips(&self.source.chips(side).pixels, side);
        let n = chips.size()[0];
        let mut sum = 0.0;
        for start in (0..n).step_by(64) {
            let count = (n - start).min(64);
            let out = net.forward(&chips.narrow(0, start, count).to_device(device), Mode::EVAL);
            let target = self.target.narrow(0, start, count).to_device(device);
            sum += (1.0 - distill::cosine(&out, &target).double_value(&[])) * count as f64;
        }
        sum / n as f64
    }
}

impl Source {
    fn chips(&self, side: usize) -> dataset::Batch {
        self.batch(&mut Order::default(), 0, side)
    }
}

fn hash(path: &Path) -> Result<String, TrainError> {
    let bytes = std::fs::read(path).map_err(|source| TrainError::Folder { path: path.to_owned(), source })?;
    Ok(hex::encode(Sha256::digest(bytes)))
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
    /// Not enough faces that have both a picture and a teacher's vector.
    #[error("{faces} usable faces are fewer than a batch of {batch}: check that --teacher belongs to --data")]
    TooFewFaces {
        /// Faces.
        faces: usize,
        /// Batch.
        batch: usize,
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

#[cfg(test)]
mod tests {
    use super::*;
    use config::Side;

    const FACES: usize = 24;

    /// A folder with one shard of random pictures, and random vectors for them.
    fn data() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(dir.path().join("s.tar")).unwrap();
        let mut builder = tar::Builder::new(file);
        let (mut manifest, mut names) = ("path,set,identity,masked\n".to_owned(), String::new());
        for face in 0..FACES {
            let mut random = Random::new(3, Stream::Sampler, face as u64);
            let picture = image::RgbImage::from_fn(128, 128, |_, _| image::Rgb([random.below(256) as u8; 3]));
            let mut png = std::io::Cursor::new(Vec::new());
            picture.write_to(&mut png, image::ImageFormat::Png).unwrap();
            let mut header = tar::Header::new_gnu();
            header.set_size(png.get_ref().len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, format!("{face}.png"), png.get_ref().as_slice()).unwrap();
            manifest += &format!("s.tar/{face}.png,s,p{},0\n", face / 2);
            names += &format!("s.tar/{face}.png\n");
        }
        builder.into_inner().unwrap();
        std::fs::write(dir.path().join("manifest.csv"), manifest).unwrap();
        std::fs::write(dir.path().join("teacher.paths"), names).unwrap();
        tch::manual_seed(2);
        let mean = distill::unit(&Tensor::randn([FACES as i64, 128], (Kind::Float, Device::Cpu)));
        Tensor::write_safetensors(&[("mean", mean)], dir.path().join("teacher.safetensors")).unwrap();
        dir
    }

    fn job(dir: &Path, out: &str) -> Job {
        Job {
            data: dir.to_owned(),
            teacher: dir.join("teacher.safetensors"),
            out: dir.join(out),
            device: Device::Cpu,
            resume: false,
            start_from: None,
            pause_at: None,
        }
    }

    fn config() -> RunConfig {
        RunConfig {
            batch: 6,
            steps: 6,
            bf16: false,
            warmup_steps: 2,
            held_out: 0.1,
            sides: vec![Side { px: 32, until: 0.6 }, Side { px: 112, until: 1.0 }],
            shape: crate::model::compact::Shape {
                stem: 8,
                stages: [16, 16, 32],
                blocks: [1, 0, 0],
                head: 32,
            },
            ..RunConfig::default()
        }
    }

    #[test]
    fn a_paused_and_resumed_run_equals_the_uninterrupted_one_bit_for_bit() {
        let dir = data();
        let whole = run(&job(dir.path(), "whole"), config()).unwrap();
        run(&Job { pause_at: Some(4), ..job(dir.path(), "parts") }, config()).unwrap();
        let parts = run(&Job { resume: true, ..job(dir.path(), "parts") }, config()).unwrap();
        assert_eq!((whole.step, whole.images), (parts.step, parts.images));
        let read = |out: &str| {
            let mut tensors = Tensor::read_safetensors(dir.path().join(out).join(CHECKPOINT)).unwrap();
            tensors.retain(|(name, _)| name != "counters");
            tensors.sort_by(|a, b| a.0.cmp(&b.0));
            tensors
        };
        let (whole, parts) = (read("whole"), read("parts"));
        assert!(whole.len() > 30 && whole.len() == parts.len());
        for ((name, a), (other, b)) in whole.iter().zip(&parts) {
            assert!(name == other && a == b, "{name} differs");
        }
    }

    #[test]
    fn a_second_run_into_the_same_folder_and_foreign_vectors_are_refused() {
        let dir = data();
        run(&Job { pause_at: Some(1), ..job(dir.path(), "a") }, config()).unwrap();
        assert!(matches!(run(&job(dir.path(), "a"), config()), Err(TrainError::Exists { .. })));
        let names: String = (0..FACES).map(|face| format!("other.tar/{face}.png\n")).collect();
        std::fs::write(dir.path().join("teacher.paths"), names).unwrap();
        assert!(matches!(
            run(&job(dir.path(), "b"), config()),
            Err(TrainError::TooFewFaces { faces: 0, .. })
        ));
    }
}
