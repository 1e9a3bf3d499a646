//! The threshold in force: by the size of the gallery, or fixed.

use facelatch_shared::operating_point::{Chosen, OperatingPoint, for_gallery};
use facelatch_shared::score::Threshold;

/// Where the threshold comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum ThresholdSource {
    /// `decision.threshold`.
    Configured(Threshold),
    /// The embedder's own, until a table is measured.
    OfModel(Threshold),
    /// Measured points, chosen from by the size of the gallery.
    Table {
        /// The points.
        points: Vec<OperatingPoint>,
        /// `decision.false_accepts`.
        false_accepts: f64,
    },
}

/// The threshold at one size of the gallery.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ThresholdInForce {
    /// What similarities are held against.
    pub threshold: Threshold,
    /// The arithmetic behind it; none for a fixed threshold.
    pub chosen: Option<Chosen>,
}

impl ThresholdSource {
    /// The threshold for `templates` enrolled templates.
    #[must_use]
    pub fn at(&self, templates: usize) -> ThresholdInForce {
        let comparisons = u32::try_from(templates).unwrap_or(u32::MAX);
        match self {
            Self::Configured(threshold) | Self::OfModel(threshold) => {
                ThresholdInForce { threshold: *threshold, chosen: None }
            }
            Self::Table { points, false_accepts } => match for_gallery(points, *false_accepts, comparisons) {
                Some(chosen) => ThresholdInForce { threshold: chosen.point.threshold, chosen: Some(chosen) },
                // An empty table lets nobody in; none is made.
                None => ThresholdInForce { threshold: Threshold(f32::INFINITY), chosen: None },
            },
        }
    }

    /// Whether `decision.threshold` sets it.
    #[must_use]
    pub const fn is_configured(&self) -> bool {
        matches!(self, Self::Configured(_))
    }
}
