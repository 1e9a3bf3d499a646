//! Erasing: the record that a person is gone stays in the journal until the door has given its receipt, over power cuts and compactions.

use super::ledger::{ChangeError, Effect, Entry, Ledger, Prepared, Writer};
use super::record::Record;
use crate::erasure::{Erasure, KeyPrint};
use crate::person::SubjectId;
use crate::time::UnixMs;

impl Ledger {
    /// Erasures of which no receipt was given yet. Give it once the sealed records are off the medium, which compaction does.
    pub fn receipts_owed(&self) -> impl Iterator<Item = &Erasure> {
        self.owed.values()
    }

    /// The receipt of this erasure is stored elsewhere: forget that it is owed.
    ///
    /// # Errors
    /// [`ChangeError::Unknown`] when none is owed.
    pub fn prepare_receipted(&self, subject: SubjectId) -> Result<Prepared, ChangeError> {
        if !self.owed.contains_key(&subject) {
            return Err(ChangeError::Unknown { subject });
        }
        let mut writer = Writer::at(self.next_seq);
        writer.record(&Record::Receipted { id: subject });
        Ok(writer.prepared(subject, Effect::Receipted))
    }

    /// The print of a person's key; `None` for nobody.
    #[must_use]
    pub fn key_print(&self, subject: SubjectId) -> Option<KeyPrint> {
        self.people.get(&subject).map(Entry::key_print)
    }

    pub(super) fn prepare_erase(&self, subject: SubjectId, now: UnixMs) -> Result<Prepared, ChangeError> {
        let entry = self.entry(subject)?;
        let erasure = Erasure {
            subject,
            enrolled_at: entry.enrolled_at(),
            erased_at: now,
            // A few models of MAX_TEMPLATES each, and MAX_CHIPS.
            templates: entry.templates.len() as u16,
            models: entry.models(),
            chips: entry.chips.len() as u8,
            key: entry.key_print(),
        };
        let mut writer = Writer::at(self.next_seq);
        writer.record(&Record::ErasedOwing(erasure));
        Ok(writer.prepared(subject, Effect::Erase(erasure)))
    }
}

impl Entry {
    fn key_print(&self) -> KeyPrint {
        let mut print = [0; 16];
        print.copy_from_slice(&self.key.derive("facelatch print of a person's key 1").expose()[..16]);
        print
    }

    fn models(&self) -> u8 {
        let first = |at: usize| {
            let binding = self.templates[at].binding;
            self.templates[..at].iter().all(|other| other.binding != binding)
        };
        // At most MAX_BINDINGS.
        (0..self.templates.len()).filter(|&at| first(at)).count() as u8
    }
}

