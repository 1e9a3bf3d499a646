//! Enrolment at the door: views of one person from several sides, that agree with each other and with nobody who is enrolled.
//!
//! Everything is kept in memory until the last view is taken; then one write stores the person or nobody. Calling off, running out of time
//! and a power cut therefore change nothing.

use facelatch_shared::access::{Authority, Label};
use facelatch_shared::align::camera::Pose;
use facelatch_shared::event::{EnrolFailure, EventKind};
use facelatch_shared::gallery::Candidate;
use facelatch_shared::person::{Name, SubjectId};
use facelatch_shared::pose::{self, View};
use facelatch_shared::protocol::Enrolment;
use facelatch_shared::time::Millis;
use heapless::Vec;

use super::shots::{MAX_SHOTS, Shot, choose};
use super::{Action, Actions, Matched, Phase, Session, TELL_MS, push};
use crate::config::Poses;
use crate::display::{EnrolNote, EnrolProblem, Instruction, Screen};

/// What an administrator orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolOrder {
    /// The person's name; without one the person is called after the number given.
    pub name: Option<Name>,
    /// On whose authority.
    pub by: Authority,
    /// The person has agreed to the configured text already.
    pub agreed: bool,
}

/// An enrolment under way.
#[derive(Debug)]
pub(super) struct Enrolling {
    order: EnrolOrder,
    /// The text that the person is asked to agree to, or has agreed to.
    text: Option<Label>,
    asking: bool,
    pub(super) deadline: Millis,
    /// Views still to be shown, the present one first.
    plan: Vec<View, 5>,
    done: u8,
    shots: Vec<Shot, MAX_SHOTS>,
    last_shot: Option<Millis>,
    /// Poses of the head while it faced the camera.
    rest: Vec<Pose, MAX_SHOTS>,
    /// Since when the present view is asked of somebody who is there, and when somebody last was.
    asked: Option<(Millis, Millis)>,
    /// Views in a row that were not shown in time.
    missed: u8,
    /// Frames in a row that do not tell the pose.
    blind: u8,
    /// Frames in a row that do not fit those taken.
    strangers: u8,
    /// Frames that look like someone who is enrolled.
    known: Option<(SubjectId, u8)>,
    /// The nearest of those who are enrolled.
    nearest: Option<Candidate>,
    /// The administrator who began it is still there.
    handing_over: bool,
    /// The face is there and looks elsewhere than into the camera, where it should.
    looks_away: bool,
    pub(super) storing: bool,
}

impl Enrolling {
    /// Somebody is wanted before the camera.
    pub(super) const fn takes_views(&self) -> bool {
        !self.asking && !self.storing
    }

    pub(super) fn shots_taken(&self) -> usize {
        self.shots.len()
    }

    fn guided(&self) -> bool {
        self.plan.len() > 1 || self.shots.iter().any(|shot| shot.view != View::Front)
    }
}

impl Session {
    pub(super) fn start_enrol(&mut self, now: Millis, order: EnrolOrder, actions: &mut Actions) {
        if matches!(self.phase, Phase::Enrolling(_)) {
            return;
        }
        push(actions, Action::Log(EventKind::EnrolStarted { by: order.by }));
        self.evidence.clear();
        self.hints.clear();
        let policy = &self.policy.enrol;
        let text = policy.consent.as_deref().and_then(|text| Label::try_from(text).ok());
        let plan = match policy.poses {
            Poses::Guided => View::ALL.into_iter().collect(),
            Poses::Front => Vec::from_iter([View::Front]),
        };
        self.phase = Phase::Enrolling(Enrolling {
            asking: text.is_some() && !order.agreed,
            order,
            text,
            deadline: now.plus(u64::from(policy.timeout_s) * 1000),
            plan,
            done: 0,
            shots: Vec::new(),
            last_shot: None,
            rest: Vec::new(),
            asked: None,
            missed: 0,
            blind: 0,
            strangers: 0,
            known: None,
            nearest: None,
            handing_over: false,
            looks_away: false,
            storing: false,
        });
    }

    /// The person agrees to being enrolled; the time for the views begins.
    pub(super) fn agree(&mut self, now: Millis) {
        let deadline = now.plus(u64::from(self.policy.enrol.timeout_s) * 1000);
        if let Phase::Enrolling(enrolling) = &mut self.phase
            && std::mem::take(&mut enrolling.asking)
        {
            enrolling.deadline = deadline;
        }
    }

    /// Called off at the door; who is asked to agree and does not, says no.
    pub(super) fn decline(&mut self, now: Millis, actions: &mut Actions) {
        let asking = matches!(&self.phase, Phase::Enrolling(enrolling) if enrolling.asking);
        let reason = if asking { EnrolFailure::NoConsent } else { EnrolFailure::Cancelled };
        self.end_enrol(now, reason, actions);
    }

    pub(super) fn enrol_timed_out(&mut self, now: Millis, actions: &mut Actions) {
        let asking = matches!(&self.phase, Phase::Enrolling(enrolling) if enrolling.asking);
        let reason = if asking { EnrolFailure::NoConsent } else { EnrolFailure::TimedOut };
        self.end_enrol(now, reason, actions);
    }

