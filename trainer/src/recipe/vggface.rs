//! vggface: Parkhi, Vedaldi, Zisserman 2015, section 4. First a softmax over the identities by SGD; configurations B and D start from
//! a trained A, whose convolutions stand still while what was added and the fully connected layers are trained, then all move.

use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use super::classify::{Classifier, Cut, DataSettings, People, Rule, Student};
use crate::dataset::Augment;
use crate::dataset::labelled::Labelled;
use crate::model::vggface::{Configuration, Shape, VggFace, is_new};
use crate::train::config::{ConfigError, Length, Origin, Settings};
use crate::train::log::Values;
use crate::train::sgd::stepped;
use crate::train::{At, Job, Learnt, Maker, Recipe, TrainError, checkpoint};

/// Settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VggfaceSettings {
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
    /// Of SGD; biases are not decayed.
    pub weight_decay: f64,
    /// The configuration that `--start-from` holds: its convolutions are taken over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grown_from: Option<Configuration>,
    /// Share of the schedule during which convolutions that were taken over stand still.
    pub still: f64,
    /// Threads.
    pub threads: i32,
    /// The net.
    pub shape: Shape,
    /// Which pictures.
    pub data: DataSettings,
    /// How chips are varied: the paper crops 224 of 256 pixels at random and mirrors, which is 8 of 112 each way.
    pub augment: Augment,
}

impl Default for VggfaceSettings {
    fn default() -> Self {
        Self {
            seed: 1,
            batch: 256,
            minutes: 60.0,
            steps: 0,
            learning_rate: 0.01,
            falls: vec![0.6, 0.85],
            momentum: 0.9,
            weight_decay: 5e-4,
            grown_from: None,
            still: 0.3,
            threads: 2,
            shape: Shape::default(),
            data: DataSettings::default(),
            augment: Augment { shift_px: 8.0, mirror: 0.5, ..Augment::none() },
        }
    }
}

impl Settings for VggfaceSettings {
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
        if self.shape.side_px < 32 || self.shape.side_px % 32 != 0 {
            return bad("shape.side_px", "must be a multiple of 32");
        }
        if !(0.0..1.0).contains(&self.shape.dropout) {
            return bad("shape.dropout", "must be at least 0 and below 1");
        }
        if !(0.0..=1.0).contains(&self.still) {
            return bad("still", "must be a share, 0 to 1");
        }
        Ok(())
    }
}

impl Classifier for VggFace {
    fn logits(&self, x: &Tensor, masks: &[Tensor]) -> Tensor {
        self.logits(x, masks)
    }

    fn masks(&self, batch: i64, device: Device) -> Vec<Tensor> {
        self.masks(batch, device)
    }

    fn represent(&self, x: &Tensor) -> Tensor {
        self.represent(x)
    }
}

/// The recipe.
#[derive(Debug)]
pub struct VggfaceRecipe {
    settings: VggfaceSettings,
    student: Student<VggFace>,
    people: People,
    device: Device,
}

impl Recipe for VggfaceRecipe {
    const NAME: &'static str = "vggface";
    type Settings = VggfaceSettings;
    type Batch = Labelled;

    fn open(job: &Job, settings: &VggfaceSettings) -> Result<(Self, Origin), TrainError> {
        let cut = Cut {
            batch: settings.batch,
            side_px: settings.shape.side_px as usize,
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
            VggFace::new(path, &settings.shape, identities)
        });
        if let Some(path) = &job.start_from {
            let Some(old) = settings.grown_from else {
                return Err(ConfigError::value(
                    "grown_from",
                    "--start-from needs the configuration it holds: --set grown_from=A",
                )
                .into());
            };
            let taken = grow(&student, old, &checkpoint::read(path)?)
                .map_err(|name| checkpoint::CheckpointError::Misfit { path: path.clone(), name })?;
            eprintln!("{taken} convolutions taken over from configuration {old:?}");
        }
        let origin = Origin { parameters: student.parameters(), ..people.origin.clone() };
        eprintln!(
            "vggface {:?} of width {} on {} px: {} parameters on {:?}",
            settings.shape.configuration,
            settings.shape.width,
            settings.shape.side_px,
            origin.parameters,
            job.device
        );
        Ok((Self { settings: settings.clone(), student, people, device: job.device }, origin))
    }

    fn makers(&self) -> Vec<Maker<Labelled>> {
        self.people.makers(self.settings.data.loaders)
    }

    fn step(&mut self, batch: &Labelled, at: At) -> Learnt {
        let rate = stepped(self.settings.learning_rate, &self.settings.falls, at.share);
        let still = self.settings.grown_from.filter(|_| at.share < self.settings.still);
        let loss = self.student.learn(batch, rate, |name| still.is_none_or(|old| is_new(name, old)));
        Learnt { loss, images: batch.rows.len(), more: vec![("rate", rate)] }
    }

    fn evaluate(&mut self, _at: At) -> Values {
        self.people.report_skipped();
        let net = &self.student.net;
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

/// Takes over the convolutions of configuration `old`; the fully connected layers stay fresh. Returns how many.
fn grow(
    student: &Student<VggFace>,
    old: Configuration,
    trained: &[(String, Tensor)],
) -> Result<usize, String> {
    let _no_grad = tch::no_grad_guard();
    let mut taken = 0;
    for (name, mut variable) in student.store.variables() {
        if is_new(&name, old) {
            continue;
        }
        let wanted = format!("weights.{name}");
        let found = trained.iter().find(|(n, t)| *n == wanted && t.size() == variable.size());
        variable.copy_(&found.ok_or(wanted)?.1);
        taken += usize::from(name.ends_with(".weight"));
    }
    Ok(taken)
}
