//! Data that leaves the door or comes to it: one person's, for the person; the gallery, for one other door. See [`facelatch_shared::transfer`].
//!
//! Asked at the door's own console only. The console seals and verifies files; here people are read out and taken in, and the log says so.

use facelatch_shared::bundle::PublicKey;
use facelatch_shared::embedding::{ModelBinding, Template};
use facelatch_shared::event::EventKind;
use facelatch_shared::person::SubjectId;
use facelatch_shared::protocol::{RefusedKind, Response};
use facelatch_shared::score::Threshold;
use facelatch_shared::transfer::{PersonData, TransferRequest, TransferResponse};

use crate::clock::Clock;
use crate::control::refusal_of;
use crate::event_log::EventLog;
use crate::people::People;

/// What decides at a running door: what its templates are bound to, and from which similarity on two faces are one person's.
pub type Deciding = (ModelBinding, Threshold);

/// Answers; `deciding` is `None` for a door that does not run, which knows no models.
pub fn answer(
    people: &mut People,
    log: &mut EventLog,
    clock: &dyn Clock,
    deciding: Option<Deciding>,
    request: TransferRequest,
) -> Response {
    if let TransferRequest::Person { id } = request {
        return person(people, log, clock, id);
    }
    let Some((binding, threshold)) = deciding else {
        let what = "a gallery belongs to models, and these run with the door: start facelatchd";
        return Response::refused(RefusedKind::Busy, what);
    };
    let mut log = |kind| log.record(clock.unix(), clock.now(), kind).then(|| log.last_seq());
    match request {
        TransferRequest::BeginExport { to } => {
            let count = people.templated(binding);
            let Some(number) = log(EventKind::GalleryExported { to: short(to), people: count }) else {
                let what = "the export could not be logged, and none leaves the door without an entry";
                return Response::refused(RefusedKind::Storage, what);
            };
            // The log's numbers grow for ever.
            Response::Transfer(TransferResponse::Export { number, binding, people: count })
        }
        TransferRequest::NextPerson { from } => Response::Transfer(match people.next_data(from, binding) {
            Some(data) => TransferResponse::Person(Box::new(data)),
            None => TransferResponse::End,
        }),
        TransferRequest::BeginImport { from, number, binding: theirs } => {
            if theirs != binding {
                let what = format!(
                    "the gallery's templates belong to model {theirs}, this door's to {binding}: both doors need the same models"
                );
                return Response::refused(RefusedKind::Invalid, &what);
            }
            match people.last_import(from) {
                Some(last) if number <= last => {
                    let what = format!(
                        "gallery number {number} of this door was taken already, or a newer one was (number {last}): export it anew"
                    );
                    Response::refused(RefusedKind::Unverified, &what)
                }
                _ => Response::Done,
            }
        }
        TransferRequest::ImportPerson(data) => {
            match known(people, &data, (binding, threshold)) {
                Err(what) => return Response::refused(RefusedKind::Invalid, &what),
                Ok(Some(id)) => return Response::Transfer(TransferResponse::Known { id }),
                Ok(None) => {}
            }
            match people.import(&data) {
                Ok(id) => {
                    let templates = u8::try_from(data.templates.len()).unwrap_or(u8::MAX);
                    log(EventKind::Enrolled { subject: id, templates });
                    Response::Transfer(TransferResponse::Imported { id })
                }
                Err(error) => refusal_of(&error),
            }
        }
        TransferRequest::EndImport { from, number, people: count } => match people.imported(from, number) {
            Ok(()) => {
                log(EventKind::GalleryImported { from: short(from), number, people: count });
                Response::Done
            }
            Err(error) => refusal_of(&error),
        },
        _ => Response::refused(RefusedKind::Malformed, "this door does not know the request: update it"),
    }
}

fn person(people: &People, log: &mut EventLog, clock: &dyn Clock, id: SubjectId) -> Response {
    let Some(data) = people.data(id) else {
        let what = format!("nobody has the number {id}: `facelatchd people list` shows who is enrolled");
        return Response::refused(RefusedKind::UnknownPerson, &what);
    };
    if !log.record(clock.unix(), clock.now(), EventKind::DataExported { subject: id }) {
        let what = "the export could not be logged, and none leaves the door without an entry";
        return Response::refused(RefusedKind::Storage, what);
    }
    Response::Transfer(TransferResponse::Person(Box::new(data)))
}

/// Who of this door most of the person's templates come close to.
fn known(
    people: &People,
    data: &PersonData,
    (binding, threshold): Deciding,
) -> Result<Option<SubjectId>, String> {
    let mut found = Vec::new();
    for template in &data.templates {
        if template.binding != binding {
            return Err("a template in the gallery belongs to other models than its head says".into());
        }
        let codes =
            template.codes.as_slice().try_into().ok().and_then(|codes| Template::from_codes(codes).ok());
        let template = codes.ok_or("a template in the gallery is none")?;
        let best = people.identify(&template, binding).ok().and_then(|report| report.best);
        found.extend(best.filter(|best| threshold.accepts(best.similarity)).map(|best| best.subject));
    }
    Ok(found.first().copied().filter(|_| found.len() * 2 > data.templates.len()))
}

fn short(key: PublicKey) -> [u8; 8] {
    let mut first = [0; 8];
    first.copy_from_slice(&key.0[..8]);
    first
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
