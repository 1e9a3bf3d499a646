//! Samples for the detector: what a camera at a door sees, composed from labelled scenes and face crops.
//!
//! A sample is a square filled by one scene or by a mosaic of several, each at a size chosen for one of its faces, with crops of
//! faces pasted where there is room. Pictures without a face come in every mode, at every size, and are pasted with the same soft
//! edges as faces are, so that an edge is no sign of a face.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::augment::Augment;
use super::mesh::{MeshLabel, POINTS};
use super::picture::{Affine, PictureRef, mean_sample, offsets};
use super::random::{Random, Stream};
use super::scenes::Scene;
use super::shards::{CANVAS_PX, Canvases};
use super::weather::Weather;

/// How samples are composed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Compose {
    /// Smallest and largest face, square root of its box's area, in pixels of the sample.
    pub face_px: [f32; 2],
    /// Probabilities of a mosaic of 2×2 and of 3×3 scenes; the rest are single.
    pub mosaic: [f32; 2],
    /// Probability that crops are pasted.
    pub paste: f32,
    /// Largest turn in the picture's plane, in degrees; one sample in eight goes to three times as much.
    pub tilt_deg: f32,
    /// Light and motion of the place.
    pub weather: Weather,
    /// Light, noise and compression.
    pub augment: Augment,
}

impl Default for Compose {
    fn default() -> Self {
        Self {
            face_px: [11.0, 230.0],
            mosaic: [0.3, 0.15],
            paste: 0.4,
            tilt_deg: 10.0,
            weather: Weather { side_light: 0.12, back_light: 0.08, motion: 0.06 },
            augment: Augment {
                light: 0.35,
                gamma: 0.6,
                tint: 0.12,
                grey: 0.12,
                blur: 0.08,
                coarse: 0.05,
                noise: 0.1,
                ..Augment::none()
            },
        }
    }
}

/// A face in a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// x, y, width, height in pixels of the sample.
    pub bbox: [f32; 4],
    /// Five landmarks.
    pub landmarks: [[f32; 2]; 5],
    /// How much the landmarks count: less where they come from another teacher.
    pub landmark_weight: f32,
    /// Neither a face nor background.
    pub ignore: bool,
}

/// A composed sample.
#[derive(Debug, Clone)]
pub struct Sample {
    /// `[side, side, 3]`, RGB 0–255.
    pub pixels: Vec<u8>,
    /// Its faces.
    pub faces: Vec<Target>,
}

/// A face crop that can be pasted.
#[derive(Debug, Clone, Copy)]
pub struct Cutting {
    row: u32,
    bbox: [f32; 4],
    landmarks: [[f32; 2]; 5],
}

/// Where samples come from.
#[derive(Debug, Clone)]
pub struct Street {
    scenes: Arc<Vec<Scene>>,
    /// Scenes with a face that counts, and without any.
    peopled: Vec<u32>,
    empty: Vec<u32>,
    canvases: Arc<Canvases>,
    cuttings: Arc<Vec<Cutting>>,
}

impl Cutting {
    /// A crop and the teacher's points on it. The box is that of scenes' labels, as fitted by [`box_round`].
    #[must_use]
    pub fn new(row: u32, label: &MeshLabel) -> Self {
        let middle = |from: usize| -> [f32; 2] {
            let sum = label.points[from..from + 6]
                .iter()
                .fold([0.0; 2], |s: [f32; 2], p| [s[0] + p[0], s[1] + p[1]]);
            sum.map(|v| v / 6.0)
        };
        let p = &label.points;
        Self { row, bbox: box_round(p), landmarks: [middle(36), middle(42), p[30], p[48], p[54]] }
    }
}

/// The box that the scenes' labels would draw round 68 points: medians over the labelled scenes of where its edges lie,
/// relative to the points' own box.
#[must_use]
pub fn box_round(points: &[[f32; 2]; POINTS]) -> [f32; 4] {
    let (mut low, mut high) = ([f32::MAX; 2], [f32::MIN; 2]);
    for p in points {
        for a in 0..2 {
            low[a] = low[a].min(p[a]);
            high[a] = high[a].max(p[a]);
        }
    }
    let (w, h) = (high[0] - low[0], high[1] - low[1]);
    let [left, top, right, bottom] = EDGES;
    [low[0] + left * w, low[1] + top * h, w * (1.0 + right - left), h * (1.0 + bottom - top)]
}

