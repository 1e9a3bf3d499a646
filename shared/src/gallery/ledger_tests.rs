use super::*;
use crate::embedding::{DIM, Embedding};
use crate::gallery::CountingEntropy;
use crate::journal::{Item, OVERHEAD};

const MODEL: ModelBinding = ModelBinding([3; 16]);
const NOW: UnixMs = UnixMs(1_700_000_000_000);

fn key() -> Key {
    Key::from_bytes([9; 32])
}

fn template(seed: usize) -> Template {
    let raw: Vec<f32> = (0..DIM).map(|i| (((seed * 131 + i * 37) * 7919) % 199) as f32 - 99.0).collect();
    Template::quantize(&Embedding::from_raw(&raw).unwrap())
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A ledger with its journal, as a store would keep it.
struct Kept {
    ledger: Ledger,
    journal: Vec<u8>,
    entropy: CountingEntropy,
}

impl Kept {
    fn new() -> Self {
        let mut entropy = CountingEntropy::default();
        let (ledger, journal) = Ledger::create(key(), &mut entropy).unwrap();
        Self { ledger, journal, entropy }
    }

    fn apply(&mut self, change: Change) -> SubjectId {
        let prepared = self.ledger.prepare(change, NOW, &mut self.entropy).unwrap();
        self.journal.extend_from_slice(&prepared.bytes);
        let subject = prepared.subject;
        self.ledger.commit(prepared);
        subject
    }

    fn enrol(&mut self, text: &str, views: usize) -> SubjectId {
        let start = self.ledger.next_subject as usize * 10;
        let templates = (start..start + views).map(template).collect();
        self.apply(Change::Enrol { name: name(text), templates, binding: MODEL, rights: Rights::default() })
    }

    fn people(&self) -> Vec<Person> {
        self.ledger.people().collect()
    }
}

fn five_people() -> Kept {
    let mut kept = Kept::new();
    for text in ["Ada", "Bo", "Cem", "Dee", "Eve"] {
        kept.enrol(text, 3);
    }
    kept.apply(Change::Rename(SubjectId(2), name("Boris")));
    kept.apply(Change::SetState(SubjectId(3), PersonState::Suspended));
    kept
}

#[test]
fn a_replay_gives_back_what_was_acknowledged() {
    let mut kept = five_people();
    kept.apply(Change::Erase(SubjectId(4)));
    let (back, recovery) = Ledger::replay(key(), &kept.journal).unwrap();
    assert_eq!(back.people().collect::<Vec<_>>(), kept.people());
    assert!(!recovery.is_damage() && recovery.torn_bytes == 0, "{recovery:?}");
    assert_eq!(back.gallery().templates(), 12);
    assert_eq!(back.person(SubjectId(2)).unwrap().name, name("Boris"));
    assert_eq!((back.next_seq, back.next_subject), (kept.ledger.next_seq, 6));
}

#[test]
fn compaction_keeps_people_and_forgets_history_and_numbers_go_on() {
    let mut kept = five_people();
    kept.apply(Change::Erase(SubjectId(5)));
    let before = kept.people();
    let fresh = kept.ledger.compact(&mut kept.entropy).unwrap();
    assert!(fresh.len() < kept.journal.len());
    let (mut back, recovery) = Ledger::replay(key(), &fresh).unwrap();
    assert!(!recovery.is_damage());
    assert_eq!(back.people().collect::<Vec<_>>(), before);
    let change = Change::Enrol {
        name: name("Flo"),
        templates: [template(1)].into(),
        binding: MODEL,
        rights: Rights::default(),
    };
    let prepared = back.prepare(change, NOW, &mut kept.entropy).unwrap();
    assert_eq!(prepared.subject, SubjectId(6), "an erased number is not given again");
    back.commit(prepared);
}

#[test]
fn the_wrong_key_is_named_and_nothing_is_taken_for_damage() {
    let kept = five_people();
    let error = Ledger::replay(Key::from_bytes([8; 32]), &kept.journal).unwrap_err();
    assert_eq!(error, LedgerError::WrongKey);
    assert_eq!(Ledger::replay(key(), b"not a journal").unwrap_err(), LedgerError::NoHead);
}

#[test]
fn nothing_of_a_person_lies_in_the_clear() {
    let mut kept = Kept::new();
    kept.enrol("Wilhelmina", 5);
    assert!(!kept.journal.windows(6).any(|w| w == b"Wilhel"));
    let codes: Vec<u8> = template(10).codes()[..8].iter().map(|&c| c as u8).collect();
    assert!(!kept.journal.windows(8).any(|w| w == codes));
}

#[test]
fn truncated_at_every_byte_every_whole_record_is_recovered() {
    let kept = five_people();
    let starts = frame_starts(&kept.journal);
    for length in 0..kept.journal.len() {
        let whole = starts.iter().filter(|&&(_, end)| end <= length).count();
        match Ledger::replay(key(), &kept.journal[..length]) {
            Ok((_, recovery)) => {
                assert_eq!(
                    (recovery.records, recovery.damaged_bytes, recovery.refused),
                    (whole, 0, 0),
                    "cut at {length}"
                );
            }
            Err(error) => assert!(whole == 0 && error == LedgerError::NoHead, "cut at {length}: {error}"),
        }
    }
}

#[test]
fn one_flipped_bit_anywhere_costs_one_record_and_never_gives_a_false_template() {
    let kept = five_people();
    let good: Vec<Template> = (10..60).map(template).collect();
    let mut place = 12_345_u64;
    for _ in 0..1_000 {
        place = place.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = (place >> 20) as usize % kept.journal.len();
        let mut broken = kept.journal.clone();
        broken[at] ^= 1 << (place >> 8 & 7);
        let (back, recovery) = Ledger::replay(key(), &broken).unwrap();
        assert!(recovery.is_damage() || recovery.torn_bytes > 0, "byte {at} unnoticed");
        // One frame is lost; if it carried a person's key, the three templates that need it cannot be opened either.
        let readable = recovery.records + recovery.refused;
        assert_eq!(readable, frame_starts(&kept.journal).len() - 1, "byte {at}");
        assert!(recovery.refused <= 4, "byte {at}: {recovery:?}");
        for entry in back.people.values() {
            for facts in &entry.templates {
                assert!(
                    good.contains(&facts.template().unwrap()),
                    "byte {at} made a template that nobody enrolled"
                );
            }
        }
    }
}

#[test]
fn records_moved_or_put_back_are_refused() {
    let mut kept = Kept::new();
    kept.enrol("Ada", 1);
    kept.enrol("Bo", 1);
    kept.apply(Change::SetState(SubjectId(1), PersonState::Suspended));
    let frames = frame_starts(&kept.journal);
    // The enrolment of Ada, active, once more at the end: an attacker with the card in hand.
    let mut attacked = kept.journal.clone();
    attacked.extend_from_slice(&kept.journal[frames[1].0..frames[1].1]);
    let (back, recovery) = Ledger::replay(key(), &attacked).unwrap();
    assert_eq!(back.person(SubjectId(1)).unwrap().state, PersonState::Suspended);
    assert_eq!(recovery.refused, 1);
    // Ada's template under Bo's number, with a correct CRC.
    let Some(Item::Frame { seq: _, payload }) = journal::frames(&kept.journal).nth(2) else { panic!() };
    let mut forged = payload.to_vec();
    assert_eq!(forged[1], 1, "the subject's number");
    forged[1] = 2;
    let mut attacked = kept.journal.clone();
    journal::write_frame(&mut attacked, 99, &forged);
    let (back, recovery) = Ledger::replay(key(), &attacked).unwrap();
    assert_eq!((back.gallery().templates(), recovery.refused), (2, 1));
}

#[test]
fn rights_last_over_restarts_and_compaction() {
    let mut kept = five_people();
    let rights = Rights {
        role: crate::access::Role::Administrator,
        valid_until: Some(crate::schedule::Day(20_000)),
        ..Rights::default()
    };
    kept.apply(Change::SetRights(SubjectId(3), rights.clone()));
    kept.apply(Change::Rename(SubjectId(3), name("Cemal")));
    let (again, recovery) = Ledger::replay(key(), &kept.journal).unwrap();
    assert!(!recovery.is_damage() && !recovery.older_format);
    assert_eq!(again.person(SubjectId(3)).unwrap().rights, rights);
    assert_eq!(again.person(SubjectId(1)).unwrap().rights, Rights::default());
    let compacted = kept.ledger.compact(&mut kept.entropy).unwrap();
    let (again, _) = Ledger::replay(key(), &compacted).unwrap();
    assert_eq!(again.people().collect::<Vec<_>>(), kept.people());
    // What was put back from before the change does not undo it.
    let mut replayed = compacted.clone();
    replayed.extend_from_slice(&kept.journal);
    assert_eq!(Ledger::replay(key(), &replayed).unwrap().0.person(SubjectId(3)).unwrap().rights, rights);
}

#[test]
fn changes_that_cannot_be_are_named() {
    let kept = Kept::new();
    let mut entropy = CountingEntropy(77);
    let prepare =
        |change, entropy: &mut CountingEntropy| kept.ledger.prepare(change, NOW, entropy).unwrap_err();
    let enrol = |views| Change::Enrol {
        name: name("X"),
        templates: (0..views).map(template).collect(),
        binding: MODEL,
        rights: Rights::default(),
    };
    assert_eq!(prepare(enrol(0), &mut entropy), ChangeError::Templates { actual: 0 });
    assert_eq!(prepare(enrol(9), &mut entropy), ChangeError::Templates { actual: 9 });
    let unknown = ChangeError::Unknown { subject: SubjectId(4) };
    assert_eq!(prepare(Change::Erase(SubjectId(4)), &mut entropy), unknown);
    assert_eq!(prepare(Change::Rename(SubjectId(4), name("Y")), &mut entropy), unknown);
}

#[test]
fn compaction_is_wanted_when_history_outweighs_people() {
    let mut kept = Kept::new();
    kept.enrol("Ada", 1);
    assert!(!kept.ledger.wants_compaction());
    for turn in 0..80 {
        let state = if turn % 2 == 0 { PersonState::Suspended } else { PersonState::Active };
        kept.apply(Change::SetState(SubjectId(1), state));
    }
    assert!(kept.ledger.wants_compaction());
    kept.ledger.compact(&mut kept.entropy).unwrap();
    assert!(!kept.ledger.wants_compaction());
}

fn frame_starts(journal: &[u8]) -> Vec<(usize, usize)> {
    let mut at = 0;
    let mut spans = Vec::new();
    for item in journal::frames(journal) {
        let Item::Frame { payload, .. } = item else { panic!("damage in a fresh journal") };
        spans.push((at, at + payload.len() + OVERHEAD));
        at += payload.len() + OVERHEAD;
    }
    spans
}
