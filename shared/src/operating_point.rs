//! Which threshold a gallery of N templates needs: the arithmetic of 1:N.
//!
//! A stranger's probe meets every template. If one comparison of different people passes the threshold with probability FMR, then at least
//! one of N passes with probability at most N · FMR (the union bound, whatever the comparisons have in common). So the rate of false
//! accepts an attempt is held below F by the threshold for FMR = F / N, and the threshold must rise with the gallery. N counts templates, not
//! people. That several frames must agree, and be clear of the second best, lowers the rate further and is not counted.

use crate::score::Threshold;

/// A threshold and the share of comparisons of different people that pass it, measured on pairs that chose nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OperatingPoint {
    /// False match rate of one comparison, 0 to 1.
    pub fmr: f64,
    /// The least similarity that passes.
    pub threshold: Threshold,
}

/// The threshold for a gallery, and what it promises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chosen {
    /// The measured point that is used.
    pub point: OperatingPoint,
    /// N: comparisons that one probe meets.
    pub comparisons: u32,
    /// Whether the table reaches as far as was asked; if not, the strictest point is used and the rate is above what was asked.
    pub in_table: bool,
}

impl Chosen {
    /// The false accepts of an attempt, at most: N · FMR.
    #[must_use]
    pub fn rate(&self) -> f64 {
        (self.point.fmr * f64::from(self.comparisons.max(1))).min(1.0)
    }
}

/// The least strict point of `table` that keeps false accepts an attempt at or below `false_accepts` with `comparisons` templates.
/// Between two measured points the stricter one is taken. `None` for an empty table. Any order of points will do.
#[must_use]
pub fn for_gallery(table: &[OperatingPoint], false_accepts: f64, comparisons: u32) -> Option<Chosen> {
    let wanted = false_accepts / f64::from(comparisons.max(1));
    let by_threshold = |a: &&OperatingPoint, b: &&OperatingPoint| a.point_order(b);
    if let Some(point) = table.iter().filter(|point| point.fmr <= wanted).min_by(by_threshold) {
        return Some(Chosen { point: *point, comparisons, in_table: true });
    }
    let strictest = table.iter().max_by(by_threshold)?;
    Some(Chosen { point: *strictest, comparisons, in_table: false })
}

impl OperatingPoint {
    fn point_order(&self, other: &Self) -> core::cmp::Ordering {
        self.threshold.0.total_cmp(&other.threshold.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table() -> [OperatingPoint; 4] {
        [(1e-3, 0.32), (1e-4, 0.40), (1e-5, 0.46), (1e-6, 0.52)]
            .map(|(fmr, threshold)| OperatingPoint { fmr, threshold: Threshold(threshold) })
    }

    #[test]
    fn the_threshold_rises_with_the_gallery() {
        let at = |people| for_gallery(&table(), 1e-3, people).unwrap();
        assert_eq!(at(0).point.threshold, Threshold(0.32));
        assert_eq!(at(1).point.threshold, Threshold(0.32));
        assert_eq!(at(2).point.threshold, Threshold(0.40), "between two points the stricter");
        assert_eq!(at(100).point.threshold, Threshold(0.46));
        assert_eq!(at(1_000).point.threshold, Threshold(0.52));
        assert!(at(1_000).in_table && (at(1_000).rate() - 1e-3).abs() < 1e-9);
        let beyond = at(5_000);
        assert!(!beyond.in_table && (beyond.rate() - 5e-3).abs() < 1e-9);
        assert_eq!(beyond.point.threshold, Threshold(0.52));
        assert_eq!(for_gallery(&[], 1e-3, 5), None);
    }

    proptest! {
        #[test]
        fn the_promise_holds_or_is_not_made(rate in 1e-7..0.5_f64, n in 0..100_000_u32, more in 0..100_000_u32) {
            let chosen = for_gallery(&table(), rate, n).unwrap();
            prop_assert_eq!(chosen.in_table, chosen.rate() <= rate * 1.000_001);
            let larger = for_gallery(&table(), rate, n + more).unwrap();
            prop_assert!(larger.point.threshold.0 >= chosen.point.threshold.0);
        }
    }
}
