//! From the numbers that a value takes on calibration faces to the range that eight bits are spread over.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How a range is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Observer {
    /// All that was seen.
    MinMax,
    /// All but one in ten thousand.
    Percentile,
    /// The least squared error.
    Mse,
    /// The least loss of information (Kullback–Leibler divergence, Migacz 2017).
    Entropy,
}

impl Observer {
    /// Every one, in the order of their tables.
    pub const ALL: [Self; 4] = [Self::MinMax, Self::Percentile, Self::Mse, Self::Entropy];
}

/// Codes −128 to 127; value = (code − zero) · scale.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// Step between codes, above zero.
    pub scale: f32,
    /// The code of zero.
    pub zero: i8,
}

impl Range {
    /// The range from `low` to `high`, widened to hold zero, so that padding is exact.
    #[must_use]
    pub fn spanning(low: f32, high: f32) -> Self {
        let (low, high) = (low.min(0.0), high.max(0.0));
        let scale = ((high - low) / 255.0).max(f32::MIN_POSITIVE * 1e6);
        Self { scale, zero: (-128.0 - low / scale).round_ties_even().clamp(-128.0, 127.0) as i8 }
    }
}

/// Counts of a value's numbers in equal bins between its extremes.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    low: f32,
    high: f32,
    counts: Vec<u64>,
}

const BINS: usize = 2048;

impl Histogram {
    /// Empty, between extremes seen before.
    #[must_use]
    pub fn new(low: f32, high: f32) -> Self {
        let low = low.min(0.0);
        Self { low, high: high.max(low + f32::EPSILON), counts: vec![0; BINS] }
    }

    /// Counts `values`; what lies outside goes to the outermost bins.
    pub fn add(&mut self, values: &[f32]) {
        let per = BINS as f32 / (self.high - self.low);
        for &v in values {
            // A number below the range becomes bin 0 when it is cast.
            self.counts[(((v - self.low) * per) as usize).min(BINS - 1)] += 1;
        }
    }

    /// The range that `observer` chooses.
    #[must_use]
    pub fn range(&self, observer: Observer) -> Range {
        let (low, high) = match observer {
            Observer::MinMax => (self.low, self.high),
            Observer::Percentile => self.percentile(1e-4),
            Observer::Mse => self.least(|s, low, high| s.squared_error(low, high)),
            Observer::Entropy => self.least(|s, low, high| s.divergence(low, high)),
        };
        Range::spanning(low, high)
    }

    fn width(&self) -> f32 {
        (self.high - self.low) / BINS as f32
    }

    fn middle(&self, bin: usize) -> f32 {
        self.low + (bin as f32 + 0.5) * self.width()
    }

    /// Leaves out the share `cut`, half of it at either end when the range is two-sided.
    fn percentile(&self, cut: f64) -> (f32, f32) {
        let total: u64 = self.counts.iter().sum();
        let two_sided = self.low < 0.0;
        let allowed = (total as f64 * cut / if two_sided { 2.0 } else { 1.0 }) as u64;
        let reach = |bin: usize, out: &mut u64| {
            *out += self.counts[bin];
            *out > allowed
        };
        let (mut above, mut below) = (0, 0);
        let top = (0..BINS).rev().find(|&bin| reach(bin, &mut above)).unwrap_or(BINS - 1);
        let bottom = (0..BINS).find(|&bin| two_sided && reach(bin, &mut below)).unwrap_or(0);
        (self.low + bottom as f32 * self.width(), self.low + (top + 1) as f32 * self.width())
    }

    /// Of the ranges with both ends drawn in by the same factor, 1.0 down to 0.2, the one with the least `cost`.
    fn least(&self, cost: impl Fn(&Self, f32, f32) -> f64) -> (f32, f32) {
        let shrunk = |step: usize| 1.0 - step as f32 * 0.01;
        (0..=80)
            .map(|step| (self.low * shrunk(step), self.high * shrunk(step)))
            .map(|(low, high)| (cost(self, low, high), low, high))
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .map_or((self.low, self.high), |(_, low, high)| (low, high))
    }

