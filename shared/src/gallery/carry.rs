//! Enrolments that outlive their model: chips kept since the enrolment, templates for another model beside the present ones, and the
//! check that a model knows the people who are enrolled.
//!
//! Templates of a model that is not in use mean nothing, so that they may be written long before the change, and what a power cut leaves of
//! them does no harm: the change itself is made elsewhere, in one step.

use alloc::vec::Vec;

use super::ledger::{ChangeError, Effect, Entry, Ledger, Prepared, Writer};
use super::record::{Part, Record, TemplateFacts, about, encode};
use super::seal::{Entropy, EntropyError};
use super::{Gallery, MAX_TEMPLATES};
use crate::embedding::{ModelBinding, Template, dot};
use crate::journal;
use crate::person::SubjectId;
use crate::score::{Similarity, Threshold};
use crate::time::UnixMs;

/// Most chips that are kept of one person.
pub const MAX_CHIPS: usize = 3;

/// Longest chip in bytes, as the caller encodes it.
pub const MAX_CHIP_BYTES: usize = 16 * 1024;

impl Ledger {
    /// Adds chips to an enrolment that is being prepared, so that one write stores both. Opaque here: the caller says how a chip is encoded.
    ///
    /// # Errors
    /// [`ChangeError::Chips`] for too many or too long ones, or when nobody is being enrolled; [`ChangeError::Entropy`].
    pub fn prepare_chips(
        &self,
        mut prepared: Prepared,
        chips: &[Vec<u8>],
        entropy: &mut dyn Entropy,
    ) -> Result<Prepared, ChangeError> {
        let fits = |chip: &Vec<u8>| (1..=MAX_CHIP_BYTES).contains(&chip.len());
        if chips.len() > MAX_CHIPS || !chips.iter().all(fits) {
            return Err(ChangeError::Chips);
        }
        let Effect::Enrol(entry) = &mut prepared.effect else { return Err(ChangeError::Chips) };
        for (number, chip) in chips.iter().enumerate() {
            entry.chips.push(entry.seal_chip(prepared.subject, number as u8, chip, entropy)?);
        }
        let mut writer = Writer::at(self.next_seq + prepared.records as u64);
        writer.chips(prepared.subject, &entry.chips);
        let (bytes, records) = writer.taken();
        prepared.bytes.extend_from_slice(&bytes);
        prepared.records += records;
        Ok(prepared)
    }

    /// A person's chips, opened; none when none were kept.
    #[must_use]
    pub fn chips(&self, subject: SubjectId) -> Vec<Vec<u8>> {
        let Some(entry) = self.people.get(&subject) else { return Vec::new() };
        entry
            .chips
            .iter()
            .enumerate()
            .filter_map(|(n, parts)| entry.open_chip(subject, n as u8, parts))
            .collect()
    }

    /// Whether chips of this person were kept.
    #[must_use]
    pub fn has_chips(&self, subject: SubjectId) -> bool {
        self.people.get(&subject).is_some_and(|entry| !entry.chips.is_empty())
    }

