//! The frontal view of a face: piecewise affine over the mesh of the generic face, from where the fiducials are to where they would be
//! if the head looked into the camera (Taigman et al. 2014, "DeepFace", section 2, "frontalization").
//!
//! Triangles that the camera does not see take their picture from the other side of the face, blended in smoothly. Everything works
//! on the caller's buffers and some kilobytes of stack.

use super::AlignError;
use super::CHIP_PX;
use super::camera::{self, CameraFit};
use super::fiducials::{FIDUCIALS, Fiducials68};
use super::shape::{self, FACE, MIDLINE_PX, VERTICES};
use super::similarity::{bilinear, mostly_inside, right_size};
use crate::detection::Point;
use crate::frame::RgbView;

/// Side of the frontal chip that DeepFace's network reads (section 3), in pixels.
pub const FRONTAL_PX: usize = 152;

/// Fills `out`, packed RGB `[side_px, side_px, 3]`, with the frontal view of the face at `fiducials`, bilinear, black outside the frame.
/// The generic face's landmarks come to lie as [`CANONICAL_112`](super::CANONICAL_112) says, scaled to the side.
///
/// # Errors
/// [`AlignError::Buffer`] when `out` has another length, [`AlignError::Outside`] when most fiducials lie outside the frame, otherwise
/// as [`camera::fit`].
pub fn frontalize(
    frame: &RgbView<'_>,
    fiducials: &Fiducials68,
    side_px: usize,
    out: &mut [u8],
) -> Result<CameraFit, AlignError> {
    right_size(out, side_px)?;
    let fit = camera::fit(fiducials)?;
    mostly_inside(frame, &fiducials.points)?;
    out.fill(0);
    MeshWarp::new(&fit, fiducials, side_px).draw(frame, side_px, out);
    Ok(fit)
}

/// Where each vertex of the mesh lies in the frame and on the chip, and how far its own side of the face is to be believed.
#[derive(Clone, Debug)]
pub struct MeshWarp {
    /// In frame pixels: the fiducials as they were seen, all else by the camera.
    pub source: [Point; VERTICES],
    /// In chip pixels.
    pub target: [Point; VERTICES],
    /// 1 where the vertex is seen, 0 where its counterpart on the other side is seen instead.
    pub own: [f32; VERTICES],
}

impl MeshWarp {
    /// The warp to a chip of `side_px`.
    #[must_use]
    pub fn new(fit: &CameraFit, fiducials: &Fiducials68, side_px: usize) -> Self {
        let scale = side_px as f32 / CHIP_PX as f32;
        let place = |i: usize| if i < FACE { fit.face[i] } else { shape::positions()[i] };
        let source = core::array::from_fn(|i| {
            if i < FIDUCIALS { fiducials.points[i] } else { fit.camera.project(place(i)) }
        });
        let target = core::array::from_fn(|i| {
            // Pixel centres are at integers, so that the chip's edge is half a pixel before the first.
            let at = |v: f32| (v + 0.5) * scale - 0.5;
            Point::new(at(place(i)[0] + MIDLINE_PX), at(place(i)[1]))
        });
        let mut own = camera::own_side(&fit.camera.line_of_sight());
        hide_covered(&mut own, &source, fit);
        Self { source, target, own }
    }

    /// Draws the chip's triangles into `out`, which has the right size.
    fn draw(&self, frame: &RgbView<'_>, side_px: usize, out: &mut [u8]) {
        for corners in shape::triangles() {
            self.draw_triangle(frame, corners.map(usize::from), side_px, out);
        }
    }

