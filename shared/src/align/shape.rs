//! The generic 3D face: what every face has in common, how faces differ, and the mesh that carries a picture of one.
//!
//! It is the mean of some thousand faces seen by a 3D face-mesh network, with pose and scale removed and both sides made alike;
//! `trainer/tools/mean_shape.py` derives it and writes `shape_data.rs`. Coordinates are pixels of the canonical chip
//! of 112 px: x from the face's midline to the viewer's right, y downwards from the chip's upper edge, z away from the camera.

use super::fiducials::FIDUCIALS;
use super::shape_data as data;

pub use super::shape_data::{FACE, MIDLINE_PX, MODES, TRIANGLES, VERTICES};

/// A place or a direction in the face's own coordinates.
pub type Vector = [f32; 3];

/// The mean position of each vertex: the 68 fiducials, more points of the face up to [`FACE`], then the ring that carries the
/// background.
#[must_use]
pub fn positions() -> &'static [Vector; VERTICES] {
    &data::POSITIONS
}

/// Outward normals at the vertices, length one.
#[must_use]
pub fn normals() -> &'static [Vector; VERTICES] {
    &data::NORMALS
}

/// Corners of each triangle, clockwise in the frontal view; triangle `i + TRIANGLES / 2` is the mirror image of triangle `i`.
/// Fiducial 66 is no corner ([`super::fiducials::DEEPFACE_67`]).
#[must_use]
pub fn triangles() -> &'static [[u8; 3]; TRIANGLES] {
    &data::MESH
}

/// For each vertex, the one on the other side of the face.
#[must_use]
pub fn mirror() -> &'static [u8; VERTICES] {
    &data::MIRROR
}

/// How faces differ, expression and identity together: what one standard deviation of each principal mode moves the face's points by.
#[must_use]
pub fn deformations() -> &'static [[Vector; FACE]; MODES] {
    &data::DEFORMATIONS
}

/// Standard deviation of each point and axis beyond the modes.
#[must_use]
pub fn spread() -> &'static [Vector; FACE] {
    &data::SPREAD
}

/// The face's points after `amounts` of each mode, in standard deviations.
#[must_use]
pub fn deformed(amounts: &[f64; MODES]) -> [Vector; FACE] {
    core::array::from_fn(|i| {
        core::array::from_fn(|axis| {
            let moved: f64 = amounts
                .iter()
                .zip(deformations())
                .map(|(amount, mode)| amount * f64::from(mode[i][axis]))
                .sum();
            (f64::from(data::POSITIONS[i][axis]) + moved) as f32
        })
    })
}

const _: () = assert!(FIDUCIALS < FACE && FACE < VERTICES && TRIANGLES.is_multiple_of(2));

#[cfg(test)]
mod tests {
    use super::super::fiducials::{DEEPFACE_67, MIRROR_68};
    use super::*;

    fn area(t: [u8; 3]) -> f32 {
        let [a, b, c] = t.map(|i| positions()[usize::from(i)]);
        (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    }

    #[test]
    fn both_sides_are_alike() {
        for i in 0..VERTICES {
            let j = usize::from(mirror()[i]);
            let ([x, y, z], [u, v, w]) = (positions()[i], positions()[j]);
            assert!((x + u).abs() < 2e-3 && (y - v).abs() < 2e-3 && (z - w).abs() < 2e-3, "{i} and {j}");
        }
        assert!(mirror()[..FIDUCIALS].iter().zip(&MIRROR_68).all(|(a, b)| a == b));
        let mirrored = |i: u8| mirror()[usize::from(i)];
        for (left, right) in triangles()[..TRIANGLES / 2].iter().zip(&triangles()[TRIANGLES / 2..]) {
            let [a, b, c] = left.map(mirrored);
            assert_eq!([a, c, b], *right);
        }
    }

    #[test]
    fn the_mesh_covers_the_ring_once() {
        assert!(triangles().iter().all(|t| area(*t) > 0.0), "every triangle is clockwise");
        let total: f32 = triangles().iter().map(|t| area(*t)).sum();
        let ring = &positions()[FACE..];
        let hull: f32 = (0..ring.len())
            .map(|i| {
                let (p, q) = (ring[i], ring[(i + 1) % ring.len()]);
                p[0] * q[1] - q[0] * p[1]
            })
            .sum();
        assert!((total / hull.abs() - 1.0).abs() < 1e-4, "{total} {hull}");
        for i in DEEPFACE_67 {
            assert!(triangles().iter().flatten().any(|&v| v == i), "{i} is a corner");
        }
        assert!(!triangles().iter().flatten().any(|&v| v == 66));
    }

    #[test]
    fn it_is_a_face_that_looks_at_the_camera() {
        let p = positions();
        assert!(p[30][2] < p[27][2] && p[30][2] < p[0][2] - 30.0, "the nose stands out, the ears lie back");
        assert!(p[8][1] > p[57][1] && p[57][1] > p[33][1] && p[33][1] > p[36][1] && p[36][1] > p[19][1]);
        assert!(normals().iter().all(|n| (n.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-2));
        assert!(
            normals()[..68].iter().filter(|n| n[2] < 0.0).count() >= 66,
            "outwards is towards the camera"
        );
    }
}
