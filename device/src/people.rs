//! The people of this door: the ledger, kept durable. Nothing is believed that is not stored.

use std::io;

use facelatch_shared::access::Rights;
use facelatch_shared::bundle::{PublicKey, SecretKey};
use facelatch_shared::embedding::{ModelBinding, Template};
use facelatch_shared::erasure::{ErasureReceipt, KeyPrint};
use facelatch_shared::gallery::{
    Candidate, Change, ChangeError, Entropy, EntropyError, Key, Ledger, LedgerError, MatchError, MatchReport,
    Person, Recovery, SenderId,
};
use facelatch_shared::person::{Name, PersonState, SubjectId};
use facelatch_shared::time::UnixMs;
use facelatch_shared::transfer::PersonData;
use thiserror::Error;

use crate::store::JournalStore;

/// Everyone enrolled, with the journal that remembers them.
pub struct People {
    pub(crate) ledger: Ledger,
    pub(crate) store: Box<dyn JournalStore>,
    pub(crate) entropy: Box<dyn Entropy + Send>,
    /// Signs for what was erased.
    signer: Option<SecretKey>,
    /// Something of a person who was erased may still be on the medium.
    remains: bool,
}

/// What opening found.
#[derive(Debug)]
pub struct Opened {
    /// The people.
    pub people: People,
    /// Damage found and survived.
    pub recovery: Recovery,
    /// Where a copy of the damaged journal is kept.
    pub aside: Option<String>,
}

impl People {
    /// Reads the journal, or begins one. Damage is survived: every intact record is kept, the damaged journal is set aside, and a
    /// clean one takes its place.
    ///
    /// # Errors
    /// [`PeopleError::Unreadable`] when nothing can be trusted or the key is another's; nothing is written then.
    pub fn open(
        mut store: Box<dyn JournalStore>,
        key: Key,
        mut entropy: Box<dyn Entropy + Send>,
    ) -> Result<Opened, PeopleError> {
        let bytes = store.load()?;
        if bytes.is_empty() {
            let (ledger, fresh) = Ledger::create(key, &mut *entropy)?;
            store.replace(&fresh)?;
            let people = Self { ledger, store, entropy, signer: None, remains: false };
            return Ok(Opened { people, recovery: Recovery::default(), aside: None });
        }
        let (ledger, recovery) = Ledger::replay(key, &bytes)?;
        let mut people = Self { ledger, store, entropy, signer: None, remains: false };
        let mut aside = None;
        if recovery.is_damage() {
            tracing::warn!(
                records = recovery.records,
                damaged_bytes = recovery.damaged_bytes,
                refused = recovery.refused,
                "the gallery was damaged; intact records are kept"
            );
            // The evidence first: without a copy the damaged journal stays as it is, which a reader survives again.
            aside = Some(people.store.set_aside(&bytes)?);
        }
        if recovery.is_damage()
            || recovery.torn_bytes > 0
            || recovery.erasure_unfinished
            || recovery.older_format
            || people.ledger.wants_compaction()
        {
            people.compact()?;
        }
        // The power may have gone in the middle of an erasure: also a copy that was just set aside holds what was to be destroyed.
        if recovery.erasure_unfinished || people.ledger.receipts_owed().next().is_some() {
            people.store.destroy_asides()?;
            aside = None;
        }
        Ok(Opened { people, recovery, aside })
    }

    /// Enrols a person; durable when it returns.
    ///
    /// # Errors
    /// [`PeopleError`]; nobody is enrolled then.
    pub fn enrol(
        &mut self,
        name: Name,
        templates: Vec<Template>,
        binding: ModelBinding,
        now: UnixMs,
    ) -> Result<SubjectId, PeopleError> {
        self.enrol_with(name, templates, binding, Rights::default(), now)
    }

    /// The same, with rights and consent.
    ///
    /// # Errors
    /// [`PeopleError`]; nobody is enrolled then.
    pub fn enrol_with(
        &mut self,
        name: Name,
        templates: Vec<Template>,
        binding: ModelBinding,
        rights: Rights,
        now: UnixMs,
    ) -> Result<SubjectId, PeopleError> {
        self.apply(Change::Enrol { name, templates, binding, rights }, now)
    }

    /// Sets what a person may do.
    ///
    /// # Errors
    /// [`PeopleError`]; the rights stay as they were then.
    pub fn set_rights(&mut self, id: SubjectId, rights: Rights, now: UnixMs) -> Result<(), PeopleError> {
        self.apply(Change::SetRights(id, rights), now).map(drop)
    }

    /// The number that the next person gets.
    #[must_use]
    pub const fn next_id(&self) -> SubjectId {
        self.ledger.next_id()
    }

