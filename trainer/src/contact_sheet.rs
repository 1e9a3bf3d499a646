//! Contact sheets of alignment: what came in, where the fiducials are, the mesh, and the frontal view.

use facelatch_shared::align::frontalize::{FRONTAL_PX, MeshWarp, frontalize};
use facelatch_shared::align::similarity::{upright, warp};
use facelatch_shared::align::{AlignError, Fiducials68, SimilarityTransform, camera::Pose, shape};
use facelatch_shared::detection::{Landmarks5, Point};
use facelatch_shared::frame::RgbView;
use image::{Rgb, RgbImage};

/// One face on the sheet: four pictures side by side, each [`FRONTAL_PX`] square.
pub struct Strip {
    /// Where the head looks.
    pub pose: Pose,
    /// Distance of the fiducials from the generic face under the fitted camera, in pixels of the 112 px chip.
    pub residual_px: f32,
    /// The four pictures.
    pub pixels: RgbImage,
}

/// Draws the face at `fiducials`, which a detector found at `landmarks`.
///
/// # Errors
/// [`AlignError`] when the fiducials admit no frontal view.
pub fn strip(
    frame: &RgbView<'_>,
    landmarks: &Landmarks5,
    fiducials: &Fiducials68,
) -> Result<Strip, AlignError> {
    let mut frontal = vec![0; SIDE * SIDE * 3];
    let fit = frontalize(frame, fiducials, SIDE, &mut frontal)?;
    let to_cell = with_margin(&upright(landmarks)?);
    let mut input = vec![0; SIDE * SIDE * 3];
    warp(frame, &to_cell, SIDE, &mut input)?;
    let input = picture(input);
    let mesh = MeshWarp::new(&fit, fiducials, SIDE);
    let cells = [
        input.clone(),
        with_points(input.clone(), fiducials, &to_cell),
        with_mesh(input, &mesh, &to_cell),
        picture(frontal),
    ];
    let mut pixels = RgbImage::new(4 * SIDE as u32, SIDE as u32);
    for (i, cell) in cells.iter().enumerate() {
        image::imageops::replace(&mut pixels, cell, (i * SIDE) as i64, 0);
    }
    Ok(Strip { pose: fit.camera.pose(), residual_px: fit.residual_px, pixels })
}

/// Puts strips below and beside each other, `across` in a row, in the order given.
#[must_use]
pub fn sheet(strips: &[Strip], across: u32) -> RgbImage {
    let (width, height) = (4 * SIDE as u32 + GAP, SIDE as u32 + GAP);
    let rows = (strips.len() as u32).div_ceil(across);
    let mut all = RgbImage::from_pixel(width * across - GAP, (height * rows).saturating_sub(GAP), PAPER);
    for (strip, i) in strips.iter().zip(0..) {
        let (x, y) = (i % across * width, i / across * height);
        image::imageops::replace(&mut all, &strip.pixels, i64::from(x), i64::from(y));
    }
    all
}

/// The upright chip shrunk, so that the whole head is seen.
fn with_margin(to_chip: &SimilarityTransform) -> SimilarityTransform {
    let chip = 112.0;
    let scale = SIDE as f32 / (chip * 1.6);
    let at = |v: f32, shift: f32| (v + shift) * scale;
    SimilarityTransform {
        a: to_chip.a * scale,
        b: to_chip.b * scale,
        tx: at(to_chip.tx, chip * 0.3),
        ty: at(to_chip.ty, chip * 0.25),
    }
}

fn with_points(mut cell: RgbImage, fiducials: &Fiducials68, to_cell: &SimilarityTransform) -> RgbImage {
    for (point, visibility) in fiducials.points.iter().zip(fiducials.visibility) {
        let at = to_cell.apply(*point);
        let colour = between(HIDDEN, SEEN, visibility);
        for (dx, dy) in [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)] {
            dot(&mut cell, Point::new(at.x + dx, at.y + dy), colour);
        }
    }
    cell
}

fn with_mesh(mut cell: RgbImage, mesh: &MeshWarp, to_cell: &SimilarityTransform) -> RgbImage {
    for corners in shape::triangles() {
        let corners = corners.map(usize::from);
        let colour = between(HIDDEN, SEEN, corners.iter().map(|&i| mesh.own[i]).sum::<f32>() / 3.0);
        let [a, b, c] = corners.map(|i| to_cell.apply(mesh.source[i]));
        for (from, to) in [(a, b), (b, c), (c, a)] {
            line(&mut cell, from, to, colour);
        }
    }
    cell
}

fn line(cell: &mut RgbImage, from: Point, to: Point, colour: Rgb<u8>) {
    let steps = (from.distance_px(to).ceil() as usize).clamp(1, 4 * SIDE);
    for step in 0..=steps {
        let t = step as f32 / steps as f32;
        dot(cell, Point::new(from.x + (to.x - from.x) * t, from.y + (to.y - from.y) * t), colour);
    }
}

fn dot(cell: &mut RgbImage, at: Point, colour: Rgb<u8>) {
    let (x, y) = (at.x.round(), at.y.round());
    if x >= 0.0 && y >= 0.0 && x < cell.width() as f32 && y < cell.height() as f32 {
        cell.put_pixel(x as u32, y as u32, colour);
    }
}

fn between(from: Rgb<u8>, to: Rgb<u8>, share: f32) -> Rgb<u8> {
    Rgb(std::array::from_fn(|k| {
        let (a, b) = (f32::from(from.0[k]), f32::from(to.0[k]));
        (a + (b - a) * share.clamp(0.0, 1.0)).round() as u8
    }))
}

fn picture(pixels: Vec<u8>) -> RgbImage {
    // Never empty: the buffer was made for this size.
    RgbImage::from_raw(SIDE as u32, SIDE as u32, pixels).unwrap_or_default()
}

const SIDE: usize = FRONTAL_PX;
const GAP: u32 = 8;
const PAPER: Rgb<u8> = Rgb([32, 32, 32]);
const SEEN: Rgb<u8> = Rgb([60, 235, 110]);
const HIDDEN: Rgb<u8> = Rgb([235, 60, 60]);

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch_shared::align::five::from_five;

    #[test]
    fn a_strip_shows_the_four_pictures() {
        let pixels = vec![90_u8; 240 * 200 * 3];
        let frame = RgbView::new(&pixels, 240, 200).unwrap();
        let landmarks =
            Landmarks5(facelatch_shared::align::CANONICAL_112.0.map(|p| Point::new(p.x + 60.0, p.y + 40.0)));
        let drawn = strip(&frame, &landmarks, &from_five(&landmarks).unwrap()).unwrap();
        assert!(drawn.pose.yaw_deg.abs() < 10.0 && drawn.residual_px < 6.0);
        let count = |cell: u32, colour: Rgb<u8>| {
            let side = SIDE as u32;
            (cell * side..(cell + 1) * side)
                .flat_map(|x| (0..side).map(move |y| (x, y)))
                .filter(|&(x, y)| *drawn.pixels.get_pixel(x, y) == colour)
                .count()
        };
        let half = between(HIDDEN, SEEN, 0.5);
        assert_eq!((count(0, half), count(0, SEEN)), (0, 0));
        assert!(count(1, half) > 100, "guessed points are half trusted");
        assert!(count(2, SEEN) > 1000, "a frontal mesh is seen");
        assert!(count(3, Rgb([90; 3])) > SIDE * SIDE * 9 / 10);
        let sheet = sheet(&[drawn], 2);
        assert_eq!((sheet.width(), sheet.height()), (8 * SIDE as u32 + GAP, SIDE as u32));
    }
}
