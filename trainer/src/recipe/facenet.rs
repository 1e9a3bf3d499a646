//! FaceNet: an Inception net learns embeddings directly, by triplets mined in each batch (Schroff et al. 2015), with AdaGrad.
//!
//! With `harmonic.v1` set it trains a second version whose embeddings can be compared with the first's templates (the paper's appendix 7.1):
//! faces are embedded by both versions, and triplets are mined over the mixture.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, nn::VarStore};

use crate::dataset::people::{Draw, People};
use crate::dataset::pictures::Pictures;
use crate::dataset::{self, Augment, Random, Stream};
use crate::evaluate::roc::{Roc, Score, accuracy};
use crate::loss::triplet::{self, MARGIN, Mining};
use crate::model::facenet::{Facenet, Shape};
use crate::model::layers::Mode;
use crate::train::adagrad::Adagrad;
use crate::train::config::{self, ConfigError, Length, Origin, Settings};
use crate::train::log::Values;
use crate::train::{At, CHECKPOINT, Job, Learnt, Maker, Recipe, SETTINGS, TrainError, checkpoint};

/// Settings of FaceNet. Unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FacenetSettings {
    /// Seed of weights, batches, augmentation and drawn negatives.
    pub seed: u64,
    /// Length of the schedule in minutes of training; repeatable runs use `steps` instead.
    pub minutes: f64,
    /// Length of the schedule in steps; when above zero `minutes` is ignored.
    pub steps: u64,
    /// People with several faces in a batch (P).
    pub people: usize,
    /// Faces of each (K; about 40 in the paper). People with fewer give all they have.
    pub faces: usize,
    /// Faces of other people, one each, as further negatives.
    pub others: usize,
    /// Which negatives.
    pub mining: Mining,
    /// α.
    pub margin: f64,
    /// AdaGrad's rate (0.05 in the paper).
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// What AdaGrad's sums of squared gradients begin at.
    pub accumulator: f64,
    /// Decay of the running mean of the weights, which is what is evaluated and exported.
    pub ema: f64,
    /// Convolutions in bfloat16.
    pub bf16: bool,
    /// Share of identities held out.
    pub held_out: f64,
    /// Seed of who is held out: apart from `seed`, so that runs of several seeds are measured on the same people, and a second version on
    /// none that the first learnt from.
    pub split_seed: u64,
    /// Most faces of the held-out part that one evaluation uses.
    pub held_out_faces: usize,
    /// Threads of libtorch.
    pub threads: i32,
    /// The net.
    pub shape: Shape,
    /// How chips are varied.
    pub augment: Augment,
    /// A first version to stay compatible with.
    pub harmonic: Harmonic,
}

/// Harmonic embedding.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Harmonic {
    /// Folder of the first version's run; empty trains without one.
    pub v1: PathBuf,
    /// Steps at the start in which only the embedding layer, begun afresh, learns. For a net that starts from weights of its own (`--start-from`).
    pub head_steps: u64,
}

impl Default for FacenetSettings {
    fn default() -> Self {
        Self {
            seed: 1,
            minutes: 60.0,
            steps: 0,
            people: 20,
            faces: 8,
            others: 40,
            mining: Mining::SemiHard,
            margin: MARGIN,
            learning_rate: 0.05,
            warmup_steps: 50,
            accumulator: 0.1,
            ema: 0.99,
            bf16: true,
            held_out: 0.05,
            split_seed: 1,
            held_out_faces: 600,
            threads: 2,
            shape: Shape::default(),
            augment: Augment {
                shift_px: 3.0,
                tilt_deg: 5.0,
                scale: 0.05,
                mirror: 0.5,
                light: 0.15,
                ..Augment::none()
            },
            harmonic: Harmonic::default(),
        }
    }
}

impl FacenetSettings {
    /// The learning rate: linear warm-up, then AdaGrad's own decay.
    #[must_use]
    pub fn rate(&self, step: u64) -> f64 {
        self.learning_rate * ((step + 1) as f64 / self.warmup_steps.max(1) as f64).min(1.0)
    }

