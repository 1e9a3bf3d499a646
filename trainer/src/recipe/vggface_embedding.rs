//! vggface-embedding: the task-specific embedding of Parkhi et al. 2015, sections 4.2 and 4.5. A trained VGG-Face stands still; a
//! projection of its L2-normalised descriptors is learnt by the triplet loss max(0, α − ‖xa − xn‖² + ‖xa − xp‖²).
//!
//! Batches are positive pairs, all of them once an epoch, each anchor's negative drawn at random among the faces of the batch
//! that violate the margin. Since the net stands still, descriptors of all faces and of their mirror images are made once, when
//! the run begins.

use serde::{Deserialize, Serialize};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use super::classify::{Cut, DataSettings, Pairs, People, chips, in_chunks};
use crate::dataset::labelled::plain_chips;
use crate::dataset::{Augment, Order};
use crate::loss::distill::unit;
use crate::model::local::Start;
use crate::model::vggface::{Configuration, Shape, VggFace};
use crate::train::config::{ConfigError, Length, Origin, Settings};
use crate::train::log::Values;
use crate::train::sgd::Sgd;
use crate::train::{At, CHECKPOINT, Job, Learnt, Maker, Recipe, TrainError, checkpoint};

/// Name of the projection in a checkpoint.
pub const PROJECTION: &str = "embedding.projection";

/// Settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmbeddingSettings {
    /// Seed of the projection, split, order and negatives.
    pub seed: u64,
    /// Positive pairs in a batch.
    pub batch: usize,
    /// Length of the schedule in minutes of training.
    pub minutes: f64,
    /// Length of the schedule in steps; when above zero `minutes` is ignored.
    pub steps: u64,
    /// Fixed learning rate (the paper's).
    pub learning_rate: f64,
    /// Of SGD.
    pub momentum: f64,
    /// Length of the embedding; the paper's is 1024, a door's 128.
    pub dim: i64,
    /// Margin α.
    pub margin: f64,
    /// Most positive pairs of one person, so that people with many pictures do not fill the epoch.
    pub pairs_of_one: usize,
    /// Threads.
    pub threads: i32,
    /// Which pictures.
    pub data: DataSettings,
}

impl Default for EmbeddingSettings {
    fn default() -> Self {
        Self {
            seed: 1,
            batch: 128,
            minutes: 0.0,
            steps: 1000,
            learning_rate: 0.25,
            momentum: 0.0,
            dim: 1024,
            margin: 0.2,
            pairs_of_one: 500,
            threads: 2,
            data: DataSettings { least: 2, ..DataSettings::default() },
        }
    }
}

impl Settings for EmbeddingSettings {
    fn seed(&self) -> u64 {
        self.seed
    }

    fn length(&self) -> Length {
        Length { steps: self.steps, minutes: self.minutes }
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.length().check()?;
        self.data.check()?;
        if self.batch < 2 || self.dim < 1 {
            return Err(ConfigError::value("batch", "batch must be at least 2 and dim at least 1"));
        }
        if !(self.margin > 0.0 && self.margin.is_finite()) {
            return Err(ConfigError::value("margin", "must be above 0"));
        }
        Ok(())
    }
}

/// The recipe.
#[derive(Debug)]
pub struct VggfaceEmbeddingRecipe {
    settings: EmbeddingSettings,
    base: VarStore,
    net: VggFace,
    head: VarStore,
    projection: Tensor,
    sgd: Sgd,
    /// `[2 · faces, units]`, length one: each face, then each mirror image.
    descriptors: Tensor,
    classes: Tensor,
    /// (anchor, positive) as indices of faces.
    positives: Vec<(i64, i64)>,
    pairs: Option<Pairs>,
    device: Device,
}

impl Recipe for VggfaceEmbeddingRecipe {
    const NAME: &'static str = "vggface-embedding";
    type Settings = EmbeddingSettings;
    type Batch = Vec<usize>;