    /// Who has no template of the model `binding`.
    pub fn without(&self, binding: ModelBinding) -> impl Iterator<Item = SubjectId> + '_ {
        let lacks = move |entry: &Entry| entry.templates.iter().all(|t| t.binding != binding);
        self.people.iter().filter(move |(_, entry)| lacks(entry)).map(|(&id, _)| id)
    }

    /// Who has a template of one of these models.
    #[must_use]
    pub fn has_any(&self, subject: SubjectId, bindings: &[ModelBinding]) -> bool {
        self.people
            .get(&subject)
            .is_some_and(|entry| entry.templates.iter().any(|t| bindings.contains(&t.binding)))
    }

    /// Templates of the model `binding` for people who are enrolled and have none of it. Those who are gone meanwhile are passed over.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn prepare_carry(
        &self,
        binding: ModelBinding,
        carried: &[(SubjectId, Vec<Template>)],
        now: UnixMs,
        entropy: &mut dyn Entropy,
    ) -> Result<Prepared, ChangeError> {
        let mut writer = Writer::at(self.next_seq);
        let mut effect = Vec::new();
        for (subject, templates) in carried {
            let Some(entry) = self.people.get(subject) else { continue };
            if entry.templates.iter().any(|t| t.binding == binding) {
                continue;
            }
            if templates.is_empty() || templates.len() > MAX_TEMPLATES {
                return Err(ChangeError::Templates { actual: templates.len() });
            }
            for template in templates {
                let facts = TemplateFacts::new(template, binding, now);
                let sealed = entry.key.seal(&encode(&facts), &about(Part::Template, *subject), entropy)?;
                writer.record(&Record::Template { id: *subject, sealed: &sealed });
                effect.push((*subject, facts));
            }
        }
        Ok(writer.prepared(SubjectId(0), Effect::Carry(effect)))
    }

    /// Forgets templates of every model but these, in memory; the caller compacts. Whoever would be left without any keeps them all.
    /// Returns whether anything was forgotten.
    pub fn keep_bindings(&mut self, keep: &[ModelBinding]) -> bool {
        let mut forgot = false;
        for (&id, entry) in &mut self.people {
            if !entry.templates.iter().any(|t| keep.contains(&t.binding)) {
                continue;
            }
            let before = entry.templates.len();
            entry.templates.retain(|t| keep.contains(&t.binding));
            if entry.templates.len() < before {
                forgot = true;
                self.gallery.remove(id);
                for facts in &entry.templates {
                    if let Some(template) = facts.template() {
                        self.gallery.insert(id, facts.binding, &template);
                    }
                }
            }
        }
        forgot
    }

    /// Which older models the model `binding` understands from now on.
    pub fn set_compatible(&mut self, binding: ModelBinding, older: &[ModelBinding]) {
        self.gallery.set_compatible(binding, older);
    }

    pub(super) fn take_carried(&mut self, templates: Vec<(SubjectId, TemplateFacts)>) {
        for (subject, facts) in templates {
            let Some(entry) = self.people.get_mut(&subject) else { continue };
            if let Some(template) = facts.template() {
                self.gallery.insert(subject, facts.binding, &template);
                entry.templates.push(facts);
            }
        }
    }
}

impl Entry {
    /// Whether one more template of this model fits.
    pub(super) fn has_room_for(&self, binding: ModelBinding) -> bool {
        self.templates.iter().filter(|t| t.binding == binding).count() < MAX_TEMPLATES
            && self.templates.len() < MAX_BINDINGS * MAX_TEMPLATES
    }

    /// Takes one piece in; `false` when its seal does not open or it is not the next.
    pub(super) fn take_chip(&mut self, id: SubjectId, place: (u8, u8, u8), sealed: &[u8]) -> bool {
        let (chip, part, parts) = place;
        let at = usize::from(chip);
        let fits = at < MAX_CHIPS && part < parts && usize::from(parts) <= MAX_PARTS;
        if !fits || self.key.open(sealed, &about_chip(id, place)).is_none() {
            return false;
        }
        if at == self.chips.len() && part == 0 {
            self.chips.push(SealedChip { parts, pieces: Vec::new() });
        }
        match self.chips.get_mut(at) {
            Some(kept) if kept.parts == parts && kept.pieces.len() == usize::from(part) => {
                kept.pieces.push(sealed.to_vec());
                true
            }
            _ => false,
        }
    }

    /// Forgets chips of which pieces are missing.
    pub(super) fn drop_torn_chips(&mut self) {
        let whole = self.chips.iter().take_while(|chip| chip.pieces.len() == usize::from(chip.parts)).count();
        self.chips.truncate(whole);
    }

