//! What the gallery and the log answer: one function for the running door and for the files of a stopped one.

use facelatch_shared::access::Rights;
use facelatch_shared::event::EventKind;
use facelatch_shared::gallery::ChangeError;
use facelatch_shared::person::{PersonState, SubjectId};
use facelatch_shared::protocol::{
    PAGE, PersonRow, RefusedKind, Request, Response, RightsChange, RightsRow, VERSION,
};

use crate::clock::Clock;
use crate::erasure;
use crate::event_log::EventLog;
use crate::people::{People, PeopleError};
use crate::transfer;

/// Answers everything that needs no camera and no lock, and writes what was changed into the log.
///
/// The rest (enrolment, status) is refused as [`RefusedKind::Busy`]: a door that has a camera answers that itself, before it asks here.
pub fn answer(people: &mut People, log: &mut EventLog, clock: &dyn Clock, request: Request) -> Response {
    match request {
        // The asker judges whether it understands this door.
        Request::Hello { .. } => Response::Hello { version: VERSION },
        Request::ListPeople { from } => list_people(people, from),
        Request::Rename { id, name } => {
            let renamed = people.rename(id, name, clock.unix());
            done(log, clock, renamed, EventKind::Renamed { subject: id })
        }
        Request::SetState { id, state } => set_state(people, log, clock, id, state),
        Request::Erase { id } => erase(people, log, clock, id),
        Request::ErasureReceipt { id } => erasure::answer(log, id),
        Request::Transfer(request) => transfer::answer(people, log, clock, None, request),
        Request::ListEvents { from } => events(log, from),
        Request::LastEvents { count } => {
            let count = u64::from(count).min(PAGE as u64);
            let from = (log.last_seq() + 1).saturating_sub(count);
            events(log, from)
        }
        Request::VerifyEvents => verify(log),
        Request::CheckEvents => check(log),
        Request::ListRights { from } => list_rights(people, from),
        Request::SetRights { id, change } => set_rights(people, log, clock, id, change),
        Request::Status
        | Request::Rules
        | Request::Unbar
        | Request::AcceptClock
        | Request::Enrol { .. }
        | Request::EnrolAgreed { .. }
        | Request::EnrolProgress
        | Request::CancelEnrol
        | Request::Update(_) => Response::refused(
            RefusedKind::Busy,
            "this needs the running daemon with its camera: start facelatchd, then ask again",
        ),
        _ => Response::refused(RefusedKind::Malformed, "this door does not know the request: update it"),
    }
}

fn list_people(people: &People, from: SubjectId) -> Response {
    let rows = people.list().filter(|person| person.id >= from).take(PAGE).map(|person| PersonRow {
        id: person.id,
        name: person.name,
        state: person.state,
        enrolled_at: person.enrolled_at,
        templates: u8::try_from(person.templates).unwrap_or(u8::MAX),
    });
    Response::People(rows.collect())
}

fn set_state(
    people: &mut People,
    log: &mut EventLog,
    clock: &dyn Clock,
    id: SubjectId,
    state: PersonState,
) -> Response {
    if people.get(id).is_some_and(|person| person.state == state) {
        return Response::Done;
    }
    let set = people.set_state(id, state, clock.unix());
    let kind = match state {
        PersonState::Active => EventKind::Reinstated { subject: id },
        PersonState::Suspended => EventKind::Suspended { subject: id },
    };
    done(log, clock, set, kind)
}

fn list_rights(people: &People, from: SubjectId) -> Response {
    let rows = people.list().filter(|person| person.id >= from).take(PAGE).map(|person| {
        let Rights { role, valid_from, valid_until, schedule, pin, consent } = person.rights;
        RightsRow { id: person.id, role, valid_from, valid_until, schedule, has_pin: pin.is_some(), consent }
    });
    Response::Rights(rows.collect())
}

