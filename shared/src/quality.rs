//! Whether a detected face is good enough to be embedded, and if not, what the person at the door should do.

use serde::{Deserialize, Serialize};

use crate::align::camera;
use crate::align::{AlignError, CHIP_BYTES, CHIP_PX, Fiducials68};
use crate::detection::{BoxPx, Detection, Landmarks5};

/// Why a frame gives no probe. The panel turns each into one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Unusable {
    /// No face in the frame.
    NoFace,
    /// More than one face close enough to count.
    SeveralFaces,
    /// Eyes too close together in pixels: come closer.
    TooSmall,
    /// The face reaches outside the frame, or fills it: step back or into the middle.
    TooClose,
    /// Motion or focus blur: hold still.
    Blurred,
    /// Mean light on the face too low.
    TooDark,
    /// Mean light on the face too high.
    TooBright,
    /// Turned or tilted away: look at the camera.
    Turned,
    /// The landmarks admit no alignment.
    BadGeometry,
    /// Part of the face is hidden: take off what covers it.
    Covered,
}

/// What was measured on one face.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Distance between the eyes in frame pixels.
    pub eye_distance_px: f32,
    /// Mean luma between brow, chin and cheeks on the aligned chip, 0 to 255.
    pub mean_luma: f32,
    /// Mean square of the second difference of the same part's luma, along rows or along columns, whichever is less, as if
    /// [`mean_luma`](Self::mean_luma) were 128: larger is sharper. The lesser direction, because motion blurs one only; relative
    /// to the light, because a dim picture is not a blurred one.
    pub sharpness: f32,
    /// Head turn estimated from the five landmarks, −1 (to the viewer's left) to 1; 0 looks at the camera.
    pub turn: f32,
    /// In-plane tilt of the eye line in degrees, −180 to 180.
    pub roll_deg: f32,
    /// What the fiducials say, where the door has a net for them.
    #[serde(default)]
    pub head: Option<Head>,
}

/// Pose and occlusion, from the 68 fiducials.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Turn to the viewer's right in degrees, −90 to 90, from the affine camera.
    pub yaw_deg: f32,
    /// Turn upwards in degrees, −90 to 90.
    pub pitch_deg: f32,
    /// Clockwise tilt in the picture in degrees, −180 to 180.
    pub roll_deg: f32,
    /// Share of the points of brows, eyes, nose and mouth that cannot be seen, 0 to 1.
    pub hidden: f32,
}

impl Head {
    /// Measures `fiducials`.
    ///
    /// # Errors
    /// As [`camera::fit`]: points that are no face.
    pub fn measure(fiducials: &Fiducials68) -> Result<Self, AlignError> {
        let pose = camera::fit(fiducials)?.camera.pose();
        let inner = &fiducials.visibility[CONTOUR..];
        let hidden = 1.0 - inner.iter().sum::<f32>() / inner.len() as f32;
        Ok(Self { yaw_deg: pose.yaw_deg, pitch_deg: pose.pitch_deg, roll_deg: pose.roll_deg, hidden })
    }
}

/// Points of the face's contour, which hair covers as a matter of course, at the beginning of the 68.
const CONTOUR: usize = 17;

impl Quality {
    /// Measures the face of `landmarks`, whose aligned chip, packed RGB `[112, 112, 3]`, is `chip`.
    #[must_use]
    pub fn measure(chip: &[u8; CHIP_BYTES], landmarks: &Landmarks5) -> Self {
        let luma = |x: usize, y: usize| {
            let at = (y * CHIP_PX + x) * 3;
            // ITU-R BT.601, in 256ths.
            (77 * i32::from(chip[at]) + 150 * i32::from(chip[at + 1]) + 29 * i32::from(chip[at + 2])) >> 8
        };
        let (mut light, mut along_rows, mut along_columns) = (0_i64, 0_i64, 0_i64);
        for y in FACE_ROWS {
            for x in FACE_COLUMNS {
                let here = luma(x, y);
                let bend_x = luma(x - 1, y) + luma(x + 1, y) - 2 * here;
                let bend_y = luma(x, y - 1) + luma(x, y + 1) - 2 * here;
                light += i64::from(here);
                along_rows += i64::from(bend_x * bend_x);
                along_columns += i64::from(bend_y * bend_y);
            }
        }
        let count = (FACE_ROWS.len() * FACE_COLUMNS.len()) as f32;
        let mean_luma = light as f32 / count;
        let relative = 128.0 / mean_luma.max(1.0);
        Self {
            eye_distance_px: landmarks.eye_distance_px(),
            mean_luma,
            sharpness: along_rows.min(along_columns) as f32 / count * relative * relative,
            turn: turn(landmarks),
            roll_deg: roll_deg(landmarks),
            head: None,
        }
    }
}

