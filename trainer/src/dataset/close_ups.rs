//! Samples for the fiducials net: one face cut as the door cuts it, with its 68 points, varied.

use std::sync::Arc;

use facelatch_shared::align::fiducials::MIRROR_68;
use facelatch_shared::align::{CANONICAL_112, similarity::SimilarityTransform};
use facelatch_shared::detection::{Landmarks5, Point};
use facelatch_shared::vision::fiducials::{CROP_CENTRE_CHIP, CROP_PX, CROP_SCALE};
use serde::{Deserialize, Serialize};

use super::augment::Augment;
use super::batches::Order;
use super::manifest::Row;
use super::mesh::{MeshLabel, MeshLabels, POINTS};
use super::picture::{Affine, PictureRef, cut};
use super::random::{Random, Stream};
use super::scenes::Scene;
use super::shards::{CANVAS_PX, Canvases};
use super::weather::Weather;

/// How a face is varied before it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Vary {
    /// Largest turn in the picture's plane, in degrees: what the detector's landmarks leave.
    pub tilt_deg: f32,
    /// Largest relative change of size.
    pub scale: f32,
    /// Largest shift on each axis, as a share of the crop.
    pub shift: f32,
    /// Probability of something held before the face.
    pub cover: f32,
    /// Light and motion of the place.
    pub weather: Weather,
    /// Light, noise and compression.
    pub augment: Augment,
}

impl Default for Vary {
    fn default() -> Self {
        Self {
            tilt_deg: 15.0,
            scale: 0.14,
            shift: 0.08,
            cover: 0.25,
            weather: Weather { side_light: 0.12, back_light: 0.05, motion: 0.06 },
            augment: Augment {
                light: 0.35,
                gamma: 0.6,
                tint: 0.12,
                grey: 0.15,
                blur: 0.1,
                coarse: 0.1,
                noise: 0.1,
                ..Augment::none()
            },
        }
    }
}

impl Vary {
    /// The plain crop.
    #[must_use]
    pub const fn none() -> Self {
        let weather = Weather { side_light: 0.0, back_light: 0.0, motion: 0.0 };
        Self { tilt_deg: 0.0, scale: 0.0, shift: 0.0, cover: 0.0, weather, augment: Augment::none() }
    }
}

/// A face with the teacher's points.
#[derive(Debug, Clone)]
pub struct CloseUp {
    place: Place,
    /// In pixels of the picture it lies in.
    label: MeshLabel,
    /// From pixels of the 128 px canvas to the picture's.
    to_picture: Affine,
    /// Points that nobody can see: behind the head, or under a mask.
    hidden: [bool; POINTS],
    /// Whether it is known who wears a mask: the scenes' labels do not say.
    mask_known: bool,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Canvas(u32),
    Scene(u32),
}

/// A face on its canvas.
#[derive(Debug, Clone, Copy)]
pub struct Plain<'a> {
    /// Its row in the manifest.
    pub row: u32,
    /// `[128, 128, 3]`, RGB 0–255.
    pub pixels: &'a [u8],
    /// The teacher's points, in pixels of the canvas.
    pub points: [[f32; 2]; POINTS],
    /// Points that nobody can see.
    pub hidden: [bool; POINTS],
    /// Points that lie on the canvas: of the others the teacher knew no more than we do.
    pub known: [bool; POINTS],
    /// Whether nose and mouth are under a mask.
    pub masked: bool,
}

/// Every usable face, and the pictures they lie in.
#[derive(Debug, Clone)]
pub struct CloseUps {
    canvases: Arc<Canvases>,
    scenes: Arc<Vec<Scene>>,
    faces: Vec<CloseUp>,
}

/// A batch: crops and what the net should say of them.
#[derive(Debug, Clone)]
pub struct CloseUpBatch {
    /// `[n, 96, 96, 3]`, RGB 0–255.
    pub pixels: Vec<u8>,
    /// `[n, 68, 2]`, in the net's unit: −1 to 1 over the centres of the first and last pixel.
    pub points: Vec<f32>,
    /// `[n, 68]`, 1 for a point in plain sight.
    pub visible: Vec<f32>,
    /// `[n, 68]`, 0 where it is not known whether the point can be seen.
    pub known: Vec<f32>,
}

