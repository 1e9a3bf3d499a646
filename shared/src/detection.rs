//! Faces found in a frame: boxes, five landmarks, scores, and non-maximum suppression.

use serde::{Deserialize, Serialize};

/// A point in frame pixels. Pixel centres are at integer coordinates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Column, to the right.
    pub x: f32,
    /// Row, downwards.
    pub y: f32,
}

impl Point {
    /// A point at column `x`, row `y`.
    #[must_use]
    pub const fn new(x: f32, y: f32) -> Self {
        Self { x, y }
    }

    /// Whether both coordinates are finite.
    #[must_use]
    pub const fn is_finite(self) -> bool {
        self.x.is_finite() && self.y.is_finite()
    }

    /// Euclidean distance to `other` in pixels.
    #[must_use]
    pub fn distance_px(self, other: Self) -> f32 {
        libm::hypotf(self.x - other.x, self.y - other.y)
    }
}

/// An axis-aligned box in frame pixels; it may reach outside the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BoxPx {
    /// Left edge.
    pub x: f32,
    /// Upper edge.
    pub y: f32,
    /// Width.
    pub w: f32,
    /// Height.
    pub h: f32,
}

impl BoxPx {
    /// Area in square pixels; zero for an inverted box.
    #[must_use]
    pub fn area_px2(&self) -> f32 {
        self.w.max(0.0) * self.h.max(0.0)
    }

    /// The box's centre.
    #[must_use]
    pub fn centre(&self) -> Point {
        Point::new(self.x + self.w * 0.5, self.y + self.h * 0.5)
    }

    /// Intersection over union with `other`, 0 to 1.
    #[must_use]
    pub fn iou(&self, other: &Self) -> f32 {
        let width = (self.x + self.w).min(other.x + other.w) - self.x.max(other.x);
        let height = (self.y + self.h).min(other.y + other.h) - self.y.max(other.y);
        if width <= 0.0 || height <= 0.0 {
            return 0.0;
        }
        let shared = width * height;
        let union = self.area_px2() + other.area_px2() - shared;
        if union > 0.0 { shared / union } else { 0.0 }
    }
}

/// Five landmarks in image order: the eye on the viewer's left, the other eye, nose tip, the mouth corner on the
/// viewer's left, the other corner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Landmarks5(pub [Point; 5]);

impl Landmarks5 {
    /// Distance between the eyes in pixels.
    #[must_use]
    pub fn eye_distance_px(&self) -> f32 {
        self.0[0].distance_px(self.0[1])
    }

    /// Whether every coordinate is finite.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        self.0.iter().all(|p| p.is_finite())
    }
}

/// One face found in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// Where it is.
    pub bbox: BoxPx,
    /// Its five landmarks.
    pub landmarks: Landmarks5,
    /// The detector's confidence, 0 to 1.
    pub score: f32,
}

/// How many faces one frame may hold; weaker ones beyond it are dropped.
pub const MAX_FACES: usize = 16;

/// Faces of one frame, best score first.
pub type Faces = heapless::Vec<Detection, MAX_FACES>;

/// Non-maximum suppression: sorts `candidates` by score, best first, and keeps those that overlap no better one by more
/// than `max_iou`. Equal scores come in no particular order, but always in the same. At most [`MAX_FACES`] survive; candidates with a number that is not finite are
/// dropped.
pub fn suppress(candidates: &mut [Detection], max_iou: f32) -> Faces {
    candidates.sort_unstable_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept = Faces::new();
    for candidate in candidates.iter() {
        let finite = candidate.score.is_finite()
            && candidate.landmarks.is_finite()
            && [candidate.bbox.x, candidate.bbox.y, candidate.bbox.w, candidate.bbox.h]
                .iter()
                .all(|v| v.is_finite());
        if finite
            && kept.iter().all(|better| better.bbox.iou(&candidate.bbox) <= max_iou)
            && kept.push(*candidate).is_err()
        {
            break;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face(x: f32, score: f32) -> Detection {
        Detection { bbox: BoxPx { x, y: 0.0, w: 10.0, h: 10.0 }, landmarks: Landmarks5::default(), score }
    }

    #[test]
    fn the_strongest_of_overlapping_boxes_survives() {
        let kept = suppress(&mut [face(1.0, 0.6), face(0.0, 0.9), face(30.0, 0.5)], 0.3);
        assert_eq!(kept.len(), 2);
        assert_eq!(kept[0].score, 0.9);
        assert_eq!(kept[1].bbox.x, 30.0);
    }

    #[test]
    fn numbers_that_are_not_finite_are_dropped() {
        let kept = suppress(&mut [face(f32::NAN, 0.9), face(0.0, f32::NAN), face(0.0, 0.5)], 0.3);
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].score, 0.5);
    }

    #[test]
    fn overlap_is_symmetric_and_bounded() {
        let (a, b) = (face(0.0, 1.0).bbox, face(5.0, 1.0).bbox);
        assert!((a.iou(&b) - 1.0 / 3.0).abs() < 1e-6);
        assert_eq!(a.iou(&b), b.iou(&a));
        assert_eq!(a.iou(&face(20.0, 1.0).bbox), 0.0);
    }
}