/// Left, top, right and bottom edge beyond the points' box, in its widths and heights.
pub const EDGES: [f32; 4] = [0.0, -0.336, 0.0, 0.015];

impl Street {
    /// Scenes that `wanted` accepts, and cuttings to paste.
    #[must_use]
    pub fn new(
        scenes: Arc<Vec<Scene>>,
        wanted: impl Fn(&Scene) -> bool,
        canvases: Arc<Canvases>,
        cuttings: Vec<Cutting>,
    ) -> Self {
        let numbered = || scenes.iter().zip(0_u32..).filter(|(scene, _)| wanted(scene));
        let peopled = numbered().filter(|(s, _)| s.faces.iter().any(|f| !f.ignore)).map(|(_, n)| n).collect();
        let empty = numbered().filter(|(s, _)| s.faces.is_empty()).map(|(_, n)| n).collect();
        Self { peopled, empty, scenes, canvases, cuttings: Arc::new(cuttings) }
    }

    /// Scenes with and without faces, and cuttings.
    #[must_use]
    pub fn counts(&self) -> [usize; 3] {
        [self.peopled.len(), self.empty.len(), self.cuttings.len()]
    }

    /// The sample at `position`: a pure function of the seed and the position.
    #[must_use]
    pub fn sample(&self, compose: &Compose, side: usize, seed: u64, position: u64) -> Sample {
        let mut random = Random::new(seed, Stream::Augment, position);
        let mut sample = Sample { pixels: vec![0; side * side * 3], faces: Vec::new() };
        let draw = random.unit();
        let cells = if draw < compose.mosaic[1] {
            3
        } else if draw < compose.mosaic[0] + compose.mosaic[1] {
            2
        } else {
            1
        };
        for rect in grid(side, cells, &mut random) {
            self.fill(&mut sample, side, rect, compose, &mut random);
        }
        if random.chance(compose.paste) {
            for _ in 0..=random.below(3) {
                self.paste(&mut sample, side, compose, &mut random);
            }
        }
        compose.weather.act(&mut sample.pixels, side, &mut random);
        compose.augment.develop(&mut sample.pixels, side, &mut random);
        sample
    }

    /// Draws one scene into a rectangle.
    fn fill(&self, sample: &mut Sample, side: usize, rect: Rect, compose: &Compose, random: &mut Random) {
        let faceless = self.peopled.is_empty() || (random.chance(0.1) && !self.empty.is_empty());
        let list = if faceless { &self.empty } else { &self.peopled };
        let Some(&number) = list.get(random.below(list.len().max(1))) else { return };
        let scene = &self.scenes[number as usize];
        let picture = scene.picture.view();
        let short = rect.w.min(rect.h) as f32;
        let chosen: Vec<_> = scene.faces.iter().filter(|f| !f.ignore).collect();
        let (from, scale) = match chosen.get(random.below(chosen.len().max(1))) {
            Some(face) => {
                let [x, y, w, h] = face.bbox;
                let most = compose.face_px[1].min(short * 0.95);
                let size = log_range(random, compose.face_px[0], most);
                ([x + w / 2.0, y + h / 2.0], (size / (w * h).sqrt()).min(2.5))
            }
            None => {
                let from = [random.unit() * picture.width as f32, random.unit() * picture.height as f32];
                (from, log_range(random, 0.4, 4.0))
            }
        };
        let reach = if random.chance(0.125) { 3.0 } else { 1.0 };
        let tilt = (random.range(-1.0, 1.0) * compose.tilt_deg * reach).to_radians();
        let mirror = random.chance(0.5);
        let to = [
            rect.x as f32 + random.range(0.15, 0.85) * rect.w as f32,
            rect.y as f32 + random.range(0.15, 0.85) * rect.h as f32,
        ];
        let map = Affine::turn(from, to, scale, tilt, mirror);
        let Some(back) = map.inverse() else { return };
        let outside = random.chance(0.5).then(|| std::array::from_fn(|_| random.below(256) as u8));
        draw(picture, &back, &mut sample.pixels, side, rect, outside);
        for face in &scene.faces {
            let [x, y, w, h] = face.bbox;
            let [cx, cy] = map.point([x + w / 2.0, y + h / 2.0]);
            let bbox = [cx - w * scale / 2.0, cy - h * scale / 2.0, w * scale, h * scale];
            let seen = rect.share_of(bbox);
            if seen < 0.15 {
                continue;
            }
            let small = scale * (w * h).sqrt() < compose.face_px[0] * 0.85;
            let ignore = face.ignore || small || seen < 0.6 || !rect.holds([cx, cy]);
            let landmarks = named(face.landmarks.map(|p| map.point(p)), mirror);
            sample.faces.push(Target { bbox, landmarks, landmark_weight: 1.0, ignore });
        }
    }

