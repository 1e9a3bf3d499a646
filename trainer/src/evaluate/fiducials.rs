//! How far a fiducials net's points are from labels: normalised mean error, cumulative error curve, parts of the face, head pose.
//!
//! Errors are distances over the distance of the label's outer eye corners (points 36 and 45), as 300-W has it (Sagonas et al. 2013). That
//! distance shrinks when a head turns away, so that errors of turned heads look larger than they are on the picture.

use std::ops::Range;

use facelatch_shared::align::Fiducials68;
use facelatch_shared::align::camera;
use facelatch_shared::align::fiducials::FIDUCIALS;
use facelatch_shared::detection::Point;

/// One face: what the label says and what was found, in pixels of one picture. The label's visibilities are 0 or 1.
#[derive(Debug, Clone)]
pub struct Face {
    /// The label.
    pub truth: Fiducials68,
    /// Points whose label counts.
    pub known: [bool; FIDUCIALS],
    /// What was found.
    pub found: Fiducials68,
    /// How far each point was said to be off, in pixels.
    pub spread_px: [f32; FIDUCIALS],
    /// Whether the face wears a mask.
    pub masked: bool,
}

/// Errors of some faces, as shares of the distance of the outer eye corners.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Errors {
    /// The mean over each face's points, smallest first.
    pub sorted: Vec<f64>,
}

impl Errors {
    /// Of faces in any order.
    #[must_use]
    pub fn of(faces: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = faces.collect();
        sorted.sort_by(f64::total_cmp);
        Self { sorted }
    }

    /// Number of faces.
    #[must_use]
    pub fn faces(&self) -> usize {
        self.sorted.len()
    }

    /// Normalised mean error; 0 without faces, as all figures here.
    #[must_use]
    pub fn nme(&self) -> f64 {
        // An empty sum would be a negative zero.
        self.sorted.iter().fold(0.0, |sum, e| sum + e) / self.count()
    }

    /// The error that the share `share` (0–1) of the faces does not exceed.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        let last = self.sorted.len().saturating_sub(1) as f64;
        self.sorted.get((last * share).round() as usize).copied().unwrap_or(0.0)
    }

    /// Share of the faces whose error is at most `limit`: the cumulative error curve.
    #[must_use]
    pub fn within(&self, limit: f64) -> f64 {
        self.sorted.partition_point(|&e| e <= limit) as f64 / self.count()
    }

    /// Area under the cumulative error curve from 0 to [`FAILED`], over that width. Exact: each face adds what lies right of its error.
    #[must_use]
    pub fn area(&self) -> f64 {
        self.sorted.iter().map(|e| 1.0 - (e / FAILED).min(1.0)).sum::<f64>() / self.count()
    }

    fn count(&self) -> f64 {
        self.sorted.len().max(1) as f64
    }
}

/// Figures over all faces.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// All points of all faces.
    pub all: Errors,
    /// By part of the face, as [`PARTS`].
    pub parts: [Errors; PARTS.len()],
    /// DeepFace's six points.
    pub six: Errors,
    /// By turn of the head, as [`YAW_DEG`].
    pub turned: [Errors; YAW_DEG.len()],
    /// Faces with a mask.
    pub masked: Errors,
    /// Share of points in plain sight that the net says are seen, and of hidden ones that it says are hidden.
    pub seen_right: f64,
    /// See `seen_right`.
    pub hidden_right: f64,
    /// Mean of the spreads that the net gives over the mean of what its points are off.
    pub spread_over_error: f64,
    /// Mean difference of the head's yaw by the net's points from that by the label's, in degrees.
    pub yaw_off_deg: f64,
}

/// Parts of the face among the 68 points.
pub const PARTS: [(&str, Range<usize>); 5] =
    [("eyes", 36..48), ("brows", 17..27), ("nose", 27..36), ("mouth", 48..68), ("contour", 0..17)];

/// Bins of the head's turn to either side, in degrees.
pub const YAW_DEG: [Range<f32>; 4] = [0.0..15.0, 15.0..30.0, 30.0..45.0, 45.0..91.0];

/// A face this far off counts as failed, as in 300-W's comparisons.
pub const FAILED: f64 = 0.08;

/// Measures `faces`; one whose label admits no camera has no place among the bins of turn.
#[must_use]
pub fn measure(faces: &[Face]) -> Report {
    let errors: Vec<[Option<f64>; FIDUCIALS]> = faces.iter().map(point_errors).collect();
    let over = |points: &Range<usize>| Errors::of(errors.iter().filter_map(|e| mean(&e[points.clone()])));
    let yaw = |points: &Fiducials68| Some(camera::fit(points).ok()?.camera.pose().yaw_deg);
    let yaws: Vec<Option<f32>> =
        faces.iter().map(|face| yaw(&Fiducials68::all_visible(face.truth.points))).collect();
    let turned = YAW_DEG.map(|bin| {
        let in_bin = |yaw: &Option<f32>| yaw.is_some_and(|yaw| bin.contains(&yaw.abs()));
        Errors::of(errors.iter().zip(&yaws).filter(|(_, yaw)| in_bin(yaw)).filter_map(|(e, _)| mean(e)))
    });
    let off: Vec<Option<f64>> = faces
        .iter()
        .zip(&yaws)
        .map(|(face, truth)| Some(f64::from((yaw(&face.found)? - (*truth)?).abs())))
        .collect();
    let masked = errors.iter().zip(faces).filter(|(_, face)| face.masked).filter_map(|(e, _)| mean(e));
    let (mut said, mut true_px) = (0.0, 0.0);
    // Seen and hidden points, each with how many of them are right.
    let mut sight = [[0_u32; 2]; 2];
    for face in faces {
        for k in (0..FIDUCIALS).filter(|&k| face.known[k]) {
            let seen = face.truth.visibility[k] > 0.5;
            let right = seen == (face.found.visibility[k] > 0.5);
            let count = &mut sight[usize::from(seen)];
            *count = [count[0] + u32::from(right), count[1] + 1];
            said += f64::from(face.spread_px[k]);
            true_px += f64::from(face.truth.points[k].distance_px(face.found.points[k]));
        }
    }
    let share = |[right, of]: [u32; 2]| f64::from(right) / f64::from(of.max(1));
    Report {
        all: Errors::of(errors.iter().filter_map(|e| mean(e))),
        parts: PARTS.map(|(_, points)| over(&points)),
        six: Errors::of(faces.iter().filter_map(six_error)),
        turned,
        masked: Errors::of(masked),
        seen_right: share(sight[1]),
        hidden_right: share(sight[0]),
        spread_over_error: said / f64::max(true_px, 1e-9),
        yaw_off_deg: mean(&off).unwrap_or(0.0),
    }
}

