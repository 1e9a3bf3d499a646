//! Reading a journal back: every whole record counts, damage is reported and skipped.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::MAX_PEOPLE;
use super::ledger::{Entry, Ledger, LedgerError, Recovery};
use super::record::{FORMAT, Facts, Part, Record, TemplateFacts, about};
use super::seal::Key;
use crate::journal::{self, Item};
use crate::person::SubjectId;

/// A replay under way.
pub(super) struct Replay {
    ledger: Ledger,
    recovery: Recovery,
    promised: BTreeMap<SubjectId, usize>,
}

impl Replay {
    pub(super) fn new(ledger: Ledger) -> Self {
        let recovery = Recovery { headless: true, ..Recovery::default() };
        Self { ledger, recovery, promised: BTreeMap::new() }
    }

    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), LedgerError> {
        for item in journal::frames(bytes) {
            match item {
                Item::Frame { seq, payload } => self.frame(seq, payload)?,
                Item::Damage { bytes, .. } => self.recovery.damaged_bytes += bytes,
                Item::Tail { bytes, .. } => self.recovery.torn_bytes += bytes,
            }
        }
        Ok(())
    }

    fn frame(&mut self, seq: u64, payload: &[u8]) -> Result<(), LedgerError> {
        // A number that does not grow is an old record put back.
        let replayed = self.recovery.records > 0 && seq < self.ledger.next_seq;
        let invented = match self.recovery.records {
            0 => seq > journal::LARGEST_FIRST,
            _ => seq.saturating_sub(self.ledger.next_seq) > journal::MOST_AHEAD,
        };
        let record = postcard::from_bytes::<Record<'_>>(payload).ok().filter(|_| !replayed && !invented);
        let accepted = match record {
            Some(record) => self.record(record)?,
            None => false,
        };
        if accepted {
            self.recovery.records += 1;
            self.ledger.records += 1;
            self.ledger.next_seq = seq.saturating_add(1);
        } else {
            self.recovery.refused += 1;
        }
        Ok(())
    }

    /// Takes one record in; `false` when its seal does not open or it fits nothing.
    fn record(&mut self, record: Record<'_>) -> Result<bool, LedgerError> {
        let ledger = &mut self.ledger;
        Ok(match record {
            Record::Head { format, key_check, next_subject } => {
                if format == 0 || format > FORMAT {
                    return Err(LedgerError::Format { expected: FORMAT, actual: format });
                }
                if ledger.device_key.open(key_check, &about(Part::KeyCheck, SubjectId(0))).is_none() {
                    return Err(LedgerError::WrongKey);
                }
                ledger.next_subject = ledger.next_subject.max(next_subject);
                self.recovery.headless = false;
                self.recovery.older_format |= format < FORMAT;
                true
            }
            Record::Enrol { id, wrapped, sealed, templates } => {
                let Some(entry) = open_person(&ledger.device_key, id, wrapped, sealed) else {
                    return Ok(false);
                };
                if ledger.people.len() >= MAX_PEOPLE || ledger.people.contains_key(&id) {
                    return Ok(false);
                }
                ledger.people.insert(id, entry);
                ledger.next_subject = ledger.next_subject.max(id.0.saturating_add(1));
                self.promised.insert(id, usize::from(templates));
                true
            }
            Record::Template { id, sealed } => {
                let Some(entry) = ledger.people.get_mut(&id) else { return Ok(false) };
                let facts = entry
                    .key
                    .open(sealed, &about(Part::Template, id))
                    .and_then(|plain| postcard::from_bytes::<TemplateFacts>(&plain).ok());
                match facts.and_then(|facts| facts.template().map(|template| (facts, template))) {
                    Some((facts, template)) if entry.has_room_for(facts.binding) => {
                        ledger.gallery.insert(id, facts.binding, &template);
                        entry.templates.push(facts);
                        true
                    }
                    _ => false,
                }
            }
            Record::Facts { id, sealed } => {
                let Some(entry) = ledger.people.get_mut(&id) else { return Ok(false) };
                match open_facts(&entry.key, id, sealed) {
                    Some(facts) if facts.revision > entry.facts.revision => {
                        entry.facts = facts;
                        true
                    }
                    _ => false,
                }
            }
            Record::Chip { id, chip, part, parts, sealed } => match ledger.people.get_mut(&id) {
                Some(entry) => entry.take_chip(id, (chip, part, parts), sealed),
                None => false,
            },
            Record::Erased { id } => {
                self.forget(id);
                self.recovery.erasure_unfinished = true;
                true
            }
            // In a fresh journal there is nothing left to forget.
            Record::ErasedOwing(erasure) => {
                self.recovery.erasure_unfinished |= self.forget(erasure.subject);
                let ledger = &mut self.ledger;
                ledger.next_subject = ledger.next_subject.max(erasure.subject.0.saturating_add(1));
                ledger.owed.insert(erasure.subject, erasure);
                true
            }
            Record::Receipted { id } => {
                ledger.owed.remove(&id);
                true
            }
            Record::Imported { from, number } => {
                ledger.imports.insert(from, number);
                true
            }
        })
    }

    /// Whether there was somebody to forget.
    fn forget(&mut self, id: SubjectId) -> bool {
        self.ledger.gallery.remove(id);
        self.promised.remove(&id);
        self.ledger.people.remove(&id).is_some()
    }

    pub(super) fn finish(mut self) -> Result<(Ledger, Recovery), LedgerError> {
        if self.recovery.headless && self.ledger.people.is_empty() {
            return Err(LedgerError::NoHead);
        }
        for entry in self.ledger.people.values_mut() {
            entry.drop_torn_chips();
        }
        for (&id, &promised) in &self.promised {
            if self.ledger.people.get(&id).is_some_and(|entry| entry.templates.len() < promised) {
                self.recovery.incomplete.push(id);
            }
        }
        Ok((self.ledger, self.recovery))
    }
}

fn open_person(device_key: &Key, id: SubjectId, wrapped: &[u8], sealed: &[u8]) -> Option<Entry> {
    let key: [u8; 32] = device_key.open(wrapped, &about(Part::WrappedKey, id))?.try_into().ok()?;
    let key = Key::from_bytes(key);
    let facts = open_facts(&key, id, sealed)?;
    Some(Entry { key, facts, templates: Vec::new(), chips: Vec::new() })
}

fn open_facts(key: &Key, id: SubjectId, sealed: &[u8]) -> Option<Facts> {
    Facts::decode(&key.open(sealed, &about(Part::Facts, id))?)
}
