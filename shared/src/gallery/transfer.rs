//! People who go to another door, and who come from one.

use alloc::vec::Vec;

use super::ledger::{ChangeError, Effect, Entry, Ledger, Prepared, Writer};
use super::record::{Facts, Record, TemplateFacts};
use super::seal::{Entropy, Key};
use super::{MAX_PEOPLE, MAX_TEMPLATES};
use crate::embedding::{ModelBinding, Template};
use crate::person::SubjectId;
use crate::transfer::{PersonData, TemplateData};

/// What a sending door is called here: the first half of its key.
pub type SenderId = [u8; 16];

impl Ledger {
    /// Everything that is kept of a person, opened.
    #[must_use]
    pub fn data(&self, id: SubjectId) -> Option<PersonData> {
        let entry = self.people.get(&id)?;
        let template = |facts: &TemplateFacts| TemplateData {
            binding: facts.binding,
            taken_at: facts.taken_at,
            codes: facts.codes(),
        };
        let Facts { name, state, enrolled_at, rights, .. } = entry.facts.clone();
        let templates = entry.templates.iter().map(template).collect();
        Some(PersonData { id, name, state, enrolled_at, rights, templates, chips: self.chips(id) })
    }

    /// The first person from number `from` on who has templates of the model `binding`, with these alone.
    #[must_use]
    pub fn next_data(&self, from: SubjectId, binding: ModelBinding) -> Option<PersonData> {
        let has = |entry: &Entry| entry.templates.iter().any(|t| t.binding == binding);
        let (&id, _) = self.people.range(from..).find(|(_, entry)| has(entry))?;
        let mut data = self.data(id)?;
        data.templates.retain(|template| template.binding == binding);
        Some(data)
    }

    /// The number of the last gallery that was taken from this door; a lower one is a copy of an older one.
    #[must_use]
    pub fn last_import(&self, from: SenderId) -> Option<u64> {
        self.imports.get(&from).copied()
    }

    /// Adds a person as another door had enrolled them, under a number and a key of this door.
    ///
    /// # Errors
    /// [`ChangeError`]: full, templates that are none, chips that are too large.
    pub fn prepare_import(
        &self,
        data: &PersonData,
        entropy: &mut dyn Entropy,
    ) -> Result<Prepared, ChangeError> {
        if self.people.len() >= MAX_PEOPLE {
            return Err(ChangeError::Full);
        }
        let wrong = ChangeError::Templates { actual: data.templates.len() };
        if data.templates.is_empty() || data.templates.len() > MAX_TEMPLATES {
            return Err(wrong);
        }
        let facts = |template: &TemplateData| {
            let codes = template.codes.as_slice().try_into().ok()?;
            let made = Template::from_codes(codes).ok()?;
            Some(TemplateFacts::new(&made, template.binding, template.taken_at))
        };
        let templates: Option<Vec<TemplateFacts>> = data.templates.iter().map(facts).collect();
        let entry = Entry {
            key: Key::generate(entropy)?,
            facts: Facts {
                name: data.name.clone(),
                state: data.state,
                enrolled_at: data.enrolled_at,
                revision: 0,
                rights: data.rights.clone(),
            },
            templates: templates.ok_or(wrong)?,
            chips: Vec::new(),
        };
        let prepared = self.prepare_entry(entry, entropy)?;
        self.prepare_chips(prepared, &data.chips, entropy)
    }

    /// The gallery number `number` of the door `from` was taken whole.
    #[must_use]
    pub fn prepare_imported(&self, from: SenderId, number: u64) -> Prepared {
        let mut writer = Writer::at(self.next_seq);
        writer.record(&Record::Imported { from, number });
        writer.prepared(SubjectId(0), Effect::Imported(from, number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Rights, Role};
    use crate::embedding::{DIM, Embedding};
    use crate::gallery::{Change, CountingEntropy};
    use crate::person::Name;
    use crate::time::UnixMs;

    const OLD: ModelBinding = ModelBinding([1; 16]);
    const NEW: ModelBinding = ModelBinding([2; 16]);

    fn view(seed: usize) -> Template {
        let raw: Vec<f32> = (0..DIM).map(|i| ((seed * 31 + i * 37) % 199) as f32 - 99.0).collect();
        Template::quantize(&Embedding::from_raw(&raw).unwrap())
    }

    struct Kept(Ledger, Vec<u8>, CountingEntropy);

    impl Kept {
        fn new(key: u8) -> Self {
            let mut entropy = CountingEntropy(u64::from(key) * 1000);
            let (ledger, journal) = Ledger::create(Key::from_bytes([key; 32]), &mut entropy).unwrap();
            Self(ledger, journal, entropy)
        }

        fn commit(&mut self, prepared: Prepared) -> SubjectId {
            self.1.extend_from_slice(&prepared.bytes);
            let subject = prepared.subject;
            self.0.commit(prepared);
            subject
        }
    }

    #[test]
    fn a_person_is_at_the_other_door_what_they_were_here() {
        let mut here = Kept::new(5);
        let rights = Rights { role: Role::Administrator, ..Rights::default() };
        let change = Change::Enrol {
            name: Name::new("Ada").unwrap(),
            templates: [view(1), view(2)].to_vec(),
            binding: OLD,
            rights: rights.clone(),
        };
        let prepared = here.0.prepare(change, UnixMs(7), &mut here.2).unwrap();
        let prepared = here.0.prepare_chips(prepared, &[[1, 2, 3].to_vec()], &mut here.2).unwrap();
        let ada = here.commit(prepared);
        let carry = here.0.prepare_carry(NEW, &[(ada, [view(3)].to_vec())], UnixMs(8), &mut here.2).unwrap();
        here.commit(carry);
        assert_eq!(here.0.data(ada).unwrap().templates.len(), 3);
        let data = here.0.next_data(SubjectId(0), NEW).unwrap();
        assert_eq!((data.templates.len(), data.templates[0].binding), (1, NEW));
        assert_eq!(here.0.next_data(SubjectId(ada.0 + 1), NEW), None);
        assert_eq!(here.0.next_data(SubjectId(0), ModelBinding([9; 16])), None);

        let mut there = Kept::new(6);
        let prepared = there.0.prepare_import(&data, &mut there.2).unwrap();
        let id = there.commit(prepared);
        let taken = there.0.prepare_imported([4; 16], 12);
        there.commit(taken);
        let fresh = there.0.compact(&mut there.2).unwrap();
        for journal in [&there.1, &fresh] {
            let (back, recovery) = Ledger::replay(Key::from_bytes([6; 32]), journal).unwrap();
            assert!(!recovery.is_damage(), "{recovery:?}");
            assert_eq!(back.data(id).unwrap(), PersonData { id, rights: rights.clone(), ..data.clone() });
            assert_eq!((back.last_import([4; 16]), back.last_import([5; 16])), (Some(12), None));
        }
        assert_ne!(there.0.key_print(id), here.0.key_print(ada), "a key of its own");

        for wrong in [
            PersonData { templates: Vec::new(), ..data.clone() },
            PersonData {
                templates: [TemplateData { codes: [0; 3].to_vec(), ..data.templates[0].clone() }].to_vec(),
                ..data.clone()
            },
            PersonData { chips: [[0; 20_000].to_vec()].to_vec(), ..data.clone() },
        ] {
            assert!(there.0.prepare_import(&wrong, &mut there.2).is_err());
        }
    }
}
