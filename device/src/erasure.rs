//! Erasing people for good, and the door's word for it.
//!
//! What is destroyed: the person's key, templates of every model (in use, former, being prepared), chips, and copies of a damaged gallery that
//! were set aside. Slots hold models and an engineer's probes, nothing of the people. The receipt is owed in the gallery's journal until the log
//! has it, so that no power cut loses it; and whoever puts an older gallery back, such as a backup, finds the erased people erased again.

use facelatch_shared::erasure::ErasureReceipt;
use facelatch_shared::event::EventKind;
use facelatch_shared::person::SubjectId;
use facelatch_shared::protocol::{RefusedKind, Response};

use crate::clock::Clock;
use crate::event_log::EventLog;
use crate::people::{People, PeopleError};

/// Forgets a person and gives the receipt for it, where nothing is left on the medium.
///
/// # Errors
/// [`PeopleError`]; after [`PeopleError::ErasureUnfinished`] the person is gone, and the receipt comes with the next start.
pub fn erase(
    people: &mut People,
    log: &mut EventLog,
    clock: &dyn Clock,
    id: SubjectId,
) -> Result<(), PeopleError> {
    let erased = people.erase(id, clock.unix());
    if matches!(erased, Ok(()) | Err(PeopleError::ErasureUnfinished { .. })) {
        // An event that cannot be stored is counted by the log and never undoes what was done.
        log.record(clock.unix(), clock.now(), EventKind::Erased { subject: id });
        settle(people, log, clock);
    }
    erased
}

/// Gives every receipt that is owed: signed, and stored in the log. What cannot be stored is owed on.
pub fn settle(people: &mut People, log: &mut EventLog, clock: &dyn Clock) {
    for receipt in people.receipts_due() {
        let subject = receipt.erasure.subject;
        // The power may have gone between the log and the gallery.
        let known = of(log, subject).is_some_and(|known| known.erasure == receipt.erasure);
        if !known && !log.record(clock.unix(), clock.now(), EventKind::ErasureReceipt(receipt)) {
            continue;
        }
        if let Err(error) = people.receipted(subject) {
            tracing::warn!(%error, "a receipt was given and stays on the list of those that are owed");
        }
    }
}

/// Erases again whom an older gallery, put in the place of this one, brought back: everyone for whose very key the door has given a receipt.
pub fn erase_restored(people: &mut People, log: &mut EventLog, clock: &dyn Clock) {
    let back = |receipt: &ErasureReceipt| {
        let erasure = &receipt.erasure;
        people.key_print(erasure.subject) == Some(erasure.key) && people.is_own(receipt)
    };
    let found: Vec<_> = receipts(log).filter(back).map(|receipt| receipt.erasure.subject).collect();
    for id in found {
        // Whoever is in the log twice is erased once.
        if people.get(id).is_none() {
            continue;
        }
        tracing::warn!(%id, "the gallery is older than an erasure: the person is erased again");
        if let Err(error) = erase(people, log, clock, id) {
            tracing::error!(%id, %error, "a person who was erased before is back and cannot be erased");
        }
    }
}

/// Answers with a person's receipt.
pub fn answer(log: &mut EventLog, id: SubjectId) -> Response {
    match of(log, id) {
        Some(receipt) => Response::ErasureReceipt(receipt),
        None => {
            let what = format!(
                "the log holds no receipt for {id}: not erased, not destroyed yet, or so long ago that it was rotated out"
            );
            Response::refused(RefusedKind::UnknownPerson, &what)
        }
    }
}

/// The newest receipt for `id`.
fn of(log: &mut EventLog, id: SubjectId) -> Option<ErasureReceipt> {
    receipts(log).filter(|receipt| receipt.erasure.subject == id).last()
}

/// All receipts in the log. One that cannot be read has none: its own check says so.
fn receipts(log: &mut EventLog) -> impl Iterator<Item = ErasureReceipt> {
    let events = log.page(0, usize::MAX).unwrap_or_default();
    events.into_iter().filter_map(|event| match event.kind {
        EventKind::ErasureReceipt(receipt) => Some(receipt),
        _ => None,
    })
}

#[cfg(test)]
#[path = "erasure_tests.rs"]
mod tests;