    const fn draw(&self) -> Draw {
        Draw { people: self.people, faces: self.faces, others: self.others }
    }

    fn harmonic(&self) -> bool {
        !self.harmonic.v1.as_os_str().is_empty()
    }
}

impl Settings for FacenetSettings {
    fn seed(&self) -> u64 {
        self.seed
    }

    fn length(&self) -> Length {
        Length { steps: self.steps, minutes: self.minutes }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let bad = |key, reason| Err(ConfigError::value(key, reason));
        self.length().check()?;
        self.shape.check().map_err(|(key, reason)| ConfigError::value(key, reason))?;
        if self.people == 0 || self.faces < 2 {
            return bad("faces", "a batch needs people (1 or more) with faces (2 or more)");
        }
        if self.people + self.others < 2 {
            return bad("others", "with one person in a batch there is no negative");
        }
        if !(self.margin > 0.0 && self.margin <= 4.0) {
            return bad("margin", "must be above 0 and at most 4, the largest squared distance");
        }
        if !(0.0..0.9).contains(&self.held_out) {
            return bad("held_out", "must be at least 0 and below 0.9");
        }
        if !(0.0..1.0).contains(&self.ema) {
            return bad("ema", "must be at least 0 and below 1");
        }
        if self.accumulator < 0.0 {
            return bad("accumulator", "must not be negative");
        }
        if !(0.0..=16.0).contains(&self.augment.shift_px) {
            return bad("augment.shift_px", "must be 0 to 16");
        }
        Ok(())
    }
}

/// The recipe: a net, the running mean of its weights, and what trains it.
#[derive(Debug)]
pub struct FacenetRecipe {
    settings: FacenetSettings,
    device: Device,
    weights: VarStore,
    net: Facenet,
    ema: VarStore,
    ema_net: Facenet,
    optimizer: Adagrad,
    first: Option<Facenet>,
    faces: Faces,
    held_out: HeldOut,
}

/// A batch of chips.
#[derive(Debug)]
pub struct FaceBatch {
    /// `[batch, side, side, 3]`, RGB 0–255.
    pixels: Vec<u8>,
    /// The person of each; the same number is the same person.
    labels: Vec<i64>,
}

impl Recipe for FacenetRecipe {
    const NAME: &'static str = "facenet";
    type Settings = FacenetSettings;
    type Batch = FaceBatch;

    fn open(job: &Job, settings: &FacenetSettings) -> Result<(Self, Origin), TrainError> {
        tch::set_num_threads(settings.threads.max(1));
        let pictures = Pictures::open(&job.data).map_err(TrainError::recipe)?;
        let rows = pictures.rows();
        let usable: Vec<bool> = rows.iter().map(|row| row.identity.is_some() && !row.masked).collect();
        let split = dataset::split::by_identity(rows, &usable, settings.held_out, settings.split_seed);
        let people = People::new(rows, &split.train);
        if people.several() < 2 {
            return Err(TrainError::TooFewFaces {
                faces: split.train.len(),
                batch: settings.draw().size(),
                hint: "triplets need at least two people with two faces or more, named in the column 'identity'",
            });
        }
        tch::manual_seed(settings.seed as i64);
        let weights = VarStore::new(job.device);
        let net = Facenet::new(&weights.root(), &settings.shape);
        let mut ema = VarStore::new(job.device);
        let ema_net = Facenet::new(&ema.root(), &settings.shape);
        ema.freeze();
        if let Some(path) = &job.start_from {
            checkpoint::load_weights(path, &weights)?;
            if settings.harmonic() && settings.harmonic.head_steps > 0 {
                net.forget_embedding();
            }
        }
        let first = if settings.harmonic() { Some(first_version(settings, job.device)?) } else { None };
        let trainable: Vec<(String, Tensor)> =
            weights.variables().into_iter().filter(|(_, t)| t.requires_grad()).collect();
        let parameters = weights.trainable_variables().iter().map(Tensor::numel).sum();
        eprintln!(
            "{} faces of {} people, {} of them with two or more; {} faces of {} people held out; {parameters} parameters, {:.0} million \
             multiply-adds a face, on {:?}",
            split.train.len(),
            people.len(),
            people.several(),
            split.held_out.len(),
            split.held_out_identities,
            settings.shape.multiply_adds() as f64 / 1e6,
            job.device,
        );
        let origin = Origin {
            images: split.train.len(),
            identities: people.len(),
            parameters,
            hashes: hashes(&pictures)?,
            ..Origin::default()
        };
        let held_out_people = People::new(rows, &split.held_out);
        let cache = (0..rows.len()).map(|_| OnceLock::new()).collect();
        let faces = Faces { pictures: Arc::new(pictures), cache: Arc::new(cache), people: Arc::new(people) };
        let held_out = HeldOut::new(&faces, &held_out_people, settings);
        let recipe = Self {
            optimizer: Adagrad::new(trainable, settings.accumulator),
            settings: settings.clone(),
            device: job.device,
            weights,
            net,
            ema,
            ema_net,
            first,
            faces,
            held_out,
        };
        recipe.average(0.0);
        Ok((recipe, origin))
    }

