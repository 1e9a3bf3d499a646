//! Five-point similarity alignment: least-squares rotation, uniform scale and shift (Umeyama 1991, eq. 39–43, in the plane).

use thiserror::Error;

use super::{CANONICAL_112, CHIP_BYTES, CHIP_PX};
use crate::detection::{Landmarks5, Point};
use crate::frame::RgbView;

/// x' = a·x − b·y + tx, y' = b·x + a·y + ty: rotation, uniform scale, shift; no reflection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SimilarityTransform {
    /// Scale times cosine.
    pub a: f32,
    /// Scale times sine.
    pub b: f32,
    /// Shift to the right, in target pixels.
    pub tx: f32,
    /// Shift downwards, in target pixels.
    pub ty: f32,
}

impl SimilarityTransform {
    /// The transform that brings `from` nearest to `to` in least squares.
    ///
    /// # Errors
    /// As [`fit_points`](Self::fit_points).
    pub fn fit(from: &Landmarks5, to: &Landmarks5) -> Result<Self, AlignError> {
        Self::fit_points(&from.0, &to.0)
    }

    /// The same for any number of points.
    ///
    /// # Errors
    /// [`AlignError::NotFinite`] for a NaN or infinite coordinate, [`AlignError::Coincident`] when the points of `from` lie within
    /// one pixel of each other, [`AlignError::Collinear`] when they lie on a line, [`AlignError::Unrelated`] when no rotation and
    /// scale explains `to` at all.
    pub fn fit_points<const N: usize>(from: &[Point; N], to: &[Point; N]) -> Result<Self, AlignError> {
        if !from.iter().chain(to).all(|p| p.is_finite()) {
            return Err(AlignError::NotFinite);
        }
        let (from_mean, to_mean) = (mean(from), mean(to));
        let (mut along, mut across) = (0.0_f64, 0.0_f64);
        let (mut xx, mut xy, mut yy) = (0.0_f64, 0.0_f64, 0.0_f64);
        for (p, q) in from.iter().zip(to) {
            let (px, py) = (f64::from(p.x) - from_mean.0, f64::from(p.y) - from_mean.1);
            let (qx, qy) = (f64::from(q.x) - to_mean.0, f64::from(q.y) - to_mean.1);
            along += px * qx + py * qy;
            across += px * qy - py * qx;
            (xx, xy, yy) = (xx + px * px, xy + px * py, yy + py * py);
        }
        let spread = xx + yy;
        if spread < 1.0 {
            return Err(AlignError::Coincident);
        }
        // The product of the two principal variances, against the square of their sum.
        if xx * yy - xy * xy < LEAST_ROUNDNESS * spread * spread {
            return Err(AlignError::Collinear);
        }
        let (a, b) = (along / spread, across / spread);
        if libm::hypot(a, b) <= 1e-6 {
            return Err(AlignError::Unrelated);
        }
        Ok(Self {
            a: a as f32,
            b: b as f32,
            tx: (to_mean.0 - a * from_mean.0 + b * from_mean.1) as f32,
            ty: (to_mean.1 - b * from_mean.0 - a * from_mean.1) as f32,
        })
    }

    /// Where `p` goes.
    #[must_use]
    pub fn apply(&self, p: Point) -> Point {
        Point::new(self.a * p.x - self.b * p.y + self.tx, self.b * p.x + self.a * p.y + self.ty)
    }

    /// The transform back. Scale is never zero: [`fit`](Self::fit) refuses it.
    #[must_use]
    pub fn inverse(&self) -> Self {
        let squared = self.a * self.a + self.b * self.b;
        let (a, b) = (self.a / squared, -self.b / squared);
        Self { a, b, tx: -(a * self.tx - b * self.ty), ty: -(b * self.tx + a * self.ty) }
    }
}

/// Cuts the 112×112 RGB chip of the face at `landmarks` out of `frame`, bilinear, black outside the frame.
/// No allocation; `chip` is `[112, 112, 3]`.
///
/// # Errors
/// As [`SimilarityTransform::fit_points`], and [`AlignError::Outside`] when most landmarks lie outside the frame.
pub fn warp_chip(
    frame: &RgbView<'_>,
    landmarks: &Landmarks5,
    chip: &mut [u8; CHIP_BYTES],
) -> Result<(), AlignError> {
    let to_chip = SimilarityTransform::fit(landmarks, &CANONICAL_112)?;
    mostly_inside(frame, &landmarks.0)?;
    warp(frame, &to_chip, CHIP_PX, chip)
}

