//! What vision tells the session about one frame.

use serde::{Deserialize, Serialize};

use crate::align::Fiducials68;
use crate::detection::{Detection, Faces};
use crate::embedding::Embedding;
use crate::quality::{Quality, Unusable};
use crate::time::Millis;

/// Names one face over consecutive frames; reused only after 2³² faces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TrackId(pub u32);

/// One frame as vision saw it.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The camera's running frame number.
    pub frame_seq: u64,
    /// When the frame was taken.
    pub at: Millis,
    /// Frame size, so that boxes can be drawn.
    pub width_px: u16,
    /// Frame height.
    pub height_px: u16,
    /// Every face found, best score first.
    pub faces: Faces,
    /// The face that the door attends to, and what became of it.
    pub attended: Result<Probe, Unusable>,
    /// Time spent, stage by stage.
    pub timings: StageTimings,
}

/// A face good enough to be matched.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Whose frames belong together.
    pub track: TrackId,
    /// Where it is.
    pub detection: Detection,
    /// How good it is.
    pub quality: Quality,
    /// Who it is, as a vector.
    pub embedding: Embedding,
    /// Its 68 points, where the door has a net for them.
    pub fiducials: Option<Fiducials68>,
}

/// Microseconds spent in each stage of one frame; zero for a stage that did not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageTimings {
    /// Camera format to RGB.
    pub decode_us: u32,
    /// Detector, with scaling and suppression.
    pub detect_us: u32,
    /// Tracking, the quality gate, and the fiducials where the door has a net for them.
    pub quality_us: u32,
    /// Warp to the canonical chip.
    pub align_us: u32,
    /// Embedder.
    pub embed_us: u32,
    /// Search of the gallery.
    pub match_us: u32,
}
