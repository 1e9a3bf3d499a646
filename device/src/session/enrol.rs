//! Enrolment at the door: views of one person, spaced, that agree with each other and with nobody who is enrolled.

use facelatch_shared::embedding::Template;
use facelatch_shared::event::{EnrolFailure, EventKind};
use facelatch_shared::gallery::MAX_TEMPLATES;
use facelatch_shared::person::{Name, SubjectId};
use facelatch_shared::protocol::Enrolment;
use facelatch_shared::time::Millis;
use heapless::Vec;

use super::{Action, Actions, Matched, Phase, Session, TELL_MS, push};
use crate::display::{EnrolProblem, Screen};

/// An enrolment under way.
#[derive(Debug)]
pub(super) struct Enrolling {
    pub(super) name: Name,
    pub(super) deadline: Millis,
    pub(super) views: Vec<Template, MAX_TEMPLATES>,
    last_view: Option<Millis>,
    /// Views in a row that do not fit those taken.
    strangers: u8,
    /// Views that look like someone who is enrolled.
    known: Option<(SubjectId, u8)>,
    pub(super) storing: bool,
}

impl Session {
    pub(super) fn start_enrol(&mut self, now: Millis, name: Name) {
        self.evidence.clear();
        self.hints.clear();
        self.phase = Phase::Enrolling(Enrolling {
            name,
            deadline: now.plus(u64::from(self.policy.enrol.timeout_s) * 1000),
            views: Vec::new(),
            last_view: None,
            strangers: 0,
            known: None,
            storing: false,
        });
    }

    pub(super) fn take_view(&mut self, now: Millis, matched: &Matched, actions: &mut Actions) {
        let wanted = usize::from(self.policy.enrol.views).min(MAX_TEMPLATES);
        let (threshold, spacing) = (self.policy.rule.threshold, self.policy.enrol.spacing_ms);
        let Phase::Enrolling(enrolling) = &mut self.phase else { return };
        if enrolling.last_view.is_some_and(|at| now.since(at) < spacing) {
            return;
        }
        if let Some(best) = matched.report.and_then(|r| r.best).filter(|b| threshold.accepts(b.similarity)) {
            let seen = match enrolling.known {
                Some((subject, seen)) if subject == best.subject => seen + 1,
                _ => 1,
            };
            enrolling.known = Some((best.subject, seen));
            if usize::from(seen) * 2 > wanted {
                let failure = EnrolFailure::AlreadyEnrolled { subject: best.subject };
                return self.end_enrol(now, failure, actions);
            }
        }
        enrolling.last_view = Some(now);
        let fits = |view: &Template| threshold.accepts(view.similarity(&matched.template));
        if enrolling.views.iter().all(fits) {
            enrolling.strangers = 0;
            // `wanted` is at most the capacity, and views stop at `wanted`.
            let _ = enrolling.views.push(matched.template);
        } else {
            enrolling.strangers += 1;
            if enrolling.strangers >= MAX_STRANGERS {
                return self.end_enrol(now, EnrolFailure::NotOnePerson, actions);
            }
        }
        if enrolling.views.len() >= wanted {
            enrolling.storing = true;
            let (name, templates) = (enrolling.name.clone(), enrolling.views.clone());
            push(actions, Action::Enrol { name, templates });
        }
    }

    pub(super) fn enrol_stored(&mut self, now: Millis, subject: Option<SubjectId>, actions: &mut Actions) {
        let Phase::Enrolling(enrolling) = &self.phase else { return };
        let Some(subject) = subject else {
            return self.end_enrol(now, EnrolFailure::Storage, actions);
        };
        let templates = enrolling.views.len() as u8;
        let name = enrolling.name.clone();
        push(actions, Action::Log(EventKind::Enrolled { subject, templates }));
        self.last_enrolment = Enrolment::Done { id: subject };
        self.phase = Phase::Telling { screen: Screen::Enrolled { name }, until: now.plus(TELL_MS) };
    }

    pub(super) fn end_enrol(&mut self, now: Millis, reason: EnrolFailure, actions: &mut Actions) {
        if !matches!(self.phase, Phase::Enrolling(_)) {
            return;
        }
        push(actions, Action::Log(EventKind::EnrolFailed { reason }));
        self.last_enrolment = Enrolment::Failed(reason);
        let problem = match reason {
            EnrolFailure::TimedOut => EnrolProblem::TimedOut,
            EnrolFailure::NotOnePerson => EnrolProblem::NotOnePerson,
            EnrolFailure::AlreadyEnrolled { .. } => EnrolProblem::AlreadyEnrolled,
            EnrolFailure::Cancelled => EnrolProblem::Cancelled,
            _ => EnrolProblem::Storage,
        };
        self.phase = Phase::Telling { screen: Screen::EnrolFailed(problem), until: now.plus(TELL_MS) };
    }
}

/// Views in a row that fit nobody end an enrolment.
const MAX_STRANGERS: u8 = 4;
