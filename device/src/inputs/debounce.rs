//! Contacts bounce for some milliseconds when they open or close; a level counts once it has held.

use facelatch_shared::time::Millis;

/// Follows one contact. Pure: the caller gives level and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debouncer {
    hold_ms: u64,
    settled: bool,
    other_since: Option<Millis>,
}

impl Debouncer {
    /// Starts settled at `level`; a change counts after it has held for `hold_ms`.
    #[must_use]
    pub const fn new(level: bool, hold_ms: u64) -> Self {
        Self { hold_ms, settled: level, other_since: None }
    }

    /// Takes the level at `at` and returns the settled one. Given every edge, each with the level before it and then the one after it, no press is
    /// missed; of levels that are only read now and then, what happens between two readings goes unseen.
    pub fn update(&mut self, level: bool, at: Millis) -> bool {
        if level == self.settled {
            self.other_since = None;
        } else {
            let since = *self.other_since.get_or_insert(at);
            if at.since(since) >= self.hold_ms {
                self.settled = level;
                self.other_since = None;
            }
        }
        self.settled
    }

    /// When a level that differs from the settled one will have held long enough, if it goes on.
    #[must_use]
    pub fn due(&self) -> Option<Millis> {
        self.other_since.map(|since| since.plus(self.hold_ms))
    }

    /// The settled level.
    #[must_use]
    pub const fn settled(&self) -> bool {
        self.settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounces_do_not_count_and_a_held_level_does() {
        let mut contact = Debouncer::new(false, 30);
        for (at, level, expected) in [
            (0, true, false),
            (10, false, false),
            (20, true, false),
            (40, true, false),
            (49, true, false),
            (50, true, true),
            (60, false, true),
            (70, true, true),
            (80, false, true),
            (109, false, true),
            (110, false, false),
        ] {
            assert_eq!(contact.update(level, Millis(at)), expected, "at {at} ms");
        }
        assert!(!contact.settled());
    }

    #[test]
    fn without_a_hold_every_reading_counts() {
        let mut contact = Debouncer::new(true, 0);
        assert!(!contact.update(false, Millis(5)));
        assert!(contact.update(true, Millis(5)));
    }

    #[test]
    fn time_that_stands_still_settles_nothing() {
        let mut contact = Debouncer::new(false, 30);
        assert!((0..100).all(|_| !contact.update(true, Millis(7))));
    }
}
