//! The affine camera under which the generic 3D face shows the fiducials of a picture (Taigman et al. 2014, "DeepFace", section 2, "3D
//! alignment"), and the pose of the head that follows from it.
//!
//! The camera P (2×4) minimises rᵀ Σ⁻¹ r over the residuals r of the fiducials. Σ is their covariance: faces differ along the
//! [modes](shape::deformations) of the generic face, each point has a spread beyond them, both seen through the camera, and detected
//! points are noisy, the more so the less visible they are. Σ⁻¹ is never formed: the modes' amounts are unknowns beside P, each with
//! variance one, which gives the same P.

use super::AlignError;
use super::fiducials::{DEEPFACE_67, FIDUCIALS, Fiducials68};
use super::linear::{cross, dot, observe, solve};
use super::shape::{self, FACE, MODES, VERTICES, Vector};
use super::similarity::SimilarityTransform;
use crate::detection::Point;

/// Maps the face's own coordinates to frame pixels: `x = rows[0] · (X, Y, Z, 1)`, `y = rows[1] · (X, Y, Z, 1)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AffineCamera {
    /// The matrix, 2×4.
    pub rows: [[f32; 4]; 2],
}

/// Where a head looks, in degrees; all zero for one that looks into the camera upright.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pose {
    /// To the viewer's right, −90 to 90.
    pub yaw_deg: f32,
    /// Upwards, −90 to 90.
    pub pitch_deg: f32,
    /// Clockwise in the picture, −180 to 180.
    pub roll_deg: f32,
}

/// What the fiducials of one picture say about camera and face.
#[derive(Clone, Debug)]
pub struct CameraFit {
    /// Maps the face to the frame.
    pub camera: AffineCamera,
    /// This face's points in its own coordinates: the generic ones with the residuals added back (DeepFace, "frontalization"), so that
    /// what makes the face differ from others is not warped away. Along the line of sight they are a guess.
    pub face: [Vector; FACE],
    /// Root mean square distance between the fiducials and the generic face under this camera, in pixels of the 112 px chip.
    pub residual_px: f32,
}

impl AffineCamera {
    /// Where `p`, in the face's own coordinates, appears in the frame.
    #[must_use]
    pub fn project(&self, p: Vector) -> Point {
        let [x, y] = self.rows.map(|r| r[0] * p[0] + r[1] * p[1] + r[2] * p[2] + r[3]);
        Point::new(x, y)
    }

    /// The line of sight in the face's own coordinates, length one, away from the camera. A surface is seen when its outward normal
    /// points against it.
    #[must_use]
    pub fn line_of_sight(&self) -> Vector {
        let [a, b] = self.axes();
        let n = cross(a, b);
        let length = libm::sqrt(dot(n, n)).max(f64::MIN_POSITIVE);
        n.map(|v| (v / length) as f32)
    }

    /// The pose of the rigid camera that is nearest to this one.
    #[must_use]
    pub fn pose(&self) -> Pose {
        let Rigid { axes: [a, b], .. } = Rigid::nearest(self.axes());
        let c = cross(a, b);
        let degrees = |v: f64| v.to_degrees() as f32;
        Pose {
            yaw_deg: degrees(libm::atan2(c[0], c[2])),
            pitch_deg: degrees(libm::asin((-c[1]).clamp(-1.0, 1.0))),
            roll_deg: degrees(libm::atan2(-a[1], b[1])),
        }
    }

    fn axes(&self) -> [[f64; 3]; 2] {
        self.rows.map(|r| [f64::from(r[0]), f64::from(r[1]), f64::from(r[2])])
    }
}

/// Finds camera and face from the 67 anchors among `fiducials`.
///
/// # Errors
/// [`AlignError::NotFinite`], [`AlignError::Visibility`], [`AlignError::Coincident`] and [`AlignError::Collinear`] for points that
/// admit no camera, [`AlignError::Unrelated`] for points that are no face: mirrored, seen from behind, or far from any face.
pub fn fit(fiducials: &Fiducials68) -> Result<CameraFit, AlignError> {
    fiducials.check()?;
    let upright = normalisation(fiducials)?;
    let seen = fiducials.points.map(|p| upright.apply(p)).map(|p| [f64::from(p.x), f64::from(p.y)]);
    let (camera, amounts) = least_squares(&seen, &fiducials.visibility).ok_or(AlignError::Unrelated)?;
    let axes = camera.map(|r| [r[0], r[1], r[2]]);
    if !is_plausible(axes) {
        return Err(AlignError::Unrelated);
    }
    let residual_px = residual(&seen, &fiducials.visibility, &camera);
    if residual_px > MAX_RESIDUAL_PX {
        return Err(AlignError::Unrelated);
    }
    let face = with_residuals(&seen, &fiducials.visibility, &camera, &amounts);
    Ok(CameraFit { camera: in_frame(&camera, &upright), face, residual_px })
}

