//! The gallery's truth: who is enrolled, as a fold over journal records. Pure: bytes in, bytes out; the caller writes them.
//!
//! A change is made in three steps, so that nothing is believed that is not stored: [`Ledger::prepare`] gives the bytes, the caller appends
//! them durably, [`Ledger::commit`] takes the change into memory.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use thiserror::Error;

use super::carry::SealedChip;
use super::record::{FORMAT, Facts, Part, Record, TemplateFacts, about, encode};
use super::seal::{Entropy, EntropyError, Key};
use super::{Gallery, MAX_CHIP_BYTES, MAX_CHIPS, MAX_PEOPLE, MAX_TEMPLATES};
use crate::access::Rights;
use crate::embedding::{ModelBinding, Template};
use crate::journal::{self, Item};
use crate::person::{Name, PersonState, SubjectId};
use crate::time::UnixMs;

/// Everyone enrolled, with the matcher's view of them.
#[derive(Debug)]
pub struct Ledger {
    device_key: Key,
    pub(super) people: BTreeMap<SubjectId, Entry>,
    pub(super) gallery: Gallery,
    pub(super) next_seq: u64,
    next_subject: u32,
    /// Records in the journal, and how many a fresh one would hold: their difference is what compaction frees.
    records: usize,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    facts: Facts,
    pub(super) templates: Vec<TemplateFacts>,
    /// Chips kept since the enrolment.
    pub(super) chips: Vec<SealedChip>,
}

/// One enrolled person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The number.
    pub id: SubjectId,
    /// The name.
    pub name: Name,
    /// Whether the person may enter.
    pub state: PersonState,
    /// When the person was enrolled.
    pub enrolled_at: UnixMs,
    /// How many templates there are.
    pub templates: usize,
    /// What an administrator has set for the person.
    pub rights: Rights,
}

/// Something to be changed.
#[derive(Clone, Debug)]
pub enum Change {
    /// A new person, with 1 to [`MAX_TEMPLATES`] templates of one model.
    Enrol {
        /// The name.
        name: Name,
        /// The views.
        templates: Vec<Template>,
        /// What made them.
        binding: ModelBinding,
        /// What the person may do, and the consent.
        rights: Rights,
    },
    /// Another name.
    Rename(SubjectId, Name),
    /// May enter, or may not.
    SetState(SubjectId, PersonState),
    /// Other rights.
    SetRights(SubjectId, Rights),
    /// Forget the person. The caller compacts afterwards, which destroys the sealed records and the key.
    Erase(SubjectId),
}

/// A change and the bytes that make it durable.
#[derive(Debug)]
pub struct Prepared {
    /// To be appended to the journal before [`Ledger::commit`].
    pub bytes: Vec<u8>,
    /// Whom it is about.
    pub subject: SubjectId,
    pub(super) effect: Effect,
    pub(super) records: usize,
}

#[derive(Debug)]
pub(super) enum Effect {
    Enrol(Entry),
    Facts(Facts),
    Erase,
    /// Templates of another model for people who are enrolled.
    Carry(Vec<(SubjectId, TemplateFacts)>),
}

/// What a replay found besides whole records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Whole records read.
    pub records: usize,
    /// Bytes at the end that are no record: an unfinished write.
    pub torn_bytes: usize,
    /// Bytes elsewhere that are no record.
    pub damaged_bytes: usize,
    /// Whole frames whose sealed part did not open or that made no sense: damage or tampering.
    pub refused: usize,
    /// The first record was missing.
    pub headless: bool,
    /// People who have fewer templates than were enrolled.
    pub incomplete: Vec<SubjectId>,
    /// An erased person's sealed records are still in the journal: compact it.
    pub erasure_unfinished: bool,
    /// The journal was begun by an older version: compact it, so that no older version reads what it would misread.
    pub older_format: bool,
}

impl Recovery {
    /// Whether anything but a torn end was found.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        self.damaged_bytes > 0 || self.refused > 0 || self.headless || !self.incomplete.is_empty()
    }
}

