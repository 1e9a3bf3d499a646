//! The second factor: the person's PIN on the keypad.

use facelatch_shared::event::Refusal;
use facelatch_shared::time::Millis;

use super::watch::Pending;
use super::{Action, Actions, Phase, Session, push};
use crate::inputs::keypad::Key;
use crate::pin::Pin;

/// A PIN being typed.
#[derive(Debug)]
pub(super) struct Factor {
    pending: Pending,
    pin: Pin,
    pub(super) until: Millis,
    /// The PIN is being checked.
    checking: bool,
}

impl Factor {
    /// Digits typed so far.
    pub(super) fn typed(&self) -> u8 {
        self.pin.len() as u8
    }
}

impl Session {
    pub(super) fn ask_pin(&mut self, now: Millis, pending: Pending) {
        let until = now.plus(u64::from(self.policy.pin_timeout_s) * 1000);
        self.phase = Phase::AskingPin(Factor { pending, pin: Pin::default(), until, checking: false });
    }

    pub(super) fn key(&mut self, now: Millis, key: Key, actions: &mut Actions) {
        let factor = match (&mut self.phase, key) {
            (Phase::AskingPin(factor), _) => factor,
            (Phase::Summoning(_), _) => return self.summons_key(key, actions),
            // Not `#`: who types the PIN before being asked for it ends with one.
            (Phase::Watching, Key::Clear) => return self.summon(now),
            (Phase::Enrolling(_), Key::Enter) => return self.agree(now),
            (Phase::Enrolling(enrolling), Key::Clear) if !enrolling.storing => {
                return self.decline(now, actions);
            }
            _ => return,
        };
        if factor.checking {
            return;
        }
        match key {
            Key::Digit(digit) => factor.pin.push(digit),
            // Cleared, and when there is nothing to clear, called off.
            Key::Clear if factor.pin.is_empty() => self.watch(),
            Key::Clear => factor.pin = Pin::default(),
            Key::Enter if factor.pin.is_empty() => {}
            Key::Enter => {
                // Nobody gets here without a PIN; a hash that is none fits nothing.
                let hash = factor.pending.pin.clone().unwrap_or_default();
                factor.checking = true;
                push(actions, Action::CheckPin { pin: factor.pin.clone(), hash });
            }
        }
    }

    pub(super) fn pin_checked(&mut self, now: Millis, right: bool, actions: &mut Actions) {
        let factor = match &self.phase {
            Phase::AskingPin(factor) => factor,
            Phase::Summoning(_) => return self.summons_pin_checked(now, right, actions),
            _ => return,
        };
        let pending = factor.pending.clone();
        if right {
            self.admit(now, pending, actions);
        } else {
            self.refuse(now, Refusal::WrongPin, Some(pending.candidate), actions);
        }
    }

    pub(super) fn pin_timed_out(&mut self, now: Millis, actions: &mut Actions) {
        let Phase::AskingPin(factor) = &self.phase else { return };
        let candidate = factor.pending.candidate;
        self.refuse(now, Refusal::PinTimedOut, Some(candidate), actions);
    }
}
