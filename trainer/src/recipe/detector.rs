//! detector: faces of all sizes, taught by labelled scenes and composed pictures.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::fiducials::{CROP_LABELS, CROPS, SCENES};
use super::student::{Student, planes, rate};
use crate::dataset::mesh::MeshLabels;
use crate::dataset::scenes::Scene;
use crate::dataset::street::{Compose, Cutting, Street};
use crate::dataset::{self, Canvases, scenes, shards};
use crate::loss::detection::{self, Cells};
use crate::model::detector::Detector;
use crate::model::layers::Mode;
use crate::train::config::{ConfigError, Length, Origin, Settings};
use crate::train::log::Values;
use crate::train::optimizer::Rule;
use crate::train::{self, At, Job, Learnt, Maker, Recipe, TrainError};

/// Settings of the recipe. Unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DetectorSettings {
    /// Seed of weights and samples.
    pub seed: u64,
    /// Samples in a batch.
    pub batch: usize,
    /// Side of a sample, a multiple of 32.
    pub side_px: usize,
    /// Length of the schedule in minutes of training; repeatable runs use `steps` instead.
    pub minutes: f64,
    /// Length of the schedule in steps; when above zero `minutes` is ignored.
    pub steps: u64,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// AdamW's λ.
    pub weight_decay: f64,
    /// Decay of the running mean of the weights, which is what is evaluated and exported.
    pub ema: f64,
    /// Convolutions in bfloat16.
    pub bf16: bool,
    /// Weights of boxes and landmarks beside the scores.
    pub boxes: f64,
    /// See `boxes`.
    pub landmarks: f64,
    /// Share of the training scenes that is held out.
    pub held_out: f64,
    /// Crops to paste, at most; each takes 48 kB.
    pub cuttings: usize,
    /// How samples are composed.
    pub compose: Compose,
}

impl Default for DetectorSettings {
    fn default() -> Self {
        Self {
            seed: 1,
            batch: 16,
            side_px: 256,
            minutes: 60.0,
            steps: 0,
            learning_rate: 4e-3,
            warmup_steps: 200,
            weight_decay: 0.02,
            ema: 0.998,
            bf16: false,
            boxes: 2.0,
            landmarks: 1.0,
            held_out: 0.08,
            cuttings: 20_000,
            compose: Compose::default(),
        }
    }
}

impl Settings for DetectorSettings {
    fn seed(&self) -> u64 {
        self.seed
    }

    fn length(&self) -> Length {
        Length { steps: self.steps, minutes: self.minutes }
    }

    fn check(&self) -> Result<(), ConfigError> {
        let bad = |key, reason| Err(ConfigError::value(key, reason));
        self.length().check()?;
        if self.batch < 1 {
            return bad("batch", "must be at least 1");
        }
        if self.side_px == 0 || !self.side_px.is_multiple_of(32) || self.side_px > 1024 {
            return bad("side_px", "must be a multiple of 32 up to 1024");
        }
        if !(0.0..0.9).contains(&self.held_out) {
            return bad("held_out", "must be at least 0 and below 0.9");
        }
        if !(0.0..1.0).contains(&self.ema) {
            return bad("ema", "must be at least 0 and below 1");
        }
        let [small, large] = self.compose.face_px;
        if !(small >= 4.0 && large > small && large <= self.side_px as f32 * 1.5) {
            return bad(
                "compose.face_px",
                "must be two sizes, the first at least 4, the second larger and near side_px",
            );
        }
        Ok(())
    }
}

/// One step's samples and what the net should say of them.
#[derive(Debug)]
pub struct StreetBatch {
    pixels: Vec<u8>,
    cells: Cells,
}

/// The recipe.
#[derive(Debug)]
pub struct DetectorRecipe {
    settings: DetectorSettings,
    device: Device,
    student: Student<Detector>,
    street: Street,
    held_out: Option<StreetBatch>,
}

/// Whether a training scene is held out for choosing the score's bias and for the curve.
#[must_use]
pub fn held_out(scene: &Scene, share: f64) -> bool {
    !scene.test && scene.position() < share
}

impl Recipe for DetectorRecipe {
    const NAME: &'static str = "detector";
    type Settings = DetectorSettings;
    type Batch = StreetBatch;

