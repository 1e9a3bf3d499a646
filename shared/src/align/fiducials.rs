//! Fiducials: the 68 points of the usual order, and what is derived from them: DeepFace's 67, its six, and the detector's five.
//!
//! Order (in image order, that is from the viewer's left): 0–16 the face's contour from ear to ear by way of the chin (8), 17–21 and
//! 22–26 the brows, 27–30 the ridge of the nose down to its tip (30), 31–35 the nose's lower edge, 36–41 and 42–47 the eyes, clockwise
//! from the corner on the viewer's left, 48–59 the outer lips and 60–67 the inner lips, clockwise from the corner on the viewer's
//! left.

use serde::{Deserialize, Serialize};

use super::AlignError;
use crate::detection::{Landmarks5, Point};

/// Points of the usual order.
pub const FIDUCIALS: usize = 68;

/// Sixty-eight points of one face in frame pixels, with how far each can be trusted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fiducials68 {
    /// Where they are, in the order of [the module](self). A hidden point lies where it would be seen through the head.
    pub points: [Point; FIDUCIALS],
    /// 1 for a point in plain sight, 0 for one that is hidden or a guess.
    pub visibility: [f32; FIDUCIALS],
}

impl Fiducials68 {
    /// Points that all count in full.
    #[must_use]
    pub const fn all_visible(points: [Point; FIDUCIALS]) -> Self {
        Self { points, visibility: [1.0; FIDUCIALS] }
    }

    /// That every number is finite, every visibility lies in 0 to 1, and the points spread over more than a pixel.
    ///
    /// # Errors
    /// [`AlignError::NotFinite`], [`AlignError::Visibility`], [`AlignError::Coincident`].
    pub fn check(&self) -> Result<(), AlignError> {
        if !self.points.iter().all(|p| p.is_finite()) || !self.visibility.iter().all(|v| v.is_finite()) {
            return Err(AlignError::NotFinite);
        }
        if !self.visibility.iter().all(|v| (0.0..=1.0).contains(v)) {
            return Err(AlignError::Visibility);
        }
        let first = self.points[0];
        if self.points.iter().all(|p| p.distance_px(first) < 1.0) {
            return Err(AlignError::Coincident);
        }
        Ok(())
    }

    /// DeepFace's six points.
    #[must_use]
    pub fn six(&self) -> Fiducials6 {
        let p = &self.points;
        Fiducials6([
            middle(&p[36..42]),
            middle(&p[42..48]),
            p[NOSE_TIP],
            p[MOUTH_LEFT],
            p[MOUTH_RIGHT],
            middle(&[p[62], p[66]]),
        ])
    }

    /// The five points that a detector gives.
    #[must_use]
    pub fn five(&self) -> Landmarks5 {
        self.six().five()
    }

    /// The points after `map`, with the same visibilities.
    #[must_use]
    pub fn map(&self, map: impl Fn(Point) -> Point) -> Self {
        Self { points: self.points.map(map), visibility: self.visibility }
    }

    /// The same face in a mirror, in a picture `width_px` wide: columns are reflected and the sides change their names.
    #[must_use]
    pub fn mirrored(&self, width_px: usize) -> Self {
        let right_edge = width_px as f32 - 1.0;
        Self {
            points: MIRROR_68.map(|i| {
                let p = self.points[usize::from(i)];
                Point::new(right_edge - p.x, p.y)
            }),
            visibility: MIRROR_68.map(|i| self.visibility[usize::from(i)]),
        }
    }
}

/// The six fiducials from which DeepFace starts (Taigman et al. 2014, section 2 "2D alignment"), in image order: the centres of the
/// two eyes, the tip of the nose, the two corners of the mouth, the middle of the mouth. In pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fiducials6(pub [Point; 6]);

impl Fiducials6 {
    /// Whether every coordinate is finite.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        self.0.iter().all(|p| p.is_finite())
    }

    /// The five points that a detector gives: all but the middle of the mouth.
    #[must_use]
    pub const fn five(&self) -> Landmarks5 {
        let [left_eye, right_eye, nose, mouth_left, mouth_right, _] = self.0;
        Landmarks5([left_eye, right_eye, nose, mouth_left, mouth_right])
    }
}

impl From<&Landmarks5> for Fiducials6 {
    /// A detector's five points, with the middle of the mouth half way between its corners.
    fn from(five: &Landmarks5) -> Self {
        let [left_eye, right_eye, nose, left, right] = five.0;
        Self([left_eye, right_eye, nose, left, right, middle(&[left, right])])
    }
}

