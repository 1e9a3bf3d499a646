//! The 2D step of DeepFace (Taigman et al. 2014, section 2, "2D alignment"): six fiducials onto six anchors by scale, rotation and
//! shift, and again on the warped picture until nothing moves any more, because a detector finds them better where the face is upright
//! and of the usual size. The warps are composed into one, so that the frame is resampled only once.

use super::AlignError;
use super::CHIP_PX;
use super::fiducials::Fiducials6;
use super::similarity::{SimilarityTransform, mostly_inside, right_size, warp};
use crate::detection::Point;
use crate::frame::RgbView;

/// Where the six fiducials lie on the 112 px chip: [`CANONICAL_112`](super::CANONICAL_112) and the middle of its mouth.
pub const ANCHORS_112: [Point; 6] = {
    let [left_eye, right_eye, nose, left, right] = super::CANONICAL_112.0;
    let mouth = Point::new((left.x + right.x) * 0.5, (left.y + right.y) * 0.5);
    [left_eye, right_eye, nose, left, right, mouth]
};

/// The anchors on a chip of `side_px`.
#[must_use]
pub fn anchors(side_px: usize) -> [Point; 6] {
    let scale = side_px as f32 / CHIP_PX as f32;
    ANCHORS_112.map(|p| Point::new((p.x + 0.5) * scale - 0.5, (p.y + 0.5) * scale - 0.5))
}

/// Where the anchors lie on the working picture of [`converge`].
#[must_use]
pub fn work_anchors(side_px: usize, work_px: usize) -> Fiducials6 {
    let still = SimilarityTransform { a: 1.0, b: 0.0, tx: 0.0, ty: 0.0 };
    let to_work = with_border(&still, side_px, work_px);
    Fiducials6(anchors(side_px).map(|p| to_work.apply(p)))
}

/// What the iteration came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Converged {
    /// From the frame to the chip.
    pub to_chip: SimilarityTransform,
    /// Times the fiducials were sought again.
    pub rounds: usize,
    /// How far the last round moved the anchors, in pixels of the 112 px chip.
    pub moved_px: f32,
}

/// One warp, no iteration: the transform that brings `six`, in frame pixels, nearest to the anchors of a chip of `side_px`.
///
/// # Errors
/// As [`SimilarityTransform::fit_points`].
pub fn single_shot(six: &Fiducials6, side_px: usize) -> Result<SimilarityTransform, AlignError> {
    SimilarityTransform::fit_points(&six.0, &anchors(side_px))
}