/// Least score of the teacher for an uncovered face.
const LEAST_SCORE: f32 = 0.8;
/// Largest disagreement between the teacher's two looks.
const MOST_SPREAD: f32 = 0.05;

impl CloseUps {
    /// Faces of `rows` (of the manifest) that have a picture and a trusted label.
    #[must_use]
    pub fn of_canvases(canvases: Arc<Canvases>, rows: &[Row], wanted: &[u32], labels: &MeshLabels) -> Self {
        let face = |&number: &u32| {
            let row = &rows[number as usize];
            let label = labels.get(&row.path())?;
            let trusted = label.spread < MOST_SPREAD && (row.masked || label.score > LEAST_SCORE);
            let mut hidden = turned_away(&label.points);
            if row.masked {
                UNDER_A_MASK.iter().for_each(|&k| hidden[k] = true);
            }
            let to_picture = Affine([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]);
            let place = Place::Canvas(number);
            trusted.then_some(CloseUp { place, label, to_picture, hidden, mask_known: true })
        };
        let faces = wanted.iter().filter(|&&row| canvases.present[row as usize]).filter_map(face).collect();
        Self { canvases, scenes: Arc::default(), faces }
    }

    /// Adds the faces of scenes that `wanted` accepts.
    #[must_use]
    pub fn with_scenes(
        mut self,
        scenes: Arc<Vec<Scene>>,
        labels: &MeshLabels,
        wanted: impl Fn(&Scene) -> bool,
    ) -> Self {
        for (scene, number) in scenes.iter().zip(0..).filter(|(scene, _)| wanted(scene)) {
            for face in scene.faces.iter().filter(|face| !face.ignore && face.bbox[2] >= 28.0) {
                let Some(label) = labels.get(&format!("{}#{}", scene.name, face.number)) else { continue };
                let marks = Landmarks5(face.landmarks.map(|[x, y]| Point::new(x, y)));
                let Ok(t) = SimilarityTransform::fit(&canvas_landmarks(), &marks) else { continue };
                if label.score > LEAST_SCORE && label.spread < MOST_SPREAD {
                    let to_picture = Affine([[t.a, -t.b, t.tx], [t.b, t.a, t.ty]]);
                    let hidden = turned_away(&label.points);
                    let place = Place::Scene(number);
                    self.faces.push(CloseUp { place, label, to_picture, hidden, mask_known: false });
                }
            }
        }
        self.scenes = scenes;
        self
    }

