//! Who is known at this door, and the search for whom a probe shows (1:N, open set).
//!
//! [`Gallery`] is what the matcher scans; [`Ledger`] is the gallery with its names, keys and journal.

mod ledger;
mod replay;
mod carry;
mod erase;
mod transfer;
mod record;
mod seal;

pub use carry::{CrossCheck, MAX_CHIP_BYTES, MAX_CHIPS};
pub use ledger::{Change, ChangeError, Ledger, LedgerError, Person, Prepared, Recovery};
pub use record::FORMAT;
pub use seal::{CountingEntropy, Entropy, EntropyError, Key};
pub use transfer::SenderId;

use alloc::vec::Vec;

use thiserror::Error;

use crate::embedding::{DIM, ModelBinding, Template, dot};
use crate::person::SubjectId;
use crate::score::Similarity;

/// Most people that one gallery holds.
pub const MAX_PEOPLE: usize = 10_000;

/// Most templates that one person has.
pub const MAX_TEMPLATES: usize = 8;

/// Templates, laid out for scanning. Those of different models stand in different banks and never meet.
#[derive(Clone, Debug, Default)]
pub struct Gallery {
    banks: Vec<Bank>,
    /// Bindings whose templates the first of each pair understands.
    understood: Vec<(ModelBinding, ModelBinding)>,
}

#[derive(Clone, Debug)]
struct Bank {
    binding: ModelBinding,
    codes: Vec<[i8; DIM]>,
    scales: Vec<f32>,
    owners: Vec<SubjectId>,
}

impl Gallery {
    /// Adds one template of `owner`.
    pub fn insert(&mut self, owner: SubjectId, binding: ModelBinding, template: &Template) {
        let bank = match self.banks.iter_mut().position(|bank| bank.binding == binding) {
            Some(at) => &mut self.banks[at],
            None => {
                self.banks.push(Bank { binding, codes: Vec::new(), scales: Vec::new(), owners: Vec::new() });
                let last = self.banks.len() - 1;
                &mut self.banks[last]
            }
        };
        bank.codes.push(*template.codes());
        bank.scales.push(template.scale());
        bank.owners.push(owner);
    }

    /// Removes every template of `owner`, of any model.
    pub fn remove(&mut self, owner: SubjectId) {
        for bank in &mut self.banks {
            for at in (0..bank.owners.len()).rev() {
                if bank.owners[at] == owner {
                    bank.codes.swap_remove(at);
                    bank.scales.swap_remove(at);
                    bank.owners.swap_remove(at);
                }
            }
        }
        self.banks.retain(|bank| !bank.owners.is_empty());
    }

    /// Templates of all models.
    #[must_use]
    pub fn templates(&self) -> usize {
        self.banks.iter().map(|bank| bank.owners.len()).sum()
    }

    /// Templates of the model `binding` and of those it understands: how many comparisons one of its probes meets.
    #[must_use]
    pub fn templates_of(&self, binding: ModelBinding) -> usize {
        self.fitting(binding).map(|bank| bank.owners.len()).sum()
    }

    fn fitting(&self, binding: ModelBinding) -> impl Iterator<Item = &Bank> {
        let understood = move |other| self.understood.contains(&(binding, other));
        self.banks.iter().filter(move |bank| bank.binding == binding || understood(bank.binding))
    }

    /// The two templates of different people that come closest to each other, among the first `most` of the model `binding`: how near this
    /// gallery's own people are to being mistaken for one another. Quadratic in the templates.
    #[must_use]
    pub fn closest_pair(&self, binding: ModelBinding, most: usize) -> Option<(SubjectId, Candidate)> {
        let bank = self.banks.iter().find(|bank| bank.binding == binding)?;
        let count = bank.owners.len().min(most);
        let mut closest = None::<(SubjectId, Candidate)>;
        for a in 0..count {
            for b in a + 1..count {
                if bank.owners[a] == bank.owners[b] {
                    continue;
                }
                let similarity =
                    Similarity(dot(&bank.codes[a], &bank.codes[b]) as f32 * bank.scales[a] * bank.scales[b]);
                if closest.is_none_or(|(_, found)| similarity > found.similarity) {
                    closest = Some((bank.owners[a], Candidate { subject: bank.owners[b], similarity }));
                }
            }
        }
        closest
    }

    /// Compares `probe` with every template of the model `binding` and of those it understands: the best person, and the best other one.
    /// Linear in the templates; no allocation. A person's similarity is that of the person's best template.
    ///
    /// # Errors
    /// [`MatchError::OtherModel`] when there are templates but none of this model. An empty gallery is no error.
    pub fn identify(&self, probe: &Template, binding: ModelBinding) -> Result<MatchReport, MatchError> {
        if self.fitting(binding).next().is_none() {
            return match self.banks.first() {
                Some(other) => Err(MatchError::OtherModel { probe: binding, gallery: other.binding }),
                None => Ok(MatchReport::default()),
            };
        }
        let mut report = MatchReport::default();
        let (mut best, mut runner_up) = (None::<Candidate>, None::<Candidate>);
        for bank in self.fitting(binding) {
            report.templates += bank.owners.len();
            for ((codes, scale), &subject) in bank.codes.iter().zip(&bank.scales).zip(&bank.owners) {
                let similarity = Similarity(dot(probe.codes(), codes) as f32 * probe.scale() * scale);
                let candidate = Candidate { subject, similarity };
                let beats =
                    |other: &Option<Candidate>| other.is_none_or(|other| similarity > other.similarity);
                if beats(&best) {
                    if best.is_some_and(|former| former.subject != subject) {
                        runner_up = best;
                    }
                    best = Some(candidate);
                } else if best.is_some_and(|best| best.subject != subject) && beats(&runner_up) {
                    runner_up = Some(candidate);
                }
            }
        }
        report.best = best;
        report.runner_up = runner_up;
        Ok(report)
    }
}