/// Where the nose lies along the eye line, from the middle between eyes and mouth, in half eye distances. The nose tip stands
/// about half an eye distance before the plane of eyes and mouth, so that this is near the tangent of the head's yaw.
fn turn(landmarks: &Landmarks5) -> f32 {
    let [left, right, nose, mouth_left, mouth_right] = landmarks.0;
    let (dx, dy) = (right.x - left.x, right.y - left.y);
    let squared = dx * dx + dy * dy;
    let middle_x = (left.x + right.x + mouth_left.x + mouth_right.x) * 0.25;
    let middle_y = (left.y + right.y + mouth_left.y + mouth_right.y) * 0.25;
    let along = (nose.x - middle_x) * dx + (nose.y - middle_y) * dy;
    (2.0 * along / squared).clamp(-1.0, 1.0)
}

fn roll_deg(landmarks: &Landmarks5) -> f32 {
    let [left, right, ..] = landmarks.0;
    libm::atan2f(right.y - left.y, right.x - left.x).to_degrees()
}

/// What a face must reach before it is embedded. The defaults are for a camera of 640×480 and about 65° across, 0.4 to 1.2 m
/// before the door: eyes 63 mm apart are 79 to 26 px apart there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gate {
    /// Least distance between the eyes, in frame pixels.
    pub min_eye_distance_px: f32,
    /// Largest share of the frame's height or width that the face's box may fill, 0 to 1.
    pub max_fill: f32,
    /// Largest share of the box's width or height that may lie outside the frame, 0 to 1.
    pub max_outside: f32,
    /// Least [`Quality::mean_luma`]. Low, because dark skin in good light is not a dark picture.
    pub min_luma: f32,
    /// Largest [`Quality::mean_luma`].
    pub max_luma: f32,
    /// Least [`Quality::sharpness`]. At 5, of 400 LFW faces 99 % pass as they are (eyes 26 to 78 px apart), 3 % after a
    /// Gaussian blur of 3 px, 3 % after motion over 15 px, and about 20 % after motion over 9 px.
    pub min_sharpness: f32,
    /// Largest magnitude of [`Quality::turn`].
    pub max_turn: f32,
    /// Largest magnitude of [`Quality::roll_deg`].
    pub max_roll_deg: f32,
    /// Largest magnitude of [`Head::yaw_deg`], where it is measured.
    pub max_yaw_deg: f32,
    /// Largest magnitude of [`Head::pitch_deg`], where it is measured.
    pub max_pitch_deg: f32,
    /// Largest [`Head::hidden`], where it is measured: a mask covers half of them, sunglasses a quarter.
    pub max_hidden: f32,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            min_eye_distance_px: 24.0,
            max_fill: 0.95,
            max_outside: 0.1,
            min_luma: 30.0,
            max_luma: 225.0,
            min_sharpness: 5.0,
            max_turn: 0.6,
            max_roll_deg: 30.0,
            max_yaw_deg: 40.0,
            max_pitch_deg: 35.0,
            max_hidden: 0.4,
        }
    }
}

impl Gate {
    /// Lets every finite face pass: for measurements on files.
    pub const OPEN: Self = Self {
        min_eye_distance_px: 0.0,
        max_fill: f32::INFINITY,
        max_outside: f32::INFINITY,
        min_luma: 0.0,
        max_luma: 255.0,
        min_sharpness: 0.0,
        max_turn: 1.0,
        max_roll_deg: 180.0,
        max_yaw_deg: 180.0,
        max_pitch_deg: 180.0,
        max_hidden: 1.0,
    };