/// Error of each point whose label counts.
fn point_errors(face: &Face) -> [Option<f64>; FIDUCIALS] {
    let span = span_px(face);
    std::array::from_fn(|k| {
        face.known[k]
            .then(|| f64::from(face.truth.points[k].distance_px(face.found.points[k])) / f64::from(span))
    })
}

fn six_error(face: &Face) -> Option<f64> {
    let six = [30, 48, 54, 62, 66];
    if !six.into_iter().chain(36..48).all(|k| face.known[k]) {
        return None;
    }
    let (truth, found) = (face.truth.six().0, face.found.six().0);
    let off: f32 = truth.iter().zip(found).map(|(a, b): (&Point, Point)| a.distance_px(b)).sum();
    Some(f64::from(off / 6.0 / span_px(face)))
}

fn span_px(face: &Face) -> f32 {
    face.truth.points[36].distance_px(face.truth.points[45]).max(1e-3)
}

fn mean(values: &[Option<f64>]) -> Option<f64> {
    let count = values.iter().flatten().count();
    (count > 0).then(|| values.iter().flatten().sum::<f64>() / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch_shared::align::shape;

    /// The generic face turned by `yaw_deg`, one pixel a pixel of the chip.
    fn truth(yaw_deg: f32) -> Fiducials68 {
        let (s, c) = yaw_deg.to_radians().sin_cos();
        Fiducials68::all_visible(std::array::from_fn(|i| {
            let [x, y, z] = shape::positions()[i];
            Point::new(60.0 + c * x - s * z, y)
        }))
    }

    fn face(yaw_deg: f32, off_px: f32) -> Face {
        let truth = truth(yaw_deg);
        let found = truth.map(|p| Point::new(p.x, p.y + off_px));
        Face { truth, known: [true; FIDUCIALS], found, spread_px: [off_px; FIDUCIALS], masked: false }
    }

    #[test]
    fn a_shift_of_all_points_is_its_share_of_the_eye_corners_in_every_row() {
        let faces = [face(0.0, 2.0), face(-20.0, 2.0)];
        let spans: Vec<f64> = faces.iter().map(|f| f64::from(span_px(f))).collect();
        let report = measure(&faces);
        let expected = (2.0 / spans[0] + 2.0 / spans[1]) / 2.0;
        for errors in [&report.all, &report.six].into_iter().chain(&report.parts) {
            assert!((errors.nme() - expected).abs() < 1e-5 && errors.faces() == 2, "{errors:?}");
        }
        assert_eq!(report.turned.each_ref().map(Errors::faces), [1, 1, 0, 0]);
        assert!((report.turned[1].nme() - 2.0 / spans[1]).abs() < 1e-5);
        assert!((report.spread_over_error - 1.0).abs() < 1e-5 && report.yaw_off_deg < 0.1);
        assert_eq!((report.seen_right, report.masked.faces()), (1.0, 0));
    }

    #[test]
    fn the_curve_counts_faces_and_its_area_is_one_minus_the_mean_error_in_it() {
        let errors = Errors::of([0.2, 0.02, 0.3, 0.04].into_iter());
        assert_eq!([0.01, 0.04, 1.0].map(|limit| errors.within(limit)), [0.0, 0.5, 1.0]);
        assert!((errors.area() - (0.75 + 0.5) / 4.0).abs() < 1e-12);
        assert_eq!((errors.quantile(0.0), errors.quantile(1.0)), (0.02, 0.3));
        assert_eq!(Errors::of([0.0, 0.0].into_iter()).area(), 1.0);
        let none = Errors::default();
        assert_eq!((none.nme(), none.within(0.1), none.quantile(0.5)), (0.0, 0.0, 0.0));
    }

    #[test]
    fn points_whose_label_does_not_count_are_left_out_and_wrong_sight_is_counted() {
        let mut one = face(0.0, 1.0);
        one.found.points[8].y += 500.0;
        one.known[8] = false;
        one.truth.visibility[0] = 0.0;
        one.truth.visibility[1] = 0.0;
        one.found.visibility[1] = 0.0;
        one.masked = true;
        let report = measure(&[one]);
        assert!(report.all.nme() < 0.02 && report.masked == report.all, "{report:?}");
        assert_eq!((report.seen_right, report.hidden_right), (1.0, 0.5));
    }
}
