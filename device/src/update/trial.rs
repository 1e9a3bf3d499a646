//! What a trial measures, and what follows from it: is the board fast enough for the new models, and do they know the people whom the former
//! ones knew?

use facelatch_shared::bundle::Trial;
use facelatch_shared::embedding::ModelBinding;
use facelatch_shared::event::TrialOutcome;
use facelatch_shared::observation::StageTimings;
use facelatch_shared::score::Threshold;

/// The former models, as far as their judgement of a face is concerned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Former {
    /// What their templates are bound to.
    pub binding: ModelBinding,
    /// What they held similarities against.
    pub threshold: Threshold,
    /// Best minus second best must reach this.
    pub min_rank_gap: f32,
}

/// Measures while a trial lasts. Bounded: the newest [`KEPT`] times.
#[derive(Clone, Debug)]
pub struct Meter {
    /// Whose judgement the new models' is compared with; `None` where it cannot be.
    pub former: Option<Former>,
    faces: Times,
    frames: Times,
    probes: u32,
    /// Faces that either knew.
    known: u32,
    only_former: u32,
    only_new: u32,
}

impl Meter {
    /// Nothing was measured yet.
    #[must_use]
    pub fn new(former: Option<Former>) -> Self {
        Self {
            former,
            faces: Times::default(),
            frames: Times::default(),
            probes: 0,
            known: 0,
            only_former: 0,
            only_new: 0,
        }
    }

    /// One frame's times.
    pub fn frame(&mut self, times: &StageTimings) {
        self.frames.add(times.detect_us);
        if times.embed_us > 0 {
            self.probes = self.probes.saturating_add(1);
            let all = times.detect_us.saturating_add(times.align_us).saturating_add(times.embed_us);
            self.faces.add(all);
        }
    }

    /// One face, as the former and the new models judge it: whether each knows whom it shows.
    pub fn face(&mut self, former: bool, new: bool) {
        self.known = self.known.saturating_add(u32::from(former || new));
        self.only_former = self.only_former.saturating_add(u32::from(former && !new));
        self.only_new = self.only_new.saturating_add(u32::from(new && !former));
    }

    /// Faces that were looked at.
    #[must_use]
    pub const fn probes(&self) -> u32 {
        self.probes
    }

    /// Faces that either knew, of these those that only the former models knew, and those that only the new ones did.
    #[must_use]
    pub const fn known(&self) -> (u32, u32, u32) {
        (self.known, self.only_former, self.only_new)
    }

    /// 95th percentile of detect + align + embed, in microseconds, once [`ENOUGH`] faces were seen.
    #[must_use]
    pub fn p95_us(&self) -> Option<u32> {
        self.faces.p95()
    }

    /// What follows from what was measured so far; `None` for nothing yet.
    #[must_use]
    pub fn verdict(&self, trial: &Trial) -> Option<TrialOutcome> {
        if self.p95_us().is_some_and(|p95| p95 > trial.max_p95_us) {
            return Some(TrialOutcome::TooSlow);
        }
        let rise = i64::from(self.only_former) - i64::from(self.only_new);
        let allowed = i64::from(self.known) * i64::from(trial.max_rejection_rise);
        (self.known >= ENOUGH && rise * 1000 > allowed).then_some(TrialOutcome::Rejections)
    }

    /// The same at the end of the trial. Where too few people came to measure the whole, the detector's time in the trial and the time of an
    /// embedding in the self-test stand for it.
    #[must_use]
    pub fn last_verdict(&self, trial: &Trial, embed_p95_us: u32) -> TrialOutcome {
        let slow = self.p95_us().is_none()
            && self.frames.p95().is_some_and(|p95| p95.saturating_add(embed_p95_us) > trial.max_p95_us);
        match self.verdict(trial) {
            Some(outcome) => outcome,
            None if slow => TrialOutcome::TooSlow,
            None => TrialOutcome::Confirmed,
        }
    }
}

/// The newest times, in microseconds.
#[derive(Clone, Debug, Default)]
struct Times {
    ring: Vec<u32>,
    at: usize,
}

impl Times {
    fn add(&mut self, us: u32) {
        if self.ring.len() < KEPT {
            self.ring.push(us);
        } else {
            self.ring[self.at] = us;
            self.at = (self.at + 1) % KEPT;
        }
    }

    fn p95(&self) -> Option<u32> {
        (self.ring.len() >= ENOUGH as usize).then(|| p95(&mut self.ring.clone()))
    }
}

/// The 95th percentile of some times, by the nearest rank; 0 of none.
pub fn p95(times: &mut [u32]) -> u32 {
    times.sort_unstable();
    let rank = (times.len() * 95).div_ceil(100);
    rank.checked_sub(1).map_or(0, |at| times[at])
}

/// So many times are kept: half a minute to a minute of faces.
pub const KEPT: usize = 512;
/// From so few faces on something follows.
pub const ENOUGH: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    const TRIAL: Trial = Trial { seconds: 60, max_starts: 3, max_p95_us: 1000, max_rejection_rise: 100 };

    fn times(detect_us: u32, embed_us: u32) -> StageTimings {
        StageTimings { detect_us, align_us: 10, embed_us, ..StageTimings::default() }
    }

    #[test]
    fn the_95th_percentile_by_nearest_rank() {
        assert_eq!(p95(&mut []), 0);
        assert_eq!(p95(&mut [7]), 7);
        let mut hundred: Vec<u32> = (1..=100).rev().collect();
        assert_eq!(p95(&mut hundred), 95);
    }

    #[test]
    fn a_slow_board_is_noticed_after_enough_faces_and_an_outlier_is_none() {
        let mut meter = Meter::new(None);
        for _ in 0..ENOUGH {
            assert_eq!(meter.verdict(&TRIAL), None);
            meter.frame(&times(200, 900));
        }
        assert_eq!((meter.verdict(&TRIAL), meter.p95_us()), (Some(TrialOutcome::TooSlow), Some(1110)));
        let mut meter = Meter::new(None);
        meter.frame(&times(200, 90_000));
        for _ in 0..40 {
            meter.frame(&times(200, 700));
        }
        assert_eq!(meter.verdict(&TRIAL), None);
        assert_eq!(meter.last_verdict(&TRIAL, 0), TrialOutcome::Confirmed);
        for _ in 0..2000 {
            meter.frame(&times(1, 1));
        }
        assert_eq!(meter.faces.ring.len(), KEPT);
    }

    #[test]
    fn where_nobody_came_detector_and_self_test_stand_for_the_whole() {
        let mut meter = Meter::new(None);
        for _ in 0..30 {
            meter.frame(&times(300, 0));
        }
        assert_eq!(meter.last_verdict(&TRIAL, 600), TrialOutcome::Confirmed);
        assert_eq!(meter.last_verdict(&TRIAL, 800), TrialOutcome::TooSlow);
    }

    #[test]
    fn more_rejections_than_before_end_a_trial_and_strangers_do_not() {
        let mut meter = Meter::new(None);
        for _ in 0..1000 {
            meter.face(false, false);
        }
        assert_eq!(meter.verdict(&TRIAL), None);
        for n in 0..40 {
            meter.face(true, n % 10 != 0);
        }
        assert_eq!((meter.known(), meter.verdict(&TRIAL)), ((40, 4, 0), None), "one in ten is allowed");
        meter.face(true, false);
        assert_eq!(meter.verdict(&TRIAL), Some(TrialOutcome::Rejections));
        // What the new models know and the former did not counts for them.
        meter.face(false, true);
        assert_eq!(meter.verdict(&TRIAL), None);
    }
}
