//! From a probe to a verdict: who is it, may that person enter now, and what is still asked for.

use facelatch_shared::access::{Authority, PinHash, Role};
use facelatch_shared::decision::Verdict;
use facelatch_shared::event::{EventKind, Refusal};
use facelatch_shared::gallery::Candidate;
use facelatch_shared::observation::TrackId;
use facelatch_shared::person::{Name, PersonState};
use facelatch_shared::time::Millis;

use super::enrol::EnrolOrder;
use super::{Action, Actions, Known, Matched, Phase, Session, TELL_MS, push};
use crate::config::SecondFactor;
use crate::display::{NotNow, Screen, ServiceReason};

/// Someone who was recognised and may enter, once everything else that is asked for is given.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) name: Name,
    pub(super) candidate: Candidate,
    pub(super) pin: Option<PinHash>,
    pub(super) purpose: Purpose,
}

/// What somebody is recognised for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To go in.
    Enter,
    /// To have somebody enrolled.
    Enrol,
}

impl Session {
    pub(super) fn probe(&mut self, now: Millis, matched: &Matched, actions: &mut Actions) {
        self.hints.probe(now);
        // Whoever reaches into the case could drive the lock's wires: until it is shut, the door looks at nobody.
        let ready = self.lock_ok && self.alarm.is_none() && !self.contacts.tamper && !self.attempts.barred;
        match &mut self.phase {
            Phase::Watching if ready => self.weigh(now, matched, actions),
            Phase::Summoning(_) if ready && self.policy.enrol.administrator_face => {
                self.weigh(now, matched, actions);
            }
            Phase::Challenging(_) if ready => self.turning(now, matched, actions),
            Phase::Enrolling(enrolling) if enrolling.takes_views() => self.take_view(now, matched, actions),
            _ => {}
        }
    }

    pub(super) fn weigh(&mut self, now: Millis, matched: &Matched, actions: &mut Actions) {
        let Some(report) = &matched.report else {
            return self.refuse(now, Refusal::OtherModel, None, actions);
        };
        match self.evidence.weigh(&self.policy.rule, matched.track, report) {
            Verdict::Undecided => {}
            Verdict::NoMatch { reason, closest } => self.refuse(now, reason, closest, actions),
            Verdict::Match(candidate) => match &matched.who {
                // The last frame may have elected another than the window did: wait for the next.
                Some(known) if report.best.is_some_and(|best| best.subject == candidate.subject) => {
                    match self.may_enter(now, known, candidate) {
                        Ok(pending) => self.go_on(now, pending, matched.track, actions),
                        Err(reason) => self.refuse(now, reason, Some(candidate), actions),
                    }
                }
                _ => {}
            },
        }
    }

    /// Everything that can be told before anything more is asked of the person.
    fn may_enter(&mut self, now: Millis, known: &Known, candidate: Candidate) -> Result<Pending, Refusal> {
        if known.state != PersonState::Active {
            return Err(Refusal::Suspended);
        }
        let purpose = match self.phase {
            Phase::Summoning(_) if known.rights.role == Role::Administrator => Purpose::Enrol,
            Phase::Summoning(_) => return Err(Refusal::NotAdministrator),
            _ => Purpose::Enter,
        };
        self.policy.calendar.check(&known.rights, self.local)?;
        if purpose == Purpose::Enter && self.passes_back(now, candidate.subject) {
            return Err(Refusal::PassedBack);
        }
        let pin = known.rights.pin.clone();
        if self.policy.second_factor == SecondFactor::Pin && pin.is_none() {
            return Err(Refusal::NoPin);
        }
        Ok(Pending { name: known.name.clone(), candidate, pin, purpose })
    }

    /// The next thing that is asked for, or the door.
    fn go_on(&mut self, now: Millis, pending: Pending, track: TrackId, actions: &mut Actions) {
        self.evidence.clear();
        if self.policy.liveness.ask {
            self.ask_turn(now, pending, track);
        } else {
            self.ask_factor(now, pending, actions);
        }
    }

    /// The PIN where it is asked for, else the door.
    pub(super) fn ask_factor(&mut self, now: Millis, pending: Pending, actions: &mut Actions) {
        match self.policy.second_factor {
            SecondFactor::Pin => self.ask_pin(now, pending),
            SecondFactor::None => self.admit(now, pending, actions),
        }
    }

    pub(super) fn admit(&mut self, now: Millis, pending: Pending, actions: &mut Actions) {
        let Pending { name, candidate: Candidate { subject, similarity }, purpose, .. } = pending;
        if purpose == Purpose::Enrol {
            self.attempts.succeeded();
            let order = EnrolOrder { name: None, by: Authority::Administrator(subject), agreed: false };
            return self.start_enrol(now, order, actions);
        }
        let threshold = self.policy.rule.threshold;
        push(actions, Action::Log(EventKind::Granted { subject, similarity, threshold }));
        self.attempts.succeeded();
        self.evidence.clear();
        if self.policy.anti_passback_s > 0 {
            self.attempts.entered.insert(subject, now);
            self.attempts.admitted = Some(subject);
        }
        let until = self.release(now, actions);
        self.phase = Phase::Welcoming { name, until };
    }

    pub(super) fn refuse(
        &mut self,
        now: Millis,
        reason: Refusal,
        closest: Option<Candidate>,
        actions: &mut Actions,
    ) {
        push(
            actions,
            Action::Log(EventKind::Refused {
                reason,
                subject: closest.map(|c| c.subject),
                similarity: closest.map(|c| c.similarity),
                threshold: self.policy.rule.threshold,
            }),
        );
        self.evidence.clear();
        if !self.failed(now, reason, actions) {
            self.phase = Phase::Telling { screen: told(reason), until: now.plus(TELL_MS) };
        }
    }
}

/// What the panel says of a refusal.
fn told(reason: Refusal) -> Screen {
    match reason {
        Refusal::Suspended => Screen::Suspended,
        Refusal::OtherModel => Screen::Service(ServiceReason::Models),
        Refusal::OutOfHours => Screen::NotNow(NotNow::OutOfHours),
        Refusal::NotYetValid => Screen::NotNow(NotNow::NotYetValid),
        Refusal::Expired => Screen::NotNow(NotNow::Expired),
        Refusal::TimeUnknown => Screen::NotNow(NotNow::TimeUnknown),
        Refusal::WrongPin => Screen::NotNow(NotNow::WrongPin),
        Refusal::PinTimedOut => Screen::NotNow(NotNow::PinTimedOut),
        Refusal::NoPin => Screen::NotNow(NotNow::NoPin),
        Refusal::PassedBack => Screen::NotNow(NotNow::PassedBack),
        Refusal::NotLive => Screen::NotNow(NotNow::NotLive),
        Refusal::NotTurned => Screen::NotNow(NotNow::NotTurned),
        Refusal::NotAdministrator => Screen::NotNow(NotNow::NotAdministrator),
        _ => Screen::NotRecognised,
    }
}
