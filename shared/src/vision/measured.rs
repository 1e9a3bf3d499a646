//! What an embedder was measured at, so that whoever chooses one for a door sees accuracy, time and licence side by side.

use serde::{Deserialize, Serialize};

/// Figures of one embedder. View 1 is LFW's development split (Huang et al. 2007): it chooses models and is no held-out result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Accuracy on the test pairs of View 1, per cent.
    pub view1_accuracy: f32,
    /// Its standard deviation over ten parts, per cent.
    pub view1_std: f32,
    /// Share of pairs of one person that pass where 1e-3 of the pairs of two people do, all pictures of those pairs against all, per cent.
    pub tar_at_far_1e3: f32,
    /// 95 % interval of `tar_at_far_1e3`, people drawn again and again.
    pub tar_interval: [f32; 2],
    /// Time a face, as a share of what SFace takes in tract on the same machine, one thread.
    pub time_to_sface: f32,
    /// The commands that give these figures again.
    pub how: String,
}

impl Measured {
    /// What contradicts itself, if anything.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let percent = |v: f32| (0.0..=100.0).contains(&v);
        let [low, high] = self.tar_interval;
        let sound = percent(self.view1_accuracy)
            && percent(self.view1_std)
            && percent(low)
            && percent(high)
            && (low..=high).contains(&self.tar_at_far_1e3)
            && self.time_to_sface.is_finite()
            && self.time_to_sface > 0.0;
        (!sound).then_some(
            "`measured` needs per cent from 0 to 100, `tar_at_far_1e3` within its interval and a `time_to_sface` above 0",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_that_contradict_each_other_are_refused() {
        let good = Measured {
            view1_accuracy: 98.1,
            view1_std: 1.4,
            tar_at_far_1e3: 87.6,
            tar_interval: [83.9, 91.0],
            time_to_sface: 0.3,
            how: "facelatch parity".into(),
        };
        assert_eq!(good.fault(), None);
        for bad in [
            Measured { view1_accuracy: 101.0, ..good.clone() },
            Measured { tar_at_far_1e3: 92.0, ..good.clone() },
            Measured { tar_interval: [91.0, 83.9], ..good.clone() },
            Measured { time_to_sface: f32::NAN, ..good.clone() },
        ] {
            assert!(bad.fault().is_some(), "{bad:?}");
        }
    }
}
