//! fiducials: 68 points on a crop of the face, taught by the face mesh's labels.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use facelatch_shared::vision::fiducials::CROP_PX;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::student::{Student, planes, rate};
use crate::dataset::close_ups::{CloseUpBatch, CloseUps, Vary};
use crate::dataset::mesh::MeshLabels;
use crate::dataset::{self, Order, Row, scenes, shards};
use crate::loss::fiducials as loss;
use crate::model::fiducials::{Fiducials, POINTS};
use crate::model::layers::Mode;
use crate::train::config::{ConfigError, Length, Origin, Settings};
use crate::train::log::Values;
use crate::train::optimizer::Rule;
use crate::train::{self, At, Job, Learnt, Maker, Recipe, TrainError};

/// Settings of the recipe. Unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FiducialsSettings {
    /// Seed of weights, order and variation.
    pub seed: u64,
    /// Crops in a batch.
    pub batch: usize,
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
    /// What updates dense convolutions.
    pub rule: Rule,
    /// Decay of the running mean of the weights, which is what is evaluated and exported.
    pub ema: f64,
    /// Convolutions in bfloat16.
    pub bf16: bool,
    /// Weights of visibility and of spread beside the places.
    pub visible: f64,
    /// See `visible`.
    pub spread: f64,
    /// Share of identities held out.
    pub held_out: f64,
    /// Most faces of the held-out part that one evaluation uses.
    pub held_out_faces: usize,
    /// Largest decoded data set.
    pub memory_limit_mb: usize,
    /// How crops are varied.
    pub vary: Vary,
}

impl Default for FiducialsSettings {
    fn default() -> Self {
        Self {
            seed: 1,
            batch: 64,
            minutes: 60.0,
            steps: 0,
            learning_rate: 3e-3,
            warmup_steps: 200,
            weight_decay: 0.02,
            rule: Rule::Adamw,
            ema: 0.998,
            bf16: true,
            visible: 0.05,
            spread: 0.01,
            held_out: 0.05,
            held_out_faces: 512,
            memory_limit_mb: 6000,
            vary: Vary::default(),
        }
    }
}

impl Settings for FiducialsSettings {
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
            return bad("batch", "batch statistics need at least 2 crops");
        }
        if !(0.0..0.9).contains(&self.held_out) {
            return bad("held_out", "must be at least 0 and below 0.9");
        }
        if !(0.0..1.0).contains(&self.ema) {
            return bad("ema", "must be at least 0 and below 1");
        }
        if !(0.0..0.5).contains(&self.vary.shift) || !(0.0..0.5).contains(&self.vary.scale) {
            return bad("vary", "shift and scale must be at least 0 and below 0.5");
        }
        Ok(())
    }
}

/// Faces of a data folder, split by identity: crops of `train/`, labelled by `mesh-labels.safetensors`, and scenes of
/// `scenes/`, labelled by `mesh-scenes.safetensors`.
#[derive(Debug)]
pub struct Faces {
    /// To learn from: crops, and the training part of the scenes.
    pub train: CloseUps,
    /// Crops of people who are never learnt from, in crops or in scenes.
    pub held_out: CloseUps,
    /// Identities in the two parts.
    pub identities: [usize; 2],
}

/// Folder of the aligned crops in the data folder.
pub const CROPS: &str = "train";
/// Folder of the scenes in the data folder.
pub const SCENES: &str = "scenes";
/// The crops' labels in the teacher's folder.
pub const CROP_LABELS: &str = "mesh-labels.safetensors";
/// The scenes' labels in the teacher's folder.
pub const SCENE_LABELS: &str = "mesh-scenes.safetensors";

impl Faces {
    /// Loads them.
    ///
    /// # Errors
    /// [`TrainError`] naming what is missing.
    pub fn load(
        data: &Path,
        teacher: &Path,
        share: f64,
        seed: u64,
        limit_mb: usize,
    ) -> Result<Self, TrainError> {
        let crops = data.join(CROPS);
        let rows = dataset::manifest::read(&crops)?;
        let labels = MeshLabels::read(&teacher.join(CROP_LABELS)).map_err(TrainError::recipe)?;
        let canvases = Arc::new(shards::load(&crops, &rows, 1, limit_mb << 20)?);
        let split = dataset::split::by_identity(&rows, &canvases.present, share, seed);
        let close = |wanted: &[u32]| CloseUps::of_canvases(Arc::clone(&canvases), &rows, wanted, &labels);
        let (mut train, mut held_out) = (close(&split.train), split.held_out);
        let scene_labels = teacher.join(SCENE_LABELS);
        if scene_labels.exists() {
            let labels = MeshLabels::read(&scene_labels).map_err(TrainError::recipe)?;
            let scenes = Arc::new(scenes::load(&data.join(SCENES)).map_err(TrainError::recipe)?);
            let names = scenes.iter().filter(|scene| !scene.test).map(|scene| scene.name.as_str());
            held_out = without_people_of(names, &rows, held_out);
            train = train.with_scenes(scenes, &labels, |scene| !scene.test);
        }
        let held_out = close(&held_out);
        Ok(Self { train, held_out, identities: [split.train_identities, split.held_out_identities] })
    }
}