    pub(super) fn take_view(&mut self, now: Millis, matched: &Matched, actions: &mut Actions) {
        let (threshold, spacing) = (self.policy.rule.threshold, self.policy.enrol.spacing_ms);
        let front_shots = self.front_shots();
        let pose_ms = u64::from(self.policy.enrol.pose_timeout_s) * 1000;
        let mirrored = self.policy.liveness.mirrored;
        let Phase::Enrolling(enrolling) = &mut self.phase else { return };
        let best = matched.report.and_then(|report| report.best);
        let known = best.filter(|best| threshold.accepts(best.similarity)).map(|best| best.subject);
        enrolling.handing_over = known.is_some_and(|id| enrolling.order.by == Authority::Administrator(id));
        if enrolling.handing_over || enrolling.last_shot.is_some_and(|at| now.since(at) < spacing) {
            return;
        }
        let Some(&view) = enrolling.plan.first() else { return };
        let (since, _) = enrolling.asked.filter(|(_, last)| now.since(*last) < AWAY_MS).unwrap_or((now, now));
        enrolling.asked = Some((since, now));
        let pose = pose::of_face(&matched.quality, &matched.landmarks);
        if !enrolling.shows(view, matched, pose.as_ref(), mirrored) {
            let give_up = enrolling.blind >= MAX_BLIND || now.since(since) >= pose_ms;
            if view != View::Front && give_up {
                enrolling.miss();
                self.store_if_done(actions);
            }
            return;
        }
        if let Some(subject) = known {
            let seen = match enrolling.known {
                Some((before, seen)) if before == subject => seen + 1,
                _ => 1,
            };
            enrolling.known = Some((subject, seen));
            if usize::from(seen) * 2 > front_shots {
                return self.end_enrol(now, EnrolFailure::AlreadyEnrolled { subject }, actions);
            }
        }
        enrolling.nearest = [enrolling.nearest, best]
            .into_iter()
            .flatten()
            .max_by(|a, b| a.similarity.0.total_cmp(&b.similarity.0));
        enrolling.last_shot = Some(now);
        let fits = |shot: &Shot| threshold.accepts(shot.template.similarity(&matched.template));
        // From the front every view must look like every other; from the side it is enough to look like one.
        let one_person = match view {
            View::Front => enrolling.shots.iter().all(fits),
            _ => enrolling.shots.iter().any(fits),
        };
        if !one_person {
            enrolling.strangers += 1;
            if enrolling.strangers >= MAX_STRANGERS {
                self.end_enrol(now, EnrolFailure::NotOnePerson, actions);
            }
            return;
        }
        enrolling.strangers = 0;
        // There is room for every view's shots; a shot beyond it would be one too many.
        let _ = enrolling.shots.push(Shot::new(matched.template, view, &matched.quality));
        if view == View::Front
            && let Some(pose) = pose
        {
            let _ = enrolling.rest.push(pose);
        }
        let wanted = if view == View::Front { front_shots } else { SIDE_SHOTS };
        if enrolling.shots.iter().filter(|shot| shot.view == view).count() >= wanted {
            enrolling.missed = 0;
            enrolling.next();
            self.store_if_done(actions);
        }
    }

    /// Shots from the front: all of them where no other view is asked for.
    fn front_shots(&self) -> usize {
        match self.policy.enrol.poses {
            Poses::Guided => GUIDED_FRONT_SHOTS,
            Poses::Front => usize::from(self.policy.enrol.views).min(MAX_SHOTS),
        }
    }

    fn store_if_done(&mut self, actions: &mut Actions) {
        let wanted = usize::from(self.policy.enrol.views);
        let Phase::Enrolling(enrolling) = &mut self.phase else { return };
        if !enrolling.plan.is_empty() || enrolling.storing {
            return;
        }
        enrolling.storing = true;
        let consent = enrolling.text.clone().map(|text| (text, enrolling.order.by));
        let (name, templates) = (enrolling.order.name.clone(), choose(&enrolling.shots, wanted));
        push(actions, Action::Enrol { name, templates, consent });
    }