    fn makers(&self) -> Vec<Maker<FaceBatch>> {
        let maker = || -> Maker<FaceBatch> {
            let (faces, settings) = (self.faces.clone(), self.settings.clone());
            Box::new(move |at: At| faces.batch(&settings, at.step))
        };
        vec![maker(), maker()]
    }

    fn step(&mut self, batch: &FaceBatch, at: At) -> Learnt {
        let settings = &self.settings;
        let begun = Instant::now();
        let chips = chips(&batch.pixels, settings.shape.input_px).to_device(self.device);
        let labels = Tensor::from_slice(&batch.labels).to_device(self.device);
        let mode = Mode { train: true, bf16: settings.bf16 };
        let embedded = self.net.embed(&chips, mode);
        let (embedded, labels) = match &self.first {
            None => (embedded, labels),
            Some(first) => {
                let before = tch::no_grad(|| first.embed(&chips, Mode { train: false, ..mode }));
                (Tensor::cat(&[embedded, before], 0), Tensor::cat(&[&labels, &labels], 0))
            }
        };
        let distances = triplet::squared_distances(&embedded);
        let mining = Instant::now();
        let draw = settings.seed ^ at.step.wrapping_mul(0x9e37_79b9);
        let mined = triplet::mine(&distances, &labels, settings.mining, settings.margin, draw);
        let mined_s = mining.elapsed().as_secs_f64();
        let loss = triplet::loss_of(&distances, &labels, &mined, settings.margin);
        loss.loss.backward();
        let head = self.first.is_some() && at.step < settings.harmonic.head_steps;
        let rate = settings.rate(at.step);
        self.optimizer.step(rate, |name| !head || Facenet::is_embedding(name));
        self.average(settings.ema.min((at.step + 1) as f64 / (at.step + 10) as f64));
        // The first read of a result: on a GPU everything above has only been asked for until here.
        let pairs = loss.pairs.double_value(&[]).max(1.0);
        Learnt {
            loss: loss.loss.double_value(&[]),
            images: batch.labels.len(),
            more: vec![
                ("triplets_per_pair", loss.triplets.double_value(&[]) / pairs),
                ("active_per_pair", loss.active.double_value(&[]) / pairs),
                ("mining_share", mined_s / begun.elapsed().as_secs_f64().max(1e-9)),
            ],
        }
    }

    /// Verification between held-out people; with a first version also of its embeddings alone, and of new probes against its templates.
    fn evaluate(&mut self, _at: At) -> Values {
        let held_out = &self.held_out;
        let Some(new) = held_out.embed(&self.ema_net, &self.faces, &self.settings, self.device) else {
            return Values::new();
        };
        let mut values = Values::new();
        let mut add = |name: &str, probes: &Tensor, templates: &Tensor| {
            let scores = held_out.scores(probes, templates);
            if let Some(roc) = Roc::new(&scores) {
                let best = accuracy_balanced(&scores, &roc);
                values.push((format!("held_out_{name}tar_at_far_1e-2"), roc.at_far(1e-2).tar));
                values.push((format!("held_out_{name}accuracy"), best));
            }
        };
        add("", &new, &new);
        if let Some(first) = &self.first
            && let Some(old) = held_out.embed(first, &self.faces, &self.settings, self.device)
        {
            add("v1_", &old, &old);
            add("v2_against_v1_", &new, &old);
        }
        values
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = checkpoint::named("weights", &self.weights);
        state.extend(checkpoint::named("ema", &self.ema));
        state.extend(self.optimizer.state());
        state
    }

