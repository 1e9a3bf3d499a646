//! How the camera hangs: turned, or behind a mirror. Everything downstream sees people upright.

use serde::{Deserialize, Serialize};

/// By how much the picture must be turned clockwise to stand upright.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub enum Rotation {
    /// It stands upright.
    #[default]
    None,
    /// A quarter turn.
    Quarter,
    /// Upside down.
    Half,
    /// A quarter turn the other way.
    ThreeQuarters,
}

impl TryFrom<u16> for Rotation {
    type Error = String;

    fn try_from(degrees: u16) -> Result<Self, String> {
        match degrees {
            0 => Ok(Self::None),
            90 => Ok(Self::Quarter),
            180 => Ok(Self::Half),
            270 => Ok(Self::ThreeQuarters),
            other => Err(format!("camera.rotate_deg is {other}: 0, 90, 180 or 270")),
        }
    }
}

impl From<Rotation> for u16 {
    fn from(rotation: Rotation) -> Self {
        match rotation {
            Rotation::None => 0,
            Rotation::Quarter => 90,
            Rotation::Half => 180,
            Rotation::ThreeQuarters => 270,
        }
    }
}

/// A turn, then a swap of left and right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orientation {
    /// The turn.
    pub rotation: Rotation,
    /// Whether left and right are swapped after it.
    pub mirror: bool,
}

impl Orientation {
    /// Whether the picture stays as it is.
    #[must_use]
    pub fn is_identity(self) -> bool {
        self == Self::default()
    }

    /// Width and height of a picture of `width_px` by `height_px` after the turn.
    #[must_use]
    pub const fn turned(self, width_px: usize, height_px: usize) -> (usize, usize) {
        match self.rotation {
            Rotation::None | Rotation::Half => (width_px, height_px),
            Rotation::Quarter | Rotation::ThreeQuarters => (height_px, width_px),
        }
    }

    /// Turns packed RGB `[height_px, width_px, 3]` over `out`, whose shape is [`turned`](Self::turned).
    pub fn apply(self, rgb: &[u8], width_px: usize, height_px: usize, out: &mut Vec<u8>) {
        debug_assert_eq!(rgb.len(), width_px * height_px * 3);
        out.resize(rgb.len(), 0);
        let (to_width, to_height) = self.turned(width_px, height_px);
        let source = rgb.as_chunks::<3>().0;
        for (y, row) in out.chunks_exact_mut(to_width.max(1) * 3).enumerate() {
            for (x, pixel) in row.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                let x = if self.mirror { to_width - 1 - x } else { x };
                let from = match self.rotation {
                    Rotation::None => y * width_px + x,
                    Rotation::Half => (to_height - 1 - y) * width_px + (to_width - 1 - x),
                    // The left column, read upwards, becomes the top row.
                    Rotation::Quarter => (to_width - 1 - x) * width_px + y,
                    Rotation::ThreeQuarters => x * width_px + (to_height - 1 - y),
                };
                *pixel = source[from];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture of 3 by 2 whose pixels are their numbers, turned; as numbers, row by row.
    fn turned(degrees: u16, mirror: bool) -> Vec<u8> {
        let orientation = Orientation { rotation: Rotation::try_from(degrees).unwrap(), mirror };
        let rgb: Vec<u8> = (0..6).flat_map(|n| [n; 3]).collect();
        let mut out = vec![9; 2];
        orientation.apply(&rgb, 3, 2, &mut out);
        out.chunks(3).map(|pixel| pixel[0]).collect()
    }

    #[test]
    fn each_turn_is_the_one_that_is_named() {
        assert_eq!(turned(0, false), [0, 1, 2, 3, 4, 5]);
        assert_eq!(turned(90, false), [3, 0, 4, 1, 5, 2]);
        assert_eq!(turned(180, false), [5, 4, 3, 2, 1, 0]);
        assert_eq!(turned(270, false), [2, 5, 1, 4, 0, 3]);
        assert_eq!(turned(0, true), [2, 1, 0, 5, 4, 3]);
        assert_eq!(turned(90, true), [0, 3, 1, 4, 2, 5], "turned first, then mirrored");
        let quarter = Orientation { rotation: Rotation::Quarter, mirror: false };
        assert_eq!(
            (quarter.turned(640, 480), Orientation::default().turned(640, 480)),
            ((480, 640), (640, 480))
        );
    }

    #[test]
    fn other_angles_are_refused_by_name() {
        assert!(Rotation::try_from(45).unwrap_err().contains("camera.rotate_deg is 45"));
        for degrees in [0, 90, 180, 270] {
            assert_eq!(u16::from(Rotation::try_from(degrees).unwrap()), degrees);
        }
    }
}