    /// Templates of everyone: how many comparisons a probe meets.
    #[must_use]
    pub fn templates(&self) -> usize {
        self.ledger.gallery().templates()
    }

    /// Templates that a probe of the model `binding` meets.
    #[must_use]
    pub fn templates_of(&self, binding: ModelBinding) -> usize {
        self.ledger.gallery().templates_of(binding)
    }

    /// Gives a person another name.
    ///
    /// # Errors
    /// [`PeopleError`]; the name stays then.
    pub fn rename(&mut self, id: SubjectId, name: Name, now: UnixMs) -> Result<(), PeopleError> {
        self.apply(Change::Rename(id, name), now).map(drop)
    }

    /// Suspends or reinstates a person.
    ///
    /// # Errors
    /// [`PeopleError`]; the state stays then.
    pub fn set_state(&mut self, id: SubjectId, state: PersonState, now: UnixMs) -> Result<(), PeopleError> {
        self.apply(Change::SetState(id, state), now).map(drop)
    }

    /// Who signs receipts of erasures: the door, by its own key. Without it receipts stay owed.
    pub fn sign_with(&mut self, key: SecretKey) {
        self.signer = Some(key);
    }

    /// Forgets a person: out of the gallery at once, and the sealed records and the person's key out of the journal and out of the copies that
    /// were set aside of damaged ones. The receipt of it is owed from then on; see [`crate::erasure`].
    ///
    /// # Errors
    /// [`PeopleError`]. After [`PeopleError::ErasureUnfinished`] the person is gone from the gallery for good, and the next start destroys
    /// what is left on the medium.
    pub fn erase(&mut self, id: SubjectId, now: UnixMs) -> Result<(), PeopleError> {
        self.apply(Change::Erase(id), now)?;
        self.remains = true;
        let destroyed = self.compact().and_then(|()| Ok(self.store.destroy_asides()?));
        destroyed.map_err(|error| PeopleError::ErasureUnfinished { what: error.to_string() })?;
        self.remains = false;
        Ok(())
    }

    /// Receipts of those of whom nothing is left; none while something may be, or nobody signs.
    #[must_use]
    pub fn receipts_due(&self) -> Vec<ErasureReceipt> {
        let Some(key) = self.signer.as_ref().filter(|_| !self.remains) else { return Vec::new() };
        self.ledger.receipts_owed().map(|erasure| ErasureReceipt::sign(*erasure, key)).collect()
    }

    /// The receipt for this erasure is stored: it is owed no more.
    ///
    /// # Errors
    /// [`PeopleError`]; it is owed on then.
    pub fn receipted(&mut self, id: SubjectId) -> Result<(), PeopleError> {
        let prepared = self.ledger.prepare_receipted(id)?;
        self.store.append(&prepared.bytes)?;
        self.ledger.commit(prepared);
        Ok(())
    }

    /// Whether this door signed the receipt.
    #[must_use]
    pub fn is_own(&self, receipt: &ErasureReceipt) -> bool {
        self.signer.as_ref().is_some_and(|key| key.public().0 == receipt.door) && receipt.is_genuine()
    }

    /// The print of a person's key; `None` for nobody.
    #[must_use]
    pub fn key_print(&self, id: SubjectId) -> Option<KeyPrint> {
        self.ledger.key_print(id)
    }

    /// Everything that is kept of a person, opened.
    #[must_use]
    pub fn data(&self, id: SubjectId) -> Option<PersonData> {
        self.ledger.data(id)
    }

    /// The first person from number `from` on who has templates of the model `binding`, with these alone.
    #[must_use]
    pub fn next_data(&self, from: SubjectId, binding: ModelBinding) -> Option<PersonData> {
        self.ledger.next_data(from, binding)
    }

    /// How many have templates of the model `binding`.
    #[must_use]
    pub fn templated(&self, binding: ModelBinding) -> u32 {
        let without = self.ledger.without(binding).count();
        u32::try_from(self.len() - without).unwrap_or(u32::MAX)
    }

    /// Adds a person as another door had enrolled them; durable when it returns.
    ///
    /// # Errors
    /// [`PeopleError`]; nobody is added then.
    pub fn import(&mut self, data: &PersonData) -> Result<SubjectId, PeopleError> {
        let prepared = self.ledger.prepare_import(data, &mut *self.entropy)?;
        self.store.append(&prepared.bytes)?;
        let subject = prepared.subject;
        self.ledger.commit(prepared);
        Ok(subject)
    }