    /// The faces that lie on canvases, as they are: to measure a net through the door's own code.
    pub fn plain(&self) -> impl Iterator<Item = Plain<'_>> {
        self.faces.iter().filter_map(|face| {
            let Place::Canvas(row) = face.place else { return None };
            let pixels = self.canvases.canvas(row as usize);
            let canvas = PictureRef { width: CANVAS_PX, height: CANVAS_PX, pixels };
            let known = face.label.points.map(|[x, y]| canvas.holds(x, y, 1.0));
            let masked = UNDER_A_MASK.iter().all(|&k| face.hidden[k]);
            Some(Plain { row, pixels, points: face.label.points, hidden: face.hidden, known, masked })
        })
    }

    /// Number of faces.
    #[must_use]
    pub fn len(&self) -> usize {
        self.faces.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.faces.is_empty()
    }

    /// Keeps `most` faces, chosen by the seed.
    pub fn truncate(&mut self, most: usize, seed: u64) {
        Random::new(seed, Stream::Split, 2).shuffle(&mut self.faces);
        self.faces.truncate(most);
    }

    /// Mean of the points over the faces in the plain crop, `[68, 2]` in the net's unit.
    #[must_use]
    pub fn mean(&self) -> Vec<f32> {
        let mut sum = vec![0.0_f64; POINTS * 2];
        for face in &self.faces {
            let Some(to_canvas) = face.to_picture.inverse() else { continue };
            for (k, &p) in face.label.points.iter().enumerate() {
                let crop = canvas_to_crop(to_canvas.point(p));
                sum[2 * k] += f64::from(unit(crop[0]));
                sum[2 * k + 1] += f64::from(unit(crop[1]));
            }
        }
        sum.iter().map(|s| (s / self.faces.len().max(1) as f64) as f32).collect()
    }

    /// The batch of `step`: a pure function of the seed and the step.
    #[must_use]
    pub fn batch(&self, vary: &Vary, order: &mut Order, step: u64, size: usize, seed: u64) -> CloseUpBatch {
        let mut batch = CloseUpBatch {
            pixels: vec![0; size * CROP_PX * CROP_PX * 3],
            points: Vec::with_capacity(size * POINTS * 2),
            visible: Vec::with_capacity(size * POINTS),
            known: Vec::with_capacity(size * POINTS),
        };
        for (i, crop) in batch.pixels.chunks_exact_mut(CROP_PX * CROP_PX * 3).enumerate() {
            let position = step * size as u64 + i as u64;
            let face = &self.faces[order.at(position, self.faces.len(), seed)];
            let mut random = Random::new(seed, Stream::Augment, position);
            let sample = self.sample(face, vary, crop, &mut random);
            for (p, (seen, known)) in sample {
                batch.points.extend(p.map(unit));
                batch.visible.push(f32::from(seen));
                batch.known.push(f32::from(known));
            }
        }
        batch
    }

    /// Cuts one crop; returns each point in crop pixels, whether it is seen, and whether that is known.
    fn sample(
        &self,
        face: &CloseUp,
        vary: &Vary,
        crop: &mut [u8],
        random: &mut Random,
    ) -> Vec<([f32; 2], (bool, bool))> {
        let picture = match face.place {
            Place::Canvas(row) => {
                PictureRef { width: CANVAS_PX, height: CANVAS_PX, pixels: self.canvases.canvas(row as usize) }
            }
            Place::Scene(number) => self.scenes[number as usize].picture.view(),
        };
        let mut pull = |most: f32| random.range(-1.0, 1.0) * most;
        let (tilt, scale) = (pull(vary.tilt_deg).to_radians(), pull(vary.scale).exp2());
        let shift = [pull(vary.shift), pull(vary.shift)].map(|s| s * CROP_PX as f32);
        let mirror = random.chance(if *vary == Vary::none() { 0.0 } else { 0.5 });
        let middle = (CROP_PX - 1) as f32 / 2.0;
        let from = [middle + shift[0], middle + shift[1]];
        // Crop to canvas, then to the picture.
        let to_canvas = Affine::turn(from, crop_centre_canvas(), CROP_SCALE * scale, tilt, mirror);
        let to_picture = to_canvas.then(&face.to_picture);
        cut(picture, &to_picture, crop, CROP_PX);
        let Some(back) = to_picture.inverse() else { return Vec::new() };
        let last = (CROP_PX - 1) as f32;
        let mut points: Vec<([f32; 2], (bool, bool))> = (0..POINTS)
            .map(|k| {
                let source = if mirror { usize::from(MIRROR_68[k]) } else { k };
                let at = face.label.points[source];
                let p = back.point(at);
                let inside = p.iter().all(|v| (0.0..=last).contains(v));
                // Where the picture ends the border is repeated, and the teacher guessed.
                let told = face.mask_known || !UNDER_A_MASK.contains(&source);
                let known = !inside || (told && picture.holds(at[0], at[1], 1.0));
                (p, (inside && !face.hidden[source], known))
            })
            .collect();
        if random.chance(vary.cover) {
            cover(crop, &mut points, random);
        }
        vary.weather.act(crop, CROP_PX, random);
        vary.augment.develop(crop, CROP_PX, random);
        points
    }
}

/// Holds something before the face: a hand, a scarf, a phone; a turned rectangle or an ellipse of one colour or of noise.
fn cover(crop: &mut [u8], points: &mut [([f32; 2], (bool, bool))], random: &mut Random) {
    let side = CROP_PX as f32;
    let centre = [random.range(0.0, side), random.range(0.0, side)];
    let half = [random.range(0.08, 0.38) * side, random.range(0.08, 0.38) * side];
    let (sin, cos) = random.range(0.0, std::f32::consts::PI).sin_cos();
    let round = random.chance(0.5);
    let colour: [f32; 3] = std::array::from_fn(|_| random.range(0.0, 255.0));
    let grain = if random.chance(0.5) { random.range(0.0, 90.0) } else { 0.0 };
    let inside = |x: f32, y: f32| {
        let (dx, dy) = (x - centre[0], y - centre[1]);
        let (u, v) = ((dx * cos + dy * sin) / half[0], (dy * cos - dx * sin) / half[1]);
        if round { u * u + v * v <= 1.0 } else { u.abs() <= 1.0 && v.abs() <= 1.0 }
    };
    for (i, pixel) in crop.chunks_exact_mut(3).enumerate() {
        if inside((i % CROP_PX) as f32, (i / CROP_PX) as f32) {
            let noise = if grain > 0.0 { random.range(-grain, grain) } else { 0.0 };
            for (v, c) in pixel.iter_mut().zip(colour) {
                *v = (c + noise).clamp(0.0, 255.0) as u8;
            }
        }
    }
    for (p, (seen, _)) in points.iter_mut() {
        *seen &= !inside(p[0], p[1]);
    }
}

