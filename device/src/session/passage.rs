//! The lock and the door itself: released, secured, opened, forced, held, and the way out, which is always free.

use facelatch_shared::event::{EnrolFailure, EventKind};
use facelatch_shared::time::Millis;

use super::{Action, Actions, Phase, Session, push};
use crate::inputs::InputState;

/// Something is wrong with the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alarm {
    Forced,
    Held,
}

impl Session {
    pub(super) fn contacts(&mut self, now: Millis, contacts: InputState, actions: &mut Actions) {
        let before = core::mem::replace(&mut self.contacts, contacts);
        if contacts.exit_requested && !before.exit_requested {
            push(actions, Action::Log(EventKind::ExitRequested));
            let until = self.release(now, actions);
            if !matches!(self.phase, Phase::Enrolling(_) | Phase::Welcoming { .. }) {
                self.phase = Phase::Exiting { until };
            }
        }
        if contacts.tamper != before.tamper {
            let kind = if contacts.tamper { EventKind::Tampered } else { EventKind::TamperCleared };
            push(actions, Action::Log(kind));
            self.evidence.clear();
        }
        if contacts.service != before.service {
            self.service_button(now, contacts.service);
        }
        match (before.door_open.unwrap_or(false), contacts.door_open.unwrap_or(false)) {
            (false, true) => {
                self.opened_at = Some(now);
                if self.released_until.is_some() {
                    // Whoever was let in is in.
                    self.attempts.admitted = None;
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

    pub(super) fn camera(&mut self, ok: bool, actions: &mut Actions) {
        if core::mem::replace(&mut self.camera_ok, ok) != ok {
            self.evidence.clear();
            self.hints.clear();
            push(actions, Action::Log(if ok { EventKind::CameraBack } else { EventKind::CameraLost }));
        }
    }

    pub(super) fn lock_fault(&mut self, now: Millis, actions: &mut Actions) {
        if core::mem::replace(&mut self.lock_ok, false) {
            push(actions, Action::Log(EventKind::LockFault));
        }
        self.released_until = None;
        self.end_enrol(now, EnrolFailure::Cancelled, actions);
        self.watch();
    }

    pub(super) fn raise_held(&mut self, now: Millis, actions: &mut Actions) {
        if self.alarm.is_none() && self.opened_at.is_some_and(|at| now.since(at) >= self.held_ms()) {
            self.alarm = Some(Alarm::Held);
            push(actions, Action::Log(EventKind::DoorHeld));
        }
    }

    pub(super) fn release(&mut self, now: Millis, actions: &mut Actions) -> Millis {
        let until = now.plus(u64::from(self.policy.times.open_s) * 1000);
        if self.released_until.is_none() {
            push(actions, Action::Release);
            push(actions, Action::Log(EventKind::Released));
        }
        self.released_until = Some(until);
        until
    }

    pub(super) fn secure(&mut self, actions: &mut Actions) {
        self.released_until = None;
        // A door that can tell was not opened: nobody went in.
        if let Some(subject) = self.attempts.admitted.take()
            && self.contacts.door_open == Some(false)
        {
            self.attempts.entered.remove(&subject);
        }
        push(actions, Action::Secure);
        push(actions, Action::Log(EventKind::Secured));
        if matches!(self.phase, Phase::Welcoming { .. } | Phase::Exiting { .. }) {
            self.watch();
        }
    }

    /// A door may stand open this long: for as long as it is released, and then for `held_s`.
    pub(super) fn held_ms(&self) -> u64 {
        (u64::from(self.policy.times.open_s) + u64::from(self.policy.times.held_s)) * 1000
    }
}