    /// The number of the last gallery that was taken whole from this door.
    #[must_use]
    pub fn last_import(&self, from: PublicKey) -> Option<u64> {
        self.ledger.last_import(sender(from))
    }

    /// A gallery was taken whole: it and older ones are refused from now on.
    ///
    /// # Errors
    /// [`PeopleError`]; it may be taken again then.
    pub fn imported(&mut self, from: PublicKey, number: u64) -> Result<(), PeopleError> {
        let prepared = self.ledger.prepare_imported(sender(from), number);
        self.store.append(&prepared.bytes)?;
        self.ledger.commit(prepared);
        Ok(())
    }

    /// Finds whom `probe` shows.
    ///
    /// # Errors
    /// [`MatchError`] when the gallery belongs to another model.
    pub fn identify(&self, probe: &Template, binding: ModelBinding) -> Result<MatchReport, MatchError> {
        self.ledger.gallery().identify(probe, binding)
    }

    /// The two people who come closest to each other, and how close; see [`facelatch_shared::gallery::Gallery::closest_pair`].
    #[must_use]
    pub fn closest_pair(&self, binding: ModelBinding) -> Option<(SubjectId, Candidate)> {
        self.ledger.gallery().closest_pair(binding, 2_000)
    }

    /// Everyone, by number.
    pub fn list(&self) -> impl Iterator<Item = Person> + '_ {
        self.ledger.people()
    }

    /// One person.
    #[must_use]
    pub fn get(&self, id: SubjectId) -> Option<Person> {
        self.ledger.person(id)
    }

    /// How many are enrolled.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ledger.len()
    }

    /// Whether nobody is enrolled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ledger.is_empty()
    }

    fn apply(&mut self, change: Change, now: UnixMs) -> Result<SubjectId, PeopleError> {
        let prepared = self.ledger.prepare(change, now, &mut *self.entropy)?;
        self.store.append(&prepared.bytes)?;
        let subject = prepared.subject;
        self.ledger.commit(prepared);
        if self.ledger.wants_compaction()
            && let Err(error) = self.compact()
        {
            tracing::warn!(%error, "the gallery's journal could not be compacted; it goes on growing until the next try");
        }
        Ok(subject)
    }

    pub(crate) fn compact(&mut self) -> Result<(), PeopleError> {
        let fresh = self.ledger.compact(&mut *self.entropy)?;
        Ok(self.store.replace(&fresh)?)
    }
}

fn sender(from: PublicKey) -> SenderId {
    let mut first = SenderId::default();
    first.copy_from_slice(&from.0[..16]);
    first
}

impl std::fmt::Debug for People {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("People").field("enrolled", &self.len()).finish_non_exhaustive()
    }
}