    fn open(job: &Job, settings: &DetectorSettings) -> Result<(Self, Origin), TrainError> {
        tch::set_num_threads(1);
        let scenes = Arc::new(scenes::load(&job.data.join(SCENES)).map_err(TrainError::recipe)?);
        let mut hashes = vec![("scenes".to_owned(), train::hash(&job.data.join(SCENES).join("labels.csv"))?)];
        let (mut canvases, mut cuttings) = (Canvases::from_pixels(Vec::new()), Vec::new());
        if let Some(teacher) = &job.teacher {
            let labels_path = teacher.join(CROP_LABELS);
            let labels = MeshLabels::read(&labels_path).map_err(TrainError::recipe)?;
            let crops = job.data.join(CROPS);
            // The manifest is sorted by set: take every n-th, so that all are there.
            let all = dataset::manifest::read(&crops)?;
            let step = (all.len() / settings.cuttings.max(1)).max(1);
            let rows: Vec<_> = all.into_iter().step_by(step).collect();
            canvases = shards::load(&crops, &rows, 1, usize::MAX)?;
            cuttings = rows
                .iter()
                .zip(0..)
                .filter(|(_, n)| canvases.present[*n as usize])
                .filter_map(|(row, n)| {
                    let label = labels.get(&row.path()).filter(|l| l.spread < 0.08 && l.score > 0.3)?;
                    Some(Cutting::new(n, &label))
                })
                .collect();
            hashes.push(("manifest".to_owned(), train::hash(&crops.join(dataset::manifest::FILE))?));
            hashes.push(("mesh labels".to_owned(), train::hash(&labels_path)?));
        }
        let canvases = Arc::new(canvases);
        let share = settings.held_out;
        let street = Street::new(
            Arc::clone(&scenes),
            |s| !s.test && !held_out(s, share),
            Arc::clone(&canvases),
            cuttings,
        );
        let [peopled, empty, pasted] = street.counts();
        if peopled < settings.batch {
            let hint = "the data folder needs scenes/labels.csv with split 'train'";
            return Err(TrainError::TooFewFaces { faces: peopled, batch: settings.batch, hint });
        }
        let student =
            Student::new(settings.seed, job.device, Rule::Adamw, settings.weight_decay, Detector::new);
        if let Some(path) = &job.start_from {
            student.load(path)?;
        }
        eprintln!(
            "{peopled} scenes with faces, {empty} without, {pasted} crops to paste; {} parameters on {:?}",
            student.parameters(),
            job.device
        );
        let origin = Origin {
            images: peopled + empty + pasted,
            identities: 0,
            parameters: student.parameters(),
            hashes: hashes.into_iter().collect(),
            ..Origin::default()
        };
        let kept = Street::new(scenes, |s| held_out(s, share), canvases, Vec::new());
        let held_out = (kept.counts()[0] > 0).then(|| {
            let compose = Compose { paste: 0.0, ..settings.compose.clone() };
            batch(&kept, &compose, settings, 0, 64)
        });
        let recipe = Self { settings: settings.clone(), device: job.device, student, street, held_out };
        Ok((recipe, origin))
    }

    fn makers(&self) -> Vec<Maker<StreetBatch>> {
        let (street, settings) = (self.street.clone(), self.settings.clone());
        vec![Box::new(move |at: At| {
            batch(&street, &settings.compose, &settings, at.step * settings.batch as u64, settings.batch)
        })]
    }

    fn step(&mut self, batch: &StreetBatch, at: At) -> Learnt {
        let rate = rate(self.settings.learning_rate, self.settings.warmup_steps, at.step, at.share);
        let mode = Mode { train: true, bf16: self.settings.bf16 };
        let pictures = planes(&batch.pixels, self.settings.side_px).to_device(self.device);
        let outputs = self.student.net.forward(&pictures, mode);
        let parts = detection::loss(&outputs, &batch.cells, self.settings.side_px);
        let total =
            &parts.score + &parts.boxes * self.settings.boxes + &parts.landmarks * self.settings.landmarks;
        self.student.learn(&total, at.step, rate, self.settings.ema);
        Learnt {
            loss: total.double_value(&[]),
            images: pictures.size()[0] as usize,
            more: vec![
                ("score", parts.score.double_value(&[])),
                ("boxes", parts.boxes.double_value(&[])),
                ("landmarks", parts.landmarks.double_value(&[])),
                ("rate", rate),
            ],
        }
    }

    /// The parts of the loss on composed pictures of held-out scenes.
    fn evaluate(&mut self, _: At) -> Values {
        let Some(batch) = &self.held_out else { return Values::new() };
        let _no_grad = tch::no_grad_guard();
        let pictures = planes(&batch.pixels, self.settings.side_px).to_device(self.device);
        let outs: Vec<[Tensor; 3]> = (0..pictures.size()[0])
            .step_by(8)
            .map(|from| {
                let count = (pictures.size()[0] - from).min(8);
                self.student.ema_net.forward(&pictures.narrow(0, from, count), Mode::EVAL)
            })
            .collect();
        let outputs = std::array::from_fn(|i| {
            let parts: Vec<&Tensor> = outs.iter().map(|o| &o[i]).collect();
            Tensor::cat(&parts, 0)
        });
        let parts = detection::loss(&outputs, &batch.cells, self.settings.side_px);
        [("score", parts.score), ("boxes", parts.boxes), ("landmarks", parts.landmarks)]
            .into_iter()
            .map(|(name, part)| (format!("held_out_{name}"), part.sum(Kind::Float).double_value(&[])))
            .collect()
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        self.student.state()
    }

    fn restore(&mut self, state: &[(String, Tensor)]) -> Result<(), String> {
        self.student.restore(state)
    }
}

fn batch(
    street: &Street,
    compose: &Compose,
    settings: &DetectorSettings,
    from: u64,
    size: usize,
) -> StreetBatch {
    let mut batch = StreetBatch { pixels: Vec::new(), cells: Cells::default() };
    for position in from..from + size as u64 {
        let sample = street.sample(compose, settings.side_px, settings.seed, position);
        batch.cells.push(&sample.faces, settings.side_px);
        batch.pixels.extend(sample.pixels);
    }
    batch
}
