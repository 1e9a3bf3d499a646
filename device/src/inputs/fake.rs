//! Contacts that a test or the demonstration presses.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use facelatch_shared::time::Millis;

use super::keypad::{Key, Keypad};
use super::{InputState, Inputs};
use crate::clock::Clock;

/// Contacts set by hand, or by a script over time. Clones share one state.
#[derive(Clone, Default)]
pub struct FakeInputs {
    shared: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    now: InputState,
    fault: Option<String>,
    script: Option<Script>,
}

/// States by the time from which they hold.
type Script = (Arc<dyn Clock>, Vec<(Millis, InputState)>);

impl FakeInputs {
    /// No contact wired, nothing pressed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Follows `script` by `clock`: each state holds from its time on. Times must rise. Before the first, nothing is pressed.
    #[must_use]
    pub fn scripted(clock: Arc<dyn Clock>, script: Vec<(Millis, InputState)>) -> Self {
        let state = State { script: Some((clock, script)), ..State::default() };
        Self { shared: Arc::new(Mutex::new(state)) }
    }

    /// Sets the contacts; ends a script.
    pub fn set(&self, now: InputState) {
        let mut state = self.lock();
        state.now = now;
        state.script = None;
    }

    /// Makes every reading fail with `fault`, or work again with `None`.
    pub fn fail(&self, fault: Option<&str>) {
        self.lock().fault = fault.map(str::to_owned);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain values; nothing panics while they are written.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inputs for FakeInputs {
    fn read(&mut self) -> Result<InputState, String> {
        let state = self.lock();
        if let Some(fault) = &state.fault {
            return Err(fault.clone());
        }
        let Some((clock, script)) = &state.script else { return Ok(state.now) };
        let at = clock.now();
        Ok(script.iter().rev().find(|(from, _)| *from <= at).map_or(state.now, |(_, scripted)| *scripted))
    }
}

/// A keypad on which a test or the demonstration types. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct FakeKeypad {
    typed: Arc<Mutex<Vec<Key>>>,
}

impl FakeKeypad {
    /// Types `keys`.
    pub fn press(&self, keys: &[Key]) {
        self.typed.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(keys);
    }
}

impl Keypad for FakeKeypad {
    fn pressed(&mut self) -> Result<Vec<Key>, String> {
        Ok(std::mem::take(&mut *self.typed.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl std::fmt::Debug for FakeInputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FakeInputs({:?})", self.lock().now)
    }
}

#[cfg(test)]
mod tests {
    use facelatch_shared::time::UnixMs;

    use super::*;
    use crate::clock::SimClock;

    #[test]
    fn a_clone_presses_what_the_other_reads() {
        let hand = FakeInputs::new();
        let mut inputs = hand.clone();
        assert_eq!(inputs.read().unwrap(), InputState::default());
        let pressed = InputState { exit_requested: true, ..InputState::default() };
        hand.set(pressed);
        assert_eq!(inputs.read().unwrap(), pressed);
        hand.fail(Some("wire cut"));
        assert_eq!(inputs.read().unwrap_err(), "wire cut");
        hand.fail(None);
        assert_eq!(inputs.read().unwrap(), pressed);
    }

    #[test]
    fn a_script_follows_the_clock() {
        let clock = Arc::new(SimClock::starting_at(UnixMs(0)));
        let open = InputState { door_open: Some(true), ..InputState::default() };
        let shut = InputState { door_open: Some(false), ..InputState::default() };
        let script = vec![(Millis(10), shut), (Millis(50), open)];
        let mut inputs = FakeInputs::scripted(Arc::clone(&clock) as Arc<dyn Clock>, script);
        let mut read_at = |ms| {
            clock.advance_to(Millis(ms));
            inputs.read().unwrap().door_open
        };
        assert_eq!(
            [read_at(9), read_at(10), read_at(49), read_at(50), read_at(99)],
            [None, Some(false), Some(false), Some(true), Some(true)]
        );
    }
}