    fn restore(&mut self, state: &[(String, Tensor)]) -> Result<(), String> {
        checkpoint::fill(&self.weights, "weights", state)?;
        checkpoint::fill(&self.ema, "ema", state)?;
        self.optimizer.restore(state)
    }
}

impl FacenetRecipe {
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

/// The running-mean net of a run's folder, and its shape.
///
/// # Errors
/// [`TrainError`] when the folder holds no FaceNet.
pub fn load(run: &std::path::Path, device: Device) -> Result<(VarStore, Facenet, Shape), TrainError> {
    let shape = config::read::<FacenetSettings>(&run.join(SETTINGS), FacenetRecipe::NAME)?.shape;
    let mut store = VarStore::new(device);
    let net = Facenet::new(&store.root(), &shape);
    store.freeze();
    checkpoint::load_weights(&run.join(CHECKPOINT), &store)?;
    Ok((store, net, shape))
}

fn first_version(settings: &FacenetSettings, device: Device) -> Result<Facenet, TrainError> {
    let (_, net, shape) = load(&settings.harmonic.v1, device)?;
    if shape.embedding == settings.shape.embedding {
        Ok(net)
    } else {
        let reason = "must be that of the first version: its templates are compared with the new ones";
        Err(ConfigError::value("shape.embedding", reason).into())
    }
}

/// What names the pictures, hashed when it is a file.
fn hashes(pictures: &Pictures) -> Result<std::collections::BTreeMap<String, String>, TrainError> {
    let source = pictures.source();
    let mut hashes = std::collections::BTreeMap::new();
    if source.is_file() {
        hashes.insert("data".to_owned(), crate::train::hash(source)?);
    }
    Ok(hashes)
}

/// A picture once it has been asked for; `None` inside when it cannot be decoded.
type Decoded = OnceLock<Option<Box<[u8]>>>;

/// Pictures, decoded when first used and kept: the labelled part is what training draws from over and over.
#[derive(Debug, Clone)]
struct Faces {
    pictures: Arc<Pictures>,
    cache: Arc<Vec<Decoded>>,
    people: Arc<People>,
}

impl Faces {
    fn canvas(&self, row: u32) -> Option<&[u8]> {
        let slot = &self.cache[row as usize];
        slot.get_or_init(|| self.pictures.canvas(row).map(Vec::into_boxed_slice)).as_deref()
    }

