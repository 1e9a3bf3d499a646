//! compact: the net for the door, distilled from a teacher's vectors.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tch::nn::{Path, VarStore};
use tch::{Device, Kind, Tensor};

use crate::dataset::{self, Augment, Order, Random, Row, Source, Stream, shards};
use crate::loss::distill;
use crate::loss::margin::{Margin, MarginHead};
use crate::model::compact::{Compact, EMBEDDING, Shape};
use crate::model::layers::Mode;
use crate::train::config::{ConfigError, Length, Origin, Settings};
use crate::train::log::Values;
use crate::train::optimizer::{Optimizer, Rule};
use crate::train::replica::Replica;
use crate::train::{self, At, Job, Learnt, Maker, Recipe, TrainError, checkpoint, teacher};

/// Settings of a distillation. Unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompactSettings {
    /// Seed of weights, order and augmentation.
    pub seed: u64,
    /// Chips in a batch.
    pub batch: usize,
    /// Length of the schedule in minutes of training; repeatable runs use `steps` instead.
    pub minutes: f64,
    /// Length of the schedule in steps; when above zero `minutes` is ignored and the run is repeatable bit for bit on one CPU type.
    pub steps: u64,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// AdamW's λ.
    pub weight_decay: f64,
    /// What updates dense convolutions.
    pub rule: Rule,
    /// Decay of the running mean of the weights, which is what is evaluated and exported.
    pub ema: f64,
    /// Convolutions in bfloat16.
    pub bf16: bool,
    /// Weight of the relational term.
    pub relational: f64,
    /// A softmax over identities with a margin, beside distillation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<MarginTerm>,
    /// Chip sides in the order of training: each is used until its share of the schedule has passed.
    pub sides: Vec<Side>,
    /// Share of identities held out.
    pub held_out: f64,
    /// Most faces of the held-out part that one evaluation uses.
    pub held_out_faces: usize,
    /// Largest decoded data set.
    pub memory_limit_mb: usize,
    /// Threads of libtorch.
    pub threads: i32,
    /// The net.
    pub shape: Shape,
    /// How chips are varied.
    pub augment: Augment,
}

/// What the margin softmax weighs and whom it tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarginTerm {
    /// Weight beside the cosine loss.
    pub weight: f64,
    /// Fewest faces a person must have to be an identity of the softmax.
    pub least: usize,
    /// ArcFace's or CosFace's.
    pub kind: Margin,
}

/// A chip side and the share of the schedule (0–1) at which it ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Side {
    /// Side in pixels, a multiple of 16.
    pub px: usize,
    /// End of its use.
    pub until: f64,
}

impl Default for CompactSettings {
    fn default() -> Self {
        Self {
            seed: 1,
            batch: 64,
            minutes: 60.0,
            steps: 0,
            learning_rate: 2e-3,
            warmup_steps: 200,
            weight_decay: 0.05,
            rule: Rule::Muon,
            ema: 0.998,
            bf16: true,
            relational: 0.0,
            margin: None,
            sides: vec![
                Side { px: 64, until: 0.4 },
                Side { px: 96, until: 0.75 },
                Side { px: 112, until: 1.0 },
            ],
            held_out: 0.02,
            held_out_faces: 512,
            memory_limit_mb: 6000,
            threads: 2,
            shape: Shape::default(),
            augment: Augment::default(),
        }
    }
}

impl CompactSettings {
    /// Chip side at `share` (0–1) of the schedule.
    #[must_use]
    pub fn side_px(&self, share: f64) -> usize {
        self.sides
            .iter()
            .find(|s| share < s.until)
            .or(self.sides.last())
            .map_or(self.shape.input_px as usize, |s| s.px)
    }

    /// Learning rate at `step` and `share` (0–1) of the schedule: linear warm-up, then half a cosine down to zero.
    #[must_use]
    pub fn rate(&self, step: u64, share: f64) -> f64 {
        let warm = ((step + 1) as f64 / self.warmup_steps.max(1) as f64).min(1.0);
        self.learning_rate * warm * 0.5 * (1.0 + (share.clamp(0.0, 1.0) * std::f64::consts::PI).cos())
    }
}

impl Settings for CompactSettings {
    fn seed(&self) -> u64 {
        self.seed
    }

    fn length(&self) -> Length {
        Length { steps: self.steps, minutes: self.minutes }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let bad = |key, reason| Err(ConfigError::value(key, reason));
        self.length().check()?;
        if self.batch < 2 {
            return bad("batch", "batch statistics need at least 2 chips");
        }
        let input_px = self.shape.input_px;
        if !(16..=112).contains(&input_px) || input_px % 16 != 0 {
            return bad("shape.input_px", "must be a multiple of 16 up to 112, the size of the door's chips");
        }
        let input_px = input_px as usize;
        if self.sides.is_empty() || self.sides.iter().any(|s| s.px == 0 || s.px % 16 != 0 || s.px > input_px)
        {
            return bad("sides", "each px must be a multiple of 16 up to shape.input_px");
        }
        if self.sides.last().is_some_and(|s| s.px != input_px) {
            return bad("sides", "the last must be shape.input_px, the size the door uses");
        }
        if !(0.0..0.9).contains(&self.held_out) {
            return bad("held_out", "must be at least 0 and below 0.9");
        }
        if !(0.0..1.0).contains(&self.ema) {
            return bad("ema", "must be at least 0 and below 1");
        }
        if !(0.0..=16.0).contains(&self.augment.shift_px) {
            return bad("augment.shift_px", "must be 0 to 16");
        }
        Ok(())
    }
}