/// The net's unit: −1 and 1 are the centres of the first and the last pixel.
fn unit(crop_px: f32) -> f32 {
    let half = (CROP_PX - 1) as f32 / 2.0;
    (crop_px - half) / half
}

/// Where the middle of the plain crop lies on the canvas.
fn crop_centre_canvas() -> [f32; 2] {
    [CROP_CENTRE_CHIP.x + EDGE, CROP_CENTRE_CHIP.y + EDGE]
}

fn canvas_to_crop([x, y]: [f32; 2]) -> [f32; 2] {
    let [cx, cy] = crop_centre_canvas();
    let half = (CROP_PX - 1) as f32 / 2.0;
    [(x - cx) / CROP_SCALE + half, (y - cy) / CROP_SCALE + half]
}

/// Where the five landmarks of every face lie on its canvas.
#[must_use]
pub fn canvas_landmarks() -> Landmarks5 {
    Landmarks5(CANONICAL_112.0.map(|p| Point::new(p.x + EDGE, p.y + EDGE)))
}

/// Pixels of the canvas round the 112 px chip.
const EDGE: f32 = (CANVAS_PX as f32 - 112.0) / 2.0;

/// Points that the head itself hides: those of the contour that lie inward of the outer eye corner or the mouth corner of their side, and the far
/// eye and brow once they pass the ridge of the nose. In the face's own axes, so that tilt does not matter.
fn turned_away(points: &[[f32; 2]; POINTS]) -> [bool; POINTS] {
    let eye = |from: usize| -> [f32; 2] {
        let sum = points[from..from + 6].iter().fold([0.0, 0.0], |s, p| [s[0] + p[0], s[1] + p[1]]);
        sum.map(|v| v / 6.0)
    };
    let (left, right) = (eye(36), eye(42));
    let span = (right[0] - left[0]).hypot(right[1] - left[1]).max(1e-3);
    let axis = [(right[0] - left[0]) / span, (right[1] - left[1]) / span];
    let along = |k: usize| points[k][0] * axis[0] + points[k][1] * axis[1];
    let mut hidden = [false; POINTS];
    // The jaw narrows: beside the mouth it is measured by the corner of the mouth, at the chin it never hides.
    for (k, (left, right)) in (0..3).map(|k| (k, (36, 45))).chain((3..6).map(|k| (k, (48, 54)))) {
        hidden[k] = along(k) > along(left);
        hidden[16 - k] = along(16 - k) < along(right);
    }
    let ridge = along(28);
    for k in (17..22).chain(36..42) {
        hidden[k] = along(k) > ridge;
    }
    for k in (22..27).chain(42..48) {
        hidden[k] = along(k) < ridge;
    }
    hidden
}

