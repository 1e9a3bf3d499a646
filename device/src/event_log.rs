//! The door's log: every event chained to the one before by a keyed hash, so that a changed, removed or inserted entry shows.
//!
//! The chain proves what lies between two entries; that the newest ones were not cut off shows only against an export or
//! the next entry. What could not be stored is itself recorded, as soon as something can be.

use std::io;

use facelatch_shared::event::{Event, EventKind};
use facelatch_shared::gallery::Key;
use facelatch_shared::journal::{self, Item};
use facelatch_shared::time::{Millis, UnixMs};
use serde::{Deserialize, Serialize};

use crate::store::JournalStore;

/// The log, open for writing.
pub struct EventLog {
    store: Box<dyn JournalStore>,
    key: Key,
    link: Link,
    next_seq: u64,
    bytes: usize,
    limit_bytes: usize,
    lost: u32,
    /// Events since they were last asked for, for whoever watches the door.
    recent: Vec<EventKind>,
}

/// What one reading of the log found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Entries that are whole.
    pub events: usize,
    /// Numbers of entries that do not follow from the entry before them: something was changed, removed or damaged there.
    pub broken_at: Vec<u64>,
    /// Bytes that are no entry.
    pub damaged_bytes: usize,
}

impl Verification {
    /// Whether every entry follows from the one before.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.broken_at.is_empty() && self.damaged_bytes == 0
    }
}

/// One journal payload. The order of the variants is the format.
#[derive(Debug, Serialize, Deserialize)]
enum Entry {
    /// Older entries were rotated out: the chain goes on from this link.
    Base { link: Link },
    /// An event and the link that ends in it.
    Event { event: Event, link: Link },
}

type Link = [u8; 16];

impl EventLog {
    /// Opens the log; `limit_bytes` is where the older half is rotated out.
    ///
    /// # Errors
    /// The system's error when it cannot be read. Damage is no error: it is in the [`Verification`].
    pub fn open(
        mut store: Box<dyn JournalStore>,
        device_key: &Key,
        limit_bytes: usize,
    ) -> io::Result<(Self, Verification)> {
        let key = device_key.derive("facelatch events 1");
        let bytes = store.load()?;
        let read = read(&key, &bytes);
        let log = Self {
            store,
            link: read.link,
            next_seq: read.events.last().map_or(1, |event| event.seq + 1),
            key,
            bytes: bytes.len(),
            limit_bytes,
            lost: 0,
            recent: Vec::new(),
        };
        Ok((log, read.verification))
    }

    /// Appends one event; durable when it returns `true`. When it cannot be stored it is counted, and the count is stored with the next
    /// event that can.
    pub fn record(&mut self, at: UnixMs, uptime: Millis, kind: EventKind) -> bool {
        tracing::info!(event = ?kind, "door");
        if self.recent.len() < RECENT {
            self.recent.push(kind.clone());
        }
        let mut bytes = Vec::new();
        let (mut link, mut seq) = (self.link, self.next_seq);
        let count = self.lost;
        let report = (count > 0).then_some(EventKind::EventsLost { count });
        for kind in report.into_iter().chain([kind]) {
            let event = Event { seq, at, uptime, kind };
            link = next_link(&self.key, &link, &event);
            journal::write_frame(&mut bytes, seq, &encode(&Entry::Event { event, link }));
            seq += 1;
        }
        if self.bytes + bytes.len() > self.limit_bytes
            && let Err(error) = self.rotate()
        {
            tracing::warn!(%error, "the event log could not be rotated");
        }
        match self.store.append(&bytes) {
            Ok(()) => {
                (self.link, self.next_seq, self.lost) = (link, seq, 0);
                self.bytes += bytes.len();
                true
            }
            Err(error) => {
                self.lost = self.lost.saturating_add(1);
                tracing::error!(%error, lost = self.lost, "an event could not be stored");
                false
            }
        }
    }

    /// The number of the newest event; zero when there is none.
    #[must_use]
    pub const fn last_seq(&self) -> u64 {
        self.next_seq - 1
    }

    /// At most `count` events from number `from` on, oldest first. Cheap: frames are walked, and the chain is not verified.
    ///
    /// # Errors
    /// The system's error when the log cannot be read.
    pub fn page(&mut self, from: u64, count: usize) -> io::Result<Vec<Event>> {
        let bytes = self.store.load()?;
        let event = |item| match item {
            Item::Frame { seq, payload } if seq >= from => match postcard::from_bytes(payload) {
                Ok(Entry::Event { event, .. }) => Some(event),
                _ => None,
            },
            _ => None,
        };
        Ok(journal::frames(&bytes).filter_map(event).take(count).collect())
    }

