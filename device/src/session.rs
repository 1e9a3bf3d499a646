//! The door's mind: a pure state machine. Sightings, contacts and time in; lock orders, log entries and one screen out.
//!
//! It neither reads a clock nor touches hardware, so that every lock-out and alarm is tested without sleeping. The lock is released by
//! two things only: a [`Verdict::Match`] of an active person, and a request to exit.

use facelatch_shared::decision::{DecisionRule, Evidence, Verdict};
use facelatch_shared::embedding::Template;
use facelatch_shared::event::{EnrolFailure, EventKind, Refusal};
use facelatch_shared::gallery::{Candidate, MAX_TEMPLATES, MatchReport};
use facelatch_shared::observation::TrackId;
use facelatch_shared::person::{Name, PersonState, SubjectId};
use facelatch_shared::protocol::Enrolment;
use facelatch_shared::quality::Unusable;
use facelatch_shared::time::Millis;
use heapless::Vec;

use crate::config::{EnrolConfig, SessionConfig};
use crate::display::{EnrolProblem, Instruction, Screen, ServiceReason};
use crate::inputs::InputState;

/// What the session is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// A frame was looked at.
    Seen(Sighting),
    /// The contacts' present state.
    Contacts(InputState),
    /// The camera gives frames, or no longer does.
    Camera {
        /// Whether it does.
        ok: bool,
    },
    /// The lock did not do as told.
    LockFault,
    /// An administrator wants the person at the door enrolled.
    StartEnrol(Name),
    /// The administrator calls it off.
    CancelEnrol,
    /// What became of [`Action::Enrol`]; `None` when it could not be stored.
    EnrolStored(Option<SubjectId>),
}

/// One frame, matched.
#[expect(clippy::large_enum_variant, reason = "a few hundred bytes on the stack, and no allocation a frame")]
#[derive(Clone, Debug)]
pub enum Sighting {
    /// No probe, and why.
    Unusable(Unusable),
    /// A probe and what the gallery says of it.
    Probe(Matched),
}

/// A probe, compared with everyone.
#[derive(Clone, Debug)]
pub struct Matched {
    /// Whose frames belong together.
    pub track: TrackId,
    /// The probe.
    pub template: Template,
    /// Best and second best; `None` when the gallery belongs to another model.
    pub report: Option<MatchReport>,
    /// Name and state of the best.
    pub who: Option<(Name, PersonState)>,
}

/// What is to be done, in order.
#[expect(clippy::large_enum_variant, reason = "a few hundred bytes on the stack, and no allocation a frame")]
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Release the lock.
    Release,
    /// Secure the lock.
    Secure,
    /// Write this into the log.
    Log(EventKind),
    /// Store this person, and say [`Input::EnrolStored`].
    Enrol {
        /// The name.
        name: Name,
        /// The views.
        templates: Vec<Template, MAX_TEMPLATES>,
    },
}

/// Everything one step asks for.
pub type Actions = Vec<Action, 8>;

/// The state.
#[derive(Debug)]
pub struct Session {
    rule: DecisionRule,
    times: SessionConfig,
    enrol: EnrolConfig,
    door: Name,
    phase: Phase,
    /// Until when the lock is released.
    released_until: Option<Millis>,
    evidence: Evidence,
    failures: u8,
    last_failure: Millis,
    contacts: InputState,
    opened_at: Option<Millis>,
    alarm: Option<Alarm>,
    camera_ok: bool,
    lock_ok: bool,
    hint: Option<Hint>,
    looking_until: Millis,
    last_enrolment: Enrolment,
}

#[expect(clippy::large_enum_variant, reason = "a few hundred bytes on the stack, and no allocation a frame")]
#[derive(Debug)]
enum Phase {
    /// Looking out for people.
    Watching,
    /// Someone is being let in.
    Welcoming { name: Name, until: Millis },
    /// Someone is going out.
    Exiting { until: Millis },
    /// Something is told for a while: a refusal, the end of an enrolment.
    Telling { screen: Screen, until: Millis },
    /// Nobody is tried.
    LockedOut { until: Millis },
    /// Views are being taken.
    Enrolling(Enrolling),
}

#[derive(Debug)]
struct Enrolling {
    name: Name,
    deadline: Millis,
    views: Vec<Template, MAX_TEMPLATES>,
    last_view: Option<Millis>,
    /// Views in a row that do not fit those taken.
    strangers: u8,
    /// Views that look like someone who is enrolled.
    known: Option<(SubjectId, u8)>,
    storing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alarm {
    Forced,
    Held,
}

/// The last reason why there was no probe, and since when it has been the same.
#[derive(Clone, Copy, Debug)]
struct Hint {
    reason: Unusable,
    since: Millis,
    last: Millis,
}

impl Session {
    /// A session at a secured door with a camera that works.
    #[must_use]
    pub fn new(rule: DecisionRule, times: SessionConfig, enrol: EnrolConfig, door: Name) -> Self {
        Self {
            rule,
            times,
            enrol,
            door,
            phase: Phase::Watching,
            released_until: None,
            evidence: Evidence::default(),
            failures: 0,
            last_failure: Millis::default(),
            contacts: InputState::default(),
            opened_at: None,
            alarm: None,
            camera_ok: true,
            lock_ok: true,
            hint: None,
            looking_until: Millis::default(),
            last_enrolment: Enrolment::None,
        }
    }