    fn draw_triangle(&self, frame: &RgbView<'_>, corners: [usize; 3], side_px: usize, out: &mut [u8]) {
        let [a, b, c] = corners.map(|i| self.target[i]);
        let area = (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x);
        // Folded over by residuals: its neighbours cover the place.
        if area.is_nan() || area < LEAST_AREA {
            return;
        }
        // Barycentric coordinate of corner k: (x, y) · slope + base.
        let edges = [(b, c), (c, a), (a, b)].map(|(p, q)| {
            let (dx, dy) = ((p.y - q.y) / area, (q.x - p.x) / area);
            Plane { dx, dy, base: -(dx * p.x + dy * p.y) }
        });
        let own = edges_to_plane(&edges, corners.map(|i| self.own[i]));
        let here = corners.map(|i| self.source[i]);
        let there = corners.map(|i| self.source[usize::from(shape::mirror()[i])]);
        let [x, y] = [here.map(|p| p.x), here.map(|p| p.y)].map(|v| edges_to_plane(&edges, v));
        let [mirrored_x, mirrored_y] =
            [there.map(|p| p.x), there.map(|p| p.y)].map(|v| edges_to_plane(&edges, v));
        let one_sided = corners.iter().all(|&i| self.own[i] >= 1.0);

        let last = side_px as f32 - 1.0;
        let (top, bottom) = (a.y.min(b.y).min(c.y).max(0.0), a.y.max(b.y).max(c.y).min(last));
        let mut row = libm::ceilf(top);
        while row <= bottom {
            if let Some((first, end)) = span(&edges, row, last) {
                for column in first..=end {
                    let u = column as f32;
                    let mut colour = bilinear(frame, Point::new(x.at(u, row), y.at(u, row)));
                    if !one_sided {
                        let share = own.at(u, row).clamp(0.0, 1.0);
                        let other = bilinear(frame, Point::new(mirrored_x.at(u, row), mirrored_y.at(u, row)));
                        colour = core::array::from_fn(|k| {
                            let (p, q) = (f32::from(colour[k]), f32::from(other[k]));
                            (q + (p - q) * share + 0.5) as u8
                        });
                    }
                    let at = (row as usize * side_px + column) * 3;
                    out[at..at + 3].copy_from_slice(&colour);
                }
            }
            row += 1.0;
        }
    }
}

/// A linear function of place.
#[derive(Clone, Copy)]
struct Plane {
    dx: f32,
    dy: f32,
    base: f32,
}

impl Plane {
    fn at(self, x: f32, y: f32) -> f32 {
        self.dx * x + self.dy * y + self.base
    }
}

/// The linear function that has `values` at the corners.
fn edges_to_plane(edges: &[Plane; 3], values: [f32; 3]) -> Plane {
    let sum = |of: fn(&Plane) -> f32| edges.iter().zip(values).map(|(e, v)| of(e) * v).sum();
    Plane { dx: sum(|e| e.dx), dy: sum(|e| e.dy), base: sum(|e| e.base) }
}

/// First and last column of the triangle on `row`, clipped to 0..=last.
fn span(edges: &[Plane; 3], row: f32, last: f32) -> Option<(usize, usize)> {
    let (mut low, mut high) = (0.0_f32, last);
    for edge in edges {
        // Edges belong to both neighbours, so that no pixel between them stays black.
        let here = edge.dy * row + edge.base + 1e-4;
        if edge.dx > 0.0 {
            low = low.max(-here / edge.dx);
        } else if edge.dx < 0.0 {
            high = high.min(-here / edge.dx);
        } else if here < 0.0 {
            return None;
        }
    }
    let (low, high) = (libm::ceilf(low), libm::floorf(high));
    (low <= high).then_some((low as usize, high as usize))
}

/// Takes their own side from the vertices that lie behind another part of the face, as the far eye behind the nose.
fn hide_covered(own: &mut [f32; VERTICES], source: &[Point; VERTICES], fit: &CameraFit) {
    let sight = fit.camera.line_of_sight();
    let depth = fit.face.map(|p| p[0] * sight[0] + p[1] * sight[1] + p[2] * sight[2]);
    for i in 0..FACE {
        let j = usize::from(shape::mirror()[i]);
        // Only what is farther away than its counterpart can be covered while that is not.
        if own[i] <= 0.0 || depth[i] <= depth[j] {
            continue;
        }
        let covered = shape::triangles().iter().map(|t| t.map(usize::from)).any(|t| {
            t.iter().all(|&k| k < FACE && k != i)
                && is_behind(source[i], depth[i], t.map(|k| (source[k], depth[k])))
        });
        if covered {
            own[i] = 0.0;
        }
    }
}

/// Whether the point `p` at `depth` lies behind a triangle that faces the camera.
fn is_behind(p: Point, depth: f32, corners: [(Point, f32); 3]) -> bool {
    let [(a, _), (b, _), (c, _)] = corners;
    let turn = |p: Point, q: Point, r: Point| (q.x - p.x) * (r.y - p.y) - (q.y - p.y) * (r.x - p.x);
    let weights = [turn(p, b, c), turn(a, p, c), turn(a, b, p)];
    let area = turn(a, b, c);
    if area <= 0.0 || weights.iter().any(|w| *w < 0.0) {
        return false;
    }
    let front: f32 = weights.iter().zip(corners).map(|(w, (_, d))| w * d).sum();
    front / area + COVER_PX < depth
}

/// How far behind a triangle a vertex must lie to be covered by it, in pixels of the 112 px chip.
const COVER_PX: f32 = 1.5;
/// Twice the area in px² below which a triangle is not drawn.
const LEAST_AREA: f32 = 1e-3;

#[cfg(test)]
#[path = "frontalize_tests.rs"]
mod tests;
