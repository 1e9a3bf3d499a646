//! What DeepFace and VGG-Face share: naming people with a softmax, on batches of labelled chips, watched on people who are not
//! learnt from.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tch::nn::{Path, VarStore};
use tch::{Device, Kind, Tensor};

use crate::dataset::labelled::{Labelled, LabelledSource, classes, plain_chips};
use crate::dataset::split::{self, Parts};
use crate::dataset::{Augment, Order, Pictures, Random, Row, Stream, exclude::Excluded};
use crate::evaluate::roc::{Roc, fold_accuracy};
use crate::loss::distill::unit;
use crate::train::config::{ConfigError, Origin};
use crate::train::log::Values;
use crate::train::replica::Replica;
use crate::train::sgd::Sgd;
use crate::train::{self, At, Job, Maker, TrainError, checkpoint};

/// Which pictures, and who is kept apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataSettings {
    /// Sets of the manifest to use; all when empty.
    pub sets: Vec<String>,
    /// Fewest pictures a person must have to be a class.
    pub least: usize,
    /// Share of identities whose pairs are measured while training, and set thresholds.
    pub calibration: f64,
    /// Share of identities kept for a report.
    pub test: f64,
    /// Lists of people who must not be learnt from: LFW's pairs or people files, or one name a line.
    pub exclude: Vec<PathBuf>,
    /// Threads that decode and cut chips.
    pub loaders: usize,
    /// Most calibration faces used by one measurement.
    pub calibration_faces: usize,
}

impl Default for DataSettings {
    fn default() -> Self {
        Self {
            sets: Vec::new(),
            least: 5,
            calibration: 0.05,
            test: 0.05,
            exclude: Vec::new(),
            loaders: 1,
            calibration_faces: 400,
        }
    }
}

impl DataSettings {
    /// Refuses shares that leave nobody to learn from.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let shares = [self.calibration, self.test];
        if shares.iter().any(|s| !(0.0..0.9).contains(s)) || shares.iter().sum::<f64>() >= 0.9 {
            return Err(ConfigError::value(
                "data",
                "calibration and test must be shares that leave some to train",
            ));
        }
        Ok(())
    }
}

/// Labelled pictures, split by identity.
#[derive(Debug)]
pub struct People {
    /// The training part.
    pub source: LabelledSource,
    /// Name of each class.
    pub names: Vec<String>,
    /// Pairs of the calibration part.
    pub pairs: Option<Pairs>,
    /// What the run was made from.
    pub origin: Origin,
}

/// How chips are cut for a recipe.
#[derive(Debug, Clone)]
pub struct Cut<'a> {
    /// Chips in a batch.
    pub batch: usize,
    /// Their side.
    pub side_px: usize,
    /// How they are varied.
    pub augment: &'a Augment,
    /// Seed of split, order and augmentation.
    pub seed: u64,
}

