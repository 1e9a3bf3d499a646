//! Time, injected: the door runs on the system's clocks, tests and the demo on one that they move by hand.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use facelatch_shared::time::{Millis, UnixMs};

/// Where the program reads time. Shared by all threads.
pub trait Clock: Send + Sync {
    /// Monotonic time; timers use only this.
    fn now(&self) -> Millis;
    /// Wall-clock time; the event log and schedules use this. It may jump.
    fn unix(&self) -> UnixMs;
    /// Lets `ms` milliseconds pass. The system's clock sleeps; a simulated one moves on by `ms` and returns at once, so only
    /// the thread that plays time (the camera's) may call it there.
    fn wait_ms(&self, ms: u64);
}

/// The system's clocks; monotonic time starts at zero when this is made.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock that reads zero now.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Millis {
        Millis(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn unix(&self) -> UnixMs {
        // A board without a battery-backed clock may stand before 1970 only if someone set it so; zero then.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn wait_ms(&self, ms: u64) {
        std::thread::sleep(Duration::from_millis(ms));
    }
}

/// A clock that stands still until it is moved; monotonic and wall time move together.
#[derive(Debug)]
pub struct SimClock {
    now_ms: AtomicU64,
    epoch_ms: AtomicI64,
}

impl SimClock {
    /// A clock at monotonic zero and wall time `epoch`.
    #[must_use]
    pub const fn starting_at(epoch: UnixMs) -> Self {
        Self { now_ms: AtomicU64::new(0), epoch_ms: AtomicI64::new(epoch.0) }
    }

    /// Moves both clocks on by `ms`.
    pub fn advance_ms(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Moves monotonic time on to `at`; never back.
    pub fn advance_to(&self, at: Millis) {
        self.now_ms.fetch_max(at.0, Ordering::SeqCst);
    }

    /// Moves the wall clock alone, as an administrator or a time server does.
    pub fn shift_wall_ms(&self, by_ms: i64) {
        self.epoch_ms.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Millis {
        Millis(self.now_ms.load(Ordering::SeqCst))
    }

    fn unix(&self) -> UnixMs {
        let elapsed = i64::try_from(self.now_ms.load(Ordering::SeqCst)).unwrap_or(i64::MAX);
        UnixMs(self.epoch_ms.load(Ordering::SeqCst).saturating_add(elapsed))
    }

    fn wait_ms(&self, ms: u64) {
        self.advance_ms(ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simulated_clock_moves_only_forwards() {
        let clock = SimClock::starting_at(UnixMs(1_000));
        clock.advance_ms(40);
        clock.advance_to(Millis(10));
        assert_eq!((clock.now(), clock.unix()), (Millis(40), UnixMs(1_040)));
        clock.shift_wall_ms(-500);
        assert_eq!((clock.now(), clock.unix()), (Millis(40), UnixMs(540)));
        clock.wait_ms(60);
        assert_eq!(clock.now(), Millis(100), "waiting moves a simulated clock instead of sleeping");
    }
}
