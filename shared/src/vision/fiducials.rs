//! The crop of a detected face on which fiducials are found: a similarity of the detector's five landmarks, as the chip is, but wider, from
//! above the brows to below the chin.

use crate::detection::Point;

/// Side of the crop in pixels.
pub const CROP_PX: usize = 96;

/// Pixels of the canonical 112 px chip that one pixel of the crop covers.
pub const CROP_SCALE: f32 = 1.25;

/// Where the middle of the crop lies on the canonical chip: below its middle, because the contour reaches farther down than the
/// brows reach up.
pub const CROP_CENTRE_CHIP: Point = Point::new(55.5, 69.0);
