//! The door while its models change: what it takes over, and what a trial measures.

use facelatch_shared::embedding::{Embedding, Template};
use facelatch_shared::gallery::MatchReport;
use facelatch_shared::observation::Observation;
use facelatch_shared::score::Threshold;

use super::Door;
use crate::session::Input;
use crate::update::live::Adoption;
use crate::update::trial::Meter;

impl Door {
    /// Other models look from the next observation on.
    pub(crate) fn adopt(&mut self, adoption: Adoption) {
        let Adoption { binding, compatible, threshold, event, meter } = adoption;
        if self.parts.session.is_enrolling() {
            // Views of two models would not fit together.
            self.step(Input::CancelEnrol);
        }
        self.parts.people.set_compatible(binding, &compatible);
        (self.parts.binding, self.parts.threshold, self.meter) = (binding, threshold, meter);
        self.follow_gallery();
        self.log(event);
        self.step(Input::PeopleChanged);
        self.show();
    }

    /// What the trial has measured; `None` outside of one.
    #[must_use]
    pub const fn meter(&self) -> Option<&Meter> {
        self.meter.as_ref()
    }

    /// A trial goes on.
    pub(crate) fn begin_meter(&mut self, meter: Meter) {
        self.meter = Some(meter);
    }

    /// The trial is over.
    pub(crate) fn end_meter(&mut self) {
        self.meter = None;
    }

    /// Whoever runs the door is to begin anew, with files and models.
    pub(crate) const fn start_anew(&mut self) {
        self.anew = true;
    }

    /// Whether to begin anew.
    #[must_use]
    pub const fn wants_anew(&self) -> bool {
        self.anew
    }

    /// For the trial: how long it took, and whether the former models would have judged otherwise.
    pub(super) fn measure(
        &mut self,
        observation: &Observation,
        report: Option<MatchReport>,
        former: Option<Box<Embedding>>,
    ) {
        let (Some(meter), rule) = (&mut self.meter, self.parts.session.rule()) else { return };
        meter.frame(&observation.timings);
        let (Some(embedding), Some(judge)) = (former, meter.former) else { return };
        let knows = |report: Option<MatchReport>, threshold: Threshold, gap: f32| {
            report.is_some_and(|report| {
                report.best.is_some_and(|best| threshold.accepts(best.similarity)) && report.rank_gap() >= gap
            })
        };
        let former = self.parts.people.identify(&Template::quantize(&embedding), judge.binding).ok();
        let by_former = knows(former, judge.threshold, judge.min_rank_gap);
        meter.face(by_former, knows(report, rule.threshold, rule.min_rank_gap));
    }
}