/// Warps, lets `detect` find the six on the warped picture, and goes on until the anchors move by less than [`SETTLED_PX`] or
/// [`MAX_ROUNDS`] are over. `work`, packed RGB `[work_px, work_px, 3]`, receives the picture that `detect` sees: the chip with a border
/// of a quarter of its side all round. `detect` returns pixels of that picture.
///
/// # Errors
/// Those of `detect`; [`AlignError::Buffer`] when `work` has another length, [`AlignError::Outside`] when most of the first six lie
/// outside the frame, otherwise as [`single_shot`].
pub fn converge<E: From<AlignError>>(
    frame: &RgbView<'_>,
    first: &Fiducials6,
    side_px: usize,
    work_px: usize,
    work: &mut [u8],
    mut detect: impl FnMut(&RgbView<'_>) -> Result<Fiducials6, E>,
) -> Result<Converged, E> {
    right_size(work, work_px)?;
    let mut six = *first;
    // Errors of the first six are errors of the caller's; later ones too, as the detector has lost the face.
    let mut to_chip = single_shot(&six, side_px)?;
    mostly_inside(frame, &six.0)?;
    let mut moved_px = 0.0;
    for rounds in 1..=MAX_ROUNDS {
        let to_work = with_border(&to_chip, side_px, work_px);
        warp(frame, &to_work, work_px, work)?;
        // A square of bytes that was just checked.
        let Ok(view) = RgbView::new(work, work_px, work_px) else {
            return Err(AlignError::Buffer { expected: work_px * work_px * 3, actual: work.len() }.into());
        };
        let found = detect(&view)?;
        let back = to_work.inverse();
        six = Fiducials6(found.0.map(|p| back.apply(p)));
        let next = single_shot(&six, side_px)?;
        moved_px = moved(&to_chip, &next, side_px);
        to_chip = next;
        if moved_px < SETTLED_PX {
            return Ok(Converged { to_chip, rounds, moved_px });
        }
    }
    Ok(Converged { to_chip, rounds: MAX_ROUNDS, moved_px })
}

/// The working picture's transform: the chip's, with a border of a quarter of its side all round.
fn with_border(to_chip: &SimilarityTransform, side_px: usize, work_px: usize) -> SimilarityTransform {
    let side = side_px as f32;
    let (scale, shift) = (work_px as f32 / (side * 1.5), side * 0.25);
    let at = |v: f32| (v + shift + 0.5) * scale - 0.5;
    SimilarityTransform { a: to_chip.a * scale, b: to_chip.b * scale, tx: at(to_chip.tx), ty: at(to_chip.ty) }
}

/// The farthest that an anchor goes when `next` takes the place of `previous`, in pixels of the 112 px chip.
fn moved(previous: &SimilarityTransform, next: &SimilarityTransform, side_px: usize) -> f32 {
    let back = previous.inverse();
    let away = anchors(side_px).map(|p| next.apply(back.apply(p)).distance_px(p));
    away.into_iter().fold(0.0, f32::max) * CHIP_PX as f32 / side_px as f32
}

/// "No substantial change": a quarter of a pixel of the 112 px chip.
pub const SETTLED_PX: f32 = 0.25;
/// Rounds after which the last answer stands; most faces settle in two.
pub const MAX_ROUNDS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame_of(picture: &[u8]) -> RgbView<'_> {
        RgbView::new(picture, 64, 64).unwrap()
    }

    proptest! {
        #[test]
        fn any_similarity_is_undone_at_any_side(
            angle in -3.1_f32..3.1, scale in 0.2_f32..8.0, tx in -300.0_f32..300.0, ty in -300.0_f32..300.0, side in 32_usize..200,
        ) {
            let moved = SimilarityTransform { a: scale * angle.cos(), b: scale * angle.sin(), tx, ty };
            let seen = Fiducials6(anchors(side).map(|p| moved.apply(p)));
            let fitted = single_shot(&seen, side).unwrap();
            for (p, q) in seen.0.iter().zip(anchors(side)) {
                prop_assert!(fitted.apply(*p).distance_px(q) < 0.02);
            }
        }

        /// A detector that errs in proportion to how far from upright and usual size the face is, as real ones do.
        #[test]
        fn iteration_corrects_a_first_guess_that_is_off(
            angle in -0.5_f32..0.5, scale in 0.25_f32..0.5, dx in -4.0_f32..4.0, dy in -4.0_f32..4.0,
        ) {
            let truth = SimilarityTransform { a: scale * angle.cos(), b: scale * angle.sin(), tx: 8.0, ty: 6.0 };
            let face = anchors(CHIP_PX).map(|p| truth.apply(p));
            let first = Fiducials6(face.map(|p| Point::new(p.x + dx * scale, p.y + dy * scale)));
            let picture = std::vec![90_u8; 64 * 64 * 3];
            let mut work = std::vec![0_u8; 96 * 96 * 3];
            let mut seen = std::vec::Vec::new();
            // Where the face is on the working picture follows from the transform so far, which the test repeats.
            let mut so_far = single_shot(&first, CHIP_PX).unwrap();
            let result = converge::<AlignError>(&frame_of(&picture), &first, CHIP_PX, 96, &mut work, |view| {
                assert_eq!((view.width_px(), view.height_px()), (96, 96));
                let to_work = with_border(&so_far, CHIP_PX, 96);
                let ideal = with_border(&SimilarityTransform { a: 1.0, b: 0.0, tx: 0.0, ty: 0.0 }, CHIP_PX, 96);
                let found = Fiducials6(core::array::from_fn(|i| {
                    let (here, usual) = (to_work.apply(face[i]), ideal.apply(anchors(CHIP_PX)[i]));
                    Point::new(here.x + 0.2 * (usual.x - here.x), here.y + 0.2 * (usual.y - here.y))
                }));
                let back = to_work.inverse();
                so_far = single_shot(&Fiducials6(found.0.map(|p| back.apply(p))), CHIP_PX).unwrap();
                seen.push(so_far);
                Ok(found)
            })
            .unwrap();
            prop_assert_eq!(result.rounds, seen.len());
            for (p, q) in face.iter().zip(anchors(CHIP_PX)) {
                prop_assert!(result.to_chip.apply(*p).distance_px(q) < 0.5, "{:?}", result);
            }
        }
    }

    #[test]
    fn a_detector_that_agrees_ends_it_at_once() {
        let picture = std::vec![90_u8; 64 * 64 * 3];
        let mut work = std::vec![0_u8; 96 * 96 * 3];
        let first = Fiducials6(anchors(60));
        let to_work = with_border(&single_shot(&first, 112).unwrap(), 112, 96);
        let found = Fiducials6(first.0.map(|p| to_work.apply(p)));
        let result =
            converge::<AlignError>(&frame_of(&picture), &first, 112, 96, &mut work, |_| Ok(found)).unwrap();
        assert_eq!(result.rounds, 1);
        assert!(result.moved_px < 0.01);
    }

    #[test]
    fn faults_have_names() {
        let picture = std::vec![90_u8; 64 * 64 * 3];
        let mut work = std::vec![0_u8; 96 * 96 * 3];
        let mut run = |six: Fiducials6, found: Fiducials6| {
            converge::<AlignError>(&frame_of(&picture), &six, 112, 96, &mut work, |_| Ok(found)).map(|_| ())
        };
        let good = Fiducials6(anchors(60));
        let line = Fiducials6(core::array::from_fn(|i| Point::new(i as f32, 2.0 * i as f32)));
        let far = Fiducials6(good.0.map(|p| Point::new(p.x + 500.0, p.y)));
        let nan = Fiducials6([Point::new(f32::NAN, 0.0); 6]);
        assert_eq!(run(line, good), Err(AlignError::Collinear));
        assert_eq!(run(far, good), Err(AlignError::Outside));
        assert_eq!(run(nan, good), Err(AlignError::NotFinite));
        assert_eq!(run(good, nan), Err(AlignError::NotFinite));
        assert_eq!(run(good, Fiducials6([Point::default(); 6])), Err(AlignError::Coincident));
        let short = converge::<AlignError>(&frame_of(&picture), &good, 112, 96, &mut [0; 5], |_| Ok(good));
        assert_eq!(short, Err(AlignError::Buffer { expected: 27_648, actual: 5 }));
    }
}