impl Ledger {
    /// An empty gallery and the bytes of its journal.
    ///
    /// # Errors
    /// [`EntropyError`].
    pub fn create(device_key: Key, entropy: &mut dyn Entropy) -> Result<(Self, Vec<u8>), EntropyError> {
        let mut ledger = Self {
            device_key,
            people: BTreeMap::new(),
            gallery: Gallery::default(),
            next_seq: 0,
            next_subject: 1,
            records: 0,
        };
        let bytes = ledger.compact(entropy)?;
        Ok((ledger, bytes))
    }

    /// Reads a journal: every whole record counts, damage is reported and skipped. A template or name whose seal does not open is
    /// never used.
    ///
    /// # Errors
    /// [`LedgerError::WrongKey`] when the journal was sealed for another device, [`LedgerError::Format`] for another version,
    /// [`LedgerError::NoHead`] when nothing in it can be trusted.
    pub fn replay(device_key: Key, bytes: &[u8]) -> Result<(Self, Recovery), LedgerError> {
        let mut replay = Replay {
            ledger: Self {
                device_key,
                people: BTreeMap::new(),
                gallery: Gallery::default(),
                next_seq: 0,
                next_subject: 1,
                records: 0,
            },
            recovery: Recovery { headless: true, ..Recovery::default() },
            promised: BTreeMap::new(),
        };
        for item in journal::frames(bytes) {
            match item {
                Item::Frame { seq, payload } => replay.frame(seq, payload)?,
                Item::Damage { bytes, .. } => replay.recovery.damaged_bytes += bytes,
                Item::Tail { bytes, .. } => replay.recovery.torn_bytes += bytes,
            }
        }
        replay.finish()
    }

    /// Checks `change` and makes the bytes that record it. Changes nothing.
    ///
    /// # Errors
    /// [`ChangeError`] when it cannot be: unknown person, full gallery, no or too many templates, no random bytes.
    pub fn prepare(
        &self,
        change: Change,
        now: UnixMs,
        entropy: &mut dyn Entropy,
    ) -> Result<Prepared, ChangeError> {
        match change {
            Change::Enrol { name, templates, binding, rights } => {
                if self.people.len() >= MAX_PEOPLE {
                    return Err(ChangeError::Full);
                }
                if templates.is_empty() || templates.len() > MAX_TEMPLATES {
                    return Err(ChangeError::Templates { actual: templates.len() });
                }
                let subject = SubjectId(self.next_subject);
                let entry = Entry {
                    key: Key::generate(entropy)?,
                    facts: Facts { name, state: PersonState::Active, enrolled_at: now, revision: 0, rights },
                    templates: templates.iter().map(|t| TemplateFacts::new(t, binding, now)).collect(),
                    chips: Vec::new(),
                };
                let mut writer = Writer::at(self.next_seq);
                writer.person(&self.device_key, subject, &entry, entropy)?;
                Ok(writer.prepared(subject, Effect::Enrol(entry)))
            }
            Change::Rename(subject, name) => self.prepare_facts(subject, entropy, |facts| facts.name = name),
            Change::SetState(subject, state) => {
                self.prepare_facts(subject, entropy, |facts| facts.state = state)
            }
            Change::SetRights(subject, rights) => {
                self.prepare_facts(subject, entropy, |facts| facts.rights = rights)
            }
            Change::Erase(subject) => {
                self.entry(subject)?;
                let mut writer = Writer::at(self.next_seq);
                writer.record(&Record::Erased { id: subject });
                Ok(writer.prepared(subject, Effect::Erase))
            }
        }
    }

