//! Thresholds chosen on a calibration split, and what they do on pairs they have not seen.

use super::interval::{Interval, wilson};
use super::roc::Roc;

/// A threshold chosen for a false-accept rate, and its errors where it was not chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Applied {
    /// The false-accept rate asked for, 0 to 1.
    pub asked: f64,
    /// The least similarity accepted.
    pub threshold: f32,
    /// Impostor pairs of the calibration split; fewer than 1/`asked` allow none, and the threshold is then above the best of them.
    pub calibration_impostors: usize,
    /// False-accept rate measured.
    pub far: f64,
    /// Its 95 % interval (Wilson).
    pub far_interval: Interval,
    /// True-accept rate measured.
    pub tar: f64,
    /// Its 95 % interval (Wilson).
    pub tar_interval: Interval,
}

/// The false-accept rates that reports choose thresholds for.
pub const FARS: [f64; 2] = [1e-2, 1e-3];

/// Chooses a threshold on `calibration` for each rate of `fars` and applies it to `measured`.
#[must_use]
pub fn apply(calibration: &Roc, measured: &Roc, fars: &[f64]) -> Vec<Applied> {
    let point = |&asked: &f64| {
        let threshold = calibration.at_far(asked).threshold;
        let errors = measured.errors_at(threshold);
        let accepted = errors.genuine - errors.refused;
        Applied {
            asked,
            threshold,
            calibration_impostors: calibration.errors_at(threshold).impostor,
            far: errors.accepted as f64 / errors.impostor as f64,
            far_interval: wilson(errors.accepted, errors.impostor),
            tar: accepted as f64 / errors.genuine as f64,
            tar_interval: wilson(accepted, errors.genuine),
        }
    };
    fars.iter().map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_comes_from_calibration_and_the_rates_from_the_rest() {
        let ramp = |n: u32, offset: f32| (0..n).map(move |i| (i as f32 / n as f32 + offset, false));
        let genuine = [(0.9, true), (0.4, true), (0.35, true)];
        let calibration: Vec<_> = ramp(100, -0.5).chain(genuine).collect();
        let measured: Vec<_> = ramp(100, -0.45).chain(genuine).collect();
        let (calibration, measured) = (Roc::new(&calibration).unwrap(), Roc::new(&measured).unwrap());
        let [loose, strict] = apply(&calibration, &measured, &[0.1, 1e-3])[..] else { panic!() };
        // Ten of a hundred above 0.39 in calibration; shifted by 0.05, fifteen of the others.
        assert_eq!((loose.far, loose.calibration_impostors), (0.15, 100));
        assert!((loose.tar - 2.0 / 3.0).abs() < 1e-9);
        assert!(loose.far_interval.low < 0.15 && loose.far_interval.high > 0.15);
        // No impostor of a hundred may pass at 1e-3: the measured rate is honest about what that costs here.
        assert!(strict.threshold > 0.49 && strict.far == 0.05 && strict.tar < 0.34);
    }
}
