//! Whether a detected face is good enough to be embedded, and if not, what the person at the door should do.

use serde::{Deserialize, Serialize};

/// Why a frame gives no probe. The panel turns each into one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Unusable {
    /// No face in the frame.
    NoFace,
    /// More than one face close enough to count.
    SeveralFaces,
    /// Eyes too close together in pixels: come closer.
    TooSmall,
    /// The face reaches outside the frame, or fills it: step back or into the middle.
    TooClose,
    /// Motion or focus blur: hold still.
    Blurred,
    /// Mean light on the face too low.
    TooDark,
    /// Mean light on the face too high, or clipped.
    TooBright,
    /// Turned or tilted away: look at the camera.
    Turned,
    /// The landmarks admit no alignment.
    BadGeometry,
}

/// What was measured on one face.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Distance between the eyes in frame pixels.
    pub eye_distance_px: f32,
    /// Mean luma on the aligned chip, 0 to 255.
    pub mean_luma: f32,
    /// Variance of the Laplacian of the chip's luma: larger is sharper.
    pub sharpness: f32,
    /// Head turn estimated from the five landmarks, −1 (to the viewer's left) to 1; 0 looks at the camera.
    pub turn: f32,
    /// In-plane tilt of the eye line in degrees, −180 to 180.
    pub roll_deg: f32,
}
