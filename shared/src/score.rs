//! Similarity between templates, and the thresholds it is held against.
//!
//! A similarity is a cosine: larger is closer. Distances (smaller is closer) never appear in the same type.

use serde::{Deserialize, Serialize};

/// Cosine of two embeddings, −1 to 1, larger is closer.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Similarity(pub f32);

/// The least similarity that counts as the same person at some operating point.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Threshold(pub f32);

impl Threshold {
    /// Whether `similarity` reaches this threshold. A similarity that is not a number never does.
    #[must_use]
    pub fn accepts(self, similarity: Similarity) -> bool {
        similarity.0 >= self.0
    }
}

impl core::fmt::Display for Similarity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

impl core::fmt::Display for Threshold {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_never_opens() {
        assert!(!Threshold(-1.0).accepts(Similarity(f32::NAN)));
        assert!(!Threshold(f32::NAN).accepts(Similarity(1.0)));
        assert!(Threshold(0.4).accepts(Similarity(0.4)));
    }
}