impl People {
    /// Opens the data and says what was found and what was left out.
    ///
    /// # Errors
    /// [`TrainError`].
    pub fn open(job: &Job, settings: &DataSettings, cut: &Cut<'_>) -> Result<Self, TrainError> {
        let pictures = Pictures::open(&job.data).map_err(TrainError::recipe)?;
        let excluded = Excluded::read(&settings.exclude).map_err(TrainError::recipe)?;
        let (mut usable, people, dropped) = excluded.allow(pictures.rows());
        if !settings.exclude.is_empty() {
            eprintln!(
                "{people} identities with {dropped} pictures left out: {} people are on evaluation lists",
                excluded.len()
            );
        }
        for (usable, row) in usable.iter_mut().zip(pictures.rows()) {
            *usable &=
                row.identity.is_some() && (settings.sets.is_empty() || settings.sets.contains(&row.set));
        }
        let Parts { train, calibration, test } =
            split::in_parts(pictures.rows(), &usable, settings.calibration, settings.test, cut.seed);
        let (samples, names) = classes(&pictures, &train, settings.least);
        if samples.len() < cut.batch {
            let hint = "people with at least data.least pictures count; see data.sets and data.least";
            return Err(TrainError::TooFewFaces { faces: samples.len(), batch: cut.batch, hint });
        }
        let of = |rows: &[u32]| people_of(pictures.rows(), rows);
        eprintln!(
            "{} pictures of {} identities to learn from ({} of {} fewer than {} pictures); calibration {} of {}, test {} of {}",
            samples.len(),
            names.len(),
            train.len() - samples.len(),
            of(&train) - names.len(),
            settings.least,
            calibration.len(),
            of(&calibration),
            test.len(),
            of(&test),
        );
        let mut hashes = vec![];
        for (name, path) in std::iter::once(("pictures", pictures.source()))
            .chain(settings.exclude.iter().map(|p| ("exclude", p.as_path())))
        {
            if path.is_file() {
                hashes.push((format!("{name} {}", file_name(path)), train::hash(path)?));
            }
        }
        let origin = Origin {
            images: samples.len(),
            identities: names.len(),
            hashes: hashes.into_iter().collect(),
            ..Origin::default()
        };
        let pairs = Pairs::new(&pictures, &calibration, settings.calibration_faces, cut);
        let source = LabelledSource {
            pictures: Arc::new(pictures),
            samples: Arc::new(samples),
            augment: cut.augment.clone(),
            batch: cut.batch,
            side_px: cut.side_px,
            seed: cut.seed,
        };
        Ok(Self { source, names, pairs, origin })
    }

    /// One maker of training batches for each loader thread.
    #[must_use]
    pub fn makers(&self, loaders: usize) -> Vec<Maker<Labelled>> {
        let maker = |_| -> Maker<Labelled> {
            let (source, mut order) = (self.source.clone(), Order::default());
            Box::new(move |at: At| source.batch(&mut order, at.step))
        };
        (0..loaders.max(1)).map(maker).collect()
    }

    /// Says how many pictures could not be decoded, if any.
    pub fn report_skipped(&self) {
        let skipped = self.source.pictures.skipped();
        if let Some((name, reason)) = skipped.first() {
            eprintln!(
                "{} pictures could not be decoded and were skipped, {name} first: {reason}",
                skipped.len()
            );
        }
    }
}