fn set_rights(
    people: &mut People,
    log: &mut EventLog,
    clock: &dyn Clock,
    id: SubjectId,
    change: RightsChange,
) -> Response {
    if let Some(Some(hash)) = &change.pin
        && !crate::pin::is_hash(hash)
    {
        return Response::refused(RefusedKind::Invalid, "the PIN's hash is none of Argon2id");
    }
    let rights = people.get(id).map(|person| person.rights).unwrap_or_default();
    let set = people.set_rights(id, change.apply(rights), clock.unix());
    done(log, clock, set, EventKind::RightsChanged { subject: id })
}

fn erase(people: &mut People, log: &mut EventLog, clock: &dyn Clock, id: SubjectId) -> Response {
    match erasure::erase(people, log, clock, id) {
        Ok(()) => Response::Done,
        Err(error) => refused(&error),
    }
}

/// Logs what was done, or says why it was not.
fn done(log: &mut EventLog, clock: &dyn Clock, result: Result<(), PeopleError>, kind: EventKind) -> Response {
    match result {
        Ok(()) => {
            // An event that cannot be stored is counted by the log and never undoes what was done.
            log.record(clock.unix(), clock.now(), kind);
            Response::Done
        }
        Err(error) => refused(&error),
    }
}

/// Why the people were not changed.
pub(crate) fn refused(error: &PeopleError) -> Response {
    let kind = match error {
        PeopleError::Refused(ChangeError::Unknown { .. }) => RefusedKind::UnknownPerson,
        PeopleError::Refused(ChangeError::Full) => RefusedKind::Full,
        _ => RefusedKind::Storage,
    };
    Response::refused(kind, &error.to_string())
}

/// At most one page of events, from number `from` on.
fn events(log: &mut EventLog, from: u64) -> Response {
    match log.page(from, PAGE) {
        Ok(events) => Response::Events(events),
        Err(error) => unreadable(&error),
    }
}

fn verify(log: &mut EventLog) -> Response {
    match log.read() {
        Ok((_, found)) => Response::Verified {
            events: found.events as u64,
            broken_at: found.broken_at.into_iter().take(MAX_BROKEN).collect(),
            damaged_bytes: found.damaged_bytes as u64,
        },
        Err(error) => unreadable(&error),
    }
}

fn check(log: &mut EventLog) -> Response {
    match log.read() {
        Ok((_, found)) => Response::Checked {
            events: found.events as u64,
            broken_at: found.broken_at.into_iter().take(MAX_BROKEN).collect(),
            damaged_bytes: found.damaged_bytes as u64,
            missing_end: found.missing_end,
        },
        Err(error) => unreadable(&error),
    }
}

fn unreadable(error: &std::io::Error) -> Response {
    Response::refused(RefusedKind::Storage, &format!("the event log cannot be read: {error}"))
}

