//! When to try a lost camera again: after 0.5 s, then twice as long each time, up to 10 s.

use facelatch_shared::time::Millis;

/// Counts failed attempts; pure, so that it is tested without sleeping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
    not_before: Option<Millis>,
}

impl Backoff {
    /// Nothing failed yet: the first attempt is due at once.
    #[must_use]
    pub const fn new() -> Self {
        Self { failures: 0, not_before: None }
    }

    /// An attempt failed at `now`. Returns for how many milliseconds to leave the camera alone, 500 to 10,000.
    pub fn failed(&mut self, now: Millis) -> u64 {
        let wait_ms = delay_ms(self.failures);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now.plus(wait_ms));
        wait_ms
    }

    /// The camera gave a frame: the next failure starts at 0.5 s again. Call it for a frame, not for a successful opening, so that
    /// a camera that opens and never delivers does not keep the bus busy.
    pub const fn succeeded(&mut self) {
        *self = Self::new();
    }

    /// Whether an attempt may be made at `now`.
    #[must_use]
    pub fn is_due(&self, now: Millis) -> bool {
        self.not_before.is_none_or(|at| now >= at)
    }

    /// Failures since the last frame.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

const fn delay_ms(failures: u32) -> u64 {
    // Five doublings pass the limit; the shift cannot overflow.
    let doublings = if failures < 5 { failures } else { 5 };
    let wait_ms = FIRST_MS << doublings;
    if wait_ms < LAST_MS { wait_ms } else { LAST_MS }
}

const FIRST_MS: u64 = 500;
const LAST_MS: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_from_half_a_second_to_ten() {
        let mut backoff = Backoff::new();
        let waits: Vec<u64> = (0..8).map(|i| backoff.failed(Millis(i))).collect();
        assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000, 10_000]);
        assert_eq!(backoff.failures(), 8);
        backoff.succeeded();
        assert_eq!(backoff.failed(Millis(0)), 500);
    }

    #[test]
    fn is_due_when_the_wait_is_over_and_not_before() {
        let mut backoff = Backoff::new();
        assert!(backoff.is_due(Millis(0)));
        backoff.failed(Millis(1_000));
        assert!(!backoff.is_due(Millis(1_499)));
        assert!(backoff.is_due(Millis(1_500)));
    }

    #[test]
    fn never_overflows() {
        let mut backoff = Backoff { failures: u32::MAX, not_before: None };
        assert_eq!(backoff.failed(Millis(u64::MAX)), 10_000);
        assert!(backoff.is_due(Millis(u64::MAX)));
    }
}