    /// Pastes a face, or part of a scene without one, where no face is.
    fn paste(&self, sample: &mut Sample, side: usize, compose: &Compose, random: &mut Random) {
        let size = log_range(random, compose.face_px[0] + 2.0, compose.face_px[1] * 0.8);
        let mirror = random.chance(0.5);
        let tilt = (random.range(-1.0, 1.0) * compose.tilt_deg * 1.5).to_radians();
        let to: [f32; 2] = std::array::from_fn(|_| random.range(0.05, 0.95) * side as f32);
        let faceless = !self.empty.is_empty() && (self.cuttings.is_empty() || random.chance(0.35));
        let (picture, bbox, landmarks) = if faceless {
            let picture = self.scenes[self.empty[random.below(self.empty.len())] as usize].picture.view();
            let cut = random.range(0.3, 1.0) * picture.width.min(picture.height) as f32;
            let at = |length: usize, random: &mut Random| random.unit() * (length as f32 - cut);
            let (x, y) = (at(picture.width, random), at(picture.height, random));
            (picture, [x, y, cut, cut], None)
        } else if let Some(cutting) = self.cuttings.get(random.below(self.cuttings.len().max(1))) {
            let pixels = self.canvases.canvas(cutting.row as usize);
            let picture = PictureRef { width: CANVAS_PX, height: CANVAS_PX, pixels };
            (picture, cutting.bbox, Some(cutting.landmarks))
        } else {
            return;
        };
        let [x, y, w, h] = bbox;
        let scale = size / (w * h).sqrt();
        let map = Affine::turn([x + w / 2.0, y + h / 2.0], to, scale, tilt, mirror);
        let placed = [to[0] - w * scale / 2.0, to[1] - h * scale / 2.0, w * scale, h * scale];
        let whole = Rect { x: 0, y: 0, w: side, h: side };
        let reach = 1.3 * w.max(h) * scale / 2.0;
        let near = [to[0] - reach, to[1] - reach, 2.0 * reach, 2.0 * reach];
        if sample.faces.iter().any(|face| overlap(face.bbox, near) > 0.0) {
            return;
        }
        let Some(back) = map.inverse() else { return };
        let form = Form::draw(random, landmarks.is_some(), bbox);
        stick(picture, &back, &mut sample.pixels, side, near, &form);
        if let Some(landmarks) = landmarks {
            let ignore = whole.share_of(placed) < 0.6;
            let landmarks = named(landmarks.map(|p| map.point(p)), mirror);
            sample.faces.push(Target { bbox: placed, landmarks, landmark_weight: 0.5, ignore });
        }
    }
}

/// A rectangle of whole pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rect {
    x: usize,
    y: usize,
    w: usize,
    h: usize,
}

impl Rect {
    fn as_box(self) -> [f32; 4] {
        [self.x, self.y, self.w, self.h].map(|v| v as f32)
    }

    fn holds(self, [x, y]: [f32; 2]) -> bool {
        let [l, t, w, h] = self.as_box();
        x >= l && y >= t && x < l + w && y < t + h
    }

    /// Which part of a box lies inside.
    fn share_of(self, bbox: [f32; 4]) -> f32 {
        overlap(self.as_box(), bbox) / (bbox[2] * bbox[3]).max(1e-6)
    }
}