fn file_name(path: &std::path::Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn people_of(rows: &[Row], part: &[u32]) -> usize {
    part.iter().map(|&r| rows[r as usize].split_key()).collect::<std::collections::HashSet<_>>().len()
}

/// Plain chips of people who are not learnt from, and pairs of them.
#[derive(Debug)]
pub struct Pairs {
    chips: Vec<u8>,
    side_px: usize,
    /// (first, second, same person).
    pairs: Vec<(usize, usize, bool)>,
}

const MOST_PAIRS: usize = 2000;
const FOLDS: usize = 10;

impl Pairs {
    /// All pairs of one person among at most `most` faces, up to 2,000, and as many of two people. `None` when there are too
    /// few for ten folds.
    #[must_use]
    pub fn new(pictures: &Pictures, rows: &[u32], most: usize, cut: &Cut<'_>) -> Option<Self> {
        // Whole people, in an order of their own, so that there are pairs of one person.
        let mut people: Vec<&str> =
            rows.iter().filter_map(|&r| pictures.rows()[r as usize].identity.as_deref()).collect();
        people.sort_unstable();
        people.dedup();
        let mut random = Random::new(cut.seed, Stream::Split, 1);
        random.shuffle(&mut people);
        let rank: std::collections::HashMap<&str, usize> = people.iter().copied().zip(0..).collect();
        let who = |row: u32| pictures.rows()[row as usize].identity.as_deref().unwrap_or("");
        let mut chosen: Vec<u32> = rows.iter().copied().filter(|&r| rank.contains_key(who(r))).collect();
        chosen.sort_by_key(|&row| (rank[who(row)], row));
        chosen.truncate(most);
        let (chips, kept) = plain_chips(pictures, &chosen, cut.side_px);
        let (mut same, mut other) = (Vec::new(), Vec::new());
        for i in 0..kept.len() {
            for j in 0..i {
                let one = who(kept[i]) == who(kept[j]);
                if one { &mut same } else { &mut other }.push((i, j, one));
            }
        }
        random.shuffle(&mut same);
        random.shuffle(&mut other);
        let n = same.len().min(other.len()).min(MOST_PAIRS);
        same.truncate(n);
        other.truncate(n);
        let pairs = same.into_iter().zip(other).flat_map(|(a, b)| [a, b]).collect();
        (n >= FOLDS).then_some(Self { chips, side_px: cut.side_px, pairs })
    }

    /// Accuracy over ten folds and equal error rate by the cosine of what `embed` gives for `[n, 3, side, side]`.
    pub fn verify(&self, device: Device, embed: impl Fn(&Tensor) -> Tensor) -> Values {
        let vectors = in_chunks(&chips(&self.chips, self.side_px), device, |x| unit(&embed(x)));
        let index = |second: bool| -> Vec<i64> {
            self.pairs.iter().map(|&(a, b, _)| if second { b } else { a } as i64).collect()
        };
        let of = |second| vectors.index_select(0, &Tensor::from_slice(&index(second)));
        let cosines = (of(false) * of(true)).sum_dim_intlist(1, false, Kind::Float);
        let Ok(cosines) = Vec::<f32>::try_from(cosines) else { return Values::new() };
        let scores: Vec<(f32, bool)> = cosines.into_iter().zip(self.pairs.iter().map(|p| p.2)).collect();
        let folds: Vec<usize> = (0..scores.len()).map(|i| i / 2 % FOLDS).collect();
        let mut values = Values::new();
        if let Some(accuracy) = fold_accuracy(&scores, &folds, FOLDS, None) {
            values.push(("held_out_accuracy".into(), accuracy.mean));
        }
        if let Some(roc) = Roc::new(&scores) {
            values.push(("held_out_eer".into(), roc.equal_error_rate()));
        }
        values
    }
}

/// `[n, side, side, 3]` bytes as an `[n, 3, side, side]` view of the same memory order (channels last).
#[must_use = "a view"]
pub fn chips(pixels: &[u8], side: usize) -> Tensor {
    let side = side as i64;
    let n = pixels.len() as i64 / (side * side * 3);
    Tensor::from_data_size(pixels, &[n, side, side, 3], Kind::Uint8).permute([0, 3, 1, 2])
}

/// `f` of 64 pictures at a time, joined on the CPU, without gradients.
#[must_use = "the only effect"]
pub fn in_chunks(x: &Tensor, device: Device, f: impl Fn(&Tensor) -> Tensor) -> Tensor {
    let _no_grad = tch::no_grad_guard();
    let n = x.size()[0];
    let parts: Vec<Tensor> = (0..n)
        .step_by(64)
        .map(|start| f(&x.narrow(0, start, (n - start).min(64)).to_device(device)).to_device(Device::Cpu))
        .collect();
    Tensor::cat(&parts, 0)
}

/// A net that names people.
pub trait Classifier: Send + Sized + 'static {
    /// Scores of the identities for `[batch, 3, side, side]`, with these dropout masks.
    fn logits(&self, x: &Tensor, masks: &[Tensor]) -> Tensor;
    /// Dropout masks for a batch, `[batch, units]` each.
    fn masks(&self, batch: i64, device: Device) -> Vec<Tensor>;
    /// What faces are compared by, `[batch, units]`.
    fn represent(&self, x: &Tensor) -> Tensor;
}

/// One part of a batch.
#[derive(Debug)]
struct Part {
    chips: Tensor,
    labels: Tensor,
    masks: Vec<Tensor>,
    share: f64,
}

