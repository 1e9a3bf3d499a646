//! The door's mind: a pure state machine. Sightings, contacts, keys and time in; lock orders, log entries and one screen out.
//!
//! It neither reads a clock nor touches hardware, so that every lock-out and alarm is tested without sleeping. The lock is released by
//! two things only: a [`Verdict::Match`](facelatch_shared::decision::Verdict) of an active person who may enter now, has turned the head and given the second
//! factor where one is asked for, and a request to exit.
//!
//! One file a concern: `watch` recognises, `attempts` counts failures, `factor` asks for the PIN, `passage` moves the lock and
//! watches the door, `liveness` asks for a head turn, `enrol` takes views.

mod attempts;
mod enrol;
mod factor;
mod hints;
mod liveness;
mod passage;
mod phase;
mod shots;
mod summon;
mod watch;

use facelatch_shared::access::{Authority, Label, PinHash, Rights};
use facelatch_shared::align::Fiducials68;
use facelatch_shared::decision::{DecisionRule, Evidence};
use facelatch_shared::detection::Landmarks5;
use facelatch_shared::embedding::Template;
use facelatch_shared::event::{EnrolFailure, EventKind};
use facelatch_shared::gallery::{MAX_TEMPLATES, MatchReport};
use facelatch_shared::observation::TrackId;
use facelatch_shared::person::{Name, PersonState, SubjectId};
use facelatch_shared::protocol::Enrolment;
use facelatch_shared::quality::{Quality, Unusable};
use facelatch_shared::schedule::LocalTime;
use facelatch_shared::score::Threshold;
use facelatch_shared::time::Millis;
use heapless::Vec;

use crate::access::Calendar;
use crate::config::{EnrolConfig, SecondFactor, SessionConfig};
use crate::display::{Screen, ServiceReason};
use crate::inputs::InputState;
use crate::inputs::keypad::Key;
use crate::pin::Pin;
use attempts::Attempts;
pub use attempts::History;
pub use enrol::{EnrolOrder, called_after};
use hints::Hints;
pub use liveness::LivenessPolicy;
use passage::Alarm;
use phase::Phase;
use summon::Button;

/// What the session is told.
#[expect(clippy::large_enum_variant, reason = "a few hundred bytes on the stack, and no allocation a frame")]
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// The door's local time, whenever it changes; `None` while it is not known.
    Wall(Option<LocalTime>),
    /// A frame was looked at.
    Seen(Sighting),
    /// The contacts' present state.
    Contacts(InputState),
    /// A key was pressed.
    Key(Key),
    /// The camera gives frames, or no longer does.
    Camera {
        /// Whether it does.
        ok: bool,
    },
    /// The lock did not do as told.
    LockFault,
    /// Someone's name, state or rights were changed: whatever is under way with an enrolled person begins anew.
    PeopleChanged,
    /// People are to be tried again after too many failures.
    LiftBar(Authority),
    /// An administrator wants the person at the door enrolled.
    StartEnrol(EnrolOrder),
    /// The administrator calls it off.
    CancelEnrol,
    /// What became of [`Action::Enrol`]; `None` when it could not be stored.
    EnrolStored(Option<SubjectId>),
    /// What became of [`Action::CheckPin`].
    PinChecked {
        /// Whether the PIN belongs to the hash.
        right: bool,
    },
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
    /// The best, as far as it matters here.
    pub who: Option<Known>,
    /// The face's points, where the door has a net for them.
    pub fiducials: Option<Fiducials68>,
    /// The five that the detector found.
    pub landmarks: Landmarks5,
    /// How good the face is.
    pub quality: Quality,
}

/// What the session needs to know of an enrolled person.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// The name.
    pub name: Name,
    /// Whether the person may enter at all.
    pub state: PersonState,
    /// When and how.
    pub rights: Rights,
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
    /// Hold a typed PIN against a hash, and say [`Input::PinChecked`]. It takes a moment, on purpose.
    CheckPin {
        /// As typed.
        pin: Pin,
        /// As stored.
        hash: PinHash,
    },
    /// Let one workstation pair, as an administrator.
    OpenPairing,
    /// Store this person, and say [`Input::EnrolStored`].
    Enrol {
        /// The name; without one the person is [called after](called_after) the number given.
        name: Option<Name>,
        /// The views.
        templates: Vec<Template, MAX_TEMPLATES>,
        /// The version of the text that the person agreed to, and who took the consent.
        consent: Option<(Label, Authority)>,
    },
}

/// Everything one step asks for.
pub type Actions = Vec<Action, 8>;

