//! How much may be asked in how much time.

use std::time::Instant;

/// So many at once, and so many a second after that.
#[derive(Debug)]
pub(super) struct Budget {
    burst: f64,
    per_second: f64,
    left: f64,
    at: Instant,
}

impl Budget {
    pub(super) fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        let burst = f64::from(burst);
        Self { burst, per_second: f64::from(per_second), left: burst, at: now }
    }

    /// Takes one, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * self.per_second).min(self.burst);
        self.at = now;
        let granted = self.left >= 1.0;
        if granted {
            self.left -= 1.0;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_and_then_so_many_a_second() {
        let start = Instant::now();
        let mut budget = Budget::new(5, 10, start);
        let granted = |budget: &mut Budget, ms: u64| {
            (0..100).filter(|_| budget.take(start + Duration::from_millis(ms))).count()
        };
        assert_eq!(granted(&mut budget, 0), 5);
        assert_eq!(granted(&mut budget, 50), 0);
        assert_eq!(granted(&mut budget, 250), 2);
        assert_eq!(granted(&mut budget, 100_000), 5, "nothing is saved up beyond the burst");
    }
}