impl Part {
    fn learn(&self, net: &impl Classifier) -> f64 {
        let loss = net.logits(&self.chips, &self.masks).cross_entropy_for_logits(&self.labels);
        (&loss * self.share).backward();
        loss.double_value(&[])
    }
}

/// A net, its optimizer, and copies of it on other threads.
#[derive(Debug)]
pub struct Student<N> {
    /// The variables.
    pub store: VarStore,
    /// The net on them.
    pub net: N,
    /// What updates them.
    pub sgd: Sgd,
    replicas: Vec<Replica<Part>>,
    device: Device,
}

/// How a student is updated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// Of SGD.
    pub momentum: f64,
    /// Of SGD.
    pub weight_decay: f64,
    /// Threads; each takes its part of a batch.
    pub threads: i32,
}

impl<N: Classifier> Student<N> {
    /// A fresh net, made by `build` after libtorch was seeded with `seed`.
    #[must_use]
    pub fn new(device: Device, seed: u64, rule: Rule, build: impl Fn(&Path<'_>) -> N) -> Self {
        tch::set_num_threads(if device == Device::Cpu { 1 } else { rule.threads });
        tch::manual_seed(seed as i64);
        let store = VarStore::new(device);
        let net = build(&store.root());
        let trainable: Vec<(String, Tensor)> =
            store.variables().into_iter().filter(|(_, t)| t.requires_grad()).collect();
        let sgd = Sgd::new(trainable, rule.momentum, rule.weight_decay);
        let copies = if device == Device::Cpu { rule.threads.max(1) - 1 } else { 0 };
        let replicas = (0..copies)
            .map(|_| Replica::start(&store, device, &build, |net: &N, part: Part| part.learn(net)))
            .collect();
        Self { store, net, sgd, replicas, device }
    }

    /// Parameters that are learnt.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.store.trainable_variables().iter().map(Tensor::numel).sum()
    }

    /// Forward, backward and update of the parameters for which `moves`; returns the loss.
    pub fn learn(&mut self, batch: &Labelled, rate: f64, moves: impl Fn(&str) -> bool) -> f64 {
        let chips = chips(&batch.pixels, batch.side_px).to_device(self.device);
        let labels = Tensor::from_slice(&batch.labels).to_device(self.device);
        let size = chips.size()[0];
        // Drawn for the whole batch here: threads would race for libtorch's generator.
        let masks = self.net.masks(size, self.device);
        let parts = (self.replicas.len() as i64 + 1).min(size);
        let part = |i: i64| {
            let (from, to) = (size * i / parts, size * (i + 1) / parts);
            let cut = |x: &Tensor| x.narrow(0, from, to - from);
            Part {
                chips: cut(&chips),
                labels: cut(&labels),
                masks: masks.iter().map(cut).collect(),
                share: (to - from) as f64 / size as f64,
            }
        };
        let busy = self.replicas.iter().take(parts as usize - 1);
        for (replica, i) in busy.clone().zip(1..) {
            replica.learn(part(i));
        }
        let first = part(0);
        let mut loss = first.learn(&self.net) * first.share;
        for (replica, i) in busy.zip(1..) {
            // A dead thread's loss is not a number, which ends the run with its message.
            loss += replica.finish().unwrap_or(f64::NAN) * part(i).share;
        }
        self.sgd.step(rate, moves);
        loss
    }

    /// Variables and velocities.
    #[must_use]
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = checkpoint::named("weights", &self.store);
        state.extend(self.sgd.state());
        state
    }

    /// Takes them back.
    ///
    /// # Errors
    /// The name of one that is missing or of another shape.
    pub fn restore(&mut self, state: &[(String, Tensor)]) -> Result<(), String> {
        checkpoint::fill(&self.store, "weights", state)?;
        self.sgd.restore(state)
    }
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
