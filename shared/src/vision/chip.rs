//! The chip that an embedder reads, cut as its input contract says: one code for door, evaluator and trainer.

use super::contract::{Alignment, AlignmentMethod};
use super::error::VisionError;
use crate::align::frontalize::frontalize;
use crate::align::similarity::{mostly_inside, upright, warp};
use crate::align::warp2d::{self, converge};
use crate::align::{CHIP_BYTES, CHIP_PX, Fiducials6, Fiducials68, five, warp_chip};
use crate::detection::Landmarks5;
use crate::frame::RgbView;

/// Finds the 68 fiducials of a detected face.
pub trait FindFiducials {
    /// The fiducials, in pixels of `frame`, of the face whose five landmarks a detector found at `landmarks`.
    ///
    /// # Errors
    /// When the landmarks admit no crop or the network fails.
    fn find_fiducials(
        &mut self,
        frame: &RgbView<'_>,
        landmarks: &Landmarks5,
    ) -> Result<Fiducials68, VisionError>;
}

/// Cuts chips by one alignment; keeps the buffer that this needs.
pub struct ChipCutter {
    alignment: Alignment,
    work: Vec<u8>,
}

impl ChipCutter {
    /// A cutter for `alignment`.
    #[must_use]
    pub fn new(alignment: Alignment) -> Self {
        let iterates = alignment.method == AlignmentMethod::Warp2d;
        Self { alignment, work: if iterates { vec![0; WORK_PX * WORK_PX * 3] } else { Vec::new() } }
    }

    /// The alignment.
    #[must_use]
    pub const fn alignment(&self) -> Alignment {
        self.alignment
    }

