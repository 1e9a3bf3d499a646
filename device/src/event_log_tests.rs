use super::*;
use crate::store::{Fault, MemStore};
use facelatch_shared::access::Authority;
use facelatch_shared::event::Refusal;
use facelatch_shared::journal::OVERHEAD;
use proptest::prelude::*;

fn key() -> Key {
    Key::from_bytes([1; 32])
}

fn open(store: &MemStore, limit: usize) -> (EventLog, Verification) {
    EventLog::open(Box::new(store.clone()), &key(), limit).unwrap()
}

fn filled(count: u64) -> MemStore {
    let store = MemStore::default();
    let (mut log, _) = open(&store, 1 << 20);
    for n in 0..count {
        assert!(log.record(UnixMs(n as i64), Millis(n), EventKind::Released));
    }
    store
}

#[test]
fn events_come_back_in_order_and_the_chain_holds_over_restarts() {
    let store = filled(3);
    let (mut log, found) = open(&store, 1 << 20);
    assert!(found.is_intact());
    log.record(UnixMs(9), Millis(0), EventKind::Stopped);
    let (events, verification) = log.read().unwrap();
    assert!(verification.is_intact());
    assert_eq!(events.iter().map(|e| e.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(events[3].kind, EventKind::Stopped);
    assert_eq!(log.last_seq(), 4);
    assert_eq!(log.page(2, 2).unwrap(), events[1..3]);
    assert_eq!(log.page(4, 100).unwrap(), events[3..]);
    assert!(log.page(5, 100).unwrap().is_empty());
}

#[test]
fn a_removed_changed_or_forged_entry_shows() {
    let store = filled(5);
    let bytes = store.bytes();
    let spans = spans(&bytes);
    let mut removed = bytes.clone();
    removed.drain(spans[2].clone());
    assert_eq!(open(&MemStore::holding(removed), 1 << 20).1.broken_at, [4]);
    // Entry 3 written anew with a correct CRC, by someone without the key.
    let event = Event { seq: 3, at: UnixMs(0), uptime: Millis(0), kind: EventKind::Secured };
    let mut forged = bytes[..spans[2].start].to_vec();
    journal::write_frame(&mut forged, 3, &encode(&Entry::Event { event, link: [7; 16] }));
    forged.extend_from_slice(&bytes[spans[3].start..]);
    assert_eq!(open(&MemStore::holding(forged), 1 << 20).1.broken_at, [3, 4]);
    let mut flipped = bytes.clone();
    flipped[spans[1].start + 15] ^= 1;
    let (_, verification) = open(&MemStore::holding(flipped), 1 << 20);
    assert!(verification.damaged_bytes > 0 && verification.broken_at == [3]);
}

#[test]
fn lost_events_are_recorded_as_lost() {
    let store = filled(1);
    let (mut log, _) = open(&store, 1 << 20);
    store.set_fault(Fault::DiskFull);
    assert!(!log.record(UnixMs(2), Millis(2), EventKind::DoorForced));
    assert!(!log.record(UnixMs(3), Millis(3), EventKind::DoorClosed));
    store.power_on();
    assert!(log.record(UnixMs(4), Millis(4), EventKind::Secured));
    let (events, verification) = log.read().unwrap();
    assert!(verification.is_intact());
    assert_eq!(events[1].kind, EventKind::EventsLost { count: 2 });
    assert_eq!(events[2].kind, EventKind::Secured);
}

#[test]
fn rotation_keeps_the_newest_and_the_chain() {
    let store = MemStore::default();
    let (mut log, _) = open(&store, 2_000);
    for n in 0..500 {
        log.record(UnixMs(n), Millis(0), EventKind::Released);
        assert!(store.bytes().len() <= 2_000);
    }
    let (events, verification) = log.read().unwrap();
    assert!(verification.is_intact(), "{verification:?}");
    assert!(events.len() > 15);
    let last = events.last().unwrap().seq;
    assert!(last > 500, "500 events and the word of each rotation");
    let told = events.iter().rev().find_map(|event| match event.kind {
        EventKind::Rotated { first_kept } => Some(first_kept),
        _ => None,
    });
    assert_eq!(told, Some(events[0].seq));
    drop(log);
    let (log, verification) = open(&store, 2_000);
    assert!(verification.is_intact());
    assert_eq!(log.last_seq(), last);
}

#[test]
fn a_log_that_cannot_be_rotated_stays_within_bounds() {
    let store = MemStore::default();
    let (mut log, _) = open(&store, 2_000);
    // One entry fills what the others leave: nothing of it can be dropped while replacing fails.
    store.set_fault(Fault::ReplaceFails);
    let kept = (0..500).filter(|n| log.record(UnixMs(*n), Millis(0), EventKind::Released)).count();
    assert!(kept > 30 && store.bytes().len() <= 3_000);
    store.power_on();
    assert!(log.record(UnixMs(0), Millis(0), EventKind::Secured));
    let (events, verification) = log.read().unwrap();
    assert!(verification.is_intact(), "{verification:?}");
    let lost = EventKind::EventsLost { count: 500 - kept as u32 };
    assert!(events.iter().any(|event| event.kind == lost));
}

#[test]
fn a_torn_end_is_survived_and_told() {
    let bytes = filled(3).bytes();
    for length in 0..bytes.len() {
        let store = MemStore::holding(bytes[..length].to_vec());
        let (mut log, _) = open(&store, 1 << 20);
        let torn = store.bytes().len() < length;
        assert!(log.record(UnixMs(0), Millis(0), EventKind::Stopped));
        let (events, verification) = log.read().unwrap();
        assert!(verification.is_intact(), "cut at {length}: {verification:?}");
        assert_eq!(events.last().unwrap().kind, EventKind::Stopped);
        let told = events.iter().any(|event| event.kind == EventKind::EventsLost { count: 1 });
        assert_eq!(told, torn, "cut at {length}");
    }
}

fn anchored(store: &MemStore, anchor: &MemStore) -> (EventLog, Verification) {
    EventLog::open_anchored(Box::new(store.clone()), Box::new(anchor.clone()), &key(), 2_000).unwrap()
}

/// A log of `count` events with its anchor, ended in order.
fn ended(count: u64) -> (MemStore, MemStore) {
    let (store, anchor) = (MemStore::default(), MemStore::default());
    let (mut log, _) = anchored(&store, &anchor);
    for n in 0..count {
        log.record(UnixMs(n as i64), Millis(n), EventKind::LockedOut { seconds: n as u16 });
    }
    drop(log);
    (store, anchor)
}

#[test]
fn a_cut_off_end_shows_and_its_numbers_are_not_given_again() {
    let (store, anchor) = ended(8);
    let bytes = store.bytes();
    let mut frames = spans(&bytes);
    let cut = MemStore::holding(bytes[..frames.remove(5).start].to_vec());
    let (mut log, verification) = anchored(&cut, &anchor);
    assert_eq!(verification.missing_end, Some(8));
    log.record(UnixMs(9), Millis(9), EventKind::Stopped);
    let (events, verification) = log.read().unwrap();
    assert_eq!((events.last().unwrap().seq, verification.broken_at), (9, vec![9]));
    // While the door is at work it knows its end itself.
    let (store, _) = ended(0);
    let (mut log, _) = open(&store, 1 << 20);
    for n in 0..4 {
        log.record(UnixMs(n), Millis(0), EventKind::Released);
    }
    let bytes = store.bytes();
    store.clone().replace(&bytes[..spans(&bytes)[2].start]).unwrap();
    assert_eq!(log.read().unwrap().1.missing_end, Some(4));
}

#[test]
fn a_cut_without_proof_is_a_break() {
    let (store, _) = ended(6);
    let bytes = store.bytes();
    let frames = spans(&bytes);
    let Some(Item::Frame { payload, .. }) = journal::frames(&bytes).nth(2) else { panic!() };
    let Ok(Entry::Event { link, .. }) = postcard::from_bytes(payload) else { panic!() };
    for entry in [Entry::Cut { seq: 3, link, proof: link }, Entry::Base { link }] {
        let mut forged = Vec::new();
        journal::write_frame(&mut forged, 3, &encode(&entry));
        forged.extend_from_slice(&bytes[frames[3].start..]);
        assert!(!open(&MemStore::holding(forged), 1 << 20).1.is_intact());
    }
}

#[test]
fn a_number_that_nobody_gave_is_damage_and_the_log_goes_on() {
    let store = MemStore::default();
    let (mut log, _) = open(&store, 1 << 20);
    log.record(UnixMs(1), Millis(0), EventKind::Released);
    let event = Event { seq: u64::MAX, at: UnixMs(1), uptime: Millis(0), kind: EventKind::Stopped };
    let mut bytes = store.bytes();
    journal::write_frame(&mut bytes, u64::MAX, &encode(&Entry::Event { event, link: [0; 16] }));
    let store = MemStore::holding(bytes);
    let (mut log, verification) = open(&store, 1 << 20);
    assert!(verification.damaged_bytes > 0 && log.last_seq() == 1);
    assert!(log.record(UnixMs(2), Millis(1), EventKind::Secured));
    assert_eq!(log.read().unwrap().0.last().map(|event| event.seq), Some(2));
}

#[test]
fn failures_and_the_newest_instant_are_remembered() {
    let store = MemStore::default();
    let (mut log, _) = open(&store, 1 << 20);
    assert_eq!(log.past(), Past::default());
    let refused = |reason| EventKind::Refused {
        reason,
        subject: None,
        similarity: None,
        threshold: facelatch_shared::score::Threshold(0.4),
    };
    for reason in [Refusal::NotRecognised, Refusal::Suspended, Refusal::NotLive] {
        log.record(UnixMs(9_000), Millis(0), refused(reason));
    }
    log.record(UnixMs(1_000), Millis(0), EventKind::Barred { failures: 2 });
    let past = open(&store, 1 << 20).0.past();
    assert_eq!(past, Past { newest: UnixMs(9_000), history: History { suspicious: 2, barred: true } });
    log.record(UnixMs(2_000), Millis(0), EventKind::ClockAccepted);
    log.record(UnixMs(2_500), Millis(0), EventKind::BarLifted { by: Authority::CommandLine });
    let past = open(&store, 1 << 20).0.past();
    assert_eq!(past, Past { newest: UnixMs(2_500), history: History::default() });
}

fn spans(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut at = 0;
    let mut spans = Vec::new();
    for item in journal::frames(bytes) {
        let Item::Frame { payload, .. } = item else { panic!() };
        spans.push(at..at + payload.len() + OVERHEAD);
        at += payload.len() + OVERHEAD;
    }
    spans
}

proptest! {
    /// Whoever has the files but not the key: takes frames out, repeats them, swaps them, cuts either end, changes or adds bytes.
    #[test]
    fn any_change_shows(count in 2..90_u64, kind in 0..6_u8, a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let (store, anchor) = ended(count);
        let bytes = store.bytes();
        let frames = spans(&bytes);
        let (i, j) = (a.index(frames.len()), b.index(frames.len()));
        let (first, last) = (i.min(j), i.max(j));
        let piece = |at: usize| &bytes[frames[at].clone()];
        let order: Vec<usize> = match kind {
            0 => (0..frames.len()).filter(|at| !(first..=last).contains(at)).collect(),
            1 => (0..=last).chain(first..frames.len()).collect(),
            2 => (0..first).collect(),
            3 => (last + 1..frames.len()).collect(),
            4 => {
                let mut order: Vec<usize> = (0..frames.len()).collect();
                order.swap(first, last);
                order
            }
            _ => (0..frames.len()).collect(),
        };
        let mut changed: Vec<u8> = order.iter().flat_map(|at| piece(*at).to_vec()).collect();
        if kind == 5 {
            let at = a.index(changed.len());
            changed[at] ^= 1 << bit;
        }
        prop_assume!(changed != bytes);
        let (_, verification) = anchored(&MemStore::holding(changed), &anchor);
        prop_assert!(!verification.is_intact(), "{kind} {first} {last} of {}", frames.len());
    }
}
