//! The calibrated threshold table of an embedder: which similarity a false-match rate asks for.
//!
//! Measured on a calibration split (`facelatch calibrate`) and kept in the manifest, so that a threshold can be chosen for "one stranger
//! in so many may get in" at the present number of people.

use serde::{Deserialize, Serialize};

use crate::operating_point::OperatingPoint;
use crate::score::Threshold;

/// What was measured for one embedder. Points run from the loosest rate to the strictest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThresholdTable {
    /// The calibration split, in words.
    pub split: String,
    /// People in it.
    pub identities: u32,
    /// Pictures of them.
    pub pictures: u32,
    /// Pairs of two people compared.
    pub impostor_pairs: u64,
    /// Pairs of one person compared.
    pub genuine_pairs: u64,
    /// At least two.
    pub points: Vec<ThresholdPoint>,
}

/// One rate and its similarity.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThresholdPoint {
    /// False-match rate of one comparison, above 0 and below 1.
    pub fmr: f64,
    /// The least similarity accepted at that rate.
    pub threshold: f32,
    /// Lower end of the threshold's 95 % interval (bootstrap over people).
    pub low: f32,
    /// Upper end of it.
    pub high: f32,
    /// Genuine pairs accepted at that threshold, 0 to 1.
    pub tmr: f64,
}

impl ThresholdTable {
    /// The points as the door chooses from them.
    #[must_use]
    pub fn operating_points(&self) -> Vec<OperatingPoint> {
        let point = |p: &ThresholdPoint| OperatingPoint { fmr: p.fmr, threshold: Threshold(p.threshold) };
        self.points.iter().map(point).collect()
    }

    /// What contradicts itself in this table, if anything.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let cosine = |v: f32| (-1.0..=1.0).contains(&v);
        if self.points.len() < 2 || self.points.len() > MAX_POINTS {
            return Some("`thresholds` needs 2 to 32 points");
        }
        for point in &self.points {
            if !(point.fmr > 0.0 && point.fmr < 1.0 && (0.0..=1.0).contains(&point.tmr)) {
                return Some("in `thresholds`, `fmr` must lie between 0 and 1, and `tmr` from 0 to 1");
            }
            let all = [point.low, point.threshold, point.high];
            if !all.into_iter().all(cosine) || !all.is_sorted() {
                return Some("in `thresholds`, `low` ≤ `threshold` ≤ `high` must be cosines, -1 to 1");
            }
        }
        let falls = |pair: &[ThresholdPoint]| {
            pair[1].fmr < pair[0].fmr
                && pair[1].threshold >= pair[0].threshold
                && pair[1].high >= pair[0].high
        };
        if !self.points.windows(2).all(falls) {
            return Some("in `thresholds`, a stricter `fmr` must come later and have no lower threshold");
        }
        None
    }
}

const MAX_POINTS: usize = 32;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn table() -> ThresholdTable {
        let points = [(1e-2, 0.30), (1e-3, 0.40), (1e-4, 0.46), (1e-5, 0.50)]
            .map(|(fmr, t)| ThresholdPoint { fmr, threshold: t, low: t - 0.02, high: t + 0.03, tmr: 0.9 });
        ThresholdTable {
            split: "made up".into(),
            identities: 100,
            pictures: 300,
            impostor_pairs: 44_000,
            genuine_pairs: 300,
            points: points.into(),
        }
    }

    #[test]
    fn a_sound_table_has_no_fault_and_serves_a_gallery() {
        assert_eq!(table().fault(), None);
        let points = table().operating_points();
        let chosen = crate::operating_point::for_gallery(&points, 1e-2, 10).unwrap();
        assert_eq!((chosen.point.threshold, chosen.in_table), (Threshold(0.40), true));
    }

    #[test]
    fn contradictions_are_found() {
        type Damage = fn(&mut ThresholdTable);
        let cases: [(Damage, &str); 5] = [
            (|t| t.points.truncate(1), "2 to 32"),
            (|t| t.points[1].fmr = 0.0, "`fmr`"),
            (|t| t.points[1].low = 0.45, "`low`"),
            (|t| t.points[1].threshold = f32::NAN, "cosines"),
            (|t| t.points.swap(0, 1), "stricter"),
        ];
        for (damage, expected) in cases {
            let mut table = table();
            damage(&mut table);
            assert!(table.fault().is_some_and(|f| f.contains(expected)), "{:?}", table.fault());
        }
    }
}
