//! The 68 fiducials of a detected face, by a small net on a crop round it.
//!
//! The crop is a similarity of the detector's five landmarks, as the chip is, but wider: it reaches from above the brows to below
//! the chin. Where the camera's picture is much larger than the crop, it is cut at twice the size and averaged, so that nothing
//! between two samples is lost.

use std::path::Path;

use super::chip::FindFiducials;
use super::contract::{InputContract, ManifestEntry};
use super::error::VisionError;
use super::runtime::{Network, values};
use crate::align::fiducials::{FIDUCIALS, Fiducials68};
use crate::align::{CANONICAL_112, SimilarityTransform, similarity};
use crate::detection::{Landmarks5, Point};
use crate::frame::RgbView;

/// Side of the crop that the net reads.
pub const CROP_PX: usize = 96;

/// Pixels of the canonical 112 px chip that one pixel of the crop covers.
pub const CROP_SCALE: f32 = 1.25;

/// Where the middle of the crop lies on the canonical chip: below its middle, because the contour reaches farther down than the
/// brows reach up.
pub const CROP_CENTRE_CHIP: Point = Point::new(55.5, 69.0);

/// Numbers a point: x and y from −1 to 1 over the centres of the crop's first and last pixel, logit of the visibility, natural
/// logarithm of the spread in the same unit.
const NUMBERS: usize = 4;

/// What was found on one face.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// The points in frame pixels, with their visibilities.
    pub fiducials: Fiducials68,
    /// How far each point is expected to be off, in frame pixels.
    pub spread_px: [f32; FIDUCIALS],
}

/// A loaded net.
#[derive(Debug)]
pub struct FiducialFinder {
    network: Network,
    contract: InputContract,
    /// Packed RGB at twice the crop's side.
    crop: Vec<u8>,
}

impl FiducialFinder {
    /// Loads the net.
    ///
    /// # Errors
    /// [`VisionError`] naming the file; [`VisionError::Shape`] when it does not give four numbers for each of 68 points.
    pub fn load(dir: &Path, entry: &ManifestEntry) -> Result<Self, VisionError> {
        let network = Network::load(dir, entry, CROP_PX, CROP_PX)?;
        let wanted = FIDUCIALS * NUMBERS;
        let shapes: Vec<Vec<usize>> = network.outputs().map(|(_, shape)| shape.to_vec()).collect();
        if shapes.len() != 1 || shapes[0].iter().product::<usize>() != wanted {
            return Err(
                network.shape_error(format!("its outputs are {shapes:?} instead of {wanted} numbers"))
            );
        }
        Ok(Self { network, contract: entry.contract, crop: vec![0; 4 * CROP_PX * CROP_PX * 3] })
    }

    /// The fiducials of the face at `landmarks`.
    ///
    /// # Errors
    /// [`VisionError::Align`] when the landmarks admit no crop, [`VisionError::Model`] when the net fails, and
    /// [`VisionError::Shape`] when it gives numbers that are not finite.
    pub fn find(&mut self, frame: &RgbView<'_>, landmarks: &Landmarks5) -> Result<Found, VisionError> {
        let to_crop = SimilarityTransform::fit(landmarks, &canonical(1.0))?;
        let shrinks = to_crop.a.hypot(to_crop.b) < SHRINKS;
        let planes = self.network.input_mut()?;
        if shrinks {
            let to_double = SimilarityTransform::fit(landmarks, &canonical(2.0))?;
            similarity::warp(frame, &to_double, 2 * CROP_PX, &mut self.crop)?;
            fill(planes, &self.contract, |x, y, channel| {
                let at = |dx: usize, dy: usize| {
                    f32::from(self.crop[((2 * y + dy) * 2 * CROP_PX + 2 * x + dx) * 3 + channel])
                };
                (at(0, 0) + at(1, 0) + at(0, 1) + at(1, 1)) * 0.25
            });
        } else {
            let crop = &mut self.crop[..CROP_PX * CROP_PX * 3];
            similarity::warp(frame, &to_crop, CROP_PX, crop)?;
            fill(planes, &self.contract, |x, y, channel| f32::from(crop[(y * CROP_PX + x) * 3 + channel]));
        }
        let outputs = self.network.run()?;
        let numbers = values(&outputs[0]);
        if !numbers.iter().all(|v| v.is_finite()) {
            return Err(self.network.shape_error("it gave numbers that are not finite".into()));
        }
        Ok(decode(numbers, &to_crop.inverse()))
    }
}

/// Below this scale from frame to crop, samples one crop pixel apart would leave out pixels of the frame.
const SHRINKS: f32 = 0.75;

/// Where the five landmarks lie on a crop of `factor` times the side.
fn canonical(factor: f32) -> Landmarks5 {
    let middle = (CROP_PX as f32 * factor - 1.0) / 2.0;
    Landmarks5(CANONICAL_112.0.map(|p| {
        Point::new(
            (p.x - CROP_CENTRE_CHIP.x) / CROP_SCALE * factor + middle,
            (p.y - CROP_CENTRE_CHIP.y) / CROP_SCALE * factor + middle,
        )
    }))
}