/// Why the people could not be read or changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PeopleError {
    /// The journal cannot be trusted or belongs to another device.
    #[error(transparent)]
    Unreadable(#[from] LedgerError),
    /// The change makes no sense.
    #[error(transparent)]
    Refused(#[from] ChangeError),
    /// The journal could not be read or written; what was stored before is still there.
    #[error("the gallery could not be stored: {0}")]
    Storage(#[from] io::Error),
    /// No random bytes.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// Out of the gallery, but not yet off the medium.
    #[error(
        "the person is out of the gallery, but the sealed records could not be overwritten yet ({what}); free some space and restart facelatchd"
    )]
    ErasureUnfinished {
        /// What the system said.
        what: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Fault, MemStore};
    use facelatch_shared::embedding::{DIM, Embedding};
    use facelatch_shared::gallery::CountingEntropy;

    const MODEL: ModelBinding = ModelBinding([3; 16]);

    fn open(store: &MemStore) -> Result<Opened, PeopleError> {
        let entropy = CountingEntropy(store.written() as u64 + 1);
        People::open(Box::new(store.clone()), Key::from_bytes([5; 32]), Box::new(entropy))
    }

    fn template(seed: usize) -> Template {
        let raw: Vec<f32> = (0..DIM).map(|i| (((seed * 131 + i * 37) * 7919) % 199) as f32 - 99.0).collect();
        Template::quantize(&Embedding::from_raw(&raw).unwrap())
    }

    fn enrol(people: &mut People, text: &str, seed: usize) -> Result<SubjectId, PeopleError> {
        people.enrol(Name::new(text).unwrap(), vec![template(seed), template(seed + 1)], MODEL, UnixMs(1))
    }

    /// A day at the door; stops at the first storage error, as the program would report it. Returns what was acknowledged.
    fn a_day(store: &MemStore) -> Vec<(u32, String, PersonState)> {
        let mut believed: Vec<(u32, String, PersonState)> = Vec::new();
        let Ok(Opened { mut people, .. }) = open(store) else { return believed };
        let mut steps = || -> Result<(), PeopleError> {
            for (seed, text) in [(10, "Ada"), (20, "Bo"), (30, "Cem")] {
                let id = enrol(&mut people, text, seed)?;
                believed.push((id.0, text.into(), PersonState::Active));
            }
            people.rename(SubjectId(2), Name::new("Boris").unwrap(), UnixMs(2))?;
            believed[1].1 = "Boris".into();
            people.set_state(SubjectId(3), PersonState::Suspended, UnixMs(3))?;
            believed[2].2 = PersonState::Suspended;
            match people.erase(SubjectId(1), UnixMs(4)) {
                Ok(()) | Err(PeopleError::ErasureUnfinished { .. }) => {
                    believed.remove(0);
                }
                Err(error) => return Err(error),
            }
            let id = enrol(&mut people, "Dee", 40)?;
            believed.push((id.0, "Dee".into(), PersonState::Active));
            Ok(())
        };
        let _ = steps();
        believed
    }

    #[test]
    fn power_cut_at_every_byte_loses_nothing_acknowledged() {
        let whole = MemStore::default();
        assert_eq!(a_day(&whole).len(), 3);
        for after_bytes in 0..=whole.written() {
            let store = MemStore::default();
            store.set_fault(Fault::PowerCut { after_bytes });
            let believed = a_day(&store);
            store.power_on();
            let Opened { people, .. } = open(&store).unwrap_or_else(|e| panic!("cut at {after_bytes}: {e}"));
            let found: Vec<_> = people.list().map(|p| (p.id.0, p.name.to_string(), p.state)).collect();
            for person in &believed {
                assert!(found.contains(person), "cut at {after_bytes}: {person:?} is gone, found {found:?}");
            }
            assert!(
                found.len() <= believed.len() + 1,
                "cut at {after_bytes}: {found:?} against {believed:?}"
            );
            // A second start finds a clean journal.
            assert!(!open(&store).unwrap().recovery.is_damage(), "cut at {after_bytes}");
        }
    }

    #[test]
    fn erasing_leaves_nothing_of_the_person_on_the_medium() {
        let store = MemStore::default();
        let mut people = open(&store).unwrap().people;
        enrol(&mut people, "Ada", 1).unwrap();
        let before = store.bytes();
        people.erase(SubjectId(1), UnixMs(2)).unwrap();
        let after = store.bytes();
        let head = after.len();
        assert!(head < 180, "only the head and what is owed are left, not {head} bytes");
        // No 16 bytes of Ada's records (everything behind the head) are left anywhere.
        assert!(before[head..].windows(16).all(|w| !after.windows(16).any(|v| v == w)));
    }

    #[test]
    fn a_full_disk_refuses_the_enrolment_and_keeps_everyone() {
        let store = MemStore::default();
        let mut people = open(&store).unwrap().people;
        enrol(&mut people, "Ada", 1).unwrap();
        store.set_fault(Fault::DiskFull);
        assert!(matches!(enrol(&mut people, "Bo", 5), Err(PeopleError::Storage(_))));
        assert_eq!(people.len(), 1);
        store.power_on();
        assert_eq!(enrol(&mut people, "Bo", 5).unwrap(), SubjectId(2));
        assert_eq!(open(&store).unwrap().people.len(), 2);
    }

    #[test]
    fn damage_is_set_aside_and_mended_once() {
        let store = MemStore::default();
        let mut people = open(&store).unwrap().people;
        for (seed, text) in [(10, "Ada"), (20, "Bo"), (30, "Cem")] {
            enrol(&mut people, text, seed).unwrap();
        }
        let mut broken = store.bytes();
        let middle = broken.len() / 2;
        broken[middle] ^= 4;
        let store = MemStore::holding(broken.clone());
        let opened = open(&store).unwrap();
        assert!(opened.recovery.is_damage() && opened.aside.is_some());
        assert!(opened.people.len() >= 2);
        assert_eq!(store.aside(), [broken]);
        let again = open(&store).unwrap();
        assert!(!again.recovery.is_damage());
        assert_eq!(again.people.len(), opened.people.len());
    }

    #[test]
    fn another_devices_gallery_is_left_alone() {
        let store = MemStore::default();
        drop(open(&store).unwrap());
        let before = store.bytes();
        let entropy = Box::new(CountingEntropy(1));
        let error = People::open(Box::new(store.clone()), Key::from_bytes([6; 32]), entropy).unwrap_err();
        assert!(matches!(error, PeopleError::Unreadable(LedgerError::WrongKey)));
        assert_eq!(store.bytes(), before);
    }
}
