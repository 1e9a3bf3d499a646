//! The door's log: every event chained to the one before by a keyed hash, so that a changed, removed, inserted or moved entry shows.
//!
//! Three things hold the chain at its ends. Where older entries were rotated out, the first record is a `Entry::Cut` with a keyed proof
//! that only the door can have made. How far the log reached is kept apart, in the anchor: every [`ANCHOR_EVERY`] events, at each
//! rotation and in an orderly end. And a door at work knows its newest entry itself. So the newest entries can be cut off unseen only
//! after a power cut, and at most [`ANCHOR_EVERY`] of them. What could not be stored is itself recorded, as soon as something can be.

use std::io;

use facelatch_shared::event::{Event, EventKind};
use facelatch_shared::gallery::Key;
use facelatch_shared::journal::{self, Item};
use facelatch_shared::time::{Millis, UnixMs};
use serde::{Deserialize, Serialize};

use crate::session::History;
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
    anchor: Option<Box<dyn JournalStore>>,
    anchored: u64,
    past: Past,
    /// Events since they were last asked for, for whoever watches the door.
    recent: Vec<EventKind>,
}

/// What the log remembers of the time before this start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// The newest instant in it, since an administrator last accepted the clock.
    pub newest: UnixMs,
    /// Failures that still count.
    pub history: History,
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
    /// The number of the newest entry that must be there and is not: the end was cut off.
    pub missing_end: Option<u64>,
}

impl Verification {
    /// Whether every entry follows from the one before.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.broken_at.is_empty() && self.damaged_bytes == 0 && self.missing_end.is_none()
    }
}

/// One journal payload. The order of the variants is the format.
#[derive(Debug, Serialize, Deserialize)]
enum Entry {
    /// As version 0.1.0 wrote a cut, without a proof: reads as a break.
    Base { link: Link },
    /// An event and the link that ends in it.
    Event { event: Event, link: Link },
    /// Older entries were rotated out: the chain goes on from number `seq`, whose link this is.
    Cut { seq: u64, link: Link, proof: Link },
}

/// How far the log reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Anchor {
    seq: u64,
    link: Link,
    proof: Link,
}

type Link = [u8; 16];

impl EventLog {
    /// Opens the log without an anchor; `limit_bytes` is where the older half is rotated out.
    ///
    /// # Errors
    /// The system's error when it cannot be read. Damage is no error: it is in the [`Verification`].
    pub fn open(
        store: Box<dyn JournalStore>,
        device_key: &Key,
        limit_bytes: usize,
    ) -> io::Result<(Self, Verification)> {
        Self::open_with(store, None, device_key, limit_bytes)
    }