/// Position and size of the face at `landmarks` on the 112 px chip, without turning it: what there is before any alignment.
///
/// # Errors
/// As [`SimilarityTransform::fit_points`].
pub fn upright(landmarks: &Landmarks5) -> Result<SimilarityTransform, AlignError> {
    let aligned = SimilarityTransform::fit(landmarks, &CANONICAL_112)?;
    let a = libm::hypotf(aligned.a, aligned.b);
    let middle = |points: &[Point; 5]| {
        let (x, y) = mean(points);
        Point::new(x as f32, y as f32)
    };
    let (from, to) = (middle(&landmarks.0), middle(&CANONICAL_112.0));
    Ok(SimilarityTransform { a, b: 0.0, tx: to.x - a * from.x, ty: to.y - a * from.y })
}

/// Fills `out`, packed RGB `[side_px, side_px, 3]`, with what `to_chip` makes of `frame`, bilinear, black outside the frame.
///
/// # Errors
/// [`AlignError::Buffer`] when `out` has another length.
pub fn warp(
    frame: &RgbView<'_>,
    to_chip: &SimilarityTransform,
    side_px: usize,
    out: &mut [u8],
) -> Result<(), AlignError> {
    right_size(out, side_px)?;
    let back = to_chip.inverse();
    for (row, line) in out.chunks_exact_mut(side_px * 3).enumerate() {
        for (column, pixel) in line.chunks_exact_mut(3).enumerate() {
            let at = back.apply(Point::new(column as f32, row as f32));
            pixel.copy_from_slice(&bilinear(frame, at));
        }
    }
    Ok(())
}

/// That more than half of `points` lie in `frame`.
///
/// # Errors
/// [`AlignError::Outside`].
pub fn mostly_inside(frame: &RgbView<'_>, points: &[Point]) -> Result<(), AlignError> {
    let (width, height) = (frame.width_px() as f32, frame.height_px() as f32);
    let inside = points.iter().filter(|p| p.x >= -0.5 && p.y >= -0.5 && p.x < width && p.y < height).count();
    if 2 * inside > points.len() { Ok(()) } else { Err(AlignError::Outside) }
}

pub(super) fn right_size(out: &[u8], side_px: usize) -> Result<(), AlignError> {
    let expected = side_px.saturating_mul(side_px).saturating_mul(3);
    if expected == out.len() && side_px > 0 {
        Ok(())
    } else {
        Err(AlignError::Buffer { expected, actual: out.len() })
    }
}

pub(super) fn bilinear(frame: &RgbView<'_>, at: Point) -> [u8; 3] {
    let (x0, y0) = (floor(at.x), floor(at.y));
    let (fx, fy) = (at.x - x0 as f32, at.y - y0 as f32);
    let (width, height) = (frame.width_px() as isize, frame.height_px() as isize);
    let mut taps = [[0_u8; 3]; 4];
    if x0 >= 0 && y0 >= 0 && x0 < width - 1 && y0 < height - 1 {
        // All four lie inside: two pairs of neighbours.
        let upper = (y0 * width + x0) as usize * 3;
        let lower = upper + width as usize * 3;
        let data = frame.data();
        if let (Some([a, b, c, d, e, f]), Some([g, h, i, j, k, l])) =
            (data.get(upper..upper + 6), data.get(lower..lower + 6))
        {
            taps = [[*a, *b, *c], [*d, *e, *f], [*g, *h, *i], [*j, *k, *l]];
        }
    } else {
        let tap = |x: isize, y: isize| {
            let inside = x >= 0 && y >= 0 && x < width && y < height;
            if inside { frame.pixel_clamped(x, y) } else { [0; 3] }
        };
        let (x1, y1) = (x0.saturating_add(1), y0.saturating_add(1));
        taps = [tap(x0, y0), tap(x1, y0), tap(x0, y1), tap(x1, y1)];
    }
    let [p00, p10, p01, p11] = taps.map(|tap| tap.map(f32::from));
    core::array::from_fn(|c| {
        let top = p00[c] + (p10[c] - p00[c]) * fx;
        let bottom = p01[c] + (p11[c] - p01[c]) * fx;
        // Never negative: to the nearest, halves upwards.
        (top + (bottom - top) * fy + 0.5) as u8
    })
}

