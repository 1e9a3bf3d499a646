//! From a detected face to the canonical chip that the embedder reads.

pub mod fiducials;
pub mod similarity;
pub mod warp2d;
pub(crate) mod linear;
pub mod shape;
mod shape_data;
pub mod camera;
pub mod five;
pub mod frontalize;

pub use fiducials::{Fiducials6, Fiducials68};
pub use similarity::{AlignError, SimilarityTransform, warp_chip};

use crate::detection::{Landmarks5, Point};

/// Side of the canonical chip in pixels.
pub const CHIP_PX: usize = 112;

/// Bytes of a chip, packed RGB `[112, 112, 3]`.
pub const CHIP_BYTES: usize = CHIP_PX * CHIP_PX * 3;

/// Where the five landmarks lie on the 112×112 chip: the layout that public embedders (ArcFace, SFace) share.
pub const CANONICAL_112: Landmarks5 = Landmarks5([
    Point::new(38.2946, 51.6963),
    Point::new(73.5318, 51.5014),
    Point::new(56.0252, 71.7366),
    Point::new(41.5493, 92.3655),
    Point::new(70.7299, 92.2041),
]);