/// So many breaks of the chain are named.
const MAX_BROKEN: usize = 64;

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::clock::SimClock;
    use crate::store::{Fault, MemStore};
    use facelatch_shared::access::Role;
    use facelatch_shared::embedding::{DIM, Embedding, ModelBinding, Template};
    use facelatch_shared::gallery::{CountingEntropy, Key};
    use facelatch_shared::person::Name;
    use facelatch_shared::schedule::Day;
    use facelatch_shared::time::{Millis, UnixMs};

    /// A door without camera and lock, in memory.
    pub(in crate::control) struct Files {
        pub(in crate::control) people: People,
        pub(in crate::control) log: EventLog,
        pub(in crate::control) clock: SimClock,
        gallery: MemStore,
        journal: MemStore,
    }

    impl Files {
        pub(in crate::control) fn with_people(count: u16) -> Self {
            let (gallery, journal) = (MemStore::default(), MemStore::default());
            let key = || Key::from_bytes([5; 32]);
            let mut people =
                People::open(Box::new(gallery.clone()), key(), Box::new(CountingEntropy(1))).unwrap().people;
            let (log, _) = EventLog::open(Box::new(journal.clone()), &key(), 1 << 20).unwrap();
            for n in 1..=count {
                let raw: Vec<f32> = (0..DIM).map(|i| (i as f32 + 1.0) * f32::from(n)).collect();
                let view = Template::quantize(&Embedding::from_raw(&raw).unwrap());
                let name = Name::new(&format!("Person {n}")).unwrap();
                people.enrol(name, vec![view], ModelBinding([3; 16]), UnixMs(1)).unwrap();
            }
            Self { people, log, clock: SimClock::starting_at(UnixMs(1_000)), gallery, journal }
        }

        pub(in crate::control) fn ask(&mut self, request: Request) -> Response {
            answer(&mut self.people, &mut self.log, &self.clock, request)
        }

        fn logged(&mut self) -> Vec<EventKind> {
            self.log.read().unwrap().0.into_iter().map(|event| event.kind).collect()
        }
    }

    fn kind_of(response: &Response) -> Option<RefusedKind> {
        match response {
            Response::Refused(refused) => Some(refused.kind),
            _ => None,
        }
    }

    const ADA: SubjectId = SubjectId(1);

    #[test]
    fn changes_are_made_and_logged_once() {
        let mut door = Files::with_people(2);
        let set = |state| Request::SetState { id: ADA, state };
        let name = Name::new("Ada").unwrap();
        for request in [
            Request::Rename { id: ADA, name },
            set(PersonState::Suspended),
            set(PersonState::Suspended),
            set(PersonState::Active),
            Request::Erase { id: ADA },
        ] {
            assert_eq!(door.ask(request), Response::Done);
        }
        assert_eq!(
            door.logged(),
            [
                EventKind::Renamed { subject: ADA },
                EventKind::Suspended { subject: ADA },
                EventKind::Reinstated { subject: ADA },
                EventKind::Erased { subject: ADA },
            ]
        );
        let Response::People(rows) = door.ask(Request::ListPeople { from: SubjectId(0) }) else { panic!() };
        assert_eq!(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["Person 2"]);
    }

    #[test]
    fn nobody_is_changed_who_is_not_there() {
        let mut door = Files::with_people(1);
        let id = SubjectId(9);
        for request in [
            Request::Rename { id, name: Name::new("X").unwrap() },
            Request::SetState { id, state: PersonState::Active },
            Request::Erase { id },
            Request::SetRights { id, change: RightsChange::default() },
        ] {
            let response = door.ask(request);
            assert_eq!(kind_of(&response), Some(RefusedKind::UnknownPerson), "{response:?}");
        }
        assert_eq!(door.logged(), []);
    }

    #[test]
    fn rights_change_part_by_part_and_the_pin_is_never_listed() {
        let mut door = Files::with_people(2);
        let hash = crate::pin::Pin::parse("4711").unwrap().hash(&mut CountingEntropy(1)).unwrap();
        let set = |change| Request::SetRights { id: ADA, change };
        let until = Day::parse("2026-12-31").unwrap();
        for change in [
            RightsChange { role: Some(Role::Administrator), ..RightsChange::default() },
            RightsChange {
                valid_until: Some(Some(until)),
                pin: Some(Some(hash.clone())),
                ..RightsChange::default()
            },
        ] {
            assert_eq!(door.ask(set(change)), Response::Done);
        }
        let row = RightsRow {
            id: ADA,
            role: Role::Administrator,
            valid_from: None,
            valid_until: Some(until),
            schedule: None,
            has_pin: true,
            consent: None,
        };
        let Response::Rights(rows) = door.ask(Request::ListRights { from: ADA }) else { panic!() };
        assert_eq!((rows.len(), &rows[0]), (2, &row));
        assert_eq!(door.people.get(ADA).unwrap().rights.pin, Some(hash));
        let changed = || EventKind::RightsChanged { subject: ADA };
        assert_eq!(door.logged(), [changed(), changed()]);
        let open = RightsChange { pin: Some(Some("4711".try_into().unwrap())), ..RightsChange::default() };
        assert_eq!(kind_of(&door.ask(set(open))), Some(RefusedKind::Invalid));
    }

    #[test]
    fn a_full_disk_is_an_answer_and_changes_nothing() {
        let mut door = Files::with_people(1);
        door.gallery.set_fault(Fault::DiskFull);
        let response = door.ask(Request::Erase { id: ADA });
        assert_eq!(kind_of(&response), Some(RefusedKind::Storage));
        assert!(door.people.get(ADA).is_some());
        assert_eq!(door.logged(), []);
    }

    #[test]
    fn an_unfinished_erasure_is_logged_and_told() {
        let mut door = Files::with_people(3);
        // Room for the record that erases, none for the journal of those who stay.
        door.gallery.set_fault(Fault::PowerCut { after_bytes: door.gallery.written() + 100 });
        let response = door.ask(Request::Erase { id: ADA });
        let Response::Refused(refused) = response else { panic!("{response:?}") };
        assert!(refused.message.contains("out of the gallery"), "{}", refused.message);
        assert_eq!(door.logged(), [EventKind::Erased { subject: ADA }]);
    }

    #[test]
    fn lists_come_in_pages_and_the_newest_events_last() {
        let mut door = Files::with_people(3);
        let Response::People(rows) = door.ask(Request::ListPeople { from: SubjectId(2) }) else { panic!() };
        assert_eq!(rows.iter().map(|row| row.id.0).collect::<Vec<_>>(), [2, 3]);
        for n in 0..600 {
            door.log.record(UnixMs(n), Millis(0), EventKind::Released);
        }
        let mut seqs = |request| match door.ask(request) {
            Response::Events(events) => events.iter().map(|event| event.seq).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(seqs(Request::ListEvents { from: 0 }), (1..=256).collect::<Vec<_>>());
        assert_eq!(seqs(Request::ListEvents { from: 513 }), (513..=600).collect::<Vec<_>>());
        assert!(seqs(Request::ListEvents { from: 601 }).is_empty());
        assert_eq!(seqs(Request::LastEvents { count: 3 }), [598, 599, 600]);
        assert!(seqs(Request::LastEvents { count: 0 }).is_empty());
        assert_eq!(seqs(Request::LastEvents { count: u16::MAX }), (345..=600).collect::<Vec<_>>());
    }

    #[test]
    fn a_changed_log_is_told() {
        let mut door = Files::with_people(0);
        for n in 0..5 {
            door.log.record(UnixMs(n), Millis(0), EventKind::Released);
        }
        let intact = Response::Verified { events: 5, broken_at: vec![], damaged_bytes: 0 };
        assert_eq!(door.ask(Request::VerifyEvents), intact);
        let whole = Response::Checked { events: 5, broken_at: vec![], damaged_bytes: 0, missing_end: None };
        assert_eq!(door.ask(Request::CheckEvents), whole);
        let mut bytes = door.journal.bytes();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let store = MemStore::holding(bytes);
        door.log = EventLog::open(Box::new(store), &Key::from_bytes([5; 32]), 1 << 20).unwrap().0;
        let Response::Verified { events, broken_at, damaged_bytes } = door.ask(Request::VerifyEvents) else {
            panic!()
        };
        assert_eq!((events, broken_at), (4, vec![4]));
        assert!(damaged_bytes > 0);
    }

    #[test]
    fn what_needs_a_camera_is_refused_and_every_asker_learns_the_version() {
        let mut door = Files::with_people(0);
        let name = Name::new("Ada").unwrap();
        for request in
            [Request::Status, Request::Enrol { name }, Request::EnrolProgress, Request::CancelEnrol]
        {
            let response = door.ask(request);
            assert_eq!(kind_of(&response), Some(RefusedKind::Busy));
        }
        assert_eq!(door.ask(Request::Hello { version: 2 }), Response::Hello { version: VERSION });
    }
}