/// Common area of two boxes.
fn overlap(a: [f32; 4], b: [f32; 4]) -> f32 {
    let w = (a[0] + a[2]).min(b[0] + b[2]) - a[0].max(b[0]);
    let h = (a[1] + a[3]).min(b[1] + b[3]) - a[1].max(b[1]);
    w.max(0.0) * h.max(0.0)
}

/// `cells`×`cells` rectangles that tile the square, with borders anywhere near their places.
fn grid(side: usize, cells: usize, random: &mut Random) -> Vec<Rect> {
    let mut cuts = || -> Vec<usize> {
        let step = side as f32 / cells as f32;
        let inner = (1..cells).map(|i| ((i as f32 + random.range(-0.3, 0.3)) * step) as usize);
        std::iter::once(0).chain(inner).chain([side]).collect()
    };
    let (columns, rows) = (cuts(), cuts());
    let column = |x: &[usize], y: &[usize]| Rect { x: x[0], y: y[0], w: x[1] - x[0], h: y[1] - y[0] };
    rows.windows(2).flat_map(|y| columns.windows(2).map(move |x| column(x, y))).collect()
}

fn log_range(random: &mut Random, low: f32, high: f32) -> f32 {
    random.range(low.ln(), high.max(low * 1.01).ln()).exp()
}

/// Landmarks in image order: a mirror image changes sides.
fn named(p: [[f32; 2]; 5], mirror: bool) -> [[f32; 2]; 5] {
    if mirror { [p[1], p[0], p[2], p[4], p[3]] } else { p }
}

/// Draws a picture into `rect`; beyond it there is one colour, or its border repeated.
fn draw(
    picture: PictureRef<'_>,
    back: &Affine,
    pixels: &mut [u8],
    side: usize,
    rect: Rect,
    outside: Option<[u8; 3]>,
) {
    let offsets = offsets(back.scale());
    for y in rect.y..rect.y + rect.h {
        for x in rect.x..rect.x + rect.w {
            let at = (y * side + x) * 3;
            let [sx, sy] = back.point([x as f32, y as f32]);
            let inside = picture.holds(sx, sy, 0.5);
            let rgb = match outside {
                Some(colour) if !inside => colour.map(f32::from),
                _ if inside => mean_sample(picture, back, x as f32, y as f32, &offsets),
                _ => picture.sample(sx, sy),
            };
            for (v, c) in pixels[at..at + 3].iter_mut().zip(rgb) {
                *v = (c + 0.5) as u8;
            }
        }
    }
}

/// The outline of a pasted piece, in the source's pixels: a superellipse with a soft edge.
struct Form {
    centre: [f32; 2],
    radius: [f32; 2],
    power: f32,
    soft: f32,
}

impl Form {
    fn draw(random: &mut Random, canvas: bool, bbox: [f32; 4]) -> Self {
        let [x, y, w, h] = bbox;
        let (centre, most) = if canvas {
            // A little inside the canvas, whose border may be repeated pixels.
            ([63.5, 64.5], [62.0, 62.0])
        } else {
            ([x + w / 2.0, y + h / 2.0], [w / 2.0, h / 2.0])
        };
        let radius = most.map(|r| r * random.range(0.88, 1.0));
        Self { centre, radius, power: log_range(random, 2.0, 10.0), soft: random.range(0.02, 0.35) }
    }

    /// 1 inside, 0 outside, between in the soft edge.
    fn alpha(&self, [x, y]: [f32; 2]) -> f32 {
        let u = ((x - self.centre[0]) / self.radius[0]).abs().powf(self.power);
        let v = ((y - self.centre[1]) / self.radius[1]).abs().powf(self.power);
        let r = (u + v).powf(1.0 / self.power);
        ((1.0 - r) / self.soft).clamp(0.0, 1.0)
    }
}

