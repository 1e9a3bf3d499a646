//! The door's own eyes as the thing measured.

use facelatch_shared::detection::{Faces, Landmarks5};
use facelatch_shared::embedding::Embedding;
use facelatch_shared::frame::RgbView;
use facelatch_shared::vision::{self, VisionError};

use super::pictures::Eyes;

impl Eyes for vision::Eyes {
    type Error = VisionError;

    fn find(&mut self, picture: &RgbView<'_>) -> Result<Faces, VisionError> {
        Self::find(self, picture)
    }

    fn embed_at(&mut self, picture: &RgbView<'_>, landmarks: &Landmarks5) -> Result<Embedding, VisionError> {
        Self::embed_at(self, picture, landmarks)
    }
}