impl From<&Fiducials68> for Fiducials6 {
    fn from(all: &Fiducials68) -> Self {
        all.six()
    }
}

impl From<&Fiducials68> for Landmarks5 {
    fn from(all: &Fiducials68) -> Self {
        all.five()
    }
}

/// Which of the 68 are the 67 anchors of the 3D step. DeepFace (section 2, "3D alignment") says how many and shows them in a figure,
/// without naming them; ours leave out 66, the middle of the lower lip's inner edge, which falls onto 62 when the mouth is shut: two
/// anchors on one spot fold the triangulation.
pub const DEEPFACE_67: [u8; 67] = {
    let mut kept = [0; 67];
    let mut i = 0;
    while i < 67 {
        kept[i] = if i < 66 { i as u8 } else { i as u8 + 1 };
        i += 1;
    }
    kept
};

/// For each point, the one on the other side of the face: a mirror image of the 68 has them in this order.
#[rustfmt::skip]
pub const MIRROR_68: [u8; FIDUCIALS] = [
    16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, // contour
    26, 25, 24, 23, 22, 21, 20, 19, 18, 17,                   // brows
    27, 28, 29, 30, 35, 34, 33, 32, 31,                       // nose
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,           // eyes
    54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55,           // outer lips
    64, 63, 62, 61, 60, 67, 66, 65,                           // inner lips
];

/// The tip of the nose.
pub const NOSE_TIP: usize = 30;
/// The corner of the mouth on the viewer's left.
pub const MOUTH_LEFT: usize = 48;
/// The other corner of the mouth.
pub const MOUTH_RIGHT: usize = 54;

fn middle(points: &[Point]) -> Point {
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), p| (x + p.x, y + p.y));
    Point::new(x / points.len() as f32, y / points.len() as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every point where its number says: x counts, y is the square.
    fn numbered() -> Fiducials68 {
        Fiducials68::all_visible(core::array::from_fn(|i| Point::new(i as f32, (i * i) as f32)))
    }

    #[test]
    fn the_six_and_the_five_come_from_their_points() {
        let six = numbered().six();
        assert_eq!(six.0[0].x, 38.5);
        assert_eq!(six.0[1].x, 44.5);
        assert_eq!([six.0[2].x, six.0[3].x, six.0[4].x, six.0[5].x], [30.0, 48.0, 54.0, 64.0]);
        assert_eq!(Landmarks5::from(&numbered()).0, six.0[..5]);
        assert_eq!(Fiducials6::from(&six.five()).0[5].x, 51.0);
    }

    #[test]
    fn the_mirror_of_the_mirror_is_the_face() {
        for (i, &j) in MIRROR_68.iter().enumerate() {
            assert_eq!(usize::from(MIRROR_68[usize::from(j)]), i);
        }
        let midline: [u8; 10] = [8, 27, 28, 29, 30, 33, 51, 57, 62, 66];
        assert_eq!(
            (0..68_u8).filter(|&i| MIRROR_68[usize::from(i)] == i).collect::<std::vec::Vec<_>>(),
            midline
        );
        let mut face = numbered();
        face.visibility[3] = 0.25;
        assert_eq!(face.mirrored(100).mirrored(100), face);
        assert_eq!(face.mirrored(100).visibility[13], 0.25);
        // Sides change places: the six of a mirror image are the mirrored six.
        let (left, right) = (face.six().0[0], face.mirrored(100).six().0[1]);
        assert_eq!((99.0 - left.x, left.y), (right.x, right.y));
    }

    #[test]
    fn sixty_seven_are_all_but_one() {
        assert_eq!(DEEPFACE_67.iter().map(|&i| u32::from(i)).sum::<u32>(), 67 * 68 / 2 - 66);
        assert!(DEEPFACE_67.windows(2).all(|w| w[0] < w[1]));
    }

    #[test]
    fn what_is_no_face_is_named() {
        assert_eq!(numbered().check(), Ok(()));
        let damaged = |change: fn(&mut Fiducials68)| {
            let mut face = numbered();
            change(&mut face);
            face.check()
        };
        assert_eq!(damaged(|f| f.points[9].y = f32::NAN), Err(AlignError::NotFinite));
        assert_eq!(damaged(|f| f.visibility[9] = f32::INFINITY), Err(AlignError::NotFinite));
        assert_eq!(damaged(|f| f.visibility[9] = -0.1), Err(AlignError::Visibility));
        assert_eq!(damaged(|f| f.points = [Point::new(4.0, 5.0); 68]), Err(AlignError::Coincident));
    }
}