    pub(super) fn enrol_stored(&mut self, now: Millis, subject: Option<SubjectId>, actions: &mut Actions) {
        let Phase::Enrolling(enrolling) = &self.phase else { return };
        let Some(subject) = subject else {
            return self.end_enrol(now, EnrolFailure::Storage, actions);
        };
        let templates = enrolling.shots.len().min(usize::from(self.policy.enrol.views)) as u8;
        push(actions, Action::Log(EventKind::Enrolled { subject, templates }));
        if let Some(text) = enrolling.text.clone() {
            push(actions, Action::Log(EventKind::Consented { subject, text, by: enrolling.order.by }));
        }
        // Whoever comes so near the threshold with one person's face may pass it, or lack the rank gap, on another day.
        let rule = &self.policy.rule;
        let near = |other: &Candidate| other.similarity.0 + rule.min_rank_gap > rule.threshold.0;
        let lookalike = enrolling.nearest.filter(near).map(|other| other.subject);
        if let Some(other) = lookalike {
            push(actions, Action::Log(EventKind::Lookalike { subject, other }));
        }
        let front_only = self.policy.enrol.poses == Poses::Guided && !enrolling.guided();
        self.last_enrolment = if front_only || lookalike.is_some() {
            Enrolment::DoneNoting { id: subject, front_only, lookalike }
        } else {
            Enrolment::Done { id: subject }
        };
        let name = enrolling.order.name.clone().unwrap_or_else(|| called_after(subject));
        let note = match lookalike {
            Some(_) => EnrolNote::Lookalike,
            None if front_only => EnrolNote::FrontOnly,
            None => EnrolNote::None,
        };
        self.phase = Phase::Telling { screen: Screen::Enrolled { name, note }, until: now.plus(TELL_MS) };
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
            EnrolFailure::NoConsent => EnrolProblem::NoConsent,
            _ => EnrolProblem::Storage,
        };
        self.phase = Phase::Telling { screen: Screen::EnrolFailed(problem), until: now.plus(TELL_MS) };
    }

    /// How far it is.
    pub(super) fn enrol_progress(&self, enrolling: &Enrolling) -> Enrolment {
        if enrolling.asking {
            return Enrolment::AskingConsent;
        }
        let (taken, wanted) = self.counted(enrolling);
        match enrolling.plan.first() {
            Some(&view) if self.policy.enrol.poses == Poses::Guided => {
                Enrolment::Guided { taken, wanted, view }
            }
            _ => Enrolment::Running { taken, wanted },
        }
    }

    pub(super) fn enrol_screen(&self, now: Millis, enrolling: &Enrolling) -> Screen {
        if enrolling.asking {
            let text = enrolling.text.clone().unwrap_or_default();
            return Screen::Consent { text };
        }
        let (taken, wanted) = self.counted(enrolling);
        let view = enrolling.plan.first().copied().unwrap_or(View::Front);
        let hint = if enrolling.handing_over {
            Some(Instruction::NextPerson)
        } else if enrolling.looks_away {
            Some(Instruction::LookAtCamera)
        } else {
            // Whoever turns the head as asked may well turn it too far, and knows that the camera is elsewhere.
            self.hints
                .instruction(now)
                .filter(|hint| view == View::Front || *hint != Instruction::LookAtCamera)
        };
        let name = enrolling.order.name.clone().unwrap_or_else(nameless);
        Screen::Enrol { name, view, instruction: hint, taken, wanted }
    }

    /// Steps done and steps in all: shots where only the front is asked for, else views.
    fn counted(&self, enrolling: &Enrolling) -> (u8, u8) {
        match self.policy.enrol.poses {
            Poses::Front => (enrolling.shots.len() as u8, self.policy.enrol.views),
            Poses::Guided => (enrolling.done, enrolling.done + enrolling.plan.len() as u8),
        }
    }
}

impl Enrolling {
    /// Whether the face shows `view`.
    fn shows(&mut self, view: View, matched: &Matched, pose: Option<&Pose>, mirrored: bool) -> bool {
        if view == View::Front {
            let faces = pose::faces_the_camera(&matched.quality, pose);
            self.looks_away = !faces;
            return faces;
        }
        let rest = pose::mean(&self.rest);
        let (Some(pose), Some(rest)) = (pose, rest) else {
            self.blind = self.blind.saturating_add(1);
            return false;
        };
        self.blind = 0;
        view.is_shown(pose, &rest, mirrored)
    }

    /// On to the next view.
    fn next(&mut self) {
        self.plan.remove(0);
        self.done += 1;
        self.asked = None;
    }

    /// The present view is not to be had: the next one, unless it seems that none is.
    fn miss(&mut self) {
        self.missed += 1;
        if self.blind >= MAX_BLIND || self.missed >= MAX_MISSED {
            self.plan.clear();
        } else {
            self.plan.remove(0);
            self.asked = None;
        }
    }
}

/// What a person without a name is called.
#[must_use]
pub fn called_after(subject: SubjectId) -> Name {
    match Name::new(&format!("Person {}", subject.0)) {
        Ok(name) => name,
        Err(_) => unreachable!("a word and at most ten digits are a name"),
    }
}

/// Whoever has no name yet.
fn nameless() -> Name {
    match Name::new("New person") {
        Ok(name) => name,
        Err(_) => unreachable!("two words are a name"),
    }
}

/// Frames in a row that fit nobody end an enrolment.
const MAX_STRANGERS: u8 = 4;
/// Shots from the front where other views follow, and of each of those.
const GUIDED_FRONT_SHOTS: usize = 3;
const SIDE_SHOTS: usize = 2;
/// Views in a row that are not shown in time: the person cannot or will not, and the front must do.
const MAX_MISSED: u8 = 2;
/// Frames in a row that do not tell the pose: it cannot be told here.
const MAX_BLIND: u8 = 5;
/// Without a face for so long the time for a view begins anew.
const AWAY_MS: u64 = 1_000;