/// The faces that [`Faces::load`] holds out, without decoding the others.
#[derive(Debug)]
pub struct HeldOut {
    /// The faces.
    pub faces: CloseUps,
    /// The rows that they count.
    pub rows: Vec<Row>,
}

impl HeldOut {
    /// Loads them.
    ///
    /// # Errors
    /// [`TrainError`] naming what is missing.
    pub fn load(data: &Path, teacher: &Path, share: f64, seed: u64) -> Result<Self, TrainError> {
        let crops = data.join(CROPS);
        let rows = dataset::manifest::read(&crops)?;
        let labels = MeshLabels::read(&teacher.join(CROP_LABELS)).map_err(TrainError::recipe)?;
        let mut wanted = dataset::split::by_identity(&rows, &vec![true; rows.len()], share, seed).held_out;
        if teacher.join(SCENE_LABELS).exists() {
            let names = scenes::training_names(&data.join(SCENES)).map_err(TrainError::recipe)?;
            wanted = without_people_of(names.iter().map(String::as_str), &rows, wanted);
        }
        let rows: Vec<Row> = wanted.iter().map(|&row| rows[row as usize].clone()).collect();
        let canvases = Arc::new(shards::load(&crops, &rows, 1, usize::MAX)?);
        let wanted: Vec<u32> = (0..rows.len() as u32).collect();
        Ok(Self { faces: CloseUps::of_canvases(canvases, &rows, &wanted, &labels), rows })
    }
}

/// The rows of `wanted` whose person is in none of the scenes: a scene SET/FILE shows the person of the crop IDENTITY/FILE of that set.
fn without_people_of<'a>(scenes: impl Iterator<Item = &'a str>, rows: &[Row], wanted: Vec<u32>) -> Vec<u32> {
    let scenes: HashSet<&str> = scenes.collect();
    let in_scene = |row: &&Row| {
        let file = row.member.rsplit('/').next().unwrap_or_default();
        scenes.contains(format!("{}/{file}", row.set).as_str())
    };
    let people: HashSet<String> = rows.iter().filter(in_scene).map(Row::split_key).collect();
    wanted.into_iter().filter(|&row| !people.contains(&rows[row as usize].split_key())).collect()
}

/// The recipe.
#[derive(Debug)]
pub struct FiducialsRecipe {
    settings: FiducialsSettings,
    device: Device,
    student: Student<Fiducials>,
    faces: Arc<CloseUps>,
    /// Held-out faces: plain, and varied as the detector's error would.
    held_out: Vec<(&'static str, CloseUpBatch)>,
}

impl Recipe for FiducialsRecipe {
    const NAME: &'static str = "fiducials";
    type Settings = FiducialsSettings;
    type Batch = CloseUpBatch;

    fn open(job: &Job, settings: &FiducialsSettings) -> Result<(Self, Origin), TrainError> {
        tch::set_num_threads(1);
        let teacher = job.teacher.as_deref().ok_or(TrainError::NoTeacher)?;
        let mut faces =
            Faces::load(&job.data, teacher, settings.held_out, settings.seed, settings.memory_limit_mb)?;
        if faces.train.len() < settings.batch {
            let hint = "check that --teacher holds the labels of --data";
            return Err(TrainError::TooFewFaces { faces: faces.train.len(), batch: settings.batch, hint });
        }
        let held_out_all = faces.held_out.len();
        faces.held_out.truncate(settings.held_out_faces, settings.seed);
        let student =
            Student::new(settings.seed, job.device, settings.rule, settings.weight_decay, Fiducials::new);
        let mean = Tensor::from_slice(&faces.train.mean()).reshape([POINTS, 2]).to_device(job.device);
        student.net.centre(&mean);
        student.average(0.0);
        if let Some(path) = &job.start_from {
            student.load(path)?;
        }
        eprintln!(
            "{} faces of {} known identities, {held_out_all} held out; {} parameters on {:?}",
            faces.train.len(),
            faces.identities[0],
            student.parameters(),
            job.device
        );
        let mut hashes = vec![
            ("manifest".to_owned(), train::hash(&job.data.join(CROPS).join(dataset::manifest::FILE))?),
            ("mesh labels".to_owned(), train::hash(&teacher.join(CROP_LABELS))?),
        ];
        if teacher.join(SCENE_LABELS).exists() {
            hashes.push(("mesh scenes".to_owned(), train::hash(&teacher.join(SCENE_LABELS))?));
        }
        let origin = Origin {
            images: faces.train.len(),
            identities: faces.identities[0],
            parameters: student.parameters(),
            hashes: hashes.into_iter().collect(),
            ..Origin::default()
        };
        let jitter = Vary { tilt_deg: 8.0, scale: 0.08, shift: 0.05, ..Vary::none() };
        let mut held_out = Vec::new();
        if !faces.held_out.is_empty() {
            let batch = |vary| {
                faces.held_out.batch(vary, &mut Order::default(), 0, faces.held_out.len(), settings.seed)
            };
            held_out = vec![("", batch(&Vary::none())), ("_jittered", batch(&jitter))];
        }
        let recipe = Self {
            settings: settings.clone(),
            device: job.device,
            student,
            faces: Arc::new(faces.train),
            held_out,
        };
        Ok((recipe, origin))
    }

