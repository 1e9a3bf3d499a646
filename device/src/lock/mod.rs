//! The strike or maglock, driven by effect: `secure` and `release` mean the door, whatever the wire's polarity.

pub mod gpio;
pub mod guard;
pub mod fake;
pub mod none;

use thiserror::Error;

/// Holds the door shut, or lets it be pulled open. Egress never depends on it.
pub trait Lock: Send {
    /// The door can be opened from outside from now on.
    ///
    /// # Errors
    /// [`LockError`] when the hardware did not take it; the door is to be taken as secured.
    fn release(&mut self) -> Result<(), LockError>;

    /// The door cannot be opened from outside from now on. Safe to repeat.
    ///
    /// # Errors
    /// [`LockError`] when the hardware did not take it: an alarm, since the door may stand open.
    fn secure(&mut self) -> Result<(), LockError>;
}

/// The lock did not do as told.
#[derive(Debug, Error)]
#[error("lock on {line}: {what}; check the wiring and [lock] in the configuration")]
pub struct LockError {
    /// Chip and line, or the fake's name.
    pub line: String,
    /// What the system said.
    pub what: String,
}

impl LockError {
    /// Whether someone else holds the line.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.what.contains("EBUSY")
    }
}
