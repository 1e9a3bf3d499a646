//! Stages that people decide: `verify` (do a person's first pictures show that person?) and `review` (which of what is left is wrong?).
//!
//! Both are blocks of one person's pictures: the first N candidates, or 200 of the ranking each. In a block the wrong pictures are marked;
//! a block that is purer than a limit is accepted without those, any other is refused whole (Parkhi et al. 2015, section 3: blocks of 200,
//! 95 %; people are kept at 90 % of 200). Every decision is stored at once; a share of the blocks goes to two reviewers, so that their
//! agreement can be measured.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::store::{Drop, Key, Stage, State, Store, StoreError};

/// How blocks are cut and judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// [`Stage::Verify`] or [`Stage::Review`].
    pub stage: Stage,
    /// Pictures a block.
    pub size: usize,
    /// Share of right pictures from which a block, or a person, is accepted.
    pub accept: f64,
    /// Share of blocks that a second reviewer sees too.
    pub overlap: f64,
}

impl Rules {
    /// The paper's for `stage`, without overlap.
    #[must_use]
    pub const fn of(stage: Stage) -> Self {
        let accept = if matches!(stage, Stage::Verify) { 0.9 } else { 0.95 };
        Self { stage, size: 200, accept, overlap: 0.0 }
    }

    fn settings(&self) -> String {
        format!("blocks of {}, accepted at {}, {} of them seen twice", self.size, self.accept, self.overlap)
    }
}

/// What a reviewer said of a block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Marks {
    /// Places of the wrong pictures among the person's candidates.
    pub wrong: Vec<u32>,
    /// The whole block is no good.
    pub refused: bool,
    /// Seconds it took.
    pub seconds: f32,
    /// When, milliseconds since 1970: undo takes back the latest.
    pub at_ms: u64,
}

/// A block by its place: person and number.
pub type Block = (u32, u32);

/// Hands out blocks and keeps what is said of them.
#[derive(Debug)]
pub struct Desk {
    rules: Rules,
    blocks: Vec<Block>,
    /// Who said something of a block already.
    said: BTreeMap<Block, BTreeSet<String>>,
    /// Blocks lying before a reviewer, and since when.
    before: BTreeMap<String, (Block, u64)>,
    seconds: Vec<f32>,
}

/// A block left lying for so long goes to somebody else.
const LEASE_MS: u64 = 15 * 60 * 1000;