    /// Whether a face of `quality` at `detection` in a frame of `width_px`×`height_px` may be embedded.
    ///
    /// # Errors
    /// The first of these that is wrong, in the order in which a person can put it right: distance, place, pose, light, blur.
    /// A measurement that is not a number never passes.
    pub fn check(
        &self,
        quality: &Quality,
        detection: &Detection,
        width_px: usize,
        height_px: usize,
    ) -> Result<(), Unusable> {
        let numbers =
            [quality.eye_distance_px, quality.mean_luma, quality.sharpness, quality.turn, quality.roll_deg];
        let BoxPx { x, y, w, h } = detection.bbox;
        if ![x, y, w, h].iter().chain(&numbers).all(|v| v.is_finite()) || w <= 0.0 || h <= 0.0 {
            return Err(Unusable::BadGeometry);
        }
        let (frame_w, frame_h) = (width_px as f32, height_px as f32);
        let outside = |at: f32, side: f32, frame: f32| ((-at).max(0.0) + (at + side - frame).max(0.0)) / side;
        let reaches_out = outside(x, w, frame_w).max(outside(y, h, frame_h)) > self.max_outside;
        let fills = (w / frame_w).max(h / frame_h) > self.max_fill;
        let faults = [
            (quality.eye_distance_px < self.min_eye_distance_px, Unusable::TooSmall),
            (reaches_out || fills, Unusable::TooClose),
            (libm::fabsf(quality.turn) > self.max_turn, Unusable::Turned),
            (libm::fabsf(quality.roll_deg) > self.max_roll_deg, Unusable::Turned),
            (quality.mean_luma < self.min_luma, Unusable::TooDark),
            (quality.mean_luma > self.max_luma, Unusable::TooBright),
            (quality.sharpness < self.min_sharpness, Unusable::Blurred),
        ];
        faults.iter().find(|(wrong, _)| *wrong).map_or(Ok(()), |(_, reason)| Err(*reason))
    }

    /// Whether pose and occlusion permit to embed the face; what is not finite never passes.
    ///
    /// # Errors
    /// [`Unusable::Turned`], [`Unusable::Covered`], [`Unusable::BadGeometry`].
    pub fn check_head(&self, head: &Head) -> Result<(), Unusable> {
        let numbers = [head.yaw_deg, head.pitch_deg, head.roll_deg, head.hidden];
        if !numbers.iter().all(|v| v.is_finite()) {
            return Err(Unusable::BadGeometry);
        }
        // Covered first: a net that guesses half of the points guesses the pose too.
        if head.hidden > self.max_hidden {
            return Err(Unusable::Covered);
        }
        let turned =
            libm::fabsf(head.yaw_deg) > self.max_yaw_deg || libm::fabsf(head.pitch_deg) > self.max_pitch_deg;
        if turned { Err(Unusable::Turned) } else { Ok(()) }
    }

    /// The name of the first limit that is not a number or contradicts another, if any: for those who read it from a file.
    #[must_use]
    pub fn fault(&self) -> Option<&'static str> {
        let ranges = [
            ("min_eye_distance_px", self.min_eye_distance_px, 0.0, 4096.0),
            ("max_fill", self.max_fill, 0.0, f32::INFINITY),
            ("max_outside", self.max_outside, 0.0, f32::INFINITY),
            ("min_luma", self.min_luma, 0.0, 255.0),
            ("max_luma", self.max_luma, self.min_luma, 255.0),
            ("min_sharpness", self.min_sharpness, 0.0, f32::INFINITY),
            ("max_turn", self.max_turn, 0.0, 1.0),
            ("max_roll_deg", self.max_roll_deg, 0.0, 180.0),
            ("max_yaw_deg", self.max_yaw_deg, 0.0, 180.0),
            ("max_pitch_deg", self.max_pitch_deg, 0.0, 180.0),
            ("max_hidden", self.max_hidden, 0.0, 1.0),
        ];
        ranges
            .iter()
            .find(|(_, value, least, most)| !(*least..=*most).contains(value))
            .map(|(name, ..)| *name)
    }
}

