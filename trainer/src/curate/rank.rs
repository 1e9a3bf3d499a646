//! Stage `rank`: a linear classifier per person, learnt from the pictures that came first, orders all of that person's candidates.
//!
//! As in the paper: the first 50 pictures of a person are positives, other people's first 50 negatives, and the best K are kept. Two
//! things beyond it, both of which can be turned off: positives are scored by classifiers that have seen neither them nor copies of them (with
//! descriptors of as many dimensions as there are positives every positive is separable, and a wrong face among them would vouch for itself or
//! for its copy), and the classifier can be learnt again from the pictures that came first in its own order.

use std::collections::BTreeMap;

use thiserror::Error;

use super::dedupe::{raw_of, raw_sample};
use super::describe::shared_out;
use super::fisher::Mixture;
use super::sources::{Reader, SourceError};
use super::store::{Drop, Face, Key, Stage, State, Store, StoreError};
use super::svm::{Options, Svm, below, dot};
use crate::progress::Progress;

/// What a classifier looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptor {
    /// The embedder's vector, 128 numbers, as `describe` stored it.
    Embedder,
    /// Fisher vectors of dense local descriptors, the paper's: 3,328 numbers, made anew from the pictures. Needs no trained net.
    Fisher,
}

/// How a person's candidates are ordered, and how many stay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranking {
    /// What it looks at.
    pub descriptor: Descriptor,
    /// Threads that make Fisher vectors.
    pub threads: usize,
    /// Pictures learnt from.
    pub positives: usize,
    /// Other people's pictures learnt from, over all people.
    pub negatives: usize,
    /// Pictures kept at most.
    pub keep: usize,
    /// Share of a person's pictures kept at most; the paper keeps 1,000 of 2,000.
    pub share: f32,
    /// Pictures below this are dropped, in units of the margin.
    pub least: Option<f32>,
    /// Parts that positives are held out in; 1 scores them by the classifier that learnt from them, as the paper does.
    pub folds: usize,
    /// Times the classifier is learnt; from the second on from the pictures it put first.
    pub rounds: usize,
    /// The classifier's own.
    pub svm: Options,
}

impl Default for Ranking {
    fn default() -> Self {
        let svm = Options::default();
        Self {
            descriptor: Descriptor::Embedder,
            threads: 1,
            positives: 50,
            negatives: 4000,
            keep: 1000,
            share: 0.5,
            least: None,
            folds: 5,
            rounds: 2,
            svm,
        }
    }
}

impl Ranking {
    /// As the store keeps it.
    #[must_use]
    pub fn settings(&self) -> String {
        format!(
            "descriptor {}, positives {}, negatives {}, keep {}, share {}, least {}, folds {}, rounds {}, C {}",
            match self.descriptor {
                Descriptor::Embedder => "embedder",
                Descriptor::Fisher => "fisher",
            },
            self.positives,
            self.negatives,
            self.keep,
            self.share,
            self.least.map_or("any".into(), |least| least.to_string()),
            self.folds,
            self.rounds,
            self.svm.c
        )
    }
}

/// Ranks everybody. Goes on where it stopped. Holds the negatives (at most `negatives` descriptors) and one person's descriptors: 0.5 kB
/// each of the embedder, 13 kB each as Fisher vectors.
///
/// # Errors
/// [`RankError`]; a picture that cannot be read any more has a Fisher vector of zeros.
pub fn run(
    store: &Store,
    ranking: &Ranking,
    again: bool,
    progress: &dyn Progress,
) -> Result<State, RankError> {
    store.need(Stage::Describe)?;
    let mut state = store.begin(Stage::Rank, &ranking.settings(), again)?;
    if state.done {
        return Ok(state);
    }
    let people: Vec<u32> = store.people()?.into_iter().map(|(number, _)| number).collect();
    let vectors = Vectors::open(store, ranking, progress)?;
    let pool = negatives(store, &people, ranking, &vectors)?;
    progress.start("people ranked", people.len() as u64);
    let from = state.cursor[0];
    for &person in people.iter().filter(|&&p| u64::from(p) >= from) {
        let faces = store.faces(&store.alive_keys(person, Stage::Rank)?)?;
        let own = vectors.of(store, &faces)?;
        let others: Vec<&[f32]> =
            pool.iter().filter(|(whose, _)| *whose != person).map(|(_, v)| v.as_slice()).collect();
        let scores = order(&own, &others, ranking, u64::from(person));
        let mut by_score: Vec<usize> = (0..faces.len()).collect();
        by_score.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        let most = ranking.keep.min((faces.len() as f32 * ranking.share).ceil() as usize);
        state.cursor[0] = u64::from(person) + 1;
        state.seen += faces.len() as u64;
        state.seconds += store.lap();
        store.write(|txn| {
            for (place, &at) in by_score.iter().enumerate() {
                txn.put_score(faces[at].0, scores[at])?;
                if place >= most || ranking.least.is_some_and(|least| scores[at] < least) {
                    txn.drop(Stage::Rank, faces[at].0, &Drop::Rank(place as u32))?;
                }
            }
            txn.put_state(Stage::Rank, &state)
        })?;
        progress.step();
    }
    progress.finish();
    state.done = true;
    state.seconds += store.lap();
    store.write(|txn| txn.put_state(Stage::Rank, &state))?;
    Ok(state)
}

