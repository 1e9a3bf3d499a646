use std::path::Path;

use facelatch_shared::access::Rights;
use facelatch_shared::embedding::{DIM, Embedding, ModelBinding, Template};
use facelatch_shared::gallery::{Change, Key};
use facelatch_shared::person::Name;
use facelatch_shared::protocol::{Handler as _, Request};
use facelatch_shared::time::UnixMs;
use facelatch_shared::{erasure, journal};

use super::*;
use crate::clock::SimClock;
use crate::config::DoorConfig;
use crate::control::{Offline, State, answer as ask};
use crate::store::{door_key, load_or_create};

const ADA: SubjectId = SubjectId(1);
const BO: SubjectId = SubjectId(2);
const OLD: ModelBinding = ModelBinding([1; 16]);
const NEW: ModelBinding = ModelBinding([2; 16]);

fn door(folder: &Path) -> DoorConfig {
    DoorConfig { state_dir: folder.to_owned(), ..DoorConfig::default() }
}

fn clock() -> SimClock {
    SimClock::starting_at(UnixMs(1_795_608_000_000))
}

fn view(seed: usize) -> Template {
    let raw: Vec<f32> = (0..DIM).map(|i| ((seed * 131 + i * 37) % 199) as f32 - 99.0).collect();
    Template::quantize(&Embedding::from_raw(&raw).unwrap())
}

fn enrol(people: &mut People, name: &str, seed: usize) -> SubjectId {
    let change = Change::Enrol {
        name: Name::new(name).unwrap(),
        templates: vec![view(seed), view(seed + 1)],
        binding: OLD,
        rights: Rights::default(),
    };
    people.enrol_keeping(change, &[vec![seed as u8; 3000], vec![9; 100]], UnixMs(1)).unwrap()
}

/// A door in the middle of an update: two people, with chips, and templates of the models that are being prepared beside the present ones.
fn during_an_update(folder: &Path) -> State {
    let mut state = State::open_or_create(&door(folder), &clock()).unwrap();
    assert_eq!([enrol(&mut state.people, "Ada", 10), enrol(&mut state.people, "Bo", 20)], [ADA, BO]);
    state.people.carry(NEW, &[(ADA, vec![view(30)]), (BO, vec![view(40)])], UnixMs(2)).unwrap();
    state
}

/// Every file under `folder`, whatever it is called.
fn every_byte(folder: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            bytes.extend(every_byte(&path));
        } else if path.is_file() {
            bytes.extend(std::fs::read(path).unwrap());
        }
    }
    bytes
}

/// The sealed parts and the wrapped key of person `id`, as they lie in the journal now.
fn secrets_of(folder: &Path, id: SubjectId) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(folder.join("gallery.journal")).unwrap();
    let mut found = Vec::new();
    for item in journal::frames(&bytes) {
        let journal::Item::Frame { payload, .. } = item else { panic!("damage") };
        // A record's kind, then the person: enrolment 1, template 2, facts 3, chip 5.
        if [1, 2, 3, 5].contains(&payload[0]) && u32::from(payload[1]) == id.0 {
            found.push(payload[payload.len() - 40..].to_vec());
        }
    }
    found
}

/// What anybody with the device's key can open anywhere in the folder: the number of person's keys that come out.
fn keys_that_open(folder: &Path, id: SubjectId) -> usize {
    let key: [u8; 32] = std::fs::read(folder.join("device.key")).unwrap().try_into().unwrap();
    let key = Key::from_bytes(key);
    let mut about = *b"facelatch gallery 1 ....";
    about[19] = 1;
    about[20..].copy_from_slice(&id.0.to_le_bytes());
    // Nonce, 32 bytes of key, tag.
    every_byte(folder).windows(12 + 32 + 16).filter(|sealed| key.open(sealed, &about).is_some()).count()
}

