//! How well a detector finds faces: precision and recall on labelled scenes, and the person in the middle of LFW's pictures.

use facelatch_shared::detection::{BoxPx, Detection, Point};

/// A labelled face.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Truth {
    /// Its box.
    pub bbox: BoxPx,
    /// Five landmarks in image order.
    pub landmarks: [Point; 5],
    /// Neither to be found nor wrong when found.
    pub ignore: bool,
}

/// One picture: what is there and what was found, best score first.
#[derive(Debug, Clone, Default)]
pub struct Shot {
    /// Labelled faces.
    pub truths: Vec<Truth>,
    /// Found faces.
    pub found: Vec<Detection>,
}

/// Figures over labelled pictures. A face counts as found at an overlap of [`MIN_OVERLAP`].
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Pictures.
    pub pictures: usize,
    /// Labelled faces that count.
    pub faces: usize,
    /// Area under the precision-recall curve, precision made monotone, 0 to 1.
    pub average_precision: f64,
    /// At the least score that allows one false face in 100 pictures.
    pub at_one_in_hundred: Point100,
    /// At the score from which the door believes in a face.
    pub at_door: Point100,
    /// Mean distance of the landmarks of found faces from the labels', over the label's eye distance, at the door's score.
    pub landmark_error: f64,
}

/// One score and what it means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point100 {
    /// The least score that counts.
    pub score: f32,
    /// Labelled faces found, 0 to 1.
    pub recall: f64,
    /// False faces.
    pub false_faces: usize,
}

/// Least overlap (intersection over union) of a found box with a labelled one.
pub const MIN_OVERLAP: f32 = 0.5;

/// Measures `shots`; `door_score` is the door's least score.
#[must_use]
pub fn measure(shots: &[Shot], door_score: f32) -> Report {
    let faces = shots.iter().flat_map(|s| &s.truths).filter(|t| !t.ignore).count();
    let mut judged = Vec::new();
    for shot in shots {
        for (found, verdict) in shot.found.iter().zip(judge(shot)) {
            match verdict {
                Verdict::Right(truth) => {
                    judged.push((found.score, true, landmark_error(found, &shot.truths[truth])))
                }
                Verdict::Wrong => judged.push((found.score, false, 0.0)),
                Verdict::Ignored => {}
            }
        }
    }
    judged.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut right, mut wrong) = (0_usize, 0_usize);
    let mut curve = Vec::with_capacity(judged.len());
    let allowed = shots.len() / 100;
    let mut strict = Point100 { score: f32::INFINITY, recall: 0.0, false_faces: 0 };
    for (i, &(score, is_right, _)) in judged.iter().enumerate() {
        if is_right {
            right += 1
        } else {
            wrong += 1
        }
        curve.push((right as f64 / faces.max(1) as f64, right as f64 / (right + wrong) as f64));
        let last_of_score = judged.get(i + 1).is_none_or(|next| next.0 < score);
        if wrong <= allowed && last_of_score {
            strict = Point100 { score, recall: right as f64 / faces.max(1) as f64, false_faces: wrong };
        }
    }
    let at = |least: f32| {
        let counted = || judged.iter().filter(|j| j.0 >= least);
        let right = counted().filter(|j| j.1).count();
        let false_faces = counted().count() - right;
        Point100 { score: least, recall: right as f64 / faces.max(1) as f64, false_faces }
    };
    let errors: Vec<f64> = judged.iter().filter(|j| j.1 && j.0 >= door_score).map(|j| j.2).collect();
    Report {
        pictures: shots.len(),
        faces,
        average_precision: area(&curve),
        at_one_in_hundred: strict,
        at_door: at(door_score),
        landmark_error: errors.iter().sum::<f64>() / errors.len().max(1) as f64,
    }
}

/// What is true of one found face.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is this labelled face, and no better-scored one was.
    Right(usize),
    /// There is no face, or it was found already.
    Wrong,
    /// It lies on a face that is to be ignored.
    Ignored,
}

/// One verdict for each found face of a picture, which are best score first.
#[must_use]
pub fn judge(shot: &Shot) -> Vec<Verdict> {
    let mut taken = vec![false; shot.truths.len()];
    shot.found
        .iter()
        .map(|found| {
            let best = shot
                .truths
                .iter()
                .enumerate()
                .filter(|(i, truth)| {
                    !truth.ignore && !taken[*i] && truth.bbox.iou(&found.bbox) >= MIN_OVERLAP
                })
                .max_by(|a, b| a.1.bbox.iou(&found.bbox).total_cmp(&b.1.bbox.iou(&found.bbox)));
            if let Some((i, _)) = best {
                taken[i] = true;
                return Verdict::Right(i);
            }
            let on_ignored = |truth: &Truth| truth.ignore && share_inside(&found.bbox, &truth.bbox) >= 0.5;
            if shot.truths.iter().any(on_ignored) { Verdict::Ignored } else { Verdict::Wrong }
        })
        .collect()
}

/// What was found of the person in the middle of a picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Middle {
    /// Pictures.
    pub pictures: usize,
    /// Pictures in which exactly one found box holds the middle.
    pub once: usize,
    /// Pictures in which several do: one person found twice.
    pub twice: usize,
    /// Found faces that do not hold the middle: other people, or false.
    pub others: usize,
}