/// Scaled rotation nearest to two axes of an affine camera.
struct Rigid {
    scale: f64,
    axes: [[f64; 3]; 2],
}

impl Rigid {
    /// Polar decomposition M = √(M Mᵀ) Q; √ of a 2×2 matrix G is (G + √det·I) / √(trace + 2√det).
    fn nearest([a, b]: [[f64; 3]; 2]) -> Self {
        let (aa, ab, bb) = (dot(a, a), dot(a, b), dot(b, b));
        let root = libm::sqrt((aa * bb - ab * ab).max(0.0));
        let trace = libm::sqrt(aa + bb + 2.0 * root).max(f64::MIN_POSITIVE);
        let [p, q, r] = [(aa + root) / trace, ab / trace, (bb + root) / trace];
        let det = (p * r - q * q).max(f64::MIN_POSITIVE);
        let mix = |u: f64, v: f64| core::array::from_fn(|k| (u * a[k] + v * b[k]) / det);
        Self { scale: trace * 0.5, axes: [mix(r, -q), mix(-q, p)] }
    }
}

/// Brings the fiducials upright and to the generic face's size, so that nothing after it depends on where in the frame they are.
fn normalisation(fiducials: &Fiducials68) -> Result<SimilarityTransform, AlignError> {
    let target: [Point; FIDUCIALS] = core::array::from_fn(|i| {
        let [x, y, _] = shape::positions()[i];
        Point::new(x, y)
    });
    SimilarityTransform::fit_points(&fiducials.points, &target)
}

type Matrix = [[f64; 4]; 2];

/// Unknowns: the camera's eight numbers, row by row, then the modes' amounts. None when they are not determined.
fn least_squares(
    seen: &[[f64; 2]; FIDUCIALS],
    visibility: &[f32; FIDUCIALS],
) -> Option<(Matrix, [f64; MODES])> {
    const N: usize = 8 + MODES;
    let mut camera: Matrix = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]];
    let mut amounts = [0.0; MODES];
    for _ in 0..ROUNDS {
        let face = shape::deformed(&amounts);
        let (mut a, mut b) = ([[0.0; N]; N], [0.0; N]);
        for (i, diagonal) in a.iter_mut().enumerate().skip(8) {
            diagonal[i] = 1.0;
        }
        // Keeps the matrix definite; far below what a single point contributes.
        for (i, diagonal) in a.iter_mut().enumerate().take(8) {
            diagonal[i] = 1e-9;
        }
        for i in DEEPFACE_67.map(usize::from) {
            let x = [f64::from(face[i][0]), f64::from(face[i][1]), f64::from(face[i][2]), 1.0];
            // Of row u: P X(amounts) + M D (new − amounts), linear in the unknowns.
            let rows: [([f64; N], f64); 2] = core::array::from_fn(|u| {
                let mut row = [0.0; N];
                row[u * 4..u * 4 + 4].copy_from_slice(&x);
                let mut value = seen[i][u];
                for (k, mode) in shape::deformations().iter().enumerate() {
                    let moved: f64 = (0..3).map(|axis| camera[u][axis] * f64::from(mode[i][axis])).sum();
                    row[8 + k] = moved;
                    value += moved * amounts[k];
                }
                (row, value)
            });
            let [[p, q], [_, r]] = covariance(&camera, i);
            // Whitening by the Cholesky factor of the 2×2 covariance.
            let l00 = libm::sqrt(p);
            let l10 = q / l00;
            let l11 = libm::sqrt(r - l10 * l10);
            let weight = f64::from(visibility[i]).max(LEAST_WEIGHT);
            let [(row_x, value_x), (row_y, value_y)] = &rows;
            let first: [f64; N] = core::array::from_fn(|k| row_x[k] / l00);
            let first_value = value_x / l00;
            let second: [f64; N] = core::array::from_fn(|k| (row_y[k] - l10 * first[k]) / l11);
            let second_value = (value_y - l10 * first_value) / l11;
            observe(&mut a, &mut b, &first, first_value, weight);
            observe(&mut a, &mut b, &second, second_value, weight);
        }
        if !solve(&mut a, &mut b) {
            return None;
        }
        camera = [[b[0], b[1], b[2], b[3]], [b[4], b[5], b[6], b[7]]];
        amounts.copy_from_slice(&b[8..]);
    }
    camera.iter().flatten().chain(&amounts).all(|v| v.is_finite()).then_some((camera, amounts))
}

