//! Failures: the pause after a few in a row, the bar after many, and who went in a short while ago.

use std::collections::BTreeMap;

use facelatch_shared::access::Authority;
use facelatch_shared::event::{Event, EventKind, Refusal};
use facelatch_shared::person::SubjectId;
use facelatch_shared::time::Millis;

use super::{Action, Actions, Phase, Session, push};

/// What the log remembers of failures from before a restart: pulling the plug does not begin the count anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Refusals that may be attacks, since somebody was let in.
    pub suspicious: u16,
    /// Whether the door was barred.
    pub barred: bool,
}

impl History {
    /// Adds an event, oldest first.
    pub fn add(&mut self, event: &Event) {
        match &event.kind {
            EventKind::Refused { reason, .. } if reason.is_suspicious() => {
                self.suspicious = self.suspicious.saturating_add(1);
            }
            EventKind::Barred { .. } => self.barred = true,
            EventKind::Granted { .. } | EventKind::BarLifted { .. } => *self = Self::default(),
            _ => {}
        }
    }
}

/// What the session remembers of attempts.
#[derive(Debug)]
pub(super) struct Attempts {
    /// In a row, forgiven after a while: for the pause.
    pub(super) failures: u8,
    last_failure: Millis,
    /// In a row, forgiven by nothing but success or an administrator: for the bar.
    pub(super) suspicious: u16,
    pub(super) barred: bool,
    /// Who went in and when, for as long as it matters. At most one entry a person.
    pub(super) entered: BTreeMap<SubjectId, Millis>,
    /// Who was let in on the present release.
    pub(super) admitted: Option<SubjectId>,
}

impl Attempts {
    pub(super) const fn new(history: History) -> Self {
        Self {
            failures: 0,
            last_failure: Millis(0),
            suspicious: history.suspicious,
            barred: history.barred,
            entered: BTreeMap::new(),
            admitted: None,
        }
    }

    pub(super) fn forgive(&mut self, now: Millis) {
        if self.failures > 0 && now.since(self.last_failure) >= FORGIVE_MS {
            self.failures = 0;
        }
    }

    pub(super) const fn succeeded(&mut self) {
        self.failures = 0;
        self.suspicious = 0;
    }
}

impl Session {
    /// Counts a refusal; `true` when it ends in a pause or the bar.
    pub(super) fn failed(&mut self, now: Millis, reason: Refusal, actions: &mut Actions) -> bool {
        let attempts = &mut self.attempts;
        attempts.failures = attempts.failures.saturating_add(1);
        attempts.last_failure = now;
        if reason.is_suspicious() {
            attempts.suspicious = attempts.suspicious.saturating_add(1);
            if attempts.suspicious >= self.policy.times.bar_after {
                attempts.barred = true;
                push(actions, Action::Log(EventKind::Barred { failures: attempts.suspicious }));
                self.watch();
                return true;
            }
        }
        if self.attempts.failures >= self.policy.times.lockout_after {
            let seconds = self.lockout_s();
            push(actions, Action::Log(EventKind::LockedOut { seconds: u16::from(seconds) }));
            self.phase = Phase::LockedOut { until: now.plus(u64::from(seconds) * 1000) };
            return true;
        }
        false
    }

    pub(super) fn lift_bar(&mut self, by: Authority, actions: &mut Actions) {
        let attempts = &mut self.attempts;
        (attempts.failures, attempts.suspicious) = (0, 0);
        if std::mem::take(&mut attempts.barred) {
            push(actions, Action::Log(EventKind::BarLifted { by }));
        }
        if matches!(self.phase, Phase::LockedOut { .. }) {
            self.watch();
        }
    }

    pub(super) fn lockout_s(&self) -> u8 {
        let times = &self.policy.times;
        let doublings = self.attempts.failures.saturating_sub(times.lockout_after).min(7);
        let seconds = u32::from(times.lockout_first_s) << doublings;
        u8::try_from(seconds).unwrap_or(u8::MAX).min(times.lockout_max_s)
    }

    /// Whether this person went in too short a while ago.
    pub(super) fn passes_back(&mut self, now: Millis, subject: SubjectId) -> bool {
        let wait_ms = u64::from(self.policy.anti_passback_s) * 1000;
        self.attempts.entered.retain(|_, at| now.since(*at) < wait_ms);
        self.attempts.entered.contains_key(&subject)
    }
}

/// Failures are forgotten after so long without one.
const FORGIVE_MS: u64 = 60_000;