/// Rows of the chip from the brows to the lower lip; see [`crate::align::CANONICAL_112`].
const FACE_ROWS: core::ops::Range<usize> = 36..100;
/// Columns of the chip between the cheeks.
const FACE_COLUMNS: core::ops::Range<usize> = 24..88;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::align::CANONICAL_112;
    use crate::detection::Point;

    const FRAME: (usize, usize) = (640, 480);

    /// A frontal face of `size` chip pixels a pixel, its chip's corner at (x, y).
    fn face(x: f32, y: f32, size: f32) -> Detection {
        let landmarks = Landmarks5(CANONICAL_112.0.map(|p| Point::new(x + p.x * size, y + p.y * size)));
        let side = 112.0 * size;
        Detection { bbox: BoxPx { x, y, w: side, h: side }, landmarks, score: 0.9 }
    }

    /// Squares of two pixels.
    fn checks(dark: u8, light: u8) -> [u8; CHIP_BYTES] {
        core::array::from_fn(|i| {
            let (x, y) = (i / 3 % CHIP_PX, i / 3 / CHIP_PX);
            if (x / 2 + y / 2).is_multiple_of(2) { dark } else { light }
        })
    }

    fn verdict(chip: &[u8; CHIP_BYTES], detection: &Detection) -> Result<(), Unusable> {
        let quality = Quality::measure(chip, &detection.landmarks);
        Gate::default().check(&quality, detection, FRAME.0, FRAME.1)
    }

    #[test]
    fn light_and_sharpness_are_those_of_the_pattern() {
        let flat = Quality::measure(&checks(90, 90), &CANONICAL_112);
        assert!((flat.mean_luma - 90.0).abs() < 1.0 && flat.sharpness == 0.0);
        // Every pixel's second difference is ±(light − dark) both ways.
        let sharp = Quality::measure(&checks(80, 120), &CANONICAL_112);
        assert!((sharp.mean_luma - 100.0).abs() < 1.0);
        assert!((sharp.sharpness / (1600.0 * 1.28 * 1.28) - 1.0).abs() < 0.03, "{}", sharp.sharpness);
        let dim = Quality::measure(&checks(40, 60), &CANONICAL_112);
        assert!((dim.sharpness / sharp.sharpness - 1.0).abs() < 0.05);
    }

    #[test]
    fn motion_along_one_axis_is_blur() {
        // What a quick movement leaves of the pattern: lines along the movement.
        let smeared: [u8; CHIP_BYTES] =
            core::array::from_fn(|i| if (i / 3 / CHIP_PX / 2).is_multiple_of(2) { 80 } else { 120 });
        assert_eq!(Quality::measure(&smeared, &CANONICAL_112).sharpness, 0.0);
    }

    #[test]
    fn the_background_does_not_count() {
        let lit_from_behind: [u8; CHIP_BYTES] = core::array::from_fn(|i| {
            let (x, y) = (i / 3 % CHIP_PX, i / 3 / CHIP_PX);
            if (20..92).contains(&x) && (30..106).contains(&y) { 20 } else { 255 }
        });
        let quality = Quality::measure(&lit_from_behind, &CANONICAL_112);
        assert!(quality.mean_luma < 21.0 && quality.sharpness == 0.0);
    }

    #[test]
    fn turn_and_roll_have_signs_and_survive_rotation() {
        let frontal = Quality::measure(&checks(0, 9), &CANONICAL_112);
        assert!(frontal.turn.abs() < 0.02 && frontal.roll_deg.abs() < 1.0);
        let mut left = CANONICAL_112;
        left.0[2].x -= 10.0;
        assert!((turn(&left) + 10.0 / 17.6).abs() < 0.03);
        for degrees in [-90.0_f32, 20.0, 179.0] {
            let (s, c) = degrees.to_radians().sin_cos();
            let rotated = Landmarks5(left.0.map(|p| Point::new(c * p.x - s * p.y, s * p.x + c * p.y)));
            assert!((turn(&rotated) - turn(&left)).abs() < 1e-3);
            assert!((roll_deg(&rotated) - roll_deg(&left) - degrees).abs() < 0.1);
        }
    }

    #[test]
    fn each_fault_has_its_own_instruction() {
        let good = checks(80, 120);
        let middle = face(250.0, 150.0, 1.0);
        assert_eq!(verdict(&good, &middle), Ok(()));
        assert_eq!(verdict(&good, &face(250.0, 150.0, 0.5)), Err(Unusable::TooSmall));
        assert_eq!(verdict(&good, &face(-30.0, 150.0, 1.0)), Err(Unusable::TooClose));
        assert_eq!(verdict(&good, &face(250.0, 390.0, 1.0)), Err(Unusable::TooClose));
        assert_eq!(verdict(&good, &face(80.0, 5.0, 4.2)), Err(Unusable::TooClose));
        assert_eq!(verdict(&checks(5, 15), &middle), Err(Unusable::TooDark));
        assert_eq!(verdict(&checks(225, 250), &middle), Err(Unusable::TooBright));
        assert_eq!(verdict(&checks(99, 100), &middle), Err(Unusable::Blurred));
        let mut turned = middle;
        turned.landmarks.0[2].x += 14.0;
        assert_eq!(verdict(&good, &turned), Err(Unusable::Turned));
        let mut tilted = middle;
        tilted.landmarks = Landmarks5(middle.landmarks.0.map(|p| Point::new(300.0 - p.y, p.x)));
        assert_eq!(verdict(&good, &tilted), Err(Unusable::Turned));
    }

    #[test]
    fn numbers_that_are_not_finite_never_pass() {
        let good = checks(80, 120);
        for damage in [f32::NAN, f32::INFINITY] {
            let mut detection = face(250.0, 150.0, 1.0);
            detection.landmarks.0[0].x = damage;
            let quality = Quality::measure(&good, &detection.landmarks);
            assert_eq!(Gate::OPEN.check(&quality, &detection, 640, 480), Err(Unusable::BadGeometry));
            let mut detection = face(250.0, 150.0, 1.0);
            detection.bbox.w = damage;
            assert_eq!(verdict(&good, &detection), Err(Unusable::BadGeometry));
        }
        let one_point = Landmarks5([Point::new(5.0, 5.0); 5]);
        let quality = Quality::measure(&good, &one_point);
        assert_eq!(Gate::OPEN.check(&quality, &face(0.0, 0.0, 1.0), 640, 480), Err(Unusable::BadGeometry));
    }

    #[test]
    fn a_turned_head_and_a_covered_face_have_their_reasons() {
        let gate = Gate::default();
        let head = Head { yaw_deg: 10.0, pitch_deg: -8.0, roll_deg: 0.0, hidden: 0.1 };
        assert_eq!(gate.check_head(&head), Ok(()));
        assert_eq!(gate.check_head(&Head { yaw_deg: -50.0, ..head }), Err(Unusable::Turned));
        assert_eq!(gate.check_head(&Head { pitch_deg: 44.0, ..head }), Err(Unusable::Turned));
        assert_eq!(gate.check_head(&Head { hidden: 0.6, yaw_deg: 60.0, ..head }), Err(Unusable::Covered));
        assert_eq!(Gate::OPEN.check_head(&Head { hidden: f32::NAN, ..head }), Err(Unusable::BadGeometry));
    }

    #[test]
    fn the_pose_follows_the_head() {
        use crate::align::shape;
        // The generic face itself, turned about the vertical axis and seen from far away.
        let face = shape::positions();
        let seen = |yaw_deg: f32| {
            let (s, c) = yaw_deg.to_radians().sin_cos();
            let points = core::array::from_fn(|k| {
                let [x, y, z] = face[k];
                Point::new(300.0 + 80.0 * (c * x + s * z), 200.0 + 80.0 * y)
            });
            Head::measure(&Fiducials68::all_visible(points))
        };
        let frontal = seen(0.0).unwrap();
        assert!(frontal.yaw_deg.abs() < 3.0 && frontal.hidden == 0.0, "{frontal:?}");
        let (one, other) = (seen(25.0).unwrap().yaw_deg, seen(-25.0).unwrap().yaw_deg);
        assert!((one.abs() - 25.0).abs() < 4.0 && (one + other).abs() < 4.0, "{one} {other}");
        assert!(Head::measure(&Fiducials68::all_visible([Point::new(1.0, 1.0); 68])).is_err());
    }

    #[test]
    fn limits_that_make_no_sense_are_named() {
        assert_eq!(Gate::default().fault(), None);
        assert_eq!(Gate::OPEN.fault(), None);
        assert_eq!(Gate { min_luma: 200.0, max_luma: 100.0, ..Gate::default() }.fault(), Some("max_luma"));
        assert_eq!(Gate { min_sharpness: f32::NAN, ..Gate::default() }.fault(), Some("min_sharpness"));
        assert_eq!(Gate { max_turn: 60.0, ..Gate::default() }.fault(), Some("max_turn"));
    }
}
