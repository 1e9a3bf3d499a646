use facelatch_shared::access::Rights;
use facelatch_shared::embedding::{DIM, Embedding};
use facelatch_shared::gallery::{Change, CountingEntropy, Key};
use facelatch_shared::person::Name;
use facelatch_shared::time::UnixMs;

use super::*;
use crate::clock::SimClock;
use crate::people::PeopleError;
use crate::store::MemStore;

const BINDING: ModelBinding = ModelBinding([3; 16]);
const DECIDING: Deciding = (BINDING, Threshold(0.5));
const SENDER: PublicKey = PublicKey([7; 32]);

struct Files {
    people: People,
    log: EventLog,
    gallery: MemStore,
}

/// Vectors of different `axis` are at right angles.
fn view(axis: usize) -> Template {
    let raw: Vec<f32> = (0..DIM).map(|i| f32::from(u8::from(i == axis)) + 0.01).collect();
    Template::quantize(&Embedding::from_raw(&raw).unwrap())
}

impl Files {
    fn new(key: u8, axes: &[usize]) -> Self {
        let (gallery, log) = (MemStore::default(), MemStore::default());
        let entropy = Box::new(CountingEntropy(u64::from(key) * 1000));
        let key = || Key::from_bytes([key; 32]);
        let people = People::open(Box::new(gallery.clone()), key(), entropy).unwrap().people;
        let log = EventLog::open(Box::new(log), &key(), 1 << 20).unwrap().0;
        let mut files = Self { people, log, gallery };
        for &axis in axes {
            let change = Change::Enrol {
                name: Name::new(&format!("Person {axis}")).unwrap(),
                templates: vec![view(axis); 2],
                binding: BINDING,
                rights: Rights::default(),
            };
            files.people.enrol_keeping(change, &[vec![axis as u8; 50]], UnixMs(1)).unwrap();
        }
        files
    }

    fn ask(&mut self, request: TransferRequest) -> Response {
        let clock = SimClock::starting_at(UnixMs(9));
        answer(&mut self.people, &mut self.log, &clock, Some(DECIDING), request)
    }

    /// The gallery as it would be sealed.
    fn export(&mut self) -> (u64, Vec<PersonData>) {
        let asked = self.ask(TransferRequest::BeginExport { to: PublicKey([8; 32]) });
        let Response::Transfer(TransferResponse::Export { number, people, .. }) = asked else {
            panic!("{asked:?}")
        };
        let (mut all, mut from) = (Vec::new(), SubjectId(0));
        while let Response::Transfer(TransferResponse::Person(data)) =
            self.ask(TransferRequest::NextPerson { from })
        {
            from = SubjectId(data.id.0 + 1);
            all.push(*data);
        }
        assert_eq!(all.len(), people as usize);
        (number, all)
    }

    fn import(&mut self, number: u64, people: &[PersonData]) -> Result<Vec<TransferResponse>, Box<Response>> {
        let begin = TransferRequest::BeginImport { from: SENDER, number, binding: BINDING };
        match self.ask(begin) {
            Response::Done => {}
            other => return Err(other.into()),
        }
        let mut said = Vec::new();
        for person in people {
            match self.ask(TransferRequest::ImportPerson(Box::new(person.clone()))) {
                Response::Transfer(response) => said.push(response),
                other => return Err(other.into()),
            }
        }
        let end = TransferRequest::EndImport { from: SENDER, number, people: said.len() as u32 };
        assert_eq!(self.ask(end), Response::Done);
        Ok(said)
    }

    fn logged(&mut self) -> Vec<EventKind> {
        self.log.read().unwrap().0.into_iter().map(|event| event.kind).collect()
    }
}

fn kind(response: &Response) -> RefusedKind {
    match response {
        Response::Refused(refused) => refused.kind,
        other => panic!("{other:?}"),
    }
}