    /// Opens the log with `anchor`, a store of its own that holds how far the log reached.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_anchored(
        store: Box<dyn JournalStore>,
        anchor: Box<dyn JournalStore>,
        device_key: &Key,
        limit_bytes: usize,
    ) -> io::Result<(Self, Verification)> {
        Self::open_with(store, Some(anchor), device_key, limit_bytes)
    }

    fn open_with(
        mut store: Box<dyn JournalStore>,
        mut anchor: Option<Box<dyn JournalStore>>,
        device_key: &Key,
        limit_bytes: usize,
    ) -> io::Result<(Self, Verification)> {
        let key = device_key.derive("facelatch events 1");
        let mut bytes = store.load()?;
        let anchored = match &mut anchor {
            Some(anchor) => read_anchor(&key, &anchor.load()?),
            None => None,
        };
        let mut read = read(&key, &bytes);
        read.hold_against(anchored.map(|anchor| (anchor.seq, anchor.link)));
        let mut lost = 0;
        if read.torn > 0 {
            // A write that a power cut tore: it never counted as stored, and what comes now must not follow on half a record.
            bytes.truncate(bytes.len() - read.torn);
            store.replace(&bytes)?;
            lost = 1;
        }
        let anchored = anchored.map_or(0, |anchor| anchor.seq);
        let log = Self {
            store,
            link: read.link,
            // Numbers that were given are not given again, whatever became of their entries.
            next_seq: read.last_seq.max(anchored) + 1,
            key,
            bytes: bytes.len(),
            limit_bytes,
            lost,
            anchor,
            anchored,
            past: read.past,
            recent: Vec::new(),
        };
        Ok((log, read.verification))
    }

    /// Appends one event; durable when it returns `true`. When it cannot be stored it is counted, and the count is stored with the next
    /// event that can.
    pub fn record(&mut self, at: UnixMs, uptime: Millis, kind: EventKind) -> bool {
        // Without its scores: the system's log has more readers than this one.
        tracing::info!(event = name(&kind), "door");
        if self.recent.len() < RECENT {
            self.recent.push(kind.clone());
        }
        let rotated = self.bytes + ROOM > self.limit_bytes && self.rotate_or_warn();
        let count = self.lost;
        let report = (count > 0).then_some(EventKind::EventsLost { count });
        let told = rotated.then(|| EventKind::Rotated { first_kept: self.first_kept() });
        let mut bytes = Vec::new();
        let (mut link, mut seq) = (self.link, self.next_seq);
        for kind in told.into_iter().chain(report).chain([kind]) {
            let event = Event { seq, at, uptime, kind };
            link = next_link(&self.key, &link, &event);
            journal::write_frame(&mut bytes, seq, &encode(&Entry::Event { event, link }));
            seq += 1;
        }
        // A log that cannot be rotated does not eat the disk: what goes beyond its bounds is lost, and counted.
        let stored = if self.bytes + bytes.len() > self.limit_bytes + self.limit_bytes / 2 {
            Err(io::Error::other("the log is full and cannot be rotated"))
        } else {
            self.store.append(&bytes)
        };
        match stored {
            Ok(()) => {
                (self.link, self.next_seq, self.lost) = (link, seq, 0);
                self.bytes += bytes.len();
                if self.next_seq > self.anchored + ANCHOR_EVERY {
                    self.drop_anchor();
                }
                true
            }
            Err(error) => {
                self.lost = self.lost.saturating_add(1);
                tracing::error!(%error, lost = self.lost, "an event could not be stored");
                false
            }
        }
    }

    /// What it remembers of the time before it was opened.
    #[must_use]
    pub const fn past(&self) -> Past {
        self.past
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
        let mut read = read(&self.key, &bytes);
        // What was stored since the start, or was there at it.
        read.hold_against((self.next_seq > 1).then_some((self.next_seq - 1, self.link)));
        Ok((read.events, read.verification))
    }

    /// What was recorded, stored or not, since this was last called; at most the first 64.
    pub fn take_recent(&mut self) -> Vec<EventKind> {
        std::mem::take(&mut self.recent)
    }

    fn rotate_or_warn(&mut self) -> bool {
        self.rotate().unwrap_or_else(|error| {
            tracing::warn!(%error, "the event log could not be rotated");
            false
        })
    }

    /// Keeps the newest half; `false` when there is nothing to drop.
    fn rotate(&mut self) -> io::Result<bool> {
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
        let Some(&(seq, _, link)) = from.checked_sub(1).and_then(|at| entries.get(at)) else {
            return Ok(false);
        };
        let proof = prove(&self.key, b"cut", seq, &link);
        let mut fresh = Vec::new();
        journal::write_frame(&mut fresh, seq, &encode(&Entry::Cut { seq, link, proof }));
        for (seq, payload, _) in &entries[from..] {
            journal::write_frame(&mut fresh, *seq, payload);
        }
        self.store.replace(&fresh)?;
        self.bytes = fresh.len();
        self.drop_anchor();
        Ok(true)
    }

    /// The number of the oldest event that is here.
    fn first_kept(&mut self) -> u64 {
        self.page(0, 1).ok().and_then(|page| page.first().map(|event| event.seq)).unwrap_or(self.next_seq)
    }

    /// Says how far the log reaches, in the store of its own. Failure costs only the proof of the end.
    fn drop_anchor(&mut self) {
        let (seq, link) = (self.next_seq - 1, self.link);
        let Some(store) = self.anchor.as_mut().filter(|_| seq > self.anchored) else { return };
        let anchor = Anchor { seq, link, proof: prove(&self.key, b"end", seq, &link) };
        let mut bytes = Vec::new();
        journal::write_frame(&mut bytes, seq, &encode(&anchor));
        match store.replace(&bytes) {
            Ok(()) => self.anchored = seq,
            Err(error) => tracing::warn!(%error, "the end of the event log could not be anchored"),
        }
    }
}