/// Writes `[3, 96, 96]`, normalised; `pixel(x, y, channel)` counts channels as RGB.
fn fill(planes: &mut [f32], contract: &InputContract, pixel: impl Fn(usize, usize, usize) -> f32) {
    for (plane, values) in planes.chunks_exact_mut(CROP_PX * CROP_PX).enumerate() {
        let channel = contract.channels.rgb_index(plane);
        let (mean, scale) = (contract.mean[plane], contract.scale[plane]);
        for (i, value) in values.iter_mut().enumerate() {
            *value = (pixel(i % CROP_PX, i / CROP_PX, channel) - mean) * scale;
        }
    }
}

/// Brings `[68, 4]` numbers back to the frame.
fn decode(numbers: &[f32], back: &SimilarityTransform) -> Found {
    let half = (CROP_PX - 1) as f32 / 2.0;
    let scale = back.a.hypot(back.b);
    let (mut points, mut visibility) = ([Point::default(); FIDUCIALS], [0.0; FIDUCIALS]);
    let mut spread_px = [0.0; FIDUCIALS];
    for (k, row) in numbers.as_chunks::<NUMBERS>().0.iter().enumerate().take(FIDUCIALS) {
        let [x, y, logit, spread] = *row;
        points[k] = back.apply(Point::new(x * half + half, y * half + half));
        visibility[k] = 1.0 / (1.0 + (-logit).exp());
        spread_px[k] = spread.clamp(-8.0, 2.0).exp() * half * scale;
    }
    Found { fiducials: Fiducials68 { points, visibility }, spread_px }
}

impl FindFiducials for FiducialFinder {
    fn find_fiducials(
        &mut self,
        frame: &RgbView<'_>,
        landmarks: &Landmarks5,
    ) -> Result<Fiducials68, VisionError> {
        Ok(self.find(frame, landmarks)?.fiducials)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    fn numbers() -> Vec<f32> {
        (0..FIDUCIALS)
            .flat_map(|k| [k as f32 / 67.0 - 0.5, 0.25, if k < 17 { -9.0 } else { 9.0 }, -3.0])
            .collect()
    }

    fn finder(numbers: &[f32]) -> Result<FiducialFinder, VisionError> {
        let dir = tempfile::tempdir().unwrap();
        let bytes = testing::constant(numbers);
        let entry = testing::fiducials_entry("points", &bytes);
        testing::write_models(dir.path(), &[(entry.clone(), bytes)]);
        FiducialFinder::load(dir.path(), &entry)
    }

    #[test]
    fn points_come_back_to_the_frame_wherever_the_face_is() {
        let mut finder = finder(&numbers()).unwrap();
        let pixels = vec![90; 320 * 240 * 3];
        let frame = RgbView::new(&pixels, 320, 240).unwrap();
        for (size, x, y) in [(1.0, 80.0, 40.0), (0.5, 200.0, 100.0), (2.0, 30.0, 10.0)] {
            let face = Landmarks5(CANONICAL_112.0.map(|p| Point::new(p.x * size + x, p.y * size + y)));
            let found = finder.find(&frame, &face).unwrap();
            found.fiducials.check().unwrap();
            // The middle of the crop is where its centre lies on the chip, and 0.25 below the middle is 11.875 crop pixels.
            let [first, last] = [found.fiducials.points[0], found.fiducials.points[67]];
            let expected_y = (CROP_CENTRE_CHIP.y + 0.25 * 47.5 * CROP_SCALE) * size + y;
            assert!((first.y - expected_y).abs() < 0.01 && (last.y - expected_y).abs() < 0.01);
            assert!((last.x - first.x - 47.5 * CROP_SCALE * size).abs() < 0.01);
            assert!((first.x + last.x) / 2.0 - (CROP_CENTRE_CHIP.x * size + x) < 0.01);
            let spread = (-3.0_f32).exp() * 47.5 * CROP_SCALE * size;
            assert!((found.spread_px[5] - spread).abs() < 0.01);
            assert!(found.fiducials.visibility[3] < 0.01 && found.fiducials.visibility[40] > 0.99);
        }
    }

    #[test]
    fn another_net_and_numbers_that_are_not_finite_are_refused() {
        let said = finder(&numbers()[..100]).unwrap_err().to_string();
        assert!(said.contains("points.onnx") && said.contains("272"), "{said}");
        let mut broken = numbers();
        broken[9] = f32::NAN;
        assert!(matches!(finder(&broken), Err(VisionError::Unfit { .. })));
        let mut finder = finder(&numbers()).unwrap();
        let pixels = vec![90; 112 * 112 * 3];
        let frame = RgbView::new(&pixels, 112, 112).unwrap();
        let point = Landmarks5([Point::new(3.0, 3.0); 5]);
        assert!(matches!(finder.find(&frame, &point), Err(VisionError::Align(_))));
    }

    #[test]
    fn the_crop_reaches_from_the_brows_to_the_chin() {
        let [eyes, .., mouth] = canonical(1.0).0;
        assert!(eyes.y > 25.0 && eyes.y < 45.0 && mouth.y > 60.0 && mouth.y < 75.0);
        assert!((canonical(1.0).0[0].x + canonical(1.0).0[1].x) / 2.0 - 47.5 < 1.0);
    }
}
