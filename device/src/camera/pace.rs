//! Lock-step between a replayed camera and whoever consumes its frames: the next frame is made only when the former one is dealt
//! with, so that a slow machine drops nothing and a run is the same everywhere.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;

/// The consumer says [`Pace::done`] for each frame; the camera waits for it.
#[derive(Debug, Default)]
pub struct Pace {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    done: u64,
    closed: bool,
}

impl Pace {
    /// Nothing is dealt with yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Frame `seq` and all before it are dealt with: decided, shown, logged. Also to be called for a frame that failed to decode.
    pub fn done(&self, seq: u64) {
        let mut state = self.lock();
        state.done = state.done.max(seq);
        drop(state);
        self.changed.notify_all();
    }

    /// No more frames will be dealt with; whoever waits is told so.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Waits until frame `seq` is dealt with; returns at once for 0, which comes before the first frame.
    ///
    /// # Errors
    /// [`PaceError`] when the consumer closed, or did not say so within `timeout` of real time.
    pub fn wait_for(&self, seq: u64, timeout: Duration) -> Result<(), PaceError> {
        let pending = |state: &mut State| state.done < seq && !state.closed;
        let (state, _) = self
            .changed
            .wait_timeout_while(self.lock(), timeout, pending)
            .unwrap_or_else(PoisonError::into_inner);
        if state.done >= seq {
            Ok(())
        } else if state.closed {
            Err(PaceError::Closed)
        } else {
            Err(PaceError::TimedOut {
                seq,
                waited_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            })
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Two plain values: no panic can leave them half written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why the next frame is not to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PaceError {
    /// The consumer is gone.
    #[error("the consumer of frames stopped")]
    Closed,
    /// The consumer is stuck, or forgot to say so.
    #[error(
        "frame {seq} was not dealt with within {waited_ms} ms: the consumer must call `done` for every frame"
    )]
    TimedOut {
        /// The frame waited for.
        seq: u64,
        /// How long.
        waited_ms: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn a_waiter_goes_on_when_its_frame_or_a_later_one_is_done() {
        let pace = Pace::new();
        assert_eq!(pace.wait_for(0, Duration::ZERO), Ok(()));
        let other = Arc::clone(&pace);
        let waiter = std::thread::spawn(move || other.wait_for(3, LONG));
        pace.done(2);
        pace.done(5);
        pace.done(1);
        assert_eq!(waiter.join().unwrap(), Ok(()));
    }

    #[test]
    fn closing_wakes_and_a_stuck_consumer_is_named() {
        let pace = Pace::new();
        let short = pace.wait_for(1, Duration::from_millis(5));
        assert_eq!(short, Err(PaceError::TimedOut { seq: 1, waited_ms: 5 }));
        let other = Arc::clone(&pace);
        let waiter = std::thread::spawn(move || other.wait_for(1, LONG));
        pace.close();
        assert_eq!(waiter.join().unwrap(), Err(PaceError::Closed));
    }
}