    fn open(job: &Job, settings: &EmbeddingSettings) -> Result<(Self, Origin), TrainError> {
        tch::set_num_threads(settings.threads);
        let own = job.out.join(CHECKPOINT);
        let path = job.start_from.as_deref().or(job.resume.then_some(own.as_path())).ok_or_else(|| {
            TrainError::recipe("this recipe starts from a trained vggface: name its checkpoint.safetensors with --start-from")
        })?;
        let trained = checkpoint::read(path)?;
        let misfit = |name| checkpoint::CheckpointError::Misfit { path: path.to_owned(), name };
        let shape = shape_of(&trained).map_err(misfit)?;
        let identities =
            trained.iter().find(|(n, _)| n == "weights.fc8.bias").map_or(1, |(_, t)| t.size()[0]);
        let mut base = VarStore::new(job.device);
        let net = VggFace::new(&base.root(), &shape, identities);
        checkpoint::fill(&base, "weights", &trained).map_err(misfit)?;
        base.freeze();

        let plain = Augment::none();
        let side = shape.side_px as usize;
        let cut = Cut { batch: settings.batch, side_px: side, augment: &plain, seed: settings.seed };
        let people = People::open(job, &settings.data, &cut)?;
        let rows: Vec<u32> = people.source.samples.iter().map(|s| s.0).collect();
        let class: std::collections::HashMap<u32, i64> = people.source.samples.iter().copied().collect();
        let (pixels, kept) = plain_chips(&people.source.pictures, &rows, side);
        people.report_skipped();
        eprintln!(
            "descriptors of {} faces and their mirror images from the {:?} net of {path:?}",
            kept.len(),
            shape.configuration
        );
        let faces = chips(&pixels, side);
        let describe = |x: &Tensor| unit(&net.represent(x));
        let descriptors = Tensor::cat(
            &[in_chunks(&faces, job.device, describe), in_chunks(&faces.flip([3]), job.device, describe)],
            0,
        );
        let classes: Vec<i64> = kept.iter().map(|row| class[row]).collect();
        let positives = positive_pairs(&classes, settings.pairs_of_one);

        tch::manual_seed(settings.seed as i64);
        let head = VarStore::new(job.device);
        let start = Start::Gaussian { deviation: (1.0 / shape.units() as f64).sqrt(), bias: 0.0 };
        let projection =
            head.root().var("projection", &[settings.dim, shape.units()], start.weights(shape.units()));
        let sgd = Sgd::new(vec![("projection".into(), projection.shallow_clone())], settings.momentum, 0.0);
        let origin = Origin { parameters: projection.numel(), ..people.origin };
        eprintln!(
            "{} positive pairs an epoch; {} parameters on {:?}",
            positives.len(),
            origin.parameters,
            job.device
        );
        let recipe = Self {
            settings: settings.clone(),
            base,
            net,
            head,
            projection,
            sgd,
            descriptors: descriptors.to_device(job.device),
            classes: Tensor::from_slice(&classes).to_device(job.device),
            positives,
            pairs: people.pairs,
            device: job.device,
        };
        Ok((recipe, origin))
    }

    fn makers(&self) -> Vec<Maker<Vec<usize>>> {
        let (n, batch, seed) = (self.positives.len(), self.settings.batch, self.settings.seed);
        let mut order = Order::default();
        vec![Box::new(move |at: At| {
            (0..batch as u64).map(|i| order.at(at.step * batch as u64 + i, n, seed)).collect()
        })]
    }

    fn step(&mut self, batch: &Vec<usize>, _at: At) -> Learnt {
        let faces = self.classes.size()[0];
        let half =
            Tensor::rand([2, batch.len() as i64], (Kind::Float, self.device)).lt(0.5).to_kind(Kind::Int64)
                * faces;
        let index = |second: bool| -> Vec<i64> {
            batch.iter().map(|&p| if second { self.positives[p].1 } else { self.positives[p].0 }).collect()
        };
        let rows = |second: bool| Tensor::from_slice(&index(second)).to_device(self.device);
        let (anchors, positives) = (rows(false), rows(true));
        let embed = |rows: &Tensor| self.descriptors.index_select(0, rows).matmul(&self.projection.tr());
        let a = embed(&(&anchors + half.get(0)));
        let p = embed(&(&positives + half.get(1)));
        let classes = self.classes.index_select(0, &anchors);
        let (loss, triplets) = triplet_loss(&a, &p, &classes, self.settings.margin);
        loss.backward();
        self.sgd.step(self.settings.learning_rate, |_| true);
        Learnt {
            loss: loss.double_value(&[]),
            images: batch.len() * 2,
            more: vec![("violating", triplets as f64 / batch.len() as f64)],
        }
    }

    fn evaluate(&mut self, _at: At) -> Values {
        let Some(pairs) = &self.pairs else { return Values::new() };
        pairs.verify(self.device, |x| unit(&self.net.represent(x)).matmul(&self.projection.tr()))
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = checkpoint::named("weights", &self.base);
        state.extend(checkpoint::named("embedding", &self.head));
        state.extend(self.sgd.state());
        state
    }

    fn restore(&mut self, state: &[(String, Tensor)]) -> Result<(), String> {
        checkpoint::fill(&self.base, "weights", state)?;
        checkpoint::fill(&self.head, "embedding", state)?;
        self.sgd.restore(state)
    }
}