/// Blends a piece of a picture over `pixels` within `near`.
fn stick(
    picture: PictureRef<'_>,
    back: &Affine,
    pixels: &mut [u8],
    side: usize,
    near: [f32; 4],
    form: &Form,
) {
    let clamp = |v: f32| v.clamp(0.0, side as f32) as usize;
    let offsets = offsets(back.scale());
    for y in clamp(near[1])..clamp(near[1] + near[3]) {
        for x in clamp(near[0])..clamp(near[0] + near[2]) {
            let alpha = form.alpha(back.point([x as f32, y as f32]));
            if alpha <= 0.0 {
                continue;
            }
            let rgb = mean_sample(picture, back, x as f32, y as f32, &offsets);
            let at = (y * side + x) * 3;
            for (v, c) in pixels[at..at + 3].iter_mut().zip(rgb) {
                *v = (f32::from(*v) * (1.0 - alpha) + c * alpha + 0.5) as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::picture::Picture;
    use crate::dataset::scenes::SceneFace;

    /// A grey picture with one face, a white square with black "landmarks".
    fn scene(name: &str, face: bool) -> Scene {
        let (width, height) = (200, 160);
        let mut pixels = vec![60; width * height * 3];
        let landmarks = [[80.0, 60.0], [100.0, 60.0], [90.0, 70.0], [82.0, 80.0], [98.0, 80.0]];
        if face {
            for y in 45..95 {
                pixels[(y * width + 70) * 3..(y * width + 110) * 3].fill(255);
            }
        }
        let faces = vec![SceneFace { bbox: [70.0, 45.0, 40.0, 50.0], landmarks, ignore: false, number: 0 }];
        let picture = Picture { width, height, pixels };
        Scene { name: name.into(), test: false, picture, faces: if face { faces } else { Vec::new() } }
    }

    fn street() -> Street {
        let scenes = Arc::new(vec![scene("a", true), scene("n", false)]);
        let mut points = [[64.0, 70.0]; POINTS];
        (points[0], points[16], points[8]) = ([20.0, 60.0], [108.0, 60.0], [64.0, 120.0]);
        let cutting = Cutting::new(0, &MeshLabel { points, score: 1.0, spread: 0.0 });
        let canvases = Arc::new(Canvases::from_pixels(vec![255; CANVAS_PX * CANVAS_PX * 3]));
        Street::new(scenes, |_| true, canvases, vec![cutting])
    }

    fn plain() -> Compose {
        Compose { tilt_deg: 0.0, weather: Weather::default(), augment: Augment::none(), ..Compose::default() }
    }

    #[test]
    fn boxes_lie_on_their_faces() {
        let street = street();
        let mut counted = 0;
        for position in 0..60 {
            let sample = street.sample(&plain(), 128, 7, position);
            for face in sample.faces.iter().filter(|f| !f.ignore) {
                let [x, y, w, h] = face.bbox;
                assert!(w * h > 60.0);
                let (cx, cy) = ((x + w / 2.0) as usize, (y + h / 2.0) as usize);
                if cx < 128 && cy < 128 {
                    assert!(sample.pixels[(cy * 128 + cx) * 3] > 150, "{position}: {:?}", face.bbox);
                    counted += 1;
                }
            }
        }
        assert!(counted > 60, "{counted}");
    }

    #[test]
    fn a_position_gives_the_same_sample_again() {
        let street = street();
        let compose = Compose::default();
        let (a, b) = (street.sample(&compose, 96, 7, 3), street.sample(&compose, 96, 7, 3));
        assert_eq!((a.pixels, a.faces), (b.pixels, b.faces));
        assert_ne!(street.sample(&compose, 96, 7, 4).pixels, street.sample(&compose, 96, 7, 3).pixels);
    }

    #[test]
    fn landmarks_keep_their_sides_in_a_mirror() {
        let street = street();
        for position in 0..40 {
            for face in street.sample(&plain(), 128, 9, position).faces {
                assert!(face.landmarks[0][0] <= face.landmarks[1][0] + 1e-3);
            }
        }
    }

    #[test]
    fn a_grid_tiles_the_square() {
        let mut random = Random::new(1, Stream::Augment, 0);
        for cells in 1..4 {
            let area: usize = grid(100, cells, &mut random).iter().map(|r| r.w * r.h).sum();
            assert_eq!(area, 10_000);
        }
    }
}
