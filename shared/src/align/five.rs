//! The likeliest fiducials for a detector's five landmarks, where no fiducials' net is at hand: the generic face with its modes under a
//! rigid camera, fitted to the five with the usual poses and faces as prior. A guess, and its visibilities say so.

use super::AlignError;
use super::fiducials::{FIDUCIALS, Fiducials68, MOUTH_LEFT, MOUTH_RIGHT, NOSE_TIP};
use super::linear::{observe, solve};
use super::shape::{self, FACE, MODES, Vector};
use super::similarity::SimilarityTransform;
use crate::detection::{Landmarks5, Point};

/// Fits the generic face to `landmarks`.
///
/// # Errors
/// As [`SimilarityTransform::fit_points`], and [`AlignError::Unrelated`] when no pose explains the landmarks.
pub fn from_five(landmarks: &Landmarks5) -> Result<Fiducials68, AlignError> {
    let mean = five_of(shape::positions().first_chunk::<FACE>().ok_or(AlignError::Unrelated)?);
    let upright = SimilarityTransform::fit_points(&landmarks.0, &mean.map(|p| Point::new(p[0], p[1])))?;
    let seen = landmarks.0.map(|p| upright.apply(p));
    // A similarity shrinks what it cannot explain: distances below would look small.
    let apart = |i: usize| seen[i].distance_px(Point::new(mean[i][0], mean[i][1]));
    let unlike = libm::sqrtf((0..5).map(|i| apart(i) * apart(i)).sum::<f32>() / 5.0);
    if unlike > MAX_UNLIKE_PX {
        return Err(AlignError::Unrelated);
    }
    let mut guess = [0.0; UNKNOWNS];
    guess[SCALE] = 1.0;
    for _ in 0..ROUNDS {
        guess = improved(&guess, &seen).ok_or(AlignError::Unrelated)?;
    }
    let off = project(&five_of(&shape::deformed(&amounts(&guess))), &guess);
    let worst = off.iter().zip(&seen).map(|(p, q)| p.distance_px(*q)).fold(0.0, f32::max);
    let strangeness = amounts(&guess).iter().map(|v| v * v).sum::<f64>();
    if worst.is_nan() || worst > MAX_RESIDUAL_PX || strangeness > MAX_STRANGENESS {
        return Err(AlignError::Unrelated);
    }
    let face = shape::deformed(&amounts(&guess));
    let back = upright.inverse();
    let points = project(face.first_chunk::<FIDUCIALS>().ok_or(AlignError::Unrelated)?, &guess);
    Ok(Fiducials68 { points: points.map(|p| back.apply(p)), visibility: [GUESSED; FIDUCIALS] })
}

/// Scale, shift (x, y), yaw, pitch, roll in radians, then the modes' amounts.
type Guess = [f64; UNKNOWNS];

const UNKNOWNS: usize = 6 + MODES;
const SCALE: usize = 0;

fn amounts(guess: &Guess) -> [f64; MODES] {
    core::array::from_fn(|k| guess[6 + k])
}

fn project<const N: usize>(points: &[Vector; N], guess: &Guess) -> [Point; N] {
    let [scale, x, y, yaw, pitch, roll, ..] = *guess;
    let ((sy, cy), (sp, cp), (sr, cr)) = (libm::sincos(yaw), libm::sincos(pitch), libm::sincos(roll));
    points.map(|p| {
        let [a, b, c] = p.map(f64::from);
        // About the face's middle, so that shift and angles are nearly independent.
        let b = b - MIDDLE_Y;
        let u = cy * a - sy * c;
        let v = cp * b + sp * (sy * a + cy * c);
        Point::new((scale * (cr * u - sr * v) + x) as f32, (scale * (sr * u + cr * v) + y + MIDDLE_Y) as f32)
    })
}

/// One step of Gauss and Newton on landmarks and priors, with derivatives by differences.
fn improved(guess: &Guess, seen: &[Point; 5]) -> Option<Guess> {
    let at = |g: &Guess| project(&five_of(&shape::deformed(&amounts(g))), g);
    let here = at(guess);
    let mut slopes = [[Point::default(); 5]; UNKNOWNS];
    for (k, slope) in slopes.iter_mut().enumerate() {
        let mut moved = *guess;
        moved[k] += STEP;
        let there = at(&moved);
        *slope = core::array::from_fn(|i| {
            Point::new((there[i].x - here[i].x) / STEP as f32, (there[i].y - here[i].y) / STEP as f32)
        });
    }
    let (mut a, mut b) = ([[0.0; UNKNOWNS]; UNKNOWNS], [0.0; UNKNOWNS]);
    for i in 0..5 {
        let x: Guess = core::array::from_fn(|k| f64::from(slopes[k][i].x));
        let y: Guess = core::array::from_fn(|k| f64::from(slopes[k][i].y));
        observe(&mut a, &mut b, &x, f64::from(seen[i].x - here[i].x), 1.0 / NOISE_VARIANCE);
        observe(&mut a, &mut b, &y, f64::from(seen[i].y - here[i].y), 1.0 / NOISE_VARIANCE);
    }
    for k in 0..UNKNOWNS {
        let (usual, spread) = if k < 6 { (if k == SCALE { 1.0 } else { 0.0 }, PRIOR[k]) } else { (0.0, 1.0) };
        let mut row = [0.0; UNKNOWNS];
        row[k] = 1.0;
        observe(&mut a, &mut b, &row, usual - guess[k], 1.0 / (spread * spread));
    }
    if !solve(&mut a, &mut b) {
        return None;
    }
    let next: Guess = core::array::from_fn(|k| guess[k] + b[k]);
    next.iter().all(|v| v.is_finite()).then_some(next)
}