    fn seal_chip(
        &self,
        id: SubjectId,
        chip: u8,
        bytes: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<SealedChip, EntropyError> {
        let parts = bytes.chunks(PIECE_BYTES).len() as u8; // at most MAX_PARTS
        let seal = |(part, piece): (usize, &[u8])| {
            self.key.seal(piece, &about_chip(id, (chip, part as u8, parts)), &mut *entropy)
        };
        Ok(SealedChip {
            parts,
            pieces: bytes.chunks(PIECE_BYTES).enumerate().map(seal).collect::<Result<_, _>>()?,
        })
    }

    fn open_chip(&self, id: SubjectId, number: u8, chip: &SealedChip) -> Option<Vec<u8>> {
        let mut whole = Vec::new();
        for (part, sealed) in chip.pieces.iter().enumerate() {
            whole.extend(self.key.open(sealed, &about_chip(id, (number, part as u8, chip.parts)))?);
        }
        Some(whole)
    }
}

/// A chip as it lies in the journal: pieces that fit a frame, each sealed by itself.
#[derive(Debug)]
pub(super) struct SealedChip {
    parts: u8,
    pieces: Vec<Vec<u8>>,
}

impl SealedChip {
    /// Journal records that it takes.
    pub(super) fn records(&self) -> usize {
        self.pieces.len()
    }
}

impl Writer {
    /// Writes chips as they were sealed.
    pub(super) fn chips(&mut self, id: SubjectId, chips: &[SealedChip]) {
        for (number, chip) in chips.iter().enumerate() {
            for (part, sealed) in chip.pieces.iter().enumerate() {
                // At most MAX_CHIPS of MAX_PARTS.
                let (number, part) = (number as u8, part as u8);
                self.record(&Record::Chip { id, chip: number, part, parts: chip.parts, sealed });
            }
        }
    }
}

/// How well a model tells the people who are enrolled apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrossCheck {
    /// Templates taken as probes.
    pub probes: u32,
    /// Probes that would not have opened the door for their person.
    pub rejected: u32,
}

impl CrossCheck {
    /// The share of rejected probes in thousandths; zero without probes.
    #[must_use]
    pub fn rejected_permille(&self) -> u32 {
        (u64::from(self.rejected) * 1000).checked_div(u64::from(self.probes)).unwrap_or(0) as u32
    }
}

impl Gallery {
    /// Which older models the model `binding` understands from now on.
    pub fn set_compatible(&mut self, binding: ModelBinding, older: &[ModelBinding]) {
        self.understood.retain(|(newer, _)| *newer != binding);
        self.understood.extend(older.iter().map(|&older| (binding, older)));
    }

    /// Takes templates of `binding` as probes against all others of it, at most `most` of them, evenly spread: each must find its own
    /// person, reach `threshold`, and keep `min_rank_gap` to everyone else. People with one template give no probe.
    #[must_use]
    pub fn cross_check(
        &self,
        binding: ModelBinding,
        threshold: Threshold,
        min_rank_gap: f32,
        most: usize,
    ) -> CrossCheck {
        let mut check = CrossCheck::default();
        let Some(bank) = self.banks.iter().find(|bank| bank.binding == binding) else { return check };
        let step = bank.owners.len().div_ceil(most.max(1)).max(1);
        for probe in (0..bank.owners.len()).step_by(step) {
            let (mut own, mut other) = (None::<f32>, f32::NEG_INFINITY);
            for at in (0..bank.owners.len()).filter(|&at| at != probe) {
                let product = dot(&bank.codes[probe], &bank.codes[at]) as f32;
                let similarity = product * bank.scales[probe] * bank.scales[at];
                if bank.owners[at] == bank.owners[probe] {
                    own = Some(own.map_or(similarity, |best| best.max(similarity)));
                } else {
                    other = other.max(similarity);
                }
            }
            let Some(own) = own else { continue };
            check.probes += 1;
            let opens = threshold.accepts(Similarity(own)) && own - other >= min_rank_gap;
            check.rejected += u32::from(!opens);
        }
        check
    }
}

fn about_chip(id: SubjectId, (chip, part, parts): (u8, u8, u8)) -> [u8; 27] {
    let mut whole = [0; 27];
    whole[..24].copy_from_slice(&about(Part::Chip, id));
    whole[24..].copy_from_slice(&[chip, part, parts]);
    whole
}