/// What the configuration says of the session.
#[derive(Clone, Debug)]
pub struct Policy {
    /// When frames agree. Its threshold follows the gallery: [`Session::set_threshold`].
    pub rule: DecisionRule,
    /// Times and limits.
    pub times: SessionConfig,
    /// How people are enrolled.
    pub enrol: EnrolConfig,
    /// Who may enter when.
    pub calendar: Calendar,
    /// What is asked for beside the face.
    pub second_factor: SecondFactor,
    /// Time to type the PIN.
    pub pin_timeout_s: u8,
    /// So long the same face opens nothing after somebody went in; 0: at once again.
    pub anti_passback_s: u32,
    /// What is done against photographs.
    pub liveness: LivenessPolicy,
    /// Whether the service button, held on, lets a workstation pair.
    pub pair_by_button: bool,
    /// The door's name.
    pub door: Name,
}

/// The state.
#[derive(Debug)]
pub struct Session {
    policy: Policy,
    phase: Phase,
    /// The door's time, while it is known.
    local: Option<LocalTime>,
    /// Until when the lock is released.
    released_until: Option<Millis>,
    evidence: Evidence,
    attempts: Attempts,
    contacts: InputState,
    button: Button,
    opened_at: Option<Millis>,
    alarm: Option<Alarm>,
    camera_ok: bool,
    lock_ok: bool,
    hints: Hints,
    /// Head turns asked for so far.
    challenges: u64,
    last_enrolment: Enrolment,
}

impl Session {
    /// A session at a secured door with a camera that works; the time is not known yet.
    #[must_use]
    pub fn new(policy: Policy, history: History) -> Self {
        Self {
            policy,
            phase: Phase::Watching,
            local: None,
            released_until: None,
            evidence: Evidence::default(),
            attempts: Attempts::new(history),
            contacts: InputState::default(),
            button: Button::default(),
            opened_at: None,
            alarm: None,
            camera_ok: true,
            lock_ok: true,
            hints: Hints::default(),
            challenges: 0,
            last_enrolment: Enrolment::None,
        }
    }

    /// Takes one input at `now` and says what to do. Every step also looks at the timers.
    pub fn step(&mut self, now: Millis, input: Input) -> Actions {
        let mut actions = Actions::new();
        self.run_timers(now, &mut actions);
        match input {
            Input::Tick => {}
            Input::Wall(local) => self.local = local,
            Input::Seen(Sighting::Unusable(reason)) => self.hints.unusable(now, reason),
            Input::Seen(Sighting::Probe(matched)) => self.probe(now, &matched, &mut actions),
            Input::Contacts(contacts) => self.contacts(now, contacts, &mut actions),
            Input::Key(key) => self.key(now, key, &mut actions),
            Input::Camera { ok } => self.camera(ok, &mut actions),
            Input::LockFault => self.lock_fault(now, &mut actions),
            Input::PeopleChanged => self.people_changed(),
            Input::LiftBar(by) => self.lift_bar(by, &mut actions),
            Input::StartEnrol(order) => self.start_enrol(now, order, &mut actions),
            Input::CancelEnrol => self.end_enrol(now, EnrolFailure::Cancelled, &mut actions),
            Input::EnrolStored(subject) => self.enrol_stored(now, subject, &mut actions),
            Input::PinChecked { right } => self.pin_checked(now, right, &mut actions),
        }
        actions
    }