/// The recipe: a net, the running mean of its weights, and what trains it.
#[derive(Debug)]
pub struct CompactRecipe {
    settings: CompactSettings,
    device: Device,
    weights: VarStore,
    nets: Nets,
    ema: VarStore,
    ema_net: Compact,
    optimizer: Optimizer,
    replicas: Vec<Replica<Part>>,
    source: Source,
    teacher: Tensor,
    /// Identity of each row in the margin softmax, −1 where it has none.
    labels: Tensor,
    held_out: Option<HeldOut>,
}

impl Recipe for CompactRecipe {
    const NAME: &'static str = "compact";
    type Settings = CompactSettings;
    type Batch = dataset::Batch;

    fn open(job: &Job, settings: &CompactSettings) -> Result<(Self, Origin), TrainError> {
        tch::set_num_threads(if job.device == Device::Cpu { 1 } else { settings.threads });
        let teacher_path = job.teacher.as_deref().ok_or(TrainError::NoTeacher)?;
        let rows = dataset::manifest::read(&job.data)?;
        let teacher = teacher::read(teacher_path, &rows)?;
        let threads = settings.threads.max(1) as usize;
        let canvases = shards::load(&job.data, &rows, threads, settings.memory_limit_mb << 20)?;
        for (name, reason) in canvases.skipped.iter().take(10) {
            eprintln!("skipped {name}: {reason}");
        }
        let usable: Vec<bool> = canvases.present.iter().zip(&teacher.known).map(|(&a, &b)| a && b).collect();
        let split = dataset::split::by_identity(&rows, &usable, settings.held_out, settings.seed);
        if split.train.len() < settings.batch {
            let hint = "check that --teacher belongs to --data";
            return Err(TrainError::TooFewFaces { faces: split.train.len(), batch: settings.batch, hint });
        }
        tch::manual_seed(settings.seed as i64);
        let weights = VarStore::new(job.device);
        let (labels, identities) =
            labels(&rows, &split.train, settings.margin.map_or(usize::MAX, |m| m.least));
        let nets = Nets::new(&weights.root(), settings, identities);
        let mut ema = VarStore::new(job.device);
        let ema_net = Compact::new(&ema.root(), &settings.shape);
        ema.freeze();
        let trainable: Vec<(String, Tensor)> =
            weights.variables().into_iter().filter(|(_, t)| t.requires_grad()).collect();
        let optimizer = Optimizer::new(trainable, settings.rule, settings.weight_decay);
        if let Some(path) = &job.start_from {
            checkpoint::load_weights(path, &weights)?;
        }
        let parameters = weights.trainable_variables().iter().map(Tensor::numel).sum();
        eprintln!(
            "{} faces of {} known identities, {} held out, {} skipped; {parameters} parameters on {:?}",
            split.train.len(),
            split.train_identities,
            split.held_out.len(),
            canvases.skipped.len(),
            job.device,
        );
        let origin = Origin {
            images: split.train.len(),
            identities: split.train_identities,
            parameters,
            hashes: [
                ("manifest".to_owned(), train::hash(&job.data.join(dataset::manifest::FILE))?),
                ("teacher".to_owned(), train::hash(teacher_path)?),
            ]
            .into(),
            ..Origin::default()
        };
        let source = Source {
            canvases: Arc::new(canvases),
            rows: Arc::new(split.train),
            augment: settings.augment.clone(),
            batch: settings.batch,
            seed: settings.seed,
        };
        let held_out = HeldOut::new(&source, &split.held_out, &teacher.vectors, settings.held_out_faces);
        let copies = if job.device == Device::Cpu { settings.threads.max(1) - 1 } else { 0 };
        let copy = |_| {
            let build = |path: &Path<'_>| Nets::new(path, settings, identities);
            Replica::start(&weights, job.device, build, |nets: &Nets, part: Part| part.learn(nets))
        };
        let recipe = Self {
            replicas: (0..copies).map(copy).collect(),
            settings: settings.clone(),
            device: job.device,
            weights,
            nets,
            ema,
            ema_net,
            optimizer,
            source,
            teacher: teacher.vectors.to_device(job.device),
            labels: Tensor::from_slice(&labels).to_device(job.device),
            held_out,
        };
        recipe.average(0.0);
        Ok((recipe, origin))
    }

    fn makers(&self) -> Vec<Maker<dataset::Batch>> {
        let (source, settings) = (self.source.clone(), self.settings.clone());
        let mut order = Order::default();
        vec![Box::new(move |at: At| source.batch(&mut order, at.step, settings.side_px(at.share)))]
    }

