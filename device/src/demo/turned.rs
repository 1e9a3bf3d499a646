//! A photograph as if the head in it had turned: for the demonstration's enrolment, which asks for sides that no single photograph shows.
//!
//! The generic 3D face is laid over the photograph by the door's own camera fit, turned, and the picture is bent so that each point of the face
//! goes where the turned one is seen. The hidden side is not invented, so small turns look right and large ones do not; and a detector that places
//! landmarks by the look of the whole face follows a nod hardly at all.

use facelatch_shared::align::camera;
use facelatch_shared::align::five::from_five;
use facelatch_shared::align::shape::Vector;
use facelatch_shared::detection::{Landmarks5, Point};
use facelatch_shared::frame::RgbView;

use crate::camera::scene::Picture;

/// `photo` with the face at `landmarks` turned by `yaw_deg` to the viewer's right and `pitch_deg` upwards; `None` where the landmarks are no face.
#[must_use]
pub fn turned(photo: &RgbView<'_>, landmarks: &Landmarks5, yaw_deg: f32, pitch_deg: f32) -> Option<Picture> {
    let fit = camera::fit(&from_five(landmarks).ok()?).ok()?;
    let middle: Vector =
        std::array::from_fn(|k| fit.face.iter().map(|p| p[k]).sum::<f32>() / fit.face.len() as f32);
    let (left, right) = (landmarks.0[0], landmarks.0[1]);
    let reach_px = 2.2 * left.distance_px(right);
    let centre = fit.camera.project(middle);
    // The neck turns a head about an axis well behind the face.
    let pivot = [middle[0], middle[1], middle[2] + BEHIND];
    let moved: Vec<(Point, Point)> = fit
        .face
        .iter()
        .map(|p| {
            let to = fit.camera.project(rotated(*p, pivot, yaw_deg, pitch_deg));
            let from = fit.camera.project(*p);
            // The head stays before the camera: only what differs from its shift bends the picture.
            (to, Point::new(to.x - from.x, to.y - from.y))
        })
        .collect();
    let (width, height) = (photo.width_px(), photo.height_px());
    let mut rgb = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let at = Point::new(x as f32, y as f32);
            let near = 1.0 - ((at.distance_px(centre) - 0.6 * reach_px) / (0.6 * reach_px)).clamp(0.0, 1.0);
            let shift = if near > 0.0 { shift_at(at, &moved) } else { Point::default() };
            rgb.extend(sample(photo, at.x - near * shift.x, at.y - near * shift.y));
        }
    }
    Picture::new(rgb, width, height).ok()
}

/// The shifts of the face's points around `at`, the nearest weighing most.
fn shift_at(at: Point, moved: &[(Point, Point)]) -> Point {
    let (mut x, mut y, mut weights) = (0.0, 0.0, 0.0);
    for (to, shift) in moved {
        let (dx, dy) = (to.x - at.x, to.y - at.y);
        let squared = dx * dx + dy * dy + 4.0;
        let weight = 1.0 / (squared * squared);
        (x, y, weights) = (x + weight * shift.x, y + weight * shift.y, weights + weight);
    }
    Point::new(x / weights, y / weights)
}

/// `p` turned about `pivot`, in the face's own coordinates: x to the viewer's right, y down, z away from the viewer.
fn rotated(p: Vector, pivot: Vector, yaw_deg: f32, pitch_deg: f32) -> Vector {
    let ((sy, cy), (sp, cp)) = (yaw_deg.to_radians().sin_cos(), pitch_deg.to_radians().sin_cos());
    let [x, y, z] = [p[0] - pivot[0], p[1] - pivot[1], p[2] - pivot[2]];
    let (x, z) = (cy * x - sy * z, sy * x + cy * z);
    let (y, z) = (cp * y + sp * z, -sp * y + cp * z);
    [x + pivot[0], y + pivot[1], z + pivot[2]]
}

/// The colour at a place between pixels.
fn sample(photo: &RgbView<'_>, x: f32, y: f32) -> [u8; 3] {
    let (left, top) = (x.floor(), y.floor());
    let (fx, fy) = (x - left, y - top);
    let pixel = |dx: isize, dy: isize| photo.pixel_clamped(left as isize + dx, top as isize + dy);
    let [a, b, c, d] = [pixel(0, 0), pixel(1, 0), pixel(0, 1), pixel(1, 1)];
    std::array::from_fn(|k| {
        let mix = |p: u8, q: u8, t: f32| f32::from(p) + (f32::from(q) - f32::from(p)) * t;
        let (upper, lower) = (mix(a[k], b[k], fx), mix(c[k], d[k], fx));
        (upper + (lower - upper) * fy).round() as u8
    })
}

/// How far the axis lies behind the face's middle, in pixels of the 112 px chip.
const BEHIND: f32 = 30.0;

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch_shared::align::CANONICAL_112;
    use facelatch_shared::align::camera::Pose;
    use facelatch_shared::pose;
    use facelatch_shared::quality::Quality;

    /// Where the five landmarks of a turned face are found again, by dots in their places.
    fn pose_of(yaw_deg: f32, pitch_deg: f32) -> Pose {
        let face = Landmarks5(CANONICAL_112.0.map(|p| Point::new(p.x * 1.2 + 50.0, p.y * 1.2 + 50.0)));
        let found = face.0.map(|dot| {
            let mut rgb = vec![0_u8; 240 * 240 * 3];
            for y in -2_isize..=2 {
                for x in -2_isize..=2 {
                    let at = ((dot.y as isize + y) * 240 + dot.x as isize + x) as usize * 3;
                    rgb[at..at + 3].fill(255);
                }
            }
            let picture = turned(&RgbView::new(&rgb, 240, 240).unwrap(), &face, yaw_deg, pitch_deg).unwrap();
            let (mut sx, mut sy, mut sum) = (0.0, 0.0, 0.0);
            for (i, pixel) in picture.view().data().chunks_exact(3).enumerate() {
                let light = f32::from(pixel[0]);
                (sx, sy, sum) = (sx + light * (i % 240) as f32, sy + light * (i / 240) as f32, sum + light);
            }
            Point::new(sx / sum, sy / sum)
        });
        pose::of_face(&Quality::default(), &Landmarks5(found)).unwrap()
    }

    #[test]
    fn the_head_turns_as_far_as_it_is_told() {
        let rest = pose_of(0.0, 0.0);
        for (yaw, pitch) in [(18.0, 0.0), (-18.0, 0.0), (0.0, 14.0), (0.0, -14.0)] {
            let seen = pose_of(yaw, pitch);
            let (dyaw, dpitch) = (seen.yaw_deg - rest.yaw_deg, seen.pitch_deg - rest.pitch_deg);
            println!("{yaw} {pitch}: {dyaw:.1} {dpitch:.1}");
            assert!(
                (dyaw - yaw).abs() < 6.0 && (dpitch - pitch).abs() < 6.0,
                "{yaw} {pitch}: {dyaw} {dpitch}"
            );
        }
    }

    #[test]
    fn what_is_no_face_is_not_turned() {
        let rgb = vec![0; 30 * 30 * 3];
        assert!(turned(&RgbView::new(&rgb, 30, 30).unwrap(), &Landmarks5::default(), 9.0, 0.0).is_none());
    }
}