fn receipt(state: &mut State, id: SubjectId) -> Option<ErasureReceipt> {
    match ask(&mut state.people, &mut state.log, &clock(), Request::ErasureReceipt { id }) {
        Response::ErasureReceipt(receipt) => Some(receipt),
        Response::Refused(_) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_of_an_erased_person_is_left_in_the_folder_not_even_in_the_middle_of_an_update() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = during_an_update(folder.path());
    let (ada, bo) = (secrets_of(folder.path(), ADA), secrets_of(folder.path(), BO));
    assert!(ada.len() >= 6 && bo.len() >= 6, "{} and {} records", ada.len(), bo.len());
    assert_eq!((keys_that_open(folder.path(), ADA), keys_that_open(folder.path(), BO)), (1, 1));

    let erased = ask(&mut state.people, &mut state.log, &clock(), Request::Erase { id: ADA });
    assert_eq!(erased, Response::Done);
    let left = every_byte(folder.path());
    for secret in &ada {
        assert!(!left.windows(secret.len()).any(|w| w == secret), "a sealed part is still there");
    }
    assert_eq!((keys_that_open(folder.path(), ADA), keys_that_open(folder.path(), BO)), (0, 1));
    // Bo is whole, in both models; Ada's templates and chips count for nothing, whatever the update goes on with.
    for (binding, bo, ada) in [(OLD, view(20), view(10)), (NEW, view(40), view(30))] {
        let best = |probe| state.people.identify(&probe, binding).unwrap().best.unwrap();
        assert_eq!(best(bo).subject, BO);
        assert_eq!(best(ada).subject, BO, "nobody else is there to be found");
    }
    state.people.carry(NEW, &[(ADA, vec![view(31)])], UnixMs(3)).unwrap();
    assert!(state.people.chips_to_carry(ModelBinding([3; 16]), SubjectId(0), 9).iter().all(|c| c.0 == BO));
    assert_eq!(state.people.templates(), 3);

    // The door's word for it, for whoever asks now or later.
    let said = receipt(&mut state, ADA).unwrap();
    let erasure = said.erasure;
    assert_eq!((erasure.templates, erasure.models, erasure.chips), (3, 2, 2));
    assert_eq!(erasure::verify(&said.to_string()), Ok(door_key(folder.path()).unwrap().public()));
    drop(state);
    let mut offline = Offline::open(&door(folder.path())).unwrap();
    assert_eq!(offline.handle(Request::ErasureReceipt { id: ADA }), Response::ErasureReceipt(said));
    assert!(matches!(offline.handle(Request::ErasureReceipt { id: BO }), Response::Refused(_)));
}

#[test]
fn copies_of_a_damaged_gallery_go_with_the_person() {
    let folder = tempfile::tempdir().unwrap();
    drop(during_an_update(folder.path()));
    let path = folder.path().join("gallery.journal");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_slice(b"not a record");
    bytes.extend_from_within(..60);
    std::fs::write(&path, bytes).unwrap();
    // The power went while a gallery was being written anew.
    std::fs::copy(&path, folder.path().join("gallery.unfinished")).unwrap();
    let mut state = State::open(&door(folder.path()), &clock()).unwrap();
    let aside = state.aside.clone().unwrap();
    assert!(Path::new(&aside).is_file());
    assert_eq!(keys_that_open(folder.path(), ADA), 2, "in the gallery and in the copy");
    ask(&mut state.people, &mut state.log, &clock(), Request::Erase { id: ADA });
    assert!(!Path::new(&aside).exists());
    assert_eq!((keys_that_open(folder.path(), ADA), keys_that_open(folder.path(), BO)), (0, 1));
    assert!(receipt(&mut state, ADA).is_some());
}

#[test]
fn a_gallery_from_before_the_erasure_does_not_bring_the_person_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = during_an_update(folder.path());
    let path = folder.path().join("gallery.journal");
    let backup = std::fs::read(&path).unwrap();
    ask(&mut state.people, &mut state.log, &clock(), Request::Erase { id: ADA });
    drop(state);
    std::fs::write(&path, backup).unwrap();
    let mut state = State::open(&door(folder.path()), &clock()).unwrap();
    assert!(state.people.get(ADA).is_none() && state.people.get(BO).is_some());
    assert_eq!(keys_that_open(folder.path(), ADA), 0);
    assert!(receipt(&mut state, ADA).is_some_and(|receipt| receipt.is_genuine()));
    let erased = |state: &mut State| {
        let events = state.log.read().unwrap().0;
        events.iter().filter(|event| matches!(event.kind, EventKind::Erased { .. })).count()
    };
    assert_eq!(erased(&mut state), 2);
    drop(state);
    let mut state = State::open(&door(folder.path()), &clock()).unwrap();
    assert_eq!(erased(&mut state), 2, "once is enough");
}

#[test]
fn a_receipt_of_another_door_erases_nobody_and_one_that_is_owed_comes_with_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = during_an_update(folder.path());
    let own = state.people.key_print(BO).unwrap();
    let forged = facelatch_shared::erasure::Erasure {
        subject: BO,
        enrolled_at: UnixMs(1),
        erased_at: UnixMs(2),
        templates: 1,
        models: 1,
        chips: 0,
        key: own,
    };
    let forged = ErasureReceipt::sign(forged, &facelatch_shared::bundle::SecretKey::from_bytes([9; 32]));
    state.log.record(UnixMs(1), facelatch_shared::time::Millis(0), EventKind::ErasureReceipt(forged));
    // Erased, and the power goes before the log hears of it.
    state.people.erase(ADA, UnixMs(3)).unwrap();
    assert!(receipt(&mut state, ADA).is_none());
    drop(state);
    let mut state = State::open(&door(folder.path()), &clock()).unwrap();
    assert!(state.people.get(BO).is_some(), "another door's word");
    assert_eq!(receipt(&mut state, ADA).unwrap().erasure.erased_at, UnixMs(3));
    assert_eq!(state.people.receipts_due(), []);
    drop(state);
    let mut state = State::open(&door(folder.path()), &clock()).unwrap();
    let events = state.log.read().unwrap().0;
    let given = |kind: &EventKind| matches!(kind, EventKind::ErasureReceipt(r) if r.erasure.subject == ADA);
    assert_eq!(events.iter().filter(|event| given(&event.kind)).count(), 1, "given once");
    // The door's own key is made once, for the link and for receipts.
    let key =
        load_or_create(&folder.path().join("link.key"), true, &mut crate::store::SystemEntropy).unwrap();
    assert_eq!(door_key(folder.path()).unwrap().expose(), key.expose());
}
