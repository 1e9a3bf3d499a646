//! How one face moved between two moments: as a surface or as a head.
//!
//! The points of the first moment (x, y) with the depth z of the generic face make a 3D face that looks like this very person from the
//! front. Three explanations of the second moment are compared by least squares:
//!
//! - a plane: the best homography of (x, y), eight unknowns (Hartley and Zisserman, "Multiple View Geometry", section 4.1, with h₃₃ = 1);
//! - a head: the best affine camera of (x, y, z, 1), eight unknowns; its z column is how far depth moved, the sine of the turn;
//! - a bent sheet with a face's relief: (1, x, y, x², xy, y², z), fourteen unknowns. What its z column moves is depth that no
//!   gently bent sheet has.
//!
//! The contour and the inner lips are left out: the one slides along a turning head, the others open.

use crate::align::linear::{observe, solve};
use crate::align::{AlignError, Fiducials68, shape};

/// What moved between two moments, in the frame of the eyes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Motion {
    /// By how much the generic face's depth moved along the eye line: about the sine of the head's turn, positive to the viewer's right.
    pub turn: f32,
    /// The part of it that a bent sheet does not explain.
    pub relief: f32,
    /// The same in any direction, 0 and above.
    pub relief_any: f32,
    /// What the best homography leaves over what the best turning head leaves; 1 and below for a flat thing.
    pub plane_over_head: f32,
    /// By how much the picture was stretched in one direction against the other, 0 and above.
    pub deformation: f32,
}

/// The motion from `before` to `after`.
///
/// # Errors
/// [`AlignError`] for points that are no face: not finite, coincident, or without a single best explanation.
pub fn compare(before: &Fiducials68, after: &Fiducials68) -> Result<Motion, AlignError> {
    before.check()?;
    after.check()?;
    match (Normal::of(before), Normal::of(after)) {
        (Some(before), Some(after)) => between(&before, &after).ok_or(AlignError::Unrelated),
        _ => Err(AlignError::Coincident),
    }
}

/// The used points with their middle at zero, the eyes level and one unit apart.
#[derive(Clone, Debug)]
pub(super) struct Normal {
    points: [[f32; 2]; USED],
    weights: [f32; USED],
}

impl Normal {
    /// None for points that are no face.
    pub(super) fn of(face: &Fiducials68) -> Option<Self> {
        face.check().ok()?;
        let [left, right, ..] = face.six().0;
        let (dx, dy) = (f64::from(right.x - left.x), f64::from(right.y - left.y));
        let squared = dx * dx + dy * dy;
        if squared < 1.0 {
            return None;
        }
        let used = &face.points[FIRST..FIRST + USED];
        let count = USED as f64;
        let (cx, cy) = used.iter().fold((0.0, 0.0), |(x, y), p| (x + f64::from(p.x), y + f64::from(p.y)));
        let (cx, cy) = (cx / count, cy / count);
        let points = core::array::from_fn(|i| {
            let (x, y) = (f64::from(used[i].x) - cx, f64::from(used[i].y) - cy);
            [((x * dx + y * dy) / squared) as f32, ((y * dx - x * dy) / squared) as f32]
        });
        let weights = core::array::from_fn(|i| face.visibility[FIRST + i].max(LEAST_WEIGHT));
        Some(Self { points, weights })
    }
}

/// The mean of several moments; of none, a face whose points all lie in the middle.
pub(super) fn mean<'a>(all: impl Iterator<Item = &'a Normal>) -> Normal {
    let mut sum = Normal { points: [[0.0; 2]; USED], weights: [0.0; USED] };
    let mut count = 0.0;
    for normal in all {
        count += 1.0;
        for i in 0..USED {
            sum.points[i][0] += normal.points[i][0];
            sum.points[i][1] += normal.points[i][1];
            sum.weights[i] += normal.weights[i];
        }
    }
    let share = 1.0 / f32::max(count, 1.0);
    sum.points.iter_mut().flatten().chain(&mut sum.weights).for_each(|value| *value *= share);
    sum
}