    /// All events that are here, oldest first, and whether they follow from each other.
    ///
    /// # Errors
    /// The system's error when the log cannot be read.
    pub fn read(&mut self) -> io::Result<(Vec<Event>, Verification)> {
        let bytes = self.store.load()?;
        let read = read(&self.key, &bytes);
        Ok((read.events, read.verification))
    }

    /// What was recorded, stored or not, since this was last called; at most the first 64.
    pub fn take_recent(&mut self) -> Vec<EventKind> {
        std::mem::take(&mut self.recent)
    }

    /// Keeps the newest half.
    fn rotate(&mut self) -> io::Result<()> {
        let old = self.store.load()?;
        let mut entries = Vec::new();
        for item in journal::frames(&old) {
            if let Item::Frame { seq, payload } = item
                && let Ok(Entry::Event { link, .. }) = postcard::from_bytes(payload)
            {
                entries.push((seq, payload, link));
            }
        }
        let mut kept = 0;
        let from = entries
            .iter()
            .rposition(|(_, payload, _)| {
                kept += payload.len() + journal::OVERHEAD;
                kept > self.limit_bytes / 2
            })
            .map_or(0, |at| at + 1);
        let Some(&(base_seq, _, link)) = from.checked_sub(1).and_then(|at| entries.get(at)) else {
            return Ok(());
        };
        let mut fresh = Vec::new();
        journal::write_frame(&mut fresh, base_seq, &encode(&Entry::Base { link }));
        for (seq, payload, _) in &entries[from..] {
            journal::write_frame(&mut fresh, *seq, payload);
        }
        self.store.replace(&fresh)?;
        self.bytes = fresh.len();
        Ok(())
    }
}

impl std::fmt::Debug for EventLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventLog")
            .field("next_seq", &self.next_seq)
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}

struct Read {
    events: Vec<Event>,
    verification: Verification,
    link: Link,
}

fn read(key: &Key, bytes: &[u8]) -> Read {
    let mut link = first_link(key);
    let mut events: Vec<Event> = Vec::new();
    let mut verification = Verification::default();
    for item in journal::frames(bytes) {
        let payload = match item {
            Item::Frame { payload, .. } => payload,
            Item::Damage { bytes, .. } | Item::Tail { bytes, .. } => {
                verification.damaged_bytes += bytes;
                continue;
            }
        };
        match postcard::from_bytes(payload) {
            Ok(Entry::Base { link: base }) if events.is_empty() => link = base,
            Ok(Entry::Event { event, link: claimed }) => {
                let follows = next_link(key, &link, &event) == claimed
                    && events.last().is_none_or(|last| event.seq == last.seq + 1);
                if !follows {
                    verification.broken_at.push(event.seq);
                }
                link = claimed;
                events.push(event);
            }
            _ => verification.damaged_bytes += payload.len(),
        }
    }
    verification.events = events.len();
    Read { events, verification, link }
}

fn first_link(key: &Key) -> Link {
    shorten(key.authenticate(&[b"first"]))
}

fn next_link(key: &Key, link: &Link, event: &Event) -> Link {
    shorten(key.authenticate(&[link, &encode(event)]))
}

fn shorten(mac: [u8; 32]) -> Link {
    let mut link = [0; 16];
    link.copy_from_slice(&mac[..16]);
    link
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    match postcard::to_stdvec(value) {
        Ok(bytes) => bytes,
        Err(_) => unreachable!("events have known lengths and a growing buffer"),
    }
}

const RECENT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Fault, MemStore};
    use facelatch_shared::journal::OVERHEAD;

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
        let mut spans = Vec::new();
        let mut at = 0;
        for item in journal::frames(&bytes) {
            let Item::Frame { payload, .. } = item else { panic!() };
            spans.push(at..at + payload.len() + OVERHEAD);
            at = spans[spans.len() - 1].end;
        }
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
        assert_eq!(events.last().unwrap().seq, 500);
        drop(log);
        assert!(open(&store, 2_000).1.is_intact());
    }

    #[test]
    fn a_torn_end_is_survived() {
        let bytes = filled(3).bytes();
        for length in 0..bytes.len() {
            let store = MemStore::holding(bytes[..length].to_vec());
            let (mut log, _) = open(&store, 1 << 20);
            assert!(log.record(UnixMs(0), Millis(0), EventKind::Stopped));
            let (events, verification) = log.read().unwrap();
            assert_eq!(events.last().unwrap().kind, EventKind::Stopped);
            assert!(verification.broken_at.is_empty(), "cut at {length}: {verification:?}");
        }
    }
}