/// Mean of max(0, α − ‖a − n‖² + ‖a − p‖²) over the pairs for which some face n of another person in the batch violates the
/// margin, n drawn at random among those; `[batch, dim]` each, `classes` `[batch]`. Also how many pairs had one.
fn triplet_loss(a: &Tensor, p: &Tensor, classes: &Tensor, margin: f64) -> (Tensor, i64) {
    let square = |x: &Tensor| x.square().sum_dim_intlist(1, false, Kind::Float);
    let to_positive = square(&(a - p));
    // Any face of the batch may be the negative: anchors, then positives.
    let pool = Tensor::cat(&[a, p], 0);
    let distances = square(a).unsqueeze(1) + square(&pool).unsqueeze(0) - a.matmul(&pool.tr()) * 2.0;
    let other = classes.unsqueeze(1).ne_tensor(&classes.repeat([2]).unsqueeze(0));
    let violates =
        distances.detach().lt_tensor(&(to_positive.detach() + margin).unsqueeze(1)).logical_and(&other);
    let some = violates.any_dim(1, false);
    let triplets = some.sum(Kind::Int64).int64_value(&[]);
    // Where there is none any weight will do: the row does not count.
    let weights = violates.to_kind(Kind::Float) + some.logical_not().to_kind(Kind::Float).unsqueeze(1);
    let drawn = weights.multinomial(1, false);
    let to_negative = distances.gather(1, &drawn, false).squeeze_dim(1);
    let hinge = (to_positive - to_negative + margin).clamp_min(0.0) * some.to_kind(Kind::Float);
    (hinge.sum(Kind::Float) / triplets.max(1) as f64, triplets)
}

/// All pairs of one class, at most `most` of each: an even choice of those.
fn positive_pairs(classes: &[i64], most: usize) -> Vec<(i64, i64)> {
    let mut by_class: std::collections::BTreeMap<i64, Vec<i64>> = std::collections::BTreeMap::new();
    for (face, &class) in classes.iter().enumerate() {
        by_class.entry(class).or_default().push(face as i64);
    }
    by_class
        .values()
        .flat_map(|faces| {
            let all: Vec<(i64, i64)> = (0..faces.len())
                .flat_map(|i| (0..i).map(move |j| (i, j)))
                .map(|(i, j)| (faces[i], faces[j]))
                .collect();
            let stride = all.len().div_ceil(most.max(1)).max(1);
            all.into_iter().step_by(stride).collect::<Vec<_>>()
        })
        .collect()
}

/// The shape of the VGG-Face whose weights are in a checkpoint.
///
/// # Errors
/// The name of a tensor that is missing.
pub fn shape_of(tensors: &[(String, Tensor)]) -> Result<Shape, String> {
    let size =
        |name: &str| tensors.iter().find(|(n, _)| n == name).map(|(_, t)| t.size()).ok_or(name.to_owned());
    let has = |name: &str| size(name).is_ok();
    let configuration = if has("weights.stage2.conv2.weight") {
        Configuration::D
    } else if has("weights.stage0.conv1.weight") {
        Configuration::B
    } else {
        Configuration::A
    };
    let first = size("weights.stage0.conv0.weight")?[0];
    let width = first as f64 / 64.0;
    let last = (512.0 * width).round().max(4.0);
    let side = (size("weights.fc6.weight")?[1] as f64 / last).sqrt().round() as i64 * 32;
    Ok(Shape { configuration, width, side_px: side, ..Shape::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoints_shape_is_read_from_its_tensors() {
        for (configuration, width, side_px) in
            [(Configuration::A, 0.125, 64), (Configuration::B, 0.25, 96), (Configuration::D, 0.125, 32)]
        {
            let shape = Shape { configuration, width, side_px, ..Shape::default() };
            let store = VarStore::new(Device::Cpu);
            let _net = VggFace::new(&store.root(), &shape, 3);
            assert_eq!(shape_of(&checkpoint::named("weights", &store)).unwrap(), shape);
        }
        assert_eq!(shape_of(&[]).unwrap_err(), "weights.stage0.conv0.weight");
    }

    #[test]
    fn negatives_violate_the_margin_and_are_of_other_people() {
        // Three people on a line; the third is too far from all to violate any margin.
        let at = |x: &[f32]| Tensor::from_slice(x).reshape([-1, 1]);
        let (a, p) = (at(&[0.0, 0.5, 9.0]), at(&[0.1, 0.6, 9.1]));
        let classes = Tensor::from_slice(&[0_i64, 1, 2]);
        for seed in 0..20 {
            tch::manual_seed(seed);
            let (loss, triplets) = triplet_loss(&a, &p, &classes, 0.3);
            assert_eq!(triplets, 2);
            // Anchor 0: only 0.5 violates (0.25 < 0.01 + 0.3). Anchor 1: 0.0 (0.25) and 0.1 (0.16) do.
            let first = 0.3 - 0.25 + 0.01;
            let second = [0.3 - 0.25 + 0.01, 0.3 - 0.16 + 0.01];
            let loss = loss.double_value(&[]);
            assert!(second.iter().any(|s| ((first + s) / 2.0 - loss).abs() < 1e-5), "{loss}");
        }
        let (none, triplets) = triplet_loss(&a, &p, &Tensor::from_slice(&[7_i64, 7, 7]), 0.3);
        assert!(triplets == 0 && none.double_value(&[]) == 0.0);
    }

    #[test]
    fn positives_are_all_pairs_up_to_the_most() {
        assert_eq!(positive_pairs(&[5, 6, 5, 5], 10), [(2, 0), (3, 0), (3, 2)]);
        assert_eq!(positive_pairs(&[1; 40], 100).len(), 98); // every 8th of 780
    }
}