fn five_of(face: &[Vector; FACE]) -> [Vector; 5] {
    let middle = |range: core::ops::Range<usize>| -> Vector {
        core::array::from_fn(|k| face[range.clone()].iter().map(|p| p[k]).sum::<f32>() / range.len() as f32)
    };
    [middle(36..42), middle(42..48), face[NOSE_TIP], face[MOUTH_LEFT], face[MOUTH_RIGHT]]
}

/// Standard deviations of scale, shift in px of the 112 px chip, yaw, pitch, roll in radians.
const PRIOR: [f64; 6] = [0.3, 20.0, 20.0, 0.45, 0.2, 0.3];
/// Variance of a detector's landmark in px² of the 112 px chip.
const NOISE_VARIANCE: f64 = 1.0;
const STEP: f64 = 1e-2;
const ROUNDS: usize = 5;
const MIDDLE_Y: f64 = 70.0;
/// Root mean square distance from the generic frontal face; faces turned by 60 degrees pass.
const MAX_UNLIKE_PX: f32 = 13.0;
const MAX_RESIDUAL_PX: f32 = 8.0;
/// Sum of the squared amounts of the modes, each of variance one, beyond which it is no face.
const MAX_STRANGENESS: f64 = 30.0;
/// The visibility of every guessed fiducial.
const GUESSED: f32 = 0.5;

#[cfg(test)]
mod tests {
    use super::super::camera::{self, AffineCamera};
    use super::*;

    fn turned(yaw_deg: f32, scale: f32) -> Fiducials68 {
        let (s, c) = yaw_deg.to_radians().sin_cos();
        let camera = AffineCamera { rows: [[scale * c, 0.0, -scale * s, 300.0], [0.0, scale, 0.0, 200.0]] };
        Fiducials68::all_visible(core::array::from_fn(|i| camera.project(shape::positions()[i])))
    }

    #[test]
    fn a_generic_face_is_found_again_from_five_of_its_points() {
        for yaw in [-45.0, -20.0, 0.0, 10.0, 30.0, 50.0] {
            let face = turned(yaw, 1.5);
            let guess = from_five(&face.five()).unwrap();
            let off = |i: usize| guess.points[i].distance_px(face.points[i]) / 1.5;
            let mean = (0..FIDUCIALS).map(off).sum::<f32>() / FIDUCIALS as f32;
            assert!(mean < 3.0, "{mean} px at yaw {yaw}");
            let pose = camera::fit(&guess).unwrap().camera.pose();
            assert!((pose.yaw_deg - yaw).abs() < 10.0 && pose.pitch_deg.abs() < 8.0, "{pose:?} at yaw {yaw}");
        }
    }

    #[test]
    fn it_follows_the_landmarks() {
        let face = turned(15.0, 2.0).five();
        let (s, c) = 0.7_f32.sin_cos();
        let turn = |p: Point| Point::new(c * p.x - s * p.y + 40.0, s * p.x + c * p.y - 9.0);
        let (still, moved) = (from_five(&face).unwrap(), from_five(&Landmarks5(face.0.map(turn))).unwrap());
        for (p, q) in still.points.iter().zip(&moved.points) {
            assert!(turn(*p).distance_px(*q) < 0.1);
        }
        for (p, q) in still.five().0.iter().zip(&face.0) {
            assert!(p.distance_px(*q) < 3.0, "{p:?} {q:?}");
        }
    }

    #[test]
    fn what_is_no_face_is_refused() {
        for yaw in [-60.0, 60.0] {
            assert!(from_five(&turned(yaw, 1.0).five()).is_ok(), "a face turned far is one");
        }
        assert_eq!(from_five(&Landmarks5([Point::new(4.0, 4.0); 5])), Err(AlignError::Coincident));
        assert_eq!(from_five(&Landmarks5([Point::new(f32::NAN, 4.0); 5])), Err(AlignError::NotFinite));
        let crossed = Landmarks5(
            [(0.0, 0.0), (40.0, 0.0), (90.0, 90.0), (0.0, 20.0), (40.0, -90.0)]
                .map(|(x, y)| Point::new(x, y)),
        );
        assert_eq!(from_five(&crossed), Err(AlignError::Unrelated));
    }
}
