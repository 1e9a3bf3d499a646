//! People who are enrolled outlive the model they were enrolled with.
//!
//! A person's templates for a new model are made from the chips kept since the enrolment; where the new model was trained to understand
//! the old one's templates, these go on being valid. Who has neither must be enrolled again, and is named before anything happens.

use facelatch_shared::align::CHIP_BYTES;
use facelatch_shared::embedding::{Embedding, ModelBinding, Template};
use facelatch_shared::gallery::{Change, CrossCheck};
use facelatch_shared::person::SubjectId;
use facelatch_shared::score::Threshold;
use facelatch_shared::time::UnixMs;

use super::chip;
use crate::people::{People, PeopleError};

/// What a change of models means for the people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Their templates can be made anew, or are there already.
    pub carried: Vec<SubjectId>,
    /// Their old templates stay valid.
    pub understood: Vec<SubjectId>,
    /// They must be enrolled again.
    pub left_behind: Vec<SubjectId>,
}

/// A person's chips, to be embedded by the new model.
pub type Chips = (SubjectId, Vec<Vec<u8>>);

/// A person's templates by the new model.
pub type Carried = (SubjectId, Vec<Template>);

impl People {
    /// Enrols by `change` and keeps `chips` (as [`chip::encode`] makes them) in the same write.
    ///
    /// # Errors
    /// [`PeopleError`]; nobody is enrolled then.
    pub fn enrol_keeping(
        &mut self,
        change: Change,
        chips: &[Vec<u8>],
        now: UnixMs,
    ) -> Result<SubjectId, PeopleError> {
        let prepared = self.ledger.prepare(change, now, &mut *self.entropy)?;
        let prepared = self.ledger.prepare_chips(prepared, chips, &mut *self.entropy)?;
        self.store.append(&prepared.bytes)?;
        let subject = prepared.subject;
        self.ledger.commit(prepared);
        Ok(subject)
    }

    /// What changing to the model `binding`, which understands `compatible`, would mean.
    #[must_use]
    pub fn plan(&self, binding: ModelBinding, compatible: &[ModelBinding]) -> Plan {
        self.sorted(compatible, |id| self.ledger.has_any(id, &[binding]) || self.ledger.has_chips(id))
    }

    /// The same once templates were made anew: chips of which none gave a template count no longer.
    #[must_use]
    pub fn outcome(&self, binding: ModelBinding, compatible: &[ModelBinding]) -> Plan {
        self.sorted(compatible, |id| self.ledger.has_any(id, &[binding]))
    }

    fn sorted(&self, compatible: &[ModelBinding], carried: impl Fn(SubjectId) -> bool) -> Plan {
        let mut plan = Plan::default();
        for person in self.list() {
            let list = if carried(person.id) {
                &mut plan.carried
            } else if self.ledger.has_any(person.id, compatible) {
                &mut plan.understood
            } else {
                &mut plan.left_behind
            };
            list.push(person.id);
        }
        plan
    }

    /// Chips of people who have no template of the model `binding` yet, from number `from` on, of at most `most` people.
    #[must_use]
    pub fn chips_to_carry(&self, binding: ModelBinding, from: SubjectId, most: usize) -> Vec<Chips> {
        let lacking = self.ledger.without(binding).filter(|&id| id >= from);
        lacking
            .map(|id| (id, self.ledger.chips(id)))
            .filter(|(_, chips)| !chips.is_empty())
            .take(most)
            .collect()
    }

    /// Stores templates of another model beside the present ones; durable when it returns.
    ///
    /// # Errors
    /// [`PeopleError`]; nothing is changed then.
    pub fn carry(
        &mut self,
        binding: ModelBinding,
        carried: &[Carried],
        now: UnixMs,
    ) -> Result<(), PeopleError> {
        let prepared = self.ledger.prepare_carry(binding, carried, now, &mut *self.entropy)?;
        if !prepared.bytes.is_empty() {
            self.store.append(&prepared.bytes)?;
        }
        self.ledger.commit(prepared);
        Ok(())
    }

    /// Forgets templates of all models but these, on the medium too.
    ///
    /// # Errors
    /// [`PeopleError`]; the medium still holds them then, and the next compaction forgets them.
    pub fn keep_bindings(&mut self, keep: &[ModelBinding]) -> Result<(), PeopleError> {
        if self.ledger.keep_bindings(keep) {
            self.compact()?;
        }
        Ok(())
    }

    /// Which older models the model `binding` understands from now on.
    pub fn set_compatible(&mut self, binding: ModelBinding, older: &[ModelBinding]) {
        self.ledger.set_compatible(binding, older);
    }

    /// How well the model `binding` tells these people apart; see [`facelatch_shared::gallery::Gallery::cross_check`].
    #[must_use]
    pub fn cross_check(&self, binding: ModelBinding, threshold: Threshold, min_rank_gap: f32) -> CrossCheck {
        self.ledger.gallery().cross_check(binding, threshold, min_rank_gap, MOST_PROBES)
    }
}

/// Makes templates of chips. People of whom no chip gives an embedding are left out.
pub fn embed_all(
    people: &[Chips],
    mut embed: impl FnMut(&[u8; CHIP_BYTES]) -> Option<Embedding>,
) -> Vec<Carried> {
    let mut of_person = |chips: &[Vec<u8>]| -> Vec<Template> {
        let decoded = chips.iter().filter_map(|bytes| chip::decode(bytes));
        decoded.filter_map(|chip| embed(&chip)).map(|e| Template::quantize(&e)).collect()
    };
    let made = people.iter().map(|(id, chips)| (*id, of_person(chips)));
    made.filter(|(_, templates)| !templates.is_empty()).collect()
}

/// Enough to see a rise of two in a hundred; a search each, so that a large gallery takes a second or two.
const MOST_PROBES: usize = 300;
