//! Stage `dedupe`: one of each picture, within a person and under different names.
//!
//! Files that are the same byte for byte are found by their hash, near-duplicates by the cosine of VLAD descriptors of the aligned face,
//! either way round. Within a person all pairs are compared and groups are what such pairs connect; of a group the picture with most pixels
//! between the eyes stays. Across people only pictures that share a bucket of a hash are compared, so that the work grows with the number
//! of pictures, not its square; such a picture stays with the person whose classifier likes it better and goes from both where none does.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::describe::shared_out;
use super::local::{Raw, describe};
use super::sources::{Reader, SourceError};
use super::store::{Candidate, Drop, Face, Key, Stage, State, Store, StoreError};
use super::vlad::{Vlad, Vocabulary};
use super::{canvas, decode, grey};
use crate::progress::Progress;

/// When pictures count as the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Cosine of VLADs from which two pictures of a person are near-duplicates.
    pub threshold: f32,
    /// The same across people, where a mistake costs more.
    pub across: f32,
    /// Threads.
    pub threads: usize,
}

impl Options {
    fn settings(&self) -> String {
        format!("threshold {}, across {}", self.threshold, self.across)
    }
}

/// Finds duplicates. Goes on where it stopped. Holds one person's descriptors, 1.7 kB a picture.
///
/// # Errors
/// [`DedupeError`]; a picture that cannot be read any more is compared by its hash alone.
pub fn run(
    store: &Store,
    options: &Options,
    again: bool,
    progress: &dyn Progress,
) -> Result<State, DedupeError> {
    store.need(Stage::Describe)?;
    if let Some(rank) = store.state(Stage::Rank)?
        && !rank.done
    {
        return Err(StoreError::NotYet { stage: Stage::Rank }.into());
    }
    let mut state = store.begin(Stage::Dedupe, &options.settings(), again)?;
    if state.done {
        return Ok(state);
    }
    let reader = Reader::open(&store.sources()?)?;
    let vocabulary = match store.blob(VOCABULARY)? {
        Some(bytes) => Vocabulary::from_bytes(&bytes),
        None => {
            let learnt = learn(store, &reader, options.threads, progress)?;
            let bytes = learnt.as_ref().map(Vocabulary::to_bytes).unwrap_or_default();
            store.write(|txn| txn.put_blob(VOCABULARY, &bytes))?;
            learnt
        }
    };
    let people: Vec<u32> = store.people()?.into_iter().map(|(number, _)| number).collect();
    let mut total = 0;
    for &person in people.iter().filter(|&&p| u64::from(p) >= state.cursor[0]) {
        total += store.alive_keys(person, Stage::Dedupe)?.len() as u64;
    }
    progress.start("pictures compared", total);
    for &person in &people {
        if u64::from(person) < state.cursor[0] {
            continue;
        }
        within(store, &reader, vocabulary.as_ref(), person, options, &mut state, progress)?;
    }
    progress.finish();
    across(store, options, &mut state)?;
    Ok(state)
}

/// Name of the vocabulary among the store's blocks.
pub const VOCABULARY: &str = "dedupe/vocabulary";
/// Pictures and descriptors that the vocabulary is learnt from.
const SAMPLE_PICTURES: usize = 600;
const SAMPLE_OF_EACH: usize = 40;
/// Buckets of one kind hold hashes of files, those after it bands of signatures.
const FILES: u8 = 0;
/// Pictures compared within one bucket.
const LARGEST_BUCKET: usize = 64;

