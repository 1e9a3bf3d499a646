//! What the door itself does for workstations: opens for pairing and shows the code, lists and removes those who are paired, enrols from
//! photographs.

use std::sync::Arc;

use facelatch_shared::access::{Authority, Consent, Label, Rights};
use facelatch_shared::embedding::{ModelBinding, Template};
use facelatch_shared::event::{EnrolFailure, EventKind};
use facelatch_shared::gallery::{Change, ChangeError};
use facelatch_shared::person::{Name, SubjectId};
use facelatch_shared::protocol::{Enrolment, RefusedKind, Response};
use facelatch_shared::remote::{LinkEvent, LinkRequest, LinkResponse, PeerId};
use facelatch_shared::score::Threshold;

use super::Door;
use crate::display::Screen;
use crate::link::{PeerStore, WINDOW_S};
use crate::people::{People, PeopleError};
use crate::session::Input;
use crate::store::SystemEntropy;

/// The door's part in the link.
#[derive(Clone, Debug)]
pub struct Desk {
    /// Who is paired.
    pub peers: Arc<PeerStore>,
    /// Where the link listens, once it does.
    pub port: u16,
}

/// One person's photographs, looked at.
#[derive(Debug)]
pub struct Views {
    /// Whose.
    pub name: Name,
    /// The version of the text that the person agreed to.
    pub consent: Option<Label>,
    /// One template a photograph that serves.
    pub templates: Vec<Template>,
    /// Their chips, at most [`MAX_CHIPS`](facelatch_shared::gallery::MAX_CHIPS): kept where the configuration says so.
    pub chips: Vec<Vec<u8>>,
    /// What they are bound to.
    pub binding: ModelBinding,
    /// Who sent them.
    pub by: PeerId,
}

impl Door {
    /// Gives the door its part in the link.
    #[must_use]
    pub fn with_link(mut self, desk: Desk) -> Self {
        self.desk = Some(desk);
        self
    }

    /// Enrols a person from photographs: the same checks as at the door, all photographs of one person who is not enrolled yet.
    pub fn enrol_views(&mut self, views: Views) -> Response {
        let Views { name, consent, templates, chips, binding, by } = views;
        if binding != self.parts.binding {
            let what = "the door's models were changed while the photographs came: send them again";
            return Response::refused(RefusedKind::Busy, what);
        }
        if let Err(reason) = judge(&self.parts.people, &templates, binding, self.in_force.threshold) {
            self.log(EventKind::EnrolFailed { reason });
            return Response::Enrolment(Enrolment::Failed(reason));
        }
        let now = self.parts.clock.unix();
        let by = Authority::Workstation(by);
        let agreed = consent.map(|text| Consent { text, at: now, by });
        let rights = Rights { consent: agreed.clone(), ..Rights::default() };
        let count = u8::try_from(templates.len()).unwrap_or(u8::MAX);
        let chips = if self.parts.keep_chips { chips } else { Vec::new() };
        let change = Change::Enrol { name, templates, binding, rights };
        let id = match self.parts.people.enrol_keeping(change, &chips, now) {
            Ok(id) => id,
            Err(PeopleError::Refused(error @ ChangeError::Full)) => {
                return Response::refused(RefusedKind::Full, &error.to_string());
            }
            Err(error) => {
                tracing::error!(%error, "the enrolment could not be stored");
                self.log(EventKind::EnrolFailed { reason: EnrolFailure::Storage });
                return Response::Enrolment(Enrolment::Failed(EnrolFailure::Storage));
            }
        };
        if let Some(Consent { text, .. }) = agreed {
            self.log(EventKind::Consented { subject: id, text, by });
        }
        self.log(EventKind::Enrolled { subject: id, templates: count });
        self.follow_gallery();
        self.step(Input::PeopleChanged);
        self.show();
        Response::Enrolment(Enrolment::Done { id })
    }