    /// Takes one input at `now` and says what to do. Every step also looks at the timers.
    pub fn step(&mut self, now: Millis, input: Input) -> Actions {
        let mut actions = Actions::new();
        self.run_timers(now, &mut actions);
        match input {
            Input::Tick => {}
            Input::Seen(Sighting::Unusable(reason)) => self.unusable(now, reason),
            Input::Seen(Sighting::Probe(matched)) => self.probe(now, &matched, &mut actions),
            Input::Contacts(contacts) => self.contacts(now, contacts, &mut actions),
            Input::Camera { ok } => self.camera(ok, &mut actions),
            Input::LockFault => self.lock_fault(&mut actions),
            Input::StartEnrol(name) => self.start_enrol(now, name),
            Input::CancelEnrol => self.end_enrol(now, EnrolFailure::Cancelled, &mut actions),
            Input::EnrolStored(subject) => self.enrol_stored(now, subject, &mut actions),
        }
        actions
    }

    /// What the panel shows at `now`.
    #[must_use]
    pub fn screen(&self, now: Millis) -> Screen {
        match self.alarm {
            Some(Alarm::Forced) => return Screen::DoorForced,
            Some(Alarm::Held) => return Screen::DoorHeld,
            None => {}
        }
        if !self.lock_ok {
            return Screen::Service(ServiceReason::Lock);
        }
        match &self.phase {
            Phase::Welcoming { name, until } => Screen::Welcome {
                name: name.clone(),
                seconds_left: seconds_left(*until, now),
                seconds_total: self.times.open_s,
            },
            Phase::Exiting { .. } => Screen::ExitGranted,
            _ if !self.camera_ok => Screen::Service(ServiceReason::Camera),
            Phase::Telling { screen, .. } => screen.clone(),
            Phase::LockedOut { until } => {
                Screen::LockedOut { seconds_left: seconds_left(*until, now), seconds_total: self.lockout_s() }
            }
            Phase::Enrolling(enrolling) => Screen::Enrol {
                name: enrolling.name.clone(),
                instruction: self.instruction(now),
                taken: enrolling.views.len() as u8,
                wanted: self.enrol.views,
            },
            Phase::Watching => match self.instruction(now) {
                Some(instruction) => Screen::Instruct(instruction),
                None if now < self.looking_until => Screen::Looking,
                None => Screen::Idle { door: self.door.clone(), clock: heapless::String::new() },
            },
        }
    }