/// The largest whole number not above `v`, saturating. `libm`'s is a call, and this one runs twice a pixel.
fn floor(v: f32) -> isize {
    let cut = v as isize;
    if cut as f32 > v { cut.saturating_sub(1) } else { cut }
}

fn mean(points: &[Point]) -> (f64, f64) {
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), p| (x + f64::from(p.x), y + f64::from(p.y)));
    (x / points.len() as f64, y / points.len() as f64)
}

/// Ratio of principal variances (nearly) at which points are taken for a line. Profile faces have 0.03 and more.
const LEAST_ROUNDNESS: f64 = 1e-3;

/// Why landmarks admit no alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AlignError {
    /// A coordinate is NaN or infinite.
    #[error("a landmark is not a finite number")]
    NotFinite,
    /// All landmarks fall on nearly one point.
    #[error("the landmarks coincide")]
    Coincident,
    /// The landmarks lie on a line.
    #[error("the landmarks lie on a line")]
    Collinear,
    /// Most landmarks lie outside the frame.
    #[error("most landmarks lie outside the frame")]
    Outside,
    /// No similarity transform relates the landmarks to a face.
    #[error("the landmarks do not form a face")]
    Unrelated,
    /// A visibility below 0 or above 1.
    #[error("a visibility lies outside 0 to 1")]
    Visibility,
    /// The buffer for the chip does not have the size asked for.
    #[error("the chip needs {expected} bytes but the buffer has {actual}")]
    Buffer {
        /// Bytes needed.
        expected: usize,
        /// Bytes given.
        actual: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_similarity_is_undone(angle in -3.1_f32..3.1, scale in 0.2_f32..8.0, tx in -300.0_f32..300.0, ty in -300.0_f32..300.0) {
            let moved = SimilarityTransform { a: scale * angle.cos(), b: scale * angle.sin(), tx, ty };
            let seen = Landmarks5(CANONICAL_112.0.map(|p| moved.apply(p)));
            let fitted = SimilarityTransform::fit(&seen, &CANONICAL_112).unwrap();
            for (p, q) in seen.0.iter().zip(&CANONICAL_112.0) {
                prop_assert!(fitted.apply(*p).distance_px(*q) < 0.01);
                prop_assert!(fitted.inverse().apply(fitted.apply(*p)).distance_px(*p) < 0.05);
            }
        }
    }

    #[test]
    fn degenerate_landmarks_are_named() {
        let one_point = Landmarks5([Point::new(5.0, 5.0); 5]);
        assert_eq!(SimilarityTransform::fit(&one_point, &CANONICAL_112), Err(AlignError::Coincident));
        let mut nan = CANONICAL_112;
        nan.0[2].x = f32::NAN;
        assert_eq!(SimilarityTransform::fit(&nan, &CANONICAL_112), Err(AlignError::NotFinite));
    }

    #[test]
    fn black_lies_outside_and_the_border_fades_into_it() {
        let white = std::vec![255_u8; 40 * 30 * 3];
        let view = RgbView::new(&white, 40, 30).unwrap();
        let at = |x, y| bilinear(&view, Point::new(x, y));
        assert_eq!((at(0.0, 0.0), at(39.0, 29.0), at(38.5, 28.5)), ([255; 3], [255; 3], [255; 3]));
        assert_eq!((at(-0.5, 3.0), at(39.5, 3.0), at(5.0, 29.5)), ([128; 3], [128; 3], [128; 3]));
        assert_eq!((at(-1.0, 3.0), at(40.0, 3.0), at(f32::MIN, f32::MAX)), ([0; 3], [0; 3], [0; 3]));
    }

    #[test]
    fn a_canonical_picture_is_copied() {
        let picture: std::vec::Vec<u8> = (0..CHIP_BYTES).map(|i| (i * 31 % 251) as u8).collect();
        let view = RgbView::new(&picture, CHIP_PX, CHIP_PX).unwrap();
        let mut chip = [0; CHIP_BYTES];
        warp_chip(&view, &CANONICAL_112, &mut chip).unwrap();
        let worst = chip.iter().zip(&picture).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(worst <= 1, "off by {worst}");
    }
}