    /// Answers what concerns the link and is the door's own business.
    pub(super) fn link_request(&mut self, request: LinkRequest) -> Response {
        let Some(desk) = self.desk.clone() else {
            let what = "this door has no link: set link.enabled = true and restart it";
            return Response::refused(RefusedKind::Invalid, what);
        };
        match request {
            LinkRequest::OpenPairing { role } => {
                match desk.peers.open_window(self.parts.clock.now(), role, &mut SystemEntropy) {
                    Ok(code) => {
                        self.log(EventKind::Link(LinkEvent::PairingOpened { role }));
                        self.show();
                        let code = heapless::String::try_from(code.to_string().as_str()).unwrap_or_default();
                        let port = Some(desk.port);
                        Response::Link(LinkResponse::Pairing { code, seconds: WINDOW_S, port })
                    }
                    Err(error) => Response::refused(RefusedKind::Storage, &error.to_string()),
                }
            }
            LinkRequest::ListPeers => Response::Link(LinkResponse::Peers(desk.peers.list())),
            LinkRequest::RemovePeer { id } => match desk.peers.remove(id) {
                Ok(true) => {
                    self.log(EventKind::Link(LinkEvent::Removed { peer: id }));
                    Response::Done
                }
                Ok(false) => {
                    let what = format!("no workstation {id} is paired: look at the list");
                    Response::refused(RefusedKind::Invalid, &what)
                }
                Err(error) => Response::refused(RefusedKind::Storage, &error.to_string()),
            },
            _ => Response::refused(RefusedKind::Invalid, "that is asked over the link, by a workstation"),
        }
    }

    /// The pairing code, while the door is open for pairing.
    pub(super) fn pairing_screen(&self) -> Option<Screen> {
        let desk = self.desk.as_ref()?;
        let now = self.parts.clock.now();
        let (code, until) = desk.peers.window(now)?;
        let seconds = until.since(now).div_ceil(1000);
        Some(Screen::Pair {
            code: heapless::String::try_from(code.to_string().as_str()).unwrap_or_default(),
            seconds_left: u8::try_from(seconds).unwrap_or(u8::MAX),
            seconds_total: u8::try_from(WINDOW_S).unwrap_or(u8::MAX),
        })
    }
}

/// Whether `templates` show one person, and one who is not enrolled.
fn judge(
    people: &People,
    templates: &[Template],
    binding: ModelBinding,
    threshold: Threshold,
) -> Result<(), EnrolFailure> {
    for (at, view) in templates.iter().enumerate() {
        let fits = |other: &Template| threshold.accepts(view.similarity(other));
        if !templates[at + 1..].iter().all(fits) {
            return Err(EnrolFailure::NotOnePerson);
        }
    }
    let known = |view: &Template| -> Option<SubjectId> {
        let best = people.identify(view, binding).ok()?.best?;
        threshold.accepts(best.similarity).then_some(best.subject)
    };
    let found: Vec<SubjectId> = templates.iter().filter_map(known).collect();
    match found.first() {
        Some(&subject) if found.len() * 2 > templates.len() => Err(EnrolFailure::AlreadyEnrolled { subject }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemStore;
    use facelatch_shared::embedding::{DIM, Embedding};
    use facelatch_shared::gallery::{CountingEntropy, Key};
    use facelatch_shared::time::UnixMs;

    const BINDING: ModelBinding = ModelBinding([3; 16]);

    /// Vectors of different `axis` are at right angles; `off` turns one a little.
    fn view(axis: usize, off: f32) -> Template {
        let raw: Vec<f32> =
            (0..DIM).map(|i| f32::from(u8::from(i == axis)) + off * f32::from(u8::from(i == 100))).collect();
        Template::quantize(&Embedding::from_raw(&raw).unwrap())
    }

    #[test]
    fn photographs_are_of_one_person_who_is_not_enrolled() {
        let store = Box::new(MemStore::default());
        let mut people =
            People::open(store, Key::from_bytes([5; 32]), Box::new(CountingEntropy(1))).unwrap().people;
        let judge = |people: &People, views: &[Template]| judge(people, views, BINDING, Threshold(0.5));
        let ada = [view(1, 0.0), view(1, 0.3), view(1, -0.3)];
        assert_eq!(judge(&people, &ada), Ok(()));
        assert_eq!(judge(&people, &ada[..1]), Ok(()));
        let mixed = [ada[0], view(2, 0.0), ada[1]];
        assert_eq!(judge(&people, &mixed), Err(EnrolFailure::NotOnePerson));
        let subject = people.enrol(Name::new("Ada").unwrap(), vec![ada[0]], BINDING, UnixMs(1)).unwrap();
        assert_eq!(judge(&people, &ada), Err(EnrolFailure::AlreadyEnrolled { subject }));
        assert_eq!(judge(&people, &[view(2, 0.1)]), Ok(()));
    }
}