    fn step(&mut self, batch: &dataset::Batch, at: At) -> Learnt {
        let rate = self.settings.rate(at.step, at.share);
        let chips = chips(&batch.pixels, batch.side_px).to_device(self.device);
        let rows: Vec<i64> = batch.rows.iter().map(|&r| i64::from(r)).collect();
        let rows = Tensor::from_slice(&rows).to_device(self.device);
        let target = self.teacher.index_select(0, &rows);
        let labels = self.labels.index_select(0, &rows);
        let mode = Mode { train: true, bf16: self.settings.bf16 };
        let parts = self.replicas.len() as i64 + 1;
        let size = chips.size()[0];
        let part = |i: i64| {
            let (from, to) = (size * i / parts, size * (i + 1) / parts);
            Part {
                chips: chips.narrow(0, from, to - from),
                target: target.narrow(0, from, to - from),
                labels: labels.narrow(0, from, to - from),
                mode,
                relational: self.settings.relational,
                margin: self.settings.margin.map_or(0.0, |m| m.weight),
                share: (to - from) as f64 / size as f64,
            }
        };
        for (replica, i) in self.replicas.iter().zip(1..) {
            replica.learn(part(i));
        }
        let mut loss = part(0).learn(&self.nets);
        for replica in &self.replicas {
            // A dead thread's loss is not a number, which ends the run with its message.
            loss += replica.finish().unwrap_or(f64::NAN);
        }
        self.optimizer.step(at.step, rate);
        self.average(self.settings.ema.min((at.step + 1) as f64 / (at.step + 10) as f64));
        Learnt {
            loss: loss / parts as f64,
            images: batch.rows.len(),
            more: vec![("rate", rate), ("side_px", batch.side_px as f64)],
        }
    }

    /// Held-out cosine at the size in use and at the net's own.
    fn evaluate(&mut self, at: At) -> Values {
        let Some(held_out) = &self.held_out else { return Values::new() };
        let cosine = |side| held_out.cosine(&self.ema_net, side, self.device);
        vec![
            ("held_out_cosine".into(), cosine(self.settings.side_px(at.share))),
            ("held_out_cosine_at_input".into(), cosine(self.settings.shape.input_px as usize)),
        ]
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

impl CompactRecipe {
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

/// The net, and the softmax it is trained with when there is one.
#[derive(Debug)]
struct Nets {
    net: Compact,
    head: Option<MarginHead>,
}

impl Nets {
    fn new(path: &Path<'_>, settings: &CompactSettings, identities: i64) -> Self {
        let net = Compact::new(path, &settings.shape);
        let head = settings
            .margin
            .map(|m| MarginHead::new(&(path / "margin"), identities.max(1), EMBEDDING, m.kind));
        Self { net, head }
    }
}

/// Identity of each row among the people with at least `least` rows in `train`, −1 for the others; and how many there are.
fn labels(rows: &[Row], train: &[u32], least: usize) -> (Vec<i64>, i64) {
    let mut counts = BTreeMap::<&str, usize>::new();
    for name in train.iter().filter_map(|&row| rows[row as usize].identity.as_deref()) {
        *counts.entry(name).or_default() += 1;
    }
    counts.retain(|_, count| *count >= least);
    let number: BTreeMap<&str, i64> = counts.keys().copied().zip(0..).collect();
    let of = |row: &Row| row.identity.as_deref().and_then(|name| number.get(name)).copied().unwrap_or(-1);
    (rows.iter().map(of).collect(), number.len() as i64)
}

/// One part of a batch: chips, the teacher's vectors, and how to compute.
#[derive(Debug)]
struct Part {
    /// `[part, 3, side, side]`.
    chips: Tensor,
    /// `[part, dim]`.
    target: Tensor,
    /// `[part]`, −1 where a face has no identity.
    labels: Tensor,
    mode: Mode,
    /// Weight of the relational term.
    relational: f64,
    /// Weight of the margin softmax.
    margin: f64,
    /// The part's share of the batch.
    share: f64,
}

impl Part {
    /// Forward and backward; gradients are added to the net's. Returns the mean cosine loss of the part.
    fn learn(&self, nets: &Nets) -> f64 {
        let out = nets.net.forward(&self.chips, self.mode);
        let cosine = distill::cosine(&out, &self.target);
        let loss = if self.relational > 0.0 {
            &cosine + distill::relational(&out, &self.target) * self.relational
        } else {
            cosine.shallow_clone()
        };
        let loss = match &nets.head {
            Some(head) => loss + head.loss(&out, &self.labels) * self.margin,
            None => loss,
        };
        (loss * self.share).backward();
        cosine.double_value(&[])
    }
}

/// `[n, side, side, 3]` bytes as an `[n, 3, side, side]` view of the same memory order (channels last).
fn chips(pixels: &[u8], side: usize) -> Tensor {
    let side = side as i64;
    let n = pixels.len() as i64 / (side * side * 3);
    Tensor::from_data_size(pixels, &[n, side, side, 3], Kind::Uint8).permute([0, 3, 1, 2])
}

/// Plain centre chips of held-out faces, chosen once by the seed.
#[derive(Debug)]
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

#[cfg(test)]
#[path = "compact_tests.rs"]
mod tests;
