//! deepface: Taigman et al. 2014. Cross-entropy over the identities, SGD with momentum 0.9, batches of 128, a rate that falls by
//! ten twice, dropout on F7 (section 3).

use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use super::classify::{Classifier, Cut, DataSettings, People, Rule, Student, chips, in_chunks};
use crate::dataset::Augment;
use crate::dataset::labelled::{Labelled, plain_chips};
use crate::model::deepface::{DeepFace, SIDE_PX, Shape};
use crate::train::config::{ConfigError, Length, Origin, Settings};
use crate::train::log::Values;
use crate::train::sgd::stepped;
use crate::train::{At, Job, Learnt, Maker, Recipe, TrainError};

/// Settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeepfaceSettings {
    /// Seed of weights, split, order, augmentation and dropout.
    pub seed: u64,
    /// Chips in a batch.
    pub batch: usize,
    /// Length of the schedule in minutes of training.
    pub minutes: f64,
    /// Length of the schedule in steps; when above zero `minutes` is ignored.
    pub steps: u64,
    /// First learning rate.
    pub learning_rate: f64,
    /// Shares of the schedule at which the rate falls by ten.
    pub falls: Vec<f64>,
    /// Of SGD.
    pub momentum: f64,
    /// Of SGD.
    pub weight_decay: f64,
    /// Training faces over which the largest value of each F7 unit is taken.
    pub normaliser_faces: usize,
    /// Threads.
    pub threads: i32,
    /// The net.
    pub shape: Shape,
    /// Which pictures.
    pub data: DataSettings,
    /// How chips are varied.
    pub augment: Augment,
}

impl Default for DeepfaceSettings {
    fn default() -> Self {
        Self {
            seed: 1,
            batch: 128,
            minutes: 60.0,
            steps: 0,
            learning_rate: 0.01,
            falls: vec![0.6, 0.85],
            momentum: 0.9,
            weight_decay: 0.0,
            normaliser_faces: 1024,
            threads: 2,
            shape: Shape::default(),
            data: DataSettings::default(),
            augment: Augment { shift_px: 3.0, mirror: 0.5, ..Augment::none() },
        }
    }
}

impl Settings for DeepfaceSettings {
    fn seed(&self) -> u64 {
        self.seed
    }

    fn length(&self) -> Length {
        Length { steps: self.steps, minutes: self.minutes }
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.length().check()?;
        self.data.check()?;
        let bad = |key, reason| Err(ConfigError::value(key, reason));
        if self.batch < 1 {
            return bad("batch", "must be at least 1");
        }
        if !(0.0 < self.shape.width && self.shape.width <= 2.0) {
            return bad("shape.width", "must be above 0 and at most 2");
        }
        if !(0.0..1.0).contains(&self.shape.dropout) {
            return bad("shape.dropout", "must be at least 0 and below 1");
        }
        Ok(())
    }
}

impl Classifier for DeepFace {
    fn logits(&self, x: &Tensor, masks: &[Tensor]) -> Tensor {
        self.logits(x, masks.first())
    }

    fn masks(&self, batch: i64, device: Device) -> Vec<Tensor> {
        vec![self.mask(batch, device)]
    }

    fn represent(&self, x: &Tensor) -> Tensor {
        self.represent(x)
    }
}

/// The recipe.
#[derive(Debug)]
pub struct DeepfaceRecipe {
    settings: DeepfaceSettings,
    student: Student<DeepFace>,
    people: People,
    device: Device,
}

impl Recipe for DeepfaceRecipe {
    const NAME: &'static str = "deepface";
    type Settings = DeepfaceSettings;
    type Batch = Labelled;

    fn open(job: &Job, settings: &DeepfaceSettings) -> Result<(Self, Origin), TrainError> {
        let cut = Cut {
            batch: settings.batch,
            side_px: SIDE_PX as usize,
            augment: &settings.augment,
            seed: settings.seed,
        };
        let people = People::open(job, &settings.data, &cut)?;
        let rule = Rule {
            momentum: settings.momentum,
            weight_decay: settings.weight_decay,
            threads: settings.threads,
        };
        let identities = people.names.len() as i64;
        let student = Student::new(job.device, settings.seed, rule, |path| {
            DeepFace::new(path, &settings.shape, identities)
        });
        let origin = Origin { parameters: student.parameters(), ..people.origin.clone() };
        eprintln!(
            "deepface of width {}: {} parameters on {:?}",
            settings.shape.width, origin.parameters, job.device
        );
        Ok((Self { settings: settings.clone(), student, people, device: job.device }, origin))
    }

    fn makers(&self) -> Vec<Maker<Labelled>> {
        self.people.makers(self.settings.data.loaders)
    }

    fn step(&mut self, batch: &Labelled, at: At) -> Learnt {
        let rate = stepped(self.settings.learning_rate, &self.settings.falls, at.share);
        let loss = self.student.learn(batch, rate, |_| true);
        Learnt { loss, images: batch.rows.len(), more: vec![("rate", rate)] }
    }

    /// Takes the largest value of each unit over training faces, then verifies pairs of other people.
    fn evaluate(&mut self, _at: At) -> Values {
        self.people.report_skipped();
        let net = &self.student.net;
        let source = &self.people.source;
        let rows: Vec<u32> = source.samples.iter().map(|s| s.0).collect();
        let stride = rows.len().div_ceil(self.settings.normaliser_faces.max(1)).max(1);
        let rows: Vec<u32> = rows.into_iter().step_by(stride).collect();
        let (pixels, kept) = plain_chips(&source.pictures, &rows, source.side_px);
        if !kept.is_empty() {
            let f7 = in_chunks(&chips(&pixels, source.side_px), self.device, |x| net.f7(x));
            net.set_largest(&f7.max_dim(0, false).0.to_device(self.device));
        }
        self.people
            .pairs
            .as_ref()
            .map_or_else(Values::new, |pairs| pairs.verify(self.device, |x| net.represent(x)))
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        self.student.state()
    }

    fn restore(&mut self, state: &[(String, Tensor)]) -> Result<(), String> {
        self.student.restore(state)
    }
}