/// Name of the mixture among the store's blocks.
const MIXTURE: &str = "rank/mixture";
/// Pictures and descriptors that the mixture is learnt from.
const SAMPLE: (usize, usize) = (1000, 50);

/// Makes the vectors of faces.
enum Vectors {
    Embedder,
    Fisher { mixture: Option<Mixture>, reader: Reader, threads: usize },
}

impl Vectors {
    fn open(store: &Store, ranking: &Ranking, progress: &dyn Progress) -> Result<Self, RankError> {
        if ranking.descriptor == Descriptor::Embedder {
            return Ok(Self::Embedder);
        }
        let (reader, threads) = (Reader::open(&store.sources()?)?, ranking.threads.max(1));
        let mixture = match store.blob(MIXTURE)? {
            Some(bytes) => Mixture::from_bytes(&bytes),
            None => {
                let sample = raw_sample(store, &reader, (Stage::Rank, SAMPLE), threads, progress)?;
                let learnt = Mixture::learn(&sample, 1);
                let bytes = learnt.as_ref().map(Mixture::to_bytes).unwrap_or_default();
                store.write(|txn| txn.put_blob(MIXTURE, &bytes))?;
                learnt
            }
        };
        // With too few pictures for a mixture there is nothing to tell them apart by.
        Ok(Self::Fisher { mixture, reader, threads })
    }

    fn of(&self, store: &Store, faces: &[(Key, Face)]) -> Result<Vec<Vec<f32>>, StoreError> {
        let Self::Fisher { mixture, reader, threads } = self else {
            return Ok(faces.iter().map(|(_, face)| face.vector()).collect());
        };
        let mut jobs = Vec::with_capacity(faces.len());
        for (key, face) in faces {
            jobs.push((store.candidate(*key)?, face));
        }
        Ok(shared_out(&jobs, &mut vec![(); *threads], |(), (candidate, face)| {
            let raw = candidate.as_ref().and_then(|candidate| raw_of(reader, candidate, face));
            mixture.as_ref().map_or_else(|| vec![0.0], |mixture| mixture.vector(&raw.unwrap_or_default()))
        }))
    }
}

/// The first pictures of everybody, as many of each as fit; of more people than that an even selection.
fn negatives(
    store: &Store,
    people: &[u32],
    ranking: &Ranking,
    vectors: &Vectors,
) -> Result<Vec<(u32, Vec<f32>)>, StoreError> {
    let each = (ranking.negatives / people.len().max(1)).clamp(1, ranking.positives.max(1));
    let stride = people.len().div_ceil(ranking.negatives.max(1)).max(1);
    let mut pool = Vec::new();
    for &person in people.iter().step_by(stride) {
        let mut keys = store.alive_keys(person, Stage::Rank)?;
        keys.truncate(each);
        let faces = store.faces(&keys)?;
        pool.extend(vectors.of(store, &faces)?.into_iter().map(|vector| (person, vector)));
    }
    Ok(pool)
}

/// A score for each of `vectors`, of one person in the order in which they came, against `others`. Zeros where there is nothing to
/// learn from: a person with one picture, or nobody else.
#[must_use]
pub fn order(vectors: &[Vec<f32>], others: &[&[f32]], ranking: &Ranking, seed: u64) -> Vec<f32> {
    let mut scores = vec![0.0_f32; vectors.len()];
    if vectors.len() < 2 || others.is_empty() {
        return scores;
    }
    let copies = |a: usize, b: usize| ranking.folds > 1 && dot(&vectors[a], &vectors[b]) >= COPY;
    let mut order: Vec<usize> = (0..vectors.len()).collect();
    for round in 0..ranking.rounds.max(1) {
        let mut first: Vec<usize> = Vec::new();
        for &at in &order {
            if first.len() < ranking.positives.max(2) && !first.iter().any(|&other| copies(other, at)) {
                first.push(at);
            }
        }
        let folds = ranking.folds.clamp(1, first.len());
        // A copy is held out with the picture that it would vouch for.
        let mut fold_of: BTreeMap<usize, usize> = BTreeMap::new();
        for at in 0..vectors.len() {
            let own = first.iter().position(|&other| other == at || copies(other, at));
            fold_of.extend(own.map(|place| (at, place % folds)));
        }
        let planes: Vec<Option<Svm>> = (0..folds)
            .map(|fold| {
                let held_out = |at: &&usize| folds == 1 || fold_of[at] != fold;
                let positives: Vec<&[f32]> =
                    first.iter().filter(held_out).map(|&at| vectors[at].as_slice()).collect();
                Svm::fit(&positives, others, ranking.svm, seed ^ (round * folds + fold) as u64)
            })
            .collect();
        for (at, vector) in vectors.iter().enumerate() {
            let fold = fold_of.get(&at).copied().filter(|_| folds > 1);
            let judges = planes.iter().enumerate().filter(|(f, _)| fold.is_none_or(|fold| fold == *f));
            let said: Vec<f32> =
                judges.filter_map(|(_, plane)| Some(plane.as_ref()?.score(vector))).collect();
            scores[at] = said.iter().sum::<f32>() / said.len().max(1) as f32;
        }
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    }
    scores
}