/// Covariance of fiducial `i` in the picture beyond the modes: its spread seen through the camera, and noise.
fn covariance(camera: &Matrix, i: usize) -> [[f64; 2]; 2] {
    let variance = shape::spread()[i].map(|s| f64::from(s) * f64::from(s));
    let entry =
        |u: usize, v: usize| -> f64 { (0..3).map(|k| camera[u][k] * variance[k] * camera[v][k]).sum() };
    [[entry(0, 0) + NOISE_VARIANCE, entry(0, 1)], [entry(1, 0), entry(1, 1) + NOISE_VARIANCE]]
}

fn is_plausible([a, b]: [[f64; 3]; 2]) -> bool {
    let n = cross(a, b);
    let (length_a, length_b) = (libm::sqrt(dot(a, a)), libm::sqrt(dot(b, b)));
    let area = libm::sqrt(dot(n, n));
    let ratio = length_a.min(length_b) / length_a.max(length_b);
    // Behind the face, edge on, or squeezed to a line.
    n[2] > 0.0 && ratio > 0.4 && area > 0.4 * length_a * length_b
}

fn residual(seen: &[[f64; 2]; FIDUCIALS], visibility: &[f32; FIDUCIALS], camera: &Matrix) -> f32 {
    let (mut sum, mut weights) = (0.0, 0.0);
    for i in DEEPFACE_67.map(usize::from) {
        let weight = f64::from(visibility[i]).max(LEAST_WEIGHT);
        for (row, at) in camera.iter().zip(seen[i]) {
            let r = at - apply(row, shape::positions()[i]);
            sum += weight * r * r;
        }
        weights += weight;
    }
    libm::sqrt(sum / weights) as f32
}

/// The face whose picture under the nearest rigid camera is what was seen: of all displacements that explain a residual, the likeliest
/// by each point's spread, so that at a turned head depth takes its part of the blame. Where a point is hidden its counterpart's
/// displacement counts instead; points that are no fiducials go with their neighbours.
fn with_residuals(
    seen: &[[f64; 2]; FIDUCIALS],
    visibility: &[f32; FIDUCIALS],
    camera: &Matrix,
    amounts: &[f64; MODES],
) -> [Vector; FACE] {
    let axes = camera.map(|r| [r[0], r[1], r[2]]);
    let Rigid { scale, axes: rigid } = Rigid::nearest(axes);
    let rigid = rigid.map(|r| r.map(|v| v * scale));
    let sight = cross(axes[0], axes[1]);
    let own_side = own_side(&sight.map(|v| v as f32));
    let generic = shape::deformed(amounts);
    let centre: [f64; 3] = core::array::from_fn(|k| {
        generic[..FIDUCIALS].iter().map(|p| f64::from(p[k])).sum::<f64>() / FIDUCIALS as f64
    });
    let mut moved = [[0.0_f64; 3]; FACE];
    let mut trust = [0.0_f64; FACE];
    for i in 0..FIDUCIALS {
        let from_centre: [f64; 3] = core::array::from_fn(|k| f64::from(generic[i][k]) - centre[k]);
        let r: [f64; 2] = core::array::from_fn(|u| {
            seen[i][u] - dot(rigid[u], from_centre) - (dot(axes[u], centre) + camera[u][3])
        });
        let variance = shape::spread()[i].map(|s| f64::from(s) * f64::from(s));
        let weighed = rigid.map(|row| -> [f64; 3] { core::array::from_fn(|k| row[k] * variance[k]) });
        let (p, q, s) = (dot(weighed[0], rigid[0]), dot(weighed[0], rigid[1]), dot(weighed[1], rigid[1]));
        let det = (p * s - q * q).max(f64::MIN_POSITIVE);
        let (u, v) = ((s * r[0] - q * r[1]) / det, (p * r[1] - q * r[0]) / det);
        moved[i] = core::array::from_fn(|k| weighed[0][k] * u + weighed[1][k] * v);
        trust[i] = f64::from(visibility[i]) * f64::from(own_side[i]) + 1e-3;
    }
    let mut face = generic;
    for i in 0..FIDUCIALS {
        let j = usize::from(shape::mirror()[i]);
        // A point that is seen well enough needs no help from the other side.
        let own = (trust[i] / trust[j].max(trust[i])).min(1.0);
        let other = [-moved[j][0], moved[j][1], moved[j][2]];
        for (axis, value) in face[i].iter_mut().enumerate() {
            *value += (own * moved[i][axis] + (1.0 - own) * other[axis]) as f32;
        }
    }
    for i in FIDUCIALS..FACE {
        let (mut sum, mut weights) = ([0.0_f64; 3], 0.0);
        for k in 0..FIDUCIALS {
            let away: f64 =
                (0..3).map(|axis| f64::from(generic[i][axis] - generic[k][axis])).map(|d| d * d).sum();
            let weight = 1.0 / (away * away + 1.0);
            for (axis, total) in sum.iter_mut().enumerate() {
                *total += weight * f64::from(face[k][axis] - generic[k][axis]);
            }
            weights += weight;
        }
        for (axis, value) in face[i].iter_mut().enumerate() {
            *value += (sum[axis] / weights) as f32;
        }
    }
    face
}