    fn makers(&self) -> Vec<Maker<CloseUpBatch>> {
        let (faces, settings) = (Arc::clone(&self.faces), self.settings.clone());
        let mut order = Order::default();
        vec![Box::new(move |at: At| {
            faces.batch(&settings.vary, &mut order, at.step, settings.batch, settings.seed)
        })]
    }

    fn step(&mut self, batch: &CloseUpBatch, at: At) -> Learnt {
        let rate = rate(self.settings.learning_rate, self.settings.warmup_steps, at.step, at.share);
        let mode = Mode { train: true, bf16: self.settings.bf16 };
        let (crops, [points, visible, known]) = tensors(batch, self.device);
        let out = self.student.net.forward(&crops, mode);
        let parts = loss::loss(&out, &points, &visible, &known);
        let total =
            &parts.place + &parts.visible * self.settings.visible + &parts.spread * self.settings.spread;
        self.student.learn(&total, at.step, rate, self.settings.ema);
        Learnt {
            loss: total.double_value(&[]),
            images: crops.size()[0] as usize,
            more: vec![
                ("place", parts.place.double_value(&[])),
                ("visible", parts.visible.double_value(&[])),
                ("rate", rate),
            ],
        }
    }

    /// Normalised mean error (outer eye corners), in percent, and the share of visibilities that are right.
    fn evaluate(&mut self, _: At) -> Values {
        let _no_grad = tch::no_grad_guard();
        let mut values = Values::new();
        for (name, batch) in &self.held_out {
            let (crops, [points, visible, known]) = tensors(batch, self.device);
            let outs: Vec<Tensor> = (0..crops.size()[0])
                .step_by(64)
                .map(|from| {
                    let count = (crops.size()[0] - from).min(64);
                    self.student.ema_net.forward(&crops.narrow(0, from, count), Mode::EVAL)
                })
                .collect();
            let out = Tensor::cat(&outs, 0);
            values.push((format!("held_out_nme{name}"), 100.0 * normalised_error(&out, &points)));
            let right = out.select(2, 2).gt(0.0).eq_tensor(&visible.gt(0.5)).to_kind(Kind::Float) * &known;
            let share = right.sum(Kind::Float).double_value(&[]) / known.sum(Kind::Float).double_value(&[]);
            values.push((format!("held_out_visible{name}"), share));
        }
        values
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        self.student.state()
    }

    fn restore(&mut self, state: &[(String, Tensor)]) -> Result<(), String> {
        self.student.restore(state)
    }
}

/// Mean over faces of the mean distance of the points over the distance of the outer eye corners.
fn normalised_error(out: &Tensor, points: &Tensor) -> f64 {
    let length = |t: Tensor| t.square().sum_dim_intlist(-1, false, Kind::Float).sqrt();
    let off = length(out.narrow(2, 0, 2) - points).mean_dim(&[1_i64][..], false, Kind::Float);
    let span = length(points.select(1, 36) - points.select(1, 45));
    (off / span.clamp_min(1e-6)).mean(Kind::Float).double_value(&[])
}

/// Crops `[n, 3, 96, 96]`, and points `[n, 68, 2]`, visible and known `[n, 68]`.
fn tensors(batch: &CloseUpBatch, device: Device) -> (Tensor, [Tensor; 3]) {
    let rows = |values: &[f32], shape: &[i64]| Tensor::from_slice(values).reshape(shape).to_device(device);
    let crops = planes(&batch.pixels, CROP_PX).to_device(device);
    let points = rows(&batch.points, &[-1, POINTS, 2]);
    (crops, [points, rows(&batch.visible, &[-1, POINTS]), rows(&batch.known, &[-1, POINTS])])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_held_out_who_is_in_a_scene_under_whatever_picture() {
        let row = |set: &str, member: &str, identity: Option<&str>| Row {
            shard: format!("{set}.tar"),
            member: member.into(),
            set: set.into(),
            identity: identity.map(Into::into),
            masked: false,
        };
        let rows = [
            row("wild", "p1/a.webp", Some("p1")),
            row("small", "p1/b.webp", Some("p1")),
            row("wild", "p2/c.webp", Some("p2")),
            row("web", "u/d.webp", None),
            row("web", "u/e.webp", None),
            row("small", "p3/c.webp", Some("p3")),
        ];
        let scenes = ["wild/a.webp", "web/d.webp", "wild/x.webp"];
        let kept = without_people_of(scenes.into_iter(), &rows, (0..6).collect());
        assert_eq!(kept, [2, 4, 5]);
    }
}
