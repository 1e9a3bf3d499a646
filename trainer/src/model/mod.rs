//! Nets, as libtorch modules.

pub mod layers;
pub mod compact;
pub mod local;
pub mod deepface;
pub mod vggface;
pub mod resample;
pub mod facenet;
pub mod detector;
pub mod fiducials;