impl Middle {
    /// Counts one picture with everything found in it at the door's score.
    pub fn add(&mut self, found: &[Detection], width_px: usize, height_px: usize) {
        let (x, y) = (width_px as f32 / 2.0, height_px as f32 / 2.0);
        let holds = |d: &&Detection| {
            let b = d.bbox;
            x >= b.x && x <= b.x + b.w && y >= b.y && y <= b.y + b.h
        };
        let middle = found.iter().filter(holds).count();
        self.pictures += 1;
        self.once += usize::from(middle == 1);
        self.twice += usize::from(middle > 1);
        self.others += found.len() - middle;
    }

    /// Pictures in which no found box holds the middle.
    #[must_use]
    pub const fn missed(&self) -> usize {
        self.pictures - self.once - self.twice
    }
}

/// Share of `inner` that lies in `outer`.
fn share_inside(inner: &BoxPx, outer: &BoxPx) -> f32 {
    let w = (inner.x + inner.w).min(outer.x + outer.w) - inner.x.max(outer.x);
    let h = (inner.y + inner.h).min(outer.y + outer.h) - inner.y.max(outer.y);
    w.max(0.0) * h.max(0.0) / inner.area_px2().max(1e-6)
}

fn landmark_error(found: &Detection, truth: &Truth) -> f64 {
    let span = truth.landmarks[0].distance_px(truth.landmarks[1]).max(1e-3);
    let sum: f32 = found.landmarks.0.iter().zip(truth.landmarks).map(|(a, b)| a.distance_px(b)).sum();
    f64::from(sum / 5.0 / span)
}

/// Area under (recall, precision), recall rising, each precision raised to the best that follows.
fn area(curve: &[(f64, f64)]) -> f64 {
    let mut best = 0.0_f64;
    let mut raised: Vec<f64> = curve
        .iter()
        .rev()
        .map(|&(_, precision)| {
            best = best.max(precision);
            best
        })
        .collect();
    raised.reverse();
    let mut before = 0.0;
    curve
        .iter()
        .zip(raised)
        .map(|(&(recall, _), precision)| {
            let step = recall - before;
            before = recall;
            step * precision
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch_shared::detection::Landmarks5;

    fn bbox(x: f32) -> BoxPx {
        BoxPx { x, y: 0.0, w: 10.0, h: 10.0 }
    }

    fn truth(x: f32, ignore: bool) -> Truth {
        let landmarks = [0.0, 4.0, 2.0, 1.0, 3.0].map(|dx| Point::new(x + dx, 5.0));
        Truth { bbox: bbox(x), landmarks, ignore }
    }

    fn found(x: f32, score: f32) -> Detection {
        Detection { bbox: bbox(x), landmarks: Landmarks5(truth(x, false).landmarks), score }
    }

    #[test]
    fn a_perfect_detector_has_everything_and_a_blind_one_nothing() {
        let perfect = Shot { truths: vec![truth(0.0, false)], found: vec![found(0.0, 0.9)] };
        let report = measure(&vec![perfect.clone(); 10], 0.7);
        assert_eq!((report.faces, report.average_precision, report.at_door.recall), (10, 1.0, 1.0));
        assert_eq!((report.at_one_in_hundred.recall, report.landmark_error), (1.0, 0.0));
        let blind = Shot { found: vec![], ..perfect };
        let report = measure(&[blind], 0.7);
        assert_eq!((report.average_precision, report.at_one_in_hundred.recall), (0.0, 0.0));
    }

    #[test]
    fn the_second_box_on_a_face_is_wrong_and_ignored_faces_cost_nothing() {
        let shot = Shot {
            truths: vec![truth(0.0, false), truth(50.0, true)],
            found: vec![found(0.0, 0.9), found(1.0, 0.8), found(51.0, 0.75), found(90.0, 0.6)],
        };
        assert_eq!(judge(&shot), [Verdict::Right(0), Verdict::Wrong, Verdict::Ignored, Verdict::Wrong]);
        let report = measure(&[shot], 0.7);
        assert_eq!((report.faces, report.at_door.false_faces), (1, 1));
        // One right before any wrong: all of the recall at full precision.
        assert_eq!(report.average_precision, 1.0);
    }

    #[test]
    fn the_strict_point_lies_above_the_first_false_face_too_many() {
        let mut shots = vec![Shot::default(); 100];
        shots[0] = Shot { truths: vec![truth(0.0, false)], found: vec![found(0.0, 0.9)] };
        shots[1].found = vec![found(0.0, 0.8)];
        shots[2] = Shot { truths: vec![truth(0.0, false)], found: vec![found(0.0, 0.7)] };
        shots[3].found = vec![found(0.0, 0.6)];
        shots[4] = Shot { truths: vec![truth(0.0, false)], found: vec![found(0.0, 0.5)] };
        let report = measure(&shots, 0.5);
        assert_eq!((report.at_one_in_hundred.score, report.at_one_in_hundred.false_faces), (0.7, 1));
        assert!((report.at_one_in_hundred.recall - 2.0 / 3.0).abs() < 1e-9);
        // Precisions 1, 2/3 and 3/5, each a third of the recall.
        let expected = (1.0 + 2.0 / 3.0 + 3.0 / 5.0) / 3.0;
        assert!((report.average_precision - expected).abs() < 1e-9, "{}", report.average_precision);
    }

    #[test]
    fn the_middle_is_found_once_twice_or_not() {
        let mut middle = Middle::default();
        middle.add(&[found(45.0, 0.9), found(0.0, 0.9)], 100, 10);
        middle.add(&[found(45.0, 0.9), found(46.0, 0.8)], 100, 10);
        middle.add(&[found(0.0, 0.9)], 100, 10);
        assert_eq!((middle.once, middle.twice, middle.missed(), middle.others), (1, 1, 1, 2));
    }
}