impl Drop for EventLog {
    fn drop(&mut self) {
        self.drop_anchor();
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
    last_seq: u64,
    /// Bytes at the end that are no whole record.
    torn: usize,
    past: Past,
    /// Whether older entries were rotated out.
    cut: bool,
    /// The links of the cut and of all entries, in their order.
    links: Vec<(u64, Link)>,
}

impl Read {
    /// Holds the log against how far it must reach.
    fn hold_against(&mut self, end: Option<(u64, Link)>) {
        // An anchor from before what was rotated out since: the cut has a proof of its own.
        let before_cut = |end: &(u64, Link)| self.cut && self.links.first().is_some_and(|cut| end.0 < cut.0);
        let Some(end) = end.filter(|end| !self.links.contains(end) && !before_cut(end)) else { return };
        if self.last_seq >= end.0 {
            self.verification.broken_at.push(end.0);
        } else {
            self.verification.missing_end = Some(end.0);
        }
    }
}

fn read(key: &Key, bytes: &[u8]) -> Read {
    let mut read = Read {
        events: Vec::new(),
        verification: Verification::default(),
        link: first_link(key),
        last_seq: 0,
        torn: 0,
        past: Past::default(),
        cut: false,
        links: Vec::new(),
    };
    for item in journal::frames(bytes) {
        let (seq, payload) = match item {
            Item::Frame { seq, payload } => (seq, payload),
            Item::Damage { bytes, .. } => {
                read.verification.damaged_bytes += bytes;
                continue;
            }
            Item::Tail { bytes, .. } => {
                read.torn = bytes;
                continue;
            }
        };
        match postcard::from_bytes(payload) {
            Ok(Entry::Cut { seq: at, link, proof })
                if read.links.is_empty() && seq == at && proof == prove(key, b"cut", at, &link) =>
            {
                (read.link, read.last_seq) = (link, at);
                read.links.push((at, link));
                read.cut = true;
            }
            // A number that nobody gave must not use up all others.
            Ok(Entry::Event { event, link: claimed })
                if event.seq.saturating_sub(read.last_seq) <= journal::MOST_AHEAD =>
            {
                let follows = next_link(key, &read.link, &event) == claimed
                    && event.seq == read.last_seq + 1
                    && event.seq == seq;
                if !follows {
                    read.verification.broken_at.push(event.seq);
                }
                (read.link, read.last_seq) = (claimed, event.seq);
                read.links.push((event.seq, claimed));
                read.past.newest = match event.kind {
                    EventKind::ClockAccepted => event.at,
                    _ => read.past.newest.max(event.at),
                };
                read.past.history.add(&event);
                read.events.push(event);
            }
            _ => read.verification.damaged_bytes += payload.len(),
        }
    }
    read.verification.events = read.events.len();
    read
}

fn read_anchor(key: &Key, bytes: &[u8]) -> Option<Anchor> {
    let anchor = journal::frames(bytes).find_map(|item| match item {
        Item::Frame { payload, .. } => postcard::from_bytes::<Anchor>(payload).ok(),
        _ => None,
    })?;
    (anchor.proof == prove(key, b"end", anchor.seq, &anchor.link)).then_some(anchor)
}

/// That the door itself says that entry `seq` has this link.
fn prove(key: &Key, what: &[u8; 3], seq: u64, link: &Link) -> Link {
    shorten(key.authenticate(&[what, &seq.to_le_bytes(), link]))
}

/// The event's name without anything it says.
fn name(kind: &EventKind) -> String {
    let text = format!("{kind:?}");
    text.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
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
/// The end of the log is written down apart after so many events.
pub const ANCHOR_EVERY: u64 = 16;
/// More than the records of one step take.
const ROOM: usize = 256;

#[cfg(test)]
#[path = "event_log_tests.rs"]
mod tests;