    /// Takes a change into memory once its bytes are stored.
    pub fn commit(&mut self, prepared: Prepared) {
        let Prepared { subject, effect, records, .. } = prepared;
        self.next_seq += records as u64;
        self.records += records;
        match effect {
            Effect::Enrol(entry) => {
                self.next_subject = subject.0 + 1;
                for facts in &entry.templates {
                    if let Some(template) = facts.template() {
                        self.gallery.insert(subject, facts.binding, &template);
                    }
                }
                self.people.insert(subject, entry);
            }
            Effect::Facts(facts) => {
                if let Some(entry) = self.people.get_mut(&subject) {
                    entry.facts = facts;
                }
            }
            Effect::Erase => {
                self.people.remove(&subject);
                self.gallery.remove(subject);
            }
            Effect::Carry(templates) => self.take_carried(templates),
        }
    }

    /// The number that the next person gets.
    #[must_use]
    pub const fn next_id(&self) -> SubjectId {
        SubjectId(self.next_subject)
    }

    /// Whether most of the journal is history: records that a fresh one would not hold.
    #[must_use]
    pub fn wants_compaction(&self) -> bool {
        self.records > 2 * self.fresh_records() + 64
    }

    /// The whole journal written anew, to replace the old one: only those who are enrolled, under fresh nonces. Sequence numbers go on from
    /// where they were.
    ///
    /// # Errors
    /// [`EntropyError`]; nothing is changed then.
    pub fn compact(&mut self, entropy: &mut dyn Entropy) -> Result<Vec<u8>, EntropyError> {
        let mut writer = Writer::at(self.next_seq);
        let key_check = self.device_key.seal(KEY_CHECK, &about(Part::KeyCheck, SubjectId(0)), entropy)?;
        writer.record(&Record::Head {
            format: FORMAT,
            key_check: &key_check,
            next_subject: self.next_subject,
        });
        for (&id, entry) in &self.people {
            writer.person(&self.device_key, id, entry, entropy)?;
        }
        self.next_seq = writer.seq;
        self.records = self.fresh_records();
        Ok(writer.bytes)
    }

    /// The matcher's view.
    #[must_use]
    pub const fn gallery(&self) -> &Gallery {
        &self.gallery
    }

    /// Everyone, by number.
    pub fn people(&self) -> impl Iterator<Item = Person> + '_ {
        self.people.iter().map(|(&id, entry)| entry.person(id))
    }

    /// One person.
    #[must_use]
    pub fn person(&self, id: SubjectId) -> Option<Person> {
        self.people.get(&id).map(|entry| entry.person(id))
    }

    /// How many are enrolled.
    #[must_use]
    pub fn len(&self) -> usize {
        self.people.len()
    }

    /// Whether nobody is enrolled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.people.is_empty()
    }

    fn prepare_facts(
        &self,
        subject: SubjectId,
        entropy: &mut dyn Entropy,
        change: impl FnOnce(&mut Facts),
    ) -> Result<Prepared, ChangeError> {
        let entry = self.entry(subject)?;
        let mut facts = entry.facts.clone();
        facts.revision += 1;
        change(&mut facts);
        let sealed = entry.key.seal(&encode(&facts), &about(Part::Facts, subject), entropy)?;
        let mut writer = Writer::at(self.next_seq);
        writer.record(&Record::Facts { id: subject, sealed: &sealed });
        Ok(writer.prepared(subject, Effect::Facts(facts)))
    }

    pub(super) fn entry(&self, subject: SubjectId) -> Result<&Entry, ChangeError> {
        self.people.get(&subject).ok_or(ChangeError::Unknown { subject })
    }

    fn fresh_records(&self) -> usize {
        1 + self.people.values().map(Entry::records).sum::<usize>()
    }
}

impl Entry {
    fn records(&self) -> usize {
        1 + self.templates.len() + self.chips.iter().map(SealedChip::records).sum::<usize>()
    }

    fn person(&self, id: SubjectId) -> Person {
        Person {
            id,
            name: self.facts.name.clone(),
            state: self.facts.state,
            enrolled_at: self.facts.enrolled_at,
            templates: self.templates.len(),
            rights: self.facts.rights.clone(),
        }
    }
}