/// What a mask covers: the contour below the ears, the nose's lower half, the mouth.
const UNDER_A_MASK: [usize; 38] = [
    3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 29, 30, 31, 32, 33, 34, 35, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57,
    58, 59, 60, 61, 62, 63, 64, 65, 66, 67,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// A plain frontal layout on the canvas: eyes level, contour an arc.
    fn frontal() -> [[f32; 2]; POINTS] {
        let mut points = [[64.0, 80.0]; POINTS];
        for (k, p) in points.iter_mut().enumerate().take(17) {
            let angle = std::f32::consts::PI * (1.0 - k as f32 / 16.0);
            *p = [64.0 + 40.0 * angle.cos(), 70.0 + 50.0 * angle.sin()];
        }
        for k in 0..6 {
            points[36 + k] = [40.0 + k as f32, 60.0];
            points[42 + k] = [82.0 + k as f32, 60.0];
        }
        (points[48], points[54]) = ([50.0, 95.0], [78.0, 95.0]);
        for k in 0..5 {
            points[17 + k] = [36.0 + 3.0 * k as f32, 52.0];
            points[22 + k] = [78.0 + 3.0 * k as f32, 52.0];
        }
        points
    }

    #[test]
    fn a_frontal_face_hides_nothing_and_a_turned_one_its_far_side() {
        assert!(turned_away(&frontal()).iter().all(|&h| !h));
        let mut turned = frontal();
        for p in turned.iter_mut().take(8) {
            p[0] += 30.0;
        }
        let hidden = turned_away(&turned);
        assert!(hidden[0] && hidden[3] && !hidden[8] && !hidden[16] && !hidden[36]);
    }

    fn one_face() -> CloseUps {
        let pixels = (0..CANVAS_PX * CANVAS_PX * 3).map(|i| (i / 3 % CANVAS_PX) as u8 * 2).collect();
        let label = MeshLabel { points: frontal(), score: 1.0, spread: 0.0 };
        let to_picture = Affine([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]);
        let face =
            CloseUp { place: Place::Canvas(0), label, to_picture, hidden: [false; POINTS], mask_known: true };
        CloseUps {
            canvases: Arc::new(Canvases::from_pixels(pixels)),
            scenes: Arc::default(),
            faces: vec![face],
        }
    }

    #[test]
    fn points_stay_on_their_pixels_whatever_the_variation() {
        // Column x of the canvas has grey 2x: each point must sit on its own grey, mirrored or not.
        let ups = one_face();
        let vary = Vary { tilt_deg: 20.0, scale: 0.2, shift: 0.1, ..Vary::none() };
        for step in 0..20 {
            let batch = ups.batch(&vary, &mut Order::default(), step, 1, 3);
            let mut checked = 0;
            let half = (CROP_PX - 1) as f32 / 2.0;
            let at = |k: usize| [0, 1].map(|a| batch.points[2 * k + a] * half + half);
            let mirrored = at(36)[0] > at(45)[0];
            assert!(!mirrored, "names follow sides");
            for (k, &m) in MIRROR_68.iter().enumerate() {
                let [x, y] = at(k);
                if batch.visible[k] == 0.0 || !(1.0..94.0).contains(&x) || !(1.0..94.0).contains(&y) {
                    continue;
                }
                let grey = f32::from(batch.pixels[((y.round() as usize) * CROP_PX + x.round() as usize) * 3]);
                let m = usize::from(m);
                let expected = [frontal()[k][0], frontal()[m][0]].map(|x| 2.0 * x);
                assert!(expected.iter().any(|e| (e - grey).abs() < 4.0), "{k}: {grey} for {expected:?}");
                checked += 1;
            }
            assert!(checked > 40);
        }
    }

    #[test]
    fn plain_faces_are_those_of_the_canvases_with_what_is_known_of_them() {
        let mut ups = one_face();
        ups.faces[0].label.points[8] = [64.0, 130.0];
        UNDER_A_MASK.iter().for_each(|&k| ups.faces[0].hidden[k] = true);
        let mut elsewhere = ups.faces[0].clone();
        elsewhere.place = Place::Scene(0);
        ups.faces.push(elsewhere);
        let plain: Vec<Plain<'_>> = ups.plain().collect();
        assert_eq!((plain.len(), plain[0].row, plain[0].pixels.len()), (1, 0, CANVAS_PX * CANVAS_PX * 3));
        assert!(plain[0].masked && !plain[0].known[8] && plain[0].known[30]);
    }

    #[test]
    fn the_plain_crop_is_the_mean_of_one_face() {
        let ups = one_face();
        let batch = ups.batch(&Vary::none(), &mut Order::default(), 0, 1, 3);
        for (a, b) in batch.points.iter().zip(ups.mean()) {
            assert!((a - b).abs() < 1e-4);
        }
    }

    #[test]
    fn covered_points_are_not_seen() {
        let ups = one_face();
        let vary = Vary { cover: 1.0, ..Vary::none() };
        let seen: f32 = (0..30)
            .map(|s| ups.batch(&vary, &mut Order::default(), s, 1, 5).visible.iter().sum::<f32>())
            .sum();
        assert!(seen < 30.0 * 66.0 && seen > 30.0 * 20.0, "{seen}");
    }
}