    /// What the panel shows at `now`.
    #[must_use]
    pub fn screen(&self, now: Millis) -> Screen {
        match self.alarm {
            Some(Alarm::Forced) => return Screen::DoorForced,
            _ if self.contacts.tamper => return Screen::Tampered,
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
                seconds_total: self.policy.times.open_s,
            },
            Phase::Exiting { .. } => Screen::ExitGranted,
            _ if !self.camera_ok => Screen::Service(ServiceReason::Camera),
            Phase::Telling { screen, .. } => screen.clone(),
            Phase::LockedOut { until } => {
                Screen::LockedOut { seconds_left: seconds_left(*until, now), seconds_total: self.lockout_s() }
            }
            Phase::Challenging(turning) => Screen::TurnHead(turning.asked),
            Phase::AskingPin(factor) => Screen::EnterPin { typed: factor.typed() },
            Phase::Summoning(summons) => Screen::CallAdministrator {
                typed: summons.typed(),
                pin: self.policy.enrol.admin_pin.is_some(),
            },
            Phase::Enrolling(enrolling) => self.enrol_screen(now, enrolling),
            Phase::Watching if self.attempts.barred => Screen::Barred,
            Phase::Watching => match self.hints.instruction(now) {
                Some(instruction) => Screen::Instruct(instruction),
                None if self.hints.is_looking(now) => Screen::Looking,
                None => Screen::Idle { door: self.policy.door.clone(), clock: clock(self.local) },
            },
        }
    }

    /// When the next timer is due; the caller steps with [`Input::Tick`] by then.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        let held = self.opened_at.map(|at| at.plus(self.held_ms()));
        [self.phase.deadline(), self.released_until, held, self.button_deadline()].into_iter().flatten().min()
    }

    /// What similarities are held against from now on.
    pub const fn set_threshold(&mut self, threshold: Threshold) {
        self.policy.rule.threshold = threshold;
    }

    /// What similarities are held against.
    #[must_use]
    pub const fn threshold(&self) -> Threshold {
        self.policy.rule.threshold
    }

    /// What decides.
    #[must_use]
    pub const fn rule(&self) -> DecisionRule {
        self.policy.rule
    }

    /// Views that the enrolment under way has taken; none without one.
    #[must_use]
    pub fn views_taken(&self) -> usize {
        match &self.phase {
            Phase::Enrolling(enrolling) => enrolling.shots_taken(),
            _ => 0,
        }
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

    /// Whether nobody is tried until an administrator acts.
    #[must_use]
    pub const fn is_barred(&self) -> bool {
        self.attempts.barred
    }

    /// The door's time, while it is known.
    #[must_use]
    pub const fn local_time(&self) -> Option<LocalTime> {
        self.local
    }

    /// Whether a head turn is asked for.
    #[must_use]
    pub const fn asks_for_turns(&self) -> bool {
        self.policy.liveness.ask
    }

    /// The schedules.
    #[must_use]
    pub const fn calendar(&self) -> &Calendar {
        &self.policy.calendar
    }

    /// Whether an enrolment is under way.
    #[must_use]
    pub const fn is_enrolling(&self) -> bool {
        matches!(self.phase, Phase::Enrolling(_))
    }

    /// Whether the panel shows the camera's picture.
    #[must_use]
    pub const fn wants_preview(&self) -> bool {
        matches!(&self.phase, Phase::Enrolling(enrolling) if enrolling.takes_views())
    }

    /// Whether the camera's picture is a mirror image.
    #[must_use]
    pub const fn sees_mirrored(&self) -> bool {
        self.policy.liveness.mirrored
    }

    /// The version of the text that people agree to when they are enrolled.
    #[must_use]
    pub fn consent_text(&self) -> Option<&str> {
        self.policy.enrol.consent.as_deref()
    }

    /// How the last enrolment stands.
    #[must_use]
    pub fn enrolment(&self) -> Enrolment {
        match &self.phase {
            Phase::Enrolling(enrolling) => self.enrol_progress(enrolling),
            _ => self.last_enrolment,
        }
    }

    fn run_timers(&mut self, now: Millis, actions: &mut Actions) {
        if self.released_until.is_some_and(|until| now >= until) {
            self.secure(actions);
        }
        if self.phase.deadline().is_some_and(|until| now >= until) {
            match &self.phase {
                Phase::Enrolling(enrolling) if enrolling.storing => {}
                Phase::Enrolling(_) => self.enrol_timed_out(now, actions),
                Phase::Challenging(_) => self.not_turned(now, actions),
                Phase::AskingPin(_) => self.pin_timed_out(now, actions),
                _ => self.watch(),
            }
        }
        self.run_button(now, actions);
        self.attempts.forgive(now);
        self.raise_held(now, actions);
    }

    /// Back to looking out for people.
    fn watch(&mut self) {
        self.phase = Phase::Watching;
        self.evidence.clear();
        self.hints = Hints::default();
    }

    fn people_changed(&mut self) {
        if matches!(self.phase, Phase::AskingPin(_) | Phase::Challenging(_) | Phase::Summoning(_)) {
            self.watch();
        }
        self.evidence.clear();
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

/// "09:41", or nothing while the time is not known.
fn clock(local: Option<LocalTime>) -> heapless::String<8> {
    let mut text = heapless::String::new();
    if let Some(local) = local {
        // Five characters fit into eight.
        let _ = core::fmt::Write::write_fmt(
            &mut text,
            format_args!("{:02}:{:02}", local.minute / 60, local.minute % 60),
        );
    }
    text
}

/// How long a refusal or an enrolment's end is told.
const TELL_MS: u64 = 3_000;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod access_tests;
#[cfg(test)]
mod enrol_tests;
#[cfg(test)]
mod liveness_tests;