/// The camera that sees the frame, of one that sees what `upright` made of it.
fn in_frame(camera: &Matrix, upright: &SimilarityTransform) -> AffineCamera {
    let (a, b) = (f64::from(upright.a), f64::from(upright.b));
    let squared = a * a + b * b;
    let back = |x: f64, y: f64| [(a * x + b * y) / squared, (a * y - b * x) / squared];
    let mut rows = [[0.0; 4]; 2];
    for k in 0..4 {
        let shift = if k == 3 { [f64::from(upright.tx), f64::from(upright.ty)] } else { [0.0; 2] };
        let [x, y] = back(camera[0][k] - shift[0], camera[1][k] - shift[1]);
        (rows[0][k], rows[1][k]) = (x as f32, y as f32);
    }
    AffineCamera { rows }
}

fn apply(row: &[f64; 4], p: Vector) -> f64 {
    row[0] * f64::from(p[0]) + row[1] * f64::from(p[1]) + row[2] * f64::from(p[2]) + row[3]
}

/// For each vertex of the mesh, how far its own side of the face is to be believed against the other side, seen along `sight` (of any
/// length): 1 for one that is seen nearly as well as its counterpart or better, 0 for one that turns away.
pub(super) fn own_side(sight: &Vector) -> [f32; VERTICES] {
    let facing = |i: usize| {
        let n = shape::normals()[i];
        -(n[0] * sight[0] + n[1] * sight[1] + n[2] * sight[2])
    };
    let size = libm::sqrtf(sight.iter().map(|v| v * v).sum());
    core::array::from_fn(|i| {
        let (here, there) = (facing(i), facing(usize::from(shape::mirror()[i])));
        if there > LEAST_FACING * size { smooth_step(here / there, HIDDEN_SHARE, SEEN_SHARE) } else { 1.0 }
    })
}

/// 0 below `low`, 1 above `high`, smooth between.
fn smooth_step(v: f32, low: f32, high: f32) -> f32 {
    let t = ((v - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// A surface foreshortened to this share of what its counterpart keeps, or behind the horizon, shows nothing of its own.
const HIDDEN_SHARE: f32 = 0.3;
/// From this share on it shows only its own.
const SEEN_SHARE: f32 = 0.65;
/// Cosine between a normal and the way to the camera below which a counterpart is no help.
const LEAST_FACING: f32 = 0.1;
/// Linearizations of the product of camera and modes; the third changes nothing visible.
const ROUNDS: usize = 3;
/// Variance of a detected fiducial in px² of the 112 px chip.
const NOISE_VARIANCE: f64 = 0.3 * 0.3;
/// A point of visibility zero still counts this much, so that no selection of hidden points leaves the camera undetermined.
const LEAST_WEIGHT: f64 = 0.02;
/// Three times what any face that was looked at has.
const MAX_RESIDUAL_PX: f32 = 18.0;

#[cfg(test)]
#[path = "camera_tests.rs"]
mod tests;