#[test]
fn everyone_is_known_at_the_other_door_and_who_was_before_is_not_there_twice() {
    let (mut here, mut there) = (Files::new(5, &[1, 2, 3]), Files::new(6, &[2]));
    let (number, people) = here.export();
    assert_eq!(here.logged(), [EventKind::GalleryExported { to: [8; 8], people: 3 }]);
    let said = there.import(number, &people).unwrap();
    let imported = |id| TransferResponse::Imported { id: SubjectId(id) };
    assert_eq!(said, [imported(2), TransferResponse::Known { id: SubjectId(1) }, imported(3)]);
    for (axis, id) in [(1, 2), (2, 1), (3, 3)] {
        let best = there.people.identify(&view(axis), BINDING).unwrap().best.unwrap();
        assert_eq!(best.subject, SubjectId(id));
    }
    assert_eq!(there.people.get(SubjectId(2)).unwrap().name.as_str(), "Person 1");
    assert_eq!(there.people.data(SubjectId(2)).unwrap().chips, [vec![1; 50]]);
    let last = there.logged().pop().unwrap();
    assert_eq!(last, EventKind::GalleryImported { from: [7; 8], number, people: 3 });
}

#[test]
fn an_older_copy_and_the_same_one_again_are_refused_over_restarts() {
    let (mut here, mut there) = (Files::new(5, &[1]), Files::new(6, &[]));
    let (first, people) = here.export();
    let (second, _) = here.export();
    assert!(second > first);
    there.import(second, &people).unwrap();
    for number in [first, second] {
        assert_eq!(kind(&there.import(number, &people).unwrap_err()), RefusedKind::Unverified);
    }
    let entropy = Box::new(CountingEntropy(99_000));
    there.people =
        People::open(Box::new(there.gallery.clone()), Key::from_bytes([6; 32]), entropy).unwrap().people;
    assert_eq!(kind(&there.import(second, &people).unwrap_err()), RefusedKind::Unverified);
    // Another door's numbers are its own.
    let other = TransferRequest::BeginImport { from: PublicKey([1; 32]), number: 1, binding: BINDING };
    assert_eq!(there.ask(other), Response::Done);
    assert!(there.import(second + 1, &people).is_ok());
}

#[test]
fn other_models_templates_that_are_none_and_a_stopped_door() {
    let (mut here, mut there) = (Files::new(5, &[1]), Files::new(6, &[]));
    let other = ModelBinding([4; 16]);
    let begin = TransferRequest::BeginImport { from: SENDER, number: 1, binding: other };
    assert_eq!(kind(&there.ask(begin)), RefusedKind::Invalid);
    let (_, people) = here.export();
    for change in [
        |data: &mut PersonData| data.templates[0].binding = ModelBinding([4; 16]),
        |data: &mut PersonData| data.templates[0].codes = vec![0; 128],
        |data: &mut PersonData| data.templates[0].codes = vec![1; 3],
    ] {
        let mut data = people[0].clone();
        change(&mut data);
        let refused = there.ask(TransferRequest::ImportPerson(Box::new(data)));
        assert_eq!(kind(&refused), RefusedKind::Invalid);
    }
    let many = PersonData { templates: vec![people[0].templates[0].clone(); 9], ..people[0].clone() };
    assert!(matches!(there.people.import(&many), Err(PeopleError::Refused(_))));
    assert!(there.people.is_empty());

    // Whoever is enrolled gets a copy of what is stored, from a door that does not run too.
    let clock = SimClock::starting_at(UnixMs(9));
    let mut ask = |request| answer(&mut here.people, &mut here.log, &clock, None, request);
    let Response::Transfer(TransferResponse::Person(data)) =
        ask(TransferRequest::Person { id: SubjectId(1) })
    else {
        panic!()
    };
    assert_eq!((data.name.as_str(), data.templates.len(), data.chips.len()), ("Person 1", 2, 1));
    assert_eq!(kind(&ask(TransferRequest::Person { id: SubjectId(9) })), RefusedKind::UnknownPerson);
    assert_eq!(kind(&ask(TransferRequest::BeginExport { to: SENDER })), RefusedKind::Busy);
    assert_eq!(here.logged().pop(), Some(EventKind::DataExported { subject: SubjectId(1) }));
}
