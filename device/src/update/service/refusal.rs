//! Why something is not done.

use facelatch_shared::bundle::BundleError;
use facelatch_shared::protocol::RefusedKind;

use crate::people::PeopleError;
use crate::update::updater::UpdateError;

/// Why something is not done.
pub(super) struct Refusal {
    pub(super) kind: RefusedKind,
    pub(super) message: String,
    /// What the log says of it.
    pub(super) logged: Option<&'static str>,
}

impl Refusal {
    pub(super) fn new(kind: RefusedKind, message: &str) -> Self {
        Self { kind, message: message.to_owned(), logged: None }
    }

    pub(super) fn busy() -> Self {
        Self::new(RefusedKind::Busy, "the update is at work: ask for its status")
    }
}

impl From<UpdateError> for Refusal {
    fn from(error: UpdateError) -> Self {
        let (kind, logged) = match &error {
            UpdateError::Bundle(error) => (RefusedKind::Unverified, Some(BundleError::word(error))),
            UpdateError::NoRoot => (RefusedKind::Unverified, Some("no_root")),
            UpdateError::TooLong { .. } => (RefusedKind::Unverified, Some("too_long")),
            UpdateError::Storage(_) => (RefusedKind::Storage, None),
            UpdateError::OutOfOrder { .. } | UpdateError::OutOfPlace { .. } | UpdateError::NoHeader => {
                (RefusedKind::OutOfOrder, None)
            }
            UpdateError::TrialUnderWay => (RefusedKind::Busy, None),
            _ => (RefusedKind::Invalid, None),
        };
        Self { kind, message: error.to_string(), logged }
    }
}

impl From<PeopleError> for Refusal {
    fn from(error: PeopleError) -> Self {
        Self::new(RefusedKind::Storage, &error.to_string())
    }
}
