//! What begins at the door itself: an enrolment, by the service button held or by an administrator, who is called by a short press of it or by `*`
//! and then shows the face or types the door's administrator PIN; and, by the button held on, a workstation's pairing.

use facelatch_shared::access::{Authority, PinHash};
use facelatch_shared::event::Refusal;
use facelatch_shared::time::Millis;

use super::enrol::EnrolOrder;
use super::{Action, Actions, Phase, Session, push};
use crate::inputs::keypad::Key;
use crate::pin::Pin;

/// An administrator was called and has not shown up yet.
#[derive(Debug)]
pub(super) struct Summons {
    pin: Pin,
    pub(super) until: Millis,
    /// The PIN is being checked.
    checking: bool,
}

impl Summons {
    /// Digits typed so far.
    pub(super) fn typed(&self) -> u8 {
        self.pin.len() as u8
    }
}

/// The service button, as far as it is followed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Button {
    /// Since when it is pressed; gone once nothing more comes of the press.
    pressed: Option<Millis>,
    /// It was long already: only pairing is left to come of it.
    held: bool,
}

impl Session {
    /// The service button was pressed or let go.
    pub(super) fn service_button(&mut self, now: Millis, pressed: bool) {
        if pressed {
            self.button = Button { pressed: Some(now), held: false };
        } else if self.button.pressed.take().is_some() && !self.button.held {
            match &self.phase {
                Phase::Enrolling(_) => self.agree(now),
                _ => self.summon(now),
            }
        }
    }

    /// When a press of the service button comes to mean something else.
    pub(super) fn button_deadline(&self) -> Option<Millis> {
        self.button.pressed.map(|at| at.plus(if self.button.held { PAIR_MS } else { HOLD_MS }))
    }

    /// A long press begins an enrolment, or calls it off; a longer one opens the door for pairing instead.
    pub(super) fn run_button(&mut self, now: Millis, actions: &mut Actions) {
        if self.button_deadline().is_none_or(|at| now < at) {
            return;
        }
        let storing = matches!(&self.phase, Phase::Enrolling(enrolling) if enrolling.storing);
        if self.button.held {
            self.button.pressed = None;
            if !storing {
                self.pair(now, actions);
            }
            return;
        }
        self.button.held = true;
        if !self.policy.pair_by_button {
            self.button.pressed = None;
        }
        match &self.phase {
            Phase::Enrolling(_) if !storing => self.decline(now, actions),
            Phase::Watching | Phase::Summoning(_) | Phase::Telling { .. }
                if self.policy.enrol.service_button =>
            {
                let order = EnrolOrder { name: None, by: Authority::ServiceButton, agreed: false };
                self.start_enrol(now, order, actions);
            }
            _ => {}
        }
    }

    /// Whatever the same press began is called off.
    fn pair(&mut self, now: Millis, actions: &mut Actions) {
        if self.is_enrolling() {
            self.decline(now, actions);
        }
        if matches!(self.phase, Phase::Telling { .. } | Phase::Summoning(_)) {
            self.watch();
        }
        push(actions, Action::OpenPairing);
    }

    /// Asks for an administrator, where one could show that he or she is one.
    pub(super) fn summon(&mut self, now: Millis) {
        let enrol = &self.policy.enrol;
        let possible = enrol.administrator_face || enrol.admin_pin.is_some();
        if possible && matches!(self.phase, Phase::Watching) && !self.attempts.barred {
            self.evidence.clear();
            self.hints.clear();
            let until = now.plus(SUMMONS_MS);
            self.phase = Phase::Summoning(Summons { pin: Pin::default(), until, checking: false });
        }
    }

    pub(super) fn summons_key(&mut self, key: Key, actions: &mut Actions) {
        let Phase::Summoning(summons) = &mut self.phase else { return };
        if summons.checking {
            return;
        }
        match (key, &self.policy.enrol.admin_pin) {
            (Key::Clear, _) if summons.pin.is_empty() => self.watch(),
            (Key::Clear, _) => summons.pin = Pin::default(),
            (Key::Digit(digit), Some(_)) => summons.pin.push(digit),
            (Key::Enter, Some(hash)) if !summons.pin.is_empty() => {
                summons.checking = true;
                // The configuration's hash fits; one that does not is none and fits no PIN.
                let hash = PinHash::try_from(hash.as_str()).unwrap_or_default();
                push(actions, Action::CheckPin { pin: summons.pin.clone(), hash });
            }
            _ => {}
        }
    }

    pub(super) fn summons_pin_checked(&mut self, now: Millis, right: bool, actions: &mut Actions) {
        if right {
            let order = EnrolOrder { name: None, by: Authority::AdminPin, agreed: false };
            self.start_enrol(now, order, actions);
        } else {
            self.refuse(now, Refusal::WrongPin, None, actions);
        }
    }
}

/// A press of the service button so long begins or ends an enrolment.
const HOLD_MS: u64 = 2_000;
/// One so long opens the door for pairing.
const PAIR_MS: u64 = 8_000;
/// An administrator who was called shows up within this time.
const SUMMONS_MS: u64 = 20_000;
