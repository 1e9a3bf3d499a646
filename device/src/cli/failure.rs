//! Errors as the operator reads them: what failed, why, what to do; and the exit code they lead to.

use std::error::Error;
use std::fmt;

use facelatch_shared::protocol::{RefusedKind, RefusedRequest};

use crate::config::ConfigError;
use crate::control::{ControlError, StateError};
use crate::store::KeyError;

/// How a command failed; the discriminant is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FailureKind {
    /// It could not be done.
    Failed = 1,
    /// The arguments or the configuration are wrong.
    Usage = 2,
    /// A policy or a verification refused it.
    Refused = 3,
}

/// An error ready for the operator.
#[derive(Debug)]
pub struct Failure {
    kind: FailureKind,
    error: Box<dyn Error + Send + Sync>,
    hint: Option<String>,
}

impl Failure {
    /// A failure of `kind` by `error`.
    pub fn new(kind: FailureKind, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind, error: error.into(), hint: None }
    }

    /// Something that could not be done.
    pub fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(FailureKind::Failed, error)
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Which exit code it leads to.
    #[must_use]
    pub const fn kind(&self) -> FailureKind {
        self.kind
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = self.error.to_string();
        writeln!(f, "error: {told}")?;
        let mut cause = self.error.source();
        while let Some(error) = cause {
            // Most messages name their cause themselves.
            let text = error.to_string();
            if !told.contains(&text) {
                writeln!(f, "  cause: {text}")?;
                told = text;
            }
            cause = error.source();
        }
        match &self.hint {
            Some(hint) => writeln!(f, "  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(FailureKind::Usage, error)
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        Self::failed(error)
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        let kind = match &error {
            StateError::Key(KeyError::Exposed { .. }) => FailureKind::Refused,
            _ => FailureKind::Failed,
        };
        Self::new(kind, error)
    }
}

impl From<RefusedRequest> for Failure {
    fn from(refused: RefusedRequest) -> Self {
        let kind = match refused.kind {
            RefusedKind::Unverified => FailureKind::Refused,
            _ => FailureKind::Failed,
        };
        let failure = Self::new(kind, refused.message.as_str());
        match refused.kind {
            RefusedKind::Storage => failure.hint("look at the disk and at FACELATCH_LOG=debug"),
            RefusedKind::Full => failure.hint("erase people who no longer come: facelatchd people erase ID"),
            _ => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once_and_the_remedy_last() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read x: {0}")]
        struct Naming(#[source] std::io::Error);
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read x")]
        struct Silent(#[source] std::io::Error);
        let fire = || std::io::Error::other("disk on fire");
        let failure = Failure::failed(Naming(fire())).hint("put it out");
        assert_eq!(failure.to_string(), "error: cannot read x: disk on fire\n  hint: put it out\n");
        let failure = Failure::failed(Silent(fire()));
        assert_eq!(failure.to_string(), "error: cannot read x\n  cause: disk on fire\n");
    }

    #[test]
    fn exit_codes_are_fixed() {
        assert_eq!(
            [FailureKind::Failed as u8, FailureKind::Usage as u8, FailureKind::Refused as u8],
            [1, 2, 3]
        );
    }
}