fn learn(
    store: &Store,
    reader: &Reader,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Option<Vocabulary>, StoreError> {
    let size = (SAMPLE_PICTURES, SAMPLE_OF_EACH);
    Ok(Vocabulary::learn(&raw_sample(store, reader, (Stage::Dedupe, size), threads, progress)?, 1))
}

/// Descriptors to learn from: of so many pictures that the stages before `stage` kept, at most so many each.
pub(super) fn raw_sample(
    store: &Store,
    reader: &Reader,
    (stage, (pictures, of_each)): (Stage, (usize, usize)),
    threads: usize,
    progress: &dyn Progress,
) -> Result<Vec<Raw>, StoreError> {
    let keys = super::rank::sample(store, stage, pictures, 1)?;
    let mut jobs = Vec::with_capacity(keys.len());
    for (key, face) in store.faces(&keys)? {
        jobs.extend(store.candidate(key)?.map(|candidate| (candidate, face)));
    }
    progress.start("pictures to learn descriptors from", jobs.len() as u64);
    let described = shared_out(&jobs, &mut vec![(); threads.max(1)], |(), (candidate, face)| {
        let raw = raw_of(reader, candidate, face).unwrap_or_default();
        progress.step();
        let stride = raw.len().div_ceil(of_each).max(1);
        raw.into_iter().step_by(stride).collect::<Vec<_>>()
    });
    progress.finish();
    Ok(described.into_iter().flatten().collect())
}

/// The dense descriptors of a face; `None` where its picture cannot be read any more.
pub(super) fn raw_of(reader: &Reader, candidate: &Candidate, face: &Face) -> Option<Vec<Raw>> {
    let picture = decode(&reader.bytes(candidate).ok()?).ok()?;
    Some(describe(&grey(&canvas(&picture, face).ok()?)))
}

fn within(
    store: &Store,
    reader: &Reader,
    vocabulary: Option<&Vocabulary>,
    person: u32,
    options: &Options,
    state: &mut State,
    progress: &dyn Progress,
) -> Result<(), DedupeError> {
    let mut jobs = Vec::new();
    for (key, candidate) in store.alive(person, Stage::Dedupe)? {
        jobs.extend(store.face(key)?.map(|face| (key, candidate, face)));
    }
    let vlads = shared_out(&jobs, &mut vec![(); options.threads.max(1)], |(), (_, candidate, face)| {
        let vlad = vocabulary.and_then(|v| Some(v.vlad(&raw_of(reader, candidate, face)?)));
        progress.step();
        vlad
    });
    let faces: Vec<(Key, &Face, Option<&Vlad>)> =
        jobs.iter().zip(&vlads).map(|((key, _, face), vlad)| (*key, face, vlad.as_ref())).collect();
    let drops = duplicates(&faces, options.threshold);
    state.cursor = [u64::from(person) + 1, 0, 0];
    state.seen += jobs.len() as u64;
    state.seconds += store.lap();
    let gone: BTreeSet<Key> = drops.iter().map(|(key, _)| *key).collect();
    store.write(|txn| {
        for (key, why) in &drops {
            txn.drop(Stage::Dedupe, *key, why)?;
        }
        for (key, face, vlad) in faces.iter().filter(|(key, ..)| !gone.contains(key)) {
            let mut hash = [0; 8];
            hash.copy_from_slice(&face.sha256[..8]);
            txn.put_bucket(FILES, u64::from_le_bytes(hash), *key)?;
            if let Some(vlad) = vlad {
                txn.put_vlad(*key, &vlad.to_bytes())?;
                for (band, hash) in vlad.bands().into_iter().enumerate() {
                    txn.put_bucket(FILES + 1 + band as u8, hash, *key)?;
                }
            }
        }
        txn.put_state(Stage::Dedupe, state)
    })?;
    Ok(())
}

/// Which of a person's pictures go, and why: all but one of each group that near pairs connect.
#[must_use]
pub fn duplicates(faces: &[(Key, &Face, Option<&Vlad>)], threshold: f32) -> Vec<(Key, Drop)> {
    let mut leader: Vec<usize> = (0..faces.len()).collect();
    let mut nearest: Vec<f32> = vec![0.0; faces.len()];
    for i in 0..faces.len() {
        for j in 0..i {
            let same = faces[i].1.sha256 == faces[j].1.sha256;
            let alike = match (same, faces[i].2, faces[j].2) {
                (true, ..) => 1.0,
                (false, Some(a), Some(b)) => a.alike(b),
                _ => continue,
            };
            if alike >= threshold || same {
                nearest[i] = nearest[i].max(alike);
                nearest[j] = nearest[j].max(alike);
                let (a, b) = (root(&leader, i), root(&leader, j));
                leader[a.max(b)] = a.min(b);
            }
        }
    }
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for at in 0..faces.len() {
        groups.entry(root(&leader, at)).or_default().push(at);
    }
    let mut drops = Vec::new();
    for group in groups.into_values().filter(|group| group.len() > 1) {
        let size = |&at: &usize| faces[at].1.eye_distance_px();
        // Of equals the earlier.
        let best = group.iter().rev().max_by(|a, b| size(a).total_cmp(&size(b))).copied().unwrap_or(group[0]);
        for at in group.into_iter().filter(|&at| at != best) {
            let why = if faces[at].1.sha256 == faces[best].1.sha256 {
                Drop::Same(faces[best].0)
            } else {
                Drop::Near(faces[best].0, nearest[at])
            };
            drops.push((faces[at].0, why));
        }
    }
    drops.sort_by_key(|(key, _)| *key);
    drops
}

fn root(leader: &[usize], mut at: usize) -> usize {
    while leader[at] != at {
        at = leader[at];
    }
    at
}

/// Pictures under two names. One pass over the buckets; begun anew when it was interrupted.
fn across(store: &Store, options: &Options, state: &mut State) -> Result<(), DedupeError> {
    let mut pairs: BTreeSet<(Key, Key)> = BTreeSet::new();
    let mut tried: BTreeSet<(Key, Key)> = BTreeSet::new();
    let cut = store.each_bucket(LARGEST_BUCKET, |kind, keys| {
        // Pairs tried before are remembered while they fit.
        if tried.len() > 1_000_000 {
            tried.clear();
        }
        for (i, &a) in keys.iter().enumerate() {
            for &b in &keys[..i] {
                let pair = (a.min(b), a.max(b));
                if a.person == b.person || pairs.contains(&pair) || !tried.insert((pair.0, pair.1)) {
                    continue;
                }
                let same = if kind == FILES {
                    let hash = |key| store.face(key).map(|face| face.map(|face| face.sha256));
                    hash(a)? == hash(b)?
                } else {
                    let vlad = |key| store.vlad(key).map(|bytes| bytes.and_then(|b| Vlad::from_bytes(&b)));
                    matches!((vlad(a)?, vlad(b)?), (Some(a), Some(b)) if a.alike(&b) >= options.across)
                };
                if same {
                    pairs.insert(pair);
                } else if kind == FILES {
                    tried.remove(&pair);
                }
            }
        }
        Ok(())
    })?;
    let mut drops: BTreeMap<Key, Key> = BTreeMap::new();
    let score = |key: Key| -> Result<Option<f32>, StoreError> {
        Ok(store.scores(key.person)?.into_iter().find(|(k, _)| *k == key).map(|(_, score)| score))
    };
    for &(a, b) in &pairs {
        match (score(a)?, score(b)?) {
            (Some(x), Some(y)) if x >= y => drop(drops.insert(b, a)),
            (Some(_), Some(_)) => drop(drops.insert(a, b)),
            _ => {
                drops.insert(a, b);
                drops.insert(b, a);
            }
        }
    }
    state.done = true;
    state.notes = vec![("pictures under two names".into(), pairs.len().to_string())];
    if cut > 0 {
        state.notes.push((format!("hash buckets cut at {LARGEST_BUCKET} pictures"), cut.to_string()));
    }
    state.seconds += store.lap();
    store.write(|txn| {
        for (key, other) in &drops {
            txn.drop(Stage::Dedupe, *key, &Drop::Conflict(*other))?;
        }
        txn.put_state(Stage::Dedupe, state)
    })?;
    Ok(())
}

/// Why duplicates could not be sought.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DedupeError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A source is gone.
    #[error(transparent)]
    Source(#[from] SourceError),
}
