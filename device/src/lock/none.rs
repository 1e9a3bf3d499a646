//! No lock at all: decisions are shown and logged, nothing moves.

use super::{Lock, LockError};

/// Does as told by doing nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLock;

impl Lock for NoLock {
    fn release(&mut self) -> Result<(), LockError> {
        Ok(())
    }

    fn secure(&mut self) -> Result<(), LockError> {
        Ok(())
    }
}