/// Pictures with this cosine between their vectors, of length one, are taken for copies of one another.
const COPY: f32 = 0.9;

/// An even draw of `count` of the pictures that `stage` and those before it kept, for labelling by hand; the same for the same seed.
///
/// # Errors
/// [`StoreError`].
pub fn sample(store: &Store, stage: Stage, count: usize, seed: u64) -> Result<Vec<Key>, StoreError> {
    let mut drawn: Vec<Key> = Vec::with_capacity(count);
    let (mut seen, mut state) = (0, seed);
    for (person, _) in store.people()? {
        for key in store.alive_keys(person, stage)? {
            seen += 1;
            if drawn.len() < count {
                drawn.push(key);
            } else {
                let at = below(&mut state, seen);
                if at < count {
                    drawn[at] = key;
                }
            }
        }
    }
    drawn.sort_unstable();
    Ok(drawn)
}

/// Why nobody could be ranked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RankError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A source is gone.
    #[error(transparent)]
    Source(#[from] SourceError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(centre: usize, count: usize, seed: u64) -> Vec<Vec<f32>> {
        let mut state = seed;
        let mut unit = || below(&mut state, 2001) as f32 / 1000.0 - 1.0;
        let one = |_| {
            let v: Vec<f32> = (0..32).map(|k| unit() * 0.4 + f32::from(k == centre)).collect();
            let length = v.iter().map(|x| x * x).sum::<f32>().sqrt();
            v.into_iter().map(|x| x / length).collect()
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn wrong_faces_among_the_positives_end_last() {
        let others: Vec<Vec<f32>> = (1..20).flat_map(|p| around(p, 10, p as u64)).collect();
        let others: Vec<&[f32]> = others.iter().map(Vec::as_slice).collect();
        // Every third of the candidates is of one other person, who is nobody's negative.
        let (right, wrong) = (around(0, 40, 77), around(25, 20, 78));
        let mut candidates = Vec::new();
        for i in 0..60 {
            candidates.push(if i % 3 == 2 {
                wrong[i / 3].clone()
            } else {
                right[i - i / 3 - i % 3 / 2].clone()
            });
        }
        let wrong_below = |ranking: &Ranking| {
            let scores = order(&candidates, &others, ranking, 5);
            let mut by_score: Vec<usize> = (0..60).collect();
            by_score.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            by_score[40..].iter().filter(|&&i| i % 3 == 2).count()
        };
        assert!(wrong_below(&Ranking::default()) >= 15, "{}", wrong_below(&Ranking::default()));
        let scores = order(&candidates, &others, &Ranking::default(), 5);
        assert_eq!(scores, order(&candidates, &others, &Ranking::default(), 5));
    }

    #[test]
    fn copies_of_a_wrong_face_do_not_vouch_for_one_another() {
        let others: Vec<Vec<f32>> = (1..20).flat_map(|p| around(p, 10, p as u64)).collect();
        let others: Vec<&[f32]> = others.iter().map(Vec::as_slice).collect();
        let mut candidates = around(0, 16, 77);
        candidates.splice(0..0, vec![around(25, 1, 78).remove(0); 8]);
        let last = |folds| {
            let scores = order(&candidates, &others, &Ranking { folds, ..Ranking::default() }, 5);
            let least = scores[8..].iter().copied().fold(f32::INFINITY, f32::min);
            scores[..8].iter().all(|score| *score < least)
        };
        assert!(last(5) && !last(1));
    }

    #[test]
    fn nothing_to_learn_from_is_no_panic() {
        let one = around(0, 1, 1);
        assert_eq!(order(&one, &[&one[0]], &Ranking::default(), 1), [0.0]);
        assert_eq!(order(&around(0, 3, 1), &[], &Ranking::default(), 1), [0.0; 3]);
        assert_eq!(order(&around(0, 2, 1), &[&one[0]], &Ranking::default(), 1).len(), 2);
    }
}