    /// When the next timer is due; the caller steps with [`Input::Tick`] by then.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        let phase = match &self.phase {
            Phase::Watching => None,
            Phase::Welcoming { until, .. }
            | Phase::Exiting { until }
            | Phase::Telling { until, .. }
            | Phase::LockedOut { until } => Some(*until),
            Phase::Enrolling(enrolling) => Some(enrolling.deadline),
        };
        let held = self.opened_at.map(|at| at.plus(self.held_ms()));
        [phase, self.released_until, held].into_iter().flatten().min()
    }

    /// Whether the lock is released.
    #[must_use]
    pub const fn is_released(&self) -> bool {
        self.released_until.is_some()
    }

    /// Whether the camera gives frames.
    #[must_use]
    pub const fn camera_ok(&self) -> bool {
        self.camera_ok
    }

    /// Whether an enrolment is under way.
    #[must_use]
    pub const fn is_enrolling(&self) -> bool {
        matches!(self.phase, Phase::Enrolling(_))
    }

    /// How the last enrolment stands.
    #[must_use]
    pub fn enrolment(&self) -> Enrolment {
        match &self.phase {
            Phase::Enrolling(enrolling) => {
                Enrolment::Running { taken: enrolling.views.len() as u8, wanted: self.enrol.views }
            }
            _ => self.last_enrolment,
        }
    }

    fn run_timers(&mut self, now: Millis, actions: &mut Actions) {
        if self.released_until.is_some_and(|until| now >= until) {
            self.secure(actions);
        }
        let timed_out = matches!(&self.phase, Phase::Enrolling(e) if now >= e.deadline && !e.storing);
        if timed_out {
            self.end_enrol(now, EnrolFailure::TimedOut, actions);
        }
        match &self.phase {
            Phase::Welcoming { until, .. }
            | Phase::Exiting { until }
            | Phase::Telling { until, .. }
            | Phase::LockedOut { until }
                if now >= *until =>
            {
                self.watch();
            }
            _ => {}
        }
        if self.failures > 0 && now.since(self.last_failure) >= FORGIVE_MS {
            self.failures = 0;
        }
        if self.alarm.is_none() && self.opened_at.is_some_and(|at| now.since(at) >= self.held_ms()) {
            self.alarm = Some(Alarm::Held);
            push(actions, Action::Log(EventKind::DoorHeld));
        }
    }

    fn unusable(&mut self, now: Millis, reason: Unusable) {
        self.hint = match self.hint {
            Some(hint) if hint.reason == reason && now.since(hint.last) < HINT_MS => {
                Some(Hint { last: now, ..hint })
            }
            _ => Some(Hint { reason, since: now, last: now }),
        };
        if reason == Unusable::NoFace {
            self.looking_until = self.looking_until.min(now);
        }
    }

    fn probe(&mut self, now: Millis, matched: &Matched, actions: &mut Actions) {
        self.hint = None;
        self.looking_until = now.plus(LOOKING_MS);
        match &mut self.phase {
            Phase::Watching if self.lock_ok && self.alarm.is_none() => self.weigh(now, matched, actions),
            Phase::Enrolling(enrolling) if !enrolling.storing => self.take_view(now, matched, actions),
            _ => {}
        }
    }

    fn weigh(&mut self, now: Millis, matched: &Matched, actions: &mut Actions) {
        let Some(report) = &matched.report else {
            return self.refuse(now, Refusal::OtherModel, None, actions);
        };
        match self.evidence.weigh(&self.rule, matched.track, report) {
            Verdict::Undecided => {}
            Verdict::NoMatch { reason, closest } => self.refuse(now, reason, closest, actions),
            Verdict::Match(candidate) => match &matched.who {
                // The last frame may have elected another than the window did: wait for the next.
                Some((name, state)) if report.best.is_some_and(|best| best.subject == candidate.subject) => {
                    if *state == PersonState::Active {
                        self.admit(now, name.clone(), candidate, actions);
                    } else {
                        self.refuse(now, Refusal::Suspended, Some(candidate), actions);
                    }
                }
                _ => {}
            },
        }
    }

    fn admit(&mut self, now: Millis, name: Name, candidate: Candidate, actions: &mut Actions) {
        let Candidate { subject, similarity } = candidate;
        let threshold = self.rule.threshold;
        push(actions, Action::Log(EventKind::Granted { subject, similarity, threshold }));
        self.failures = 0;
        self.evidence.clear();
        let until = self.release(now, actions);
        self.phase = Phase::Welcoming { name, until };
    }

    fn refuse(&mut self, now: Millis, reason: Refusal, closest: Option<Candidate>, actions: &mut Actions) {
        push(
            actions,
            Action::Log(EventKind::Refused {
                reason,
                subject: closest.map(|c| c.subject),
                similarity: closest.map(|c| c.similarity),
                threshold: self.rule.threshold,
            }),
        );
        self.evidence.clear();
        self.failures = self.failures.saturating_add(1);
        self.last_failure = now;
        if self.failures >= self.times.lockout_after {
            let seconds = self.lockout_s();
            push(actions, Action::Log(EventKind::LockedOut { seconds: u16::from(seconds) }));
            self.phase = Phase::LockedOut { until: now.plus(u64::from(seconds) * 1000) };
        } else {
            let screen = match reason {
                Refusal::Suspended => Screen::Suspended,
                Refusal::OtherModel => Screen::Service(ServiceReason::Models),
                _ => Screen::NotRecognised,
            };
            self.phase = Phase::Telling { screen, until: now.plus(TELL_MS) };
        }
    }

    fn contacts(&mut self, now: Millis, contacts: InputState, actions: &mut Actions) {
        let before = core::mem::replace(&mut self.contacts, contacts);
        if contacts.exit_requested && !before.exit_requested {
            push(actions, Action::Log(EventKind::ExitRequested));
            let until = self.release(now, actions);
            if !matches!(self.phase, Phase::Enrolling(_) | Phase::Welcoming { .. }) {
                self.phase = Phase::Exiting { until };
            }
        }
        match (before.door_open.unwrap_or(false), contacts.door_open.unwrap_or(false)) {
            (false, true) => {
                self.opened_at = Some(now);
                if self.released_until.is_some() {
                    push(actions, Action::Log(EventKind::DoorOpened));
                } else {
                    self.alarm = Some(Alarm::Forced);
                    push(actions, Action::Log(EventKind::DoorForced));
                }
            }
            (true, false) => {
                self.opened_at = None;
                self.alarm = None;
                push(actions, Action::Log(EventKind::DoorClosed));
                // Someone went through: nobody else follows on the same release.
                if self.released_until.is_some() && !contacts.exit_requested {
                    self.secure(actions);
                }
            }
            _ => {}
        }
    }

    fn camera(&mut self, ok: bool, actions: &mut Actions) {
        if core::mem::replace(&mut self.camera_ok, ok) != ok {
            self.evidence.clear();
            self.hint = None;
            push(actions, Action::Log(if ok { EventKind::CameraBack } else { EventKind::CameraLost }));
        }
    }

    fn lock_fault(&mut self, actions: &mut Actions) {
        if core::mem::replace(&mut self.lock_ok, false) {
            push(actions, Action::Log(EventKind::LockFault));
        }
        self.released_until = None;
        self.watch();
    }

    fn start_enrol(&mut self, now: Millis, name: Name) {
        self.evidence.clear();
        self.hint = None;
        self.phase = Phase::Enrolling(Enrolling {
            name,
            deadline: now.plus(u64::from(self.enrol.timeout_s) * 1000),
            views: Vec::new(),
            last_view: None,
            strangers: 0,
            known: None,
            storing: false,
        });
    }

    fn take_view(&mut self, now: Millis, matched: &Matched, actions: &mut Actions) {
        let (threshold, wanted) = (self.rule.threshold, usize::from(self.enrol.views).min(MAX_TEMPLATES));
        let spacing = self.enrol.spacing_ms;
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

    fn enrol_stored(&mut self, now: Millis, subject: Option<SubjectId>, actions: &mut Actions) {
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

    fn end_enrol(&mut self, now: Millis, reason: EnrolFailure, actions: &mut Actions) {
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

    fn release(&mut self, now: Millis, actions: &mut Actions) -> Millis {
        let until = now.plus(u64::from(self.times.open_s) * 1000);
        if self.released_until.is_none() {
            push(actions, Action::Release);
            push(actions, Action::Log(EventKind::Released));
        }
        self.released_until = Some(until);
        until
    }

    fn secure(&mut self, actions: &mut Actions) {
        self.released_until = None;
        push(actions, Action::Secure);
        push(actions, Action::Log(EventKind::Secured));
        if matches!(self.phase, Phase::Welcoming { .. } | Phase::Exiting { .. }) {
            self.watch();
        }
    }

    fn watch(&mut self) {
        self.phase = Phase::Watching;
        self.evidence.clear();
        self.hint = None;
        self.looking_until = Millis::default();
    }

    fn lockout_s(&self) -> u8 {
        let doublings = self.failures.saturating_sub(self.times.lockout_after).min(7);
        let seconds = u32::from(self.times.lockout_first_s) << doublings;
        u8::try_from(seconds).unwrap_or(u8::MAX).min(self.times.lockout_max_s)
    }

    /// A door may stand open this long: for as long as it is released, and then for `held_s`.
    fn held_ms(&self) -> u64 {
        (u64::from(self.times.open_s) + u64::from(self.times.held_s)) * 1000
    }

    fn instruction(&self, now: Millis) -> Option<Instruction> {
        let hint = self.hint.filter(|hint| now.since(hint.last) < HINT_MS)?;
        // One bad frame is no reason to talk.
        if hint.last.since(hint.since) < STEADY_MS {
            return None;
        }
        match hint.reason {
            Unusable::TooSmall => Some(Instruction::ComeCloser),
            Unusable::TooClose => Some(Instruction::StepBack),
            Unusable::Blurred => Some(Instruction::HoldStill),
            Unusable::TooDark => Some(Instruction::TooDark),
            Unusable::TooBright => Some(Instruction::TooBright),
            Unusable::SeveralFaces => Some(Instruction::OneFaceOnly),
            Unusable::Turned | Unusable::BadGeometry => Some(Instruction::LookAtCamera),
            _ => None,
        }
    }
}

/// Eight actions are more than any step makes: timers at most five, an input at most four, never both in full.
fn push(actions: &mut Actions, action: Action) {
    let pushed = actions.push(action);
    debug_assert!(pushed.is_ok(), "a step made more than eight actions");
}

fn seconds_left(until: Millis, now: Millis) -> u8 {
    u8::try_from(until.since(now).div_ceil(1000)).unwrap_or(u8::MAX)
}

/// How long a refusal or an enrolment's end is told.
const TELL_MS: u64 = 3_000;
/// An instruction goes when its reason has not been seen for so long.
const HINT_MS: u64 = 700;
/// And comes when its reason has lasted so long.
const STEADY_MS: u64 = 180;
/// "Looking" stays so long after a probe.
const LOOKING_MS: u64 = 600;
/// Failures are forgotten after so long without one.
const FORGIVE_MS: u64 = 60_000;
/// Views in a row that fit nobody end an enrolment.
const MAX_STRANGERS: u8 = 4;

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
