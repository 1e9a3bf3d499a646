//! The gallery's truth: who is enrolled, as a fold over journal records. Pure: bytes in, bytes out; the caller writes them.
//!
//! A change is made in three steps, so that nothing is believed that is not stored: [`Ledger::prepare`] gives the bytes, the caller appends
//! them durably, [`Ledger::commit`] takes the change into memory.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use thiserror::Error;

use super::carry::SealedChip;
use super::record::{FORMAT, Facts, Part, Record, TemplateFacts, about, encode};
use super::replay::Replay;
use super::seal::{Entropy, EntropyError, Key};
use super::transfer::SenderId;
use super::{Gallery, MAX_CHIP_BYTES, MAX_CHIPS, MAX_PEOPLE, MAX_TEMPLATES};
use crate::access::Rights;
use crate::embedding::{ModelBinding, Template};
use crate::erasure::Erasure;
use crate::journal;
use crate::person::{Name, PersonState, SubjectId};
use crate::time::UnixMs;

/// Everyone enrolled, with the matcher's view of them.
#[derive(Debug)]
pub struct Ledger {
    pub(super) device_key: Key,
    pub(super) people: BTreeMap<SubjectId, Entry>,
    pub(super) gallery: Gallery,
    pub(super) next_seq: u64,
    pub(super) next_subject: u32,
    /// Records in the journal, and how many a fresh one would hold: their difference is what compaction frees.
    pub(super) records: usize,
    /// Erasures whose receipt is not given yet.
    pub(super) owed: BTreeMap<SubjectId, Erasure>,
    /// The last gallery that was taken from each other door.
    pub(super) imports: BTreeMap<SenderId, u64>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) facts: Facts,
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
    /// Forget the person. The caller compacts afterwards, which destroys the sealed records and the key, and then gives a receipt for it;
    /// see [`Ledger::receipts_owed`].
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
    Erase(Erasure),
    /// The receipt of an erasure is given.
    Receipted,
    /// A gallery was taken.
    Imported(SenderId, u64),
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
        let mut ledger = Self::empty(device_key);
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
        let mut replay = Replay::new(Self::empty(device_key));
        replay.read(bytes)?;
        replay.finish()
    }

    pub(super) fn empty(device_key: Key) -> Self {
        Self {
            device_key,
            people: BTreeMap::new(),
            gallery: Gallery::default(),
            next_seq: 0,
            next_subject: 1,
            records: 0,
            owed: BTreeMap::new(),
            imports: BTreeMap::new(),
        }
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
                let entry = Entry {
                    key: Key::generate(entropy)?,
                    facts: Facts { name, state: PersonState::Active, enrolled_at: now, revision: 0, rights },
                    templates: templates.iter().map(|t| TemplateFacts::new(t, binding, now)).collect(),
                    chips: Vec::new(),
                };
                self.prepare_entry(entry, entropy)
            }
            Change::Rename(subject, name) => self.prepare_facts(subject, entropy, |facts| facts.name = name),
            Change::SetState(subject, state) => {
                self.prepare_facts(subject, entropy, |facts| facts.state = state)
            }
            Change::SetRights(subject, rights) => {
                self.prepare_facts(subject, entropy, |facts| facts.rights = rights)
            }
            Change::Erase(subject) => self.prepare_erase(subject, now),
        }
    }

    /// A new person, under the next number.
    pub(super) fn prepare_entry(
        &self,
        entry: Entry,
        entropy: &mut dyn Entropy,
    ) -> Result<Prepared, ChangeError> {
        let subject = SubjectId(self.next_subject);
        let mut writer = Writer::at(self.next_seq);
        writer.person(&self.device_key, subject, &entry, entropy)?;
        Ok(writer.prepared(subject, Effect::Enrol(entry)))
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
            Effect::Erase(erasure) => {
                self.people.remove(&subject);
                self.gallery.remove(subject);
                self.owed.insert(subject, erasure);
            }
            Effect::Receipted => {
                self.owed.remove(&subject);
            }
            Effect::Imported(from, number) => {
                self.imports.insert(from, number);
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
        // Numbers that only damage can have brought so far begin anew with the new journal.
        let first = if self.next_seq > journal::LARGEST_FIRST { 0 } else { self.next_seq };
        let mut writer = Writer::at(first);
        let key_check = self.device_key.seal(KEY_CHECK, &about(Part::KeyCheck, SubjectId(0)), entropy)?;
        writer.record(&Record::Head {
            format: FORMAT,
            key_check: &key_check,
            next_subject: self.next_subject,
        });
        writer.owed(self.owed.values());
        for (&from, &number) in &self.imports {
            writer.record(&Record::Imported { from, number });
        }
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
        1 + self.owed.len() + self.imports.len() + self.people.values().map(Entry::records).sum::<usize>()
    }
}

impl Entry {
    fn records(&self) -> usize {
        1 + self.templates.len() + self.chips.iter().map(SealedChip::records).sum::<usize>()
    }

    pub(super) const fn enrolled_at(&self) -> UnixMs {
        self.facts.enrolled_at
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
