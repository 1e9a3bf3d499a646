//! Frame in, observation out: the pipeline that the door runs on camera frames and the evaluator on files.

pub mod contract;
pub mod lineage;
pub mod measured;
pub mod manifest;
pub mod thresholds;
pub mod error;
pub mod prelu;
pub mod screen;
pub mod runtime;
pub mod letterbox;
pub mod detect;
pub mod fiducials;
pub mod track;
pub mod chip;
pub mod embed;
pub mod compat;
pub mod observe;
#[cfg(test)]
mod testing;

pub use error::VisionError;
pub use manifest::{Manifest, ManifestEntry, ManifestError};
pub use observe::Eyes;