    /// Rounding inside, distance to the edge outside.
    fn squared_error(&self, low: f32, high: f32) -> f64 {
        let step = f64::from(high - low) / 255.0;
        self.occupied()
            .map(|(x, count)| {
                let outside = f64::from((x - high).max(low - x).max(0.0));
                count as f64 * if outside > 0.0 { outside * outside } else { step * step / 12.0 }
            })
            .sum()
    }

    /// Divergence of the numbers, with what is cut off put at the edge it becomes, from what eight bits tell apart of those inside.
    fn divergence(&self, low: f32, high: f32) -> f64 {
        let inside = |x: f32| (low..=high).contains(&x);
        let level = |x: f32| (((x - low) / (high - low) * 256.0) as usize).min(255);
        let (mut mass, mut cells, mut cut) = ([0_u64; 256], [0_u32; 256], [0_u64; 2]);
        for (x, count) in self.occupied() {
            if inside(x) {
                mass[level(x)] += count;
                cells[level(x)] += 1;
            } else {
                cut[usize::from(x > high)] += count;
            }
        }
        let kept: Vec<(f32, u64)> = self.occupied().filter(|&(x, _)| inside(x)).collect();
        let (Some(&(first, _)), Some(&(last, _))) = (kept.first(), kept.last()) else { return f64::MAX };
        let total = self.counts.iter().sum::<u64>() as f64;
        let inside_total = mass.iter().sum::<u64>() as f64;
        kept.iter()
            .map(|&(x, count)| {
                let edges = if x == first { cut[0] } else { 0 } + if x == last { cut[1] } else { 0 };
                let p = (count + edges) as f64 / total;
                let q = mass[level(x)] as f64 / f64::from(cells[level(x)]) / inside_total;
                p * (p / q).ln()
            })
            .sum()
    }

    fn occupied(&self) -> impl Iterator<Item = (f32, u64)> {
        self.counts.iter().enumerate().filter(|(_, c)| **c > 0).map(|(bin, &c)| (self.middle(bin), c))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A bulk below one and a single far outlier, as activations have.
    fn skewed() -> Histogram {
        let values: Vec<f32> = (0..100_000).map(|i| (i as f32 / 100_000.0).powi(2)).chain([40.0]).collect();
        let mut histogram = Histogram::new(0.0, 40.0);
        histogram.add(&values);
        histogram
    }

    fn top(range: Range) -> f32 {
        (127.0 - f32::from(range.zero)) * range.scale
    }

    #[test]
    fn one_outlier_moves_min_max_alone() {
        let histogram = skewed();
        assert!((top(histogram.range(Observer::MinMax)) - 40.0).abs() < 0.01);
        for observer in [Observer::Percentile, Observer::Entropy] {
            assert!(top(histogram.range(observer)) < 10.0, "{observer:?}: {:?}", histogram.range(observer));
        }
        assert!(top(histogram.range(Observer::Mse)) < 40.0);
    }

    #[test]
    fn the_mse_range_has_the_least_error_of_all() {
        let histogram = skewed();
        let error = |observer| {
            let range = histogram.range(observer);
            let low = (-128.0 - f32::from(range.zero)) * range.scale;
            histogram.squared_error(low, top(range))
        };
        for other in Observer::ALL {
            assert!(error(Observer::Mse) <= error(other) * 1.01, "{other:?}");
        }
    }

    #[test]
    fn a_value_after_relu_has_its_zero_at_the_lowest_code() {
        for observer in Observer::ALL {
            assert_eq!(skewed().range(observer).zero, -128);
        }
    }

    proptest! {
        #[test]
        fn zero_is_exact_and_the_ends_are_met(low in -50.0_f32..0.0, high in 0.01_f32..50.0) {
            let range = Range::spanning(low, high);
            let back = |code: f32| (code - f32::from(range.zero)) * range.scale;
            prop_assert!(back(-128.0) <= low + range.scale && back(127.0) >= high - range.scale);
        }
    }
}