impl Desk {
    /// Opens the stage, or goes on with it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(store: &Store, rules: Rules, again: bool) -> Result<Self, StoreError> {
        store.need(if rules.stage == Stage::Verify { Stage::Candidates } else { Stage::Dedupe })?;
        store.begin(rules.stage, &rules.settings(), again)?;
        let mut blocks = Vec::new();
        for (person, _) in store.people()? {
            let count = match rules.stage {
                Stage::Verify => store.alive_keys(person, Stage::Verify)?.len().min(rules.size),
                _ => store.alive_keys(person, rules.stage)?.len(),
            };
            blocks.extend((0..count.div_ceil(rules.size) as u32).map(|block| (person, block)));
        }
        let mut desk =
            Self { rules, blocks, said: BTreeMap::new(), before: BTreeMap::new(), seconds: vec![] };
        for (person, block, reviewer, marks) in store.marks::<Marks>(rules.stage)? {
            desk.said.entry((person, block)).or_default().insert(reviewer);
            desk.seconds.push(marks.seconds);
        }
        Ok(desk)
    }

    /// The rules.
    #[must_use]
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// How many reviewers a block needs.
    fn needs(&self, (person, block): Block) -> usize {
        let mut state = u64::from(person) << 32 | u64::from(block);
        1 + usize::from((super::svm::below(&mut state, 10_000) as f64) < self.rules.overlap * 10_000.0)
    }

    /// Decisions made and decisions needed.
    #[must_use]
    pub fn progress(&self) -> (usize, usize) {
        let made = |block: &Block| self.said.get(block).map_or(0, BTreeSet::len).min(self.needs(*block));
        (self.blocks.iter().map(made).sum(), self.blocks.iter().map(|b| self.needs(*b)).sum())
    }

    /// Seconds of work that are left, by the median of the last decisions; `None` before the first.
    #[must_use]
    pub fn seconds_left(&self) -> Option<f32> {
        let mut last: Vec<f32> = self.seconds.iter().rev().take(20).copied().collect();
        last.sort_by(f32::total_cmp);
        let (made, needed) = self.progress();
        Some(last.get(last.len() / 2)? * (needed - made) as f32)
    }

    /// The next block for `reviewer`: the one that lies before them, else the first that needs somebody and lies before nobody else.
    pub fn next(&mut self, reviewer: &str, now_ms: u64) -> Option<Block> {
        if let Some(&(block, _)) = self.before.get(reviewer) {
            return Some(block);
        }
        let taken: Vec<Block> =
            self.before.values().filter(|(_, since)| now_ms < since + LEASE_MS).map(|(b, _)| *b).collect();
        let nobody = BTreeSet::new();
        let free = self.blocks.iter().copied().find(|block| {
            let said = self.said.get(block).unwrap_or(&nobody);
            let waiting = taken.iter().filter(|b| *b == block).count();
            !said.contains(reviewer) && said.len() + waiting < self.needs(*block)
        })?;
        self.before.insert(reviewer.to_owned(), (free, now_ms));
        Some(free)
    }

    /// The pictures of a block, best ranked first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn pictures(&self, store: &Store, (person, block): Block) -> Result<Vec<Key>, StoreError> {
        let mut keys = store.alive_keys(person, self.rules.stage)?;
        if self.rules.stage == Stage::Review {
            let scores: BTreeMap<Key, f32> = store.scores(person)?.into_iter().collect();
            let score = |key: &Key| scores.get(key).copied().unwrap_or(0.0);
            keys.sort_by(|a, b| score(b).total_cmp(&score(a)).then(a.cmp(b)));
        }
        Ok(keys.into_iter().skip(block as usize * self.rules.size).take(self.rules.size).collect())
    }

    /// Stores what `reviewer` said of a block.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn mark(
        &mut self,
        store: &Store,
        reviewer: &str,
        block: Block,
        marks: &Marks,
    ) -> Result<(), StoreError> {
        store.write(|txn| txn.put_marks((self.rules.stage, block.0, block.1, reviewer), Some(marks)))?;
        self.said.entry(block).or_default().insert(reviewer.to_owned());
        self.seconds.push(marks.seconds);
        self.before.remove(reviewer);
        Ok(())
    }

    /// Takes back the latest decision of `reviewer` and lays that block before them again, with what they had marked.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn undo(
        &mut self,
        store: &Store,
        reviewer: &str,
        now_ms: u64,
    ) -> Result<Option<(Block, Marks)>, StoreError> {
        let all = store.marks::<Marks>(self.rules.stage)?;
        let own = all.into_iter().filter(|(_, _, who, _)| who == reviewer);
        let Some((person, block, _, marks)) = own.max_by_key(|(.., marks)| marks.at_ms) else {
            return Ok(None);
        };
        store.write(|txn| txn.put_marks::<Marks>((self.rules.stage, person, block, reviewer), None))?;
        if let Some(said) = self.said.get_mut(&(person, block)) {
            said.remove(reviewer);
        }
        self.before.insert(reviewer.to_owned(), ((person, block), now_ms));
        Ok(Some(((person, block), marks)))
    }

    /// Cohen's kappa between the reviewers of the blocks that two have seen, picture by picture.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn agreement(&self, store: &Store) -> Result<Agreement, StoreError> {
        let mut by_block: BTreeMap<Block, Vec<Marks>> = BTreeMap::new();
        for (person, block, _, marks) in store.marks::<Marks>(self.rules.stage)? {
            by_block.entry((person, block)).or_default().push(marks);
        }
        let mut table = [[0_usize; 2]; 2];
        for (block, marks) in by_block.into_iter().filter(|(_, marks)| marks.len() > 1) {
            let said =
                |marks: &Marks, key: &Key| usize::from(marks.refused || marks.wrong.contains(&key.index));
            for key in self.pictures(store, block)? {
                table[said(&marks[0], &key)][said(&marks[1], &key)] += 1;
            }
        }
        Ok(Agreement { table })
    }

    /// Turns what was said into what is dropped, and ends the stage. `partial` lets blocks through that nobody has seen.
    ///
    /// # Errors
    /// [`ReviewError::Open`] where blocks are left and `partial` is not set.
    pub fn finish(&self, store: &Store, partial: bool) -> Result<State, ReviewError> {
        let (made, needed) = self.progress();
        if made < needed && !partial {
            return Err(ReviewError::Open { made, needed });
        }
        let mut by_block: BTreeMap<Block, Vec<Marks>> = BTreeMap::new();
        let mut seconds = 0.0;
        for (person, block, _, marks) in store.marks::<Marks>(self.rules.stage)? {
            seconds += f64::from(marks.seconds);
            by_block.entry((person, block)).or_default().push(marks);
        }
        let (mut drops, mut accepted, mut refused, mut seen) = (Vec::new(), 0, 0, 0);
        for (block, marks) in &by_block {
            let keys = self.pictures(store, *block)?;
            seen += keys.len() as u64;
            // One reviewer's mark is enough: a picture in doubt teaches little.
            let wrong: BTreeSet<u32> = marks.iter().flat_map(|m| m.wrong.iter().copied()).collect();
            let right = 1.0 - wrong.len() as f64 / keys.len().max(1) as f64;
            let good = !marks.iter().any(|m| m.refused) && right >= self.rules.accept;
            if good {
                accepted += 1
            } else {
                refused += 1
            }
            if self.rules.stage == Stage::Verify && !good {
                let all = store.alive_keys(block.0, Stage::Verify)?;
                drops.extend(all.into_iter().map(|key| (key, Drop::Person)));
                continue;
            }
            for key in keys {
                if wrong.contains(&key.index) {
                    drops.push((key, Drop::Wrong));
                } else if !good {
                    drops.push((key, Drop::Block));
                }
            }
        }
        let mut state = store.state(self.rules.stage)?.unwrap_or_default();
        let agreement = self.agreement(store)?;
        state.done = true;
        state.seen = seen;
        state.seconds = seconds;
        state.notes = vec![
            ("blocks accepted".into(), accepted.to_string()),
            ("blocks refused".into(), refused.to_string()),
            ("blocks nobody saw".into(), (self.blocks.len() - by_block.len()).to_string()),
        ];
        if let Some(kappa) = agreement.kappa() {
            state.notes.push(("agreement (Cohen's kappa)".into(), format!("{kappa:.3}")));
        }
        store.write(|txn| {
            txn.undrop(self.rules.stage)?;
            for (key, why) in &drops {
                txn.drop(self.rules.stage, *key, why)?;
            }
            txn.put_state(self.rules.stage, &state)
        })?;
        Ok(state)
    }
}