/// Writes frames with running sequence numbers.
pub(super) struct Writer {
    bytes: Vec<u8>,
    first: u64,
    seq: u64,
}

impl Writer {
    pub(super) const fn at(seq: u64) -> Self {
        Self { bytes: Vec::new(), first: seq, seq }
    }

    pub(super) fn record(&mut self, record: &Record<'_>) {
        journal::write_frame(&mut self.bytes, self.seq, &encode(record));
        self.seq += 1;
    }

    fn person(
        &mut self,
        device_key: &Key,
        id: SubjectId,
        entry: &Entry,
        entropy: &mut dyn Entropy,
    ) -> Result<(), EntropyError> {
        let wrapped = device_key.seal(entry.key.expose(), &about(Part::WrappedKey, id), entropy)?;
        let sealed = entry.key.seal(&encode(&entry.facts), &about(Part::Facts, id), entropy)?;
        // A few bindings of MAX_TEMPLATES each fit a byte.
        let templates = entry.templates.len() as u8;
        self.record(&Record::Enrol { id, wrapped: &wrapped, sealed: &sealed, templates });
        for template in &entry.templates {
            let sealed = entry.key.seal(&encode(template), &about(Part::Template, id), entropy)?;
            self.record(&Record::Template { id, sealed: &sealed });
        }
        self.chips(id, &entry.chips);
        Ok(())
    }

    /// The bytes written and how many records they are.
    pub(super) fn taken(self) -> (Vec<u8>, usize) {
        (self.bytes, (self.seq - self.first) as usize)
    }

    pub(super) fn prepared(self, subject: SubjectId, effect: Effect) -> Prepared {
        Prepared { records: (self.seq - self.first) as usize, bytes: self.bytes, subject, effect }
    }
}

/// A replay under way.
struct Replay {
    ledger: Ledger,
    recovery: Recovery,
    promised: BTreeMap<SubjectId, usize>,
}

impl Replay {
    fn frame(&mut self, seq: u64, payload: &[u8]) -> Result<(), LedgerError> {
        // A number that does not grow is an old record put back.
        let replayed = self.recovery.records > 0 && seq < self.ledger.next_seq;
        let record = postcard::from_bytes::<Record<'_>>(payload).ok().filter(|_| !replayed);
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
                ledger.people.remove(&id);
                ledger.gallery.remove(id);
                self.promised.remove(&id);
                self.recovery.erasure_unfinished = true;
                true
            }
        })
    }

    fn finish(mut self) -> Result<(Ledger, Recovery), LedgerError> {
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

const KEY_CHECK: &[u8] = b"facelatch";

/// Why a change cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// Nobody has this number.
    #[error("nobody has the number {subject}: `facelatchd people list` shows who is enrolled")]
    Unknown {
        /// The number asked for.
        subject: SubjectId,
    },
    /// The gallery holds as many as it can.
    #[error("the gallery is full: {MAX_PEOPLE} people are enrolled")]
    Full,
    /// No templates, or too many.
    #[error("a person has 1 to {MAX_TEMPLATES} templates, not {actual}")]
    Templates {
        /// How many were given.
        actual: usize,
    },
    /// Chips that cannot be kept.
    #[error("a person has at most {MAX_CHIPS} chips of 1 to {MAX_CHIP_BYTES} bytes")]
    Chips,
    /// No random bytes for keys.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// Why a journal cannot be read at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// Sealed with another device's key.
    #[error("the gallery was sealed by another device's key: put back the key file that belongs to it")]
    WrongKey,
    /// Written by another version.
    #[error(
        "the gallery has format {actual}, this program reads up to {expected}: install the version that wrote it"
    )]
    Format {
        /// What this program reads.
        expected: u16,
        /// What the file says.
        actual: u16,
    },
    /// Nothing in the file can be trusted.
    #[error(
        "the gallery holds no record that opens with this device's key: restore file and key from a backup, or move the file away to begin anew"
    )]
    NoHead,
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