    /// Faces that cannot be decoded are left out; [`Pictures`] counts them.
    fn batch(&self, settings: &FacenetSettings, step: u64) -> FaceBatch {
        let side = settings.shape.input_px;
        let chosen = self.people.batch(settings.draw(), settings.seed, step);
        let mut batch = FaceBatch { pixels: Vec::new(), labels: Vec::new() };
        for (i, (row, label)) in chosen.into_iter().enumerate() {
            let Some(canvas) = self.canvas(row) else { continue };
            let mut chip = vec![0; side * side * 3];
            let position = step * settings.draw().size() as u64 + i as u64;
            let mut random = Random::new(settings.seed, Stream::Augment, position);
            settings.augment.chip(canvas, &mut chip, side, &mut random);
            batch.pixels.extend_from_slice(&chip);
            batch.labels.push(label);
        }
        batch
    }
}

/// `[n, side, side, 3]` bytes as an `[n, 3, side, side]` view of the same memory order (channels last).
fn chips(pixels: &[u8], side: usize) -> Tensor {
    let side = side as i64;
    let n = pixels.len() as i64 / (side * side * 3);
    Tensor::from_data_size(pixels, &[n, side, side, 3], Kind::Uint8).permute([0, 3, 1, 2])
}

/// Faces and pairs of held-out people, chosen once by the seed.
#[derive(Debug)]
struct HeldOut {
    rows: Vec<u32>,
    /// Positions in `rows` and whether they are of one person.
    pairs: Vec<(i64, i64, bool)>,
}

/// Of one person at most so many faces are evaluated, lest a few people make most pairs.
const FACES_EACH: usize = 8;
const IMPOSTOR_PAIRS: usize = 20_000;

impl HeldOut {
    fn new(faces: &Faces, people: &People, settings: &FacenetSettings) -> Self {
        let draw = Draw { people: people.several(), faces: FACES_EACH, others: 0 };
        let mut chosen = people.batch(draw, settings.split_seed, u64::MAX);
        chosen.truncate(settings.held_out_faces);
        chosen.retain(|&(row, _)| faces.canvas(row).is_some());
        let mut pairs = Vec::new();
        for i in 0..chosen.len() {
            for j in (0..i).filter(|&j| chosen[i].1 == chosen[j].1) {
                pairs.push((i as i64, j as i64, true));
            }
        }
        let mut random = Random::new(settings.split_seed, Stream::Split, 1);
        if chosen.iter().any(|c| c.1 != chosen[0].1) {
            let mut impostors = 0;
            while impostors < IMPOSTOR_PAIRS {
                let (i, j) = (random.below(chosen.len()), random.below(chosen.len()));
                if chosen[i].1 != chosen[j].1 {
                    pairs.push((i as i64, j as i64, false));
                    impostors += 1;
                }
            }
        }
        Self { rows: chosen.into_iter().map(|(row, _)| row).collect(), pairs }
    }

    /// Embeddings of plain centre chips; `None` when nobody is held out.
    fn embed(
        &self,
        net: &Facenet,
        faces: &Faces,
        settings: &FacenetSettings,
        device: Device,
    ) -> Option<Tensor> {
        let _no_grad = tch::no_grad_guard();
        let side = settings.shape.input_px;
        let mut parts = Vec::new();
        for rows in self.rows.chunks(64) {
            let mut pixels = vec![0; rows.len() * side * side * 3];
            for (chip, &row) in pixels.chunks_exact_mut(side * side * 3).zip(rows) {
                // Rows that cannot be decoded were left out at the start.
                let canvas = faces.canvas(row)?;
                Augment::none().chip(canvas, chip, side, &mut Random::new(0, Stream::Augment, 0));
            }
            parts.push(net.embed(&chips(&pixels, side).to_device(device), Mode::EVAL));
        }
        (!parts.is_empty()).then(|| Tensor::cat(&parts, 0).to_device(Device::Cpu))
    }

    fn scores(&self, probes: &Tensor, templates: &Tensor) -> Vec<Score> {
        let index = |pick: fn(&(i64, i64, bool)) -> i64| {
            Tensor::from_slice(&self.pairs.iter().map(pick).collect::<Vec<i64>>())
        };
        let (probes, templates) =
            (probes.index_select(0, &index(|p| p.0)), templates.index_select(0, &index(|p| p.1)));
        let cosines = (probes * templates).sum_dim_intlist(1, false, Kind::Float);
        // A tensor of f32 on the host always converts.
        let cosines = Vec::<f32>::try_from(&cosines).unwrap_or_default();
        cosines.into_iter().zip(&self.pairs).map(|(cosine, pair)| (cosine, pair.2)).collect()
    }
}

/// Best accuracy when both sorts of pairs count the same, whatever their numbers.
fn accuracy_balanced(scores: &[Score], roc: &Roc) -> f64 {
    let counts = roc.errors_at(f32::NEG_INFINITY);
    let best = scores.iter().filter(|s| s.1).map(|s| s.0).map(|threshold| {
        let errors = roc.errors_at(threshold);
        1.0 - 0.5
            * (errors.refused as f64 / counts.genuine as f64
                + errors.accepted as f64 / counts.impostor as f64)
    });
    best.fold(accuracy(scores, f32::INFINITY).min(0.5), f64::max)
}

#[cfg(test)]
#[path = "facenet_tests.rs"]
mod tests;