    /// Cuts the chip, packed RGB `[112, 112, 3]`, of the face at `landmarks`. What the alignment needs beyond them comes from `finder`;
    /// without one, `warp2d` warps once by the five landmarks and `frontal3d` takes the likeliest face for them ([`five`]).
    ///
    /// # Errors
    /// [`VisionError::Align`] when the landmarks or the fiducials admit no chip, otherwise those of `finder`.
    pub fn cut(
        &mut self,
        frame: &RgbView<'_>,
        landmarks: &Landmarks5,
        finder: Option<&mut dyn FindFiducials>,
        chip: &mut [u8; CHIP_BYTES],
    ) -> Result<(), VisionError> {
        match (self.alignment.method, finder) {
            (AlignmentMethod::None, _) => {
                let to_chip = upright(landmarks)?;
                mostly_inside(frame, &landmarks.0)?;
                warp(frame, &to_chip, CHIP_PX, chip)?;
            }
            (AlignmentMethod::Similarity, _) => warp_chip(frame, landmarks, chip)?,
            (AlignmentMethod::Warp2d, None) => {
                let to_chip = warp2d::single_shot(&Fiducials6::from(landmarks), CHIP_PX)?;
                mostly_inside(frame, &landmarks.0)?;
                warp(frame, &to_chip, CHIP_PX, chip)?;
            }
            (AlignmentMethod::Warp2d, Some(finder)) => {
                let first = Fiducials6::from(&finder.find_fiducials(frame, landmarks)?);
                // On the working picture the face lies where the anchors are, as far as is known by then.
                let expected = warp2d::work_anchors(CHIP_PX, WORK_PX).five();
                let again = |view: &RgbView<'_>| -> Result<Fiducials6, VisionError> {
                    Ok(Fiducials6::from(&finder.find_fiducials(view, &expected)?))
                };
                let found = converge(frame, &first, CHIP_PX, WORK_PX, &mut self.work, again)?;
                warp(frame, &found.to_chip, CHIP_PX, chip)?;
            }
            (AlignmentMethod::Frontal3d, finder) => {
                let fiducials = match finder {
                    Some(finder) => finder.find_fiducials(frame, landmarks)?,
                    None => five::from_five(landmarks)?,
                };
                frontalize(frame, &fiducials, CHIP_PX, chip)?;
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for ChipCutter {
    // Sizes only: pixels of people never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChipCutter").field("alignment", &self.alignment).finish_non_exhaustive()
    }
}

/// Side of the picture on which `warp2d` seeks the fiducials again: the chip's scale with its border.
const WORK_PX: usize = 168;

#[cfg(test)]
mod tests {
    use super::super::contract::Canonical;
    use super::*;
    use crate::align::{AlignError, CANONICAL_112, shape};
    use crate::detection::Point;

    /// Sees the generic face, turned by half a radian, wherever the landmarks say it is.
    struct Turned {
        calls: usize,
    }

    fn turned(landmarks: &Landmarks5) -> Fiducials68 {
        let place = crate::align::SimilarityTransform::fit(&CANONICAL_112, landmarks).unwrap();
        let (s, c) = 0.5_f32.sin_cos();
        Fiducials68::all_visible(std::array::from_fn(|i| {
            let [x, y, z] = shape::positions()[i];
            place.apply(Point::new(shape::MIDLINE_PX + c * x - s * z, y))
        }))
    }

    impl FindFiducials for Turned {
        fn find_fiducials(
            &mut self,
            _: &RgbView<'_>,
            landmarks: &Landmarks5,
        ) -> Result<Fiducials68, VisionError> {
            self.calls += 1;
            Ok(turned(landmarks))
        }
    }

    fn picture() -> Vec<u8> {
        (0..300 * 260).flat_map(|i| [(i % 300 * 3 / 4) as u8, (i / 300 * 3 / 4) as u8, 128]).collect()
    }

    fn chip(method: AlignmentMethod, roll: f32, finder: Option<&mut dyn FindFiducials>) -> Vec<u8> {
        let pixels = picture();
        let (s, c) = roll.sin_cos();
        let landmarks = Landmarks5(CANONICAL_112.0.map(|p| {
            let (x, y) = (p.x - 56.0, p.y - 72.0);
            Point::new(150.0 + c * x - s * y, 130.0 + s * x + c * y)
        }));
        let mut chip = Box::new([0; CHIP_BYTES]);
        let mut cutter = ChipCutter::new(Alignment { method, canonical: Canonical::Arcface112 });
        cutter.cut(&RgbView::new(&pixels, 300, 260).unwrap(), &landmarks, finder, &mut chip).unwrap();
        chip.to_vec()
    }

    fn difference(a: &[u8], b: &[u8]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
    }

    #[test]
    fn methods_differ_where_they_should() {
        use AlignmentMethod::{Frontal3d, None as Unaligned, Similarity, Warp2d};
        // Upright canonical landmarks: nothing to do for any of the plane's warps.
        let upright = chip(Similarity, 0.0, None);
        assert!(difference(&chip(Unaligned, 0.0, None), &upright) < 0.5);
        assert!(difference(&chip(Warp2d, 0.0, None), &upright) < 1.0);
        assert!(difference(&chip(Frontal3d, 0.0, None), &upright) < 4.0);
        // A tilted head stays tilted without alignment.
        assert!(difference(&chip(Unaligned, 0.5, None), &chip(Similarity, 0.5, None)) > 5.0);
        assert!(difference(&chip(Unaligned, 0.5, None), &upright) < 0.5);
        // A turned one is turned back by the 3D step alone.
        let (mut plane, mut space) = (Turned { calls: 0 }, Turned { calls: 0 });
        let flat = chip(Warp2d, 0.0, Some(&mut plane));
        assert!(plane.calls >= 2, "it looks again on the warped picture");
        let frontal = chip(Frontal3d, 0.0, Some(&mut space));
        assert_eq!(space.calls, 1);
        assert!(difference(&frontal, &flat) > 3.0);
    }

    #[test]
    fn landmarks_that_form_no_face_are_an_error_in_every_method() {
        let pixels = picture();
        let frame = RgbView::new(&pixels, 300, 260).unwrap();
        let mut chip = Box::new([0; CHIP_BYTES]);
        let faults = [
            (Landmarks5([Point::new(50.0, 50.0); 5]), AlignError::Coincident),
            (Landmarks5([Point::new(f32::NAN, 50.0); 5]), AlignError::NotFinite),
            (
                Landmarks5(std::array::from_fn(|i| Point::new(40.0 * i as f32, 40.0 * i as f32))),
                AlignError::Collinear,
            ),
            (Landmarks5(CANONICAL_112.0.map(|p| Point::new(p.x + 4000.0, p.y))), AlignError::Outside),
        ];
        for method in AlignmentMethod::ALL {
            let mut cutter = ChipCutter::new(Alignment { method, canonical: Canonical::Arcface112 });
            for (landmarks, expected) in &faults {
                let said = cutter.cut(&frame, landmarks, None, &mut chip);
                assert!(
                    matches!(&said, Err(VisionError::Align(e)) if e == expected),
                    "{method:?} {expected:?}: {said:?}"
                );
            }
        }
    }
}
