//! A lock without a door, for tests and the demonstration. Stricter than hardware: it remembers what a relay forgives.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use facelatch_shared::time::Millis;

use super::{Lock, LockError};
use crate::clock::Clock;

/// What the door does from an instant on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It can be pulled open from outside.
    Released,
    /// It cannot.
    Secured,
}

/// The fake lock. It starts secured, as the real one does when it is opened, and secures when dropped, as the real one does.
pub struct FakeLock {
    clock: Arc<dyn Clock>,
    shared: Arc<Mutex<State>>,
}

/// Reads what a [`FakeLock`] did, and makes it fail. Clones see the same lock.
#[derive(Clone, Debug)]
pub struct LockProbe {
    shared: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    released: bool,
    changes: Vec<(Millis, Effect)>,
    misuse: Vec<(Millis, &'static str)>,
    fail_release: bool,
    fail_secure: bool,
}

impl FakeLock {
    /// A secured lock that reads time from `clock`, and the probe that watches it.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> (Self, LockProbe) {
        let shared = Arc::new(Mutex::new(State::default()));
        (Self { clock, shared: Arc::clone(&shared) }, LockProbe { shared })
    }

    fn change(&self, to: Effect) -> Result<(), LockError> {
        let at = self.clock.now();
        let mut state = lock(&self.shared);
        let failing = match to {
            Effect::Released => state.fail_release,
            Effect::Secured => state.fail_secure,
        };
        if failing {
            return Err(LockError { line: NAME.to_owned(), what: "made to fail".to_owned() });
        }
        let released = to == Effect::Released;
        if state.released == released {
            // Securing twice is safe by contract; a second release means that the session lost track of its own timer.
            if released {
                state.misuse.push((at, "released while released"));
            }
            return Ok(());
        }
        state.released = released;
        state.changes.push((at, to));
        Ok(())
    }
}

impl Lock for FakeLock {
    fn release(&mut self) -> Result<(), LockError> {
        self.change(Effect::Released)
    }

    fn secure(&mut self) -> Result<(), LockError> {
        self.change(Effect::Secured)
    }
}

impl Drop for FakeLock {
    fn drop(&mut self) {
        let at = self.clock.now();
        let mut state = lock(&self.shared);
        if state.released {
            // The safety net held, but the session should have done it: only a panic may end this way.
            state.misuse.push((at, "dropped while released"));
            state.released = false;
            state.changes.push((at, Effect::Secured));
        }
    }
}

impl LockProbe {
    /// Whether the door can be pulled open now.
    #[must_use]
    pub fn is_released(&self) -> bool {
        lock(&self.shared).released
    }

    /// Every change of the lock with its time, oldest first; repeated securing is none.
    #[must_use]
    pub fn changes(&self) -> Vec<(Millis, Effect)> {
        lock(&self.shared).changes.clone()
    }

    /// What a relay would have forgiven: released while released, dropped while released.
    #[must_use]
    pub fn misuse(&self) -> Vec<(Millis, &'static str)> {
        lock(&self.shared).misuse.clone()
    }

    /// Makes every release fail from now on, or work again.
    pub fn fail_release(&self, failing: bool) {
        lock(&self.shared).fail_release = failing;
    }

    /// Makes every securing fail from now on, or work again.
    pub fn fail_secure(&self, failing: bool) {
        lock(&self.shared).fail_secure = failing;
    }
}

fn lock(shared: &Mutex<State>) -> MutexGuard<'_, State> {
    // A panicking session is what the fake is there to watch: its record stays readable.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

const NAME: &str = "fake lock";

#[cfg(test)]
mod tests {
    use facelatch_shared::time::UnixMs;

    use super::*;
    use crate::clock::SimClock;

    fn fake() -> (FakeLock, LockProbe, Arc<SimClock>) {
        let clock = Arc::new(SimClock::starting_at(UnixMs(0)));
        let (lock, probe) = FakeLock::new(Arc::clone(&clock) as Arc<dyn Clock>);
        (lock, probe, clock)
    }

    #[test]
    fn changes_are_recorded_with_their_time() {
        let (mut lock, probe, clock) = fake();
        lock.secure().unwrap();
        clock.advance_ms(100);
        lock.release().unwrap();
        assert!(probe.is_released());
        clock.advance_ms(5_000);
        lock.secure().unwrap();
        lock.secure().unwrap();
        drop(lock);
        assert_eq!(probe.changes(), [(Millis(100), Effect::Released), (Millis(5_100), Effect::Secured)]);
        assert!(probe.misuse().is_empty());
    }

    #[test]
    fn what_a_relay_forgives_is_remembered() {
        let (mut lock, probe, clock) = fake();
        lock.release().unwrap();
        clock.advance_ms(10);
        lock.release().unwrap();
        clock.advance_ms(10);
        drop(lock);
        assert!(!probe.is_released());
        let expected = [(Millis(10), "released while released"), (Millis(20), "dropped while released")];
        assert_eq!(probe.misuse(), expected);
    }

    #[test]
    fn a_panic_leaves_it_secured() {
        let (mut lock, probe, _) = fake();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            lock.release().unwrap();
            panic!("the session stops here");
        }));
        assert!(outcome.is_err() && !probe.is_released());
        assert_eq!(probe.changes().last().unwrap().1, Effect::Secured);
    }

    #[test]
    fn it_fails_on_demand_and_stays_as_it_was() {
        let (mut lock, probe, _) = fake();
        probe.fail_release(true);
        assert!(lock.release().unwrap_err().to_string().contains("fake lock: made to fail"));
        assert!(!probe.is_released());
        probe.fail_release(false);
        lock.release().unwrap();
        probe.fail_secure(true);
        assert!(lock.secure().is_err() && probe.is_released());
        probe.fail_secure(false);
        lock.secure().unwrap();
    }
}
