//! What turns before the demonstration's camera: a head, rendered from one photograph by the generic 3D face, and the photograph itself,
//! held up as a print.

use facelatch_shared::align::camera::{self, AffineCamera};
use facelatch_shared::align::shape::{FACE, Vector};
use facelatch_shared::align::{AlignError, Fiducials68};
use facelatch_shared::detection::Point;

use crate::camera::scene::{Picture, Scene};

/// A head in a picture, ready to be turned.
#[derive(Debug)]
pub struct Head<'a> {
    picture: &'a Picture,
    camera: AffineCamera,
    face: [Vector; FACE],
    /// Where each point of the face lies in the picture.
    source: [Point; FACE],
    middle: Point,
    /// Half the width of the face, in pixels.
    radius_px: f32,
}

impl<'a> Head<'a> {
    /// The head whose fiducials in `picture` are `fiducials`.
    ///
    /// # Errors
    /// [`AlignError`] when they are no face.
    pub fn new(picture: &'a Picture, fiducials: &Fiducials68) -> Result<Self, AlignError> {
        let fit = camera::fit(fiducials)?;
        let source = std::array::from_fn(|i| match fiducials.points.get(i) {
            Some(seen) => *seen,
            None => fit.camera.project(fit.face[i]),
        });
        let contour = &fiducials.points[..17];
        let sum = contour.iter().fold((0.0, 0.0), |(x, y), p| (x + p.x, y + p.y));
        let middle = Point::new(sum.0 / 17.0, sum.1 / 17.0);
        let radius_px = contour[0].distance_px(contour[16]) / 2.0;
        Ok(Self { picture, camera: fit.camera, face: fit.face, source, middle, radius_px })
    }

    /// The picture with the head turned by `yaw_deg` to the viewer's right: what lies between the face's points moves with them, hair and
    /// neck less and less, the background not at all. Good for some 25°; what was hidden does not come to light.
    #[must_use]
    pub fn turned(&self, yaw_deg: f32) -> Picture {
        let (sin, cos) = yaw_deg.to_radians().sin_cos();
        let target: [Point; FACE] = std::array::from_fn(|i| {
            let [x, y, z] = self.face[i];
            let z = z - PIVOT_PX;
            let turned = self.camera.project([cos * x - sin * z, y, sin * x + cos * z + PIVOT_PX]);
            let before = self.camera.project(self.face[i]);
            Point::new(self.source[i].x + turned.x - before.x, self.source[i].y + turned.y - before.y)
        });
        self.warped(|at| {
            let reach = (at.distance_px(self.middle) / self.radius_px - FIRM) / (LOOSE - FIRM);
            let share = 1.0 - reach.clamp(0.0, 1.0);
            if share <= 0.0 {
                return at;
            }
            let (mut sum, mut dx, mut dy) = (0.0_f32, 0.0_f32, 0.0_f32);
            for (to, from) in target.iter().zip(&self.source) {
                let square = (at.x - to.x).powi(2) + (at.y - to.y).powi(2) + 0.5;
                let weight = 1.0 / (square * square);
                sum += weight;
                dx += weight * (from.x - to.x);
                dy += weight * (from.y - to.y);
            }
            let share = share * share * (3.0 - 2.0 * share);
            Point::new(at.x + share * dx / sum, at.y + share * dy / sum)
        })
    }

    fn warped(&self, source_of: impl Fn(Point) -> Point) -> Picture {
        drawn(self.picture, |at| Some(source_of(at)))
    }
}

/// `picture` as a print that is held up before the wall and turned by `yaw_deg` to the viewer's right about its upright axis.
#[must_use]
pub fn print(picture: &Picture, yaw_deg: f32) -> Picture {
    let (sin, cos) = yaw_deg.to_radians().sin_cos();
    let middle = Point::new(picture.width_px() as f32 / 2.0, picture.height_px() as f32 / 2.0);
    let half = Point::new(0.31 * picture.width_px() as f32, 0.46 * picture.height_px() as f32);
    drawn(picture, |at| {
        let (u, v) = (at.x - middle.x, at.y - middle.y);
        // The camera is DISTANCE_PX before the print; its far side is smaller.
        let x = u * DISTANCE_PX / (DISTANCE_PX * cos - u * sin);
        let y = v * (DISTANCE_PX + x * sin) / DISTANCE_PX;
        (x.abs() <= half.x && y.abs() <= half.y).then(|| Point::new(middle.x + x, middle.y + y))
    })
}