/// What two reviewers said of the same pictures: `table[first says wrong][second says wrong]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Counts.
    pub table: [[usize; 2]; 2],
}

impl Agreement {
    /// Pictures seen twice.
    #[must_use]
    pub fn pictures(&self) -> usize {
        self.table.iter().flatten().sum()
    }

    /// Cohen's kappa (1960): agreement beyond what chance gives, 1 at most; `None` where nothing was seen twice or both always said
    /// the same one thing.
    #[must_use]
    pub fn kappa(&self) -> Option<f64> {
        let [[a, b], [c, d]] = self.table.map(|row| row.map(|n| n as f64));
        let n = a + b + c + d;
        let chance = ((a + b) * (a + c) + (c + d) * (b + d)) / (n * n);
        (n > 0.0 && chance < 1.0).then(|| ((a + d) / n - chance) / (1.0 - chance))
    }
}

/// Milliseconds since 1970; 0 on a machine whose clock stands before that.
#[must_use]
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// Why a stage of decisions could not end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReviewError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Blocks are left.
    #[error(
        "{made} of {needed} decisions are made: make the others, or give --partial to keep what nobody has seen"
    )]
    Open {
        /// Decisions made.
        made: usize,
        /// Decisions needed.
        needed: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::super::store::{Candidate, Person, Place};
    use super::*;

    fn store(dir: &std::path::Path, stage: Stage) -> Store {
        let store = Store::create(dir).unwrap();
        let done = State { done: true, ..State::default() };
        store
            .write(|txn| {
                for person in 0..2 {
                    let named = Person { name: format!("p{person}"), attributes: vec![], left_out: None };
                    txn.put_person(person, &named)?;
                    for i in 0..25 {
                        let place = Place::File(i.to_string());
                        let key = txn.add_candidate(person, &Candidate { source: 0, place })?;
                        txn.put_score(key, -(i as f32))?;
                    }
                }
                for stage in Stage::ALL.into_iter().filter(|s| *s < stage) {
                    txn.put_state(stage, &done)?;
                }
                Ok(())
            })
            .unwrap();
        store
    }

    fn marks(wrong: &[u32], at_ms: u64) -> Marks {
        Marks { wrong: wrong.to_vec(), refused: false, seconds: 2.0, at_ms }
    }

    #[test]
    fn blocks_go_round_pure_ones_are_accepted_and_the_others_refused_whole() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path(), Stage::Review);
        let rules = Rules { size: 20, ..Rules::of(Stage::Review) };
        let mut desk = Desk::open(&store, rules, false).unwrap();
        assert_eq!(desk.progress(), (0, 4));
        assert_eq!(desk.next("ann", 0), Some((0, 0)));
        assert_eq!(desk.next("bob", 0), Some((0, 1)), "not what lies before ann");
        assert_eq!(desk.next("ann", 0), Some((0, 0)), "until she decides");
        desk.mark(&store, "ann", (0, 0), &marks(&[3], 1)).unwrap();
        desk.mark(&store, "bob", (0, 1), &marks(&[], 2)).unwrap();
        assert_eq!(desk.next("ann", 0), Some((1, 0)));
        desk.mark(&store, "ann", (1, 0), &marks(&[4, 5], 3)).unwrap();
        assert_eq!(desk.seconds_left(), Some(2.0));
        assert!(matches!(desk.finish(&store, false), Err(ReviewError::Open { made: 3, needed: 4 })));
        // A restart forgets nothing.
        let mut desk = Desk::open(&store, rules, false).unwrap();
        let (block, taken_back) = desk.undo(&store, "ann", 0).unwrap().unwrap();
        assert_eq!((block, taken_back.wrong), ((1, 0), vec![4, 5]));
        assert_eq!(desk.next("ann", 0), Some((1, 0)));
        desk.mark(&store, "ann", (1, 0), &marks(&[4, 5, 6], 3)).unwrap();
        let state = desk.finish(&store, true).unwrap();
        assert_eq!(store.kept(0).unwrap().len(), 24, "95 % right: all but the marked one");
        assert_eq!(store.kept(1).unwrap().len(), 5, "85 % right: refused whole");
        assert!(state.notes.contains(&("blocks nobody saw".into(), "1".into())), "{:?}", state.notes);
    }

    #[test]
    fn a_person_whose_first_pictures_are_wrong_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path(), Stage::Describe);
        let mut desk = Desk::open(&store, Rules { size: 10, ..Rules::of(Stage::Verify) }, false).unwrap();
        assert_eq!(desk.progress(), (0, 2), "one block a person");
        desk.mark(&store, "ann", (0, 0), &marks(&[0], 1)).unwrap();
        desk.mark(&store, "ann", (1, 0), &marks(&[0, 1], 2)).unwrap();
        desk.finish(&store, false).unwrap();
        let left = |person| store.alive_keys(person, Stage::Rank).unwrap().len();
        assert_eq!((left(0), left(1)), (24, 0), "the wrong one goes too");
    }

    #[test]
    fn a_second_reviewer_sees_a_share_and_agreement_is_kappa() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path(), Stage::Review);
        let rules = Rules { size: 20, overlap: 1.0, ..Rules::of(Stage::Review) };
        let mut desk = Desk::open(&store, rules, false).unwrap();
        assert_eq!(desk.progress().1, 8);
        for (reviewer, wrong) in [("ann", vec![0, 1, 2, 3]), ("bob", vec![2, 3, 4])] {
            assert_eq!(desk.next(reviewer, 0), Some((0, 0)));
            desk.mark(&store, reviewer, (0, 0), &marks(&wrong, 1)).unwrap();
        }
        let agreement = desk.agreement(&store).unwrap();
        assert_eq!(agreement.table, [[15, 1], [2, 2]]);
        // Observed 17/20; by chance (16·17 + 4·3)/400 = 0.71.
        assert!((agreement.kappa().unwrap() - (0.85 - 0.71) / 0.29).abs() < 1e-9);
        assert_eq!(Agreement::default().kappa(), None);
    }
}