/// A sealed piece with its record fits a journal frame.
const PIECE_BYTES: usize = journal::MAX_PAYLOAD - 64;
const MAX_PARTS: usize = MAX_CHIP_BYTES.div_ceil(PIECE_BYTES);
/// The active model, the one before it, and one that is being prepared.
const MAX_BINDINGS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Rights;
    use crate::embedding::{DIM, Embedding};
    use crate::gallery::{Change, CountingEntropy, Key};
    use crate::person::Name;

    const OLD: ModelBinding = ModelBinding([1; 16]);
    const NEW: ModelBinding = ModelBinding([2; 16]);
    const NOW: UnixMs = UnixMs(1);

    fn key() -> Key {
        Key::from_bytes([5; 32])
    }

    /// View `view` of person `person`: views of one person are close.
    fn template(person: usize, view: usize) -> Template {
        let hash = |i: usize| (person * 1009 + i).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        let raw: Vec<f32> =
            (0..DIM).map(|i| (hash(i) % 199) as f32 - 99.0 + ((view * 17 + i * 5) % 23) as f32).collect();
        Template::quantize(&Embedding::from_raw(&raw).unwrap())
    }

    struct Kept {
        ledger: Ledger,
        journal: Vec<u8>,
        entropy: CountingEntropy,
    }

    impl Kept {
        fn new() -> Self {
            let mut entropy = CountingEntropy(1);
            let (ledger, journal) = Ledger::create(key(), &mut entropy).unwrap();
            Self { ledger, journal, entropy }
        }

        fn enrol(&mut self, person: usize, chips: &[Vec<u8>]) -> SubjectId {
            let change = Change::Enrol {
                name: Name::new("Ada").unwrap(),
                templates: [template(person, 0), template(person, 1)].to_vec(),
                binding: OLD,
                rights: Rights::default(),
            };
            let prepared = self.ledger.prepare(change, NOW, &mut self.entropy).unwrap();
            let prepared = self.ledger.prepare_chips(prepared, chips, &mut self.entropy).unwrap();
            self.commit(prepared)
        }

        fn commit(&mut self, prepared: Prepared) -> SubjectId {
            self.journal.extend_from_slice(&prepared.bytes);
            let subject = prepared.subject;
            self.ledger.commit(prepared);
            subject
        }

        fn carry(&mut self, people: &[(SubjectId, Vec<Template>)]) {
            let prepared = self.ledger.prepare_carry(NEW, people, NOW, &mut self.entropy).unwrap();
            self.commit(prepared);
        }

        fn reopened(&self) -> Ledger {
            let (ledger, recovery) = Ledger::replay(key(), &self.journal).unwrap();
            assert!(!recovery.is_damage() && recovery.torn_bytes == 0, "{recovery:?}");
            ledger
        }
    }

    fn chips() -> Vec<Vec<u8>> {
        let long: Vec<u8> = (0..MAX_CHIP_BYTES).map(|i| (i % 251) as u8).collect();
        [long, b"short".to_vec()].to_vec()
    }

    #[test]
    fn chips_come_back_over_restart_and_compaction_and_go_with_the_person() {
        let mut kept = Kept::new();
        let ada = kept.enrol(1, &chips());
        let bo = kept.enrol(2, &[]);
        assert_eq!(kept.ledger.chips(ada), chips());
        assert_eq!(kept.reopened().chips(ada), chips());
        assert!(kept.ledger.chips(bo).is_empty() && kept.ledger.chips(SubjectId(99)).is_empty());
        kept.journal = kept.ledger.compact(&mut kept.entropy).unwrap();
        assert_eq!(kept.reopened().chips(ada), chips());
        assert!(!kept.journal.windows(5).any(|w| w == b"short"), "chips are sealed");

        let erased = kept.ledger.prepare(Change::Erase(ada), NOW, &mut kept.entropy).unwrap();
        kept.commit(erased);
        kept.journal = kept.ledger.compact(&mut kept.entropy).unwrap();
        assert!(
            kept.journal.len() < 1500,
            "{} bytes are left of one person without chips",
            kept.journal.len()
        );
        assert!(kept.ledger.chips(ada).is_empty());
    }

    #[test]
    fn a_torn_chip_is_no_chip_and_the_person_stays() {
        let mut kept = Kept::new();
        let before = kept.journal.len();
        let ada = kept.enrol(1, &chips());
        let whole = kept.journal.clone();
        let mut seen = alloc::collections::BTreeSet::new();
        for length in (before..whole.len()).step_by(101) {
            let (ledger, _) = Ledger::replay(key(), &whole[..length]).unwrap();
            let count = ledger.chips(ada).len();
            assert!(ledger.chips(ada).iter().zip(chips()).all(|(a, b)| *a == b));
            seen.insert(count);
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn chips_that_cannot_be_kept_are_refused() {
        let mut kept = Kept::new();
        let mut try_chips = |chips: &[Vec<u8>]| {
            let templates = [template(1, 0)].to_vec();
            let change = Change::Enrol {
                name: Name::new("A").unwrap(),
                templates,
                binding: OLD,
                rights: Rights::default(),
            };
            let prepared = kept.ledger.prepare(change, NOW, &mut kept.entropy).unwrap();
            kept.ledger.prepare_chips(prepared, chips, &mut kept.entropy).map(|p| p.records)
        };
        assert_eq!(try_chips(&[Vec::new()]), Err(ChangeError::Chips));
        assert_eq!(try_chips(&[[0; MAX_CHIP_BYTES + 1].to_vec()]), Err(ChangeError::Chips));
        assert_eq!(
            try_chips(&[[1].to_vec(), [1].to_vec(), [1].to_vec(), [1].to_vec()]),
            Err(ChangeError::Chips)
        );
        assert_eq!(try_chips(&[[1].to_vec()]), Ok(3));
    }

    #[test]
    fn carried_templates_lie_beside_the_present_ones_until_these_are_forgotten() {
        let mut kept = Kept::new();
        let (ada, bo) = (kept.enrol(1, &[]), kept.enrol(2, &[]));
        assert_eq!(kept.ledger.without(NEW).collect::<Vec<_>>(), [ada, bo]);
        kept.carry(&[(ada, [template(7, 0)].to_vec()), (SubjectId(9), [template(8, 0)].to_vec())]);
        assert_eq!(kept.ledger.without(NEW).collect::<Vec<_>>(), [bo]);
        // A second time changes nothing.
        kept.carry(&[(ada, [template(3, 0)].to_vec())]);
        let mut back = kept.reopened();
        let best = |ledger: &Ledger, probe, binding| {
            ledger
                .gallery()
                .identify(&probe, binding)
                .unwrap()
                .best
                .map(|c| (c.subject, c.similarity.0 > 0.999))
        };
        assert_eq!(best(&back, template(1, 0), OLD), Some((ada, true)));
        assert_eq!(best(&back, template(7, 0), NEW), Some((ada, true)));
        assert_eq!(back.gallery().identify(&template(7, 0), NEW).unwrap().templates, 1);
        assert!(back.keep_bindings(&[NEW]));
        // Bo has nothing but old ones and keeps them.
        assert_eq!(best(&back, template(1, 0), OLD).map(|b| b.0), Some(bo));
        assert!(!back.keep_bindings(&[NEW]));
        let mut entropy = CountingEntropy(1000);
        let (again, recovery) = Ledger::replay(key(), &back.compact(&mut entropy).unwrap()).unwrap();
        assert!(!recovery.is_damage());
        assert_eq!(again.gallery().templates(), 3);
    }

    #[test]
    fn the_cross_check_finds_a_model_that_tells_nobody_apart() {
        let mut kept = Kept::new();
        for person in 1..=6 {
            kept.enrol(person, &[]);
        }
        let check = |binding| kept.ledger.gallery().cross_check(binding, Threshold(0.5), 0.05, 100);
        assert_eq!(check(OLD), CrossCheck { probes: 12, rejected: 0 });
        assert_eq!(check(NEW), CrossCheck::default());
        let flat: Vec<_> =
            (1..=6).map(|id| (SubjectId(id), [template(1, 0), template(1, 1)].to_vec())).collect();
        kept.carry(&flat);
        let bad = kept.ledger.gallery().cross_check(NEW, Threshold(0.5), 0.05, 100);
        assert_eq!((bad.probes, bad.rejected), (12, 12), "similar to oneself, but to everyone else as well");
        assert_eq!(bad.rejected_permille(), 1000);
        assert_eq!(kept.ledger.gallery().cross_check(OLD, Threshold(0.5), 0.05, 4).probes, 4);
    }
}