/// A person and how close the probe came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Who.
    pub subject: SubjectId,
    /// How close.
    pub similarity: Similarity,
}

/// What a search found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MatchReport {
    /// The closest person.
    pub best: Option<Candidate>,
    /// The closest other person.
    pub runner_up: Option<Candidate>,
    /// Templates compared.
    pub templates: usize,
}

impl MatchReport {
    /// Best minus second best; infinite when there is no second.
    #[must_use]
    pub fn rank_gap(&self) -> f32 {
        match (self.best, self.runner_up) {
            (Some(best), Some(other)) => best.similarity.0 - other.similarity.0,
            _ => f32::INFINITY,
        }
    }
}

/// Why no search was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MatchError {
    /// The people here were enrolled with another model, alignment or quantization.
    #[error(
        "the gallery's templates were made by model {gallery}, the probe by {probe}: select the former model, or enrol again"
    )]
    OtherModel {
        /// What the probe is bound to.
        probe: ModelBinding,
        /// What the gallery's first bank is bound to.
        gallery: ModelBinding,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedding::Embedding;
    use proptest::prelude::*;

    const MODEL: ModelBinding = ModelBinding([1; 16]);

    fn template(seed: u32) -> Template {
        let raw: Vec<f32> = (0..DIM as u32)
            .map(|i| {
                ((seed.wrapping_mul(2_654_435_761).wrapping_add(i.wrapping_mul(40_503)) >> 7) % 2001) as f32
                    - 1000.0
            })
            .collect();
        Template::quantize(&Embedding::from_raw(&raw).unwrap())
    }

    proptest! {
        #[test]
        fn the_scan_equals_the_definition(owners in prop::collection::vec(0..6_u32, 0..40), probe in any::<u32>()) {
            let mut gallery = Gallery::default();
            let enrolled: Vec<(SubjectId, Template)> = owners.iter().enumerate().map(|(i, &o)| (SubjectId(o), template(i as u32))).collect();
            for (owner, t) in &enrolled {
                gallery.insert(*owner, MODEL, t);
            }
            let probe = template(probe);
            let mut by_person: std::collections::BTreeMap<SubjectId, f32> = std::collections::BTreeMap::new();
            for (owner, t) in &enrolled {
                let s = probe.similarity(t).0;
                let best = by_person.entry(*owner).or_insert(s);
                *best = best.max(s);
            }
            let mut ranked: Vec<f32> = by_person.values().copied().collect();
            ranked.sort_by(|a, b| b.total_cmp(a));
            let report = gallery.identify(&probe, MODEL).unwrap();
            prop_assert_eq!(report.best.map(|c| c.similarity.0), ranked.first().copied());
            prop_assert_eq!(report.runner_up.map(|c| c.similarity.0), ranked.get(1).copied());
            if let Some(best) = report.best {
                prop_assert_eq!(by_person[&best.subject], best.similarity.0);
            }
        }
    }

    #[test]
    fn models_never_meet() {
        let mut gallery = Gallery::default();
        assert_eq!(gallery.identify(&template(1), MODEL).unwrap(), MatchReport::default());
        gallery.insert(SubjectId(1), MODEL, &template(1));
        let other = ModelBinding([2; 16]);
        assert_eq!(
            gallery.identify(&template(1), other).unwrap_err(),
            MatchError::OtherModel { probe: other, gallery: MODEL }
        );
    }

    #[test]
    fn a_model_meets_an_older_one_only_where_it_was_trained_to() {
        let (old, new) = (MODEL, ModelBinding([2; 16]));
        let mut gallery = Gallery::default();
        gallery.insert(SubjectId(1), old, &template(1));
        gallery.set_compatible(new, &[old]);
        let found = gallery.identify(&template(1), new).unwrap();
        assert_eq!(found.best.map(|c| c.subject), Some(SubjectId(1)));
        gallery.insert(SubjectId(2), new, &template(2));
        assert_eq!(gallery.identify(&template(1), new).unwrap().templates, 2);
        assert_eq!(gallery.identify(&template(1), old).unwrap().templates, 1, "never the other way round");
        gallery.set_compatible(new, &[]);
        assert_eq!(gallery.identify(&template(1), new).unwrap().templates, 1);
    }

    #[test]
    fn removed_people_are_not_found() {
        let mut gallery = Gallery::default();
        for owner in 0..3 {
            gallery.insert(SubjectId(owner), MODEL, &template(owner));
            gallery.insert(SubjectId(owner), MODEL, &template(owner + 10));
        }
        gallery.remove(SubjectId(1));
        assert_eq!(gallery.templates(), 4);
        let best = gallery.identify(&template(1), MODEL).unwrap().best.unwrap();
        assert_ne!(best.subject, SubjectId(1));
        assert!(best.similarity.0 < 0.9);
    }
}