/// None when an explanation is not determined.
pub(super) fn between(before: &Normal, after: &Normal) -> Option<Motion> {
    let depths = depths();
    let weight = |i: usize| f64::from(before.weights[i].min(after.weights[i]));
    let [at, to] = [before, after].map(|n| n.points.map(|p| p.map(f64::from)));

    let head_row = |i: usize| [at[i][0], at[i][1], 1.0, depths[i]];
    let head = [0, 1].map(|u| fit(|i| (head_row(i), to[i][u], weight(i))));
    let [Some(head_x), Some(head_y)] = head else { return None };
    let sheet_row = |i: usize| {
        let [x, y] = at[i];
        [1.0, x, y, x * x, x * y, y * y, depths[i]]
    };
    let sheet = [0, 1].map(|u| fit(|i| (sheet_row(i), to[i][u], weight(i))));
    let [Some(sheet_x), Some(sheet_y)] = sheet else { return None };
    let plane = homography(&at, &to, weight)?;

    let (mut of_head, mut of_plane) = (0.0, 0.0);
    for i in 0..USED {
        let row = head_row(i);
        let (hx, hy) = (to[i][0] - product(&row, &head_x), to[i][1] - product(&row, &head_y));
        of_head += weight(i) * (hx * hx + hy * hy);
        let [px, py] = through(&plane, at[i]);
        let (px, py) = (to[i][0] - px, to[i][1] - py);
        of_plane += weight(i) * (px * px + py * py);
    }
    // Below a thousandth of the eye distance both explanations are perfect.
    let floor = 1e-6 * USED as f64;
    let ratio = libm::sqrt((of_plane + floor) / (of_head + floor));
    let motion = Motion {
        // Depth counts away from the camera, and what is near moves with the turn.
        turn: -head_x[3] as f32,
        relief: -sheet_x[6] as f32,
        relief_any: libm::hypot(sheet_x[6], sheet_y[6]) as f32,
        plane_over_head: ratio as f32,
        deformation: stretch([[head_x[0], head_x[1]], [head_y[0], head_y[1]]]) as f32,
    };
    let finite = [motion.turn, motion.relief, motion.relief_any, motion.plane_over_head, motion.deformation];
    finite.iter().all(|value| value.is_finite()).then_some(motion)
}

/// Depths of the generic face's used points, in its eye distances, away from the camera.
fn depths() -> [f64; USED] {
    let p = shape::positions();
    let eye = |from: usize| (from..from + 6).map(|i| f64::from(p[i][0])).sum::<f64>() / 6.0;
    let eyes_apart = eye(42) - eye(36);
    core::array::from_fn(|i| f64::from(p[FIRST + i][2]) / eyes_apart)
}

/// Least squares over the used points of rows, values and weights.
fn fit<const N: usize>(row: impl Fn(usize) -> ([f64; N], f64, f64)) -> Option<[f64; N]> {
    let (mut a, mut b) = ([[0.0; N]; N], [0.0; N]);
    for i in 0..USED {
        let (row, value, weight) = row(i);
        observe(&mut a, &mut b, &row, value, weight);
    }
    solve(&mut a, &mut b).then_some(b)
}

/// The homography that brings `at` nearest to `to`, up to the weights of the linear form.
fn homography(
    at: &[[f64; 2]; USED],
    to: &[[f64; 2]; USED],
    weight: impl Fn(usize) -> f64,
) -> Option<[f64; 8]> {
    let (mut a, mut b) = ([[0.0; 8]; 8], [0.0; 8]);
    for i in 0..USED {
        let ([x, y], [u, v]) = (at[i], to[i]);
        observe(&mut a, &mut b, &[x, y, 1.0, 0.0, 0.0, 0.0, -u * x, -u * y], u, weight(i));
        observe(&mut a, &mut b, &[0.0, 0.0, 0.0, x, y, 1.0, -v * x, -v * y], v, weight(i));
    }
    solve(&mut a, &mut b).then_some(b)
}

fn through(h: &[f64; 8], [x, y]: [f64; 2]) -> [f64; 2] {
    let w = h[6] * x + h[7] * y + 1.0;
    // Points of a face do not lie beyond the horizon; where they do, the residual is large, as it must be.
    let w = if w.abs() < 1e-6 { 1e-6 } else { w };
    [(h[0] * x + h[1] * y + h[2]) / w, (h[3] * x + h[4] * y + h[5]) / w]
}

fn product<const N: usize>(row: &[f64; N], by: &[f64; N]) -> f64 {
    row.iter().zip(by).map(|(a, b)| a * b).sum()
}

/// Largest over smallest stretch of a 2×2 map, less one.
fn stretch([[a, b], [c, d]]: [[f64; 2]; 2]) -> f64 {
    let (sum, det) = (a * a + b * b + c * c + d * d, (a * d - b * c).abs());
    let root = libm::sqrt((sum * sum - 4.0 * det * det).max(0.0));
    libm::sqrt((sum + root) / (sum - root).max(1e-12)) - 1.0
}

/// Brows, nose, eyes and outer lips: points 17 to 59.
const FIRST: usize = 17;
const USED: usize = 43;
/// A hidden point still counts this much.
const LEAST_WEIGHT: f32 = 0.1;