/// Each pixel from where `source_of` says in `picture`, bilinear, or the wall.
fn drawn(picture: &Picture, source_of: impl Fn(Point) -> Option<Point>) -> Picture {
    let view = picture.view();
    let wall = Scene::blank().finish();
    let mut rgb = Vec::with_capacity(view.width_px() * view.height_px() * 3);
    for y in 0..view.height_px() {
        for x in 0..view.width_px() {
            let Some(from) = source_of(Point::new(x as f32, y as f32)) else {
                rgb.extend(wall.view().pixel_clamped(x as isize, y as isize));
                continue;
            };
            let (left, top) = (from.x.floor(), from.y.floor());
            let (right_share, low_share) = (from.x - left, from.y - top);
            let corner = |dx: isize, dy: isize| view.pixel_clamped(left as isize + dx, top as isize + dy);
            let corners = [corner(0, 0), corner(1, 0), corner(0, 1), corner(1, 1)];
            for channel in 0..3 {
                let [a, b, c, d] = corners.map(|pixel| f32::from(pixel[channel]));
                let (upper, lower) = (a + (b - a) * right_share, c + (d - c) * right_share);
                rgb.push((upper + (lower - upper) * low_share).round() as u8);
            }
        }
    }
    match Picture::new(rgb, view.width_px(), view.height_px()) {
        Ok(drawn) => drawn,
        Err(_) => unreachable!("it has the size of a picture"),
    }
}

/// How far behind the eyes a head turns on its neck, in pixels of the generic face.
const PIVOT_PX: f32 = 45.0;
/// In half widths of the face from its middle: what moves with it in full, and from where on nothing does.
const FIRM: f32 = 1.1;
const LOOSE: f32 = 2.4;
/// Distance of the camera from a print.
const DISTANCE_PX: f32 = 1100.0;

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch_shared::align::shape;

    fn fiducials() -> Fiducials68 {
        Fiducials68::all_visible(std::array::from_fn(|i| {
            let [x, y, _] = shape::positions()[i];
            Point::new(320.0 + 2.0 * x, 130.0 + 2.0 * y)
        }))
    }

    /// Columns of the picture have their own grey.
    fn picture() -> Picture {
        Picture::new((0..640 * 480).flat_map(|i| [(i % 640 * 255 / 639) as u8; 3]).collect(), 640, 480)
            .unwrap()
    }

    #[test]
    fn the_nose_of_a_turned_head_moves_more_than_its_cheeks_and_the_wall_not_at_all() {
        let picture = picture();
        let points = fiducials();
        let turned = Head::new(&picture, &points).unwrap().turned(15.0);
        // What was at a column before now lies farther right, so that the grey there is less.
        let moved = |p: Point| {
            let at = |picture: &Picture| picture.view().pixel_clamped(p.x as isize, p.y as isize)[0];
            i32::from(at(&picture)) - i32::from(at(&turned))
        };
        let (nose, cheek) = (moved(points.points[30]), moved(points.points[2]));
        assert!(nose > 8 && nose > cheek + 3, "nose {nose}, cheek {cheek}");
        assert_eq!(moved(Point::new(8.0, 20.0)), 0);
        assert_eq!(Head::new(&picture, &points).unwrap().turned(0.0), picture);
    }

    #[test]
    fn a_turned_print_is_narrower_and_its_near_side_taller() {
        let white = Picture::new(vec![255; 640 * 480 * 3], 640, 480).unwrap();
        let rows =
            |p: &Picture, x: isize| (0..480).filter(|&y| p.view().pixel_clamped(x, y)[0] == 255).count();
        let columns = |p: &Picture| (0..640).filter(|&x| p.view().pixel_clamped(x, 240)[0] == 255).count();
        let (straight, turned) = (print(&white, 0.0), print(&white, 35.0));
        assert!(columns(&turned) + 40 < columns(&straight));
        assert!(rows(&turned, 200).abs_diff(rows(&turned, 440)) > 20);
    }
}