impl Writer {
    /// Writes what is owed, for a fresh journal.
    pub(super) fn owed<'a>(&mut self, owed: impl Iterator<Item = &'a Erasure>) {
        owed.for_each(|erasure| self.record(&Record::ErasedOwing(*erasure)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Rights;
    use crate::embedding::{DIM, Embedding, ModelBinding, Template};
    use crate::gallery::{Change, CountingEntropy, Key};
    use crate::person::Name;
    use alloc::vec::Vec;

    const NOW: UnixMs = UnixMs(5);
    const ADA: SubjectId = SubjectId(1);

    fn key() -> Key {
        Key::from_bytes([5; 32])
    }

    fn view(seed: usize) -> Template {
        let raw: Vec<f32> = (0..DIM).map(|i| ((seed * 31 + i * 37) % 199) as f32 - 99.0).collect();
        Template::quantize(&Embedding::from_raw(&raw).unwrap())
    }

    /// A person with templates of two models and chips, erased. Returns the ledger, its journal and the person's print.
    fn erased() -> (Ledger, Vec<u8>, KeyPrint, CountingEntropy) {
        let mut entropy = CountingEntropy(1);
        let (mut ledger, mut journal) = Ledger::create(key(), &mut entropy).unwrap();
        let change = Change::Enrol {
            name: Name::new("Ada").unwrap(),
            templates: [view(1), view(2)].to_vec(),
            binding: ModelBinding([1; 16]),
            rights: Rights::default(),
        };
        let enrol = ledger.prepare(change, UnixMs(2), &mut entropy).unwrap();
        let enrol = ledger.prepare_chips(enrol, &[[1].to_vec(), [2].to_vec()], &mut entropy).unwrap();
        let mut keep = |ledger: &mut Ledger, prepared: Prepared| {
            journal.extend_from_slice(&prepared.bytes);
            ledger.commit(prepared);
        };
        keep(&mut ledger, enrol);
        let carried = [(ADA, [view(3)].to_vec())];
        let carry = ledger.prepare_carry(ModelBinding([2; 16]), &carried, NOW, &mut entropy).unwrap();
        keep(&mut ledger, carry);
        let print = ledger.key_print(ADA).unwrap();
        let erase = ledger.prepare(Change::Erase(ADA), NOW, &mut entropy).unwrap();
        keep(&mut ledger, erase);
        (ledger, journal, print, entropy)
    }

    #[test]
    fn what_was_destroyed_is_owed_until_it_is_receipted_over_restart_and_compaction() {
        let (mut ledger, mut journal, key_print, mut entropy) = erased();
        let owed = Erasure {
            subject: ADA,
            enrolled_at: UnixMs(2),
            erased_at: NOW,
            templates: 3,
            models: 2,
            chips: 2,
            key: key_print,
        };
        let of = |ledger: &Ledger| ledger.receipts_owed().copied().collect::<Vec<_>>();
        assert_eq!(of(&ledger), [owed]);
        let (back, recovery) = Ledger::replay(key(), &journal).unwrap();
        assert!(recovery.erasure_unfinished && !recovery.is_damage());
        assert_eq!((of(&back), back.key_print(ADA)), ([owed].to_vec(), None));
        let fresh = ledger.compact(&mut entropy).unwrap();
        let (back, recovery) = Ledger::replay(key(), &fresh).unwrap();
        assert!(!recovery.erasure_unfinished && !recovery.is_damage(), "{recovery:?}");
        assert_eq!((of(&back), back.next_id()), ([owed].to_vec(), SubjectId(2)));

        journal = fresh;
        let receipted = ledger.prepare_receipted(ADA).unwrap();
        journal.extend_from_slice(&receipted.bytes);
        ledger.commit(receipted);
        assert!(of(&ledger).is_empty() && ledger.prepare_receipted(ADA).is_err());
        let (mut back, recovery) = Ledger::replay(key(), &journal).unwrap();
        assert!(of(&back).is_empty() && !recovery.is_damage());
        let fresh = back.compact(&mut entropy).unwrap();
        assert_eq!(Ledger::replay(key(), &fresh).unwrap().1.records, 1, "the head alone is left");
    }

    #[test]
    fn a_number_that_nobody_gave_does_not_use_up_all_others() {
        let (ledger, mut journal, ..) = erased();
        let whole = journal.clone();
        let gone = super::super::record::encode(&Record::Receipted { id: ADA });
        crate::journal::write_frame(&mut journal, u64::MAX, &gone);
        let (mut back, recovery) = Ledger::replay(key(), &journal).unwrap();
        assert_eq!((recovery.refused, back.next_seq), (1, ledger.next_seq));
        assert_eq!(back.receipts_owed().count(), 1);
        let fresh = back.compact(&mut CountingEntropy(900)).unwrap();
        assert!(!Ledger::replay(key(), &fresh).unwrap().1.is_damage());
        assert!(!Ledger::replay(key(), &whole).unwrap().1.is_damage());
        // A journal that begins as late as it may, and goes on from there.
        let mut late = Vec::new();
        for item in crate::journal::frames(&whole) {
            let crate::journal::Item::Frame { seq, payload } = item else { panic!() };
            let seq = crate::journal::LARGEST_FIRST + seq * crate::journal::MOST_AHEAD;
            crate::journal::write_frame(&mut late, seq, payload);
        }
        let (mut back, recovery) = Ledger::replay(key(), &late).unwrap();
        assert!(!recovery.is_damage() && back.next_seq > crate::journal::LARGEST_FIRST);
        let fresh = back.compact(&mut CountingEntropy(900)).unwrap();
        assert!(!Ledger::replay(key(), &fresh).unwrap().1.is_damage());
    }

    #[test]
    fn journals_of_format_2_said_less_and_are_read() {
        let (_, journal, ..) = erased();
        let mut entropy = CountingEntropy(900);
        // The same life as format 2 ended it: `Erased` in the place of what is owed.
        let mut old = Vec::new();
        for item in crate::journal::frames(&journal) {
            let crate::journal::Item::Frame { seq, payload } = item else { panic!() };
            match postcard::from_bytes::<Record<'_>>(payload).unwrap() {
                Record::ErasedOwing(erasure) => {
                    let gone = Record::Erased { id: erasure.subject };
                    crate::journal::write_frame(&mut old, seq, &super::super::record::encode(&gone));
                }
                _ => crate::journal::write_frame(&mut old, seq, payload),
            }
        }
        let (mut back, recovery) = Ledger::replay(key(), &old).unwrap();
        assert!(recovery.erasure_unfinished && back.is_empty());
        assert_eq!(back.receipts_owed().count(), 0);
        let fresh = back.compact(&mut entropy).unwrap();
        assert!(!Ledger::replay(key(), &fresh).unwrap().1.erasure_unfinished);
    }
}
